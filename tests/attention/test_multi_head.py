"""`dian.attention.multi_head` against the layer of torch, and autograd."""

import inspect
import io
import re
from functools import partial

import pytest
import torch
from torch import nn

from dian.attention.dot_product import attention, fused_attention
from dian.attention.masks import causal_mask, padding_mask
from dian.attention.multi_head import (
    MultiHeadAttention,
    Projections,
    merge_heads,
    multi_head_attention,
    multi_head_backward,
    split_heads,
)
from dian.positions.alibi import alibi_bias
from dian.positions.rotary import RotaryEmbedding, rotate
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
    """Return the gradients of torch's layer in our layout, and ours."""
    W = of.in_proj_weight.grad.chunk(3)
    theirs = [x.T for x in (*W, of.out_proj.weight.grad)]
    theirs += [*of.in_proj_bias.grad.chunk(3), of.out_proj.bias.grad]
    return theirs, [parameter.grad for parameter in ours.projections]


@pytest.mark.parametrize("route", ["fused", "own backward", "weights"])
@pytest.mark.parametrize("kind", ["none", "padding", "causal", "both"])
@pytest.mark.parametrize("crossed", [False, True])
def test_equals_torch_with_all_gradients(peer, normal, route, kind, crossed):
    X, Y = normal(BATCH, N, D), normal(BATCH, M if crossed else N, D)
    m = Y.shape[1]
    lengths = torch.tensor([m, m - 2])
    masks = {"padding": padding_mask(lengths, m), "causal": causal_mask(N, m)}
    masks["both"] = masks["padding"] & masks["causal"]
    mask = masks.get(kind)
    ours = MultiHeadAttention.from_torch(peer)
    if route == "own backward":
        ours.attention_fn = attention
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
    memory = Y if crossed else None
    found = ours(X, memory, mask=mask, need_weights=route == "weights")
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
def test_backward_with_shared_heads(normal, n_kv_head):
    """Equals autograd of the forward function."""
    n_head, width = 6, 6 * D_HEAD
    kv = n_kv_head * D_HEAD
    shapes = [(width, width), (width, kv), (width, kv), (width, width)]
    shapes += [(width,), (kv,), (kv,), (width,)]
    X_q, X_kv = normal(BATCH, N, width), normal(BATCH, M, width)
    mask = padding_mask(torch.tensor([3, M]), M)
    leaves = [x.requires_grad_() for x in (X_q, X_kv, *(normal(*s) for s in shapes))]
    weights = Projections(*leaves[2:])
    Y, inner = multi_head_attention(X_q, X_kv, weights, n_head, n_kv_head, mask=mask)
    Y_bar = normal(*Y.shape)
    expected = torch.autograd.grad(Y, leaves, Y_bar)
    with torch.no_grad():
        found = multi_head_backward(Y_bar, X_q, X_kv, weights, inner)
    for a, b in zip([found.X_q, found.X_kv, *found.weights], expected, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_heads_are_slices_of_the_features(normal):
    X = normal(BATCH, N, D)
    heads = split_heads(X, HEADS)
    assert heads.shape == (BATCH, HEADS, N, D_HEAD)
    for h in range(HEADS):
        assert torch.equal(heads[:, h], X[..., h * D_HEAD : (h + 1) * D_HEAD])
    assert torch.equal(merge_heads(heads), X)


def rotate_pairs(x, offset):
    return rotate(x, frequencies(D_HEAD), offset=offset)


class Rotation(nn.Module):
    """The same as a module."""

    def forward(self, x, offset):
        return rotate_pairs(x, offset)


@pytest.mark.parametrize("n_kv_head", [1, HEADS])
@pytest.mark.parametrize("parts", [[1] * N, [2, 3], [N]])
@pytest.mark.parametrize("positions", ["none", "rotary", "alibi"])
def test_cached_decoding_is_the_full_pass(
    normal, generator, n_kv_head, parts, positions
):
    rotation = rotate_pairs if positions == "rotary" else None
    options = {"n_kv_head": n_kv_head, "rotate": rotation, "generator": generator}
    layer = MultiHeadAttention(D, HEADS, **options).double()
    X, every = normal(BATCH, N, D), torch.arange(N)
    bias = None
    if positions == "alibi":
        bias = alibi_bias(every, every, HEADS, torch.float64)
    whole = layer(X, bias=bias, is_causal=True)
    cache, outputs, begin = None, [], 0
    for n in parts:
        end = begin + n
        of_part = None if bias is None else bias[:, begin:end, :end]
        before = cache
        output, cache = layer.decode(X[:, begin:end], cache, bias=of_part)
        outputs.append(output)
        assert before is None or before.K.shape[2] == begin  # not modified
        begin = end
    torch.testing.assert_close(torch.cat(outputs, 1), whole, **EXACT)
    assert cache.K.shape == (BATCH, n_kv_head, N, D_HEAD)


def test_is_causal_is_combined_with_the_mask(normal, generator):
    layer = MultiHeadAttention(D, HEADS, generator=generator).double()
    X = normal(BATCH, N, D)
    padding = padding_mask(torch.tensor([3, N]), N)
    for mask, both in ((None, causal_mask(N)), (padding, padding & causal_mask(N))):
        found = layer(X, mask=mask, is_causal=True)
        assert torch.equal(found, layer(X, mask=both))
    assert not torch.equal(layer(X), layer(X, is_causal=True))


def test_a_rotary_layer_is_a_rotation(normal):
    rotary = RotaryEmbedding(D_HEAD)
    X, layers = normal(BATCH, N, D), []
    for rotation in (rotary, rotary.rotate):
        generator = torch.Generator().manual_seed(0)
        layers.append(
            MultiHeadAttention(D, HEADS, rotate=rotation, generator=generator).double()
        )
    assert torch.equal(*(layer(X) for layer in layers))
    _, cache = layers[0].decode(X[:, :3])
    assert torch.equal(*(layer.decode(X[:, 3:], cache)[0] for layer in layers))


def test_a_rotation_is_a_function_or_a_module(normal):
    """Both give the same, leave the state dict as it is, and can be saved."""
    layers = [
        MultiHeadAttention(D, HEADS, rotate=rotation, generator=generator).double()
        for rotation in (None, rotate_pairs, Rotation())
        for generator in [torch.Generator().manual_seed(0)]
    ]
    X = normal(BATCH, N, D)
    plain, by_function, by_module = (layer(X) for layer in layers)
    assert torch.equal(by_function, by_module)
    assert not torch.equal(by_function, plain)
    for layer in layers:
        assert list(layer.state_dict()) == list(layers[0].state_dict())
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(X), layer(X))


def test_dropout_is_for_training_alone_and_from_the_generator(normal, generator):
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


@pytest.mark.parametrize("n_kv_head", [1, 2, 3])
@pytest.mark.parametrize("m", [M, 6])  # also as many keys as heads
def test_the_layer_shares_heads_as_the_function_does(normal, n_kv_head, m):
    layer = MultiHeadAttention(D, 6, n_kv_head=n_kv_head).double()
    X, memory = normal(BATCH, N, D), normal(BATCH, m, D)
    shared = layer.projections, 6, n_kv_head
    expected, _ = multi_head_attention(X, memory, *shared)
    torch.testing.assert_close(layer(X, memory), expected, **EXACT)


def test_positions_start_at_zero_unless_there_is_a_cache(normal):
    offsets = []
    layer = MultiHeadAttention(
        D, HEADS, rotate=lambda x, offset: offsets.append(offset) or x
    ).double()
    layer(normal(BATCH, N, D))
    _, cache = layer.decode(normal(BATCH, 2, D))
    layer.decode(normal(BATCH, 1, D), cache)
    assert offsets == [0, 0, 0, 0, 2, 2]


def test_training_without_dropout_draws_no_random_numbers(normal, generator):
    X, layer = normal(BATCH, N, D), MultiHeadAttention(D, HEADS, generator=generator)
    before = generator.get_state()
    layer.double()(X)
    assert torch.equal(generator.get_state(), before)


def test_initial_weights_come_from_the_generator_alone():
    before = torch.get_rng_state()
    layers = [
        MultiHeadAttention(D, HEADS, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(layers[0].W_K, layers[1].W_K)
    assert not torch.equal(layers[0].W_K, layers[2].W_K)
    assert not any(b.any() for b in layers[0].projections[4:])


def layer():
    return MultiHeadAttention(D, HEADS, attention_fn=inspect.unwrap(fused_attention))


def forward(*inputs, **options):
    return inspect.unwrap(MultiHeadAttention.forward)(layer(), *inputs, **options)


def of_torch(**options):
    return MultiHeadAttention.from_torch(nn.MultiheadAttention(D, HEADS, **options))


X_5, MEMORY_7 = torch.ones(BATCH, N, D), torch.ones(BATCH, M, D)
NOT_CONVERTED = (
    "layer must have biases, kdim and vdim equal to embed_dim, and neither add_bias_kv "
    "nor add_zero_attn"
)
ERRORS = {
    "n_head": (
        partial(MultiHeadAttention, 12, 5),
        "d_model must be a multiple of n_head, got 12 and 5",
    ),
    "no heads": (
        partial(MultiHeadAttention, 12, 0),
        "d_model must be a multiple of n_head, got 12 and 0",
    ),
    "n_kv_head": (
        partial(MultiHeadAttention, 12, 6, n_kv_head=4),
        "n_head must be a multiple of n_kv_head, got 6 and 4",
    ),
    "query, key, value": (
        partial(forward, X_5, X_5, X_5),
        "MultiHeadAttention.forward() takes from 2 to 3 positional arguments but 4 "
        "were given",
    ),
    "a mask for each sequence": (
        partial(forward, X_5, mask=torch.ones(BATCH, N, N).bool()),
        "mask must broadcast to (2, 3, 5, 5), got (2, 5, 5)",
    ),
    "a mask for each head": (
        partial(forward, X_5, mask=torch.ones(HEADS, N, N).bool()),
        "mask must have 2 or 4 axes, as Q, got (3, 5, 5)",
    ),
    "a mask of other keys": (
        partial(forward, X_5, MEMORY_7, mask=torch.ones(N, N).bool()),
        "mask must broadcast to (2, 3, 5, 7), got (5, 5)",
    ),
    "no batch": (
        partial(inspect.unwrap(split_heads), torch.ones(5, 12), 3),
        "X must be (batch, n, width), got (5, 12)",
    ),
    "no biases": (partial(of_torch, bias=False), NOT_CONVERTED),
    "other keys": (partial(of_torch, kdim=5), NOT_CONVERTED),
    "more keys": (partial(of_torch, add_bias_kv=True), NOT_CONVERTED),
    "zero keys": (partial(of_torch, add_zero_attn=True), NOT_CONVERTED),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(call, message):
    # Unwrapped from the shape checker of the tests, whose error would come first.
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}$"):
        call()
