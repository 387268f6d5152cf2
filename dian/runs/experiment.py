"""An experiment, the job of one run of it, and the outcome of that run."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dian.errors import DianError, did_you_mean
from dian.runs.checkpoint import Checkpoint

PACKAGE = "dian.experiments"
"""Where experiments are found. It is imported by name, when it is asked for: this
module and its package depend on no experiment, and so on no chapter."""


@dataclass
class Outcome:
    """What one run of an experiment with one seed gives."""

    losses: list[float] = field(default_factory=list)
    """The training loss of every step."""
    series: dict[str, list[float]] = field(default_factory=dict)
    """Numbers by epoch; those before training come first."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The final numbers."""
    arrays: dict[str, Tensor] = field(default_factory=dict)
    """Larger results, such as predictions."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The trained parameters."""

    def state_dict(self) -> dict[str, Any]:
        """Return the results so far."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore earlier results."""
        vars(self).update(state)


@dataclass
class Job:
    """What every run receives, whatever the experiment.

    The run itself uses the seed, the device and the type, and iterates over
    ``job.follow(training)`` in place of its training loop: that saves checkpoints, goes
    on from them, and reports the steps.
    """

    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    """Initial weights are drawn in float32 whatever the type."""
    report: Callable[[int, Any], object] | None = None
    """Called with the seed and each step of the training loop."""
    checkpoint: Checkpoint | None = None

    def follow(self, training: Any, **parts: Any) -> Iterator[Any]:
        """Yield the steps of a training loop that are not done yet.

        Parameters
        ----------
        training
            An iterable with a state, such as :class:`dian.training.loop.Training`.
        parts
            Whatever else changes during the run and has a ``state_dict()``. It is saved
            and restored, too; what the caller does after a step is saved with the step.
        """
        parts["training"] = training

        def save(checkpoint: Checkpoint) -> None:
            checkpoint.save({name: part.state_dict() for name, part in parts.items()})

        if self.checkpoint and (saved := self.checkpoint.load()):
            for name, part in parts.items():
                part.load_state_dict(saved[name])
        try:
            for step in training:
                yield step
                if self.report:
                    self.report(self.seed, step)
                # The evaluation after the last step can take minutes.
                last = step.number == step.total
                if self.checkpoint and (last or self.checkpoint.due()):
                    save(self.checkpoint)
        except FloatingPointError as error:
            told = str(error)
            if self.checkpoint:
                failed = self.checkpoint.beside(".failed.checkpoint")
                save(failed)
                told += f"; the state that failed is in {failed.path}"
            raise DianError(told) from None


@dataclass(frozen=True)
class Experiment:
    """A run by its name: frozen settings, the data it reads, and how to do it."""

    name: str
    """What ``python -m dian train`` calls it."""
    settings: Any
    """A frozen dataclass of plain values."""
    quick: Any
    """The same for a dry run of seconds on the bundled sample."""
    data: Callable[[bool], Any]
    """Read the data; ``data(True)`` reads the bundled sample."""
    build: Callable[[Any, torch.Generator | None], nn.Module]
    """Build the network from settings; the generator draws its initial weights. The
    module that defines this function is the one whose code the record depends on."""
    run: Callable[[Any, Any, Job], Outcome]
    """``run(settings, data, job)`` trains and evaluates one network."""
    smoke_settings: Callable[[Any, Any], tuple[Any, Any]]
    """Reduce settings and data to those of a short replay of the whole run."""
    checksums: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of every file that ``data(False)`` reads."""
    n_seed: int = 5
    """How many seeds a record holds; the first is 0."""

    @property
    def module(self) -> str:
        """The module that defines the experiment."""
        return self.build.__module__


def experiments() -> dict[str, Experiment]:
    """Import every module of experiments, and return all experiments by name.

    >>> "rnn-fashion-mnist" in experiments()
    True
    """
    folders = importlib.import_module(PACKAGE).__path__
    modules = pkgutil.walk_packages(folders, f"{PACKAGE}.")
    found = {}
    for module in map(importlib.import_module, (module.name for module in modules)):
        found |= {e.name: e for e in getattr(module, "EXPERIMENTS", ())}
    return dict(sorted(found.items()))


def find(name: str) -> Experiment:
    """Return the experiment of this name; if there is none, list the nearest names."""
    known = experiments()
    if name not in known:
        raise DianError(f"no experiment {name!r}; {did_you_mean(name, known)}")
    return known[name]
