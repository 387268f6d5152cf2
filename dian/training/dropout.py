r"""Dropout from an explicit generator: masks, and their application to states."""

import torch
from jaxtyping import Float
from torch import Tensor

from dian.training import distributed


def dropout(
    X: Float[Tensor, "*time batch h"],
    rate: float,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*time batch h"]:
    """Drop features at random, the same at every step, and enlarge what is left.

    The mean stays as it was. Gal and Ghahramani, *A theoretically grounded application
    of dropout in recurrent neural networks*, 2016, arXiv:1512.05287.

    Raises
    ------
    ValueError
        If the rate is not in [0, 1).

    Examples
    --------
    >>> dropout(torch.ones(1, 8), 0.5, torch.Generator().manual_seed(0))
    tensor([[0., 2., 0., 0., 0., 2., 0., 2.]])
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate}")
    kept = distributed.rand(*X.shape[-2:], generator=generator) >= rate
    return X * (kept.to(X) / (1 - rate))


def dropout_mask(
    like: Float[Tensor, "*shape"],
    rate: float,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*shape"]:
    r"""Draw what dropout leaves of each weight: 0, or :math:`1 / (1 - p)`.

    Parameters
    ----------
    like
        A tensor of the shape, the type and the device that are wanted.
    rate
        The chance :math:`p` of a zero.
    generator
        The source of the randomness, on the CPU.

    Raises
    ------
    ValueError
        If the rate is not in [0, 1).

    Examples
    --------
    >>> dropout_mask(torch.ones(8), 0.5, torch.Generator().manual_seed(0))
    tensor([0., 2., 0., 0., 0., 2., 0., 2.])
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate}")
    kept = torch.rand(like.shape, generator=generator) >= rate
    return kept.to(like) / (1 - rate)
