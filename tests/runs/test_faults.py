"""Faults of the world: each is one clear line, and what was there before is intact.

Every operation on a file is made to fail, one at a time, in whole training runs of a
network so small that each takes milliseconds.
"""

import os
import pickle
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace
from torch import nn

from dian import data
from dian.errors import DianError
from dian.runs import checkpoint as checkpoints
from dian.runs import experiment as registry
from dian.runs import train as runner
from dian.runs.checkpoint import Checkpoint
from dian.runs.code_hash import record_key
from dian.runs.experiment import Experiment, Job, Outcome, find
from dian.runs.record import RECORDED, load
from dian.training.loop import Training

ROOT = Path(__file__).parents[2]
NAME = "tiny"


@dataclass(frozen=True)
class Settings:
    h: int = 3
    factor: float = 1.0


def build(settings, generator=None) -> nn.Module:
    model = nn.Linear(settings.h, 1, bias=False)
    nn.init.uniform_(model.weight, generator=generator)
    return model


def run(settings, data, job) -> Outcome:
    """Three steps of a linear model."""
    generator = torch.Generator().manual_seed(job.seed)
    model, outcome = build(settings, generator), Outcome()
    training = Training(
        model,
        lambda x: settings.factor * (model.weight * x).square().mean(),
        (data,),
        optimizer=torch.optim.Adam(model.parameters(), lr=0.1),
        schedule="cosine",
        batch_size=3,
        epochs=1,
        generator=generator,
    )
    list(job.follow(training, outcome=outcome))
    outcome.losses = training.losses
    outcome.metrics = {"loss": outcome.losses[-1]}
    outcome.arrays = {"losses": torch.tensor(outcome.losses)}
    outcome.weights = {"w": model.weight.detach().clone()}
    return outcome


def tiny(settings: Settings = Settings(), run=run) -> Experiment:
    return Experiment(
        name=NAME,
        settings=settings,
        quick=settings,
        data=lambda quick: torch.arange(21.0).view(7, 3) / 21,
        build=build,
        run=run,
        smoke_settings=lambda settings, data: (settings, data[:4]),
        n_seed=1,
    )


@pytest.fixture
def known(monkeypatch):
    """The experiments that there are: one, which a test may replace by another."""
    known = {NAME: tiny()}
    monkeypatch.setattr(registry, "experiments", lambda: known)
    return known


def train(out, **options):
    options = {"device": "cpu", "commit": "abc", "interval_s": 0.0} | options
    return runner.train(find(NAME), out, runner.Options(**options))


OPERATIONS = (
    (tempfile, "mkstemp"),
    (tempfile, "mkdtemp"),
    (os, "fsync"),
    (Path, "chmod"),
    (Path, "mkdir"),
    (Path, "replace"),
    (Path, "write_bytes"),
    (Path, "write_text"),
    (shutil, "rmtree"),
)


def failing(patch, n: int | None) -> list[str]:
    """Let the n-th operation on a file fail, as on a disk that is full for a moment.

    The list that is returned gets the name of each operation.
    """
    done = []

    def wrap(real):
        def operation(*arguments, **options):
            done.append(real.__name__)
            if len(done) != n:
                return real(*arguments, **options)
            if options.get("ignore_errors"):
                return None
            raise OSError(28, "No space left on device")

        return operation

    for owner, name in OPERATIONS:
        patch.setattr(owner, name, wrap(getattr(owner, name)))
    return done


def operations(monkeypatch, call) -> list[str]:
    """Return the names of all operations on files of a call."""
    with monkeypatch.context() as patch:
        done = failing(patch, None)
        call()
    return done


def told_when(monkeypatch, n, call) -> str:
    """Return the line that a call ends with if the n-th operation fails.

    It is empty if the call succeeds without that operation.
    """
    told = ""
    with monkeypatch.context() as patch:
        done = failing(patch, n)
        try:
            call()
        except DianError as error:
            told = str(error)
    assert "\n" not in told
    assert len(done) >= n
    return told


def content(record) -> dict:
    """What does not depend on when a record was made."""
    parts = ("files", "series", "metrics", "replay", "seeds", "settings", "key")
    return {part: record.content[part] for part in parts}


def test_whichever_operation_of_a_training_run_fails(tmp_path, monkeypatch, known):
    """Then the old record is intact, nothing is left over, and the run can resume."""
    known[NAME] = tiny(Settings(factor=0.5))
    old = content(train(tmp_path / "old" / NAME))
    known[NAME] = tiny()
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    names = operations(monkeypatch, lambda: train(tmp_path / "new" / NAME))
    assert {"mkdir", "fsync", "replace", "write_bytes", "rmtree"} <= set(names)
    new = content(load(NAME, tmp_path / "new"))
    assert old["files"] != new["files"]
    for n, name in enumerate(names, start=1):
        out = tmp_path / str(n) / NAME
        shutil.copytree(tmp_path / "old", out.parent)
        told = told_when(monkeypatch, n, lambda out=out: train(out))
        now = content(load(NAME, out.parent))
        if told:
            assert re.search(r"No space left on device.*(resume|--out|remove)", told)
            assert str(out.parent) in told
            # After the record only the checkpoints remain to be removed.
            assert now == (new if "the record is written" in told else old), name
        else:
            assert now == new, name
        files = [*old["files"], "record.json"]
        assert sorted(path.name for path in out.iterdir()) == sorted(files)
        assert content(train(out, resume=True)) == new
        assert [path.name for path in out.parent.iterdir()] == [NAME]


def test_whichever_operation_of_storing_a_proof_fails(tmp_path, monkeypatch, known):
    out = tmp_path / NAME
    train(out)

    def prove():
        runner.revalidate(NAME, tmp_path, commit="abc")

    names = operations(monkeypatch, prove)
    for n, name in enumerate(names, start=1):
        before = (out / "record.json").read_bytes()
        told = told_when(monkeypatch, n, prove)
        assert re.search(r"record.json: cannot be written \(No space .* again$", told)
        load(NAME, tmp_path)
        assert len(list(out.iterdir())) == 3
        replaced = "replace" in names[: n - 1]
        assert ((out / "record.json").read_bytes() != before) == replaced, name


def test_a_second_training_of_the_same_run_is_refused(tmp_path, known):
    out = tmp_path / NAME
    with (
        checkpoints.lock_folder(runner.working_folder(out)),
        pytest.raises(DianError, match="another process is training this; wait"),
    ):
        train(out)
    assert train(tmp_path / "another" / NAME).name == NAME


@pytest.mark.parametrize("folder", ["a b", "Größe 大小", "new/and/newer", "it's $HOME"])
def test_any_folder_will_do(tmp_path, known, folder):
    record = train(tmp_path / folder / NAME)
    assert record.folder == tmp_path / folder / NAME


def test_a_folder_that_is_none_is_one_line(tmp_path, known):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DianError, match=r"cannot be written .* another --out$"):
        train(tmp_path / "file" / NAME)
    (tmp_path / NAME).write_text("mine")
    with pytest.raises(DianError, match=r"cannot be written .File exists.* --out$"):
        train(tmp_path / NAME)
    assert (tmp_path / "file").read_text() == (tmp_path / NAME).read_text() == "mine"


def test_files_of_the_user_are_refused_before_the_training_and_kept(tmp_path, known):
    notes = tmp_path / NAME / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("two weeks of work")
    with pytest.raises(DianError, match=r"notes\.txt in it is not part of a record"):
        train(tmp_path / NAME)
    assert notes.read_text() == "two weeks of work"
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_files_that_appear_while_it_trains_are_kept_and_so_is_the_run(tmp_path, known):
    out, notes = tmp_path / NAME, tmp_path / NAME / "notes.txt"

    def slow(settings, data, job):
        notes.parent.mkdir(exist_ok=True)
        notes.write_text("mine")
        return run(settings, data, job)

    known[NAME] = tiny(run=slow)
    with pytest.raises(DianError, match=r"notes\.txt in it is not part of a record"):
        train(out)
    assert notes.read_text() == "mine"
    notes.rename(tmp_path / "notes.txt")
    known[NAME] = tiny()
    assert train(out, resume=True).name == NAME


def test_a_file_among_the_checkpoints_is_kept(tmp_path, known):
    working = runner.working_folder(tmp_path / NAME)
    working.mkdir()
    (working / "notes.txt").write_text("mine")
    train(tmp_path / NAME)
    assert [path.name for path in working.iterdir()] == ["notes.txt"]


def test_too_little_memory_is_one_line_and_the_run_can_resume(tmp_path, known):
    class TooLarge(Job):
        def follow(self, training, **parts):
            for step in super().follow(training, **parts):
                if step.number == 2:
                    raise torch.OutOfMemoryError("Tried to allocate 2 GiB. More of it")
                yield step

    def too_large(settings, data, job):
        if not job.checkpoint:
            return run(settings, data, job)
        return run(settings, data, TooLarge(**vars(job)))

    whole = content(train(tmp_path / "whole" / NAME))
    known[NAME] = tiny(run=too_large)
    out = tmp_path / NAME
    told = "seed 0: Tried to allocate 2 GiB; free some .* --resume$"
    with pytest.raises(DianError, match=told):
        train(out)
    known[NAME] = tiny()
    assert content(train(out, resume=True)) == whole


def test_an_interrupted_run_is_not_overwritten_by_accident(tmp_path, known):
    working = runner.working_folder(tmp_path / NAME)
    working.mkdir()
    (working / "seed-0.checkpoint").write_bytes(b"rubbish")
    with pytest.raises(DianError, match=r"interrupted training run .* --resume"):
        train(tmp_path / NAME)
    with pytest.raises(DianError, match=r"seed-0.checkpoint: expected .*; remove it"):
        train(tmp_path / NAME, resume=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_stop_the_run_at_the_first_step(tmp_path, bad):
    """They load as any others do."""
    checkpoint = Checkpoint(tmp_path / "one.checkpoint", {}, interval_s=0.0)
    images, job = tiny().data(False), Job(checkpoint=checkpoint)
    run(Settings(), images, job)
    state = checkpoint.load()
    weight = torch.full_like(state["training"]["model"]["weight"], bad)
    begun = {"losses": [0.0], "done": 1, "epoch": 1, "order": torch.arange(7)}
    changed = state["training"] | begun | {"model": {"weight": weight}}
    checkpoint.save(state | {"training": changed})
    with pytest.raises(DianError, match=r"step 2 .*: the loss is (nan|inf), expected"):
        run(Settings(), images, job)


class Trap:
    """What is executed if somebody unpickles it."""

    def __reduce__(self):
        return os.mkdir, (self.path,)

    def __init__(self, path):
        self.path = path


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_code_in_a_file_is_never_executed(tmp_path, kind):
    trap = Trap(str(tmp_path / "executed"))
    file = tmp_path / "evil"
    if kind == "pickle":
        file.write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, file)
    readers, recorded = [lambda: Checkpoint(file, {}).load()], "rnn-fashion-mnist"
    for part in ("record.json", "weights.safetensors"):
        folder = tmp_path / part
        shutil.copytree(RECORDED / recorded, folder / recorded)
        shutil.copy(file, folder / recorded / part)
        readers.append(lambda folder=folder: load(recorded, folder))
    for reader in readers:
        with pytest.raises(DianError, match=r": expected|cannot be read"):
            reader()
    assert not (tmp_path / "executed").exists()


def test_nothing_in_the_library_can_execute_a_file():
    for path in (ROOT / "dian").rglob("*.py"):
        code = path.read_text()
        assert not re.findall(r"import (?:pickle|marshal|shelve)", code), path
        loads = re.findall(r"torch\.load\(.*", code)
        assert all("weights_only=True" in load for load in loads), path


def test_a_checkpoint_cut_at_any_kilobyte_is_refused(tmp_path):
    path = tmp_path / "one.checkpoint"
    Checkpoint(path, {}).save({"w": torch.rand(100, 199)})
    whole = path.read_bytes()
    assert len(whole) > 77 * 1024
    for cut in (0, 1, *range(1024, len(whole), 1024), len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DianError, match=r"one.checkpoint: expected") as refused:
            Checkpoint(path, {}).load()
        assert "\n" not in str(refused.value)


def test_a_checkpoint_is_read_on_another_device(tmp_path):
    """Nothing in it says on which one it was: each state is taken over to its own."""
    path = tmp_path / "one.checkpoint"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    Checkpoint(path, {}).save({"w": torch.arange(9.0, device=device)[2:4]})
    assert Checkpoint(path, {}).load()["w"].device.type == "cpu"


REPLAYED = """
import json, time
from dian.runs import train as runner
from dian.runs.experiment import find
experiment = find("rnn-recipe-best")
print(json.dumps(runner.replay(experiment, experiment.quick, experiment.data(True))))
"""


@pytest.mark.slow
def test_clock_language_hash_seed_and_threads_change_nothing():
    import json

    experiment = find("rnn-recipe-best")
    here = runner.replay(experiment, experiment.quick, experiment.data(True))
    other = {"PYTHONHASHSEED": "77", "LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"}
    there = subprocess.run(
        [sys.executable, "-c", REPLAYED],
        env=os.environ | other | {"OMP_NUM_THREADS": "3", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert there.returncode == 0, there.stderr
    where, excess = runner._difference(here, json.loads(there.stdout))
    assert excess <= 1, where


CELL = """# Page

```{code-cell} python
raise ZeroDivisionError("in a cell")
```
"""


def test_a_cell_that_fails_stops_the_build_and_names_the_page(tmp_path):
    ours = runpy.run_path(str(ROOT / "conf.py"))
    assert ours["sphinx_gallery_conf"]["abort_on_example_error"]
    settings = {name: ours[name] for name in ours if name.startswith("nb_")}
    settings |= {"extensions": ["myst_nb"], "master_doc": "page"}
    settings |= {"nb_execution_cache_path": str(tmp_path / "cache")}
    (tmp_path / "docs").mkdir()
    head = "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n\n"
    (tmp_path / "docs/page.md").write_text(head + CELL)
    folders = (tmp_path / "docs", None, tmp_path / "out", tmp_path / "trees")
    with docutils_namespace(), pytest.raises(Exception, match=r"docs/page.md"):
        Sphinx(*folders, "html", settings, status=None, warning=None).build()


def test_another_byte_of_the_data_is_another_key():
    key = record_key("dian.experiments.rnn.row_recipes", {}, data.CHECKSUMS)
    first = next(iter(data.CHECKSUMS))
    other = replace(find("rnn-recipe-best"), checksums=data.CHECKSUMS | {first: "0"})
    assert record_key("dian.experiments.rnn.row_recipes", {}, other.checksums) != key
