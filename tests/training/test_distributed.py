"""Several processes compute what one does, and the first alone writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import several_processes
import torch
from several_processes import CHANGED, INTERRUPTED, losses
from torch import nn

from dian.runs import record as records
from dian.runs import train as runner
from dian.training import distributed

ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")


def torchrun(n, *arguments, folder=ROOT):
    """Start processes on this machine, which needs no network for it."""
    return subprocess.run(
        [*TORCHRUN, f"--nproc-per-node={n}", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def in_one():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield {name: losses(name) for name in CHANGED}
    torch.use_deterministic_algorithms(before)


@pytest.fixture(scope="module")
def several(tmp_path_factory, in_one):
    folder = tmp_path_factory.mktemp("several")
    losses(INTERRUPTED, folder / "one.checkpoint", stop=9)
    done = torchrun(2, several_processes.__file__, folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "losses.json").read_text())


@pytest.mark.parametrize("name", CHANGED)
def test_the_loss_series_is_that_of_one_process(several, in_one, name):
    _, found = several
    assert len(in_one[name]) >= (16 if "best" in name or "alibi" in name else 50)
    assert found[name] == pytest.approx(in_one[name], rel=1e-6, abs=0)


def test_a_training_goes_on_in_another_number_of_processes(several, in_one):
    folder, found = several
    assert found["resumed"] == pytest.approx(in_one[INTERRUPTED], rel=1e-6, abs=0)
    resumed = losses(INTERRUPTED, folder / "several.checkpoint")
    assert resumed == pytest.approx(in_one[INTERRUPTED], rel=1e-6, abs=0)
    assert resumed != in_one[INTERRUPTED]  # it was others that began it


def test_the_command_writes_one_record(tmp_path):
    name = "rnn-fashion-mnist"
    call = ("-m", "dian", "train", name, "--quick", "--seeds", 1, "--device", "cpu")
    done = torchrun(2, *call, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to runs/") == 1
    assert done.stderr.count("step 160 of 160") == 1
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [name]
    record = records.load(name, tmp_path / "runs")
    assert record.value("test/accuracy") > 0.5
    assert record.device.startswith("2 x ")
    assert record.content["environment"]["processes"] == 2
    again = f"torchrun --nproc-per-node=2 -m dian train {name} --quick --seeds 1"
    assert record.command == again
    # The replay in it is that of one process: any machine can repeat it.
    experiment = runner.find(name)
    replayed = runner.replay(experiment, experiment.quick, experiment.data(True))
    assert runner._difference(record.content["replay"], replayed)[1] <= 1


def test_what_is_wrong_is_told_without_a_traceback_of_ours(tmp_path):
    wrong = ("-m", "dian", "train", "rnn-fashion-mnits", "--quick")
    done = torchrun(2, *wrong, folder=tmp_path)
    assert done.returncode != 0
    told = "no experiment 'rnn-fashion-mnits'; nearest: rnn-fashion-mnist"
    assert told in done.stderr
    assert "DianError" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_shares_cover_every_batch_and_none_is_empty():
    for n in range(1, 12):
        for processes in range(1, 6):
            shares = [distributed.share(n, k, processes) for k in range(processes)]
            assert torch.cat(shares)[:n].tolist() == list(range(n))
            assert {len(part) for part in shares} == {-(-n // processes)}


def test_one_process_is_left_as_it_is(generator):
    def loss_fn(index):
        return index.sum()

    model = nn.Linear(2, 3)
    with distributed.spread(model, loss_fn) as spread:
        assert spread is loss_fn
    assert not model._forward_hooks
    before = generator.get_state()
    drawn = distributed.rand(3, 5, generator=generator)
    generator.set_state(before)
    assert torch.equal(drawn, torch.rand(3, 5, generator=generator))


def test_layers_that_depend_on_the_number_of_processes_are_refused(several):
    _, found = several
    batch_norm, dropped, fine = found["refused"]
    assert batch_norm.startswith("0 is BatchNorm2d(3, ")
    assert dropped.startswith("0 is Dropout(p=0.1, ")
    for told in (batch_norm, dropped):
        assert told.endswith("same in any number of processes; train it with one")
    assert fine == ""
