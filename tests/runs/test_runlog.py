"""The log of a training can be read while it is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dian.errors import DianError
from dian.runs import runlog
from dian.runs.runlog import Entry, RunLog

ROOT = Path(__file__).parents[2]


def entry(done, loss=1.0, part="seed 0", seconds=0.0) -> Entry:
    return Entry(part=part, done=done, total=100, loss=loss, seconds=seconds)


def test_the_first_and_the_last_step_of_each_part_are_told(monkeypatch):
    clock, told = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    log = RunLog(told.append, every=10.0)
    for part in ("seed 0", "seed 1"):
        for done in range(1, 8):
            clock[0] += 4.0
            log(part, done, 7, 1 / done)
    assert [(e["part"], e["done"], e["seconds"]) for e in told] == [
        (part, done, seconds)
        for part in ("seed 0", "seed 1")
        for done, seconds in ((1, 0.0), (4, 12.0), (7, 24.0))
    ]


def test_a_half_written_line_is_left_for_the_next_look(tmp_path):
    path = tmp_path / "log.jsonl"
    write = runlog.into(path)
    write(entry(1))
    write(entry(2, loss=float("nan")))
    whole = runlog.read(path)
    assert [e["done"] for e in whole] == [1, 2]
    with path.open("a") as file:
        file.write(json.dumps(entry(3))[:9])
    assert len(runlog.read(path)) == 2


def test_without_a_log_nothing_can_be_read(tmp_path):
    with pytest.raises(DianError, match=r"none: No such file .* training that goes on"):
        runlog.read(tmp_path / "none")


def test_the_speed_is_that_of_this_process():
    # 50 steps were done before; 10 more took 5 seconds.
    last, first = entry(60, seconds=5.0), entry(50)
    assert "2.0 steps/s, 0 min left" in runlog.describe(last, first)
    assert "steps/s" not in runlog.describe(first, first)


def test_a_curve_is_as_wide_as_asked_and_flat_if_the_series_is():
    assert runlog.curve([]) == ""
    assert runlog.curve([2.0] * 9, width=3) == "▁▁▁"
    falling = runlog.curve([float(-n) for n in range(100)], width=10)
    assert len(falling) == 10
    assert list(falling) == sorted(falling, reverse=True)


@pytest.mark.parametrize("lines", [[], [entry(1, 2.0), entry(51, 1.0, seconds=25.0)]])
def test_watch_tells_how_far_another_process_is(tmp_path, lines):
    folder = tmp_path / "runs/.rnn-relu.training"
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines))
    done = subprocess.run(
        [sys.executable, "-m", "dian", "watch", "rnn-relu", "--once"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if lines:
        told = "rnn-relu, seed 0: step 51 of 100, loss 1.000, 2.0 steps/s, 0 min left"
        assert done.stdout.splitlines() == [told, "█▁"]
    else:
        assert done.returncode == 1
        assert done.stderr.rstrip().endswith(
            "no step is done yet; try again in a moment"
        )
