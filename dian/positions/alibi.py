r"""ALiBi: a linear distance penalty that is added to the attention scores."""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


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
