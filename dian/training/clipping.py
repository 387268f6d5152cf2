"""Gradient clipping by norm."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from dian.errors import require


def clip_by_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    r"""Scale the gradient in place so that its norm is at most ``max_norm``.

    .. math::

        c_\theta(g) = g \min\left(1, \frac{\theta}{\lVert g \rVert}\right), \qquad
        c_\theta(0) = 0 .

    The norm is that of **all** parameters together, so the direction does not change. A
    gradient that is not finite raises a :class:`ValueError`.

    Parameters
    ----------
    parameters
        Parameters whose ``.grad`` is clipped.
    max_norm
        The maximum norm :math:`\theta`.

    Returns
    -------
    norm
        The norm before clipping.

    Notes
    -----
    Pascanu et al., *On the difficulty of training recurrent neural networks*, 2013,
    arXiv:1211.5063, algorithm 1. :func:`torch.nn.utils.clip_grad_norm_` divides by the
    norm plus 1e-6 instead, so that clipping twice differs from clipping once.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> w = nn.Parameter(torch.zeros(2))
    >>> w.grad = torch.tensor([3.0, 4.0])
    >>> clip_by_norm([w], max_norm=1.0)
    5.0
    >>> w.grad
    tensor([0.6000, 0.8000])
    """
    require(max_norm > 0, f"max_norm must be positive, got {max_norm}")
    if isinstance(parameters, torch.Tensor):  # its rows are no parameters
        parameters = [parameters]
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return 0.0
    # In float64, since squares overflow where the gradient does not; and fetched all at
    # once, so that a GPU is synchronized once.
    norms = torch.stack(torch._foreach_norm(gradients, 2, torch.float64)).tolist()
    norm = math.hypot(*norms)
    require(
        math.isfinite(norm),
        f"the gradient is not finite: its norm is {norm}, expected a number; lower the "
        "learning rate",
    )
    if norm > max_norm:
        torch._foreach_mul_(gradients, max_norm / norm)
    return norm
