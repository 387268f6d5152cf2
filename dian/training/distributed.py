r"""One training in several processes, which torchrun starts.

Each process draws all that is random for the whole batch, from the same state of the
same generator: the order of the items, noise, what is dropped. It puts its share of
the batch through the network, and gets the outputs for the rest from the others. So the
loss, whatever it is, is that of the whole batch, and the gradient is the sum of what
comes back through the shares:

.. math::

    \frac{\partial L}{\partial \theta} = \sum_r \sum_{n \in \text{share}_r}
    \frac{\partial L}{\partial o_n} \frac{\partial o_n}{\partial \theta}

The result does not depend on the number of processes, but for rounding. Processes that
are not the first write nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dian.errors import DianError

_batch: dict[str, int] = {}
"""Items in the batch whose share goes through the network now."""


def processes() -> int:
    """Return how many processes torchrun started for this training.

    >>> processes()
    1
    """
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def number() -> int:
    """Return which of them this one is, from 0 on; the first alone writes files.

    >>> number()
    0
    """
    return int(os.environ["RANK"]) if dist.is_torchelastic_launched() else 0


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Join the processes, if torchrun started this one; at the end they part again.

    Parameters
    ----------
    device
        Where they compute: on CPUs they talk through gloo, on GPUs through NCCL, and
        then each has a GPU of its own.

    Raises
    ------
    DianError
        If there are fewer GPUs than processes on this machine.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    if device.type == "cuda":
        wanted, there = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if wanted > there:
            raise DianError(
                f"expected a GPU for each of {wanted} processes on this machine, found "
                f"{there}; start --nproc-per-node={there}, or use --device cpu"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def from_first(read: Callable[[], bytes | None]) -> bytes | None:
    """Return what the first process reads: there is one file, and one answer.

    Parameters
    ----------
    read
        Called by the first process alone.

    Examples
    --------
    >>> from_first(lambda: b"one process is the first")
    b'one process is the first'
    """
    if not dist.is_initialized():
        return read()
    content = None if number() else read()
    length = torch.tensor(-1 if content is None else len(content), device=_place())
    dist.broadcast(length, 0)
    if length < 1:
        return b"" if length == 0 else None
    sent = torch.empty(int(length), dtype=torch.uint8, device=_place())
    if content:
        sent.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    dist.broadcast(sent, 0)
    return sent.cpu().numpy().tobytes()


def share(n: int, number: int, processes: int) -> Tensor:
    """Return the items of a batch of ``n`` that are the share of one process.

    All shares are as long, so that none is empty: the last item fills them up.

    >>> [share(5, number, 3).tolist() for number in range(3)]
    [[0, 1], [2, 3], [4, 4]]
    >>> [share(1, number, 2).tolist() for number in range(2)]
    [[0], [0]]
    """
    length = -(-n // processes)
    return torch.arange(number * length, (number + 1) * length).clamp(max=n - 1)


def rand(*shape: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw numbers from 0 to 1 for the items of a batch, of which a share is here.

    Parameters
    ----------
    shape
        Items that are here, and numbers for each.
    generator
        The source. It is left as if all of the batch were here.

    Examples
    --------
    >>> rand(2, 3).shape
    torch.Size([2, 3])
    """
    n = _batch.get("n")
    if n is None:
        return torch.rand(shape, generator=generator)
    whole = torch.rand(n, *shape[1:], generator=generator)
    return whole[share(n, number(), processes())]


@contextmanager
def spread(
    model: nn.Module, loss_fn: Callable[[Tensor], Tensor]
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Have each process put its share of every batch through a model that trains.

    Parameters
    ----------
    model
        Takes tensors whose first axis is the batch, and returns one.
    loss_fn
        Calls the model once, with the whole batch.

    Returns
    -------
    loss_fn
        The loss of the whole batch in every process; its backward pass leaves the
        gradient of the whole batch in every process. If there is but one, it is what
        was given.

    Raises
    ------
    DianError
        If the model mixes the items of a batch, or drops at random by itself.
    """
    if not dist.is_initialized():
        yield loss_fn
        return
    for name, part in model.named_modules():
        mixes = isinstance(part, nn.modules.batchnorm._NormBase)
        if mixes or (isinstance(part, nn.modules.dropout._DropoutNd) and part.p):
            raise DianError(
                f"{name} is {part}: expected layers whose outputs are the same in any "
                "number of processes; train it with one"
            )

    def take(module: nn.Module, whole: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not module.training:
            return None
        _batch["n"] = len(whole[0])
        items = share(_batch["n"], number(), processes())
        return tuple(part[items.to(part.device)] for part in whole)

    def give(module: nn.Module, whole: tuple, output: Tensor) -> Tensor | None:
        if not module.training:
            return None
        return _Gathered.apply(output)[: _batch.pop("n")]

    hooks = model.register_forward_pre_hook(take), model.register_forward_hook(give)
    try:
        yield DistributedDataParallel(_Loss(model, loss_fn))
    finally:
        for hook in hooks:
            hook.remove()
        _batch.clear()


class _Gathered(torch.autograd.Function):
    """The outputs of all processes, one after the other."""

    @staticmethod
    def forward(ctx, here: Tensor) -> Tensor:
        parts = [torch.empty_like(here) for _ in range(processes())]
        dist.all_gather(parts, here.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        # Torch takes the mean of what the processes find; ours is their sum.
        return gradient.chunk(processes())[number()] * processes()


class _Loss(nn.Module):
    """A loss as a module, whose parameters are those of the model."""

    def __init__(self, model: nn.Module, loss_fn: Callable[[Tensor], Tensor]):
        super().__init__()
        self.model, self.loss_fn = model, loss_fn

    def forward(self, index: Tensor) -> Tensor:
        """Return the loss of the items with these indices."""
        return self.loss_fn(index)


def _place() -> torch.device:
    """Where the processes exchange tensors."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
