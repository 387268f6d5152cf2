"""`dian.attention` against a loop one can check by eye, autograd and torch."""

import inspect
import math

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dian.attention.dot_product import (
    attention,
    attention_backward,
    attention_with_weights,
    fused_attention,
    scaled_dot_product_attention,
)
from dian.attention.masks import causal_mask, padding_mask
from dian.attention.softmax import softmax_backward, softmax_jacobian
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
    """With a batch and heads."""
    lead = BATCH, HEADS
    sizes = (N_QUERY, D_KEY), (N_KEY, D_KEY), (N_KEY, D_VALUE)
    return [normal(*lead, *size) for size in sizes]


@pytest.fixture
def mask(generator):
    """One for each sequence; query 1 may read nothing."""
    mask = torch.rand(BATCH, 1, N_QUERY, N_KEY, generator=generator) < 0.5
    mask[..., 0] = True
    mask[:, :, 1] = False
    return mask


def by_loops(Q, K, V, mask, scale):
    """One query at a time, in plain Python arithmetic."""
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
    output, _ = scaled_dot_product_attention(*qkv, mask)
    for b in range(BATCH):
        for h in range(HEADS):
            one = [x[b, h] for x in qkv]
            expected = by_loops(*one, mask[b, 0], D_KEY**-0.5)
            torch.testing.assert_close(output[b, h], expected, **EXACT)
            wrong = by_loops(*one, mask[b, 0], 1 / D_KEY)
            with pytest.raises(AssertionError):  # it can fail
                torch.testing.assert_close(output[b, h], wrong, **EXACT)


@pytest.mark.parametrize("lead", [(), (BATCH,), (BATCH, HEADS)])
@pytest.mark.parametrize("kind", ["none", "padding", "causal", "any", "bias", "both"])
def test_equals_torch_with_all_gradients(normal, mask, lead, kind):
    """Ours by autograd, ours by hand, and the fused route, against the plain kernel."""
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
    if M is not None:  # what torch makes of a row without keys is another test's
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
        lambda *x: scaled_dot_product_attention(*x, M, B)[0],
        lambda *x: attention(*x, M, B),
        lambda *x: fused_attention(*x, M, B),
    )
    for route in routes:
        for found, theirs in zip(all_of(route), expected, strict=True):
            torch.testing.assert_close(found, theirs.nan_to_num(0), **EXACT)


def test_rows_sum_to_one_or_zero(qkv, mask):
    _, P = scaled_dot_product_attention(*qkv, mask)
    sums = mask.any(-1).double().expand(BATCH, HEADS, N_QUERY)
    torch.testing.assert_close(P.sum(-1), sums)
    assert not P[~mask.expand_as(P)].any()


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_gradients_by_hand(qkv, mask, normal, generator, rate):
    """Autograd of the plain formula; the bias is spread over sequences and queries."""
    bias = normal(HEADS, 1, N_KEY)
    like = torch.empty(BATCH, HEADS, N_QUERY, N_KEY, dtype=torch.float64)
    Z = dropout_mask(like, rate, generator)
    leaves = [x.requires_grad_() for x in (*qkv, bias)]
    output, P = scaled_dot_product_attention(*leaves[:3], mask, leaves[3], Z)
    O_bar = normal(*output.shape)
    expected = torch.autograd.grad(output, leaves, O_bar)
    found = attention_backward(O_bar, *(x.detach() for x in (*qkv, P)), Z)
    ours = [found.Q, found.K, found.V, found.S.sum_to_size(bias.shape)]
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    assert expected[3].any()


@pytest.mark.parametrize("scores", [1, 2 * N_QUERY * N_KEY + 1, 10**6])
@pytest.mark.parametrize("reads", ["output", "weights", "both"])
@pytest.mark.parametrize("lead", [(), (BATCH, HEADS)])
def test_how_many_heads_go_back_together_changes_nothing(
    qkv, mask, normal, monkeypatch, scores, reads, lead
):
    monkeypatch.setattr("dian.attention.dot_product.SCORES", scores)
    inputs = [x[tuple(0 for _ in range(2 - len(lead)))] if not lead else x for x in qkv]
    inputs = [x.detach().requires_grad_() for x in inputs]
    hidden = mask.expand(*lead, N_QUERY, N_KEY) if lead else mask.flatten(0, -3)[0]
    given = normal(*lead, N_QUERY, D_VALUE), normal(*lead, N_QUERY, N_KEY)

    def gradients(f):
        found = f(*inputs, hidden)
        kept = {"output": [0], "weights": [1], "both": [0, 1]}[reads]
        loss = sum((found[i] * given[i]).sum() for i in kept)
        return torch.autograd.grad(loss, inputs, materialize_grads=True)

    expected = gradients(scaled_dot_product_attention)
    for a, b in zip(gradients(attention_with_weights), expected, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_the_bias_gets_its_gradient(qkv, mask, normal):
    bias = normal(HEADS, 1, N_KEY).requires_grad_()
    output = attention(*qkv, mask, bias)
    plain, _ = scaled_dot_product_attention(*qkv, mask, bias)
    O_bar = normal(*output.shape)
    pair = [torch.autograd.grad(x, bias, O_bar)[0] for x in (output, plain)]
    torch.testing.assert_close(*pair, **EXACT)


def test_the_jacobian_is_what_the_backward_pass_multiplies_by(normal):
    p, p_bar = normal(HEADS, N_KEY).softmax(-1), normal(HEADS, N_KEY)
    product = (softmax_jacobian(p) @ p_bar.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(softmax_backward(p, p_bar), product)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16]
)
def test_a_query_that_may_read_nothing(qkv, mask, dtype):
    """Zeros, forward and back, and no NaN anywhere on the way; by every route."""
    routes = (
        lambda *x: scaled_dot_product_attention(*x, mask)[0],
        lambda *x: attention(*x, mask),
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
def test_small_types_are_as_exact_as_a_plain_formula(qkv, dtype):
    """At most twice the error of the formula in that type, against float64."""
    exact, _ = scaled_dot_product_attention(*qkv)
    Q, K, V = (x.to(dtype) for x in qkv)
    plain = (Q @ K.mT / D_KEY**0.5).softmax(-1) @ V
    for route in (scaled_dot_product_attention(Q, K, V)[0], attention(Q, K, V)):
        error = (route.double() - exact).abs().max()
        assert error <= 2 * (plain.double() - exact).abs().max()


def test_nothing_given_is_changed(qkv, mask, normal):
    bias = normal(HEADS, N_QUERY, N_KEY)
    before = [x.clone() for x in (*qkv, mask, bias)]
    output, P = scaled_dot_product_attention(*qkv, mask, bias)
    attention_backward(torch.ones_like(output), *qkv, P)
    assert all(map(torch.equal, before, (*qkv, mask, bias)))


def test_the_causal_mask_is_torchs_where_there_are_as_many_keys(qkv):
    _, K, V = qkv
    output, _ = scaled_dot_product_attention(K, K, V, causal_mask(N_KEY))
    expected = F.scaled_dot_product_attention(K, K, V, is_causal=True)
    torch.testing.assert_close(output, expected, **EXACT)


def test_the_causal_mask_is_aligned_at_the_end():
    mask = causal_mask(2, 5)
    assert mask.tolist() == [[True] * 4 + [False], [True] * 5]
    assert torch.equal(causal_mask(5)[-2:], mask)


def test_padding_hides_the_end_of_each_sequence():
    mask = padding_mask(torch.tensor([0, 2, 3]), 3)
    assert mask.shape == (3, 1, 1, 3)
    rows = [[False] * 3, [True, True, False], [True] * 3]
    assert mask[:, 0, 0].tolist() == rows


def test_dropout_keeps_the_mean(generator):
    Z = dropout_mask(torch.empty(9973, dtype=torch.float64), 0.3, generator)
    assert Z.unique().tolist() == pytest.approx([0, 1 / 0.7])
    error = (0.3 / 0.7 / 9973) ** 0.5
    assert Z.mean().item() == pytest.approx(1, abs=5 * error)
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\), got 1"):
        dropout_mask(Z, 1.0)


@pytest.mark.parametrize("f", [scaled_dot_product_attention, fused_attention])
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((5, 2), (7, 3), (7, 3)), "Q and K must share d_key, got 2 and 3"),
        (((5, 3), (7, 3), (11, 3)), "K and V must share n_key, got 7 and 11"),
        (((5, 3), (7, 3), (7, 3), (7, 5)), r"mask must broadcast .* got \(7, 5\)"),
        (((5, 3), (7, 3), (7, 3), (2, 5, 7)), r"here \(5, 7\), got \(2, 5, 7\)"),
    ],
)
def test_shapes_that_disagree(f, shapes, message):
    # Without the shape checker that the tests wrap round every function of dian,
    # so that this is the error that a user sees.
    *tensors, last = (torch.zeros(shape) for shape in shapes)
    given = [*tensors, last.bool() if len(shapes) == 4 else last]
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(f)(*given)


@pytest.mark.parametrize("f", [scaled_dot_product_attention, fused_attention])
def test_masks_and_biases_of_the_wrong_kind(qkv, f):
    plain = inspect.unwrap(f)
    with pytest.raises(TypeError, match=r"mask must be boolean, .* got torch.float64"):
        plain(*qkv, torch.zeros(N_QUERY, N_KEY).double())
    bias = torch.zeros(N_QUERY, N_KEY).double()
    bias[0, 0] = -torch.inf
    with pytest.raises(
        ValueError, match=r"bias must be finite, .* hide keys by the ma"
    ):
        plain(*qkv, None, bias)
    with pytest.raises(ValueError, match=r"bias must broadcast to"):
        plain(*qkv, None, bias.T)


@pytest.mark.parametrize("position", range(3))
def test_a_mask_does_not_hide_what_is_not_finite(qkv, mask, position):
    name = "QKV"[position]
    qkv[position][0, 0, -1, 0] = torch.nan
    with pytest.raises(ValueError, match=f"{name} must be finite where a mask is giv"):
        scaled_dot_product_attention(*qkv, mask)
    # without a mask nothing hides it, and it is there for all to see
    output, _ = scaled_dot_product_attention(*qkv)
    assert output.isnan().any()


def test_large_finite_numbers_pass(qkv, mask):
    """Their sum overflows, and they do not."""
    Q, K, V = (x.float() for x in qkv)
    V = torch.full_like(V, 3e38)
    output, _ = scaled_dot_product_attention(Q, K, V, mask)
    assert output[:, :, 0].isfinite().all()
