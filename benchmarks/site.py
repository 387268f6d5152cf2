"""How long the site takes to build, and what a change has built again.

``python -m benchmarks.site`` copies the tree, runs ``make html`` in the copy, cold,
after no change and after three kinds of edits, and records medians of three such
rounds. It takes about ten minutes, and the machine should be idle.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.cases import Place
from dian.runs.environment import git_commit
from dian.runs.record import RECORDED, Record

ROOT = Path(__file__).parents[1]
NAME = "benchmarks-site"
ROUNDS = 3
LEFT_OUT = {".git", ".venv", "build", "node_modules", "runs", "data"}
"""Folders at the top that no build reads; dian/runs has the name of one of them."""


def prose(tree: Path) -> None:
    """Add a sentence to a page."""
    _append(tree / "docs/installation.md", "\nA sentence more.\n")


def gallery(tree: Path) -> None:
    """Add a sentence to a script."""
    _append(tree / "gallery/1_rnn/plot_1_forward.py", "\n# %%\n# A sentence more.\n")


def library(tree: Path) -> None:
    """Add a line to a module that half of the gallery draws with."""
    _append(tree / "dian/figures/plots.py", "\n_EDITED = True\n")


BUILDS: dict[str, Callable[[Path], None]] = {
    "cold": lambda tree: None,
    "warm": lambda tree: None,
    "prose-edit": prose,
    "gallery-edit": gallery,
    "library-edit": library,
}
"""What is done to the tree before each build, in this order."""


@dataclass(frozen=True)
class Build:
    """What one build took, and how much it did."""

    seconds: float
    mib: float
    """The most that all its processes held together."""
    pages: int
    """Pages that were read."""
    scripts: int
    """Scripts of the gallery that were run."""


def build(tree: Path, command: list[str] | None = None) -> Build:
    """Run ``make html`` in a tree with this Python, and watch it."""
    # The environment and KaTeX are there: neither is made, nor looked at.
    command = command or [
        *("make", "html-alone", f"PY={sys.executable}", "-o", ".venv/.current"),
        *("-o", "node_modules/.package-lock.json"),
    ]
    begin, most = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as log:
        running = subprocess.Popen(
            command, cwd=tree, stdout=log, stderr=log, start_new_session=True
        )
        while running.poll() is None:
            most = max(most, held(running.pid))
            time.sleep(0.2)
        seconds = time.perf_counter() - begin
        log.seek(0)
        text = log.read()
    if running.returncode:
        sys.exit(f"{text[-4000:]}\nbenchmarks.site: the build failed")
    return Build(seconds, most, *counted(text))


def held(session: int) -> float:
    """Return what all processes of a session hold in memory now, in MiB."""
    pages = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == session:
                pages += int((process / "statm").read_text().split()[1])
        except OSError:
            continue  # it has ended
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def counted(log: str) -> tuple[int, int]:
    """Read off a log how many pages were read and how many scripts were run."""
    read = re.findall(r"(\d+) added, (\d+) changed", log)
    run = re.findall(r"gallery: (\d+) of \d+ scripts to run", log)
    return sum(int(n) for pair in read for n in pair), sum(map(int, run))


def main() -> None:
    """Build in several rounds, and write the record."""
    place, started = Place(torch.device("cpu")), datetime.now(UTC)
    environment = report.environment(place)
    rounds = [one_round() for _ in range(ROUNDS)]
    metrics = {
        f"{name}/{key}": [statistics.median(float(vars(r[name])[key]) for r in rounds)]
        for name in BUILDS
        for key in vars(rounds[0][name])
    }
    write(RECORDED, started, metrics, environment)


def left_out(folder: str, names: list[str]) -> set[str]:
    """Return what is not copied of a folder."""
    at_top = LEFT_OUT if Path(folder) == ROOT else set()
    return at_top | {n for n in names if n == "__pycache__" or n.endswith("_cache")}


def one_round() -> dict[str, Build]:
    """Build a copy of the tree once for each edit, the first time from nothing."""
    builds = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=left_out)
        shutil.rmtree(tree / "docs/gallery", ignore_errors=True)  # built before
        (tree / "node_modules").symlink_to((ROOT / "node_modules").resolve())
        for name, edit in BUILDS.items():
            edit(tree)
            one = builds[name] = build(tree)
            print(
                f"{name:13} {one.seconds:6.1f} s, {one.mib:6.0f} MiB, "
                f"{one.pages} pages read, {one.scripts} scripts run",
                flush=True,
            )
    return builds


def write(folder: Path, started: datetime, metrics: dict, environment: dict) -> Record:
    """Write the record of the builds."""
    record = report.write(
        folder / NAME,
        "python -m benchmarks.site",
        started,
        {"processes": 2, "rounds": ROUNDS, "commit": git_commit()},
        metrics,
        {},
        environment,
        {},  # it is dated, and bound to no module: any change changes it a little
    )
    print(f"written to {record.folder}")
    return record


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
