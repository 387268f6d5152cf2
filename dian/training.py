"""One training loop for every network of the report."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dian.errors import DianError


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


def fit(
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    n_item: int,
    *,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    epochs: int,
    generator: torch.Generator,
    schedule: Callable[[float], float],
    clip: Callable[[Iterable[nn.Parameter]], object] | None = None,
    after_step: Callable[[int, int, float], None] | None = None,
    after_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train a model in place, and return the loss of every step.

    Parameters
    ----------
    model
        Left in training mode.
    loss_of
        The loss of the items with these indices. It holds the data, which stay where
        they are: nothing is loaded, and nothing is copied but one batch.
    n_item
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

    Raises
    ------
    DianError
        If a loss is not finite, or ``clip`` refuses its gradient: the parameters are
        those that gave it.

    Examples
    --------
    The mean of three numbers, found by descent:

    >>> import torch
    >>> from torch import nn
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
    n_step = epochs * math.ceil(n_item / batch_size)
    losses: list[float] = []
    for epoch in range(1, epochs + 1):
        model.train()
        begin = len(losses)
        for index in torch.randperm(n_item, generator=generator).split(batch_size):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * schedule(len(losses) / n_step)
            optimizer.zero_grad()
            loss = loss_of(index)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise DianError(
                    f"the loss of step {len(losses)} (epoch {epoch}) is {losses[-1]}, "
                    "expected a finite number; lower the learning rate, or clip"
                )
            loss.backward()
            if clip is not None:
                try:
                    clip(model.parameters())
                except ValueError as error:
                    raise DianError(
                        f"step {len(losses)} (epoch {epoch}): {error}"
                    ) from None
            optimizer.step()
            if after_step is not None:
                after_step(len(losses), n_step, losses[-1])
        if after_epoch is not None:
            recent = losses[begin:]
            after_epoch(epoch, sum(recent) / len(recent))
    return losses


def cosine(progress: float) -> float:
    r"""Fall from 1 to 0 along half a cosine: :math:`(1 + \cos \pi p) / 2`.

    Loshchilov and Hutter, *SGDR*, 2017, arXiv:1608.03983, without restarts.

    >>> [round(cosine(p), 3) for p in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    """
    return (1 + math.cos(math.pi * progress)) / 2


def one_cycle(progress: float) -> float:
    r"""Rise from 1/25 to 1 in the first 30 %, then fall to 0, both along half a cosine.

    Smith and Topin, *Super-convergence*, 2018, arXiv:1708.07120, with the shape and the
    defaults of :class:`torch.optim.lr_scheduler.OneCycleLR`, but for the momentum,
    which stays.

    >>> [round(one_cycle(p), 3) for p in (0.0, 0.15, 0.3, 0.65, 1.0)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    """
    if progress < 0.3:
        return 1 - (1 - 1 / 25) * cosine(progress / 0.3)
    return cosine((progress - 0.3) / 0.7)


SCHEDULES = {
    "constant": lambda progress: 1.0,
    "cosine": cosine,
    "one-cycle": one_cycle,
}
"""The schedules by their name in the settings of an experiment."""

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
"""The optimisers by their name in the settings of an experiment."""
