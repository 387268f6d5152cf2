"""From an experiment to its record and back, with the real data and real edits."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer

from dian import __main__ as command_line
from dian.errors import DianError
from dian.runs import train as runner
from dian.runs.experiment import Job, find
from dian.runs.freshness import stale
from dian.runs.record import RECORDED, record_names

NAME = "rnn-fashion-mnist"
ROOT = Path(__file__).parents[2]


def test_a_quick_run_makes_a_whole_record(tmp_path):
    steps = []
    options = runner.Options(
        quick=True,
        n_seed=2,
        device="cpu",
        commit="abc",
        report=lambda seed, step: steps.append((seed, step.number)),
    )
    record = runner.train(find(NAME), tmp_path / NAME, options)
    assert record.seeds == [0, 1]
    assert record.command == f"python -m dian train {NAME} --quick --seeds 2"
    assert record.commit == "abc"
    assert steps == [(seed, n + 1) for seed in (0, 1) for n in range(5 * 32)]
    assert record.value("test/accuracy") > 0.5
    assert record.arrays["predictions"].shape == (2, 500)
    assert record.series["test/accuracy"].shape == (2, 6)
    assert stale(record) == []
    network = find(NAME).build(find(NAME).quick)
    network.load_state_dict(record.weights)
    images = find(NAME).data(True)[1].unit()
    predictions = torch.tensor(record.arrays["predictions"][0])
    assert torch.equal(network(images).argmax(1), predictions.long())


def test_the_same_seed_gives_the_same_numbers():
    experiment = find(NAME)
    data = experiment.data(True)
    first, second = (
        runner.replay(experiment, experiment.quick, data) for _ in range(2)
    )
    assert first == second
    assert len(first["losses"]) == 50


@pytest.mark.parametrize("less", [{"quick": True}, {"n_seed": 4}])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_record_is_not_replaced_by_less(tmp_path, less, damaged):
    shutil.copytree(RECORDED / NAME, tmp_path / NAME)
    if damaged:
        (tmp_path / NAME / "weights.safetensors").write_bytes(b"")
    before = (tmp_path / NAME / "record.json").read_bytes()
    experiment = replace(
        find(NAME), data=lambda quick: None
    )  # refused before it is read
    with pytest.raises(DianError, match=f"train {NAME}`, and would be .* by less"):
        runner.train(experiment, tmp_path / NAME, runner.Options(**less))
    assert (tmp_path / NAME / "record.json").read_bytes() == before


def test_another_seed_gives_others():
    experiment = find(NAME)
    small = experiment.smoke_settings(experiment.quick, experiment.data(True))
    first, second = (experiment.run(*small, Job(seed)) for seed in (0, 1))
    assert first.losses != second.losses


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(
        DianError, match=f"no experiment 'rnn-mnist'; nearest: .*{NAME}"
    ):
        find("rnn-mnist")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda r: r["losses"].__setitem__(6, r["losses"][6] * (1 + 3e-5)), "step 7"),
        (lambda r: r["metrics"].__setitem__("test/f1", r["metrics"]["test/f1"] + 0.01),
         "metrics/test/f1"),
        (lambda r: r["weights"]["W_hq"].__setitem__(1, 1.0), "projection of W_hq"),
        (lambda r: r["losses"].pop(), "what it holds"),
    ],
)  # fmt: skip
def test_a_replay_that_differs_is_told_where(change, where):
    experiment = find(NAME)
    old = runner.replay(experiment, experiment.quick, experiment.data(True))
    new = runner.replay(experiment, experiment.quick, experiment.data(True))
    assert runner._difference(old, new)[1] == 0
    change(new)
    found, excess = runner._difference(old, new)
    assert where in found
    assert excess > 1


def test_a_replay_is_a_whole_run_at_reduced_scale():
    """The whole schedule, a smaller last batch, and the evaluation after each epoch."""
    experiment = find(NAME)
    told = runner.replay(experiment, experiment.quick, experiment.data(True))
    assert {f"test/f1 of epoch {n}" for n in (0, 1, 2)} <= told["metrics"].keys()
    small, (train, _) = experiment.smoke_settings(
        experiment.quick, experiment.data(True)
    )
    assert small.epochs == 2
    assert len(train.images) % small.batch_size == small.batch_size - 1
    assert len(train.images) // small.batch_size == 24


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_never_proves_anything(bad):
    numbers = {"losses": [1.0], "metrics": {"f1": 0.5}, "weights": {"w": [1.0, 2.0]}}
    for changed in ({"losses": [bad]}, {"metrics": {"f1": bad}}):
        assert runner._difference(numbers, numbers | changed)[1] == float("inf")
        assert runner._difference(numbers | changed, numbers | changed)[1] == float(
            "inf"
        )


@pytest.fixture
def checkout(tmp_path, real_data):
    """A copy of the package, to be edited, and a way to run its command line."""
    shutil.copytree(
        ROOT / "dian", tmp_path / "dian", ignore=shutil.ignore_patterns("__pycache__")
    )
    for other in set(record_names()) - {NAME}:
        shutil.rmtree(tmp_path / "dian" / "recorded" / other)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "dian", *arguments],
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
            | {"DIAN_COMMIT": "0" * 40},  # the copy is not under git
            capture_output=True,
            text=True,
        )

    def edit(module, old, new):
        path = tmp_path / "dian" / module
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return run, edit


def test_a_docstring_leaves_a_record_fresh(checkout):
    run, edit = checkout
    edit(
        "rnn/recurrence.py",
        "Unroll the recurrence over time",
        "Run the recurrence over time",
    )
    assert run("audit").returncode == 0


@pytest.mark.slow
def test_a_renamed_variable_is_stale_until_a_replay_proves_it(checkout):
    run, edit = checkout
    edit("rnn/recurrence.py", "delta_t", "late")
    audit = run("audit")
    assert audit.returncode == 1
    assert re.search(rf"{NAME} +│ stale ", audit.stdout)
    assert audit.stderr.startswith(
        f"dian: record {NAME} is stale: dian.rnn.recurrence changed"
    )
    proved = run("revalidate", "--commit", "abc")  # all that are stale
    assert proved.returncode == 0, proved.stderr
    assert "is fresh: the replay agrees" in proved.stdout
    assert run("audit").returncode == 0


@pytest.mark.slow
def test_other_mathematics_is_stale_and_no_replay_proves_it(checkout):
    run, edit = checkout
    edit("rnn/recurrence.py", "addmm_(state, W_hh)", "addmm_(state, W_hh, beta=1.001)")
    assert "is stale: dian.rnn.recurrence changed" in run("audit").stderr
    refused = run("revalidate", NAME)
    assert refused.returncode == 1
    assert f"record {NAME}: the replay differs" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert run("audit").returncode == 1


@pytest.mark.slow
def test_another_metric_is_seen_by_the_replay(checkout):
    run, edit = checkout
    edit("training/metrics.py", "_ratio(2 * C.diagonal()", "_ratio(1.9 * C.diagonal()")
    refused = run("revalidate", NAME)
    assert refused.returncode == 1
    assert "the replay differs from the record in metrics/test/f1" in refused.stderr


@pytest.mark.slow
def test_what_happens_late_is_replayed(checkout):
    """A change of the end of the schedule is no refactoring."""
    run, edit = checkout
    edit(
        "training/schedules.py",
        "return (1 + math.cos",
        "return progress > 0.9 or (1 + math.cos",
    )
    refused = run("revalidate", NAME)
    assert refused.returncode == 1
    assert f"record {NAME}: the replay differs" in refused.stderr


def test_another_setting_cannot_be_replayed(checkout):
    run, edit = checkout
    edit("experiments/rnn/study.py", "epochs: int = 30", "epochs: int = 31")
    refused = run("revalidate", NAME)
    assert refused.returncode == 1
    assert f"record {NAME}: setting epochs 30 -> 31; train it again" in refused.stderr


def test_a_damaged_record_is_told_by_the_audit(checkout):
    run, edit = checkout
    edit(f"recorded/{NAME}/record.json", '"success"', '"Success"')
    audit = run("audit")
    assert audit.returncode == 1
    assert re.search(rf"{NAME} +│ damaged ", audit.stdout)
    assert "record.json is not as it was written" in audit.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "rnn-fashion-mnits"), f"nearest: {NAME}"),
        (("train", NAME, "--device", "tpu"), "device must be auto, cpu or cuda"),
        (("train", NAME, "--device", "cuda"), "torch finds no CUDA GPU"),
        (("train", NAME, "--quik"), "Possible options: --quick"),
        (("train", NAME, "--quick", "--out", "recorded"), "never overwrites"),
        (("trian", NAME), "Did you mean 'train'?"),
        (("revalidate", "rnn"), "nearest:|valid:"),
        (("audit", "rnn-relux"), "no record 'rnn-relux'; nearest: rnn-relu"),
    ],
)
def test_a_wrong_command_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "RECORDED", tmp_path / "recorded")
    monkeypatch.setattr(sys, "argv", ["dian", *arguments])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code != 0
    told = capsys.readouterr().err
    assert re.search(message, told)
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_in_any_encoding(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "dian", "show", NAME],
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    sign = "±" if encoding != "ascii" else r"\?"
    assert re.search(rf"accuracy 0\.\d+ {sign} 0\.\d+,", done.stdout.decode(encoding))


@pytest.mark.parametrize(
    ("command", "option"),
    [("train", "--out"), ("train", "--tensorboard"), ("verify", "--results")],
)
def test_a_path_that_the_shell_has_left_alone_is_at_home(
    tmp_path, monkeypatch, command, option
):
    monkeypatch.setenv("HOME", str(tmp_path))
    group = typer.main.get_command(command_line.app)
    arguments = [NAME] if command == "train" else []
    context = group.commands[command].make_context("", [*arguments, f"{option}=~/a"])
    assert context.params[option.strip("-")] == tmp_path / "a"
