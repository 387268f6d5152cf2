"""`feature_network` against a slow convolution; images must not mix."""

import torch
from torch import nn

from dian.diffusion.feature_network import CHANNELS, ConvNet

BATCH, SIZE, D, Q = 5, 12, 11, 7


def by_hand(x, conv):
    """A convolution of 3 by 3, written from its formula alone."""
    stride = conv.stride[0]
    padded = nn.functional.pad(x, [1] * 4)
    rows, columns = (n // stride for n in x.shape[2:])
    out = torch.zeros(len(x), len(conv.weight), rows, columns, dtype=x.dtype)
    for i in range(rows):
        for j in range(columns):
            at = padded[:, :, i * stride : i * stride + 3, j * stride : j * stride + 3]
            product = at.unsqueeze(1) * conv.weight
            out[:, :, i, j] = product.sum((2, 3, 4)) + conv.bias
    return out


def test_it_is_what_it_says(generator):
    network = ConvNet(Q, D, SIZE, generator).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    images = torch.rand(BATCH, SIZE, SIZE, generator=generator, dtype=torch.float64)
    x = images[:, None]
    sizes = []
    for conv, norm in zip(network.convolutions, network.norms, strict=True):
        x = by_hand(x, conv)
        groups = x.unflatten(1, (8, -1))
        mean = groups.mean((2, 3, 4), keepdim=True)
        variance = groups.var((2, 3, 4), keepdim=True, correction=0)
        x = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        x = x * norm.weight[:, None, None] + norm.bias[:, None, None]
        x = x.clamp(min=0)
        sizes.append(tuple(x.shape[1:]))
    assert [c for c, *_ in sizes] == list(CHANNELS)
    assert sizes[-1] == (CHANNELS[-1], SIZE // 4, SIZE // 4)
    flat = x.reshape(BATCH, -1)
    gathered = flat @ network.gather.weight.T + network.gather.bias
    features = gathered.clamp(min=0)
    torch.testing.assert_close(network.features(images), features)
    logits = features @ network.read.weight.T + network.read.bias
    torch.testing.assert_close(network(images), logits)


def test_images_do_not_mix_and_chance_is_the_generators(generator):
    before = torch.get_rng_state()
    network, again = (
        ConvNet(Q, D, SIZE, torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.rand(BATCH, SIZE, SIZE, generator=generator)
    alone = torch.cat([network.features(image) for image in images.split(1)])
    torch.testing.assert_close(network.features(images), alone)
    assert torch.equal(network(images), again(images))


def test_initial_weights_keep_the_variance_and_biases_are_zero(generator):
    """He et al.: variance 2 / fan-in, which a ReLU halves again."""
    network = ConvNet(300, 200, SIZE, generator)
    for layer in (*network.convolutions, network.gather, network.read):
        weight = layer.weight.detach()
        fan_in = weight[0].numel()
        ratio = weight.var() * fan_in / 2
        assert abs(ratio - 1) < 6 * (2 / weight.numel()) ** 0.5
        assert not layer.bias.any()
    for norm in network.norms:
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert not norm.bias.any()
        assert norm.num_groups == 8
    strides = [conv.stride for conv in network.convolutions]
    assert strides == [(1, 1), (2, 2), (1, 1), (2, 2)]
