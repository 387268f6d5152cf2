"""CUDA graphs of training steps: what keeps a GPU busy with a small network.

The kernels of a small network take less time than Python needs to launch them. A CUDA
graph launches all of them at once: NVIDIA, *CUDA C++ Programming Guide*, chapter on
CUDA graphs.
"""

import torch
from torch import Tensor, nn


class TrainingGraph:
    """A network whose forward and backward pass are replayed from a CUDA graph.

    The graph is captured in the first call in training mode. Calls with a batch of
    another size, in evaluation mode or without gradients are ordinary ones. The kernels
    are the same, and so are the results.

    Parameters
    ----------
    network
        Its parameters are on a GPU. It must not read numbers back from the GPU: what it
        computes must not depend on the values of its inputs in Python.

    Notes
    -----
    With autocast, the cache of weights must be disabled around each call:
    :func:`torch.cuda.make_graphed_callables` requires that.

    Examples
    --------
    >>> graph = TrainingGraph(nn.Linear(3, 1).eval())
    >>> graph(torch.ones(2, 3)).shape  # not in training: an ordinary call
    torch.Size([2, 1])
    """

    def __init__(self, network: nn.Module):
        self.network = network
        self.replayed: nn.Module | None = None
        self.shapes: list[torch.Size] = []

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the output of the network."""
        shapes = [x.shape for x in inputs]
        if not (self.network.training and torch.is_grad_enabled()):
            return self.network(*inputs)
        if self.replayed is None:
            # Of a module around it: the network itself can still be called as it is.
            around, examples = _Around(self.network), tuple(x.clone() for x in inputs)
            self.replayed = torch.cuda.make_graphed_callables(around, examples)
            self.shapes = shapes
        if shapes != self.shapes:
            return self.network(*inputs)
        return self.replayed(*inputs)


class _Around(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        # What it creates, such as a table of frequencies, is created on the GPU: a copy
        # from the CPU would wait, and cannot be a part of a graph.
        with inputs[0].device:
            return self.network(*inputs)
