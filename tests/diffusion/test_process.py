"""`dian.diffusion.process` against loops one can check by eye, and diffusers."""

import math

import pytest
import torch

from dian.diffusion.posterior import posterior
from dian.diffusion.process import (
    PREDICTION_TYPES,
    predict_epsilon,
    predict_x0,
    q_sample,
    standard_normal,
    training_loss,
    training_target,
)
from dian.diffusion.schedule import linear_schedule

# Distinct primes: a swapped or merged axis cannot pass by luck.
T, BATCH, CHANNEL, ROW, COLUMN = 11, 5, 2, 3, 7
SCHEDULE = linear_schedule(T, 0.05, 0.6)
STEPS = torch.tensor([1, T, 4, 7, 2])


@pytest.fixture
def normal(generator):
    def draw(*shape, dtype=torch.float64):
        return torch.randn(shape, generator=generator, dtype=dtype)

    return draw


@pytest.fixture
def images(normal):
    return normal(BATCH, CHANNEL, ROW, COLUMN), normal(BATCH, CHANNEL, ROW, COLUMN)


def zeros(x_t, t):
    return torch.zeros_like(x_t)


def test_diffusers_adds_the_same_noise(normal):
    """Its timesteps count from 0."""
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    x_0, epsilon = (normal(BATCH, ROW, dtype=torch.float32) for _ in range(2))
    t = torch.tensor([1, 1000, 300, 17, 999])
    ours = q_sample(linear_schedule(1000), x_0, t, epsilon)
    expected = theirs.add_noise(x_0, epsilon, t - 1)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    wrong = theirs.add_noise(x_0, epsilon, (t - 2).clamp(0))
    assert not torch.allclose(ours, wrong, rtol=1e-4, atol=1e-4)
    v = training_target(linear_schedule(1000), x_0, t, epsilon, "v")
    expected = theirs.get_velocity(x_0, epsilon, t - 1)
    torch.testing.assert_close(v, expected, rtol=1e-4, atol=1e-4)


def test_many_small_steps_are_one(normal):
    """A hundred thousand chains, step by step, have the moments of the closed form."""
    x = torch.full((100_000,), 0.7).double()
    for t in range(1, T + 1):
        x = SCHEDULE.alpha[t].sqrt() * x + SCHEDULE.beta[t].sqrt() * normal(len(x))
    a = SCHEDULE.alpha_bar[-1]
    assert abs(x.mean() - a.sqrt() * 0.7) < 5 / len(x) ** 0.5
    assert abs(x.var() - (1 - a)) < 5 * (2 / len(x)) ** 0.5


def test_each_image_gets_its_own_timestep(images):
    x_0, epsilon = images
    found = q_sample(SCHEDULE, x_0, STEPS, epsilon)
    for i, t in enumerate(STEPS.tolist()):
        a = math.prod(SCHEDULE.alpha[1 : t + 1].tolist())
        expected = math.sqrt(a) * x_0[i] + math.sqrt(1 - a) * epsilon[i]
        torch.testing.assert_close(found[i], expected, rtol=1e-12, atol=1e-12)
        alone = q_sample(SCHEDULE, x_0[i : i + 1], t, epsilon[i : i + 1])
        torch.testing.assert_close(alone[0], expected, rtol=1e-12, atol=1e-12)


def test_timestep_0_is_the_clean_image(images):
    x_0, epsilon = images
    assert torch.equal(q_sample(SCHEDULE, x_0, 0, epsilon), x_0)
    for name in ("epsilon", "x_0", "v"):
        true = training_target(SCHEDULE, x_0, 0, epsilon, name)
        torch.testing.assert_close(predict_x0(SCHEDULE, x_0, 0, true, name), x_0)


@pytest.mark.parametrize("name", PREDICTION_TYPES)
def test_every_prediction_type_gives_the_image_back(images, name):
    x_0, epsilon = images
    x_t = q_sample(SCHEDULE, x_0, STEPS, epsilon)
    true = training_target(SCHEDULE, x_0, STEPS, epsilon, name)
    found = predict_x0(SCHEDULE, x_t, STEPS, true, name)
    torch.testing.assert_close(found, x_0, rtol=1e-10, atol=1e-10)
    wrong = predict_x0(SCHEDULE, x_t, STEPS, true + 0.01, name)
    assert ((wrong - x_0).abs().flatten(1).amax(1) > 1e-4).all()


def test_mu_is_the_mean_of_the_posterior(images):
    x_0, epsilon = images
    x_t = q_sample(SCHEDULE, x_0, 4, epsilon)
    c_0, c_1, _ = (table[4] for table in posterior(SCHEDULE))
    mu = training_target(SCHEDULE, x_0, 4, epsilon, "mu")
    torch.testing.assert_close(mu, c_0 * x_0 + c_1 * x_t)


def test_the_loss_goes_down_to_the_weights(images):
    x_0, _ = images
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)

    def loss(**options):
        generator = torch.Generator().manual_seed(3)
        return training_loss(
            SCHEDULE, lambda x, t: weight * x, x_0, generator=generator, **options
        )

    plain = loss()
    assert plain.shape == (BATCH,)
    plain.mean().backward()
    assert weight.grad.abs() > 0
    table = torch.arange(T + 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    t = torch.randint(1, T + 1, (BATCH,), generator=generator)
    torch.testing.assert_close(loss(weight=table), table[t] * plain)


@pytest.mark.parametrize("name", PREDICTION_TYPES)
def test_the_loss_of_a_perfect_model_is_zero(images, name):
    x_0, _ = images

    def perfect(x_t, t):
        epsilon = predict_epsilon(SCHEDULE, x_t, t, x_0)
        return training_target(SCHEDULE, x_0, t, epsilon, name)

    assert training_loss(SCHEDULE, perfect, x_0, prediction_type=name).max() < 1e-20
    assert training_loss(SCHEDULE, zeros, x_0, prediction_type=name).min() > 1e-3


def test_the_same_generator_draws_the_same(images):
    x_0, _ = images
    before = x_0.clone()
    state = torch.get_rng_state()
    seeds = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    a, b, c = (training_loss(SCHEDULE, zeros, x_0, generator=g) for g in seeds)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(x_0, before)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays(images, dtype):
    x_0, epsilon = (x.to(dtype) for x in images)
    x_t = q_sample(SCHEDULE, x_0, STEPS, epsilon)
    assert x_t.dtype == dtype
    assert predict_x0(SCHEDULE, x_t, STEPS, epsilon).dtype == dtype
    assert training_loss(SCHEDULE, zeros, x_0).dtype == dtype


def test_noise_needs_no_generator():
    assert standard_normal(torch.zeros(1000, 3)).std() > 0.8


FIVE, WIDE, BYTES = torch.zeros(5, 2), torch.zeros(5, 1), torch.zeros(5, 2).byte()
AT_0 = torch.tensor([3, 0, 1, 2, 4])


def narrow(x_t, t):
    return x_t[:, :1]


@pytest.mark.parametrize(
    ("function", "arguments", "options", "message"),
    [
        (q_sample, (BYTES, 1, FIVE), {}, r"x_0 must lie in \[-1, 1\], .* see pixels"),
        (q_sample, (FIVE, 1, WIDE), {}, r"epsilon must be \(5, 2\), got \(5, 1\)"),
        (q_sample, (FIVE, T + 1, FIVE), {}, "t must be from 0 to 11, got 12 to 12"),
        (q_sample, (FIVE, AT_0[:1], FIVE), {}, r"t must be .* 5 integers in a row"),
        (predict_x0, (FIVE, 1, WIDE), {}, r"model must return \(5, 2\), got \(5, 1\)"),
        (predict_x0, (FIVE, 1, FIVE, "eps"), {}, "v, mu, score, got 'eps'"),
        (predict_x0, (FIVE, AT_0, FIVE, "mu"), {}, "from 1 to 11, got 0 to 4"),
        (predict_epsilon, (FIVE, 1, WIDE), {}, r"x_0 must be \(5, 2\), got \(5, 1\)"),
        (predict_epsilon, (FIVE, AT_0, FIVE), {}, "from 1 to 11, got 0 to 4"),
        (training_target, (FIVE, 0, FIVE, "mu"), {}, "from 1 to 11, got 0 to 0"),
        (training_target, (FIVE, 0, FIVE, "score"), {}, "from 1 to 11, got 0 to 0"),
        (training_target, (FIVE, 1, FIVE, "eps"), {}, "v, mu, score, got 'eps'"),
        (training_loss, (zeros, BYTES), {}, r"x_0 must lie in \[-1, 1\], got torch"),
        (training_loss, (narrow, FIVE), {}, r"must return \(5, 2\), got \(5, 1\)"),
        (training_loss, (zeros, FIVE), {"prediction_type": "eps"}, "score, got 'eps'"),
        (training_loss, (zeros, FIVE), {"weight": FIVE}, r"be \(12,\), got \(5, 2\)"),
        (
            training_loss,
            (zeros, FIVE),
            {"weight": torch.ones(T)},
            r"\(12,\), .* \(11,\)",
        ),
    ],
)
def test_what_is_refused(as_users_run, function, arguments, options, message):
    """Most of these could be broadcast, or looked up, and mean nothing."""
    with pytest.raises((ValueError, TypeError), match=message):
        function(SCHEDULE, *arguments, **options)
