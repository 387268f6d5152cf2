"""Run the cases, print the table, write the record: ``python -m benchmarks --help``."""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from benchmarks import blocks, counting, heads, network, recurrent, report, rotation
from benchmarks.cases import Case, Place
from benchmarks.limits import Limits, limits
from benchmarks.timing import Differs, Result, measure
from dian.errors import DianError
from dian.runs.environment import select_device
from dian.runs.record import RECORDED, check_replaceable

CASES: dict[str, Callable[[Place], Case]] = {
    "rnn-256": partial(recurrent.step, time=28, batch=256, d=28, goal=1.5),
    "rnn-32": partial(recurrent.step, time=28, batch=32, d=28, goal=2.0),
    "rnn-pixels": partial(recurrent.step, time=784, batch=128, d=1, goal=1.5),
    "rotary": rotation.queries_and_keys,
    "rotary-halves": partial(rotation.queries_and_keys, layout="half"),
    "rotary-in-place": rotation.in_place,
    "heads": partial(heads.step, weights=False, goal=1.05),
    "heads-weights": partial(heads.step, weights=True, goal=1.2),
    "metrics": counting.classification,
    "unet": network.training,
    "sampling": network.sampling,
}
"""The cases by the names that they have in the record."""

ON_A_GPU: dict[str, Callable[[Place], Case]] = {
    "rnn-256-graph": partial(
        recurrent.step, time=28, batch=256, d=28, goal=None, graph=True
    ),
    "unet-bfloat16": partial(network.training, precision=torch.bfloat16),
    "unet-compiled": partial(network.training, precision=torch.bfloat16, compiled=True),
}
"""What is worth a case of its own there."""

OTHERS: dict[str, Callable[[Place, float], Result]] = {
    "sampling-overhead": network.overhead,
    "blockwise": blocks.memory,
}
"""What takes another measurement than turns on the clock."""

SCRIPTS = ["blocks", "counting", "heads", "network", "recurrent", "rotation"]
"""Whose modules of the library the record holds for."""


def run(
    place: Place, seconds: float, names: list[str] | None = None
) -> Iterator[tuple[str, Result | Limits]]:
    """Measure the limits, then each case for so many seconds."""
    best = {torch.float32: limits(place, seconds / 4)}
    yield "limits", best[torch.float32]
    for name, build in _cases(place).items():
        if not names or name in names:
            try:
                case = build(place)
                if case.precision not in best:
                    best[case.precision] = limits(place, seconds / 4, case.precision)
                limit = best[case.precision].milliseconds(case)
                share = 2 if name in ("unet", "sampling") else 1  # calls take seconds
                yield name, measure(case, place.device, share * seconds, limit)
            except Exception as error:
                if name not in ON_A_GPU:
                    raise
                # A compiler, or a kernel that can be recorded, is not everywhere.
                print(f"{name}: not run: {str(error).splitlines()[0]}", flush=True)
    for name, own in OTHERS.items():
        if not names or name in names:
            yield name, own(place, seconds)


def _cases(place: Place) -> dict[str, Callable[[Place], Case]]:
    return CASES | (ON_A_GPU if place.device.type == "cuda" else {})


def main(arguments: list[str] | None = None) -> None:
    """Take the options, and tell what comes out as it comes."""
    options = _parser().parse_args(arguments)
    name = f"benchmarks-{select_device(options.device).type}"
    folder = options.out or (Path("runs") if options.tiny else RECORDED)
    check_replaceable(folder / name)  # now, and not after minutes
    torch.set_num_threads(options.threads)
    device = select_device(options.device)
    size = "tiny" if options.tiny else "gpu" if device.type == "cuda" else "cpu"
    # Both sides in float32, and not one of them in TF32.
    torch.backends.cudnn.allow_tf32 = False
    place, started = Place(device, size), datetime.now(UTC)
    environment = report.environment(place)
    seconds = 0.0 if options.tiny else options.seconds
    print(f"{environment['device']}, torch {torch.__version__}", flush=True)
    begin, results, best = time.perf_counter(), {}, None
    for key, found in run(place, seconds, options.cases):
        if isinstance(found, Limits):
            best = found
            print(
                f"limits: {best.flops / 1e9:.4g} GFLOP/s, "
                f"{best.bandwidth / 1e9:.3g} GB/s",
                flush=True,
            )
            continue
        results[key] = found
        print("\n".join(report.lines(key, found)), flush=True)
    goals = [o.met for r in results.values() for o in r.against.values()]
    met, missed = goals.count(True), goals.count(False)
    print(f"{met} goals met, {missed} missed; {time.perf_counter() - begin:.0f} s")
    if options.cases and options.out is None:
        return  # a part is no record
    record = report.write(
        folder / name,
        "make bench" if device.type == "cpu" else "make bench-gpu",
        started,
        report.settings(results, place, options.threads, seconds),
        report.metrics(results, best),
        {
            f"{key}/{peer}": [one.ratios]
            for key, result in results.items()
            for peer, one in result.against.items()
        },
        environment,
        report.timed_modules(SCRIPTS),
    )
    print(f"written to {record.folder}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", help="only these, and no record")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="of torch, on the CPU")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each case")
    parser.add_argument("--tiny", action="store_true", help="only see that all runs")
    parser.add_argument("--out", type=Path, help="folder to write the record to")
    return parser


if __name__ == "__main__":
    # Not of our making: what the peers say of their own future.
    warnings.simplefilter("ignore")
    try:
        main()
    except (DianError, Differs) as error:
        sys.exit(f"benchmarks: {error}")
