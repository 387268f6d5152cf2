"""`score`: the flow carries a density, and the samplers of its ODE."""

from itertools import pairwise

import pytest
import torch

from dian.diffusion import gaussian_mixture, score
from dian.diffusion.sampling import Denoiser, ddim_sample
from dian.diffusion.schedule import linear_schedule

CHAIN = linear_schedule(200, 5e-4, 0.1)
DATA = gaussian_mixture.ring(3, radius=0.7, variance=0.02)
MODEL = gaussian_mixture.optimal_denoiser(DATA, CHAIN.alpha_bar)


def test_the_chain_of_the_defaults_tends_to_the_sde():
    time = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    limit = score.alpha_bar_at(time).log()
    chain = linear_schedule(20_000, 0.1 / 20_000, 20 / 20_000)
    found = chain.alpha_bar[(20_000 * time).long()].log()
    torch.testing.assert_close(found, limit, rtol=1e-3, atol=0)


def test_a_cloud_of_points_flows_to_the_data(generator):
    """Fine Euler steps of the ODE itself, in x and time, from noise to samples."""
    x = torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    times = torch.linspace(1, 0, 501, dtype=torch.float64)
    for time, after in pairwise(times):
        alpha_bar = score.alpha_bar_at(time).expand(len(x))
        slope = gaussian_mixture.score(DATA, x, alpha_bar)
        velocity = score.flow_velocity(score.beta_at(time), x, slope)
        x = x + (after - time) * velocity
    mean, covariance = gaussian_mixture.moments(DATA)
    error = (covariance.diagonal() / len(x)) ** 0.5
    assert ((x.mean(0) - mean).abs() < 5 * error).all()
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0, atol=0.03)
    nearest = torch.cdist(x, DATA.mean).argmin(1).bincount() / len(x)
    assert (nearest - 1 / 3).abs().max() < 5 * (2 / 9 / len(x)) ** 0.5


def test_heun_needs_fewer_calls_than_ddim_for_the_same_samples(generator):
    x_T = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    denoiser = Denoiser(MODEL, clip=None)
    exact = ddim_sample(CHAIN, denoiser, x_T, steps=200)
    steps = [round(200 * (i / 20) ** 2) for i in range(2, 21)]
    heun = score.ode_sample(CHAIN, denoiser, x_T, steps=steps)
    ddim = score.ode_sample(CHAIN, denoiser, x_T, steps=40, method="euler")
    far = [(x - exact).norm(dim=1).mean().item() for x in (heun, ddim)]
    assert far[0] < 0.5 * far[1]


def test_timesteps_of_each_call():
    asked = []

    def model(x_t, t):
        asked.append(t[0].item())
        return 0 * x_t

    x_T = torch.ones(1, 1)
    score.ode_sample(CHAIN, model, x_T, steps=[3, 70, 200])
    assert asked == [200, 70, 70, 3, 3]
    asked.clear()
    score.ode_sample(CHAIN, model, x_T, steps=2, method="euler")
    assert asked == [200, 100]
    asked.clear()
    score.ode_sample(CHAIN, model, x_T)
    assert len(asked) == 2 * 25 - 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_are_for_the_model_alone(dtype):
    seen = set()

    def model(x_t, t):
        seen.add(x_t.dtype)
        return 0.5 * x_t

    x_T = torch.linspace(-2, 2, 5, dtype=dtype)[:, None]
    found = score.ode_sample(CHAIN, model, x_T, steps=50)
    assert seen == {dtype}
    assert found.dtype == dtype
    wide = score.ode_sample(CHAIN, model, x_T.float(), steps=50)
    torch.testing.assert_close(found.float(), wide, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "rk4"}, "method must be one of euler, heun, got 'rk4'"),
        ({"steps": [5, 3]}, "steps must be integers increasing from 1 to 200"),
        ({"steps": [5, 5]}, "steps must be integers increasing from 1 to 200"),
        ({"steps": [1.5, 5]}, "steps must be integers increasing from 1 to 200"),
        ({"steps": []}, "steps must be integers increasing from 1 to 200"),
        ({"steps": [0, 5]}, "steps must be integers increasing from 1 to 200"),
        ({"steps": [5, 201]}, "steps must be integers increasing from 1 to 200"),
        ({"steps": 201}, "n must be a whole number, 1 to 200, got 201"),
    ],
)
def test_what_is_refused(as_users_run, options, message):
    with pytest.raises(ValueError, match=message):
        score.ode_sample(CHAIN, MODEL, torch.zeros(1, 2), **options)
