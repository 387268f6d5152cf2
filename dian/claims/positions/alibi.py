"""ALiBi: slopes and the bias of the scores."""

import math

import torch

from dian.claims import Mutant, claim
from dian.claims.compare import largest, relative
from dian.claims.positions.sinusoidal import PRESS
from dian.positions import alibi


@claim(
    "P14",
    "ALiBi",
    equations=("eq-alibi",),
    kinds="I E",
    tolerance=1e-10,
    source=f"{PRESS}, section 3",
    subjects=(alibi,),
    mutants=(
        Mutant("a reward for the distance", "alibi_bias",
               "-slopes[:, None, None]", "slopes[:, None, None]"),
        Mutant("slopes start at 1", "alibi_slopes",
               "torch.arange(1, n_head + 1, dtype=torch.float64)",
               "torch.arange(0, n_head, dtype=torch.float64)"),
        Mutant("one slope for all heads", "alibi_slopes",
               "torch.arange(1, n_head + 1, dtype=torch.float64)",
               "torch.ones(n_head, dtype=torch.float64)"),
        Mutant("only keys before the query", "alibi_bias",
               "(queries.double()[:, None] - keys.double()).abs()",
               "(queries.double()[:, None] - keys.double()).clamp(min=0)"),
        Mutant("queries and keys change places", "alibi_bias",
               "queries.double()[:, None] - keys.double()",
               "keys.double()[:, None] - queries.double()",
               raises="ValueError"),
    ),
)  # fmt: skip
def bias_by_distance() -> float:
    """Entry by entry; slopes from 2^(-8/H) to 1/256; a shift is unseen."""
    m, n = torch.tensor([4, 0, 11]), torch.tensor([2, 4, 5, 9, 17])
    residuals = []
    for heads in (1, 8, 5):
        found = alibi.alibi_bias(m, n, heads, torch.float64)
        slow = torch.empty(heads, 3, 5, dtype=torch.float64)
        for h in range(heads):
            for i, p in enumerate(m.tolist()):
                for j, q in enumerate(n.tolist()):
                    slow[h, i, j] = -math.fabs(p - q) / 256 ** ((h + 1) / heads)
        moved = alibi.alibi_bias(m + 7, n + 7, heads, torch.float64)
        residuals += [relative(found, slow), relative(moved, slow)]
    return largest(residuals)
