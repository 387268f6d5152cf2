"""RoPE scaling: frequencies for contexts longer than those in training."""

import math

import mpmath
import numpy as np
import sympy
import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, relative
from dian.claims.positions.rotary import omegas
from dian.positions import rotary, rotary_scaling, sinusoidal

BASE = 10_000
CASES = (
    {"d": 64, "factor": 8.0, "length": 2048},
    *({"d": 16, "factor": s, "length": 64, "beta_fast": 8.0} for s in (1.0, 2.0, 8.0)),
    {"d": 22, "factor": 4.0, "length": 300, "beta_slow": 2.0, "beta_fast": 20.0},
)
"""Of the paper; of the recorded runs, whose heads are narrow and whose texts short; and
one in which no argument of YaRN is its default."""


@claim(
    "P15",
    "Frequencies for longer texts",
    equations=("eq-interpolation", "eq-ntk", "eq-yarn"),
    kinds="S E I",
    tolerance=1e-10,
    source="Chen et al., 2023, arXiv:2306.15595; Peng et al., 2023, arXiv:2309.00071",
    assumptions="at least two pairs",
    subjects=(rotary_scaling, sinusoidal),
    mutants=(
        Mutant("positions are stretched, not squeezed", "position_interpolation",
               "return omega / factor", "return omega * factor"),
        Mutant("the base is multiplied by the factor alone", "ntk_aware",
               "torch.linspace(0, 1, len(omega), dtype=omega.dtype)",
               "torch.linspace(0, 1 - 1 / len(omega), len(omega), dtype=omega.dtype)"),
        Mutant("the exponents of the last pair in half precision", "ntk_aware",
               "torch.linspace(0, 1, len(omega), dtype=omega.dtype)",
               "torch.linspace(0, 1, len(omega), dtype=torch.half).to(omega.dtype)"),
        Mutant("the fast pairs are slowed", "yarn",
               "(1 - gamma) * omega / factor + gamma * omega",
               "gamma * omega / factor + (1 - gamma) * omega"),
        Mutant("rotations are counted in radians", "yarn",
               "original_max_positions * omega / (2 * math.pi)",
               "original_max_positions * omega"),
        Mutant("the ramp is not cut off", "yarn",
               "((r - beta_slow) / (beta_fast - beta_slow)).clamp(0, 1)",
               "(r - beta_slow) / (beta_fast - beta_slow)"),
        Mutant("the ramp ends at 32 rotations, whatever is asked for", "yarn",
               "(r - beta_slow) / (beta_fast - beta_slow)",
               "(r - beta_slow) / (32.0 - beta_slow)"),
        Mutant("the ramp begins at 1 rotation, whatever is asked for", "yarn",
               "(r - beta_slow) / (beta_fast - beta_slow)",
               "(r - 1.0) / (beta_fast - 1.0)"),
        Mutant("the ramp is measured from 0", "yarn",
               "(r - beta_slow) / (beta_fast - beta_slow)",
               "(r - beta_slow) / beta_fast"),
        Mutant("the factor without its 1", "yarn_attention_factor",
               "0.1 * math.log(factor) + 1", "0.1 * math.log(factor)"),
        Mutant("the factor of the scores, not of queries and keys",
               "yarn_attention_factor",
               "0.1 * math.log(factor) + 1", "(0.1 * math.log(factor) + 1) ** 2"),
        Mutant("a factor below 1 goes through", "_check", "factor >= 1", "factor >= 0"),
    ),
)  # fmt: skip
def longer() -> float:
    """Divided positions, another base, and a ramp over the rotations in training."""
    residuals = [new_base()]
    for case in CASES:
        d, s = case["d"], case["factor"]
        omega = omegas(d)
        interpolated = rotary_scaling.position_interpolation(omega, s)
        ntk = rotary_scaling.ntk_aware(omega, s)
        p = torch.arange(7).double()
        residuals += [
            relative(*(rotary.rotation_factors(q, w, torch.complex128)
                       for q, w in ((p, interpolated), (p / s, omega)))),
            relative(1 / ntk, wavelengths(d, s ** (d / (d - 2)))),
            relative(ntk, sinusoidal.frequencies(d, BASE * s ** (d / (d - 2)))),
            abs(ntk[0].item() - 1),
            abs(ntk[-1].item() * s / omega[-1].item() - 1),
            slowed_by_yarn(case, omega),
        ]  # fmt: skip
    # the square multiplies the scores: 1/t of the paper
    for s, expected in ((1.0, 1), (math.e**5, 1.5), (math.e**10, 2)):
        residuals.append(abs(rotary_scaling.yarn_attention_factor(s) - expected))
    try:
        rotary_scaling.position_interpolation(omega, 0.5)
    except ValueError:
        return largest(residuals)
    return math.inf


def new_base() -> float:
    """Solve for the base that divides the lowest frequency, in logarithms."""
    d, i, base, s, new = sympy.symbols("d i log_theta log_s log_new")
    last = d / 2 - 1

    def frequency(pair, base):
        return -2 * pair / d * base

    lowest = sympy.Eq(frequency(last, new), frequency(last, base) - s)
    (found,) = sympy.solve(lowest, new)
    change = frequency(i, found) - frequency(i, base)
    statements = (found - base - d / (d - 2) * s, change + i / last * s)
    return holds(all(sympy.simplify(x) == 0 for x in statements))


def wavelengths(d: int, factor: float) -> Tensor:
    """Return the wavelengths over 2 pi of a base times a factor, with 30 digits."""
    with mpmath.workdps(30):
        powers = [
            mpmath.power(BASE * mpmath.mpf(factor), mpmath.mpf(2 * i) / d)
            for i in range(d // 2)
        ]
        return torch.tensor([float(x) for x in powers], dtype=torch.float64)


def slowed_by_yarn(case: dict, omega: Tensor) -> float:
    """Compare how much each pair is slowed with a ramp that NumPy interpolates."""
    s, L = case["factor"], case["length"]
    options = {key: case[key] for key in ("beta_slow", "beta_fast") if key in case}
    found = rotary_scaling.yarn(omega, s, L, **options)
    rotations = L / (2 * math.pi * wavelengths(case["d"], 1.0))
    ends = [case.get("beta_slow", 1), case.get("beta_fast", 32)]
    share = np.interp(rotations.numpy(), ends, [1 / s, 1])
    return relative(found / omega, torch.from_numpy(share))
