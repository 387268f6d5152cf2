r"""An experiment: frozen settings, its data, how to run it, and the result of a run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class Outcome:
    """What one run of an experiment with one seed gives."""

    losses: list[float] = field(default_factory=list)
    """The training loss of every step, in the order of the steps."""
    series: dict[str, list[float]] = field(default_factory=dict)
    """Numbers by epoch; what is measured before training stands first."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The final numbers."""
    arrays: dict[str, Tensor] = field(default_factory=dict)
    """Larger results, such as predictions."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The trained parameters."""

    def state_dict(self) -> dict[str, Any]:
        """Return what has been found so far."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what had been found."""
        vars(self).update(state)


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
    smoke_settings: Callable[[Any, Any], tuple[Any, Any]]
    """Turn settings and data into those of a whole run in little, to be replayed."""
    n_seed: int = 5
    """How many seeds a record holds; the first is 0."""
