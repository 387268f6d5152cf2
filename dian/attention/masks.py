r"""Boolean attention masks: ``True`` where a query may attend to a key.

:func:`torch.nn.functional.scaled_dot_product_attention` has the same convention,
:class:`torch.nn.MultiheadAttention` the opposite one. Combine masks with ``&``.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dian.errors import kind, require, require_whole


def causal_mask(
    n_query: int, n_key: int | None = None, device: torch.device | None = None
) -> Bool[Tensor, "n_query n_key"]:
    r"""Let each query attend to keys up to its own position.

    Parameters
    ----------
    n_query
        Number of queries.
    n_key
        Number of keys. Default: ``n_query``. If there are more keys than queries, as in
        decoding with a cache, the **last** query is at the position of the last key
        (lower-right alignment).
    device
        Device of the mask.

    Notes
    -----
    ``is_causal`` of :func:`torch.nn.functional.scaled_dot_product_attention` uses
    upper-left alignment: the first query is at the position of the first key. The two
    agree if there are as many keys as queries.

    Examples
    --------
    >>> causal_mask(2, 3)
    tensor([[ True,  True, False],
            [ True,  True,  True]])
    """
    n_key = n_query if n_key is None else n_key
    ones = torch.ones(n_query, n_key, dtype=torch.bool, device=device)
    return ones.tril(n_key - n_query)


def padding_mask(
    lengths: Int[Tensor, "*batch"], n_key: int
) -> Bool[Tensor, "*batch 1 1 n_key"]:
    r"""Mask the padding of each sequence, for all heads and queries.

    Parameters
    ----------
    lengths
        Length of each sequence without padding.
    n_key
        Length with padding.

    Examples
    --------
    >>> padding_mask(torch.tensor([1, 3]), 3).squeeze()
    tensor([[ True, False, False],
            [ True,  True,  True]])
    """
    require_whole("n_key", n_key, 0)
    fits = not lengths.is_floating_point()
    require(fits, f"lengths must be integers, got {kind(lengths)}")
    positions = torch.arange(n_key, device=lengths.device)
    return (positions < lengths.unsqueeze(-1)).unsqueeze(-2).unsqueeze(-2)
