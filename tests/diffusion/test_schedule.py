"""`dian.diffusion.schedule` against diffusers, and the lookup at a timestep."""

import math

import pytest
import torch

from dian.diffusion.schedule import (
    NoiseSchedule,
    as_steps,
    at_step,
    check_steps,
    cosine_schedule,
    linear_schedule,
    make_schedule,
    signal_to_noise,
)

T = 11
SCHEDULE = linear_schedule(T, 0.05, 0.6)
FIVE = torch.zeros(5, 2)
AT_1 = torch.ones(5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("name", "ours"),
    [("linear", linear_schedule), ("squaredcos_cap_v2", cosine_schedule)],
)
def test_schedules_are_those_of_diffusers(name, ours):
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(num_train_timesteps=1000, beta_schedule=name)
    schedule = ours(1000)
    assert schedule.T == 1000
    assert schedule.alpha_bar[0] == 1
    torch.testing.assert_close(
        schedule.beta[1:], theirs.betas.double(), rtol=1e-4, atol=1e-7
    )
    # theirs is a product in float32
    torch.testing.assert_close(
        schedule.alpha_bar[1:], theirs.alphas_cumprod.double(), rtol=1e-3, atol=1e-6
    )


def test_tables_are_float64_whatever_they_are_made_of(as_users_run):
    for beta in ([0.25, 0.5], (0.25, 0.5), torch.tensor([0.25, 0.5])):
        schedule = make_schedule(beta)
        assert all(table.dtype == torch.float64 for table in schedule)
        assert schedule.alpha_bar.tolist() == [1, 0.75, 0.375]
    # In float32 the first variance of the long schedule is off by more than 1e-4.
    single = 1 - (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)[0].double()
    assert abs(single / 1e-4 - 1) > 1e-4
    assert abs((1 - linear_schedule().alpha_bar[1]) / 1e-4 - 1) < 1e-10


def test_a_schedule_moves_as_a_whole():
    moved = SCHEDULE.to("meta")
    assert {table.device.type for table in moved} == {"meta"}
    assert isinstance(moved, NoiseSchedule)


def test_the_clean_image_has_no_noise():
    assert signal_to_noise(SCHEDULE)[0] == math.inf


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_each_image_is_looked_up_at_its_own_timestep(dtype):
    t = torch.tensor([0, T, 4, 1, 4], dtype=dtype)
    found = at_step(SCHEDULE.beta, t, torch.zeros(5, 3, 7))
    assert found.shape == (5, 1, 1)
    assert found.dtype == torch.float32
    for image, step in zip(found.flatten().tolist(), t.tolist(), strict=True):
        assert image == pytest.approx(SCHEDULE.beta[step].item())
        assert at_step(SCHEDULE.beta, step, FIVE) == SCHEDULE.beta[step].item()
    assert as_steps(t, FIVE) is t


def test_a_range_may_have_no_end_and_a_batch_no_images():
    check_steps(10**6, FIVE, first=1)
    check_steps(AT_1[:0], FIVE[:0], first=1, last=T)


@pytest.mark.parametrize(
    ("t", "error", "message"),
    [
        (AT_1[:1], TypeError, r"an int, or 5 integers .* got torch\.int64 \(1,\)"),
        (AT_1[:, None], TypeError, r"5 integers in a row, got torch\.int64 \(5, 1\)"),
        (AT_1[0], TypeError, r"5 integers in a row, got torch\.int64 \(\)"),
        (AT_1.float(), TypeError, r"5 integers in a row, got torch\.float32 \(5,\)"),
        (AT_1.bool(), TypeError, r"got torch\.bool"),
        (AT_1.to(torch.uint8), TypeError, r"got torch\.uint8"),
        (2.0, TypeError, r"t must be an int, or 5 integers in a row, got 2\.0"),
        ([1, 1, 1, 1, 1], TypeError, r"got \[1, 1, 1, 1, 1\]"),
        (AT_1 - 2, ValueError, "t must be from 0 to 11, got -1 to -1"),
        (AT_1.index_fill(0, AT_1[:1], 12), ValueError, "from 0 to 11, got 1 to 12"),
        (-1, ValueError, "t must be from 0 to 11, got -1 to -1"),
        (12, ValueError, "t must be from 0 to 11, got 12 to 12"),
    ],
)
def test_timesteps_that_are_refused(as_users_run, t, error, message):
    with pytest.raises(error, match=message):
        check_steps(t, FIVE, last=T)
    with pytest.raises(error, match=message):
        at_step(SCHEDULE.beta, t, FIVE)


@pytest.mark.parametrize(
    ("beta", "message"),
    [
        (torch.full((2, 3), 0.1), r"beta must be T >= 1 numbers, got shape \(2, 3\)"),
        (0.1, r"beta must be T >= 1 numbers, got shape \(\)"),
        ([], r"beta must be T >= 1 numbers, got shape \(0,\)"),
        ([0.0, 0.5], r"beta must lie in \(0, 1\), got 0\.0 to 0\.5"),
        ([0.5, 1.0], r"beta must lie in \(0, 1\), got 0\.5 to 1\.0"),
        ([0.5, math.nan], r"beta must lie in \(0, 1\), got nan"),
    ],
)
def test_schedules_that_are_refused(as_users_run, beta, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(beta)


def test_step_0_where_a_table_is_not_defined():
    with pytest.raises(ValueError, match="t must be from 1 to 11, got 0 to 0"):
        at_step(SCHEDULE.beta, 0, FIVE, first=1)
    with pytest.raises(ValueError, match="t must be from 1 to 11, got 0 to 1"):
        at_step(SCHEDULE.beta, AT_1.index_fill(0, AT_1[:1], 0), FIVE, first=1)
