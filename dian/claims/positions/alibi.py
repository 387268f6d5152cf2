"""ALiBi: slopes, the bias of the scores, and how far a head sees."""

import math

import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.claims.positions.sinusoidal import PRESS
from dian.positions import alibi


@claim(
    "P14",
    "ALiBi",
    equations=("eq-alibi", "eq-alibi-window"),
    kinds="I E H",
    tolerance=1e-10,
    source=f"{PRESS}, section 3; the window is our own",
    assumptions="the window: a causal mask, and scores without the bias that differ by "
    "at most a constant",
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
        Mutant("slopes of twice the number of heads", "alibi_bias",
               "alibi_slopes(n_head)", "alibi_slopes(2 * n_head)[:n_head]"),
        Mutant("only keys before the query", "alibi_bias",
               "(queries.double()[:, None] - keys.double()).abs()",
               "(queries.double()[:, None] - keys.double()).clamp(min=0)"),
        Mutant("queries and keys change places", "alibi_bias",
               "queries.double()[:, None] - keys.double()",
               "keys.double()[:, None] - queries.double()",
               raises="ValueError"),
        Mutant("a penalty on the squared distance", "alibi_bias",
               "-slopes[:, None, None] * distance",
               "-slopes[:, None, None] * distance**2"),
        Mutant("distances in bfloat16", "alibi_bias",
               "queries.double()[:, None] - keys.double()",
               "queries.bfloat16()[:, None] - keys.bfloat16()"),
        Mutant("the first query is at the first key", "AlibiBias.forward",
               "torch.arange(m - n, m)", "torch.arange(n)"),
        Mutant("the window of half the slope", "window",
               "(spread - math.log(rest)) / slope",
               "2 * (spread - math.log(rest)) / slope", module=__name__),
        Mutant("a window without the spread of the scores", "window",
               "(spread - math.log(rest)) / slope", "-math.log(rest) / slope",
               module=__name__),
    ),
)  # fmt: skip
def bias_by_distance() -> float:
    """Entry by entry; slopes from 2^(-8/H) to 1/256; a shift is unseen; the window."""
    m, n = torch.tensor([4, 0, 11]), torch.tensor([2, 4, 5, 9, 17])
    residuals = []
    for heads in (1, 8, 5):
        found = alibi.alibi_bias(m, n, heads, torch.float64)
        moved = alibi.alibi_bias(m + 700, n + 700, heads, torch.float64)
        slow = by_loops(m.tolist(), n.tolist(), heads)
        residuals += [relative(found, slow), relative(moved, slow)]
        # the layer: float32, and the last query at the last key
        layer = alibi.AlibiBias(heads)(3, 7)
        slow = by_loops([4, 5, 6], range(7), heads)
        rounded = relative(layer.double(), slow) <= 2**-24
        residuals.append(holds(layer.dtype == torch.float32 and rounded))
    return largest([*residuals, *window()])


def by_loops(queries, keys, heads: int) -> Tensor:
    """Return the bias entry by entry, with slopes that are roots of 1/256."""
    return torch.tensor(
        [
            [[-math.fabs(p - q) / 256 ** ((h + 1) / heads) for q in keys]
             for p in queries]
            for h in range(heads)
        ],
        dtype=torch.float64,
    )  # fmt: skip


def window(n: int = 6000, heads: int = 4) -> list[float]:
    """Weight beyond a window: geometric, below the bound, and close to it at worst."""
    bias = alibi.alibi_bias(
        torch.tensor([n - 1]), torch.arange(n), heads, torch.float64
    )
    by_distance, residuals = bias[:, 0].flip(-1), []
    (content,) = normal(0, (n,))
    for h in range(heads):
        slope = 4.0 ** -(h + 1)
        ratio = math.exp(-slope)
        geometric = ratio ** torch.arange(n, dtype=torch.float64)
        geometric = geometric * (1 - ratio) / (1 - ratio**n)
        residuals.append(relative(by_distance[h].softmax(-1), geometric))
        for spread in (0.0, 3.0):
            for rest in (0.1, 1e-3):
                far = math.ceil((spread - math.log(rest)) / slope)
                worst = torch.where(torch.arange(n) < far, 0.0, spread)
                random = spread * content.sigmoid()
                beyond = [
                    (by_distance[h] + scores).softmax(-1)[far:].sum().item()
                    for scores in (worst, random)
                ]
                residuals += [
                    holds(max(beyond) <= rest),
                    # rounded up to a whole position, and e^c of a small rest
                    holds(beyond[0] >= 0.85 * rest * ratio),
                ]
    return residuals
