"""`dian.diffusion` against loops one can check by eye, and against diffusers."""

import inspect
import math

import pytest
import torch

from dian.diffusion import schedule as noise_schedule
from dian.diffusion.pixels import from_bytes, to_bytes
from dian.diffusion.process import (
    TARGETS,
    posterior,
    predict_epsilon,
    predict_x0,
    q_sample,
    standard_normal,
    training_loss,
    training_target,
)
from dian.diffusion.schedule import (
    at_step,
    check_steps,
    cosine_schedule,
    linear_schedule,
    make_schedule,
    signal_to_noise,
)

# Distinct primes: a swapped or merged axis cannot pass by luck.
T, BATCH, CHANNEL, ROW, COLUMN = 11, 5, 2, 3, 7
SCHEDULE = linear_schedule(T, 0.05, 0.6)


@pytest.fixture
def normal(generator):
    def draw(*shape, dtype=torch.float64):
        return torch.randn(shape, generator=generator, dtype=dtype)

    return draw


@pytest.fixture
def images(normal):
    return normal(BATCH, CHANNEL, ROW, COLUMN), normal(BATCH, CHANNEL, ROW, COLUMN)


STEPS = torch.tensor([1, T, 4, 7, 2])


@pytest.fixture
def peer():
    """The schedule of the same name in diffusers, which counts from 0."""
    from diffusers import DDPMScheduler

    def make(name, T):
        return DDPMScheduler(num_train_timesteps=T, beta_schedule=name)

    return make


@pytest.mark.parametrize(
    ("name", "ours"),
    [("linear", linear_schedule), ("squaredcos_cap_v2", cosine_schedule)],
)
def test_schedules_are_those_of_diffusers(peer, name, ours):
    theirs = peer(name, 1000)
    schedule = ours(1000)
    assert schedule.alpha_bar[0] == 1
    torch.testing.assert_close(
        schedule.beta[1:], theirs.betas.double(), rtol=1e-4, atol=1e-7
    )
    # theirs is a product in float32
    torch.testing.assert_close(
        schedule.alpha_bar[1:], theirs.alphas_cumprod.double(), rtol=1e-3, atol=1e-6
    )


def test_diffusers_adds_the_same_noise(peer, normal):
    theirs = peer("linear", 1000)
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
    """A thousand walks, step by step, have the moments of the closed form."""
    x = torch.full((100_000,), 0.7).double()
    for t in range(1, T + 1):
        x = SCHEDULE.alpha[t].sqrt() * x + SCHEDULE.beta[t].sqrt() * normal(len(x))
    a = SCHEDULE.alpha_bar[-1]
    assert abs(x.mean() - a.sqrt() * 0.7) < 5 / len(x) ** 0.5
    assert abs(x.var() - (1 - a)) < 5 * (2 / len(x)) ** 0.5


def test_each_image_gets_its_own_step(images):
    x_0, epsilon = images
    found = q_sample(SCHEDULE, x_0, STEPS, epsilon)
    for i, t in enumerate(STEPS.tolist()):
        a = math.prod(SCHEDULE.alpha[1 : t + 1].tolist())
        expected = math.sqrt(a) * x_0[i] + math.sqrt(1 - a) * epsilon[i]
        torch.testing.assert_close(found[i], expected, rtol=1e-12, atol=1e-12)


def test_step_0_is_the_clean_image(images):
    x_0, epsilon = images
    assert torch.equal(q_sample(SCHEDULE, x_0, 0 * STEPS, epsilon), x_0)
    assert signal_to_noise(SCHEDULE)[0] == math.inf


def test_tables_are_float64_and_images_keep_their_type(images):
    assert all(table.dtype == torch.float64 for table in cosine_schedule(T))
    x_0, epsilon = (x.to(torch.bfloat16) for x in images)
    assert q_sample(SCHEDULE, x_0, STEPS, epsilon).dtype == torch.bfloat16
    # In float32 the first variance of the long chain is off by more than 1e-4.
    beta = torch.linspace(1e-4, 0.02, 1000)
    single = 1 - (1 - beta).cumprod(0)[0].double()
    assert abs(single / 1e-4 - 1) > 1e-4
    assert abs((1 - linear_schedule().alpha_bar[1]) / 1e-4 - 1) < 1e-10


def test_the_schedule_moves_as_a_whole():
    moved = SCHEDULE.to("meta")
    assert {table.device.type for table in moved} == {"meta"}
    assert isinstance(moved, noise_schedule.NoiseSchedule)


def test_the_posterior_by_sampling(generator):
    """Among walks that pass near one x_t, x_{t-1} has the mean and variance told."""
    t, x_0, n = 4, 0.7, 2_000_000
    before, a = SCHEDULE.alpha_bar[t - 1], SCHEDULE.alpha_bar[t]
    z = torch.randn(2, n, generator=generator, dtype=torch.float64)
    x_before = before.sqrt() * x_0 + (1 - before).sqrt() * z[0]
    x_t = SCHEDULE.alpha[t].sqrt() * x_before + SCHEDULE.beta[t].sqrt() * z[1]
    near = (x_t - 0.2).abs() < 0.02
    c_0, c_1, beta_tilde = (table[t] for table in posterior(SCHEDULE))
    kept = x_before[near] - c_1 * (x_t[near] - 0.2)
    error = kept.std() / len(kept) ** 0.5
    assert abs(kept.mean() - (c_0 * x_0 + c_1 * 0.2)) < 5 * error
    assert abs(kept.var() / beta_tilde - 1) < 5 * (2 / len(kept)) ** 0.5
    assert a < before


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_gives_the_image_back(images, target):
    x_0, epsilon = images
    x_t = q_sample(SCHEDULE, x_0, STEPS, epsilon)
    true = training_target(SCHEDULE, x_0, STEPS, epsilon, target)
    found = predict_x0(SCHEDULE, x_t, STEPS, true, target)
    torch.testing.assert_close(found, x_0, rtol=1e-10, atol=1e-10)
    wrong = predict_x0(SCHEDULE, x_t, STEPS, true + 0.01, target)
    assert not torch.allclose(wrong, x_0, rtol=1e-10, atol=1e-4)


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


def test_the_same_generator_draws_the_same(images):
    x_0, _ = images
    before = x_0.clone()
    state = torch.get_rng_state()
    seeds = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    a, b, c = (
        training_loss(SCHEDULE, lambda x, t: 0 * x, x_0, generator=g) for g in seeds
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(x_0, before)
    assert torch.equal(state, torch.get_rng_state())


def test_bytes_come_back():
    every = torch.arange(256, dtype=torch.uint8)
    scaled = from_bytes(every)
    assert scaled.min() == -1
    assert scaled.max() == 1
    assert torch.equal(to_bytes(scaled), every)


@pytest.mark.parametrize("steps", [[T + 1], [-1], [3, T + 5]])
def test_a_step_that_is_not_there(steps):
    message = f"every t must be from 0 to {T}, got {min(steps)} to {max(steps)}"
    with pytest.raises(ValueError, match=message):
        at_step(SCHEDULE.beta, torch.tensor(steps), torch.zeros(len(steps), 1))


def test_a_schedule_that_is_none():
    with pytest.raises(ValueError, match=r"above 0 and below 1, got 0\.0 to 0\.5"):
        make_schedule(torch.tensor([0.0, 0.5], dtype=torch.float64))


def test_a_schedule_is_float64_whatever_it_is_made_of():
    plain = inspect.unwrap(make_schedule)
    for beta in ([0.25, 0.5], (0.25, 0.5), torch.tensor([0.25, 0.5])):
        schedule = plain(beta)
        assert all(table.dtype == torch.float64 for table in schedule)
        assert schedule.alpha_bar.tolist() == [1, 0.75, 0.375]
    for beta, got in [(torch.full((2, 3), 0.1), r"\(2, 3\)"), (0.1, r"\(\)")]:
        with pytest.raises(ValueError, match=f"beta must be a row of T .* got {got}"):
            plain(beta)


def test_a_schedule_without_steps():
    with pytest.raises(ValueError, match="at least one step, got T = 0"):
        linear_schedule(0)


@pytest.mark.parametrize(
    ("t", "epsilon"),
    [(torch.tensor([1]), torch.zeros(3, 5)), (torch.ones(3).long(), torch.zeros(1, 5))],
)
def test_what_would_be_broadcast(t, epsilon):
    plain = inspect.unwrap(q_sample)
    with pytest.raises(ValueError, match=r"t must be \(3,\) and epsilon \(3, 5\)"):
        plain(SCHEDULE, torch.zeros(3, 5), t, epsilon)


FIVE = torch.zeros(5, 2)
AT_0, AT_1 = torch.tensor([3, 0, 1, 2, 4]), torch.ones(5).long()


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        (AT_1[:1], ValueError, r"t must be \(5,\), a step for each, got \(1,\)"),
        (AT_1[:, None], ValueError, r"t must be \(5,\), .* got \(5, 1\)"),
        (AT_1[0], ValueError, r"t must be \(5,\), .* got \(\)"),
        (AT_1.float(), TypeError, r"t must be integers, .*, got torch\.float32"),
        (AT_1.bool(), TypeError, r"t must be integers, .*, got torch\.bool"),
        (AT_1.to(torch.uint8), TypeError, r"t must be integers, .* got torch\.uint8"),
        (AT_1 - 2, ValueError, "every t must be from 0 to 11, got -1 to -1"),
        (AT_1 + T, ValueError, "every t must be from 0 to 11, got 12 to 12"),
    ],
)
def test_steps_that_are_none(steps, error, message):
    """One check for all that look a table up."""
    with pytest.raises(error, match=message):
        check_steps(steps, FIVE, last=T)
    with pytest.raises(error, match=message):
        inspect.unwrap(at_step)(SCHEDULE.beta, steps, FIVE)


def test_steps_that_can_be():
    check_steps(AT_0, FIVE, last=T)
    check_steps(AT_1.int(), FIVE, first=1)
    check_steps(AT_1[:0], FIVE[:0], first=1, last=T)
    with pytest.raises(ValueError, match="every t must be 1 or more, got 0 to 4"):
        check_steps(AT_0, FIVE, first=1)


@pytest.mark.parametrize("target", TARGETS)
def test_step_0_where_it_means_nothing(target):
    """Elsewhere it is the clean image, and all that is returned is finite."""
    message = "every t must be from 1 to 11, got 0 to 4"
    call = [
        (training_target, (SCHEDULE, FIVE, AT_0, FIVE, target), {"mu", "score"}),
        (predict_x0, (SCHEDULE, FIVE, AT_0, FIVE, target), {"mu"}),
        (predict_epsilon, (SCHEDULE, FIVE, AT_0, FIVE), set(TARGETS)),
    ]
    for function, arguments, undefined in call:
        if target in undefined:
            with pytest.raises(ValueError, match=message):
                function(*arguments)
        else:
            assert function(*arguments).isfinite().all()


def test_predictions_and_images_of_another_shape():
    """Each of these could be broadcast, and was nobody's intention."""
    wide = torch.zeros(5, 1)
    with pytest.raises(ValueError, match=r"must return \(5, 2\), .* got \(5, 1\)"):
        inspect.unwrap(predict_x0)(SCHEDULE, FIVE, AT_1, wide)
    with pytest.raises(ValueError, match=r"x_0 must be \(5, 2\), .* got \(5, 1\)"):
        inspect.unwrap(predict_epsilon)(SCHEDULE, FIVE, AT_1, wide)
    with pytest.raises(ValueError, match=r"and epsilon \(5, 2\), .* and \(5, 1\)"):
        inspect.unwrap(training_target)(SCHEDULE, FIVE, AT_1, wide)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_bytes_where_images_belong(dtype):
    x_0, message = FIVE.to(dtype), rf"images in \[-1, 1\], got {dtype}; see from_bytes"
    with pytest.raises(TypeError, match=message):
        inspect.unwrap(training_loss)(SCHEDULE, lambda x, t: x, x_0)
    for function in (q_sample, training_target):
        with pytest.raises(TypeError, match=message):
            inspect.unwrap(function)(SCHEDULE, x_0, AT_1, FIVE)


@pytest.mark.parametrize(
    ("shape", "got"), [((T,), "11"), ((1,), "1"), ((T + 1, 1), r"\(12, 1\)")]
)
def test_weights_of_another_length(shape, got):
    with pytest.raises(ValueError, match=f"weight must have an .* 0 to 11, got {got}"):
        inspect.unwrap(training_loss)(
            SCHEDULE, lambda x, t: x, FIVE, weight=torch.ones(shape).double()
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_half_the_size_pass_every_check(dtype):
    x_0, t = FIVE.to(dtype) + 0.5, AT_1 + 3
    loss = training_loss(SCHEDULE, lambda x, t: x, x_0)
    x_t = q_sample(SCHEDULE, x_0, t, 0 * x_0)
    found = predict_x0(SCHEDULE, x_t, t, 0 * x_0)
    assert loss.dtype == x_t.dtype == found.dtype == dtype
    assert to_bytes(x_0).unique().tolist() == [191]


def test_no_number_is_no_black_pixel():
    x = FIVE.clone()
    x[1, 0] = x[4, 1] = torch.nan
    with pytest.raises(ValueError, match="hold numbers, got NaN in 2 of 10 entries"):
        to_bytes(x)
    assert to_bytes(x.nan_to_num(torch.inf)).unique().tolist() == [128, 255]


def test_a_loss_of_nothing_or_of_another_shape():
    plain = inspect.unwrap(training_loss)
    with pytest.raises(ValueError, match="at least one image, got none"):
        plain(SCHEDULE, lambda x, t: x, torch.zeros(0, 5))
    with pytest.raises(ValueError, match=r"must return \(3, 5\), .* got \(3, 1\)"):
        plain(SCHEDULE, lambda x, t: x[:, :1], torch.zeros(3, 5))


def test_an_unknown_target(images):
    message = "target must be one of epsilon, x_0, v, mu, score, got 'eps'"
    with pytest.raises(ValueError, match=message):
        training_loss(SCHEDULE, lambda x, t: x, images[0], target="eps")
    with pytest.raises(ValueError, match=message):
        predict_x0(SCHEDULE, images[0], STEPS, images[1], "eps")


def test_images_that_are_no_bytes():
    plain = inspect.unwrap(from_bytes)
    with pytest.raises(TypeError, match=r"images must be bytes .* got torch\.float32"):
        plain(torch.zeros(1))


def test_noise_needs_no_generator():
    assert standard_normal(torch.zeros(1000, 3)).std() > 0.8
