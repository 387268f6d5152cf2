"""`dian.diffusion.sampling` against diffusers, and with a known optimal denoiser."""

import numpy as np
import pytest
import torch

from dian.diffusion import gaussian_mixture
from dian.diffusion.posterior import posterior
from dian.diffusion.process import (
    predict_x0,
    q_sample,
    standard_normal,
    training_target,
)
from dian.diffusion.sampling import (
    Denoiser,
    ddim_sample,
    ddpm_sample,
    evenly_spaced_timesteps,
    interpolate,
    reverse_mean,
    reverse_variance,
)
from dian.diffusion.schedule import linear_schedule

T, BATCH, ROW, COLUMN = 11, 5, 3, 7
SCHEDULE = linear_schedule(T, 0.05, 0.6)


def network(x, t):
    """Far from any optimal model, so that the clipping matters."""
    return torch.sin(3 * x) + 0.1 * t.to(x).view(-1, *[1] * (x.ndim - 1))


def in_x_0(x, t):
    """The same model, in another parameterization."""
    return predict_x0(SCHEDULE, x, t, network(x, t))


@pytest.fixture
def x_T(generator):
    shape = BATCH, 1, ROW, COLUMN
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v"])
def test_algorithm_2_is_that_of_diffusers(x_T, clip, variance, prediction_type):
    """The same model, schedule and noise; they count timesteps from 0."""
    from diffusers import DDPMScheduler

    theirs = {"beta": "fixed_large", "beta_tilde": "fixed_small"}[variance]
    peer = DDPMScheduler(
        num_train_timesteps=T,
        beta_start=0.05,
        beta_end=0.6,
        variance_type=theirs,
        clip_sample=clip is not None,
        prediction_type={"epsilon": "epsilon", "v": "v_prediction"}[prediction_type],
    )
    state = torch.Generator().manual_seed(1)
    x = x_T
    for t in range(T, 0, -1):
        prediction = network(x, torch.full((BATCH,), t))
        x = peer.step(prediction, t - 1, x, generator=state).prev_sample
    for name in (variance, theirs):
        ours = ddpm_sample(
            SCHEDULE,
            Denoiser(network, prediction_type, clip),
            x_T,
            variance=name,
            generator=torch.Generator().manual_seed(1),
        )
        torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("n", [5, 10])
def test_ddim_is_that_of_diffusers(x_T, clip, n):
    from diffusers import DDIMScheduler

    peer = DDIMScheduler(
        num_train_timesteps=100,
        beta_start=0.001,
        beta_end=0.2,
        clip_sample=clip is not None,
        timestep_spacing="trailing",
    )
    peer.set_timesteps(n)
    steps = evenly_spaced_timesteps(100, n)
    assert [t + 1 for t in peer.timesteps.tolist()] == steps[::-1]
    # by default they take alpha-bar of timestep 1 for that of timestep 0
    peer.final_alpha_cumprod = torch.tensor(1.0)
    x = x_T
    for t in peer.timesteps:
        prediction = network(x, torch.full((BATCH,), t + 1))
        x = peer.step(
            prediction, t, x, eta=0.0, use_clipped_model_output=True
        ).prev_sample
    denoiser = Denoiser(network, clip=clip)
    ours = ddim_sample(linear_schedule(100, 0.001, 0.2), denoiser, x_T, steps=n)
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-3)


def test_the_defaults_are_those_of_images(x_T):
    """A bare network predicts the noise, clipped to [-1, 1], in 50 steps of DDIM."""
    schedule = linear_schedule(100, 0.001, 0.2)
    found = ddim_sample(schedule, network, x_T)
    steps = evenly_spaced_timesteps(100, 50)
    for same in (steps, tuple(steps), range(2, 101, 2)):
        denoiser = Denoiser(network, "epsilon", 1.0)
        assert torch.equal(ddim_sample(schedule, denoiser, x_T, steps=same), found)
    options = {"noise": lambda t: 0 * x_T + 1}
    found = ddpm_sample(SCHEDULE, network, x_T, **options)
    denoiser = Denoiser(network, "epsilon", 1.0)
    again = ddpm_sample(SCHEDULE, denoiser, x_T, variance="beta", **options)
    assert torch.equal(found, again)


def test_ddim_on_all_steps_with_all_noise_is_algorithm_2(x_T):
    """At eta = 1 it is Algorithm 2 with beta-tilde."""
    options = {"noise": lambda t: torch.full_like(x_T, 0.3 * t - 1)}
    every = ddim_sample(SCHEDULE, network, x_T, steps=T, eta=1.0, **options)
    exact = posterior(SCHEDULE).beta_tilde.nan_to_num()
    ours = ddpm_sample(SCHEDULE, network, x_T, variance=exact, **options)
    torch.testing.assert_close(every, ours, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["epsilon", "x_0", "v", "mu", "score"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_denoiser_reads_every_prediction_type(x_T, name, clip):
    """All give the same image and noise, and these make up x_t."""
    t = torch.tensor([1, T, 4, 7, 2])
    x_0, epsilon = in_x_0(x_T, t), network(x_T, t)

    def model(x, t):
        return training_target(SCHEDULE, x_0, t, epsilon, name)

    found = Denoiser(model, name, clip)(SCHEDULE, x_T, t)
    expected = x_0 if clip is None else x_0.clamp(-1, 1)
    torch.testing.assert_close(found.x_0, expected, rtol=1e-9, atol=1e-9)
    made = q_sample(SCHEDULE, found.x_0, t, found.epsilon)
    torch.testing.assert_close(made, x_T, rtol=1e-9, atol=1e-9)
    assert (x_0.abs() > 1).any()


def test_the_mean_of_the_posterior(x_T, generator):
    """In the noise, and in x_0: two forms of one mean."""
    x_0 = torch.randn(x_T.shape, generator=generator, dtype=torch.float64)
    epsilon = torch.randn(x_T.shape, generator=generator, dtype=torch.float64)
    for t in (1, 4, T):
        x_t = q_sample(SCHEDULE, x_0, t, epsilon)
        c_0, c_1, _ = (table[t] for table in posterior(SCHEDULE))
        found = reverse_mean(SCHEDULE, x_t, t, epsilon)
        torch.testing.assert_close(found, c_0 * x_0 + c_1 * x_t)


def test_the_prediction_type_does_not_matter(x_T):
    options = {"noise": lambda t: 0 * x_T + 1}
    a, b, clipped = (
        ddpm_sample(SCHEDULE, denoiser, x_T, **options)
        for denoiser in (
            Denoiser(network, clip=None),
            Denoiser(in_x_0, "x_0", clip=None),
            Denoiser(network),
        )
    )
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert (clipped - a).abs().max() > 0.1
    assert clipped.abs().max() <= 1 + 1e-12


def test_the_noise_of_the_last_step_is_not_asked_for(x_T):
    asked = []

    def noise(t):
        asked.append(t)
        return torch.zeros_like(x_T)

    ddpm_sample(SCHEDULE, network, x_T, noise=noise)
    assert asked == list(range(T, 1, -1))


def test_the_model_sees_every_timestep_once(x_T):
    seen, shown = [], []

    def model(x, t):
        assert t.shape == (BATCH,)
        assert t.unique().numel() == 1
        seen.append(t[0].item())
        return network(x, t)

    before = x_T.clone()
    ddpm_sample(
        SCHEDULE, model, x_T, start=7, callback=lambda t, x, x_0: shown.append(t)
    )
    assert seen == shown == [7, 6, 5, 4, 3, 2, 1]
    assert torch.equal(x_T, before)


def test_gaussian_data_come_out_as_they_went_in(generator):
    """With the optimal model and many steps, to the mean and variance of the data."""
    data = gaussian_mixture.gaussian(0.4, 0.09)
    schedule = linear_schedule(500, 2e-4, 0.04)
    model = gaussian_mixture.optimal_denoiser(data, schedule.alpha_bar)
    x_T = torch.randn(20_000, 1, generator=generator)
    denoiser = Denoiser(model, clip=None)
    x_0 = ddpm_sample(schedule, denoiser, x_T, generator=generator)
    assert x_0.dtype == torch.float32
    assert abs(x_0.mean() - 0.4) < 5 * 0.3 / 20_000**0.5
    assert abs(x_0.var() / 0.09 - 1) < 5 * (2 / 20_000) ** 0.5 + 0.01


def test_no_graph_is_kept(x_T):
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)

    def model(x, t):
        return weight * x

    assert not ddpm_sample(SCHEDULE, model, x_T).requires_grad
    assert not ddim_sample(SCHEDULE, model, x_T, steps=2).requires_grad


def test_variances_are_tables():
    exact = posterior(SCHEDULE).beta_tilde
    for name in ("beta_tilde", "fixed_small"):
        tilde = reverse_variance(SCHEDULE, name)
        assert tilde[1] == exact[2]
        assert torch.equal(tilde[2:], exact[2:])
    for name in ("beta", "fixed_large"):
        assert torch.equal(reverse_variance(SCHEDULE, name), SCHEDULE.beta)
    assert exact[0].isnan()  # entry 0 is not used
    assert reverse_variance(SCHEDULE, exact) is exact
    assert reverse_variance(linear_schedule(1, 0.3, 0.3), "beta_tilde")[1] == 0.3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sample", [ddpm_sample, ddim_sample])
def test_half_precision_stays(as_users_run, x_T, sample, dtype):
    options = {"steps": 5} if sample is ddim_sample else {}
    found = sample(SCHEDULE, network, x_T.to(dtype), **options)
    assert found.dtype == dtype
    assert found.isfinite().all()
    assert found.abs().max() <= 1.02


def test_steps_may_come_from_numpy(as_users_run, x_T):
    a, b, c = (
        ddim_sample(SCHEDULE, network, x_T, steps=steps)
        for steps in (np.array([2, 5, T]), list(np.array([2, 5, T])), [2, 5, T])
    )
    assert torch.equal(a, c)
    assert torch.equal(b, c)
    assert torch.equal(
        ddim_sample(SCHEDULE, network, x_T, steps=np.int64(3)),
        ddim_sample(SCHEDULE, network, x_T, steps=3),
    )


def test_evenly_spaced_timesteps_end_at_T():
    for T_, n in [(1000, 7), (10, 10), (5, 1)]:
        steps = evenly_spaced_timesteps(T_, n)
        assert len(steps) == n
        assert steps[-1] == T_
        assert steps == sorted(set(steps))


def test_the_smallest_arguments_are_accepted(x_T):
    assert evenly_spaced_timesteps(1, 1) == [1]
    shortest = linear_schedule(1, 0.5, 0.5)
    denoiser = Denoiser(lambda x, t: 0 * x + 0.5, "x_0")
    for schedule, start in [(shortest, None), (SCHEDULE, 1)]:
        found = ddpm_sample(schedule, denoiser, x_T, start=start)
        torch.testing.assert_close(found, torch.full_like(x_T, 0.5))
    nothing = torch.zeros(T + 1, dtype=torch.float64)
    assert torch.equal(reverse_variance(SCHEDULE, nothing), nothing)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_an_interpolation_is_a_sample_from_the_mixture(x_T, generator, weight):
    """Of two images with the same noise; at both ends, from one of them."""
    y_0 = torch.randn(x_T.shape, generator=generator, dtype=torch.float64)
    first, again = (torch.Generator().manual_seed(5) for _ in range(2))
    found = interpolate(
        SCHEDULE, network, x_T, y_0, t=4, weight=weight, generator=first
    )
    epsilon = standard_normal(x_T, again)
    mixed = q_sample(SCHEDULE, (1 - weight) * x_T + weight * y_0, 4, epsilon)
    expected = ddpm_sample(SCHEDULE, network, mixed, start=4, generator=again)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


X = torch.zeros(BATCH, 1, ROW, COLUMN)
NEGATIVE, UNKNOWN = SCHEDULE.beta.clone(), SCHEDULE.beta.clone()
NEGATIVE[4], UNKNOWN[4] = -0.25, torch.nan


def returns(*shape):
    return lambda x, t: torch.zeros(shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Denoiser(network, "eps"), "v, mu, score, got 'eps'"),
        (lambda: Denoiser(network, clip=-1.0), "clip must be above 0, or None, got"),
        (lambda: Denoiser(network, clip=0.0), "clip must be above 0, or None, got"),
        (lambda: Denoiser(network)(SCHEDULE, X, 0), "t must be from 1 to 11, got 0"),
        # twice the channels, as a model that learns its variance; or one for all
        (lambda: ddpm_sample(SCHEDULE, returns(5, 2, 3, 7), X),
         r"must return \(5, 1, 3, 7\), got \(5, 2, 3, 7\)"),
        (lambda: ddim_sample(SCHEDULE, returns(5, 1, 1, 1), X, steps=2),
         r"must return \(5, 1, 3, 7\), got \(5, 1, 1, 1\)"),
        (lambda: ddpm_sample(SCHEDULE, returns(3, 7), X), r"got \(3, 7\)"),
        (lambda: ddpm_sample(SCHEDULE, network, X, start=0), "from 1 to 11, got 0"),
        (lambda: ddpm_sample(SCHEDULE, network, X, start=12), "from 1 to 11, got 12"),
        (lambda: ddim_sample(SCHEDULE, network, X), "whole number, 1 to 11, got 50"),
        (lambda: ddim_sample(SCHEDULE, network, X, steps=0), "1 to 11, got 0"),
        (lambda: ddim_sample(SCHEDULE, network, X, steps=[]), r"1 to 11, got \[\]"),
        (lambda: ddim_sample(SCHEDULE, network, X, steps=[0, 3]), r"got \[0, 3\]"),
        (lambda: ddim_sample(SCHEDULE, network, X, steps=[3, 3]), r"got \[3, 3\]"),
        (lambda: ddim_sample(SCHEDULE, network, X, steps=[5, 12]), r"got \[5, 12\]"),
        (lambda: ddim_sample(SCHEDULE, network, X, steps=[2.5, 5]), "must be integers"),
        (lambda: ddim_sample(SCHEDULE, network, X, steps=["2"]), "must be integers"),
        (lambda: ddim_sample(SCHEDULE, network, X, steps=torch.tensor([2, 5])),
         "steps must be integers increasing from 1 to 11, got tensor"),
        (lambda: ddim_sample(SCHEDULE, network, X, steps=2, eta=1.25), "eta must lie"),
        (lambda: interpolate(SCHEDULE, network, X, X, t=0), "from 1 to 11, got 0"),
        (lambda: interpolate(SCHEDULE, network, X, X, t=12), "to 11, got 12 to 12"),
        (lambda: reverse_mean(SCHEDULE, X, 0, X), "from 1 to 11, got 0 to 0"),
        (lambda: reverse_variance(SCHEDULE, "tilde"), "or a table, got 'tilde'"),
        (lambda: reverse_variance(SCHEDULE, None), "or a table, got None"),
        (lambda: reverse_variance(SCHEDULE, 0.1), r"or a table, got 0\.1"),
        (lambda: reverse_variance(SCHEDULE, [0.1, 0.2]), r"table, got \[0\.1, 0\.2\]"),
        (lambda: reverse_variance(SCHEDULE, torch.ones(11)), r"\(12,\), got \(11,\)"),
        (lambda: reverse_variance(SCHEDULE, torch.ones(())), r"\(12,\), got \(\)"),
        (lambda: reverse_variance(SCHEDULE, NEGATIVE), r"must be >= 0, got -0\.25"),
        (lambda: reverse_variance(SCHEDULE, UNKNOWN), "must be >= 0, got nan"),
    ],
)  # fmt: skip
def test_what_is_refused(as_users_run, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
