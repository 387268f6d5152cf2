"""What tests/training/test_distributed.py runs in one process, and torchrun in two."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from dian.runs.checkpoint import Checkpoint, Processes
from dian.runs.experiment import Job, find
from dian.training import distributed
from dian.training.dropout import dropout_mask
from dian.training.loop import Training

CHANGED = {
    # 50 steps of two epochs, and 51 of seventeen; each last batch is smaller.
    "rnn-fashion-mnist": {},
    "offset-alibi": {},
    "ddpm-fashion-mnist-small": {"epochs": 17, "variants": False, "ddim": ""},
}
INTERRUPTED = "rnn-fashion-mnist"


class Interruption(Exception):
    """Somebody ends the process."""


def losses(name, path=None, stop=None) -> list[float]:
    """Train in float64, in which 50 steps amplify rounding errors to below 1e-9."""
    experiment = find(name)
    settings, data = experiment.smoke_settings(experiment.quick, experiment.data(True))
    processes = Processes(
        distributed.rank(),
        distributed.world_size(),
        broadcast=distributed.broadcast_from_rank0,
    )
    done = []

    def report(seed, step):
        done.append(step.loss)
        if step.number == stop:
            raise Interruption

    job = Job(dtype=torch.float64, report=report)
    if path:
        job.checkpoint = Checkpoint(path, {"name": name}, 0.0, processes)
    try:
        return experiment.run(replace(settings, **CHANGED[name]), data, job).losses
    except Interruption:
        return done


def weight_with_dropout() -> float:
    """Train where the shards differ in size, and so do the draws of dropout."""
    generator = torch.Generator().manual_seed(0)
    x, model = torch.rand(7, 3, generator=generator), torch.nn.Linear(3, 1)
    training = Training(
        model,
        lambda x: model(x * dropout_mask(x, 0.5, generator)).square().mean(),
        (x,),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        batch_size=3,  # and a last batch of one item: a process has none
        epochs=3,
        generator=generator,
    )
    list(training)
    return model.weight.double().sum().item()


def gather(value) -> list:
    """Return the values of all processes."""
    found = [None] * distributed.world_size()
    torch.distributed.all_gather_object(found, value)
    return found


def refuse_to_write(folder: Path) -> None:
    """End this process if it opens a file in the folder for writing, or makes one."""

    def hook(event, arguments):
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        writes = writes or event in ("os.mkdir", "os.rename", "os.remove")
        if writes and Path(os.fsdecode(arguments[0])).is_relative_to(folder):
            os._exit(3)

    sys.addaudithook(hook)


def main(folder: Path) -> None:
    """Train all of them together, and one as far as a checkpoint and from one."""
    torch.use_deterministic_algorithms(True)
    if distributed.rank():
        refuse_to_write(folder)
    with distributed.process_group(torch.device("cpu")):
        found = {name: losses(name) for name in CHANGED}
        losses(INTERRUPTED, folder / "several.checkpoint", stop=9)
        found["resumed"] = losses(INTERRUPTED, folder / "one.checkpoint")
        mine = distributed.broadcast_from_rank0(distributed.rank())
        found["values"] = gather(mine)
        found["weights with dropout"] = gather(weight_with_dropout())
    if distributed.rank() == 0:
        (folder / "losses.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
