"""Solutions of the four tasks by students, in NumPy, with habits of their own."""

import importlib.util
from pathlib import Path

import pytest

from dian.check import check, diagnosis
from dian.check.template import TASKS


@pytest.fixture(autouse=True)
def without_pairs(monkeypatch):
    """Two mistakes at once are tried for a second or two, which no test here needs."""
    monkeypatch.setattr(diagnosis, "PAIRS_SECONDS", 0)


pytestmark = pytest.mark.slow
FOLDER = Path(__file__).with_name("students")


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NAMES = ("rnn", "positions", "attention", "diffusion")
KINDS = [(name, kind) for name, task in zip(NAMES, TASKS, strict=True)
         for kind in TASKS[task][1].split()]  # fmt: skip
HABITS = {
    # What the report must have recognized, beyond the conventions of the templates.
    "rnn": "(batch, time, d)",
    "clip": "changes gradients in place",
    "classification-metrics": "all labels at once",
    "sinusoidal": "takes the number of positions",
    "rotary": "(n, d)",
    "attention": "(n, d)",
    "multi-head": "(n, D)",
    "noise-schedule": "T + 1 entries",
    "q-sample": "takes alpha_bars",
    "posterior": "standard deviation",
    "ddpm-loss": "sum over an image",
    "ddpm-sample": "x_0 clipped",
}


@pytest.mark.parametrize(("name", "kind"), KINDS)
@pytest.mark.parametrize("form", ["by_template", "own_habits"])
def test_solutions_are_right(name, kind, form):
    function = getattr(loaded(f"{name}_{form}"), kind.replace("-", "_"))
    report = check(kind, function, arrays="numpy")
    assert report.passed, report
    assert not report.mistakes
    if form == "own_habits":
        assert HABITS.get(kind, "") in report.head(), report


def test_other_forms():
    module = loaded("attention_own_habits")
    report = check("multi-head", module.MultiHeadAttention)
    assert report.passed, report
    assert "weights as attributes" in report.head()
    module = loaded("positions_own_habits")
    report = check("rotary", module.rotary_of_one)
    assert report.passed, report
    assert "one vector (d) at one position" in report.head()
    assert check("rotary", module.rotary_of_both).passed


def test_a_sampler_that_draws_its_own_noise():
    report = check("ddpm-sample", loaded("diffusion_own_habits").ddpm_sample_random)
    assert report.status == 2
    assert "'shape' was given x_T, 'seed' was given noise" in report.fault


def test_outputs_that_are_not_returned_are_named():
    def accuracy(target, preds, num_classes):
        return {"accuracy": (target == preds).mean()}

    report = check("classification-metrics", accuracy, arrays="numpy")
    assert report.absent == ["precision", "recall", "f1"]
    assert " - not returned, not checked: precision" in str(report)


def test_dictionaries_are_read_by_name():
    module = loaded("rnn_own_habits")

    def swapped(y_true, y_pred, n_classes):
        found = module.classification_metrics(y_true, y_pred, n_classes)
        return dict(reversed(found.items()))

    def wrong(y_true, y_pred, n_classes):
        found = module.classification_metrics(y_true, y_pred, n_classes)
        return found | {"macro_f1": found["macro_precision"]}

    assert check("classification-metrics", swapped, arrays="numpy").passed
    assert not check("classification-metrics", wrong, arrays="numpy").passed
