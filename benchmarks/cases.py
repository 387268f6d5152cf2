"""What is compared: a case, its sides, and where it runs."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


class Unavailable(Exception):
    """A side cannot run here; the message says why and what to do."""


@dataclass(frozen=True)
class Place:
    """Where the cases run, and how large they are."""

    device: torch.device
    size: str = "cpu"
    """``tiny`` to see that everything runs, ``cpu`` or ``gpu`` to measure."""

    def pick(self, tiny: Any, cpu: Any, gpu: Any = None) -> Any:
        """Return the value for this size; a GPU takes that of the CPU by default."""
        values = {"tiny": tiny, "cpu": cpu, "gpu": cpu if gpu is None else gpu}
        return values[self.size]

    def normal(self, *shape: int, seed: int = 0) -> Tensor:
        """Draw the same normal numbers everywhere."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, generator=generator).to(self.device)


@dataclass(frozen=True)
class Side:
    """One way of doing the computation of a case."""

    call: Callable[[], Any]
    """What is timed."""
    view: Callable[[Any], Sequence[Tensor]] | None = list
    """Brings what ``call`` returned into the layout of ours, to be compared. ``None``
    for a bound, such as a copy, that computes something else."""
    goal: float | None = None
    """How many times as long as ours it should take at least."""


@dataclass(frozen=True)
class Case:
    """A computation, and who does it."""

    title: str
    ours: Side
    peers: dict[str, Side]
    skipped: dict[str, str] = field(default_factory=dict)
    """Peers that cannot run here, and why."""
    tolerance: float = 1e-4
    """How far a peer may be from ours, relative to the largest entry."""
    flops: float = 0.0
    """Operations of its matrix products and convolutions."""
    moved: float = 0.0
    """Bytes that have to be read or written."""
    precision: torch.dtype = torch.float32
    """The type of the products, whose rate is the limit."""
    images: float = 0
    """Images that one call goes through, where that is of interest."""


def graphed(call: Callable[[], Any], place: Place) -> Callable[[], Any]:
    """Record what a call does on a GPU, to be played back; elsewhere it is the call."""
    if place.device.type != "cuda":
        return call
    beside = torch.cuda.Stream()
    with torch.cuda.stream(beside):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call()

    def play() -> Any:
        graph.replay()
        return found

    return play


def library(name: str) -> ModuleType:
    """Import a peer.

    Raises
    ------
    Unavailable
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0].replace("_", "-")
        raise Unavailable(
            f"{package} cannot be imported ({error}); "
            "pip install --group peers brings all peers"
        ) from None


def against(
    builders: dict[str, Callable[[], Side]],
) -> tuple[dict[str, Side], dict[str, str]]:
    """Build each side that can run here, and say of the others why they cannot."""
    sides, skipped = {}, {}
    for name, build in builders.items():
        try:
            sides[name] = build()
        except Unavailable as error:
            skipped[name] = str(error)
    return sides, skipped
