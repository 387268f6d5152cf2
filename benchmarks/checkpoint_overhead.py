"""What it costs a training of the small diffusion model that it can be resumed.

``python benchmarks/checkpoint_overhead.py`` trains with the settings of that run on the
bundled sample, and saves and logs after every step, so that steps, savings and lines of
the log take turns on the clock. A training saves once a minute and logs once a second
at most; its record is written once, and a replay goes into it. What that comes to in
proportion to the training is printed.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from dian.runs import environment as machine
from dian.runs import record as records
from dian.runs import runlog
from dian.runs import train as runner
from dian.runs.checkpoint import Checkpoint
from dian.runs.runlog import RunLog

NAME = "ddpm-fashion-mnist-small"
N_IMAGE = 60_000
"""Training images of a full run."""
SAVED_EVERY, LOGGED_EVERY = 60.0, 1.0
"""Seconds between two savings, and between two lines of the log."""
GOAL = 0.02


class Enough(Exception):
    """All steps that were asked for are done."""


class Timed(Checkpoint):
    """A checkpoint that is always due, and looks at the clock."""

    def __init__(self, path: Path):
        super().__init__(path, {"name": NAME}, every=0.0)
        self.times: list[float] = []
        self.end = time.perf_counter()

    def save(self, state) -> None:
        """Save, and note how long it took."""
        begin = time.perf_counter()
        super().save(state)
        self.end = time.perf_counter()
        self.times.append(self.end - begin)


def measure(n_step: int, device: torch.device, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of each step, of each saving and of each line of the log."""
    experiment = runner.find(NAME)
    log = RunLog(runlog.into(folder / "log.jsonl"), every=0.0)
    checkpoint = Timed(folder / "seed-0.checkpoint")
    steps, lines = [], []

    def after_step(done: int, total: int, loss: float) -> None:
        begin = time.perf_counter()
        steps.append(begin - checkpoint.end)
        log("seed 0", done, total, loss)
        lines.append(time.perf_counter() - begin)
        if len(steps) == n_step:
            raise Enough

    try:
        experiment.run(
            experiment.settings,
            experiment.data(True),
            0,
            device,
            after_step=after_step,
            checkpoint=checkpoint,
        )
    except Enough:
        # The first step also warms up, and what is built before it counts as its own.
        return {"step": steps[1:], "saving": checkpoint.times, "line": lines[1:]}
    raise ValueError(f"--steps must be below those of a run, got {n_step}")


def record_seconds(folder: Path) -> float:
    """Return how long a replay takes, and writing a record as large as one of these."""
    experiment = runner.find(NAME)
    begin = time.perf_counter()
    runner.replay(experiment, experiment.settings, experiment.data(True))
    stand_in = records.load("rnn-fashion-mnist")
    files = {name: bytes(2**22) for name in stand_in.content["files"]}
    records.save(folder / stand_in.name, dict(stand_in.content), files)
    return time.perf_counter() - begin


def report(n_step: int, device: torch.device) -> dict[str, float | str]:
    """Measure, and put it in proportion to a training on all images."""
    settings = runner.find(NAME).settings
    with tempfile.TemporaryDirectory() as folder:
        times = measure(n_step, device, Path(folder))
        size = (Path(folder) / "seed-0.checkpoint").stat().st_size
        record = record_seconds(Path(folder))
    median = {name: statistics.median(values) for name, values in times.items()}
    steps = settings.epochs * -(-N_IMAGE // settings.batch_size)
    training = steps * median["step"]
    return {
        "device": machine.describe(device)["device"],
        "seconds of a step": median["step"],
        "seconds of a saving": median["saving"],
        "megabytes of a checkpoint": size / 1e6,
        "seconds of a line of the log": median["line"],
        "seconds of replay and record": record,
        "checkpoints": median["saving"] / SAVED_EVERY,
        "log": median["line"] / LOGGED_EVERY,
        "record": record / training,
        "together": median["saving"] / SAVED_EVERY
        + median["line"] / LOGGED_EVERY
        + record / training,
    }


def shown(name: str, value: float | str) -> str:
    """Write a value as it is read best."""
    if isinstance(value, str):
        return value
    if name in ("checkpoints", "log", "record", "together"):
        return f"{value:.3%} of the training"
    return f"{value:.4g}"


def main() -> None:
    """Print what was found; the status tells whether the goal was reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="for machines")
    given = parser.parse_args()
    found = report(given.steps, machine.device(given.device))
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        for name, value in found.items():
            print(f"{name:30} {shown(name, value)}")
    if found["together"] >= GOAL:
        sys.exit(f"expected less than {GOAL:.0%}, found {found['together']:.1%}")


if __name__ == "__main__":
    main()
