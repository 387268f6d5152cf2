"""`sampling` against diffusers, and on data with a known optimal denoiser."""

import inspect

import numpy as np
import pytest
import torch

from dian.diffusion import gaussian_mixture, sampling
from dian.diffusion.process import posterior, predict_x0, q_sample
from dian.diffusion.sampling import (
    clipped,
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
    """Nobody's best model: far off, so that clipping has something to do."""
    return torch.sin(3 * x) + 0.1 * t.to(x).view(-1, *[1] * (x.ndim - 1))


@pytest.fixture
def x_T(generator):
    shape = BATCH, 1, ROW, COLUMN
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize(
    ("variance", "theirs"), [("beta", "fixed_large"), ("beta_tilde", "fixed_small")]
)
@pytest.mark.parametrize("target", ["epsilon", "v"])
def test_algorithm_2_is_that_of_diffusers(x_T, clip, variance, theirs, target):
    """The same model, schedule and noise; they count steps from 0."""
    from diffusers import DDPMScheduler

    peer = DDPMScheduler(
        num_train_timesteps=T,
        beta_start=0.05,
        beta_end=0.6,
        variance_type=theirs,
        clip_sample=clip is not None,
        prediction_type={"epsilon": "epsilon", "v": "v_prediction"}[target],
    )
    state = torch.Generator().manual_seed(1)
    x = x_T
    for t in range(T, 0, -1):
        prediction = network(x, torch.full((BATCH,), t))
        x = peer.step(prediction, t - 1, x, generator=state).prev_sample
    ours = ddpm_sample(
        SCHEDULE,
        network,
        x_T,
        clip=clip,
        variance=variance,
        target=target,
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
    x = x_T
    for t in peer.timesteps:
        prediction = network(x, torch.full((BATCH,), t + 1))
        x = peer.step(
            prediction, t, x, eta=0.0, use_clipped_model_output=True
        ).prev_sample
    # they take for alpha-bar before the first step its value after it
    ours = []
    ddim_sample(
        linear_schedule(100, 0.001, 0.2),
        network,
        x_T,
        steps=steps,
        eta=0.0,
        clip=clip,
        callback=lambda t, x, x_0: ours.append(x),
    )
    peer.final_alpha_cumprod = torch.tensor(1.0)
    torch.testing.assert_close(ours[-1], x, rtol=1e-3, atol=1e-3)


def test_one_long_step_on_all_steps_is_algorithm_2(x_T):
    """DDIM at eta = 1 on every step is Algorithm 2 with beta-tilde."""
    options = {"clip": 1.0, "noise": lambda t: torch.full_like(x_T, 0.3 * t - 1)}
    every = ddim_sample(
        SCHEDULE, network, x_T, steps=evenly_spaced_timesteps(T, T), eta=1.0, **options
    )
    exact = posterior(SCHEDULE).beta_tilde.nan_to_num()
    ours = ddpm_sample(SCHEDULE, network, x_T, variance=exact, **options)
    torch.testing.assert_close(every, ours, rtol=1e-9, atol=1e-9)


def test_without_clipping_the_target_does_not_matter(x_T):
    def in_x_0(x, t):
        return predict_x0(SCHEDULE, x, t, network(x, t))

    options = {"clip": None, "variance": "beta", "noise": lambda t: 0 * x_T + 1}
    a = ddpm_sample(SCHEDULE, network, x_T, **options)
    b = ddpm_sample(SCHEDULE, in_x_0, x_T, target="x_0", **options)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    clipped = ddpm_sample(SCHEDULE, network, x_T, **(options | {"clip": 1.0}))
    assert (clipped - a).abs().max() > 0.1
    assert clipped.abs().max() <= 1


def test_the_noise_of_the_last_step_is_not_asked_for(x_T):
    asked = []

    def noise(t):
        asked.append(t)
        return torch.zeros_like(x_T)

    ddpm_sample(SCHEDULE, network, x_T, clip=None, variance="beta", noise=noise)
    assert asked == list(range(T, 1, -1))


def test_the_model_sees_every_step_once(x_T):
    seen, shown = [], []

    def model(x, t):
        assert t.shape == (BATCH,)
        assert t.unique().numel() == 1
        seen.append(t[0].item())
        return network(x, t)

    before = x_T.clone()
    ddpm_sample(
        SCHEDULE,
        model,
        x_T,
        clip=None,
        variance="beta",
        start=7,
        callback=lambda t, x, x_0: shown.append(t),
    )
    assert seen == shown == [7, 6, 5, 4, 3, 2, 1]
    assert torch.equal(x_T, before)


def test_gaussian_data_come_out_as_they_went_in(generator):
    """With the best model and many steps, mean and variance are those of the data."""
    data, schedule = (
        gaussian_mixture.gaussian(0.4, 0.09),
        linear_schedule(500, 2e-4, 0.04),
    )
    model = gaussian_mixture.optimal_denoiser(data, schedule.alpha_bar)
    x_T = torch.randn(20_000, 1, generator=generator)
    x_0 = ddpm_sample(
        schedule, model, x_T, clip=None, variance="beta", generator=generator
    )
    assert x_0.dtype == torch.float32
    assert abs(x_0.mean() - 0.4) < 5 * 0.3 / 20_000**0.5
    assert abs(x_0.var() / 0.09 - 1) < 5 * (2 / 20_000) ** 0.5 + 0.01


def test_no_graph_is_kept(x_T):
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)

    def model(x, t):
        return weight * x

    assert not ddpm_sample(
        SCHEDULE, model, x_T, clip=None, variance="beta"
    ).requires_grad
    assert not ddim_sample(
        SCHEDULE, model, x_T, steps=[T], eta=0.0, clip=None
    ).requires_grad


def test_variances_are_tables():
    exact = posterior(SCHEDULE).beta_tilde
    tilde = reverse_variance(SCHEDULE, "beta_tilde")
    assert tilde[1] == exact[2]
    assert torch.equal(tilde[2:], exact[2:])
    assert torch.equal(reverse_variance(SCHEDULE), SCHEDULE.beta)
    own = torch.ones(T + 1, dtype=torch.float64)
    assert reverse_variance(SCHEDULE, own) is own
    assert reverse_variance(linear_schedule(1, 0.3, 0.3), "beta_tilde")[1] == 0.3


NEGATIVE, UNKNOWN = SCHEDULE.beta.clone(), SCHEDULE.beta.clone()
NEGATIVE[4], UNKNOWN[4] = -0.25, torch.nan


@pytest.mark.parametrize(
    ("variance", "message"),
    [
        ("tilde", "'beta_tilde' or a table, got 'tilde'"),
        (None, "'beta_tilde' or a table, got None"),
        (0.1, r"'beta_tilde' or a table, got 0\.1"),
        ([0.1, 0.2], r"'beta_tilde' or a table, got \[0\.1, 0\.2\]"),
        (torch.ones(3), "an entry for each of 0 to 11, got 3"),
        (torch.ones(()), r"an entry for each of 0 to 11, got \(\)"),
        (NEGATIVE, r"every variance must be 0 or above, got -0\.25"),
        (UNKNOWN, "every variance must be 0 or above, got nan"),
    ],
)
def test_wrong_variances(variance, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(reverse_variance)(SCHEDULE, variance)


def test_entry_0_of_a_variance_is_not_used():
    exact = posterior(SCHEDULE).beta_tilde
    assert exact[0].isnan()
    assert reverse_variance(SCHEDULE, exact) is exact


@pytest.fixture
def unchecked(monkeypatch):
    """The walks as they run outside the tests, without checks of the signatures."""
    names = (
        "predict_x0 reverse_mean predict_epsilon clipped at_step q_sample ddpm_sample"
    )
    for name in names.split():
        plain = inspect.unwrap(getattr(sampling, name))
        monkeypatch.setattr(sampling, name, plain)
    return {
        "sample": lambda model, x_T, **options: sampling.ddpm_sample(
            SCHEDULE, model, x_T, variance="beta", **options
        ),
        "ddim_sample": lambda model, x_T, **options: inspect.unwrap(ddim_sample)(
            SCHEDULE, model, x_T, **{"steps": [2, T], "eta": 0.0} | options
        ),
    }


@pytest.mark.parametrize("walk", ["sample", "ddim_sample"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_model_that_returns_another_shape(x_T, unchecked, walk, clip):
    """Twice the channels, as a model that learns its variance returns them; or one."""
    for shape in [(BATCH, 2, ROW, COLUMN), (BATCH, 1, 1, 1), (ROW, COLUMN)]:
        wrong = torch.zeros(shape, dtype=x_T.dtype)
        with pytest.raises(ValueError, match=r"must return \(5, 1, 3, 7\), .* got \("):
            unchecked[walk](lambda x, t, y=wrong: y, x_T, clip=clip)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_there_is_no_step_back_from_the_image(x_T, clip):
    message = "every t must be from 1 to 11, got 0 to 3"
    with pytest.raises(ValueError, match=message):
        reverse_mean(SCHEDULE, x_T, torch.tensor([3, 2, 1, 0, 1]), x_T, clip=clip)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("walk", ["sample", "ddim_sample"])
def test_images_of_half_the_size_pass_every_check(x_T, unchecked, walk, dtype):
    found = unchecked[walk](network, x_T.to(dtype), clip=1.0)
    assert found.dtype == dtype
    assert found.isfinite().all()


@pytest.mark.parametrize("t", [0, T + 1])
def test_images_are_not_mixed_at_a_step_that_is_not_there(x_T, t):
    with pytest.raises(ValueError, match=f"t must be from 1 to 11, got {t}"):
        interpolate(
            SCHEDULE, network, x_T, x_T, x_T, t=t, share=0.5, clip=1.0, variance="beta"
        )


@pytest.mark.parametrize("start", [0, T + 1])
def test_a_start_that_is_not_there(x_T, start):
    with pytest.raises(ValueError, match=f"start must be from 1 to {T}, got {start}"):
        ddpm_sample(SCHEDULE, network, x_T, clip=None, variance="beta", start=start)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "steps must rise from 1 or more, got"),
        ([0, 3], "steps must rise"),
        ([3, 3], "steps must rise"),
        ([5, T + 1], "steps must end at 11 or before, got 12"),
    ],
)
def test_steps_that_are_no_walk(x_T, steps, message):
    with pytest.raises(ValueError, match=message):
        ddim_sample(SCHEDULE, network, x_T, steps=steps, eta=0.0, clip=None)


@pytest.mark.parametrize("steps", [torch.tensor([2, 5]), [2.5, 5], ["2", "5"]])
def test_steps_that_are_no_whole_numbers(x_T, unchecked, steps):
    with pytest.raises(TypeError, match="steps must be a list of whole numbers, got "):
        unchecked["ddim_sample"](network, x_T, steps=steps, clip=None)


def test_steps_may_come_from_numpy(x_T, unchecked):
    a, b = (
        unchecked["ddim_sample"](network, x_T, steps=steps, clip=None)
        for steps in (np.array([2, 5, T]).tolist(), list(np.array([2, 5, T])))
    )
    assert torch.equal(a, b)


def test_even_steps_end_at_T():
    for T_, n in [(1000, 7), (10, 10), (5, 1)]:
        steps = evenly_spaced_timesteps(T_, n)
        assert len(steps) == n
        assert steps[-1] == T_
        assert steps == sorted(set(steps))
    with pytest.raises(ValueError, match="n must be from 1 to 5, got 6"):
        evenly_spaced_timesteps(5, 6)


def test_interpolation_ends_at_its_images(x_T, generator):
    """At both ends it is the walk back from one of the two; in between, from a mix."""
    y_0, epsilon = torch.randn(2, *x_T.shape, generator=generator, dtype=torch.float64)
    options = {"clip": 1.0, "variance": "beta"}
    t = torch.full((BATCH,), 4)
    x_t, y_t = (q_sample(SCHEDULE, image, t, epsilon) for image in (x_T, y_0))
    for share, start in [(0.0, x_t), (1.0, y_t), (0.25, 0.75 * x_t + 0.25 * y_t)]:
        found = interpolate(
            SCHEDULE, network, x_T, y_0, epsilon, t=4, share=share,
            generator=torch.Generator().manual_seed(5), **options,
        )  # fmt: skip
        expected = ddpm_sample(
            SCHEDULE, network, start, start=4,
            generator=torch.Generator().manual_seed(5), **options,
        )  # fmt: skip
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_clip_or_an_eta_that_is_none():
    with pytest.raises(ValueError, match=r"clip must be above 0, or None, got -1\.0"):
        clipped(torch.zeros(1), -1.0)
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\], got 3\.0"):
        ddim_sample(
            SCHEDULE, lambda x, t: x, torch.zeros(1, 1), steps=[1], eta=3.0, clip=None
        )
