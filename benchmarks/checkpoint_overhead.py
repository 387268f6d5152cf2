"""What it costs a training run of the small diffusion model that it can be resumed.

``python benchmarks/checkpoint_overhead.py`` trains with the settings of that run on the
bundled sample, and saves a checkpoint after every step. A real run saves one a minute,
and writes one record, with a short replay. The fraction that this is of the time of the
whole run is printed.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from dian.runs import environment, train
from dian.runs import record as records
from dian.runs.checkpoint import Checkpoint
from dian.runs.experiment import Job, find

NAME = "ddpm-fashion-mnist-small"
N_IMAGE = 60_000
"""Training images of a full run."""
INTERVAL_S = train.Options().interval_s
GOAL = 0.02


class Enough(Exception):
    """All steps that were asked for are done."""


class Timed(Checkpoint):
    """A checkpoint that is always due, and measures its savings."""

    def __init__(self, path: Path):
        super().__init__(path, {"name": NAME}, interval_s=0.0)
        self.times: list[float] = []
        self.end = time.perf_counter()

    def save(self, state) -> None:
        """Save, and note how long it took."""
        begin = time.perf_counter()
        super().save(state)
        self.end = time.perf_counter()
        self.times.append(self.end - begin)


def measure(n_step: int, device: torch.device, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of each step and of each saving."""
    experiment = find(NAME)
    checkpoint = Timed(folder / "seed-0.checkpoint")
    steps = []

    def report(seed: int, step) -> None:
        steps.append(time.perf_counter() - checkpoint.end)
        if len(steps) == n_step:
            raise Enough

    job = Job(device=device, report=report, checkpoint=checkpoint)
    try:
        experiment.run(experiment.settings, experiment.data(True), job)
    except Enough:
        # The first step also warms up, and what is built before it counts as its own.
        return {"step": steps[1:], "saving": checkpoint.times}
    raise ValueError(f"--steps must be below those of a run, got {n_step}")


def record_seconds(folder: Path) -> float:
    """Return how long a replay takes, and writing a record as large as one of these."""
    experiment = find(NAME)
    begin = time.perf_counter()
    train.replay(experiment, experiment.settings, experiment.data(True))
    stand_in = records.load("rnn-fashion-mnist")
    files = {name: bytes(2**22) for name in stand_in.content["files"]}
    save(folder / stand_in.name, dict(stand_in.content), files)
    return time.perf_counter() - begin


def measure_all(n_step: int, device: torch.device) -> dict[str, float | str]:
    """Measure, and compare with the time of a run on all images."""
    settings = find(NAME).settings
    with tempfile.TemporaryDirectory() as folder:
        times = measure(n_step, device, Path(folder))
        size = (Path(folder) / "seed-0.checkpoint").stat().st_size
        record = record_seconds(Path(folder))
    step, saving = (statistics.median(times[name]) for name in ("step", "saving"))
    run = step * settings.epochs * -(-N_IMAGE // settings.batch_size)
    return {
        "device": environment.describe(device)["device"],
        "seconds of a step": step,
        "seconds of a saving": saving,
        "megabytes of a checkpoint": size / 1e6,
        "seconds of replay and record": record,
        "overhead": saving / INTERVAL_S + record / run,
    }


def main() -> None:
    """Print what was measured; the status is 0 if the goal was reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args()
    found = measure_all(options.steps, environment.device(options.device))
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for name, value in found.items():
            print(f"{name:30} {value if isinstance(value, str) else f'{value:.4g}'}")
    if found["overhead"] >= GOAL:
        sys.exit(f"expected less than {GOAL:.0%}, found {found['overhead']:.1%}")


if __name__ == "__main__":
    main()
