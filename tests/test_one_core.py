"""`benchmarks.one_core`: steps of whole runs are timed, and nothing else is.

No time is asserted here: a test must not depend on how busy the machine is.
"""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import torch

from benchmarks import one_core, report
from benchmarks.cases import Place
from dian.experiments.diffusion import ddpm
from dian.runs.experiment import Job, find
from dian.runs.freshness import stale
from dian.runs.record import load, record_names

ROWS = find("rnn-fashion-mnist")
SMALL = replace(ROWS.quick, h=2, batch_size=500, epochs=9)


@pytest.fixture
def clock(monkeypatch):
    """Let the clock of the processor go on by a second whenever it is read."""
    seconds = iter(range(1000))
    monkeypatch.setattr(one_core.time, "process_time", lambda: next(seconds))


def test_steps_are_timed_after_some_that_are_not(clock):
    assert one_core.step_times(ROWS, SMALL, 3.0) == [1, 1, 1]
    assert one_core.step_times(ROWS, SMALL, 0.0) == [1] * one_core.LEAST
    with pytest.raises(ValueError, match="mnist: the run ended after 2 steps"):
        one_core.step_times(ROWS, replace(SMALL, epochs=1), 3.0)


def test_a_diffusion_model_is_not_evaluated_between_its_steps(monkeypatch, clock):
    """The sample has three batches here, and is followed by the evaluation."""

    def fail(*arguments):
        raise AssertionError("an evaluation is timed")

    monkeypatch.setattr(ddpm, "_evaluate_epoch", fail)
    sizes = []
    monkeypatch.setattr(
        ddpm,
        "draw_training_noise",
        lambda schedule, x_0, noise, draw=ddpm.draw_training_noise: (
            sizes.append(len(x_0)) or draw(schedule, x_0, noise)
        ),
    )
    experiment = find("ddpm-objective-mu-bound")  # which hands the job on
    settings = replace(experiment.quick, batch_size=300, epochs=9)
    assert one_core.step_times(experiment, settings, 0.0) == [1] * one_core.LEAST
    assert sizes == [300] * (one_core.WARM_UP + one_core.LEAST)  # whole batches


def test_a_job_is_as_before_after_the_measurement(clock):
    before = Job.follow
    one_core.step_times(ROWS, SMALL, 0.0)
    assert Job.follow is before


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("rnn-pixels-full-lstm", 3 * 12 * 469),
        ("ddpm-conditional-long", 64 * 120),
        ("rnn-pixels-tanh-small", 5 * 20 * 79),  # of 10,000 images
        ("ddpm-conditional-trial-wide", 4 * 782),  # of 50,000, the others held out
    ],
)
def test_all_steps_of_all_seeds_are_counted(name, steps):
    assert one_core.total_steps(find(name)) == steps


def test_the_median_of_the_rounds_is_multiplied():
    found = one_core.summary([3.0, 1.0, 2.0], 7200)
    assert (found["low"], found["step"], found["high"]) == (1.0, 2.0, 3.0)
    assert (found["seconds"], found["hours"], found["days"]) == (14400.0, 4.0, 1 / 6)


def test_what_was_measured_is_a_record(tmp_path):
    environment = report.environment(Place(torch.device("cpu")))
    rounds = {"rnn-pixels-full-lstm": [1.0, 4.0, 2.0]}
    started = datetime.now(UTC)
    record = one_core.write(tmp_path, started, rounds, 1.5, environment)
    assert record.name == one_core.NAME
    assert record.command == "python -m benchmarks.one_core"
    assert record.value("rnn-pixels-full-lstm/seconds") == 2 * 3 * 12 * 469
    assert record.series["rnn-pixels-full-lstm"].tolist() == [[1.0, 4.0, 2.0]]
    assert record.settings["rounds"] == 3
    assert "dian.diffusion.unet" in record.content["key"]["modules"]
    assert stale(record) == []


def test_a_part_is_no_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(one_core, "step_times", lambda *arguments: [2.0, 4.0])
    monkeypatch.setattr(one_core, "make_deterministic", lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    one_core.main(["rnn-pixels-tanh", "--rounds", "2", "--out", str(tmp_path)])
    assert capsys.readouterr().out.count("3.0000 s a step") == 2
    assert not list(tmp_path.iterdir())


def test_every_training_on_a_gpu_has_an_estimate_with_its_steps():
    """A new one, or one with other settings, has to be measured, too."""
    record = load(one_core.NAME)
    trained = {name for name in record_names() if one_core.trained_on_a_gpu(load(name))}
    assert trained
    for name in (*trained, *one_core.UNRECORDED, one_core.KNOWN):
        steps = one_core.total_steps(find(name))
        assert record.value(f"{name}/steps") == steps, f"run: {record.command}"
    for name in trained:
        assert load(name).seeds == list(range(find(name).n_seed))
