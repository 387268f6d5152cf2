"""The training loop: its steps, its state, and where it stops."""

import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dian.rnn.networks import RNNClassifier
from dian.training.dropout import dropout_mask
from dian.training.loop import Training


@pytest.fixture
def model():
    model = nn.Linear(2, 1)
    nn.init.ones_(model.weight)
    return model


def training(model, loss_fn, n=7, **changed) -> Training:
    """Return a training run over the numbers from 0 on."""
    options = {
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "batch_size": 3,
        "epochs": 4,
        "generator": torch.Generator().manual_seed(0),
    }
    return Training(model, loss_fn, (torch.arange(n),), **options | changed)


def test_every_epoch_sees_every_item_once_in_another_order(model):
    seen = []

    def loss_fn(items):
        seen.append(items)
        return model.weight.sum()

    assert len(list(training(model, loss_fn))) == 12
    assert [len(items) for items in seen] == [3, 3, 1] * 4
    epochs = torch.cat(seen).view(4, 7)
    assert torch.equal(epochs.sort(1).values, torch.arange(7).expand(4, 7))
    assert not torch.equal(epochs[0], epochs[1])


def test_a_step_is_a_step_of_gradient_descent(model):
    before = model.weight.clone()
    steps = training(model, lambda items: 5 * model.weight.sum(), n=3, epochs=1)
    assert [step.loss for step in steps] == [10.0]
    torch.testing.assert_close(model.weight, before - 0.1 * 5)


def test_the_schedule_scales_the_rate(model):
    fractions = []

    def schedule(fraction):
        fractions.append(fraction)
        return 0.0 if fraction else 1.0

    before = model.weight.clone()
    list(training(model, lambda items: model.weight.sum(), schedule=schedule))
    torch.testing.assert_close(model.weight, before - 0.1)  # only the first step moved
    assert fractions == pytest.approx([k / 12 for k in range(12)])


def test_a_long_gradient_is_clipped_before_the_step(model):
    before = model.weight.clone()
    loss_fn = lambda items: 3 * model.weight[0, 0] + 4 * model.weight[0, 1]  # noqa: E731
    (step,) = training(model, loss_fn, n=1, epochs=1, max_norm=0.5)
    assert step.grad_norm == 5.0
    torch.testing.assert_close(model.weight, before - 0.1 * torch.tensor([0.3, 0.4]))


def test_steps_say_where_they_are(model):
    losses = iter(range(8))
    steps = list(
        training(model, lambda items: 0 * model.weight.sum() + next(losses), n=5)
    )
    assert [(s.number, s.total, s.epoch, s.loss) for s in steps] == [
        (n + 1, 8, n // 2 + 1, n) for n in range(8)
    ]
    means = [s.epoch_loss for s in steps]
    assert means == [None, 0.5, None, 2.5, None, 4.5, None, 6.5]


def test_a_transform_makes_the_batch(model):
    seen = []

    def loss_fn(items, doubled):
        seen.append((items, doubled))
        return model.weight.sum()

    list(training(model, loss_fn, transform=lambda items: (items, 2 * items)))
    for items, doubled in seen:
        assert torch.equal(doubled, 2 * items)


def test_the_caller_may_evaluate_between_two_steps(model):
    modes = []
    for _ in training(model, lambda items: modes.append(model.training) or model.bias):
        model.eval()
    assert modes == [True] * 12


def test_a_loader_keeps_its_batches(model):
    x = torch.arange(7.0)
    seen = []

    def loss_fn(x, y):
        seen.append(x)
        assert torch.equal(y, 2 * x)
        return model.weight.sum()

    loader = DataLoader(TensorDataset(x, 2 * x), batch_size=4)
    steps = list(
        Training(
            model,
            loss_fn,
            loader,
            epochs=2,
            optimizer=torch.optim.SGD(model.parameters()),
        )
    )
    assert [step.number for step in steps] == [1, 2, 3, 4]
    assert torch.equal(torch.cat(seen), x.repeat(2))


def random_training() -> tuple[nn.Module, Training]:
    """Return a run in which everything random matters: order, noise and dropout."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(5, 3)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, generator=generator)
    x, y = torch.rand(11, 5, generator=generator), torch.arange(11) % 3

    def transform(x, y):
        return x + 0.1 * torch.rand(x.shape, generator=generator), y

    def loss_fn(x, y):
        return nn.functional.cross_entropy(
            model(x * dropout_mask(x, 0.3, generator)), y
        )

    return model, Training(
        model,
        loss_fn,
        (x, y),
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        schedule="one-cycle",
        batch_size=4,
        epochs=3,
        generator=generator,
        transform=transform,
    )


def interrupted(n_step: int) -> dict:
    """Return the state after some steps, as a file would hold it."""
    _, begun = random_training()
    for _ in zip(range(n_step), begun, strict=False):
        pass
    return copy.deepcopy(begun.state_dict())


def resumed(state: dict) -> tuple[list[float], dict]:
    model, rest = random_training()
    rest.load_state_dict(state)
    list(rest)
    return rest.losses, model.state_dict()


def same(one, other) -> bool:
    return one[0] == other[0] and all(
        torch.equal(one[1][k], other[1][k]) for k in one[1]
    )


def test_interrupted_after_any_step_it_ends_with_the_same_bits():
    model, whole = random_training()
    assert len(list(whole)) == 9
    for n_step in range(10):
        assert same(resumed(interrupted(n_step)), (whole.losses, model.state_dict()))


@pytest.mark.parametrize("lost", ["model", "generator", "optimizer", "order", "done"])
def test_every_part_of_the_state_is_needed(lost):
    """The test above can fail."""
    state, earlier = interrupted(5), interrupted(1)
    assert not same(resumed(state | {lost: earlier[lost]}), resumed(state))


def test_a_state_is_made_of_tensors_and_plain_values():
    file = io.BytesIO()
    torch.save(interrupted(5), file)
    file.seek(0)
    assert same(resumed(torch.load(file, weights_only=True)), resumed(interrupted(5)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_before_the_step(model, bad):
    weights = []

    def loss_fn(items):
        weights.append(model.weight.clone())
        return model.weight.sum() * (bad if len(weights) == 6 else 1)

    run = training(model, loss_fn, n=9)
    told = r"^step 6 \(epoch 2, items \d, \d, \d\): the loss is (nan|inf), expected a"
    with pytest.raises(FloatingPointError, match=told):
        list(run)
    assert torch.equal(model.weight, weights[-1])
    assert len(run.losses) == 6


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(model):
    before = model.weight.clone()
    loss_fn = lambda items: (0 * model.weight).sum().sqrt()  # noqa: E731
    with pytest.raises(FloatingPointError, match=r"^step 1 .* gradient is not finite"):
        list(training(model, loss_fn, max_norm=1.0))
    assert torch.equal(model.weight, before)


def test_an_image_that_is_not_finite_stops_before_the_loss():
    model = RNNClassifier(28, 11, 10)
    images = torch.zeros(3, 28, 28)
    images[1, 5, 7] = math.nan
    with pytest.raises(ValueError, match=r"x must be finite, .* in x\[1\]"):
        list(training(model, lambda items: model(images).sum()))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"schedule": "cosin"}, "one of constant, cosine, one-cycle .* got 'cosin'"),
        ({"n": 0}, r"at least 1, got \[0\]"),
        ({"epochs": -1}, "epochs must be a whole number, at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1, got 0"),
        ({"max_norm": 0}, "max_norm must be positive or None, got 0"),
        ({"optimizer": "adam"}, "optimizer must be an object, such as .* got 'adam'"),
    ],
)
def test_wrong_arguments_are_one_line(model, as_users_run, changed, told):
    with pytest.raises(ValueError, match=told):
        training(model, lambda items: model.weight.sum(), **changed)


def test_a_tensor_alone_is_not_taken_for_its_rows(model, as_users_run):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    told = "data must be a tuple of tensors or a DataLoader, got Tensor"
    with pytest.raises(ValueError, match=told):
        Training(model, len, torch.ones(7, 3), optimizer=optimizer, epochs=1)


def test_an_untrained_network_is_at_chance_and_can_overfit_one_batch():
    """Start-up checks: the loss begins near log 10, and can be brought to near 0."""
    generator = torch.Generator().manual_seed(0)
    model = RNNClassifier(28, 128, 10, generator=generator)
    images = torch.rand(16, 28, 28, generator=generator)
    labels = torch.randint(10, (16,), generator=generator)
    steps = Training(
        model,
        lambda x, y: nn.functional.cross_entropy(model(x), y),
        (images, labels),
        optimizer=torch.optim.Adam(model.parameters(), lr=3e-3),
        batch_size=16,
        epochs=300,
        generator=generator,
    )
    losses = [step.loss for step in steps]
    assert losses[0] == pytest.approx(math.log(10), abs=0.5)
    assert losses[-1] < 0.01
