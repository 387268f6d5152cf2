"""`transformer` against torch's encoder, and by structure."""

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
    """torch.nn.TransformerEncoder, pre-norm, with the weights of an Encoder."""
    layer = nn.TransformerEncoderLayer(
        D, HEADS, HIDDEN, dropout=0.0, batch_first=True, norm_first=True
    )
    peer = nn.TransformerEncoder(
        layer, LAYERS, norm=nn.LayerNorm(D), enable_nested_tensor=False
    ).double()
    with torch.no_grad():
        for mine, theirs in zip(ours.layers, peer.layers, strict=True):
            w = mine.attention.weights
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
    found = ours(X, mask)
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
def test_positions_are_what_tells_orders_apart(X, generator, name):
    """Of all encodings, only none leaves the output where the input was moved to."""
    options = encoding(name, D, HEADS, n_position=N, generator=generator)
    model = Encoder(D, HEADS, LAYERS, **options, generator=generator).double()
    if name == "learned":
        nn.init.normal_(model.encode.positions.P, generator=generator)
    order = torch.randperm(N, generator=generator)
    same = torch.allclose(model(X[:, order]), model(X)[:, order], rtol=0, atol=1e-9)
    assert same == (name == "none")


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_causal_encoder_reads_no_later_position(X, generator, name):
    options = encoding(name, D, HEADS, n_position=N, generator=generator)
    model = Encoder(D, HEADS, LAYERS, causal=True, **options).double()
    changed = X.clone()
    changed[:, -1] += 1
    before, after = model(X), model(changed)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


def test_a_learnt_encoding_is_trained_and_saved(generator):
    options = encoding("learned", D, HEADS, n_position=N, generator=generator)
    model = Encoder(D, HEADS, LAYERS, **options)
    assert "encode.positions.P" in model.state_dict()
    with pytest.raises(ValueError, match="from 0 to 6, the last that was learnt, got"):
        model(torch.zeros(1, N + 1, D))


def test_encodings_that_are_refused():
    with pytest.raises(
        ValueError, match=r"name must be one of none, learned, .* 'rope'"
    ):
        encoding("rope", D, HEADS)
    with pytest.raises(ValueError, match="n_position must be given for learned"):
        encoding("learned", D, HEADS)


@pytest.mark.parametrize("name", ["none", "sinusoidal", "rotary"])
def test_weights_are_those_that_were_used(generator, name):
    options = encoding(name, 16, 4)
    images = torch.rand(3, 28, 28, generator=generator)
    model = RowTransformer(d_model=16, n_layer=2, generator=generator, **options)
    weights = model.weights(images)
    assert [P.shape for P in weights] == [(3, 4, 28, 28)] * 2
    for P in weights:
        torch.testing.assert_close(P.sum(-1), torch.ones(3, 4, 28))
    assert model(images).shape == (3, 10)


def test_both_routes_give_the_same(generator):
    images = torch.rand(3, 28, 28, generator=generator)
    outputs = []
    for options in ({}, {"attend": fused_attention}):
        seeded = torch.Generator().manual_seed(0)
        outputs.append(RowTransformer(generator=seeded, **options)(images))
    torch.testing.assert_close(*outputs)


def test_the_network_comes_from_its_generator_alone():
    before = torch.get_rng_state()
    models = [
        TokenTransformer(11, 5, d_model=8, n_head=2, n_layer=1, generator=g)
        for g in (torch.Generator().manual_seed(0), torch.Generator().manual_seed(0))
    ]
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(*(m.parameters() for m in models), strict=True):
        assert torch.equal(a, b)


def test_tokens_have_logits_at_every_position(generator):
    model = TokenTransformer(11, 5, d_model=8, n_head=2, n_layer=1, generator=generator)
    tokens = torch.randint(11, (BATCH, N), generator=generator)
    mask = padding_mask(torch.tensor([N, 4]), N)
    assert model(tokens, mask).shape == (BATCH, N, 5)
    [P] = model.weights(tokens, mask)
    assert not P[1, ..., 4:].any()


def test_negative_tokens_are_refused(generator):
    model = TokenTransformer(11, 5, d_model=8, n_head=2, n_layer=1, generator=generator)
    for call in (model, model.weights):
        with pytest.raises(ValueError, match="tokens must not be negative, got -1"):
            call(torch.tensor([[1, -1]]))
