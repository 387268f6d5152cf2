r"""Positional encodings: what tells a network where a feature stands.

Here are the sinusoidal encoding, and two rivals: learned positions and ALiBi. Rotary
embedding is in :mod:`dian.positions.rotary`. Features go in pairs :math:`i = 0, \dots,
d/2 - 1`, and pair :math:`i` turns with frequency :math:`\omega_i = \theta^{-2i/d}`.
Positions and angles are float64 here, whatever the type of the result: in bfloat16
position 257 *is* position 256.
"""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


def frequencies(d: int, base: float = 10_000.0) -> Float64[Tensor, "pairs"]:
    r"""Return :math:`\omega_i = \theta^{-2i/d}`, in radians per position.

    Parameters
    ----------
    d
        Number of features, even.
    base
        The :math:`\theta` of the formula.

    Raises
    ------
    ValueError
        If ``d`` is not positive and even, or ``base`` is not positive.

    Examples
    --------
    >>> frequencies(4)
    tensor([1.0000, 0.0100], dtype=torch.float64)
    """
    if d <= 0 or d % 2:
        raise ValueError(f"d must be positive and even: features go in pairs, got {d}")
    if not base > 0:
        raise ValueError(f"base must be positive, got {base}")
    return base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)


def sinusoidal_encoding(
    positions: Int[Tensor, "*n"] | Float[Tensor, "*n"],
    d: int,
    base: float = 10_000.0,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*n d"]:
    r"""Encode each position by sines and cosines of falling frequency.

    .. math::

        PE(p)_{2i} = \sin(p\,\omega_i), \qquad PE(p)_{2i+1} = \cos(p\,\omega_i).

    Parameters
    ----------
    positions
        Where; 0 is the first position.
    d
        Width of the encoding, even.
    base
        Sets the longest wavelength, :math:`2\pi\,\theta^{1-2/d}` positions.
    dtype
        The type of the result; the angles are computed in float64 before.

    Raises
    ------
    ValueError
        If ``d`` is odd.

    Notes
    -----
    Section 3.5 of Vaswani et al., *Attention Is All You Need*, 2017,
    arXiv:1706.03762, in its layout: sine and cosine of a pair are neighbours.

    Examples
    --------
    >>> import torch
    >>> sinusoidal_encoding(torch.arange(2), d=4)
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0100, 0.9999]])
    """
    angles = positions.double().unsqueeze(-1) * frequencies(d, base).to(
        positions.device
    )
    pairs = torch.stack([angles.sin(), angles.cos()], dim=-1)
    return pairs.flatten(-2).to(dtype)


def offset_product(
    offsets: Int[Tensor, "*n"] | Float[Tensor, "*n"], d: int, base: float = 10_000.0
) -> Float64[Tensor, "*n"]:
    r"""Return the dot product of two sinusoidal encodings that far apart.

    .. math::

        c(\Delta) = \langle PE(p), PE(p + \Delta) \rangle = \sum_i \cos \Delta\,\omega_i

    Parameters
    ----------
    offsets
        The distances :math:`\Delta`, of either sign.
    d, base
        As of :func:`sinusoidal_encoding`.

    Examples
    --------
    >>> offset_product(torch.tensor([0, 1, -1]), d=4)
    tensor([2.0000, 1.5403, 1.5403], dtype=torch.float64)
    """
    return (offsets.double()[..., None] * frequencies(d, base)).cos().sum(-1)
