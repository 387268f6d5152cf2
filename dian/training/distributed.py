"""Data-parallel training: the processes that ``torchrun`` starts share every batch.

Every process holds the whole model and draws the same batches. It computes the loss of
its shard of a batch, and :class:`torch.nn.parallel.DistributedDataParallel` averages
the gradients, so all processes take the same step as one process would.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dian.errors import DianError


def rank() -> int:
    """Return the number of this process, counted from 0.

    >>> rank()
    0
    """
    return int(os.environ["RANK"]) if dist.is_torchelastic_launched() else 0


def world_size() -> int:
    """Return how many processes ``torchrun`` started, or 1 without it.

    >>> world_size()
    1
    """
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Connect the processes for the body of a ``with`` statement.

    They communicate through gloo on CPUs and through NCCL on GPUs, one GPU for each
    process. Without ``torchrun`` this does nothing.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    if device.type == "cuda":
        wanted, found = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if wanted > found:
            raise DianError(
                f"expected a GPU for each of {wanted} processes on this machine, found "
                f"{found}; start --nproc-per-node={found}, or use --device cpu"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def broadcast_from_rank0(value: Any) -> Any:
    """Return, in every process of the group, the value that rank 0 has.

    >>> broadcast_from_rank0("without a group, the value itself")
    'without a group, the value itself'
    """
    box = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def shard_indices(n: int, rank: int, world_size: int) -> Tensor:
    """Return the items of a batch of ``n`` that one process computes.

    The shards do not overlap and together are the batch. Their sizes differ by at most
    one, and there are empty ones if the batch has fewer items than there are processes.

    >>> [shard_indices(5, rank, world_size=3).tolist() for rank in range(3)]
    [[0, 1], [2, 3], [4]]
    """
    return torch.arange(n).tensor_split(world_size)[rank]


def data_parallel(
    model: nn.Module, loss_fn: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    """Return ``loss_fn``, computed by all processes of the group together.

    Parameters
    ----------
    model
        Holds the parameters that ``loss_fn`` uses.
    loss_fn
        Takes the tensors of a batch, whose first axis is the items, and returns the
        mean of a loss over the items.

    Returns
    -------
    loss_fn
        Takes the whole batch in every process, and returns the mean over all its items.
        After ``backward()`` every process has the gradient of that mean; keep a
        reference to the function until then, because it holds the module that
        averages the gradients. Without a group it is the function that was passed in.
    """
    if not dist.is_initialized():
        return loss_fn
    wrapped, n_processes = DistributedDataParallel(_Loss(model, loss_fn)), world_size()

    def shared_loss(*batch: Tensor) -> Tensor:
        n = len(batch[0])
        shard = shard_indices(n, rank(), n_processes)
        # DistributedDataParallel takes the mean of the gradients over the processes:
        # the weight makes of that the mean over the items, however many are in a shard.
        weight = n_processes * len(shard) / n
        # A process without items takes part with weight 0.
        shard = shard if len(shard) else torch.tensor([0])
        loss = weight * wrapped(*(part[shard.to(part.device)] for part in batch))
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        # The value of the mean over all processes, the gradient of this one.
        return loss + (mean / n_processes - loss.detach())

    return shared_loss


class _Loss(nn.Module):
    """A loss as a module, so that DistributedDataParallel can wrap it."""

    def __init__(self, model: nn.Module, loss_fn: Callable[..., Tensor]):
        super().__init__()
        self.model, self.loss_fn = model, loss_fn

    def forward(self, *batch: Tensor) -> Tensor:
        return self.loss_fn(*batch)
