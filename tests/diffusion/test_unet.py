"""`unet` against diffusers; images, timesteps and randomness."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dian.diffusion.unet import (
    PRESETS,
    AttentionBlock,
    Downsample,
    ResBlock,
    UNet,
    UNetConfig,
    Upsample,
)
from peers import diffusers_unet, from_diffusers

# No two of the sizes are equal; two levels are enough to have every kind of layer.
SMALL = UNetConfig(channels=5, width=12, multipliers=(1, 3), blocks=2, groups=3)
BATCH, ROW, COLUMN = 7, 6, 10


def peer(config):
    """The network of diffusers with the architecture of ours, and random weights."""
    theirs = diffusers_unet(config)
    generator = torch.Generator().manual_seed(3)
    for parameter in theirs.parameters():
        spread = 0.5 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        nn.init.normal_(parameter, std=spread, generator=generator)
    return theirs.eval()


@pytest.fixture
def network(generator):
    """A small network, no weight of which is zero."""
    network = UNet(SMALL, generator=generator)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return network


@pytest.fixture
def x(generator):
    return torch.randn(BATCH, 5, ROW, COLUMN, generator=generator)


def test_the_network_of_the_paper_is_that_of_diffusers(generator):
    """The configuration of google/ddpm-cifar10-32, with weights of our own."""
    theirs, ours = peer(PRESETS["cifar10"]), UNet("cifar10").eval()
    assert sum(p.numel() for p in ours.parameters()) == 35_746_307
    ours.load_state_dict(from_diffusers(theirs.state_dict(), ours.config))
    x = torch.randn(2, 3, 32, 32, generator=generator)
    t = torch.tensor([1, 1000])
    with torch.no_grad():
        found, expected = ours(x, t), theirs(x, t - 1).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_gradients_too_and_other_configurations(generator):
    theirs, ours = peer(SMALL).double(), UNet(SMALL).double()
    ours.load_state_dict(from_diffusers(theirs.state_dict(), SMALL))
    x = torch.randn(BATCH, 5, ROW, COLUMN, generator=generator, dtype=torch.float64)
    t = torch.randint(1, 20, (BATCH,), generator=generator)
    outputs = ours(x, t), theirs(x, t - 1).sample
    # Their timestep embedding is in float32, whatever the dtype of the network.
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)
    for output in outputs:
        output.square().sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, gradient in from_diffusers(gradients, SMALL).items():
        found = ours.get_parameter(name).grad
        # 0 but for rounding at W_K's bias: it shifts all scores of a query alike.
        scale = max(gradient.abs().max().item(), 1e-6)
        torch.testing.assert_close(found, gradient, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("small", 649_329),
        ("wide", 1_112_801),
        ("patches", 3_993_476),
        ("base", 5_621_281),
        ("tiny", 44_969),
    ],
)
def test_presets(name, parameters, generator):
    network = UNet(name, generator=generator)
    assert sum(p.numel() for p in network.parameters()) == parameters
    where = []
    for module in network.modules():
        if isinstance(module, AttentionBlock):
            module.register_forward_hook(lambda m, x, y: where.append(y.shape[2]))
    x = torch.randn(2, 1, 28, 28, generator=generator)
    with torch.no_grad():
        assert network(x, torch.tensor([1, 1000])).shape == x.shape
    first = 28 // network.config.patch_size
    lowest = first // 2 ** (len(network.config.multipliers) - 1)
    assert set(where) == {first // 2, lowest}


def test_a_configuration_and_its_changes():
    assert UNet().config == UNet("small").config == PRESETS["small"]
    assert UNet("tiny", channels=3).config == replace(PRESETS["tiny"], channels=3)
    assert UNet(SMALL, dropout=0.5).config == replace(SMALL, dropout=0.5)


def test_initialization_is_from_the_generator_alone(x):
    before = torch.get_rng_state()
    first, again, other = (
        UNet(SMALL, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
        assert parameter.isfinite().all()
        constant = parameter.ndim == 1 or not parameter.any()
        assert torch.equal(parameter, other.get_parameter(name)) == constant
    assert not first(x, 9).any()
    # Each branch adds nothing at first, and a gradient reaches the last layer.
    for module in first.modules():
        if isinstance(module, ResBlock):
            assert not module.conv_2.weight.any()
            assert module.conv_1.weight.any()
        elif isinstance(module, AttentionBlock):
            assert not module.W_O.weight.any()


def test_every_timestep_has_another_output(network, x):
    with torch.no_grad():
        outputs = network(x[:1].expand(1000, -1, -1, -1), torch.arange(1, 1001))
    assert (outputs.flatten(1).diff(dim=0).abs().amax(1) > 1e-5).all()


def test_one_timestep_for_all_images(network, x):
    with torch.no_grad():
        assert torch.equal(network(x, 9), network(x, torch.full((BATCH,), 9)))


def test_items_of_a_batch_do_not_mix(network, x, generator):
    t = torch.randint(1, 1001, (BATCH,), generator=generator)
    with torch.no_grad():
        alone = torch.cat(
            [network(*part) for part in zip(x.split(1), t.split(1), strict=True)]
        )
        torch.testing.assert_close(network(x, t), alone, rtol=1e-4, atol=1e-4)


def test_downsampling_pads_after_and_upsampling_repeats(x):
    e = torch.zeros(BATCH, 1)
    down, up = Downsample(5), Upsample(5)
    corner = down(x, e)[:, :, 0, 0] - down.conv.bias
    window = torch.einsum("bcij,ocij->bo", x[:, :, :3, :3], down.conv.weight)
    torch.testing.assert_close(corner, window, rtol=1e-4, atol=1e-5)
    assert down(x, e).shape == (BATCH, 5, ROW // 2, COLUMN // 2)
    larger = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    assert torch.equal(up(x, e), up.conv(larger))


def test_dropout_is_for_training_and_from_its_generator(x, generator):
    network = UNet(SMALL, dropout=0.4, generator=generator)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    before, state = torch.get_rng_state(), generator.get_state()
    first, second = network(x, 3), network(x, 3)
    generator.set_state(state)
    assert torch.equal(network(x, 3), first)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    network.eval()
    plain = UNet(SMALL)
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network(x, 3), plain(x, 3))


def test_without_classes_and_patches_nothing_changed(x):
    """The same weights in a network with classes, one of which has no effect."""
    plain = UNet(SMALL, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(plain.last.weight, std=0.2)
    classes = UNet(SMALL, num_classes=4)
    weights = plain.state_dict()
    nothing = torch.zeros(5, 4 * SMALL.width)
    classes.load_state_dict(weights | {"label.weight": nothing})
    y = torch.arange(BATCH) % 5
    assert torch.equal(classes(x, 3, y), plain(x, 3))
    assert torch.equal(classes(x, 3), plain(x, 3))


def test_each_image_has_its_class_and_none_is_the_null_class(x, generator):
    network = UNet(SMALL, num_classes=4, generator=generator)
    assert network.null_class == 4
    assert network.label.weight.std().item() == pytest.approx(0.02, rel=0.2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    y = torch.tensor([0, 1, 2, 3, 4, 4, 0])
    whole = network(x, 9, y)
    for i, label in enumerate(y):
        alone = network(x[i : i + 1], 9, label[None])
        torch.testing.assert_close(whole[i : i + 1], alone)
        other = network(x[i : i + 1], 9, (label[None] + 1) % 5)
        assert (alone - other).abs().max() > 0.01
    torch.testing.assert_close(network(x, 9), network(x, 9, torch.full_like(y, 4)))
    assert torch.equal(network(x, 9, y.int()), whole)


def test_a_patch_is_a_pixel_with_more_channels(x, generator):
    """The network on blocks is one without blocks, on rearranged images."""
    patches = UNet(SMALL, patch_size=2, width=24, generator=generator)
    wide = UNet(SMALL, channels=20, width=24)
    for parameter in patches.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    wide.load_state_dict(patches.state_dict())
    x = torch.randn(BATCH, 5, 2 * ROW, 2 * COLUMN, generator=generator)
    blocks = x.unflatten(2, (ROW, 2)).unflatten(4, (COLUMN, 2))
    blocks = blocks.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    found = patches(x, 3).unflatten(2, (ROW, 2)).unflatten(4, (COLUMN, 2))
    found = found.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    torch.testing.assert_close(found, wide(blocks, 3))


TINY, CLASSES = UNet("tiny"), UNet("tiny", num_classes=3)
PATCHES = UNet("tiny", patch_size=2)
X, SIZES = torch.zeros(2, 1, 28, 28), r"x_t must be \(batch, 1, row, column\), "


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TINY(X[:, :, 1:], 5), rf"{SIZES}.* of 2, got \(2, 1, 27, 28\)"),
        (lambda: TINY(X.expand(2, 3, 28, 28), 5), rf"{SIZES}.* got \(2, 3, 28, "),
        (lambda: TINY(X[0], 5), rf"{SIZES}.* got \(1, 28, 28\)"),
        # The embedding would take any number, and one timestep for all images.
        (lambda: TINY(X, torch.tensor([5])), r"2 integers in a row, .* \(1,\)"),
        (lambda: TINY(X, torch.tensor([[5], [6]])), r"in a row, .* \(2, 1\)"),
        (lambda: TINY(X, torch.tensor([5, 0])), "t must be from 1 .*, got 0 to 5"),
        (lambda: TINY(X, torch.tensor([0.5, 1])), r"got torch\.float32 \(2,\)"),
        (lambda: TINY(X, 0), "t must be from 1 to inf, got 0 to 0"),
        (lambda: TINY(X, 5, torch.tensor([0, 1])), "y must be None: the network"),
        (lambda: CLASSES(X, 5, torch.tensor([0, 4])), "from 0 to 3, .* got 0 to 4"),
        (lambda: CLASSES(X, 5, torch.tensor([-1, 0])), "y must be from 0 .* got -1"),
        (lambda: CLASSES(X, 5, torch.tensor([1])), r"2 integers in a row, .* \(1,\)"),
        (lambda: CLASSES(X, 5, torch.tensor([0.5, 1])), "y must be 2 integers in a r"),
        (lambda: PATCHES(X[:, :, 2:], 5), r"multiples of 4, got \(2, 1, 26, 28\)"),
        (lambda: UNet("tiny", num_classes=0), "num_classes must be a whole number"),
        (lambda: UNet("tiny", patch_size=0), "patch_size must be a whole number"),
        (lambda: UNet("large"), "must be one of cifar10, base, .* got 'large'"),
        (lambda: UNet("tiny", width=7), "width must be even and 4 or more, got 7"),
        (lambda: UNet("tiny", width=2), "width must be even and 4 or more, got 2"),
        (lambda: UNet("tiny", depth=2), "unexpected keyword argument 'depth'"),
    ],
)  # fmt: skip
def test_what_is_refused(as_users_run, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
