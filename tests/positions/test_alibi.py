"""`alibi` against a loop and transformers."""

import pytest
import torch

from dian.positions.alibi import AlibiBias, alibi_bias, alibi_slopes

N, HEADS = 7, 3


def test_the_bias_by_loops():
    m, n = torch.tensor([4, 0, 11]), torch.tensor([2, 4, 5, 9, 17])
    found = alibi_bias(m, n, HEADS, dtype=torch.float64)
    assert found.shape == (HEADS, 3, 5)
    for h in range(HEADS):
        for i, p in enumerate(m.tolist()):
            for j, q in enumerate(n.tolist()):
                expected = -(2 ** (-8 * (h + 1) / HEADS)) * abs(p - q)
                assert found[h, i, j].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_head", [1, 2, 4, 8, 16])
def test_equals_transformers(n_head):
    """Bloom adds the slope times the key's position: the same in every row, up to a
    constant that the softmax does not see. Only keys up to the query count."""
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    p = torch.arange(N)
    peer = build_alibi_tensor(torch.ones(1, N), n_head, torch.float32)
    causal = p <= p[:, None]
    hidden = torch.zeros(N, N).masked_fill(~causal, -torch.inf)
    ours = (alibi_bias(p, p, n_head) + hidden).softmax(-1)
    theirs = (peer + hidden).softmax(-1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_the_layer_aligns_the_last_query_with_the_last_key():
    whole, layer = AlibiBias(HEADS)(N, N), AlibiBias(HEADS)
    assert torch.equal(whole, alibi_bias(torch.arange(N), torch.arange(N), HEADS))
    assert torch.equal(layer(2, N), whole[:, -2:])


def test_wrong_arguments():
    with pytest.raises(
        ValueError, match="n_head must be a whole number, at least 1, got 0"
    ):
        alibi_slopes(0)
