r"""Chapter 1: the learning-rate schedules of the recorded runs, at every step."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import lr_scheduler

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest
from dian.training import schedules

N_STEP = 97


def of_torch(make: Callable, n_step: int = N_STEP) -> list[float]:
    """The learning rate that a scheduler of torch sets for each step; the peak is 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(n_step):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def one_cycle_of_torch(optimizer) -> lr_scheduler.OneCycleLR:
    """Torch counts the steps from 1 to the last; so one more ends at a rate of 0."""
    total = N_STEP + 1
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=total,
        pct_start=(0.3 * N_STEP + 1) / total,
        final_div_factor=math.inf,
        cycle_momentum=False,
    )


def warm_up_of_torch(n_warm_up: int) -> Callable:
    """A linear warm-up that multiplies a cosine."""

    def make(optimizer) -> lr_scheduler.ChainedScheduler:
        linear = lr_scheduler.LinearLR(
            optimizer, start_factor=1 / n_warm_up, total_iters=n_warm_up - 1
        )
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=N_STEP)
        return lr_scheduler.ChainedScheduler([linear, cosine])

    return make


@claim(
    "R20b",
    "Learning-rate schedules",
    equations=("eq-lr-cosine", "eq-lr-one-cycle", "eq-lr-warm-up"),
    kinds="I E",
    tolerance=1e-12,
    source="Loshchilov and Hutter, SGDR, 2017, arXiv:1608.03983; Smith and Topin, "
    "Super-convergence, 2018, arXiv:1708.07120; Goyal et al., Accurate, large "
    "minibatch SGD, 2017, arXiv:1706.02677",
    subjects=(schedules,),
    mutants=(
        Mutant("a full period of the cosine", "cosine", "math.pi * progress",
               "2 * math.pi * progress"),
        Mutant("a straight line", "cosine",
               "(1 + math.cos(math.pi * progress)) / 2", "1 - progress"),
        Mutant("the first rate is peak / 10", "one_cycle", "1 / 25", "1 / 10"),
        Mutant("the warm-up is half of the cycle", "one_cycle",
               "progress < 0.3", "progress < 0.5"),
        Mutant("the warm-up falls", "one_cycle",
               "1 - (1 - 1 / 25) * cosine(progress / 0.3)",
               "1 / 25 + (1 - 1 / 25) * cosine(progress / 0.3)"),
        Mutant("the decay begins late", "one_cycle",
               "(progress - 0.3) / 0.7", "progress"),
        Mutant("the first step has a rate of 0", "linear_warm_up",
               "(done + 1) / n_warm_up", "done / n_warm_up"),
        Mutant("the warm-up does not end", "linear_warm_up",
               "min(1.0, (done + 1) / n_warm_up)", "(done + 1) / n_warm_up"),
        Mutant("the warm-up takes the place of the schedule", "linear_warm_up",
               "schedule(progress) * min(1.0, (done + 1) / n_warm_up)",
               "min(1.0, (done + 1) / n_warm_up)"),
        Mutant("progress is truncated and not rounded to a step", "linear_warm_up",
               "round(progress * n_step)", "int(progress * n_step)"),
        Mutant("a constant rate falls", "SCHEDULES",
               "lambda progress: 1.0", "lambda progress: 1.0 - progress"),
    ),
)  # fmt: skip
def all_steps() -> float:
    """All factors equal those of PyTorch's schedulers, for short and long runs."""
    progress = [done / N_STEP for done in range(N_STEP)]
    named = schedules.SCHEDULES
    pairs = [
        ([named["constant"](p) for p in progress], N_STEP * [1.0]),
        (
            [named["cosine"](p) for p in progress],
            of_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=N_STEP)),
        ),
        ([named["one-cycle"](p) for p in progress], of_torch(one_cycle_of_torch)),
    ]
    for n_warm_up in (2, 30):
        factor = schedules.linear_warm_up(named["cosine"], n_warm_up, N_STEP)
        found = [factor(p) for p in progress]
        pairs.append((found, of_torch(warm_up_of_torch(n_warm_up))))
    untouched = schedules.linear_warm_up(named["cosine"], 0, N_STEP)
    residuals = [
        abs(a - b)
        for found, expected in pairs
        for a, b in zip(found, expected, strict=True)
    ]
    return largest(
        [
            *residuals,
            *(abs(untouched(p) - pairs[1][1][i]) for i, p in enumerate(progress)),
            *(abs(named[name](1.0)) for name in ("cosine", "one-cycle")),
            abs(named["one-cycle"](0.3) - 1),
            # All steps of a long run find their number again
            holds(warm_steps(5851, 500)),
        ]
    )


def warm_steps(n_step: int, n_warm_up: int) -> bool:
    """Step t of the warm-up has exactly the factor t / n_warm_up."""
    factor = schedules.linear_warm_up(lambda progress: 1.0, n_warm_up, n_step)
    expected = [min(1.0, t / n_warm_up) for t in range(1, n_step + 1)]
    return [factor(t / n_step) for t in range(n_step)] == expected
