"""`dian.diffusion.posterior` against sampling, and the loss it minimizes."""

import math

import pytest
import torch

from dian.diffusion.gaussian_mixture import draw, optimal_denoiser, posterior_x0, ring
from dian.diffusion.likelihood import log_density, variational_bound
from dian.diffusion.posterior import optimal_variance, posterior
from dian.diffusion.sampling import Denoiser
from dian.diffusion.schedule import linear_schedule

T = 11
SCHEDULE = linear_schedule(T, 0.05, 0.6)


def test_the_posterior_by_sampling(generator):
    """Among chains that pass near one x_t, x_{t-1} has this mean and variance."""
    t, x_0, n = 4, 0.7, 2_000_000
    before = SCHEDULE.alpha_bar[t - 1]
    z = torch.randn(2, n, generator=generator, dtype=torch.float64)
    x_before = before.sqrt() * x_0 + (1 - before).sqrt() * z[0]
    x_t = SCHEDULE.alpha[t].sqrt() * x_before + SCHEDULE.beta[t].sqrt() * z[1]
    near = (x_t - 0.2).abs() < 0.02
    c_0, c_1, beta_tilde = (table[t] for table in posterior(SCHEDULE))
    kept = x_before[near] - c_1 * (x_t[near] - 0.2)
    error = kept.std() / len(kept) ** 0.5
    assert abs(kept.mean() - (c_0 * x_0 + c_1 * 0.2)) < 5 * error
    assert abs(kept.var() / beta_tilde - 1) < 5 * (2 / len(kept)) ** 0.5


def test_index_0_has_no_posterior():
    for table in posterior(SCHEDULE):
        assert table.shape == (T + 1,)
        assert math.isnan(table[0])
        assert table[1:].isfinite().all()


def test_the_schedule_is_not_changed():
    before = [table.clone() for table in SCHEDULE]
    posterior(SCHEDULE)
    for table, kept in zip(SCHEDULE, before, strict=True):
        assert torch.equal(table, kept)


def test_no_other_variance_has_a_smaller_bound(generator):
    """The bound of an optimal denoiser, with the optimal variance and others."""
    data = ring(3, radius=0.7, variance=0.02)
    x_0 = draw(data, 3000, generator)
    mmse = torch.zeros(T + 1, dtype=torch.float64)
    for t in range(1, T + 1):
        a = SCHEDULE.alpha_bar[t]
        z = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
        x_t = a.sqrt() * x_0 + (1 - a).sqrt() * z
        mmse[t] = posterior_x0(data, x_t, a.expand(3000)).variance.mean()
    best = optimal_variance(SCHEDULE, mmse)

    def bound(variance):
        return variational_bound(
            SCHEDULE,
            Denoiser(optimal_denoiser(data, SCHEDULE.alpha_bar), clip=None),
            x_0,
            variance=variance,
            decoder=log_density,
            generator=torch.Generator().manual_seed(0),
        ).terms.mean(1)[1:]

    least = bound(best)
    for other in (1.2 * best, best / 1.2, SCHEDULE.beta):
        assert (bound(other) > least).all()


def test_a_table_of_another_length_is_refused(as_users_run):
    with pytest.raises(ValueError, match=r"0 to T, must be \(12,\), got \(11,\)"):
        optimal_variance(SCHEDULE, torch.ones(T, dtype=torch.float64))
