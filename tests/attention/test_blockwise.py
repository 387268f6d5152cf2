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
    merge_states,
    online_attention,
)
from dian.attention.dot_product import attention_backward, scaled_dot_product_attention

BATCH, HEADS, N_QUERY, N_KEY, D_KEY, D_VALUE = 2, 3, 5, 7, 11, 13
EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture
def tensors(generator):
    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    lead = BATCH, HEADS
    mask = torch.rand(BATCH, 1, N_QUERY, N_KEY, generator=generator) < 0.5
    mask[:, :, 1] = False  # fully masked
    mask[:, :, 2, :4] = False  # fully masked in the first blocks
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
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_plain_formula(tensors, block, masked):
    qkv, mask, bias, O_bar = tensors
    options = {"mask": mask, "bias": bias} if masked else {}
    expected, P = scaled_dot_product_attention(*qkv, **options)
    forward = blockwise_attention(*qkv, **options, block=block)
    torch.testing.assert_close(forward.output, expected, **EXACT)
    back = attention_backward(O_bar, *qkv, P)
    found = blockwise_backward(O_bar, *qkv, forward, **options, block=block)
    for a, b in zip(found[:3], back[:3], strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    if masked:
        assert forward.log_sum[:, :, 1].isneginf().all()
        assert not forward.output[:, :, 1].any()
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


def test_gradients_are_those_of_the_plain_formula(tensors):
    qkv, mask, bias, O_bar = tensors
    leaves = [x.requires_grad_() for x in qkv]
    pair = []
    for output in (
        online_attention(*leaves, mask=mask, bias=bias, block=2),
        scaled_dot_product_attention(*leaves, mask=mask, bias=bias)[0],
    ):
        pair.append(torch.autograd.grad(output, leaves, O_bar))
    for a, b in zip(*pair, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("axes", [(), (0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("block", [1, 3, N_KEY])
def test_the_gradient_of_a_broadcast_bias_is_summed(tensors, axes, block):
    qkv, mask, bias, O_bar = tensors
    bias = bias.expand(HEADS, N_QUERY, N_KEY)
    for axis in axes:
        bias = bias.narrow(axis, 0, 1)
    bias = bias.clone().requires_grad_()
    ours = online_attention(*qkv, mask=mask, bias=bias, block=block)
    plain, _ = scaled_dot_product_attention(*qkv, mask=mask, bias=bias)
    (a,), (b,) = (torch.autograd.grad(x, bias, O_bar) for x in (ours, plain))
    assert a.shape == bias.shape
    torch.testing.assert_close(a, b, **EXACT)


def test_merged_states_are_the_state_of_all_keys(tensors, generator):
    V = tensors[0][2][0]
    S = torch.randn(HEADS, N_QUERY, N_KEY, generator=generator, dtype=torch.float64)
    S[:, 1] = -torch.inf
    a, b = (block_state(S[..., p], V[:, p]) for p in (slice(0, 3), slice(3, 7)))
    whole = block_state(S, V)
    for pair in (merge_states(a, b), merge_states(b, a)):
        for x, y in zip(pair, whole, strict=True):
            torch.testing.assert_close(x, y, **EXACT)
    assert all(map(torch.equal, merge_states(empty_state(S, V), whole), whole))


class Largest(TorchDispatchMode):
    """Record the size of the largest tensor that is computed."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else [result]:
            if isinstance(x, torch.Tensor):
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return result


def test_memory_is_linear_in_the_length(generator):
    """The largest tensor doubles with the length; that of the formula quadruples."""
    largest = {}
    for n in (256, 512):
        Q, K, V = (torch.randn(n, 8, generator=generator) for _ in range(3))
        leaves = [x.requires_grad_() for x in (Q, K, V)]
        mask = torch.ones(1, 1).bool().expand(n, n)  # a view of one entry
        for name, f in (
            ("plain", lambda *x: scaled_dot_product_attention(*x)[0]),
            ("online", lambda *x, m=mask: online_attention(*x, mask=m, block=16)),
        ):
            with Largest() as seen:
                f(*leaves).sum().backward()
            largest[name, n] = seen.bytes
    assert largest["online", 512] == 2 * largest["online", 256]
    assert largest["plain", 512] == 4 * largest["plain", 256]


def test_blocks_have_at_least_one_key(tensors):
    with pytest.raises(
        ValueError, match="block must be a whole number, at least 1, got 0"
    ):
        blockwise_attention(*tensors[0], block=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"K": torch.ones(4, 2)}, "K and V must share n_key, got 4 and 5"),
        ({"Q": torch.ones(3, 6)}, "Q and K must share d_key, got 6 and 2"),
        ({"mask": torch.ones(3, 4).bool()}, r"mask must broadcast to \(3, 5\)"),
        ({"bias": torch.tensor(torch.inf)}, "bias must be finite"),
    ],
)
def test_wrong_inputs_are_refused(changed, message):
    given = {"Q": torch.ones(3, 2), "K": torch.ones(5, 2), "V": torch.ones(5, 7)}
    # without the shape checks of the tests, so that this is what a user sees
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(blockwise_attention)(**given | changed)
