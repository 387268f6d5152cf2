"""`dian.attention.encoder_layer` against autograd of the modules that train."""

import pytest
import torch

from dian.attention.encoder_layer import encoder_layer, encoder_layer_backward
from dian.attention.layer_norm import layer_norm, layer_norm_backward
from dian.attention.masks import causal_mask
from dian.attention.transformer import Encoder, EncoderLayer
from dian.positions.registry import encoding
from dian.positions.rotary import RotaryEmbedding

BATCH, N, D, HEADS, HIDDEN = 2, 5, 8, 4, 7
EXACT = {"rtol": 0, "atol": 1e-11}


@pytest.fixture
def normal(generator):
    return lambda *s: torch.randn(*s, generator=generator, dtype=torch.float64)


def flat(weights):
    return (*weights.attention, *weights[1:])


def detached(weights):
    attention = type(weights.attention)(*(x.detach() for x in weights.attention))
    return type(weights)(attention, *(x.detach() for x in weights[1:]))


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_shared_heads_and_rotated_ones(normal, generator, n_kv_head):
    options = {"n_kv_head": n_kv_head, "generator": generator}
    layer = EncoderLayer(
        D, HEADS, HIDDEN, **options, **encoding("rotary", D, HEADS)
    ).double()
    X, Z_bar = normal(BATCH, N, D).requires_grad_(), normal(BATCH, N, D)
    weights = detached(layer.weights)
    expected = layer(X, is_causal=True)
    expected.backward(Z_bar)

    rotary = RotaryEmbedding(D // HEADS)
    back = RotaryEmbedding(D // HEADS, omega=-rotary.omega)
    found, inner = encoder_layer(
        X.detach(), weights, HEADS, n_kv_head, mask=causal_mask(N), rotate=rotary.rotate
    )
    gradients = encoder_layer_backward(Z_bar, weights, inner, rotate_back=back.rotate)
    torch.testing.assert_close(found, expected, **EXACT)
    torch.testing.assert_close(gradients.X, X.grad, **EXACT)
    for parameter in layer.parameters():  # the gradients, in the form of the weights
        parameter.data = parameter.grad
    of_layer = flat(detached(layer.weights))
    torch.testing.assert_close(flat(gradients.weights), of_layer, **EXACT)


def test_layer_by_layer_it_is_the_backward_pass_of_the_encoder(normal, generator):
    encoder = Encoder(D, HEADS, 3, d_hidden=HIDDEN, generator=generator).double()
    X, G = normal(BATCH, N, D).requires_grad_(), normal(BATCH, N, D)
    output = encoder(X)
    output.backward(G)
    Z, inners = X.detach(), []
    for layer in encoder.layers:
        Z, inner = encoder_layer(Z, detached(layer.weights), HEADS)
        inners.append(inner)
    gamma, beta = (x.detach() for x in encoder.norm.parameters())
    found, norm = layer_norm(Z, gamma, beta)
    torch.testing.assert_close(found, output, **EXACT)
    final = layer_norm_backward(G, gamma, norm)
    torch.testing.assert_close(final.gamma, encoder.norm.weight.grad, **EXACT)
    Z_bar = final.X
    for layer, inner in zip(encoder.layers[::-1], inners[::-1], strict=True):
        back = encoder_layer_backward(Z_bar, detached(layer.weights), inner)
        torch.testing.assert_close(back.weights.W_2.T, layer.outer.weight.grad, **EXACT)
        torch.testing.assert_close(back.weights.b_1, layer.inner.bias.grad, **EXACT)
        Z_bar = back.X
    torch.testing.assert_close(Z_bar, X.grad, **EXACT)
