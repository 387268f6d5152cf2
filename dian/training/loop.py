"""The training loop, as an iterator over optimization steps."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dian.errors import require, require_whole
from dian.numerics import all_finite
from dian.training import distributed
from dian.training.clipping import clip_by_norm
from dian.training.schedules import SCHEDULES

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
"""The optimizers by their names in the settings of an experiment.

:meta hide-value:
"""


POSITION = ("losses", "epoch", "done", "order")
"""The attributes of :class:`Training` that store its progress."""


@dataclass(frozen=True)
class Step:
    """One optimization step that is done."""

    number: int
    """Counted from 1."""
    total: int
    """Number of steps of the whole training run."""
    epoch: int
    """Counted from 1."""
    loss: float
    """Of the batch, before the step."""
    grad_norm: float | None = None
    """Of the gradient before clipping; None without ``max_norm``."""
    epoch_loss: float | None = None
    """At the last step of an epoch, the mean of its losses; otherwise None."""


def check_data(name: str, data: object) -> None:
    """Raise unless the data are a loader, or tensors with equally many items."""
    if isinstance(data, DataLoader):
        return
    parts = data if isinstance(data, tuple) else (data,)
    got = ", ".join(type(part).__name__ for part in parts)
    require(
        isinstance(data, tuple) and all(isinstance(part, Tensor) for part in data),
        f"{name} must be a tuple of tensors or a DataLoader, got "
        f"{f'a tuple of {got}' if parts is data else got}",
    )
    lengths = [len(part) for part in parts]
    require(
        len(set(lengths)) == 1 and lengths[0],
        f"{name} must have the same number of items in all tensors, at least 1, "
        f"got {lengths}",
    )


@dataclass
class Training:
    """A training run, as an iterator over its steps.

    Iterating trains the model in place and yields a :class:`Step` after each step.
    Everything that the remaining steps depend on is in :meth:`state_dict`. A run
    that is given that state continues, and its result is bit by bit that of a run that
    was never interrupted. If a loss or a gradient is not finite, the iteration raises a
    :class:`FloatingPointError` before the step is taken. Without ``max_norm``,
    gradients are not checked, but the parameters are, after the last step.

    Examples
    --------
    The mean of three numbers, by gradient descent:

    >>> x, model = torch.tensor([1.0, 2.0, 6.0]), nn.Linear(1, 1, bias=False)
    >>> training = Training(
    ...     model,
    ...     lambda x: ((model.weight - x) ** 2).mean(),
    ...     (x,),
    ...     optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
    ...     batch_size=3,
    ...     epochs=90,
    ... )
    >>> for step in training:
    ...     pass
    >>> model.weight
    Parameter containing:
    tensor([[3.0000]], requires_grad=True)
    """

    model: nn.Module
    loss_fn: Callable[..., Tensor]
    """Takes the tensors of a batch, and returns the mean of the loss over its items."""
    data: tuple[Tensor, ...] | DataLoader
    """Tensors whose first axis is the items: each epoch sees all items once, in a new
    order. Or a loader of batches, whose order is its own and not part of the state."""
    _: KW_ONLY
    optimizer: torch.optim.Optimizer
    """Its learning rates are the peak rates."""
    epochs: int
    batch_size: int = 64
    """The last batch of an epoch may be smaller. A loader has its own."""
    generator: torch.Generator = field(default_factory=torch.Generator)
    """The source of the order of the items, on the CPU."""
    schedule: str | Callable[[float], float] = "constant"
    """The factor of the learning rate as a function of the fraction of steps done, or
    its name in :data:`~dian.training.schedules.SCHEDULES`."""
    max_norm: float | None = None
    """For :func:`~dian.training.clipping.clip_by_norm`."""
    transform: Callable[..., tuple[Tensor, ...]] | None = None
    """Called with the tensors of each batch, for augmentation and noise. Among several
    processes it is called in each with the whole batch, before that is sharded."""

    losses: list[float] = field(default_factory=list, init=False)
    """The loss of every step so far."""
    epoch: int = field(default=1, init=False)
    """The current epoch."""
    done: int = field(default=0, init=False)
    """The batches of the current epoch that are done."""
    order: Tensor | None = field(default=None, init=False)
    """The order of the items in the current epoch; None if none has begun."""

    def __post_init__(self):
        if isinstance(self.schedule, str):
            require(
                self.schedule in SCHEDULES,
                f"schedule must be one of {', '.join(SCHEDULES)} or a function, got "
                f"{self.schedule!r}",
            )
            self.schedule = SCHEDULES[self.schedule]
        require_whole("epochs", self.epochs, 0)
        require_whole("batch_size", self.batch_size, 1)
        require(
            self.max_norm is None or self.max_norm > 0,
            f"max_norm must be positive or None, got {self.max_norm}",
        )
        require(
            isinstance(self.optimizer, torch.optim.Optimizer),
            f"optimizer must be an object, such as torch.optim.Adam(model.parameters())"
            f", got {self.optimizer!r}",
        )
        check_data("data", self.data)
        self._peak_rates = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        if isinstance(self.data, DataLoader):
            return len(self.data)
        return math.ceil(len(self.data[0]) / self.batch_size)

    def __iter__(self) -> Iterator[Step]:
        loss_fn = distributed.data_parallel(self.model, self.loss_fn)
        while self.epoch <= self.epochs:
            for batch in self._batches():
                yield self._step(loss_fn, batch)
            self.epoch, self.done, self.order = self.epoch + 1, 0, None
        # The gradient of the last step may be wrong where no loss follows to show it.
        for name, parameter in self.model.named_parameters():
            if not all_finite(parameter):
                raise FloatingPointError(
                    f"after the last step {name} is not finite; lower the learning "
                    "rate, or clip the gradient"
                )

    def _batches(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield the batches of the current epoch that are not done yet."""
        if isinstance(self.data, DataLoader):
            for batch in itertools.islice(self.data, self.done, None):
                yield (batch,) if isinstance(batch, Tensor) else tuple(batch)
            return
        if self.order is None:
            order = torch.randperm(len(self.data[0]), generator=self.generator)
            # A generator that the model draws from, too, may differ among processes.
            self.order = distributed.broadcast_from_rank0(order)
        for index in self.order.split(self.batch_size)[self.done :]:
            yield tuple(part[index] for part in self.data)

    def _step(self, loss_fn: Callable[..., Tensor], batch: tuple[Tensor, ...]) -> Step:
        total, grad_norm = self.epochs * self.steps_per_epoch, None
        for group, rate in zip(
            self.optimizer.param_groups, self._peak_rates, strict=True
        ):
            group["lr"] = rate * self.schedule(len(self.losses) / total)
        self.model.train()
        if self.transform is not None:
            batch = self.transform(*batch)
        self.optimizer.zero_grad()
        loss = loss_fn(*batch)
        self.losses.append(loss.item())
        if not math.isfinite(self.losses[-1]):
            raise self._failure(
                f"the loss is {self.losses[-1]}, expected a finite number; lower the "
                "learning rate, or clip the gradient"
            )
        loss.backward()
        if self.max_norm is not None:
            try:
                grad_norm = clip_by_norm(self.model.parameters(), self.max_norm)
            except ValueError as error:
                raise self._failure(str(error)) from None
        self.optimizer.step()
        self.done += 1
        step = Step(len(self.losses), total, self.epoch, self.losses[-1], grad_norm)
        if self.done < self.steps_per_epoch:
            return step
        recent = self.losses[-self.steps_per_epoch :]
        return replace(step, epoch_loss=sum(recent) / len(recent))

    def _failure(self, reason: str) -> FloatingPointError:
        """Return an error that names the step, the epoch and the items."""
        where = f"step {len(self.losses)} (epoch {self.epoch}"
        if self.order is not None:
            index = self.order.split(self.batch_size)[self.done].tolist()
            items = ", ".join(map(str, index[:8])) + (", …" if len(index) > 8 else "")
            where += f", items {items}"
        return FloatingPointError(f"{where}): {reason}")

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the remaining steps depend on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        } | {name: getattr(self, name) for name in POSITION}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of another training run of the same kind."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        for name in POSITION:
            setattr(self, name, copy(state[name]))
