"""`dian.attention.dot_product` against a plain loop, autograd and torch."""

import inspect
import math
import re

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dian.attention.blockwise import blockwise_attention
from dian.attention.dot_product import (
    attention,
    attention_backward,
    fused_attention,
    scaled_dot_product_attention,
)
from dian.attention.masks import causal_mask, padding_mask
from dian.training.dropout import dropout_mask

BATCH, HEADS, N_QUERY, N_KEY, D_KEY, D_VALUE = 2, 3, 5, 7, 11, 13
EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.fixture
def normal(generator):
    def draw(*shape, dtype=torch.float64):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return draw


@pytest.fixture
def qkv(normal):
    """Queries, keys and values with a batch and heads."""
    lead = BATCH, HEADS
    sizes = (N_QUERY, D_KEY), (N_KEY, D_KEY), (N_KEY, D_VALUE)
    return [normal(*lead, *size) for size in sizes]


@pytest.fixture
def mask(generator):
    """One for each sequence; query 1 is fully masked."""
    mask = torch.rand(BATCH, 1, N_QUERY, N_KEY, generator=generator) < 0.5
    mask[..., 0] = True
    mask[:, :, 1] = False
    return mask


def by_loops(Q, K, V, mask, scale):
    """Compute one query at a time, in plain Python arithmetic."""
    output = torch.zeros(len(Q), V.shape[-1], dtype=V.dtype)
    for i, q in enumerate(Q):
        scores = {j: scale * float(q @ K[j]) for j in range(len(K)) if mask[i, j]}
        if not scores:
            continue
        best = max(scores.values())
        total = sum(math.exp(s - best) for s in scores.values())
        for j, s in scores.items():
            output[i] += math.exp(s - best) / total * V[j]
    return output


def test_equals_the_loop(qkv, mask):
    output, _ = scaled_dot_product_attention(*qkv, mask=mask)
    for b in range(BATCH):
        for h in range(HEADS):
            one = [x[b, h] for x in qkv]
            expected = by_loops(*one, mask[b, 0], D_KEY**-0.5)
            torch.testing.assert_close(output[b, h], expected, **EXACT)
            wrong = by_loops(*one, mask[b, 0], 1 / D_KEY)
            with pytest.raises(AssertionError):  # the comparison can fail
                torch.testing.assert_close(output[b, h], wrong, **EXACT)


@pytest.mark.parametrize("lead", [(), (BATCH,), (BATCH, HEADS)])
@pytest.mark.parametrize("kind", ["none", "padding", "causal", "any", "bias", "both"])
def test_equals_torch_with_all_gradients(normal, mask, lead, kind):
    """The formula by autograd, by hand, and the fused kernel, against torch's math."""
    sizes = (N_QUERY, D_KEY), (N_KEY, D_KEY), (N_KEY, D_VALUE)
    tensors = [normal(*lead, *size) for size in sizes]
    masks = {
        "padding": padding_mask(torch.tensor(N_KEY - 2), N_KEY)[0],
        "causal": causal_mask(N_QUERY, N_KEY),
        "any": mask[0, 0],
        "both": mask[0, 0],
    }
    M = masks.get(kind)
    B = normal(N_QUERY, N_KEY) if kind in ("bias", "both") else None
    added = M
    if B is not None:
        added = B if M is None else B.masked_fill(~M, -torch.inf)
    O_bar = normal(*lead, N_QUERY, D_VALUE)
    if M is not None:  # fully masked queries are another test's
        O_bar = O_bar * M.any(-1, keepdim=True)

    def all_of(f):
        leaves = [x.clone().requires_grad_() for x in tensors]
        output = f(*leaves)
        return [output, *torch.autograd.grad(output, leaves, O_bar)]

    def peer(*x):
        return F.scaled_dot_product_attention(*x, attn_mask=added)

    with sdpa_kernel(SDPBackend.MATH):
        expected = all_of(peer)
    routes = (
        lambda *x: scaled_dot_product_attention(*x, mask=M, bias=B)[0],
        lambda *x: attention(*x, mask=M, bias=B),
        lambda *x: fused_attention(*x, mask=M, bias=B),
    )
    for route in routes:
        for found, theirs in zip(all_of(route), expected, strict=True):
            torch.testing.assert_close(found, theirs.nan_to_num(0), **EXACT)


def test_rows_sum_to_one_or_zero(qkv, mask):
    _, P = scaled_dot_product_attention(*qkv, mask=mask)
    sums = mask.any(-1).double().expand(BATCH, HEADS, N_QUERY)
    torch.testing.assert_close(P.sum(-1), sums)
    assert not P[~mask.expand_as(P)].any()


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_gradients_by_hand(qkv, mask, normal, generator, rate):
    """Autograd of the plain formula; the bias is broadcast over batch and queries."""
    bias = normal(HEADS, 1, N_KEY)
    like = torch.empty(BATCH, HEADS, N_QUERY, N_KEY, dtype=torch.float64)
    Z = dropout_mask(like, rate, generator)
    leaves = [x.requires_grad_() for x in (*qkv, bias)]
    output, P = scaled_dot_product_attention(
        *leaves[:3], mask=mask, bias=leaves[3], dropout_mask=Z
    )
    O_bar = normal(*output.shape)
    expected = torch.autograd.grad(output, leaves, O_bar)
    inputs = (x.detach() for x in (*qkv, P))
    found = attention_backward(O_bar, *inputs, dropout_mask=Z)
    ours = [found.Q, found.K, found.V, found.S.sum_to_size(bias.shape)]
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    assert expected[3].any()


@pytest.mark.parametrize("scores", [1, 2 * N_QUERY * N_KEY + 1, 10**6])
@pytest.mark.parametrize("loss_of", ["output", "weights", "both"])
@pytest.mark.parametrize("lead", [(), (BATCH, HEADS)])
def test_the_size_of_chunks_does_not_change_gradients(
    qkv, mask, normal, monkeypatch, scores, loss_of, lead
):
    monkeypatch.setattr("dian.attention.dot_product.SCORES_PER_CHUNK", scores)
    inputs = [x[tuple(0 for _ in range(2 - len(lead)))] if not lead else x for x in qkv]
    inputs = [x.detach().requires_grad_() for x in inputs]
    M = mask.expand(*lead, N_QUERY, N_KEY) if lead else mask.flatten(0, -3)[0]
    given = normal(*lead, N_QUERY, D_VALUE), normal(*lead, N_QUERY, N_KEY)

    def gradients(f, **options):
        found = f(*inputs, mask=M, **options)
        terms = {"output": [0], "weights": [1], "both": [0, 1]}[loss_of]
        loss = sum((found[i] * given[i]).sum() for i in terms)
        return torch.autograd.grad(loss, inputs, materialize_grads=True)

    expected = gradients(scaled_dot_product_attention)
    found = gradients(attention, need_weights=True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_the_bias_gets_its_gradient(qkv, mask, normal):
    bias = normal(HEADS, 1, N_KEY).requires_grad_()
    output = attention(*qkv, mask=mask, bias=bias)
    plain, _ = scaled_dot_product_attention(*qkv, mask=mask, bias=bias)
    O_bar = normal(*output.shape)
    pair = [torch.autograd.grad(x, bias, O_bar)[0] for x in (output, plain)]
    torch.testing.assert_close(*pair, **EXACT)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16]
)
def test_a_fully_masked_query(qkv, mask, dtype):
    """Zeros, forward and backward, and no NaN in any step."""
    routes = (
        lambda *x: scaled_dot_product_attention(*x, mask=mask)[0],
        lambda *x: attention(*x, mask=mask),
    )
    for route in routes:
        leaves = [x.detach().to(dtype).requires_grad_() for x in qkv]
        with torch.autograd.set_detect_anomaly(True, check_nan=True):
            output = route(*leaves)
            output.sum().backward()
        assert not output[:, :, 1].any()
        assert not leaves[0].grad[:, :, 1].any()
        assert all(x.grad.isfinite().all() for x in leaves)
        assert leaves[2].grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_as_exact_as_the_plain_formula(qkv, dtype):
    """At most twice the error of the formula in that dtype, against float64."""
    exact, _ = scaled_dot_product_attention(*qkv)
    Q, K, V = (x.to(dtype) for x in qkv)
    plain = (Q @ K.mT / D_KEY**0.5).softmax(-1) @ V
    for route in (scaled_dot_product_attention(Q, K, V)[0], attention(Q, K, V)):
        error = (route.double() - exact).abs().max()
        assert error <= 2 * (plain.double() - exact).abs().max()


def test_inputs_are_not_modified(qkv, mask, normal):
    bias = normal(HEADS, N_QUERY, N_KEY)
    before = [x.clone() for x in (*qkv, mask, bias)]
    output, P = scaled_dot_product_attention(*qkv, mask=mask, bias=bias)
    attention_backward(torch.ones_like(output), *qkv, P)
    assert all(map(torch.equal, before, (*qkv, mask, bias)))


def test_large_finite_numbers_are_accepted(qkv, mask):
    """Their sum overflows, which must not be mistaken for an infinite entry."""
    Q, K, V = (x.float() for x in qkv)
    V = torch.full_like(V, 3e38)
    output, _ = scaled_dot_product_attention(Q, K, V, mask=mask)
    assert output[:, :, 0].isfinite().all()


ERRORS = {
    "d_key": ({"Q": (5, 2)}, "Q and K must share d_key, got 2 and 3"),
    "n_key": ({"V": (11, 3)}, "K and V must share n_key, got 7 and 11"),
    "float mask": (
        {"mask": torch.zeros(5, 7)},
        "mask must be boolean (True = may attend), got torch.float32",
    ),
    "transposed mask": (
        {"mask": torch.ones(7, 5).bool()},
        "mask must broadcast to (5, 7), got (7, 5)",
    ),
    "larger mask": (
        {"mask": torch.ones(2, 5, 7).bool()},
        "mask must broadcast to (5, 7), got (2, 5, 7)",
    ),
    "batch or heads": (
        {"Q": (2, 2, 5, 3), "K": (2, 2, 7, 3), "V": (2, 2, 7, 3)}
        | {"mask": torch.ones(2, 5, 7).bool()},
        "mask must have 2 or 4 axes, as Q, got (2, 5, 7)",
    ),
    "transposed bias": (
        {"bias": torch.zeros(7, 5)},
        "bias must broadcast to (5, 7), got (7, 5)",
    ),
    "infinite bias": (
        {"bias": torch.full((5, 7), -torch.inf)},
        "bias must be finite (use mask to mask out keys)",
    ),
}
ERRORS |= {
    f"NaN in {name}": (
        {name: torch.full(shape, torch.nan), "mask": torch.ones(5, 7).bool()},
        f"{name} must be finite if a mask is given: 0 * NaN is NaN",
    )
    for name, shape in {"Q": (5, 3), "K": (7, 3), "V": (7, 3)}.items()
}


@pytest.mark.parametrize(
    "f", [scaled_dot_product_attention, fused_attention, blockwise_attention]
)
@pytest.mark.parametrize(("given", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(f, given, message):
    # Unwrapped from the shape checker of the tests, whose error would come first.
    given = {"Q": (5, 3), "K": (7, 3), "V": (7, 3)} | given
    given = {k: torch.ones(x) if type(x) is tuple else x for k, x in given.items()}
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}$"):
        inspect.unwrap(f)(**given)


def test_nan_without_a_mask_reaches_the_output(qkv):
    qkv[2][0, 0, -1, 0] = torch.nan
    output, _ = scaled_dot_product_attention(*qkv)
    assert output.isnan().any()


@pytest.mark.parametrize(
    "f", [scaled_dot_product_attention, attention, fused_attention]
)
def test_masks_are_given_by_keyword(qkv, mask, f):
    with pytest.raises(
        TypeError, match="takes 3 positional arguments but 4 were given"
    ):
        inspect.unwrap(f)(*qkv, mask)
