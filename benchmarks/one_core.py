"""How long one CPU core would train what was recorded on a GPU.

``python -m benchmarks.one_core`` takes some training steps of each such run, with its
recorded settings, on one thread, and multiplies the time of a step by the number of
steps of the whole run. It also measures runs that are not recorded because they are
intended for a GPU, and one that was recorded on one core, whose time is known.

A step is timed by the clock of the processor, which stops while other programs use the
core. They still slow it down, since they share the caches: the machine should be idle.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks import report
from benchmarks.cases import Place
from dian.runs.code_hash import source_key
from dian.runs.environment import make_deterministic
from dian.runs.experiment import Experiment, Job, find
from dian.runs.record import RECORDED, Record, check_replaceable, load, record_names

NAME = "benchmarks-one-core"
N_IMAGE = 60_000
"""Training images of a full run, if its settings name no other number."""
WARM_UP, LEAST = 2, 2
"""Steps of a round that are not timed, and the fewest that are."""
UNRECORDED = (
    "ddpm-fashion-mnist-base",
    "rnn-pixels-identity",
    "rnn-pixels-orthogonal",
    "rnn-pixels-tanh",
)
"""Runs for a GPU that are out of reach for a core."""
KNOWN = "rnn-pixels-full-orthogonal"
"""A run that was recorded on one core."""
MODULES = (
    "dian.diffusion.unet",
    "dian.experiments.rnn.gated_layers",
    "dian.rnn.networks",
    "dian.training.loop",
)
"""Where nearly all of the time is spent: the record holds for their code."""


class Enough(Exception):
    """All steps that were asked for are done, or all that there are."""


def timed_follow(times: list[float], seconds: float) -> Callable[..., Iterator[Any]]:
    """Return a :meth:`Job.follow` that times whole batches, and then ends the run."""

    def follow(job: Job, training: Any, **parts: Any) -> Iterator[Any]:
        # The last batch of an epoch of the sample would be smaller.
        whole = len(training.data[0]) // training.batch_size * training.batch_size
        training.data = tuple(part[:whole] for part in training.data)
        before = time.process_time()
        for step in training:
            # A run evaluates after an epoch: it is not told of its end.
            yield replace(step, epoch_loss=None)
            now = time.process_time()
            times.append(now - before)
            before = now
            timed = times[WARM_UP:]
            if len(timed) >= LEAST and sum(timed) >= seconds:
                break
        raise Enough

    return follow


def names() -> list[str]:
    """List the runs to measure, those that were recorded on a GPU first."""
    trained = (load(name) for name in record_names())
    on_a_gpu = [r.name for r in trained if trained_on_a_gpu(r)]
    return [*on_a_gpu, *UNRECORDED, KNOWN]


def trained_on_a_gpu(record: Record) -> bool:
    """Return whether a record is that of a training run on a GPU."""
    return "epochs" in record.settings and record.environment["type"] == "cuda"


def step_times(experiment: Experiment, settings: Any, seconds: float) -> list[float]:
    """Return the seconds of some training steps, on the bundled sample.

    Raises
    ------
    ValueError
        If the whole run is shorter than that.
    """
    times: list[float] = []
    # Of the class: an experiment may hand the job on to another kind of job.
    with patch.object(Job, "follow", timed_follow(times, seconds)), suppress(Enough):
        experiment.run(settings, experiment.data(True), Job())
    if len(times) < WARM_UP + LEAST:
        raise ValueError(f"{experiment.name}: the run ended after {len(times)} steps")
    return times[WARM_UP:]


def total_steps(experiment: Experiment) -> int:
    """Return the number of training steps of a whole run, with all its seeds.

    >>> total_steps(find("rnn-pixels-full-lstm"))  # 3 seeds, 12 epochs
    16884
    """
    settings = experiment.settings
    n = (getattr(settings, "images", None) or N_IMAGE) - (
        getattr(settings, "held_out", None) or 0
    )
    return experiment.n_seed * settings.epochs * -(-n // settings.batch_size)


def summary(rounds: list[float], steps: int) -> dict[str, float]:
    """Describe the seconds of a step in each round, and of all steps.

    >>> summary([3.0, 1.0, 2.0], 7200)
    {'step': 2.0, 'low': 1.0, ..., 'seconds': 14400.0, 'hours': 4.0, 'days': 0.1...}
    """
    step = statistics.median(rounds)
    found = {"step": step, "low": min(rounds), "high": max(rounds), "steps": steps}
    units = {"seconds": 1, "hours": 3600, "days": 24 * 3600}
    return found | {unit: step * steps / length for unit, length in units.items()}


def measure(chosen: list[str], n_round: int, seconds: float) -> dict[str, list[float]]:
    """Return the mean seconds of a step in each round; the runs take turns."""
    found: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(n_round):
        for name in chosen:
            experiment = find(name)
            times = step_times(experiment, experiment.settings, seconds)
            found[name].append(statistics.mean(times))
            print(f"{name:28} {found[name][-1]:8.4f} s a step", flush=True)
    return found


def write(
    folder: Path,
    started: datetime,
    rounds: dict[str, list[float]],
    seconds: float,
    environment: dict,
) -> Record:
    """Write the record of the steps."""
    metrics, modules = {}, {}
    for name, times in rounds.items():
        for key, value in summary(times, total_steps(find(name))).items():
            metrics[f"{name}/{key}"] = [float(value)]
    for module in MODULES:
        modules |= source_key(module)
    n_round = len(next(iter(rounds.values())))
    return report.write(
        folder / NAME,
        "python -m benchmarks.one_core",
        started,
        {"threads": 1, "rounds": n_round, "seconds": seconds, "warm_up": WARM_UP},
        metrics,
        {name: [times] for name, times in rounds.items()},
        environment,
        modules,
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure all runs, and write the record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.one_core", description=__doc__.splitlines()[0]
    )
    parser.add_argument("names", nargs="*", help="only these, and no record")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="in each round")
    parser.add_argument("--out", type=Path, default=RECORDED)
    options = parser.parse_args(arguments)
    check_replaceable(options.out / NAME)
    torch.set_num_threads(1)
    make_deterministic()
    started = datetime.now(UTC)
    environment = report.environment(Place(torch.device("cpu")))
    rounds = measure(options.names or names(), options.rounds, options.seconds)
    if options.names:
        return  # a part is no record
    record = write(options.out, started, rounds, options.seconds, environment)
    print(f"written to {record.folder}")


if __name__ == "__main__":
    main()
