"""Rotary scaling: frequencies for contexts longer than those trained on."""

import math

import torch

from dian.claims import Mutant, claim
from dian.claims.compare import largest, relative
from dian.claims.positions.rotary import omegas
from dian.positions import rotary_scaling, sinusoidal


@claim(
    "P15",
    "Frequencies for longer texts",
    equations=("eq-interpolation", "eq-ntk", "eq-yarn"),
    kinds="E",
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
        Mutant("the fast pairs are slowed", "yarn",
               "(1 - gamma) * omega / factor + gamma * omega",
               "gamma * omega / factor + (1 - gamma) * omega"),
        Mutant("rotations are counted in radians", "yarn",
               "original_max_positions * omega / (2 * math.pi)",
               "original_max_positions * omega"),
        Mutant("the ramp is not cut off", "yarn",
               "((r - beta_slow) / (beta_fast - beta_slow)).clamp(0, 1)",
               "(r - beta_slow) / (beta_fast - beta_slow)"),
        Mutant("the factor without its 1", "yarn_attention_factor",
               "0.1 * math.log(factor) + 1", "0.1 * math.log(factor)"),
        Mutant("a factor below 1 goes through", "_check", "factor >= 1", "factor >= 0"),
    ),
)  # fmt: skip
def longer() -> float:
    """Pair by pair, and as another base; what turns often is left alone by YaRN."""
    d, s, L, base = 64, 8.0, 2048, 10_000
    omega, residuals = omegas(d), []
    found = [
        rotary_scaling.position_interpolation(omega, s),
        rotary_scaling.ntk_aware(omega, s),
        rotary_scaling.yarn(omega, s, L),
    ]
    slow = torch.empty(3, d // 2, dtype=torch.float64)
    for i, w in enumerate(omega.tolist()):
        r = L * w / (2 * math.pi)
        gamma = min(max((r - 1) / 31, 0), 1)
        slow[0, i] = base ** (-2 * i / d) / s
        slow[1, i] = (base * s ** (d / (d - 2))) ** (-2 * i / d)
        slow[2, i] = (1 - gamma) * w / s + gamma * w
    residuals = [relative(1 / a, 1 / b) for a, b in zip(found, slow, strict=True)]
    residuals.append(
        relative(found[1], sinusoidal.frequencies(d, base * s ** (64 / 62)))
    )
    residuals.append(abs(rotary_scaling.yarn_attention_factor(math.e**5) - 1.5))
    try:
        rotary_scaling.position_interpolation(omega, 0.5)
    except ValueError:
        return largest(residuals)
    return math.inf
