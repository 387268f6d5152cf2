"""Every experiment with images runs, in a trial that is small enough for a test."""

from dataclasses import asdict, replace

import pytest
import torch

from dian.data import sample
from dian.experiments import classification
from dian.experiments.rnn import best
from dian.runs import train as runner

# The diffusion models have another test file.
EXPERIMENTS = {
    name: experiment
    for name, experiment in runner.experiments().items()
    if experiment.data is classification.read
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def few():
    """A handful of real images, so that the tests stay fast."""
    return tuple(
        classification.subset(sample(split), slice(n))
        for split, n in (("train", 41), ("test", 23))
    )


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_its_trial_runs_in_both_types_of_numbers(experiment, few):
    narrow = {"h": 5, "d_model": 8}
    width = {key: n for key, n in narrow.items() if hasattr(experiment.quick, key)}
    changed = {"batch_size": 21, "epochs": 1} | width
    if getattr(experiment.quick, "held_out", 0):
        changed["held_out"] = 11
    settings = replace(experiment.quick, **changed)
    for dtype in (torch.float32, torch.float64):
        outcome = experiment.run(settings, few, 0, CPU, dtype=dtype)
        assert len(outcome.losses) == 2
        assert all(w.dtype == dtype for w in outcome.weights.values())
        judged = "validation" if "held_out" in changed else "test"
        assert 0 <= outcome.metrics[f"{judged}/accuracy"] <= 1


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_a_trial_is_smaller_and_nothing_else(experiment):
    full, quick = asdict(experiment.settings), asdict(experiment.quick)
    changed = {key for key in full if full[key] != quick[key]}
    assert changed <= {"epochs", "batch_size", "h", "images", "held_out"}
    assert quick["epochs"] < full["epochs"]


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("rnn-best", {"h": 5}),
        ("rnn-relu", {"h": 5}),
        ("rnn-pixels-identity-small", {"h": 5}),
        ("rows-rotary", {"d_model": 8}),
    ],
)
def test_a_seed_decides_everything(few, name, width):
    """Dropout and augmentation, too."""
    experiment = EXPERIMENTS[name]
    settings = replace(experiment.quick, batch_size=14, epochs=1, **width)
    runs = [experiment.run(settings, few, seed, CPU).losses for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_what_is_held_out_is_not_trained_on_and_no_test_image_is_seen(few):
    train, test = few
    first, rest = classification.hold_out(few, 11)
    assert torch.equal(torch.cat([first.index, rest.index]), train.index)
    assert len(rest.index) == 11
    assert torch.equal(rest.images, train.images[-11:])
    poisoned = train, classification.subset(test, slice(0, 0))
    settings = replace(best.CANDIDATE, held_out=11, h=5, batch_size=30, epochs=1)
    outcome = best.run(settings, poisoned, 0, CPU)
    assert len(outcome.arrays["predictions"]) == 11
    assert not any(key.startswith("test") for key in outcome.metrics)


def test_the_best_is_one_of_its_candidates():
    chosen = replace(best.BEST, held_out=best.CANDIDATE.held_out)
    assert chosen in best.CANDIDATES.values()
    assert best.BEST.held_out == 0
