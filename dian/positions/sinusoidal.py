r"""Sinusoidal positional encoding.

Features form pairs :math:`i = 0, \dots, d/2 - 1`, and pair :math:`i` has the frequency
:math:`\omega_i = \theta^{-2i/d}`. Positions and angles are float64 whatever the dtype
of the result, since in bfloat16 position 257 rounds to 256.
"""

import math

import torch
from jaxtyping import Float, Float64, Real
from torch import Tensor, nn

from dian.errors import kind, require, require_whole
from dian.numerics import widened


def frequencies(d: int, base: float = 10_000.0) -> Float64[Tensor, "pairs"]:
    r"""Return :math:`\omega_i = \theta^{-2i/d}` in radians per position.

    Parameters
    ----------
    d
        Number of features, even.
    base
        The base :math:`\theta`.

    Examples
    --------
    >>> frequencies(4)
    tensor([1.0000, 0.0100], dtype=torch.float64)
    """
    check_even(d)
    require(0 < base < math.inf, f"base must be positive, got {base}")
    return base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)


def check_even(d: int) -> None:
    """Raise unless ``d`` features can be grouped into pairs."""
    require_whole("d", d, 0)
    even = d > 0 and d % 2 == 0
    require(even, f"d must be positive and even: features go in pairs, got {d}")


def check_frequencies(omega: Tensor) -> None:
    """Raise on 16 bits: such frequencies are off by radians at position 5000."""
    fits = omega.dtype in (torch.float32, torch.float64)
    require(fits, f"omega must be float32 or float64, got {kind(omega)}")


def sinusoidal_encoding(
    positions: Real[Tensor, "*n"],
    d: int,
    base: float = 10_000.0,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*n d"]:
    r"""Encode positions by sines and cosines of decreasing frequency.

    .. math::

        PE(p)_{2i} = \sin(p\,\omega_i), \qquad PE(p)_{2i+1} = \cos(p\,\omega_i).

    Parameters
    ----------
    positions
        Positions; 0 is the first.
    d
        Features of the encoding, even.
    base
        Determines the longest wavelength, :math:`2\pi\,\theta^{1-2/d}` positions.
    dtype
        The dtype of the result; the angles are computed in float64.

    Notes
    -----
    Section 3.5 of Vaswani et al., *Attention Is All You Need*, 2017,
    arXiv:1706.03762, in its layout: sine and cosine of a pair are neighbors.

    Examples
    --------
    >>> import torch
    >>> sinusoidal_encoding(torch.arange(2), d=4)
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0100, 0.9999]])
    """
    omega = frequencies(d, base).to(positions.device)
    angles = positions.double().unsqueeze(-1) * omega
    pairs = torch.stack([angles.sin(), angles.cos()], dim=-1)
    return pairs.flatten(-2).to(dtype)


def offset_product(
    offsets: Real[Tensor, "*n"], d: int, base: float = 10_000.0
) -> Float64[Tensor, "*n"]:
    r"""Return the dot product of two sinusoidal encodings as a function of the offset.

    .. math::

        c(\Delta) = \langle PE(p), PE(p + \Delta) \rangle = \sum_i \cos \Delta\,\omega_i

    Parameters
    ----------
    offsets
        Relative positions :math:`\Delta`, of either sign.
    d, base
        As in :func:`sinusoidal_encoding`.

    Examples
    --------
    >>> offset_product(torch.tensor([0, 1, -1]), d=4)
    tensor([2.0000, 1.5403, 1.5403], dtype=torch.float64)
    """
    omega = frequencies(d, base).to(offsets.device)
    return (offsets.double()[..., None] * omega).cos().sum(-1)


class AddSinusoidal(nn.Module):
    """Add :func:`sinusoidal_encoding` to a batch of sequences.

    >>> AddSinusoidal()(torch.zeros(1, 2, 2))
    tensor([[[0.0000, 1.0000],
             [0.8415, 0.5403]]])
    """

    @widened
    def forward(self, X: Float[Tensor, "batch n D"]) -> Float[Tensor, "batch n D"]:
        """Return the sum; the positions are 0, 1, ..., n - 1."""
        positions = torch.arange(X.shape[1], device=X.device)
        return X + sinusoidal_encoding(positions, X.shape[2], dtype=X.dtype)
