"""`dian.attention.transformer` against the encoder of torch, and by structure."""

import pytest
import torch
from torch import nn

from dian.attention.dot_product import fused_attention
from dian.attention.masks import padding_mask
from dian.attention.transformer import Encoder, RowTransformer, TokenTransformer
from dian.positions.registry import ENCODINGS, encoding

BATCH, N, D, HEADS, LAYERS, HIDDEN = 2, 7, 12, 3, 2, 17
EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.fixture
def X(generator):
    return torch.randn(BATCH, N, D, generator=generator, dtype=torch.float64)


def peer_of(ours):
    """Return torch.nn.TransformerEncoder, pre-norm, with the weights of an Encoder."""
    layer = nn.TransformerEncoderLayer(
        D, HEADS, HIDDEN, dropout=0.0, batch_first=True, norm_first=True
    )
    peer = nn.TransformerEncoder(
        layer, LAYERS, norm=nn.LayerNorm(D), enable_nested_tensor=False
    ).double()
    with torch.no_grad():
        for mine, theirs in zip(ours.layers, peer.layers, strict=True):
            w = mine.attention.projections
            attention = theirs.self_attn
            attention.in_proj_weight.copy_(torch.cat([w.W_Q.T, w.W_K.T, w.W_V.T]))
            attention.in_proj_bias.copy_(torch.cat([w.b_Q, w.b_K, w.b_V]))
            attention.out_proj.weight.copy_(w.W_O.T)
            attention.out_proj.bias.copy_(w.b_O)
            for name, other in (
                ("norm_1", "norm1"),
                ("norm_2", "norm2"),
                ("inner", "linear1"),
                ("outer", "linear2"),
            ):
                of = getattr(mine, name).state_dict()
                getattr(theirs, other).load_state_dict(of)
        peer.norm.load_state_dict(ours.norm.state_dict())
    return peer


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_the_encoder_equals_torchs(X, generator, causal, padded):
    ours = Encoder(
        D, HEADS, LAYERS, d_hidden=HIDDEN, causal=causal, generator=generator
    ).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    peer = peer_of(ours)
    mask = padding_mask(torch.tensor([N, 4]), N) if padded else None
    expected = peer(
        X,
        mask=torch.ones(N, N, dtype=torch.bool).triu(1) if causal else None,
        src_key_padding_mask=~mask[:, 0, 0] if padded else None,
    )
    found = ours(X, mask=mask)
    torch.testing.assert_close(found, expected, **EXACT)
    G = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    for output in (found, expected):
        output.backward(G)
    for mine, theirs in zip(ours.layers, peer.layers, strict=True):
        for a, b in (
            (mine.attention.W_O.grad.T, theirs.self_attn.out_proj.weight.grad),
            (mine.attention.W_Q.grad.T, theirs.self_attn.in_proj_weight.grad[:D]),
            (mine.inner.weight.grad, theirs.linear1.weight.grad),
        ):
            torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("name", ENCODINGS)
def test_only_without_positions_is_it_equivariant(X, generator, name):
    options = encoding(name, D, HEADS, n_position=N, generator=generator)
    model = Encoder(D, HEADS, LAYERS, **options, generator=generator).double()
    if name == "learned":
        nn.init.normal_(model.encode.positions.P, generator=generator)
    order = torch.randperm(N, generator=generator)
    same = torch.allclose(model(X[:, order]), model(X)[:, order], rtol=0, atol=1e-9)
    assert same == (name == "none")


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_causal_encoder_does_not_attend_to_later_positions(X, generator, name):
    options = encoding(name, D, HEADS, n_position=N, generator=generator)
    model = Encoder(D, HEADS, LAYERS, causal=True, **options).double()
    changed = X.clone()
    changed[:, -1] += 1
    before, after = model(X), model(changed)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("n_kv_head", [1, HEADS])
def test_decoding_equals_one_pass(X, generator, name, n_kv_head):
    options = encoding(name, D, HEADS, n_position=N, generator=generator)
    model = Encoder(
        D, HEADS, LAYERS, causal=True, n_kv_head=n_kv_head, generator=generator,
        **options,
    ).double()  # fmt: skip
    caches, parts = None, []
    for part in X.split([3, 1, 3], 1):
        output, caches = model.decode(part, caches)
        parts.append(output)
    torch.testing.assert_close(torch.cat(parts, 1), model(X), **EXACT)
    assert [cache.K.shape for cache in caches] == [
        (BATCH, n_kv_head, N, D // HEADS)
    ] * LAYERS


def test_only_a_causal_encoder_decodes(X):
    with pytest.raises(ValueError, match="only a causal encoder can decode"):
        Encoder(D, HEADS, LAYERS).double().decode(X)


def test_a_learned_encoding_is_trained_and_saved(generator):
    options = encoding("learned", D, HEADS, n_position=N, generator=generator)
    model = Encoder(D, HEADS, LAYERS, **options)
    assert "encode.positions.P" in model.state_dict()
    with pytest.raises(ValueError, match="from 0 to 6, the last learned one, got"):
        model(torch.zeros(1, N + 1, D))


@pytest.mark.parametrize("name", ["none", "sinusoidal", "rotary"])
def test_attention_weights_are_those_of_the_forward_pass(generator, name):
    """The output of the first layer follows from them."""
    model = RowTransformer(
        d_model=16, n_layer=2, generator=generator, **encoding(name, 16, 4)
    )
    images = torch.rand(3, 28, 28, generator=generator)
    weights = model.attention_weights(images)
    assert [P.shape for P in weights] == [(3, 4, 28, 28)] * 2
    layer, seen = model.encoder.layers[0].attention, []
    layer.register_forward_hook(
        lambda _, inputs, output: seen.extend([*inputs, output])
    )
    model(images)
    X, output = seen
    V = (X @ layer.W_V + layer.b_V).unflatten(-1, (4, 4)).transpose(1, 2)
    heads = (weights[0] @ V).transpose(1, 2).flatten(2)
    torch.testing.assert_close(output, heads @ layer.W_O + layer.b_O)


def test_own_and_fused_attention_agree(generator):
    images = torch.rand(3, 28, 28, generator=generator)
    outputs = []
    for options in ({}, {"attention_fn": fused_attention}):
        seeded = torch.Generator().manual_seed(0)
        outputs.append(RowTransformer(generator=seeded, **options)(images))
    torch.testing.assert_close(*outputs)


def test_options_reach_the_attention_of_each_layer(generator):
    model = Encoder(D, HEADS, LAYERS, n_kv_head=1, dropout=0.5, generator=generator)
    for layer in model.layers:
        assert layer.attention.W_K.shape == (D, D // HEADS)
        assert layer.attention.dropout == 0.5
    with pytest.raises(TypeError, match="unexpected keyword argument 'rotary'"):
        Encoder(D, HEADS, LAYERS, rotary=None)


def test_initial_weights_come_from_the_generator_alone():
    before = torch.get_rng_state()
    models = [
        TokenTransformer(11, 5, d_model=8, n_head=2, n_layer=1, generator=g)
        for g in (torch.Generator().manual_seed(0), torch.Generator().manual_seed(0))
    ]
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(*(m.parameters() for m in models), strict=True):
        assert torch.equal(a, b)


def test_the_default_size_is_that_of_the_recorded_runs():
    model = TokenTransformer(11, 7)
    assert model.vectors.shape == (11, 64)
    assert len(model.encoder.layers) == 2
    for layer in model.encoder.layers:
        assert layer.attention.n_head == 4
        assert layer.inner.weight.shape == (256, 64)


def test_padded_tokens_get_no_weight(generator):
    model = TokenTransformer(11, 5, d_model=8, n_head=2, n_layer=1, generator=generator)
    tokens = torch.randint(11, (BATCH, N), generator=generator)
    mask = padding_mask(torch.tensor([N, 4]), N)
    assert model(tokens, mask=mask).shape == (BATCH, N, 5)
    [P] = model.attention_weights(tokens, mask=mask)
    assert not P[1, ..., 4:].any()


def test_negative_tokens_are_refused(generator):
    model = TokenTransformer(11, 5, d_model=8, n_head=2, n_layer=1, generator=generator)
    for call in (model, model.attention_weights):
        with pytest.raises(ValueError, match="tokens must not be negative, got -1"):
            call(torch.tensor([[1, -1]]))
