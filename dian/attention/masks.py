r"""Boolean attention masks: ``True`` where a query may attend to a key."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def causal_mask(
    n_query: int, n_key: int | None = None, device: torch.device | None = None
) -> Bool[Tensor, "n_query n_key"]:
    r"""Let each query read the keys up to its own position, and none after it.

    Parameters
    ----------
    n_query, n_key
        How many. If there are more keys, as when keys were kept from earlier steps, the
        **last** query stands at the last key (aligned at the bottom right).
    device
        Where to make it.

    Notes
    -----
    ``is_causal`` of :func:`torch.nn.functional.scaled_dot_product_attention` is aligned
    at the top left: the first query stands at the first key. The two agree if there are
    as many keys as queries.

    Examples
    --------
    >>> causal_mask(2, 3)
    tensor([[ True,  True, False],
            [ True,  True,  True]])
    """
    n_key = n_query if n_key is None else n_key
    every = torch.ones(n_query, n_key, dtype=torch.bool, device=device)
    return every.tril(n_key - n_query)


def padding_mask(
    lengths: Int[Tensor, "*batch"], n_key: int
) -> Bool[Tensor, "*batch 1 1 n_key"]:
    r"""Hide what follows the end of each sequence, from every head and every query.

    Parameters
    ----------
    lengths
        How many positions of each sequence count.
    n_key
        The length to which all were padded.

    Examples
    --------
    >>> padding_mask(torch.tensor([1, 3]), 3).squeeze()
    tensor([[ True, False, False],
            [ True,  True,  True]])
    """
    places = torch.arange(n_key, device=lengths.device)
    return (places < lengths.unsqueeze(-1)).unsqueeze(-2).unsqueeze(-2)
