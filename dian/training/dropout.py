r"""Dropout masks from an explicit random-number generator."""

import torch
from jaxtyping import Float
from torch import Tensor

from dian.errors import require


def dropout_mask(
    like: Float[Tensor, "*shape"],
    rate: float,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*shape"]:
    r"""Draw factors: 0 with probability :math:`p`, otherwise :math:`1 / (1 - p)`.

    The mean of a factor is 1. ``x * dropout_mask(x, rate)`` is dropout of each feature,
    and ``x * dropout_mask(x[0], rate)`` shares the mask along the first axis.

    Parameters
    ----------
    like
        A tensor with the shape, dtype and device of the mask.
    rate
        The probability :math:`p`.
    generator
        The random numbers are drawn on its device. Default: the global generator of the
        device of ``like``.

    Examples
    --------
    >>> dropout_mask(torch.ones(8), 0.5, torch.Generator().manual_seed(0))
    tensor([0., 2., 0., 0., 0., 2., 0., 2.])
    """
    require(0 <= rate < 1, f"rate must be in [0, 1), got {rate}")
    device = like.device if generator is None else generator.device
    kept = torch.rand(like.shape, generator=generator, device=device) >= rate
    return kept.to(like) / (1 - rate)
