"""The learning-rate schedules, beside those of torch."""

import pytest
import torch
from torch import nn

from dian.training.schedules import SCHEDULES, linear_warm_up


def test_cosine_falls_from_one_to_zero():
    values = [SCHEDULES["cosine"](k / 16) for k in range(17)]
    assert values[0] == 1
    assert values[-1] == 0
    assert values == sorted(values, reverse=True)


def test_one_cycle_is_that_of_torch():
    parameter, n_step = nn.Parameter(torch.zeros(1)), 200
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=n_step, cycle_momentum=False
    )
    for step in range(n_step):
        # Their first and last step are ours, and their end is not 0 but nearly so.
        ours = SCHEDULES["one-cycle"](step / (n_step - 1))
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=2e-2)
        optimizer.step()
        if step < n_step - 1:
            theirs.step()
    assert max(SCHEDULES["one-cycle"](k / 100) for k in range(101)) == 1


def test_a_warm_up_counts_steps_and_ends():
    """After it, nothing but the schedule is left; progress is rounded to a step."""
    n_step = 469 * 22
    factor = linear_warm_up(SCHEDULES["cosine"], 100, n_step)
    for done in (0, 1, 49, 98, 99, 100, n_step - 1):
        expected = SCHEDULES["cosine"](done / n_step) * min(1, (done + 1) / 100)
        assert factor(done / n_step) == expected
    assert linear_warm_up(SCHEDULES["cosine"], 0, n_step)(0.0) == 1


@pytest.mark.parametrize(
    ("counts", "message"),
    [((-1, 10), "n_warm_up .* at least 0, got -1"), ((2, 0), "n_step .* 1, got 0")],
)
def test_wrong_counts(counts, message):
    with pytest.raises(ValueError, match=message):
        linear_warm_up(SCHEDULES["constant"], *counts)
