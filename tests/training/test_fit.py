"""``fit``: what somebody who trains a model of their own meets."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dian.training.fit import fit
from dian.training.loss import cross_entropy


@pytest.fixture
def data():
    """Two classes that a line separates."""
    x = torch.randn(97, 3, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) > 0).long()


def linear() -> nn.Module:
    model = nn.Linear(3, 2)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def test_a_model_learns_and_is_validated(data):
    x, y = data
    model = linear()
    history = fit(model, (x[:80], y[:80]), lr=0.1, validate=(x[80:], y[80:]))
    assert len(history.losses) == 10 * 2
    assert len(history.epoch_losses) == len(history.validation_losses) == 10
    assert history.losses[-1] < history.losses[0] / 2
    assert history.accuracies[-1] > 0.9
    assert history.accuracies[-1] == (model(x[80:]).argmax(1) == y[80:]).double().mean()
    assert not model.training
    told = repr(history)
    assert told.startswith("<History: 10 epochs, training loss 0.")
    assert len(told) < 100


def test_the_defaults_are_those_of_the_signature_and_of_adam(data):
    options = {"epochs": 10, "batch_size": 64, "lr": 1e-3, "seed": 0}
    x, y = (part[:65] for part in data)  # a batch of 64, and one more
    assert fit(linear(), (x, y)).losses == fit(linear(), (x, y), **options).losses


def test_a_model_is_validated_and_left_in_evaluation_mode(data):
    model = nn.Sequential(nn.Dropout(0.5), linear())
    history = fit(model, data, epochs=1, validate=data)
    x, y = data
    assert history.validation_losses == [cross_entropy(model(x), y).item()]
    assert not fit(model, data, epochs=1).accuracies
    assert not model.training


def test_the_accuracy_of_sequences_is_over_all_steps(data):
    x, y = data[0].view(97, 1, 3).expand(-1, 4, -1), data[1][:, None].expand(-1, 4)
    model = linear()
    history = fit(model, (x, y), epochs=1, lr=0.1, validate=(x, y))
    assert history.accuracies == [(model(x).argmax(2) == y).double().mean().item()]


def test_one_output_for_a_target_without_its_axis_is_a_regression(data):
    x, _ = data

    def loss(outputs, target):
        return (outputs[:, 0] - target).square().mean()

    pair = x, x.sum(1)
    history = fit(nn.Linear(3, 1), pair, loss=loss, epochs=1, validate=pair)
    assert len(history.validation_losses) == 1
    assert history.accuracies == []


def test_a_seed_decides_the_order(data):
    runs = [fit(linear(), data, epochs=2, seed=seed).losses for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_loader_is_a_way_to_pass_data(data):
    loader = DataLoader(TensorDataset(*data), batch_size=20)
    history = fit(linear(), loader, lr=0.1, validate=loader)
    assert len(history.losses) == 10 * 5
    assert history.accuracies == fit(linear(), loader, lr=0.1, validate=data).accuracies


def test_a_regression_has_no_accuracy(data):
    x, _ = data
    history = fit(
        nn.Linear(3, 1),
        (x, x.sum(1, keepdim=True)),
        loss=nn.functional.mse_loss,
        lr=0.1,
        validate=(x, x.sum(1, keepdim=True)),
    )
    assert history.validation_losses[-1] < history.validation_losses[0]
    assert history.accuracies == []
    assert "accuracy" not in repr(history)


def test_options_are_those_of_the_loop(data):
    model = linear()
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    fit(model, data, epochs=1, optimizer=sgd, schedule="cosine", max_norm=1e-3)
    assert sgd.param_groups[0]["lr"] < 0.5
    assert 0 < model.weight.norm() < 0.5 * 1e-3 * 2  # two steps


def test_without_an_epoch_there_is_nothing_to_report(data):
    assert repr(fit(linear(), data, epochs=0)) == "<History: 0 epochs>"


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda m, x, y: fit(m, (x, y[:5])), ValueError, r"same number .*\[97, 5\]"),
        (lambda m, x, y: fit(m, (x, y), schedule="cos"), ValueError, "got 'cos'"),
        (lambda m, x, y: fit(m, (x, y), epoch=3), TypeError, "'epoch'"),
        (
            lambda m, x, y: fit(m, (x / 0, y)),
            FloatingPointError,
            "step 1 .* the loss is nan",
        ),
        (lambda m, x, y: fit(m, (x.numpy(), y)), ValueError, "of ndarray, Tensor"),
        (
            lambda m, x, y: fit(m, (x, y), validate=(x.numpy(), y.numpy())),
            ValueError,
            "validate must be a tuple of tensors or a DataLoader, got .* ndarray, ndar",
        ),
        (lambda m, x, y: fit(m, [x, y]), ValueError, "or a DataLoader, got list"),
        (
            lambda m, x, y: fit(m, (x, y), lr=0.1, optimizer=torch.optim.SGD([x])),
            ValueError,
            "lr is for Adam, and an optimizer has its own, got both",
        ),
        (lambda m, x, y: fit(m, (x, y + 1)), ValueError, r"must be in 0\.\.1, got 1"),
    ],
)
def test_wrong_arguments_are_one_line(data, as_users_run, call, error, told):
    with pytest.raises(error, match=told):
        call(linear(), *data)
