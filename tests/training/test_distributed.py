"""Two processes compute what one does, and process 0 alone writes."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import several_processes
import torch
import torch.distributed as dist
from several_processes import CHANGED, INTERRUPTED, losses

from dian.errors import DianError
from dian.runs import train as runner
from dian.runs.experiment import find
from dian.runs.record import load
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


def agree(found, expected):
    assert len(found) == len(expected) >= 40
    assert found == pytest.approx(expected, rel=1e-9, abs=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGED)
def test_the_loss_series_is_that_of_one_process(several, in_one, name):
    _, found = several
    agree(found[name], in_one[name])
    assert found[name] != in_one[name]  # two processes add in another order


@pytest.mark.slow
def test_a_run_is_resumed_by_another_number_of_processes(several, in_one):
    folder, found = several
    agree(found["resumed"], in_one[INTERRUPTED])
    resumed = losses(INTERRUPTED, folder / "several.checkpoint")
    agree(resumed, in_one[INTERRUPTED])
    assert resumed != in_one[INTERRUPTED]  # it was two that began it


@pytest.mark.slow
def test_everybody_gets_the_value_of_rank_0(several):
    _, found = several
    assert found["values"] == [0, 0]


@pytest.mark.slow
def test_with_dropout_all_processes_take_the_same_steps(several):
    """They draw masks of their own, and the weights remain the same in all of them."""
    _, found = several
    one, other = found["weights with dropout"]
    assert one == other


@pytest.mark.slow
def test_the_command_writes_one_record(tmp_path):
    name = "rnn-fashion-mnist"
    call = ("-m", "dian", "train", name, "--quick", "--seeds", 1, "--device", "cpu")
    done = torchrun(2, *call, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to runs/") == 1
    assert done.stderr.count("step 160 of 160") == 1
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [name]
    record = load(name, tmp_path / "runs")
    assert record.value("test/accuracy") > 0.5
    assert record.device.startswith("2 x ")
    assert record.content["environment"]["processes"] == 2
    again = f"torchrun --nproc-per-node=2 -m dian train {name} --quick --seeds 1"
    assert record.command == again
    # The replay in it is that of one process: any machine can repeat it.
    experiment = find(name)
    replayed = runner.replay(experiment, experiment.quick, experiment.data(True))
    assert runner._difference(record.content["replay"], replayed)[1] <= 1


@pytest.mark.slow
def test_an_error_is_reported_without_a_traceback_of_ours(tmp_path):
    wrong = ("-m", "dian", "train", "rnn-fashion-mnits", "--quick")
    done = torchrun(2, *wrong, folder=tmp_path)
    assert done.returncode != 0
    told = "no experiment 'rnn-fashion-mnits'; nearest: rnn-fashion-mnist"
    assert told in done.stderr
    assert "DianError" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_shards_cover_every_batch_without_overlap():
    for n in range(12):
        for size in range(1, 6):
            shards = [distributed.shard_indices(n, k, size) for k in range(size)]
            assert torch.cat(shards).tolist() == list(range(n))
            lengths = [len(shard) for shard in shards]
            assert max(lengths) - min(lengths) <= 1


def test_one_process_is_left_as_it_is():
    def loss_fn(items):
        return items.sum()

    assert distributed.data_parallel(torch.nn.Linear(2, 3), loss_fn) is loss_fn
    with distributed.process_group(torch.device("cpu")):
        assert not torch.distributed.is_initialized()


def in_a_group(rank, port, n_item):
    """Compute a loss and its gradient as one of two processes."""
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "RANK": str(rank),
    }
    with distributed.process_group(torch.device("cpu")):
        value = distributed.broadcast_from_rank0(f"that of {rank}")
        found = loss_and_gradient(n_item), value
    return (*found, dist.is_initialized())


def send_from_a_group(sending, *arguments):
    """Do so in a child process, which ends by itself if the other one is gone."""
    signal.alarm(20)
    sending.send(in_a_group(*arguments))


def loss_and_gradient(n_item):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n_item, 3, generator=generator)
    model = torch.nn.Linear(3, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    # Kept until the backward pass, which it takes part in.
    loss_fn = distributed.data_parallel(model, lambda x: model(x).square().mean())
    mean = loss_fn(x)
    mean.backward()
    return [mean.item(), *model.weight.grad.flatten().tolist()]


@pytest.mark.parametrize("n_item", [1, 5])
def test_two_processes_have_the_loss_and_the_gradient_of_one(n_item, monkeypatch):
    """Also where the shards differ in size, or one of them is empty.

    Rank 0 is this process, so that the mutation certificate sees the lines it executes.
    """
    monkeypatch.setattr(os, "environ", os.environ.copy())
    expected = loss_and_gradient(n_item)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    other = context.Process(target=send_from_a_group, args=(sending, 1, port, n_item))
    other.start()
    try:
        found = [in_a_group(0, port, n_item)]
        assert receiving.poll(20)
        found.append(receiving.recv())
    finally:
        other.kill()
        other.join()
    same = pytest.approx(expected, rel=1e-6)
    assert found == [(same, "that of 0", False)] * 2


@pytest.fixture
def on_gpus(monkeypatch):
    """Pretend that torchrun started this process, and note what is called."""
    called = []
    for name, value in (("LOCAL_WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(dist, "init_process_group", called.append)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: called.append("end"))
    monkeypatch.setattr(torch.cuda, "set_device", called.append)
    return called


def test_each_process_has_a_gpu_of_its_own(on_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with distributed.process_group(torch.device("cuda")):
        assert on_gpus == [1, "nccl"]
    assert on_gpus == [1, "nccl", "end"]


def test_more_processes_than_gpus_are_refused(on_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    told = "a GPU for each of 2 processes on this machine, found 1"
    with (
        pytest.raises(DianError, match=told),
        distributed.process_group(torch.device("cuda")),
    ):
        pass
    assert not on_gpus
