"""A training goes on where it was, from a file that is whole, right and its own."""

import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dian.errors import DianError
from dian.rnn.networks import RNNClassifier
from dian.runs import checkpoint as checkpoints
from dian.runs import record as records
from dian.runs.checkpoint import Checkpoint
from dian.runs.experiment import Outcome
from dian.training.loop import fit
from dian.training.schedules import SCHEDULES

STATE = {
    "step": 3,
    "loss": 0.1 + 0.2,
    "none": None,
    "ok": True,
    "w": torch.tensor([[1.5, -0.0], [math.inf, 1e-45]]),
    "half": torch.arange(3).bfloat16(),
    "empty": torch.empty(0, 7),
    "seen": torch.tensor(True),
    "nested": {"state": {0: {"m": torch.ones(3, 2).T}, 1: {}}, "list": [1, [2.5]]},
}
IDENTITY = {"name": "some", "seed": 0, "settings": {"h": 5, "rate": 0.1}}


@pytest.fixture
def saved(tmp_path):
    checkpoint = Checkpoint(tmp_path / "Größe 大小.checkpoint", IDENTITY)
    checkpoint.save(STATE)
    return checkpoint


def same(a, b) -> bool:
    """Whether two nested values are equal to the last bit; a list may be a tuple."""
    if isinstance(a, torch.Tensor):
        return (
            a.dtype == b.dtype
            and a.shape == b.shape
            and torch.equal(a.view(-1).contiguous(), b.reshape(-1))
        )
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b and type(a) is type(b)


def test_what_is_saved_comes_back_to_the_last_bit(saved):
    found = Checkpoint(saved.path, IDENTITY).load()
    assert same({k: v for k, v in STATE.items() if k != "nested"} | {}, {
        k: v for k, v in found.items() if k != "nested"
    })  # fmt: skip
    assert found["nested"]["state"].keys() == {0, 1}  # not "0" and "1"
    assert torch.equal(found["nested"]["state"][0]["m"], torch.ones(2, 3))
    assert found["nested"]["list"] == [1, [2.5]]
    assert list(saved.path.parent.iterdir()) == [saved.path]


def test_no_file_is_no_state(tmp_path):
    assert Checkpoint(tmp_path / "none", IDENTITY).load() is None


def test_every_flipped_bit_is_refused(saved):
    content, picked = saved.path.read_bytes(), random.Random(0)
    for place in picked.sample(range(8 * len(content)), 300):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        saved.path.write_bytes(flipped)
        with pytest.raises(DianError, match=r"大小.checkpoint: expected .* damaged"):
            saved.load()


def test_every_truncation_is_refused(saved):
    content = saved.path.read_bytes()
    for length in range(len(content)):
        saved.path.write_bytes(content[:length])
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
def test_the_file_of_another_training_is_refused(saved, change, told):
    with pytest.raises(DianError, match=rf"another training: {told}; go on with"):
        Checkpoint(saved.path, IDENTITY | change).load()


def test_the_nth_file_operation_fails(saved, monkeypatch):
    """A full disk at the 1st, 2nd, 3rd... operation: what was saved before stands."""
    originals = {
        name: getattr(owner, name)
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "write_bytes"))
    }
    for n in range(1, 10):
        saved.save({"step": n})
        count = 0

        def failing(name):
            def operation(*arguments):
                nonlocal count
                count += 1
                if count == n:  # noqa: B023  used before the next turn
                    raise OSError(28, "No space left on device")
                return originals[name](*arguments)

            return operation

        told = ""
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing("fsync"))
            patch.setattr(Path, "replace", failing("replace"))
            patch.setattr(Path, "write_bytes", failing("write_bytes"))
            try:
                saved.save({"step": -n})
            except DianError as error:
                told = str(error)
        if not told:
            break
        assert re.search(r"cannot be written \(No space .*\); .* --resume$", told)
        assert saved.load()["step"] in ((n,) if n < 4 else (n, -n))
        assert list(saved.path.parent.iterdir()) == [saved.path]
    assert n == 5


def test_one_process_holds_a_folder(tmp_path):
    with checkpoints.lock_folder(tmp_path / "a"):
        left = tmp_path / "a" / ".seed-0.checkpoint.x1"
        left.write_text("half")
        script = (
            "import sys; from pathlib import Path; from dian.runs import checkpoint as checkpoints\n"
            "with checkpoints.lock_folder(Path(sys.argv[1])): print('held')"
        )
        call = [sys.executable, "-c", script, str(tmp_path / "a")]
        second = subprocess.run(call, capture_output=True, text=True)
        assert "another process is training this" in second.stderr
        assert left.exists()  # whoever does not hold the folder leaves it alone
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


def training(stop=None, checkpoint=None):
    """Train a small network that uses everything random, as far as ``stop`` steps."""
    generator = torch.Generator().manual_seed(0)
    model = RNNClassifier(d=7, h=5, q=3, layers=2, dropout=0.3, generator=generator)
    images = torch.rand(11, 7, 7, generator=generator)
    labels = torch.randint(3, (11,), generator=generator)
    outcome = Outcome(series={"mean": []})

    def after_step(done, total, loss):
        if done == stop:
            raise Interruption

    outcome.losses = fit(
        model,
        lambda i: nn.functional.cross_entropy(model(images[i]), labels[i]),
        len(images),
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        schedule=SCHEDULES["one-cycle"],
        batch_size=4,
        epochs=3,
        generator=generator,
        after_step=after_step,
        after_epoch=lambda epoch, mean: outcome.series["mean"].append(mean),
        checkpoint=checkpoint,
        keep={"outcome": outcome},
    )
    outcome.weights = model.state_dict()
    return outcome.state_dict()


def test_interrupted_after_any_step_it_ends_with_the_same_bits(tmp_path):
    whole = training()
    assert len(whole["losses"]) == 9
    for stop in range(1, 10):
        path = tmp_path / f"{stop}.checkpoint"
        with pytest.raises(Interruption):
            training(stop, Checkpoint(path, IDENTITY, every=0.0))
        assert path.exists() == (stop > 1)
        assert same(training(checkpoint=Checkpoint(path, IDENTITY)), whole), stop


@pytest.mark.parametrize("lost", ["generator", "optimizer", "order", "done", "keep"])
def test_a_state_without_one_of_its_parts_would_not_do(tmp_path, lost):
    """The test above can fail: each part that is stored is needed."""
    checkpoint = Checkpoint(tmp_path / "one.checkpoint", IDENTITY, every=0.0)
    with pytest.raises(Interruption):
        training(6, checkpoint)
    state = checkpoint.load()
    fresh = Checkpoint(tmp_path / "fresh.checkpoint", IDENTITY, every=0.0)
    with pytest.raises(Interruption):
        training(2, fresh)
    checkpoint.save(state | {lost: fresh.load()[lost]})
    assert not same(training(checkpoint=checkpoint), training())


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    checkpoint = Checkpoint(tmp_path / "one.checkpoint", IDENTITY, every=0.0)
    with pytest.raises(Interruption):
        training(3, checkpoint)
    state = checkpoint.load()
    weights = state["model"]
    broken = {
        r"b_q is absent, expected float32 \(3,\)": {
            k: v for k, v in weights.items() if k != "b_q"
        },
        r"b_q is float32 \(2,\), expected float32 \(3,\)": weights
        | {"b_q": torch.ones(2)},
        r"b_q is float64 \(3,\), expected float32 \(3,\)": weights
        | {"b_q": torch.ones(3).double()},
        r"b_r is float32 \(3,\), expected absent": weights | {"b_r": torch.ones(3)},
    }
    for told, model in broken.items():
        checkpoint.save(state | {"model": model})
        with pytest.raises(DianError, match=f"of another model: {told}; go on with"):
            training(checkpoint=checkpoint)


def test_a_loss_that_is_not_a_number_keeps_the_last_good_state(tmp_path):
    checkpoint = Checkpoint(tmp_path / "one.checkpoint", IDENTITY, every=0.0)
    model, calls = nn.Linear(2, 1), []

    def loss_fn(index):
        calls.append(index)
        return model.weight.sum() * (math.nan if len(calls) == 5 else 1)

    given = {
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "schedule": SCHEDULES["constant"],
        "batch_size": 3,
        "epochs": 4,
        "generator": torch.Generator().manual_seed(0),
    }
    told = r"^step 5 \(epoch 2, items [\d, ]+\): the loss is nan, .* is in .*failed"
    with pytest.raises(DianError, match=told):
        fit(model, loss_fn, 9, **given, checkpoint=checkpoint)
    good = checkpoint.load()
    assert len(good["losses"]) == 4
    assert torch.equal(good["model"]["weight"], model.weight.detach())
    failed = Checkpoint(tmp_path / "one.failed.checkpoint", IDENTITY).load()
    assert torch.equal(failed["items"], calls[-1])
    assert len(failed["losses"]) == 5


KILLED = """
import os, random, signal, sys
from pathlib import Path
from dian.runs import train as runner

name, out, kills = "rnn-fashion-mnist", Path(sys.argv[1]), int(sys.argv[2])
picked = random.Random(0)
runner.source_key(runner.find(name).run.__module__)  # once, and not in every copy

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
    runner.train(name, out / name, quick=True, n_seed=2, device="cpu", commit="abc",
                 resume=True, every=0.0, report=report)

for kill in range(kills + 1):
    # Nothing of torch has run in this process, so that it can be copied as it is.
    pid = os.fork()
    if not pid:
        which = ("after", "inside")[kill % 2]
        train(**{which: picked.randint(2, 24)} if kill < kills else {})
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status == (signal.SIGKILL if kill < kills else 0), (kill, status)
"""


def test_killed_twenty_times_it_ends_with_the_same_bits(tmp_path):
    """Between two steps, and inside a saving."""
    for folder, kills in (("whole", 0), ("killed", 20)):
        call = [sys.executable, "-c", KILLED, str(tmp_path / folder), str(kills)]
        done = subprocess.run(call, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    whole, killed = (
        records.load("rnn-fashion-mnist", tmp_path / folder)
        for folder in ("whole", "killed")
    )
    for part in ("arrays.safetensors", "weights.safetensors"):
        assert whole.content["files"][part] == killed.content["files"][part]
    for part in ("series", "metrics", "replay", "seeds", "settings", "key"):
        assert whole.content[part] == killed.content[part]
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [whole.name]
