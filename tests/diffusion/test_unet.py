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
    dropout,
    from_diffusers,
)

# No two of the sizes are equal; two levels are enough to have every kind of layer.
SMALL = UNetConfig(channels=5, width=12, multipliers=(1, 3), blocks=2, groups=3)
BATCH, ROW, COLUMN = 7, 6, 10


def peer(shape):
    """The network of diffusers with the dimensions of ours and random weights."""
    from diffusers import UNet2DModel

    n = len(shape.multipliers)

    def kinds(way):
        return tuple(
            f"{'Attn' if level in shape.attention else ''}{way}Block2D"
            for level in range(n)
        )

    theirs = UNet2DModel(
        in_channels=shape.channels,
        out_channels=shape.channels,
        block_out_channels=tuple(shape.width * m for m in shape.multipliers),
        layers_per_block=shape.blocks,
        down_block_types=kinds("Down"),
        up_block_types=tuple(reversed(kinds("Up"))),
        norm_num_groups=shape.groups,
        attention_head_dim=None,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        act_fn="silu",
    )
    generator = torch.Generator().manual_seed(3)
    for parameter in theirs.parameters():
        spread = 0.5 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        nn.init.normal_(parameter, std=spread, generator=generator)
    return theirs.eval()


def test_the_papers_network_is_that_of_diffusers(generator):
    """The configuration of google/ddpm-cifar10-32, with weights of our own."""
    shape = PRESETS["cifar10"]
    theirs, ours = peer(shape), UNet(shape).eval()
    assert sum(p.numel() for p in ours.parameters()) == 35_746_307
    ours.load_state_dict(from_diffusers(theirs.state_dict()))
    x = torch.randn(2, 3, 32, 32, generator=generator)
    t = torch.tensor([1, 1000])
    with torch.no_grad():
        found, expected = ours(x, t), theirs(x, t - 1).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_gradients_too_and_other_shapes(generator):
    theirs, ours = peer(SMALL).double(), UNet(SMALL).double()
    ours.load_state_dict(from_diffusers(theirs.state_dict(), SMALL))
    x = torch.randn(BATCH, 5, ROW, COLUMN, generator=generator, dtype=torch.float64)
    t = torch.randint(1, 20, (BATCH,), generator=generator)
    outputs = ours(x, t), theirs(x, t - 1).sample
    # Their encoding of the step is in float32, whatever the type of the network.
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)
    for output in outputs:
        output.square().sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, gradient in from_diffusers(gradients, SMALL).items():
        found = ours.get_parameter(name).grad
        # 0 but for rounding at W_K's bias: it moves all scores of a query alike.
        scale = max(gradient.abs().max().item(), 1e-6)
        torch.testing.assert_close(found, gradient, rtol=0, atol=1e-5 * scale)


def test_the_published_file_has_older_names(generator):
    new = peer(SMALL).state_dict()
    old = {}
    for name, weight in new.items():
        for now, once in [
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ]:
            name = name.replace(now, once)
        old[name] = weight
    assert old.keys() != new.keys()
    found, expected = from_diffusers(old, SMALL), from_diffusers(new, SMALL)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [("small", 28, 649_329), ("base", 28, 5_621_281), ("tiny", 28, None)],
)
def test_presets(name, size, parameters, generator):
    network = UNet(PRESETS[name], generator)
    if parameters is not None:
        assert sum(p.numel() for p in network.parameters()) == parameters
    where = []
    for module in network.modules():
        if isinstance(module, AttentionBlock):
            module.register_forward_hook(lambda m, x, y: where.append(y.shape[2]))
    x = torch.randn(2, 1, size, size, generator=generator)
    with torch.no_grad():
        assert network(x, torch.tensor([1, 1000])).shape == x.shape
    lowest = size // 2 ** (len(network.shape.multipliers) - 1)
    assert set(where) == {14, lowest}


def test_it_starts_with_nothing_from_the_generator_alone(generator):
    before = torch.get_rng_state()
    first, again = (UNet(SMALL, torch.Generator().manual_seed(seed)) for seed in (1, 1))
    other = UNet(SMALL, torch.Generator().manual_seed(2))
    assert torch.equal(torch.get_rng_state(), before)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
        assert parameter.isfinite().all()
        constant = parameter.ndim == 1 or not parameter.any()
        assert torch.equal(parameter, other.get_parameter(name)) == constant
    x = torch.randn(BATCH, 5, ROW, COLUMN, generator=generator)
    assert not first(x, torch.full((BATCH,), 9)).any()
    # Each branch adds nothing at first, and a gradient reaches the last layer.
    for module in first.modules():
        if isinstance(module, ResBlock):
            assert not module.conv_2.weight.any()
            assert module.conv_1.weight.any()
        elif isinstance(module, AttentionBlock):
            assert not module.W_O.weight.any()


def test_the_step_matters_and_each_step_is_another(generator):
    network = UNet(SMALL, generator)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    x = torch.randn(1, 5, ROW, COLUMN, generator=generator)
    with torch.no_grad():
        outputs = network(x.expand(1000, -1, -1, -1), torch.arange(1, 1001))
    outputs = outputs.flatten(1)
    assert (outputs.diff(dim=0).abs().amax(1) > 1e-5).all()


def test_items_of_a_batch_do_not_mix(generator):
    network = UNet(SMALL, generator)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    x = torch.randn(BATCH, 5, ROW, COLUMN, generator=generator)
    t = torch.randint(1, 1001, (BATCH,), generator=generator)
    with torch.no_grad():
        alone = torch.cat(
            [network(*part) for part in zip(x.split(1), t.split(1), strict=True)]
        )
        torch.testing.assert_close(network(x, t), alone, rtol=1e-4, atol=1e-4)


def test_shrinking_pads_after_and_growing_repeats(generator):
    x = torch.randn(BATCH, 5, ROW, COLUMN, generator=generator)
    e = torch.zeros(BATCH, 1)
    shrink, grow = Downsample(5), Upsample(5)
    corner = shrink(x, e)[:, :, 0, 0] - shrink.conv.bias
    window = torch.einsum("bcij,ocij->bo", x[:, :, :3, :3], shrink.conv.weight)
    torch.testing.assert_close(corner, window, rtol=1e-4, atol=1e-5)
    assert shrink(x, e).shape == (BATCH, 5, ROW // 2, COLUMN // 2)
    larger = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    assert torch.equal(grow(x, e), grow.conv(larger))


def test_dropout_is_for_training_and_from_its_generator(generator):
    shape = replace(SMALL, dropout=0.4)
    network = UNet(shape, generator)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    x = torch.randn(BATCH, 5, ROW, COLUMN, generator=generator)
    t = torch.full((BATCH,), 3)

    def out():
        return network(x, t)

    before, state = torch.get_rng_state(), generator.get_state()
    first, second = out(), out()
    generator.set_state(state)
    assert torch.equal(out(), first)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    network.eval()
    assert torch.equal(out(), out())
    kept = dropout(torch.ones(10_007), 0.3, generator)
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    error = (0.3 / 0.7 / 10_007) ** 0.5
    assert kept.mean().item() == pytest.approx(1, abs=5 * error)


def test_images_of_a_wrong_size_are_refused(generator):
    network = UNet(PRESETS["tiny"])
    t = torch.tensor([1, 2])
    for shape in [(2, 1, 27, 28), (2, 3, 28, 28), (2, 28, 28), (28,)]:
        with pytest.raises(ValueError, match=r"must be \(batch, 1, row, column\), "):
            network.check(torch.zeros(shape), t)
    with pytest.raises(
        ValueError, match=r"columns multiples of 2, got \(2, 1, 27, 28\)"
    ):
        network(torch.zeros(2, 1, 27, 28), t)


@pytest.mark.parametrize(
    ("t", "error", "message"),
    [
        ([5], ValueError, r"t must be \(2,\), a step for each, got \(1,\)"),
        ([[5], [6]], ValueError, r"t must be \(2,\), a step for each, got \(2, 1\)"),
        ([5, 0], ValueError, "every t must be 1 or more, got 0 to 5"),
        ([0.5, 1.0], TypeError, r"t must be integers, .* got torch\.float32"),
    ],
)
def test_steps_that_are_none(t, error, message):
    """The encoding would take any number, and one step for all images."""
    network, x_t = UNet(PRESETS["tiny"]), torch.zeros(2, 1, 28, 28)
    with pytest.raises(error, match=message):
        network.check(x_t, torch.tensor(t))
    network.check(x_t.bfloat16(), torch.tensor([1, 1000]))


@pytest.mark.parametrize("width", [0, 2, 7])
def test_a_width_that_encodes_no_step(width):
    with pytest.raises(ValueError, match=f"even and 4 or more, got {width}"):
        UNet(UNetConfig(width=width, groups=1))


def test_weights_of_another_network():
    with pytest.raises(ValueError, match=r"UNet2DModel, .* got 2 under other names"):
        from_diffusers(nn.Linear(2, 3).state_dict())
