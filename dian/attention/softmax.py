r"""The row softmax of the attention scores: its Jacobian and its backward pass."""

import torch
from jaxtyping import Float
from torch import Tensor


def softmax_jacobian(
    p: Float[Tensor, "*batch n_key"],
) -> Float[Tensor, "*batch n_key n_key"]:
    r"""Return how each weight changes with each score.

    .. math::

        J = \operatorname{diag}(p) - p\, p^\top

    Parameters
    ----------
    p
        The weights that a softmax gave.

    Examples
    --------
    >>> import torch
    >>> softmax_jacobian(torch.tensor([0.5, 0.5]))
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]])
    """
    return torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)


def softmax_backward(
    p: Float[Tensor, "*batch n_key"], p_bar: Float[Tensor, "*batch n_key"]
) -> Float[Tensor, "*batch n_key"]:
    r"""Turn the gradient by the weights of a softmax into that by its scores.

    .. math::

        \bar s = J \bar p = p \odot (\bar p - \langle \bar p, p \rangle),

    which takes :math:`n` products where the matrix :math:`J` takes :math:`n^2`.

    Parameters
    ----------
    p
        The weights that the softmax gave.
    p_bar
        The gradient of the loss by them.

    Examples
    --------
    Pushing all weights alike moves nothing, since they sum to one:

    >>> import torch
    >>> softmax_backward(torch.tensor([0.2, 0.8]), torch.tensor([3.0, 3.0]))
    tensor([0., 0.])
    """
    s_bar = p * p_bar  # and, in its place, p_bar * p - p (p_bar . p)
    return s_bar.addcmul_(p, s_bar.sum(-1, keepdim=True), value=-1)
