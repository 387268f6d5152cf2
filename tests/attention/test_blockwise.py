"""`dian.attention.blockwise` against the plain formula, block by block."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from dian.attention.blockwise import (
    block_state,
    blockwise_attention,
    blockwise_backward,
    empty_state,
    merge,
    online_attention,
)
from dian.attention.dot_product import attention_backward, scaled_dot_product_attention
from dian.attention.masks import causal_mask

BATCH, HEADS, N_QUERY, N_KEY, D_KEY, D_VALUE = 2, 3, 5, 7, 11, 13
EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture
def tensors(generator):
    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    lead = BATCH, HEADS
    mask = torch.rand(BATCH, 1, N_QUERY, N_KEY, generator=generator) < 0.5
    mask[:, :, 1] = False  # may read nothing
    mask[:, :, 2, :4] = False  # nothing in the first blocks
    mask[:, :, 2, 4] = True
    return (
        [
            normal(*lead, N_QUERY, D_KEY),
            normal(*lead, N_KEY, D_KEY),
            normal(*lead, N_KEY, D_VALUE),
        ],
        mask,
        normal(HEADS, 1, N_KEY),
        normal(*lead, N_QUERY, D_VALUE),
    )


@pytest.mark.parametrize("block", [1, 2, 3, N_KEY, 64])
@pytest.mark.parametrize("hidden", [False, True])
def test_equals_the_plain_formula(tensors, block, hidden):
    qkv, mask, bias, O_bar = tensors
    given_ = (mask, bias) if hidden else (None, None)
    expected, P = scaled_dot_product_attention(*qkv, *given_)
    output, log_sum = blockwise_attention(*qkv, *given_, block=block)
    torch.testing.assert_close(output, expected, **EXACT)
    back = attention_backward(O_bar, *qkv, P)
    found = blockwise_backward(O_bar, *qkv, output, log_sum, *given_, block=block)
    for a, b in zip(found[:3], back[:3], strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    if hidden:
        assert log_sum[:, :, 1].isneginf().all()
        assert not output[:, :, 1].any()
        assert not found.Q[:, :, 1].any()


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    n_key=st.integers(1, 23),
    block=st.integers(1, 29),
    spread=st.sampled_from([1e-3, 1.0, 1e2, 1e4]),
    seed=st.integers(0, 999),
)
def test_any_partition(n_key, block, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    Q, K, V = (
        torch.randn(*s, generator=generator, dtype=torch.float64)
        for s in ((5, 3), (n_key, 3), (n_key, 2))
    )
    expected, _ = scaled_dot_product_attention(spread * Q, K, V)
    output, log_sum = blockwise_attention(spread * Q, K, V, block=block)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
    S = spread * Q @ K.T / 3**0.5
    torch.testing.assert_close(log_sum, S.logsumexp(-1), **EXACT)


def test_autograd_sees_it(tensors):
    qkv, mask, bias, O_bar = tensors
    leaves = [x.requires_grad_() for x in qkv]
    pair = []
    for output in (
        online_attention(*leaves, mask, bias, block=2),
        scaled_dot_product_attention(*leaves, mask, bias)[0],
    ):
        pair.append(torch.autograd.grad(output, leaves, O_bar))
    for a, b in zip(*pair, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("spread", [(), (0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("block", [1, 3, N_KEY])
def test_the_gradient_by_the_bias_is_summed_where_it_was_spread(tensors, spread, block):
    qkv, mask, bias, O_bar = tensors
    bias = bias.expand(HEADS, N_QUERY, N_KEY)
    for axis in spread:
        bias = bias.narrow(axis, 0, 1)
    bias = bias.clone().requires_grad_()
    ours = online_attention(*qkv, mask, bias, block=block)
    plain, _ = scaled_dot_product_attention(*qkv, mask, bias)
    (a,), (b,) = (torch.autograd.grad(x, bias, O_bar) for x in (ours, plain))
    assert a.shape == bias.shape
    torch.testing.assert_close(a, b, **EXACT)


def test_two_states_are_one(tensors):
    (_, _, V), _, _, _ = tensors
    S = torch.randn(HEADS, N_QUERY, N_KEY, dtype=torch.float64)
    S[:, 1] = -torch.inf
    a, b = (block_state(S[..., p], V[0, :, p]) for p in (slice(0, 3), slice(3, 7)))
    whole = block_state(S, V[0])
    for pair in (merge(a, b), merge(b, a)):
        for x, y in zip(pair, whole, strict=True):
            torch.testing.assert_close(x, y, **EXACT)
    empty = empty_state((HEADS, N_QUERY), D_VALUE, S)
    assert all(map(torch.equal, merge(empty, whole), whole))


class Largest(TorchDispatchMode):
    """Remember the size of the largest tensor that is computed."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else [result]:
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.untyped_storage().nbytes())
        return result


def test_no_tensor_grows_with_the_square(generator):
    """Twice the positions take twice the memory; the plain formula takes four times."""
    largest = {}
    for n in (256, 512):
        Q, K, V = (torch.randn(n, 8, generator=generator) for _ in range(3))
        leaves = [x.requires_grad_() for x in (Q, K, V)]
        mask = causal_mask(1, 1).expand(n, n)  # a view, which takes no memory
        for name, f in (
            ("plain", lambda *x: scaled_dot_product_attention(*x)[0]),
            ("online", lambda *x, m=mask: online_attention(*x, m, block=16)),
        ):
            with Largest() as seen:
                f(*leaves).sum().backward()
            largest[name, n] = seen.numel
    assert largest["online", 512] == 2 * largest["online", 256]
    assert largest["plain", 512] == 4 * largest["plain", 256]


def test_what_is_refused(tensors):
    qkv, mask, _, _ = tensors
    with pytest.raises(ValueError, match="block must be positive, got 0"):
        blockwise_attention(*qkv, block=0)
    plain = inspect.unwrap(blockwise_attention)
    with pytest.raises(TypeError, match=r"mask must be boolean.*got torch.float32"):
        plain(*qkv, mask.float())


def test_keys_and_values_of_different_numbers():
    with pytest.raises(ValueError, match="K and V must share n_key, got 5 and 7"):
        inspect.unwrap(blockwise_attention)(
            torch.ones(2, 3), torch.ones(5, 3), torch.ones(7, 3)
        )


def test_a_mask_does_not_hide_what_is_not_finite():
    V = torch.tensor([[1.0], [torch.nan]])
    with pytest.raises(ValueError, match="V must be finite where a mask is given"):
        blockwise_attention(
            torch.ones(1, 3), torch.ones(2, 3), V, torch.tensor([[True, False]])
        )
