"""The clock: sides that take turns, and what is made of their times."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Case

OURS = "dian"

LEAST = 3
"""Rounds, however long they take."""


class Differs(Exception):
    """A peer does not compute what ours computes, so that its time says nothing."""


@dataclass(frozen=True)
class Against:
    """What came out against one peer."""

    theirs: float
    """Their median, in the unit of the result."""
    ratios: list[float]
    """How many times as much as ours, round by round."""
    goal: float | None = None
    """What the ratio should be at least."""
    residual: float | None = None
    """How far apart the two computations are; ``None`` if they are not the same."""

    @property
    def ratio(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The middle half of the rounds."""
        if len(self.ratios) < 2:
            return self.ratios[0], self.ratios[0]
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, high

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; ``None`` without one."""
        return None if self.goal is None else self.ratio >= self.goal


@dataclass(frozen=True)
class Result:
    """What came out of a case."""

    title: str
    unit: str
    ours: float
    """Our median, in this unit."""
    against: dict[str, Against]
    skipped: dict[str, str] = field(default_factory=dict)
    limit: float | None = None
    """What the arithmetic alone would take, or the memory, whichever is more."""
    images: float = 0


def compare(name: str, expected: Sequence[Tensor], found: Sequence[Tensor], tol: float):
    """Return how far two lists of tensors are apart, relative to the largest entries.

    Raises
    ------
    Differs
        If they are of different shapes, or further apart than allowed.
    """
    shapes = [[tuple(x.shape) for x in side] for side in (expected, found)]
    if shapes[0] != shapes[1]:
        raise Differs(f"{name} returns shapes {shapes[1]}, ours returns {shapes[0]}")
    residuals = [0.0]
    for a, b in zip(expected, found, strict=True):
        scale = max(a.abs().max().item(), 1e-30)
        residual = (a.double() - b.double()).abs().max().item() / scale
        if not residual <= tol:  # also NaN
            raise Differs(
                f"{name} differs from ours by {residual:.2g}, allowed are {tol}"
            )
        residuals.append(residual)
    return max(residuals)


def measure(
    case: Case, device: torch.device, seconds: float, limit: float | None = None
) -> Result:
    """Compare all sides, then time them.

    Parameters
    ----------
    case
        What to measure.
    device
        Where its tensors are: a GPU is waited for.
    seconds
        For how long; the rounds are at least :data:`LEAST`.
    limit
        Milliseconds that the machine needs for the arithmetic alone.
    """
    expected = case.ours.view(case.ours.call())
    residuals = {
        name: compare(name, expected, side.view(side.call()), case.tolerance)
        for name, side in case.peers.items()
        if side.view is not None
    }
    del expected
    calls = {OURS: case.ours.call} | {n: side.call for n, side in case.peers.items()}
    times = interleaved(calls, device, seconds)
    ours = times.pop(OURS)
    found = {
        name: Against(
            statistics.median(theirs),
            [b / a for a, b in zip(ours, theirs, strict=True)],
            case.peers[name].goal,
            residuals.get(name),
        )
        for name, theirs in times.items()
    }
    median = statistics.median(ours)
    return Result(
        case.title, "ms", median, found, case.skipped, limit, images=case.images
    )


def interleaved(
    calls: Mapping[str, Callable[[], Any]], device: torch.device, seconds: float
) -> dict[str, list[float]]:
    """Time each call in turn, again and again; milliseconds a call, one for each round.

    A short call is repeated until 20 ms are full, so that the clock is not what is
    measured; the order changes from round to round.
    """

    def of(call: Callable[[], Any], times: int) -> float:
        begin = clock(device)
        for _ in range(times):
            call()
        return 1000 * (clock(device) - begin) / times

    repeats = {}
    for name, call in calls.items():  # called before, to be compared: warm
        repeats[name] = min(max(1, round(20 / of(call, 1))), 200)
    found = {name: [] for name in calls}
    order = list(calls)
    begin = time.perf_counter()
    gc.collect()
    gc.disable()
    try:
        while len(found[OURS]) < LEAST or time.perf_counter() - begin < seconds:
            for name in order:
                found[name].append(of(calls[name], repeats[name]))
            order = [*order[1:], order[0]]
    finally:
        gc.enable()
    return found


def clock(device: torch.device) -> float:
    """Return the time in seconds, when a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
