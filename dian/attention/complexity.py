r"""Measure what a layer costs: FLOPs, memory for the backward pass, and dependencies.

Nothing here evaluates a formula: operations are counted while the layer runs, bytes are
those of the tensors that autograd keeps, and dependencies are those of the Jacobian.

Axis names: ``n``, number of positions; ``D``, features of a position.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode


def count_flops(layer: Callable[..., object], *inputs: Tensor) -> int:
    """Count the floating-point operations of one forward pass in matrix products.

    A multiply-add counts as 2, and element-wise functions such as the softmax as 0.
    Products in place count as well, which torch's counter alone leaves out.

    Examples
    --------
    >>> count_flops(nn.Linear(3, 5), torch.zeros(7, 3))  # 2 * 7 * 3 * 5
    210
    """
    in_place = {torch.ops.aten.addmm_: _addmm_flops}
    counter = FlopCounterMode(display=False, custom_mapping=in_place)
    with counter, torch.no_grad():
        layer(*inputs)
    return counter.get_total_flops()


def _addmm_flops(_, a_shape: torch.Size, b_shape: torch.Size, **__) -> int:
    """Return the FLOPs of a product of matrices that is added to a third."""
    return 2 * a_shape.numel() * b_shape[1]


def saved_bytes(layer: nn.Module, *inputs: Tensor) -> int:
    """Return the memory that autograd keeps for the backward pass of a layer.

    A tensor that is kept twice counts once, and the parameters do not count: they are
    needed anyway.

    Examples
    --------
    The backward pass of a linear layer needs the input, here of 21 numbers:

    >>> saved_bytes(nn.Linear(3, 5), torch.zeros(7, 3))
    84
    """
    parameters = {x.untyped_storage().data_ptr() for x in layer.parameters()}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        outputs = layer(*inputs)  # alive until the end, so no address is used again
    del outputs
    return sum(kept.values())


def depends_on(
    function: Callable[[Tensor], Tensor], X: Float[Tensor, "n D"]
) -> Bool[Tensor, "n_out n"]:
    r"""Return where the Jacobian of a function of a sequence is not zero.

    Parameters
    ----------
    function
        Maps a sequence ``(n, D)`` to another, ``(n_out, D_out)``.
    X
        The sequence at which the Jacobian is taken.

    Returns
    -------
    dependent
        Entry :math:`(i, j)` is ``True`` if the output at position :math:`i` depends on
        the input at position :math:`j`.

    Examples
    --------
    A moving sum of two:

    >>> depends_on(lambda X: X[1:] + X[:-1], torch.zeros(3, 2))
    tensor([[ True,  True, False],
            [False,  True,  True]])
    """
    J = torch.autograd.functional.jacobian(function, X)
    return (J != 0).any(3).any(1)
