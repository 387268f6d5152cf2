"""`multi_head` against torch's layer, autograd and a loop over heads."""

import inspect

import pytest
import torch
from torch import nn

from dian.attention.dot_product import attention, fused_attention
from dian.attention.masks import causal_mask, padding_mask
from dian.attention.multi_head import (
    MultiHeadAttention,
    Projections,
    from_torch,
    merge_heads,
    multi_head_attention,
    multi_head_backward,
    split_heads,
)
from dian.positions.alibi import alibi_bias
from dian.positions.rotary import rotate
from dian.positions.sinusoidal import frequencies

BATCH, N, M, HEADS, D_HEAD = 2, 5, 7, 3, 4
D = HEADS * D_HEAD
EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.fixture
def normal(generator):
    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw


@pytest.fixture
def peer(generator):
    layer = nn.MultiheadAttention(D, HEADS, batch_first=True).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return layer


def gradients(of, ours):
    """The gradients of torch's layer, in our order and orientation; and ours."""
    W = of.in_proj_weight.grad.chunk(3)
    theirs = [x.T for x in (*W, of.out_proj.weight.grad)]
    theirs += [*of.in_proj_bias.grad.chunk(3), of.out_proj.bias.grad]
    return theirs, [parameter.grad for parameter in ours.weights]


@pytest.mark.parametrize("route", ["fused", "by hand", "weights"])
@pytest.mark.parametrize("kind", ["none", "padding", "causal", "both"])
@pytest.mark.parametrize("crossed", [False, True])
def test_equals_torch_with_all_gradients(peer, normal, route, kind, crossed):
    X, Y = normal(BATCH, N, D), normal(BATCH, M if crossed else N, D)
    m = Y.shape[1]
    lengths = torch.tensor([m, m - 2])
    masks = {"padding": padding_mask(lengths, m), "causal": causal_mask(N, m)}
    masks["both"] = masks["padding"] & masks["causal"]
    mask = masks.get(kind)
    ours = from_torch(peer)
    if route == "by hand":
        ours.attend = attention
    leaves = [[x.clone().requires_grad_() for x in (X, Y)] for _ in range(2)]
    for pair in leaves:
        if not crossed:
            pair[1] = pair[0]
    theirs_mask = None
    if mask is not None:
        theirs_mask = (~mask).expand(BATCH, HEADS, N, m).flatten(0, 1)
    query, key = leaves[0]
    expected, P_expected = peer(
        query, key, key, attn_mask=theirs_mask, average_attn_weights=False
    )
    X, Y = leaves[1]
    found = ours(X, Y if crossed else None, mask, need_weights=route == "weights")
    if route == "weights":
        found, P = found
        torch.testing.assert_close(P, P_expected, **EXACT)
    torch.testing.assert_close(found, expected, **EXACT)
    Y_bar = normal(BATCH, N, D)
    for output in (found, expected):
        output.backward(Y_bar)
    for a, b in zip(*leaves, strict=True):
        torch.testing.assert_close(a.grad, b.grad, **EXACT)
    for a, b in zip(*gradients(peer, ours), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("n_kv_head", [1, 2, 6])
def test_the_way_back_by_hand(normal, n_kv_head):
    """Autograd of the plain function, with keys and values that heads share."""
    n_head, width = 6, 6 * D_HEAD
    kv = n_kv_head * D_HEAD
    shapes = [(width, width), (width, kv), (width, kv), (width, width)]
    shapes += [(width,), (kv,), (kv,), (width,)]
    X_q, X_kv = normal(BATCH, N, width), normal(BATCH, M, width)
    mask = padding_mask(torch.tensor([3, M]), M)
    leaves = [x.requires_grad_() for x in (X_q, X_kv, *(normal(*s) for s in shapes))]
    weights = Projections(*leaves[2:])
    Y, inner = multi_head_attention(X_q, X_kv, weights, n_head, n_kv_head, mask)
    Y_bar = normal(*Y.shape)
    expected = torch.autograd.grad(Y, leaves, Y_bar)
    with torch.no_grad():
        found = multi_head_backward(Y_bar, X_q, X_kv, weights, inner)
    for a, b in zip([found.X_q, found.X_kv, *found.weights], expected, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_heads_are_cut_from_the_features(normal):
    X = normal(BATCH, N, D)
    heads = split_heads(X, HEADS)
    assert heads.shape == (BATCH, HEADS, N, D_HEAD)
    for h in range(HEADS):
        assert torch.equal(heads[:, h], X[..., h * D_HEAD : (h + 1) * D_HEAD])
    assert torch.equal(merge_heads(heads), X)


@pytest.mark.parametrize("n_kv_head", [1, HEADS])
@pytest.mark.parametrize("parts", [[1] * N, [2, 3], [N]])
@pytest.mark.parametrize("way", ["none", "rotary", "alibi"])
def test_cached_decoding_is_the_full_pass(normal, generator, n_kv_head, parts, way):
    omega = frequencies(D_HEAD)
    turn = None
    if way == "rotary":

        def turn(x, offset):
            return rotate(x, omega, offset=offset)

    options = {"n_kv_head": n_kv_head, "rotate": turn, "generator": generator}
    layer = MultiHeadAttention(D, HEADS, **options).double()
    X, every = normal(BATCH, N, D), torch.arange(N)
    bias = alibi_bias(every, every, HEADS, torch.float64) if way == "alibi" else None
    whole = layer(X, mask=causal_mask(N), bias=bias)
    cache, outputs, begin = None, [], 0
    for n in parts:
        end = begin + n
        of_part = None if bias is None else bias[:, begin:end, :end]
        before = cache
        output, cache = layer.decode(X[:, begin:end], cache, of_part)
        outputs.append(output)
        assert before is None or before.K.shape[2] == begin  # left as it was
        begin = end
    torch.testing.assert_close(torch.cat(outputs, 1), whole, **EXACT)
    assert cache.K.shape == (BATCH, n_kv_head, N, D_HEAD)


def test_dropout_is_for_training_and_from_the_generator(normal, generator):
    layer = MultiHeadAttention(D, HEADS, dropout=0.5, generator=generator).double()
    X = normal(BATCH, N, D)
    generator.manual_seed(1)
    first = layer(X)
    assert not torch.equal(layer(X), first)
    generator.manual_seed(1)
    assert torch.equal(layer(X), first)
    _, P = layer(X, need_weights=True)
    torch.testing.assert_close(P.sum(-1), torch.ones_like(P[..., 0]))
    layer.eval()
    assert torch.equal(layer(X), layer(X))
    torch.testing.assert_close(layer(X), layer(X, need_weights=True)[0], **EXACT)


def test_the_start_comes_from_the_generator_alone():
    before = torch.get_rng_state()
    layers = [
        MultiHeadAttention(D, HEADS, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(layers[0].W_K, layers[1].W_K)
    assert not torch.equal(layers[0].W_K, layers[2].W_K)
    assert not any(layers[0].weights[i].any() for i in range(4, 8))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((12, 5), "d_model must be a multiple of n_head, got 12 and 5"),
        ((12, 0), "d_model must be a multiple of n_head, got 12 and 0"),
        ((12, 6, 4), "n_head must be a multiple of n_kv_head, got 6 and 4"),
    ],
)
def test_heads_that_do_not_divide(sizes, message):
    d_model, n_head, *rest = sizes
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(d_model, n_head, n_kv_head=rest[0] if rest else None)


def test_masks_of_the_wrong_kind(normal):
    # Without the shape checker, so that these are the errors that a user sees.
    route = inspect.unwrap(fused_attention)
    layer = MultiHeadAttention(D, HEADS, attend=route).double()
    X = normal(BATCH, N, D)
    plain = inspect.unwrap(MultiHeadAttention.forward)
    three = torch.ones(BATCH, N, N, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"mask must be \(n, m\), or .* got \(2, 5, 5"):
        plain(layer, X, mask=three)
    with pytest.raises(TypeError, match="mask must be boolean"):
        plain(layer, X, mask=three[0].double())
    with pytest.raises(ValueError, match="mask must broadcast"):
        plain(layer, X, mask=torch.ones(N, M, dtype=torch.bool))
    X[0, -1] = torch.nan
    with pytest.raises(ValueError, match="Q must be finite where a mask is given"):
        plain(layer, X, mask=three[0])


def test_a_peer_with_what_ours_has_not():
    with pytest.raises(ValueError, match="peer must have biases"):
        from_torch(nn.MultiheadAttention(D, HEADS, bias=False))
    with pytest.raises(ValueError, match="peer must have biases, and keys and values"):
        from_torch(nn.MultiheadAttention(D, HEADS, kdim=5))
    with pytest.raises(ValueError, match="peer must not add keys"):
        from_torch(nn.MultiheadAttention(D, HEADS, add_bias_kv=True))


def test_a_sequence_without_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"X must be \(batch, n, width\)"):
        inspect.unwrap(split_heads)(torch.ones(5, 12), 3)
