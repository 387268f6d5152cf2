"""What tests/test_parallel.py runs in one process, and torchrun in several."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from dian.errors import DianError
from dian.runs import train as runner
from dian.runs.checkpoint import Checkpoint
from dian.training import distributed

CHANGED = {
    # 50 steps of two epochs, and 51 of seventeen; each last batch is smaller.
    "rnn-fashion-mnist": {},
    "rnn-best": {},  # with dropout
    "offset-alibi": {},  # its loss is a mean over some of the positions
    "ddpm-fashion-mnist-small": {"epochs": 17, "variants": False, "ddim": ""},
}
INTERRUPTED = "rnn-best"


class Interruption(Exception):
    """Somebody ends the process."""


def losses(name, path=None, stop=None) -> list[float]:
    """Train in float64, with the rounding of which 50 steps do no harm."""
    experiment = runner.find(name)
    settings, data = experiment.smoke_settings(experiment.quick, experiment.data(True))
    checkpoint = path and Checkpoint(path, {"name": name}, every=0.0)
    done = []

    def after_step(n, total, loss):
        done.append(loss)
        if n == stop:
            raise Interruption

    try:
        outcome = experiment.run(
            replace(settings, **CHANGED[name]),
            data,
            0,
            torch.device("cpu"),
            dtype=torch.float64,
            after_step=after_step,
            checkpoint=checkpoint,
        )
    except Interruption:
        return done
    return outcome.losses


def refused(part: nn.Module) -> str:
    """Say why a layer cannot be shared, or nothing if it can."""
    try:
        with distributed.spread(nn.Sequential(part, nn.Linear(3, 3)), None):
            return ""
    except DianError as error:
        return str(error)


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
    if distributed.number():
        refuse_to_write(folder)
    with distributed.together(torch.device("cpu")):
        found = {name: losses(name) for name in CHANGED}
        losses(INTERRUPTED, folder / "several.checkpoint", stop=9)
        found["resumed"] = losses(INTERRUPTED, folder / "one.checkpoint")
        layers = nn.BatchNorm2d(3), nn.Dropout(0.1), nn.Dropout(0.0)
        found["refused"] = [refused(layer) for layer in layers]
    if distributed.number() == 0:
        (folder / "losses.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
