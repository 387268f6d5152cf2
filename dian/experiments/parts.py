"""Work that is done in parts, such as sampling, and resumes after an interruption."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class PartDone:
    """One part that is done; a job reports it as it does a step of training."""

    number: int
    """Counted from 1."""
    total: int
    """Number of all parts."""
    name: str


class Parts:
    """Results that are computed one after the other, as an iterator.

    Those of a state that was loaded are not computed again. So the order of the parts
    must not matter: each draws its random numbers from a generator of its own.

    Parameters
    ----------
    tasks
        What computes each result, by its name.

    Examples
    --------
    >>> parts = Parts({"a": lambda: torch.zeros(1), "b": lambda: torch.ones(1)})
    >>> parts.load_state_dict({"a": torch.tensor([5.0])})
    >>> [part.name for part in parts]
    ['b']
    >>> sorted(parts.results.items())
    [('a', tensor([5.])), ('b', tensor([1.]))]
    """

    def __init__(self, tasks: Mapping[str, Callable[[], torch.Tensor]]):
        self.tasks = tasks
        self.results: dict[str, torch.Tensor] = {}

    def __iter__(self) -> Iterator[PartDone]:
        for name, compute in self.tasks.items():
            if name not in self.results:
                self.results[name] = compute()
                yield PartDone(len(self.results), len(self.tasks), name)

    def state_dict(self) -> dict[str, Any]:
        """Return the results so far."""
        return self.results

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore earlier results."""
        self.results = dict(state)
