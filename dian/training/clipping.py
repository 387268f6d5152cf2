"""Clipping: a gradient that is too long is shortened, and keeps its direction."""

import math
from collections.abc import Iterable

import torch
from torch import nn


def clip_by_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    r"""Shorten the gradient to length ``max_norm`` if it is longer, in place.

    .. math::

        c_\theta(g) = g \min\left(1, \frac{\theta}{\lVert g \rVert}\right), \qquad
        c_\theta(0) = 0 .

    The norm is taken over **all** parameters together, so the direction stays.

    Parameters
    ----------
    parameters
        Those whose ``.grad`` to clip.
    max_norm
        The greatest length allowed.

    Returns
    -------
    norm
        The length before clipping.

    Raises
    ------
    ValueError
        If ``max_norm`` is not positive, or the gradient is not finite.

    Notes
    -----
    Pascanu et al., *On the difficulty of training recurrent neural networks*, 2013,
    arXiv:1211.5063, algorithm 1. :func:`torch.nn.utils.clip_grad_norm_` divides by
    the norm plus 1e-6 instead, so clipping twice is not quite clipping once.

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
    if not max_norm > 0:
        raise ValueError(f"max_norm must be positive, got {max_norm}")
    if isinstance(parameters, torch.Tensor):  # its rows are no parameters
        parameters = [parameters]
    gradients = [p.grad for p in parameters if p.grad is not None]
    # In float64: the squares of a gradient can overflow where the gradient does not.
    norms = torch._foreach_norm(gradients, 2, torch.float64) if gradients else []
    norm = math.hypot(*norms)
    if not math.isfinite(norm):
        raise ValueError(
            f"the gradient is not finite: its norm is {norm}, expected a number; lower "
            "the learning rate"
        )
    if norm > max_norm:
        torch._foreach_mul_(gradients, max_norm / norm)
    return norm
