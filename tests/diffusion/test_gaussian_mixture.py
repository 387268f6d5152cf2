"""`dian.diffusion.gaussian_mixture` against autograd, and against many draws."""

import math

import pytest
import torch

from dian.diffusion.gaussian_mixture import (
    Mixture,
    draw,
    gaussian,
    log_parts,
    moments,
    optimal_denoiser,
    optimal_epsilon,
    posterior_x0,
    ring,
    score,
)
from dian.diffusion.schedule import linear_schedule

BATCH, PARTS, D = 5, 3, 2


@pytest.fixture
def data(generator):
    mean = torch.randn(PARTS, D, generator=generator, dtype=torch.float64)
    weight = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    return Mixture(weight, mean, torch.tensor([0.1, 0.3, 0.02], dtype=torch.float64))


@pytest.fixture
def x(generator):
    return torch.randn(BATCH, D, generator=generator, dtype=torch.float64)


A = torch.tensor([0.9, 0.5, 0.1, 0.999, 0.3], dtype=torch.float64)


def density_by_hand(data, x, a):
    """One point, one part after another."""
    total = 0.0
    for w, m, s2 in zip(*(field.tolist() for field in data), strict=True):
        v = a * s2 + 1 - a
        square = sum((y - math.sqrt(a) * c) ** 2 for y, c in zip(x, m, strict=True))
        total += w * math.exp(-square / (2 * v)) / (2 * math.pi * v) ** (len(x) / 2)
    return total


def test_the_density(data, x):
    found = log_parts(data, x, A).logsumexp(-1)
    for i in range(BATCH):
        expected = math.log(density_by_hand(data, x[i].tolist(), A[i].item()))
        assert found[i].item() == pytest.approx(expected, rel=1e-12)


def test_the_score_is_the_gradient_of_the_log_density(data, x):
    leaf = x.clone().requires_grad_()
    total = log_parts(data, leaf, A).logsumexp(-1).sum()
    (slope,) = torch.autograd.grad(total, leaf)
    torch.testing.assert_close(score(data, x, A), slope)
    epsilon = -(1 - A[:, None]).sqrt() * slope
    torch.testing.assert_close(optimal_epsilon(data, x, A), epsilon)


def test_what_is_known_of_the_clean_image(data, generator):
    """Among many draws whose x_t is near one place, x_0 has this mean and variance."""
    n, a = 4_000_000, torch.tensor(0.4, dtype=torch.float64)
    x_0 = draw(data, n, generator)
    z = torch.randn(n, D, generator=generator, dtype=torch.float64)
    x_t = a.sqrt() * x_0 + (1 - a).sqrt() * z
    place = torch.tensor([[0.1, -0.2]], dtype=torch.float64)
    near = (x_t - place).norm(dim=1) < 0.05
    told = posterior_x0(data, place, a[None])
    kept = x_0[near]
    error = kept.std(0) / len(kept) ** 0.5
    assert ((kept.mean(0) - told.mean[0]).abs() < 5 * error + 1e-3).all()
    assert kept.var(0).mean().item() == pytest.approx(told.variance.item(), rel=0.05)


def test_draws_have_the_moments(data, generator):
    drawn = draw(data, 100_000, generator)
    mean, covariance = moments(data)
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.T.cov(), covariance, rtol=0, atol=0.02)


def test_the_model_depends_on_the_timestep(data):
    schedule = linear_schedule(7, 0.05, 0.6)
    model = optimal_denoiser(data, schedule.alpha_bar)
    x, t = torch.ones(2, D), torch.tensor([2, 7])
    found = model(x, t)
    assert found.dtype == torch.float32
    expected = optimal_epsilon(data, x.double(), schedule.alpha_bar[t])
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(found[0], found[1])


def test_a_point_leaves_nothing_unknown(x):
    told = posterior_x0(gaussian(0.3, 0.0, d=D), x, A)
    assert not told.variance.any()
    torch.testing.assert_close(told.mean, torch.full_like(x, 0.3))


def test_the_ring():
    eight = ring(8, radius=0.8)
    torch.testing.assert_close(eight.mean.norm(dim=1), torch.full((8,), 0.8).double())
    assert eight.weight.sum() == 1
    assert torch.pdist(eight.mean).min() > 0.6
    # Gaussians of variance 0.005; their centers have 0.8² / 2 along each axis.
    plain = ring()
    _, covariance = moments(plain)
    assert plain.mean.shape == (8, 2)
    torch.testing.assert_close(covariance, 0.325 * torch.eye(2).double())
    outside = score(plain, torch.tensor([[1.0, 0.0]]).double(), torch.ones(1).double())
    assert outside[0, 0].item() == pytest.approx(-0.2 / 0.005)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        ([2], r"2 integers in a row, got torch.int64 \(1,\)"),
        ([2, -1], "t must be from 0 to 7, got -1 to 2"),
        ([2, 8], "t must be from 0 to 7, got 2 to 8"),
    ],
)
def test_timesteps_that_the_model_refuses(as_users_run, data, t, message):
    model = optimal_denoiser(data, linear_schedule(7, 0.05, 0.6).alpha_bar)
    with pytest.raises((ValueError, TypeError), match=message):
        model(torch.ones(2, D), torch.tensor(t))
