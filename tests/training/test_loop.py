"""The training loop: it is what it says, and it stops where it should."""

import math

import pytest
import torch
from torch import nn

from dian.errors import DianError
from dian.rnn.networks import RNNClassifier
from dian.training.loop import fit
from dian.training.schedules import SCHEDULES


def setting(model, **changed):
    return {
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "schedule": SCHEDULES["constant"],
        "batch_size": 3,
        "epochs": 4,
        "generator": torch.Generator().manual_seed(0),
    } | changed


@pytest.fixture
def model():
    model = nn.Linear(2, 1)
    nn.init.ones_(model.weight)
    return model


def test_every_epoch_sees_every_item_once_in_another_order(model):
    seen = []

    def loss_fn(index):
        seen.append(index)
        return model(torch.ones(len(index), 2)).sum()

    losses = fit(model, loss_fn, 7, **setting(model))
    assert [len(index) for index in seen] == [3, 3, 1] * 4
    assert len(losses) == 12
    epochs = torch.cat(seen).view(4, 7)
    assert torch.equal(epochs.sort(1).values, torch.arange(7).expand(4, 7))
    assert not torch.equal(epochs[0], epochs[1])


def test_a_step_is_a_step_of_gradient_descent(model):
    before = model.weight.clone()
    fit(model, lambda i: 5 * model.weight.sum(), 3, **setting(model, epochs=1))
    torch.testing.assert_close(model.weight, before - 0.1 * 5)


def test_the_schedule_scales_the_rate(model):
    shares = []

    def schedule(progress):
        shares.append(progress)
        return 0.0 if progress else 1.0

    before = model.weight.clone()
    given = setting(model, schedule=schedule)
    losses = fit(model, lambda i: model.weight.sum(), 7, **given)
    torch.testing.assert_close(model.weight, before - 0.1)  # only the first step moved
    assert len(losses) == 12
    assert shares == pytest.approx([k / 12 for k in range(12)])


def test_clip_stands_between_the_gradient_and_the_step(model):
    def clip(parameters):
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.fill_(7.0)

    before = model.weight.clone()
    fit(model, lambda i: model.weight.sum(), 1, **setting(model, epochs=1, clip=clip))
    torch.testing.assert_close(model.weight, before - 0.7)


def test_callbacks_tell_steps_epochs_and_losses(model):
    steps, epochs = [], []
    fit(
        model,
        lambda i: 0 * model.weight.sum() + 2.0,
        5,
        **setting(model),
        after_step=lambda *step: steps.append(step),
        after_epoch=lambda *epoch: epochs.append(epoch),
    )
    assert steps == [(n, 8, 2.0) for n in range(1, 9)]
    assert epochs == [(n, 2.0) for n in range(1, 5)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_before_the_step(model, bad):
    calls = []

    def loss_fn(index):
        calls.append(model.weight.clone())
        return model.weight.sum() * (bad if len(calls) == 6 else 1)

    with pytest.raises(DianError, match=r"step 6 \(epoch 2, items .*loss is (nan|inf)"):
        fit(model, loss_fn, 9, **setting(model))
    assert torch.equal(model.weight, calls[-1])


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


def test_a_gradient_that_is_refused_stops_the_run_and_names_the_step(model):
    def clip(parameters):
        raise ValueError("the gradient is not finite: its norm is inf")

    given = setting(model, clip=clip)
    with pytest.raises(DianError, match=r"step 1 \(epoch 1, .* is not finite"):
        fit(model, lambda i: model.weight.sum(), 3, **given)


def test_an_image_that_is_not_finite_stops_before_the_loss():
    model = RNNClassifier(h=11)
    images = torch.zeros(3, 28, 28)
    images[1, 5, 7] = math.nan
    with pytest.raises(ValueError, match=r"images must be finite, .* in image 1"):
        fit(model, lambda i: model(images).sum(), 3, **setting(model))


def test_a_start_knows_nothing_and_one_batch_can_be_learned_by_heart():
    """Start-up checks: the loss begins near log 10, and can be brought to near 0."""
    generator = torch.Generator().manual_seed(0)
    model = RNNClassifier(generator=generator)
    images = torch.rand(16, 28, 28, generator=generator)
    labels = torch.randint(10, (16,), generator=generator)
    losses = fit(
        model,
        lambda i: nn.functional.cross_entropy(model(images[i]), labels[i]),
        16,
        optimizer=torch.optim.Adam(model.parameters(), lr=3e-3),
        schedule=SCHEDULES["constant"],
        batch_size=16,
        epochs=300,
        generator=generator,
    )
    assert losses[0] == pytest.approx(math.log(10), abs=0.5)
    assert losses[-1] < 0.01
