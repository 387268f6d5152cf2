r"""ALiBi: a bias on attention scores that is linear in the distance."""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from dian.errors import require_whole


def alibi_slopes(n_head: int) -> Float64[Tensor, "head"]:
    r"""Return the slope of each head, :math:`m_h = 2^{-8 h / H}` for h from 1 to H.

    Notes
    -----
    Press, Smith and Lewis, *Train short, test long*, 2021, arXiv:2108.12409, section 3.
    If the number of heads is not a power of two, the authors' code uses other slopes.

    Examples
    --------
    >>> alibi_slopes(4)
    tensor([0.2500, 0.0625, 0.0156, 0.0039], dtype=torch.float64)
    """
    require_whole("n_head", n_head, 1)
    return 2 ** (-8 * torch.arange(1, n_head + 1, dtype=torch.float64) / n_head)


def alibi_bias(
    queries: Int[Tensor, "n_query"],
    keys: Int[Tensor, "n_key"],
    n_head: int,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "head n_query n_key"]:
    r"""Return the bias that ALiBi adds to the scores.

    .. math::

        b_{h, m, n} = -m_h\, |m - n|

    Parameters
    ----------
    queries, keys
        Positions of queries and keys.
    n_head
        Number of heads; see :func:`alibi_slopes`.
    dtype
        The dtype of the result.

    Notes
    -----
    The paper assumes a causal mask, so that the distance is :math:`m - n`. The absolute
    value extends the bias to attention without a causal mask.

    Examples
    --------
    >>> import torch
    >>> alibi_bias(torch.tensor([2]), torch.arange(4), n_head=8)[0]
    tensor([[-1.0000, -0.5000, -0.0000, -0.5000]])
    """
    distance = (queries.double()[:, None] - keys.double()).abs()
    slopes = alibi_slopes(n_head).to(distance.device)
    return (-slopes[:, None, None] * distance).to(dtype)


class AlibiBias(nn.Module):
    """:func:`alibi_bias` of ``n`` queries at the end of ``m`` keys.

    >>> AlibiBias(8)(1, 3)[0]
    tensor([[-1.0000, -0.5000, -0.0000]])
    """

    def __init__(self, n_head: int):
        super().__init__()
        self.n_head = n_head

    def forward(self, n: int, m: int) -> Float[Tensor, "head n m"]:
        """Return the bias; the last query is at the position of the last key."""
        return alibi_bias(torch.arange(m - n, m), torch.arange(m), self.n_head)
