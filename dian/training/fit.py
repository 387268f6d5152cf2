"""``fit``: train a model on tensors or a loader in one call."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dian.errors import require
from dian.training.loop import Training, check_data
from dian.training.loss import cross_entropy

Data = tuple[Tensor, Tensor] | DataLoader


@dataclass(repr=False)
class History:
    """The losses and accuracies that :func:`fit` measured."""

    losses: list[float] = field(default_factory=list)
    """The training loss of every step."""
    epoch_losses: list[float] = field(default_factory=list)
    """The mean training loss of every epoch."""
    validation_losses: list[float] = field(default_factory=list)
    """The validation loss after every epoch; empty without ``validate``."""
    accuracies: list[float] = field(default_factory=list)
    """The validation accuracy after every epoch, if the targets are classes."""

    def __repr__(self) -> str:
        told = f"{len(self.epoch_losses)} epochs"
        if self.losses:
            told += f", training loss {self.losses[-1]:.4g}"
        if self.validation_losses:
            told += f", validation loss {self.validation_losses[-1]:.4g}"
        if self.accuracies:
            told += f", accuracy {self.accuracies[-1]:.4f}"
        return f"<History: {told}>"


def fit(
    model: nn.Module,
    data: Data,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    epochs: int = 10,
    batch_size: int = 64,
    lr: float | None = None,
    validate: Data | None = None,
    seed: int = 0,
    **options: Any,
) -> History:
    """Train a model in place on inputs and targets.

    Parameters
    ----------
    model
        Called with a batch of inputs, which are moved to its device. It is left in
        evaluation mode.
    data
        Inputs and targets, or a loader that yields batches of both.
    loss
        Called with outputs and targets; returns the mean over the items.
    batch_size
        A loader has its own.
    lr
        The learning rate of Adam. Default: 0.001.
    validate
        Other inputs and targets: their loss, and if the targets are classes the
        accuracy, is computed after each epoch.
    seed
        Determines the order of the items.
    options
        Fields of :class:`~dian.training.loop.Training`: ``schedule``, ``max_norm``,
        ``transform``, or ``optimizer`` in place of Adam.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(200, 2, generator=generator)
    >>> y = (x.sum(1) > 0).long()
    >>> model = nn.Linear(2, 2)
    >>> for parameter in model.parameters():
    ...     _ = nn.init.zeros_(parameter)
    >>> fit(model, (x[:150], y[:150]), lr=0.1, validate=(x[150:], y[150:]))
    <History: 10 epochs, training loss 0..., validation loss 0..., accuracy ...>
    """
    apart = lr is None or "optimizer" not in options
    require(apart, "lr is for Adam, and an optimizer has its own, got both")
    rate = 1e-3 if lr is None else lr
    options.setdefault("optimizer", torch.optim.Adam(model.parameters(), lr=rate))
    if validate is not None:
        check_data("validate", validate)
    device, history = next(model.parameters()).device, History()

    def outputs_and_target(batch: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        *inputs, target = (part.to(device) for part in batch)
        return model(*inputs), target

    training = Training(
        model,
        lambda *batch: loss(*outputs_and_target(batch)),
        data,
        epochs=epochs,
        batch_size=batch_size,
        generator=torch.Generator().manual_seed(seed),
        **options,
    )
    history.losses = training.losses
    for step in training:
        if step.epoch_loss is None:
            continue
        history.epoch_losses.append(step.epoch_loss)
        if validate is not None:
            model.eval()
            with torch.no_grad():
                parts = [outputs_and_target(batch) for batch in _batches(validate)]
            outputs, target = (torch.cat(part) for part in zip(*parts, strict=True))
            history.validation_losses.append(loss(outputs, target).item())
            if outputs.ndim == target.ndim + 1 and not target.is_floating_point():
                right = outputs.argmax(-1) == target
                history.accuracies.append(right.double().mean().item())
    model.eval()
    return history


def _batches(data: Data) -> Iterable[Sequence[Tensor]]:
    """Yield the batches of a loader, or of tensors."""
    if isinstance(data, DataLoader):
        return data
    return zip(*(part.split(1000) for part in data), strict=True)
