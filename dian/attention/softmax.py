r"""The softmax over attention scores: its Jacobian and its backward pass."""

import torch
from jaxtyping import Float
from torch import Tensor

from dian.numerics import widened


@widened
def softmax_jacobian(
    p: Float[Tensor, "*batch n_key"],
) -> Float[Tensor, "*batch n_key n_key"]:
    r"""Return the Jacobian of a softmax, of each weight with respect to each score.

    .. math::

        J = \operatorname{diag}(p) - p\, p^\top

    Parameters
    ----------
    p
        The output of the softmax.

    Examples
    --------
    >>> import torch
    >>> softmax_jacobian(torch.tensor([0.5, 0.5]))
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]])
    """
    return torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)


@widened
def softmax_backward(
    p: Float[Tensor, "*batch n_key"], p_bar: Float[Tensor, "*batch n_key"]
) -> Float[Tensor, "*batch n_key"]:
    r"""Return the gradient with respect to the scores, given that of the weights.

    .. math::

        \bar s = J \bar p = p \odot (\bar p - \langle \bar p, p \rangle)

    This takes :math:`O(n)` operations; a product with :math:`J` takes :math:`O(n^2)`.

    Parameters
    ----------
    p
        The output of the softmax.
    p_bar
        The gradient of the loss with respect to ``p``.

    Examples
    --------
    The weights sum to one, so a gradient that is equal for all of them has no effect:

    >>> import torch
    >>> softmax_backward(torch.tensor([0.2, 0.8]), torch.tensor([3.0, 3.0]))
    tensor([0., 0.])
    """
    s_bar = p * p_bar  # then, in place, p_bar * p - p (p_bar . p)
    return s_bar.addcmul_(p, s_bar.sum(-1, keepdim=True), value=-1)
