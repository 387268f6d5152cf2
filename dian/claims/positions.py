"""Chapter 2: positional encodings."""

import mpmath
import torch

from dian import positions
from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, relative

VASWANI = (
    "Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762, section 3.5"
)


def refuses(call, *arguments) -> float:
    """Return 0 if a call raises a ValueError, and infinity if it goes through."""
    try:
        call(*arguments)
    except ValueError:
        return 0.0
    return holds(False)


@claim(
    "P1",
    "Sinusoidal encoding",
    equations=("eq-sinusoidal",),
    kinds="I E",
    tolerance=1e-10,
    source=VASWANI,
    assumptions="d is even",
    subjects=(positions,),
    mutants=(
        Mutant(
            "sine and cosine change places",
            "[angles.sin(), angles.cos()]",
            "[angles.cos(), angles.sin()]",
        ),
        Mutant(
            "the cosine is used twice",
            "[angles.sin(), angles.cos()]",
            "[angles.cos(), angles.cos()]",
        ),
        Mutant(
            "halves in place of neighbouring pairs",
            "torch.stack([angles.sin(), angles.cos()], dim=-1)",
            "torch.stack([angles.sin(), angles.cos()], dim=-2)",
        ),
        Mutant("divided by d - 2: the last wavelength is 10000", ") / d)",
               ") / (d - 2))"),
        Mutant("positions in the type of the result", "positions.double()",
               "positions.bfloat16()"),
        Mutant("an odd width goes through", "d <= 0 or d % 2", "d <= 0"),
    ),
)  # fmt: skip
def sinusoidal(positions) -> float:
    """Each entry against the formula with 30 digits; the start; odd widths refused."""
    d = 14
    where = torch.tensor([0, 1, 7, 257, 100_000])
    found = positions.sinusoidal_encoding(where, d, dtype=torch.float64)
    expected = torch.empty_like(found)
    with mpmath.workdps(30):
        for row, p in enumerate(where.tolist()):
            for i in range(d // 2):
                angle = p / mpmath.power(10_000, mpmath.mpf(2 * i) / d)
                expected[row, 2 * i] = float(mpmath.sin(angle))
                expected[row, 2 * i + 1] = float(mpmath.cos(angle))
    start = torch.tensor([0.0, 1.0] * (d // 2), dtype=torch.float64)
    return largest(
        [
            relative(found, expected),
            relative(found[0], start),
            refuses(positions.sinusoidal_encoding, where, 7),
        ]
    )
