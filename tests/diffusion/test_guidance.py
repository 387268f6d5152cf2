"""`guidance`: dropped labels, and the extrapolation between two predictions."""

import pytest
import torch

from dian.diffusion import process
from dian.diffusion.guidance import condition, drop_labels, guide
from dian.diffusion.sampling import Denoiser
from dian.diffusion.schedule import linear_schedule
from dian.diffusion.unet import UNet

N, NULL = 6, 10
Y = torch.tensor([0, 3, 9, 3, 1, 7])


@pytest.fixture
def network(generator):
    network = UNet("tiny", num_classes=NULL, generator=generator)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return network.double().eval()


@pytest.fixture
def x_t(generator):
    return torch.randn(N, 1, 28, 28, generator=generator, dtype=torch.float64)


T = torch.tensor([1, 1000, 30, 500, 500, 7])


@torch.no_grad()
def test_the_weight_extrapolates_from_without_to_with_a_class(network, x_t):
    given, free = network(x_t, T, Y), network(x_t, T)
    assert (given - free).abs().amax((1, 2, 3)).min() > 0.01
    for w in (-1.0, -0.5, 0.0, 2.5):
        found = guide(network, Y, NULL, w)(x_t, T)
        torch.testing.assert_close(found, given + w * (given - free))
    assert torch.equal(condition(network, Y)(x_t, T), given)


@torch.no_grad()
@pytest.mark.parametrize("kind", process.PREDICTION_TYPES)
def test_guidance_is_the_same_whatever_is_predicted(kind, x_t):
    schedule, t = linear_schedule(), torch.full((N,), 300)

    def epsilon(x_t, t, y):
        return torch.sin(x_t + y[:, None, None, None])

    def other(x_t, t, y):
        noise = epsilon(x_t, t, y)
        x_0 = process.predict_x0(schedule, x_t, t, noise)
        return process.training_target(schedule, x_0, t, noise, kind)

    clean = [
        Denoiser(guide(model, Y, NULL, 1.5), type_, clip=None)(schedule, x_t, t).x_0
        for model, type_ in ((epsilon, "epsilon"), (other, kind))
    ]
    torch.testing.assert_close(*clean)


def test_labels_are_dropped_at_the_rate_and_from_the_generator(generator):
    y = torch.arange(100_000) % 10
    state = generator.get_state()
    dropped = drop_labels(y, 0.1, NULL, generator)
    kept = dropped != NULL
    assert torch.equal(dropped[kept], y[kept])
    # five standard errors of a binomial fraction, of each class
    for label in range(10):
        rate = 1 - kept[y == label].double().mean().item()
        assert abs(rate - 0.1) < 5 * (0.1 * 0.9 / 10_000) ** 0.5
    generator.set_state(state)
    assert torch.equal(drop_labels(y, 0.1, NULL, generator), dropped)
    assert torch.equal(drop_labels(y, 0.0, NULL, generator), y)
    assert (drop_labels(y, 1.0, NULL) == NULL).all()


def test_without_guidance_the_network_is_called_for_the_class_alone():
    sizes = []

    def model(x_t, t, y):
        sizes.append(len(y))
        return x_t

    x_t = torch.zeros(N, 1)
    for w in (0.0, 1.0):
        guide(model, Y, NULL, w)(x_t, T)
    assert sizes == [N, 2 * N]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drop_labels(Y, 1.1, NULL), r"rate must be in \[0, 1\], got 1.1"),
        (lambda: guide(UNet, Y, NULL, float("nan")), "w must be finite, got nan"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
