"""The runs that the report records: one file for each family, found by its name.

A module here offers ``EXPERIMENTS``, a tuple of :class:`Experiment`. Its settings are
frozen: to change one is to make another run, and every record made before is stale.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dian.training import Outcome


@dataclass(frozen=True)
class Experiment:
    """A run by its name: frozen settings, the data it reads, and how to do it."""

    name: str
    """What ``python -m dian train`` calls it."""
    settings: Any
    """A frozen dataclass of plain values."""
    quick: Any
    """The same, for a trial of seconds on the bundled sample."""
    data: Callable[[bool], Any]
    """Read the data; ``data(True)`` reads the bundled sample."""
    checksums: dict[str, str]
    """SHA-256 of every file that ``data(False)`` reads."""
    run: Callable[..., Outcome]
    """``run(settings, data, seed, device, *, dtype, after_step, checkpoint)``: what
    follows the star may be left out. Start weights are drawn in float32 whatever the
    type."""
    shorten: Callable[[Any, Any], tuple[Any, Any]]
    """Turn settings and data into those of a whole run in little, to be replayed."""
    n_seed: int = 5
    """How many seeds a record holds; the first is 0."""
