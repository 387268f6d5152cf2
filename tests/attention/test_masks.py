"""`dian.attention.masks`: alignment and polarity, entry by entry."""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right

from dian.attention.masks import causal_mask, padding_mask


def test_the_last_query_is_at_the_last_key():
    mask = causal_mask(2, 5)
    assert mask.tolist() == [[True] * 4 + [False], [True] * 5]
    assert torch.equal(causal_mask(5)[-2:], mask)


def test_the_causal_mask_is_that_of_torch(generator):
    """`is_causal` for as many keys as queries, `causal_lower_right` for more keys."""
    Q, K = (torch.randn(1, n, 3, generator=generator) for n in (5, 7))
    for query, theirs in ((K, {"is_causal": True}), (Q, None)):
        theirs = theirs or {"attn_mask": causal_lower_right(5, 7)}
        expected = F.scaled_dot_product_attention(query, K, K, **theirs)
        mask = causal_mask(query.shape[1], 7)
        found = F.scaled_dot_product_attention(query, K, K, attn_mask=mask)
        torch.testing.assert_close(found, expected)


def test_padding_is_masked_for_every_head_and_query():
    mask = padding_mask(torch.tensor([0, 2, 3]), 3)
    assert mask.shape == (3, 1, 1, 3)
    rows = [[False] * 3, [True, True, False], [True] * 3]
    assert mask[:, 0, 0].tolist() == rows


@pytest.mark.parametrize("shape", [(), (4,), (2, 2), (2, 1, 2)])
def test_lengths_may_have_any_number_of_axes(shape):
    lengths = torch.tensor([0, 2, 3, 1])[: torch.Size(shape).numel()].view(shape)
    mask = padding_mask(lengths, 3)
    assert mask.shape == (*shape, 1, 1, 3)
    assert torch.equal(mask.sum(-1)[..., 0, 0], lengths)
