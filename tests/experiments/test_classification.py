"""Every experiment with images runs, at a scale that is small enough for a test."""

from dataclasses import asdict, replace

import pytest
import torch

from dian.data import sample
from dian.experiments import classification
from dian.experiments.rnn import row_recipes
from dian.runs import experiment as registry
from dian.runs.experiment import Job
from dian.runs.record import load, record_names

ALL = registry.experiments()
# The diffusion models have another test file.
EXPERIMENTS = {
    name: experiment
    for name, experiment in ALL.items()
    if experiment.data is classification.load_splits
}
RECORDED = [name for name in record_names() if load(name).content["replay"]]


@pytest.fixture(scope="module")
def few():
    """A handful of real images, so that the tests stay fast."""
    return tuple(sample(split)[:n] for split, n in (("train", 41), ("test", 23)))


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_it_runs_in_both_types_of_numbers(experiment, few):
    narrow = {"h": 5, "d_model": 8}
    width = {key: n for key, n in narrow.items() if hasattr(experiment.quick, key)}
    changed = {"batch_size": 21, "epochs": 1} | width
    if experiment.quick.held_out:
        changed["held_out"] = 11
    settings = replace(experiment.quick, **changed)
    losses = {}
    for dtype in (torch.float32, torch.float64):
        outcome = experiment.run(settings, few, Job(dtype=dtype))
        losses[dtype] = outcome.losses
        assert all(w.dtype == dtype for w in outcome.weights.values())
        name = "validation" if "held_out" in changed else "test"
        right = outcome.arrays["confusion"].diagonal().sum()
        n = 11 if "held_out" in changed else 23
        assert outcome.metrics[f"{name}/accuracy"] == pytest.approx(right / n)
        assert outcome.series[f"{name}/accuracy"][-1] == right.item() / n
    assert len(losses[torch.float32]) == 2
    assert losses[torch.float32] == pytest.approx(losses[torch.float64], rel=1e-4)


@pytest.mark.parametrize("name", RECORDED)
def test_the_settings_of_a_record_are_those_of_today(name):
    """A renamed field, or a new one with a default other than None, changes them."""
    recorded = load(name).settings
    today = asdict(ALL[name].settings)
    added = {key for key in today.keys() - recorded.keys() if today[key] is None}
    assert {key: today[key] for key in today.keys() - added} == recorded


@pytest.mark.parametrize("name", RECORDED)
def test_the_weights_of_a_record_fit_the_network_of_its_settings(name):
    record, experiment = load(name), ALL[name]
    network = experiment.build(replace(experiment.settings, **record.settings), None)
    shapes = {key: w.shape for key, w in record.weights.items()}
    assert {key: w.shape for key, w in network.state_dict().items()} == shapes


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_a_dry_run_is_smaller_and_nothing_else(experiment):
    full, quick = asdict(experiment.settings), asdict(experiment.quick)
    changed = {key for key in full if full[key] != quick[key]}
    assert changed <= {"epochs", "batch_size", "h", "images", "held_out"}
    assert quick["epochs"] < full["epochs"]


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("rnn-recipe-best", {"h": 5}),
        ("rnn-relu", {"h": 5}),
        ("rnn-pixels-identity-small", {"h": 5}),
        ("rows-rotary", {"d_model": 8}),
    ],
)
def test_a_seed_decides_everything(few, name, width):
    """Dropout and augmentation, too."""
    experiment = EXPERIMENTS[name]
    settings = replace(experiment.quick, batch_size=14, epochs=1, **width)
    runs = [experiment.run(settings, few, Job(seed)).losses for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_what_is_held_out_is_not_trained_on_and_no_test_image_is_seen(few):
    train, test = few
    settings = replace(row_recipes.CANDIDATE, held_out=11, h=5, batch_size=30, epochs=1)
    first, rest = classification.training_and_evaluation(settings, few)
    assert torch.equal(torch.cat([first.index, rest.index]), train.index)
    assert len(rest.index) == 11
    assert torch.equal(rest.images, train.images[-11:])
    poisoned = train, test[:0]
    outcome = EXPERIMENTS["rnn-recipe"].run(settings, poisoned, Job())
    assert len(outcome.arrays["predictions"]) == 11
    assert not any(key.startswith("test") for key in outcome.metrics)
