"""A student's solution of task 2 in NumPy, with signatures of their own."""

import numpy as np


def sinusoidal(max_len, d_model):
    pos = np.arange(max_len)[:, np.newaxis]
    i = np.arange(0, d_model, 2)
    div = np.exp(-np.log(10000.0) * i / d_model)
    pe = np.zeros((max_len, d_model))
    pe[:, 0::2] = np.sin(pos * div)
    pe[:, 1::2] = np.cos(pos * div)
    return pe


def rotation_matrix(m, d, base):
    R = np.zeros((d, d))
    for i in range(d // 2):
        phi = m * base ** (-2 * i / d)
        R[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [
            [np.cos(phi), -np.sin(phi)],
            [np.sin(phi), np.cos(phi)],
        ]
    return R


def rotary(x, base=10000):
    """x: (seq_len, d). Each row is multiplied by its block-diagonal matrix."""
    seq_len, d = x.shape
    return np.stack([rotation_matrix(m, d, base) @ x[m] for m in range(seq_len)])


def rotary_of_one(x, m, base=10000.0):
    """One vector at one position."""
    return rotation_matrix(m, len(x), base) @ x


def rotary_of_both(q, k, positions):
    d = q.shape[-1]
    inv_freq = 1.0 / (10000 ** (np.arange(0, d, 2) / d))
    angles = positions[:, None] * inv_freq[None, :]
    cos, sin = np.repeat(np.cos(angles), 2, -1), np.repeat(np.sin(angles), 2, -1)

    def swap(x):
        y = np.zeros_like(x)
        y[..., ::2] = -x[..., 1::2]
        y[..., 1::2] = x[..., ::2]
        return y

    return q * cos + swap(q) * sin, k * cos + swap(k) * sin
