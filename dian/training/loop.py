"""One training loop for every network of the report."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dian.errors import DianError
from dian.runs.checkpoint import Checkpoint, differences
from dian.training import distributed


@runtime_checkable
class Stateful(Protocol):
    """Something whose state can be taken, and be given to another of its kind."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return tensors and plain values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> object:
        """Take them over."""


def fit(
    model: nn.Module,
    loss_fn: Callable[[Tensor], Tensor],
    n_samples: int,
    *,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    epochs: int,
    generator: torch.Generator,
    schedule: Callable[[float], float],
    clip: Callable[[Iterable[nn.Parameter]], object] | None = None,
    after_step: Callable[[int, int, float], None] | None = None,
    after_epoch: Callable[[int, float], None] | None = None,
    checkpoint: Checkpoint | None = None,
    keep: Mapping[str, Stateful] | None = None,
) -> list[float]:
    """Train a model in place, and return the loss of every step.

    With a checkpoint, the state is saved now and then; if one is there, the training
    goes on from it, and gives what it would have given without the interruption.

    Parameters
    ----------
    model
        Left in training mode.
    loss_fn
        The loss of the items with these indices. It holds the data, which stay where
        they are: nothing is loaded, and nothing is copied but one batch. It calls the
        model once, so that several processes can share the batch
        (:func:`dian.training.distributed.spread`).
    n_samples
        Number of items; each epoch sees all of them once, in a new order. The last
        batch of an epoch may be smaller.
    optimizer
        Its learning rates, as given, are the highest ones.
    batch_size, epochs
        Items in a batch, and passes over the data.
    generator
        The source of the order of the data, on the CPU.
    schedule
        The factor of the learning rate, from the share of all steps that are done:
        0 at the first step, below 1 at the last.
    clip
        Called with the parameters between the backward pass and the step.
    after_step
        Called with the steps done, the steps in all, and the loss of the last one.
    after_epoch
        Called with the epochs done, and the mean loss of the last one.
    checkpoint
        Where the state is saved, and is looked for at the beginning.
    keep
        By name, whatever else changes during the training and is not in ``model``,
        ``optimizer`` or ``generator``: it is saved and restored with them.

    Raises
    ------
    DianError
        If a loss is not finite, or ``clip`` refuses its gradient: the parameters are
        those that gave it, and are saved beside the checkpoint, which stays as it was.
        If the checkpoint is of another model.

    Examples
    --------
    The mean of three numbers, found by descent:

    >>> import torch
    >>> from torch import nn
    >>> from dian.training.schedules import SCHEDULES
    >>> x, model = torch.tensor([1.0, 2.0, 6.0]), nn.Linear(1, 1, bias=False)
    >>> losses = fit(model, lambda i: ((model.weight - x[i]) ** 2).mean(), 3,
    ...              optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
    ...              schedule=SCHEDULES["constant"], batch_size=3, epochs=90,
    ...              generator=torch.Generator())
    >>> model.weight
    Parameter containing:
    tensor([[3.0000]], requires_grad=True)
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    n_step = epochs * math.ceil(n_samples / batch_size)
    run = _Run(model, optimizer, generator, keep or {})
    if checkpoint is not None and (saved := checkpoint.load()):
        run.restore(saved, checkpoint)
    losses = run.losses
    with distributed.spread(model, loss_fn) as loss_fn:
        for epoch in range(run.epoch, epochs + 1):
            model.train()
            if run.order is None:
                run.epoch, run.done = epoch, 0
                run.order = torch.randperm(n_samples, generator=generator)
            batches = run.order.split(batch_size)
            for index in batches[run.done :]:
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * schedule(len(losses) / n_step)
                run.step(loss_fn, index, clip, checkpoint)
                if after_step is not None:
                    after_step(len(losses), n_step, losses[-1])
                if run.done == len(batches) and after_epoch is not None:
                    recent = losses[-len(batches) :]
                    after_epoch(epoch, sum(recent) / len(recent))
                if checkpoint is not None and checkpoint.due():
                    checkpoint.save(run.state())
            run.order = None
    return losses


@dataclass
class _Run:
    """Everything that changes while a model is trained."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    keep: Mapping[str, Stateful]
    losses: list[float] = field(default_factory=list)
    epoch: int = 1
    order: Tensor | None = None
    """The items of this epoch, in their order; None between two epochs."""
    done: int = 0
    """Batches of this epoch that are done."""

    def step(
        self,
        loss_fn: Callable[[Tensor], Tensor],
        index: Tensor,
        clip: Callable[[Iterable[nn.Parameter]], object] | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        """Go down the loss of one batch, or save the state that cannot."""
        self.optimizer.zero_grad()
        loss = loss_fn(index)
        self.losses.append(loss.item())
        try:
            if not math.isfinite(self.losses[-1]):
                raise ValueError(
                    f"the loss is {self.losses[-1]}, expected a finite number; lower "
                    "the learning rate, or clip"
                )
            loss.backward()
            if clip is not None:
                clip(self.model.parameters())
        except ValueError as error:
            raise DianError(self.failure(str(error), index, checkpoint)) from None
        self.optimizer.step()
        self.done += 1

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "keep": {name: part.state_dict() for name, part in self.keep.items()},
            "losses": self.losses,
            "epoch": self.epoch,
            "order": self.order,
            "done": self.done,
        }

    def restore(self, saved: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        found, expected = _kinds(saved["model"]), _kinds(self.model.state_dict())
        if found != expected:
            raise DianError(
                f"{checkpoint.path}: of another model: "
                f"{'; '.join(differences(found, expected))}; go on with the code that "
                "began the training, or remove the file"
            )
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.generator.set_state(saved["generator"])
        for name, part in self.keep.items():
            part.load_state_dict(saved["keep"][name])
        self.losses, self.epoch = saved["losses"], saved["epoch"]
        self.order, self.done = saved["order"], saved["done"]

    def failure(self, reason: str, index: Tensor, checkpoint: Checkpoint | None) -> str:
        """Save the state of a step that failed, and tell the user of it."""
        items = ", ".join(map(str, index[:8].tolist()))
        more = ", …" if len(index) > 8 else ""
        told = (
            f"step {len(self.losses)} (epoch {self.epoch}, items {items}{more}): "
            f"{reason}"
        )
        if checkpoint is None:
            return told
        failed = Checkpoint(
            checkpoint.path.with_suffix(".failed.checkpoint"), checkpoint.identity
        )
        failed.save(self.state() | {"items": index})
        return f"{told}; the state that failed is in {failed.path}"


def _kinds(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Describe each tensor by what must not change between saving and restoring."""
    return {
        name: f"{str(w.dtype).removeprefix('torch.')} {tuple(w.shape)}"
        for name, w in weights.items()
    }


OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
"""The optimisers by their name in the settings of an experiment.

:meta hide-value:
"""
