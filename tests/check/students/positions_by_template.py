"""A student's solution of task 2 in NumPy, with the signatures of the templates."""

import numpy as np


def sinusoidal(positions, d, base=10000.0):
    PE = np.zeros((len(positions), d))
    for row, p in enumerate(positions):
        for i in range(d // 2):
            omega = base ** (-2 * i / d)
            PE[row, 2 * i] = np.sin(p * omega)
            PE[row, 2 * i + 1] = np.cos(p * omega)
    return PE


def rotary(x, positions=None, base=10000.0):
    n, d = x.shape[-2:]
    if positions is None:
        positions = np.arange(n)
    omega = base ** (-2 * np.arange(d // 2) / d)
    angle = np.outer(positions, omega)
    z = x[..., 0::2] + 1j * x[..., 1::2]
    z = z * np.exp(1j * angle)
    out = np.empty_like(x)
    out[..., 0::2] = z.real
    out[..., 1::2] = z.imag
    return out
