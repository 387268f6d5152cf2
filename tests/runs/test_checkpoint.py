"""A run resumes from a file that is whole, right and its own."""

import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dian.errors import DianError
from dian.rnn.networks import RNNClassifier
from dian.runs import checkpoint as checkpoints
from dian.runs.checkpoint import Checkpoint, Processes
from dian.runs.experiment import Job, Outcome
from dian.runs.record import load
from dian.training.loop import Training

STATE = {
    "step": 3,
    "loss": 0.1 + 0.2,
    "none": None,
    "ok": True,
    "w": torch.tensor([[1.5, -0.0], [math.inf, 1e-45]]),
    "half": torch.arange(3).bfloat16(),
    "empty": torch.empty(0, 7),
    "seen": torch.tensor(True),
    "nested": {"state": {0: {"m": torch.ones(3, 2).T}, 1: {}}, "list": [1, (2.5,)]},
}
IDENTITY = {"name": "some", "seed": 0, "settings": {"h": 5, "rate": 0.1}}


@pytest.fixture
def saved(tmp_path):
    checkpoint = Checkpoint(tmp_path / "Größe 大小.checkpoint", IDENTITY)
    checkpoint.save(STATE)
    return checkpoint


def same(a, b) -> bool:
    """Whether two nested values are equal to the last bit, and of the same types."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b and type(a) is type(b)


def test_what_is_saved_comes_back_to_the_last_bit(saved):
    assert same(STATE, Checkpoint(saved.path, IDENTITY).load())
    assert list(saved.path.parent.iterdir()) == [saved.path]


def test_no_file_is_no_state(tmp_path):
    assert Checkpoint(tmp_path / "none", IDENTITY).load() is None


def test_other_processes_than_the_first_write_nothing_and_read_what_it_read(saved):
    content = b"of this process", saved.path.read_bytes()
    other = Processes(
        rank=1, world_size=2, broadcast=lambda mine: content[mine is None]
    )
    path = saved.path.with_name("not here")
    checkpoint = Checkpoint(path, IDENTITY, processes=other)
    checkpoint.save(STATE)
    assert not path.exists()
    assert same(STATE, checkpoint.load())


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (Path("x"), r"pathlib\.PosixPath"),
        (np.ones(2), r"numpy\.ndarray"),
        (np.float64(1.0), r"numpy\."),
        (nn.Linear(2, 3), r"torch\.nn\.modules\.linear\.Linear"),
    ],
)
def test_what_could_not_be_read_again_is_refused(saved, value, told):
    with pytest.raises(TypeError, match=f"tensors and plain values only, got .*{told}"):
        saved.save({"deep": [{"inside": value}]})
    assert same(STATE, saved.load())


def test_every_flipped_bit_is_refused(saved):
    content, picked = saved.path.read_bytes(), random.Random(0)
    for place in picked.sample(range(8 * len(content)), 300):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(DianError, match=r"大小.checkpoint: expected .* damaged"):
            checkpoints.parse(bytes(flipped), saved.path)


def test_every_truncation_is_refused(saved):
    content = saved.path.read_bytes()
    for length in range(len(content)):
        with pytest.raises(DianError, match="damaged or of another format; remove it"):
            checkpoints.parse(content[:length], saved.path)
    saved.path.write_bytes(content[:-1])
    with pytest.raises(DianError, match="damaged or of another format; remove it"):
        saved.load()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, r"seed is 0, expected 1"),
        ({"settings": {"h": 6, "rate": 0.1}}, r"settings\.h is 5, expected 6"),
        ({"new": 1}, r"new is absent, expected 1"),
    ],
)
def test_the_file_of_another_run_is_refused(saved, change, told):
    with pytest.raises(DianError, match=rf"another run: {told}; resume with"):
        Checkpoint(saved.path, IDENTITY | change).load()


def test_whichever_file_operation_fails_a_whole_state_is_left(saved, monkeypatch):
    """A full disk at any operation: what was saved before, or what was to be."""
    places = ((os, "fsync"), (Path, "replace"), (Path, "write_bytes"))
    originals = {name: getattr(owner, name) for owner, name in places}

    def save(state, failing=None) -> tuple[str, set]:
        done = []

        def wrapped(name):
            def operation(*arguments):
                done.append(name)
                if len(done) == failing:
                    raise OSError(28, "No space left on device")
                return originals[name](*arguments)

            return operation

        with monkeypatch.context() as patch:
            for owner, name in (
                (os, "fsync"),
                (Path, "replace"),
                (Path, "write_bytes"),
            ):
                patch.setattr(owner, name, wrapped(name))
            try:
                saved.save(state)
            except DianError as error:
                return str(error), done
        return "", done

    _, operations = save({"step": 0})
    assert {"fsync", "replace", "write_bytes"} <= set(operations)
    for n, name in enumerate(operations, start=1):
        save({"step": n})
        told, _ = save({"step": -n}, failing=n)
        assert re.search(r"cannot be written \(No space .*\); .* --resume$", told)
        replaced = "replace" in operations[: n - 1]
        assert saved.load()["step"] == (-n if replaced else n), name
        assert list(saved.path.parent.iterdir()) == [saved.path]


def test_one_process_holds_a_folder(tmp_path):
    with checkpoints.lock_folder(tmp_path / "a"):
        left = tmp_path / "a" / ".seed-0.checkpoint.x1"
        left.write_text("half")
        script = (
            "import sys; from pathlib import Path; from dian.runs import checkpoint\n"
            "with checkpoint.lock_folder(Path(sys.argv[1])): print('held')"
        )
        call = [sys.executable, "-c", script, str(tmp_path / "a")]
        second = subprocess.run(call, capture_output=True, text=True)
        assert "another process is training this" in second.stderr
        assert left.exists()  # only the process that holds the folder clears it
    third = subprocess.run(call, capture_output=True, text=True)
    assert third.stdout == "held\n"
    assert not left.exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "a").write_text("a file")
    with (
        pytest.raises(DianError, match=r"a/b: cannot be written .* another --out"),
        checkpoints.lock_folder(tmp_path / "a" / "b"),
    ):
        pass


class Interruption(Exception):
    """Somebody ends the process."""


def run(checkpoint=None, stop=None, bad_step=None) -> dict:
    """Train a small network that uses everything random, as far as ``stop`` steps."""
    generator = torch.Generator().manual_seed(0)
    options = {"num_layers": 2, "dropout": 0.3, "generator": generator}
    model = RNNClassifier(7, 5, 3, **options)
    images = torch.rand(11, 7, 7, generator=generator)
    labels = torch.randint(3, (11,), generator=generator)
    outcome = Outcome(series={"mean": []})

    def loss_fn(images, labels):
        factor = math.nan if len(training.losses) + 1 == bad_step else 1.0
        return factor * nn.functional.cross_entropy(model(images), labels)

    training = Training(
        model,
        loss_fn,
        (images, labels),
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        schedule="one-cycle",
        batch_size=4,
        epochs=3,
        generator=generator,
    )

    def report(seed, step):
        if step.number == stop:
            raise Interruption

    job = Job(report=report, checkpoint=checkpoint)
    for step in job.follow(training, outcome=outcome):
        if step.epoch_loss is not None:
            outcome.series["mean"].append(step.epoch_loss)
    outcome.losses, outcome.weights = training.losses, model.state_dict()
    return outcome.state_dict()


def interrupted(path, stop) -> Checkpoint:
    """Return the checkpoint of a run that was interrupted before it saved this step."""
    checkpoint = Checkpoint(path, IDENTITY, interval_s=0.0)
    with pytest.raises(Interruption):
        run(checkpoint, stop)
    return checkpoint


def test_interrupted_after_any_step_it_ends_with_the_same_bits(tmp_path):
    whole = run()
    assert len(whole["losses"]) == 9
    for stop in range(1, 10):
        path = interrupted(tmp_path / f"{stop}.checkpoint", stop).path
        assert path.exists() == (stop > 1)
        assert same(run(Checkpoint(path, IDENTITY)), whole), stop


@pytest.mark.parametrize("lost", ["training", "outcome"])
def test_both_parts_of_a_checkpoint_are_needed(tmp_path, lost):
    """The test above can fail; tests/training/test_loop.py looks at the parts."""
    checkpoint = interrupted(tmp_path / "one.checkpoint", 6)
    earlier = interrupted(tmp_path / "earlier.checkpoint", 2)
    checkpoint.save(checkpoint.load() | {lost: earlier.load()[lost]})
    assert not same(run(checkpoint), run())


def test_the_last_step_is_always_saved(tmp_path):
    checkpoint = Checkpoint(tmp_path / "one.checkpoint", IDENTITY, interval_s=1e9)
    run(checkpoint)
    assert len(checkpoint.load()["training"]["losses"]) == 9


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(tmp_path):
    checkpoint = Checkpoint(tmp_path / "one.checkpoint", IDENTITY, interval_s=0.0)
    told = r"^step 5 \(epoch 2, items [\d, ]+\): the loss is nan, .* is in .*failed"
    with pytest.raises(DianError, match=told):
        run(checkpoint, bad_step=5)
    assert len(checkpoint.load()["training"]["losses"]) == 4
    assert same(run(checkpoint), run())
    failed = Checkpoint(tmp_path / "one.failed.checkpoint", IDENTITY).load()
    assert len(failed["training"]["losses"]) == 5
    assert math.isnan(failed["training"]["losses"][-1])


KILLED = """
import os, random, signal, sys
from dataclasses import replace
from pathlib import Path
from dian.runs import environment, train as runner
from dian.runs.experiment import find

name, out, kills = "rnn-fashion-mnist", Path(sys.argv[1]), int(sys.argv[2])
picked = random.Random(0)
experiment = find(name)
quick = replace(experiment.quick, batch_size=40, epochs=2)  # 50 steps for each seed
experiment = replace(experiment, quick=quick)
# What takes long is done once, and not in every copy of this process.
runner.source_key(experiment.module)
environment.make_deterministic()

def train(after=None, inside=None):
    count = 0
    def die_in(call):
        def operation(*arguments):
            nonlocal count
            count += 1
            if count == inside:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments)
        return operation
    steps = 0
    def report(*told):
        nonlocal steps
        steps += 1
        if steps == after:
            os.kill(os.getpid(), signal.SIGKILL)
    os.fsync, Path.replace = die_in(os.fsync), die_in(Path.replace)
    options = runner.Options(device="cpu", n_seed=2, quick=True, commit="abc",
                             resume=True, interval_s=0.0, report=report)
    runner.train(experiment, out / name, options)

for kill in range(kills + 1):
    # Nothing of torch has run in this process, so that it can be copied as it is.
    pid = os.fork()
    if not pid:
        which = ("after", "inside")[kill % 2]
        train(**{which: picked.randint(2, 9)} if kill < kills else {})
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status == (signal.SIGKILL if kill < kills else 0), (kill, status)
"""


@pytest.mark.slow
def test_killed_twenty_times_it_ends_with_the_same_bits(tmp_path):
    """Between two steps, and inside a saving."""
    for folder, kills in (("whole", 0), ("killed", 20)):
        call = [sys.executable, "-c", KILLED, str(tmp_path / folder), str(kills)]
        done = subprocess.run(call, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    whole, killed = (
        load("rnn-fashion-mnist", tmp_path / folder) for folder in ("whole", "killed")
    )
    for part in ("arrays.safetensors", "weights.safetensors"):
        assert whole.content["files"][part] == killed.content["files"][part]
    for part in ("series", "metrics", "replay", "seeds", "settings", "key"):
        assert whole.content[part] == killed.content[part]
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [whole.name]


@pytest.mark.parametrize("value", [lambda: 0, range(3), object(), torch.nn.Module])
def test_what_cannot_be_read_is_not_written(tmp_path, value):
    checkpoint = Checkpoint(tmp_path / "one.checkpoint", {"seed": 0})
    checkpoint.save({"step": 1})
    with pytest.raises(TypeError, match=r"^a checkpoint holds tensors and plain .*$"):
        checkpoint.save({"step": 2, "value": value})
    assert checkpoint.load() == {"step": 1}


def test_an_identity_that_is_not_equal_to_itself_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"identity must equal itself .* nan"):
        Checkpoint(tmp_path / "one.checkpoint", {"rate": float("nan")})
