r"""Positional encodings: what tells a network where a feature stands.

Here are the sinusoidal encoding, and two rivals: learned positions and ALiBi. Rotary
embedding is in :mod:`dian.rotary`. Features go in pairs :math:`i = 0, \dots, d/2 - 1`,
and pair :math:`i` turns with frequency :math:`\omega_i = \theta^{-2i/d}`. Positions and
angles are float64 here, whatever the type of the result: in bfloat16 position 257 *is*
position 256.
"""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn


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


class LearnedPositions(nn.Module):
    """A vector for each position, learnt like any weight.

    Nothing ties the vector of one position to that of the next, and there is none for
    a position behind the last.

    Parameters
    ----------
    n_position
        How many positions there are; the first is 0.
    d
        Width of a vector.
    generator
        The source of the start, which is normal with a standard deviation of 0.02.

    Notes
    -----
    As in Gehring et al., *Convolutional sequence to sequence learning*, 2017,
    arXiv:1705.03122, and in one row of Table 3 of Vaswani et al.

    Examples
    --------
    >>> import torch
    >>> LearnedPositions(5, 4)(torch.arange(3)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self, n_position: int, d: int, generator: torch.Generator | None = None
    ):
        super().__init__()
        self.P = nn.Parameter(0.02 * torch.randn(n_position, d, generator=generator))

    def forward(self, positions: Int[Tensor, "*n"]) -> Float[Tensor, "*n d"]:
        """Return the vectors of these positions, or refuse what the table has not."""
        if positions.is_floating_point():
            raise TypeError(f"positions must be integers, got {positions.dtype}")
        if positions.numel():
            first, last = positions.min().item(), positions.max().item()
            if first < 0 or last >= len(self.P):
                raise ValueError(
                    f"positions must be from 0 to {len(self.P) - 1}, the last that was "
                    f"learnt, got {first if first < 0 else last}"
                )
        return self.P[positions]


def alibi_slopes(n_head: int) -> Float64[Tensor, "head"]:
    r"""Return how fast each head forgets, :math:`m_h = 2^{-8 h / H}`, h from 1 to H.

    Raises
    ------
    ValueError
        If ``n_head`` is not positive.

    Notes
    -----
    Press, Smith and Lewis, *Train short, test long*, 2021, arXiv:2108.12409, section 3.
    For a number of heads that is no power of two, the code of the authors takes other
    slopes than this formula.

    Examples
    --------
    >>> alibi_slopes(4)
    tensor([0.2500, 0.0625, 0.0156, 0.0039], dtype=torch.float64)
    """
    if n_head <= 0:
        raise ValueError(f"n_head must be positive, got {n_head}")
    return 2 ** (-8 * torch.arange(1, n_head + 1, dtype=torch.float64) / n_head)


def alibi_bias(
    queries: Int[Tensor, "n_query"],
    keys: Int[Tensor, "n_key"],
    n_head: int,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "head n_query n_key"]:
    r"""Return what ALiBi adds to the scores: a penalty in proportion to the distance.

    .. math::

        b_{h, m, n} = -m_h\, |m - n|

    Parameters
    ----------
    queries, keys
        Their positions.
    n_head
        Heads; each has a slope of its own, see :func:`alibi_slopes`.
    dtype
        The type of the result.

    Notes
    -----
    In the paper keys stand before their query, so that the distance is
    :math:`m - n`; with its absolute value the bias serves without a causal mask, too.

    Examples
    --------
    >>> import torch
    >>> alibi_bias(torch.tensor([2]), torch.arange(4), n_head=8)[0]
    tensor([[-1.0000, -0.5000, -0.0000, -0.5000]])
    """
    distance = (queries[:, None] - keys).abs().double()
    slopes = alibi_slopes(n_head).to(distance.device)
    return (-slopes[:, None, None] * distance).to(dtype)
