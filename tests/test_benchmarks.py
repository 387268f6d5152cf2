"""`benchmarks`: every case runs in little, and no side may compute something else.

No time is asserted here: a test must not depend on how busy the machine is.
"""

import importlib
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import blocks, cases, report, timing
from benchmarks.cases import Case, Place, Side, Unavailable
from benchmarks.limits import Limits, limits
from benchmarks.timing import Against, Differs, Result, compare, measure
from dian.errors import DianError
from dian.runs import train as runner
from dian.runs.freshness import stale, why_stale
from dian.runs.record import load, sealed, to_json

# What the peers say of their own future when they are imported.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)

CPU = torch.device("cpu")
TINY = Place(CPU, "tiny")


HERE = command.CASES | {
    name: case for name, case in command.ON_A_GPU.items() if name != "unet-compiled"
}
"""All but what needs a compiler: the others run on the CPU, too."""


@pytest.mark.parametrize("name", HERE)
def test_every_case_runs_and_its_sides_agree(name):
    case = HERE[name](TINY)
    assert not case.skipped
    result = measure(case, CPU, seconds=0.0, limit=Limits(1e9, 1e9).milliseconds(case))
    assert result.limit > 0
    assert list(result.against) == list(case.peers)
    for peer, one in result.against.items():
        assert len(one.ratios) == timing.LEAST
        low, high = one.quartiles
        assert 0 < low <= one.ratio <= high
        compared = case.peers[peer].view is not None
        assert (one.residual is not None) == compared
        assert not compared or one.residual <= case.tolerance
    assert_that_each_tensor_counts(case)


def assert_that_each_tensor_counts(case):
    """Gradients included: what differs in one of them alone is found."""
    expected = [x.clone() for x in case.ours.view(case.ours.call())]
    for i, x in enumerate(expected):
        wrong = list(expected)
        scale = max(x.abs().max().item(), 1e-3)
        wrong[i] = x.double() + 3 * case.tolerance * scale
        with pytest.raises(Differs, match="peer differs from ours by"):
            compare("peer", expected, wrong, case.tolerance)


def test_a_side_that_computes_something_else_is_not_timed():
    case = Case(
        "two squares",
        Side(lambda: [torch.full((2,), 4.0)]),
        {"sum": Side(lambda: [torch.full((2,), 4.1)])},
    )
    with pytest.raises(Differs, match=r"sum differs from ours by 0\.025"):
        measure(case, CPU, 0.0)
    with pytest.raises(Differs, match=r"returns shapes \[\(3,\)\], ours returns"):
        compare("it", [torch.ones(2)], [torch.ones(3)], 1.0)
    with pytest.raises(Differs, match="by nan"):
        compare("it", [torch.ones(2)], [torch.full((2,), torch.nan)], 1.0)


def test_the_ratio_is_of_the_same_round_and_goals_are_marked():
    one = Against(theirs=3.0, ratios=[1.0, 4.0, 2.0], goal=2.0)
    assert (one.ratio, one.met) == (2.0, True)
    assert one.quartiles == (1.5, 3.0)
    assert Against(3.0, [1.9], 2.0).met is False
    assert Against(3.0, [1.9]).met is None
    result = Result("a case", "ms", 1.5, {"peer": one}, {"other": "not here"}, 0.5)
    told = "\n".join(report.lines("key", result))
    assert "2.00 times (1.50 to 3.00)  ✓ goal 2  peer: 3 ms" in told
    assert "limit 0.5 ms" in told
    assert "not run: other: not here" in told


def test_sides_take_turns():
    """Nobody is always the first, and nobody is timed more often."""
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in ("dian", "b")}
    times = timing.interleaved(calls, CPU, 0.0)
    assert {len(found) for found in times.values()} == {timing.LEAST}
    runs = [order[0], *(b for a, b in pairwise(order) if a != b)]
    # one call each to calibrate, then dian b, b dian, dian b: neighbours of one side
    # run into each other
    assert runs == ["dian", "b", "dian", "b", "dian", "b"]


def test_without_a_peer_the_others_are_timed(monkeypatch):
    real = importlib.import_module

    def without(name, *arguments):
        if name.startswith("torchmetrics"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *arguments)

    monkeypatch.setattr(cases.importlib, "import_module", without)
    case = command.CASES["metrics"](TINY)
    assert list(case.peers) == ["scikit-learn"]
    assert "pip install --group peers" in case.skipped["torchmetrics"]
    with pytest.raises(Unavailable, match="torchmetrics cannot be imported"):
        cases.library("torchmetrics.functional")


def test_the_limits_are_measured():
    best = limits(TINY, 0.0)
    assert best.flops > 0
    assert best.bandwidth > 0
    case = Case("", Side(list), {}, flops=2e9, moved=1e6)
    assert Limits(1e9, 1e9).milliseconds(case) == 2000


def test_what_a_process_holds_is_its_own():
    """The parent's memory does not count: 100 MiB here change nothing there."""
    ballast = torch.ones(100 << 18)
    held = blocks.peak_memory("block-wise", TINY, 512)
    assert 0 < held < 50
    del ballast


@pytest.fixture
def record(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "CASES", {"rnn-32": command.CASES["rnn-32"]})
    monkeypatch.setattr(command, "OTHERS", {})
    threads = torch.get_num_threads()
    command.main(["--tiny", "--threads", str(threads), "--out", str(tmp_path)])
    assert "nn.RNN" in capsys.readouterr().out
    return load("benchmarks-cpu", tmp_path)


def test_a_run_is_a_record(record):
    assert record.command == "make bench"
    assert record.settings["rnn-32"].startswith("RNN training step")
    assert record.value("rnn-32/nn.RNN/goal") == 2
    assert record.value("rnn-32/nn.RNN/ratio") > 0
    assert record.series["rnn-32/nn.RNN"].shape == (1, timing.LEAST)
    assert record.content["environment"]["diffusers"]
    assert stale(record) == []


def test_a_record_of_times_is_stale_when_what_was_timed_has_changed(record):
    modules = record.content["key"]["modules"]
    assert {
        "dian.rnn.recurrence",
        "dian.diffusion.unet",
        "dian.training.metrics",
    } <= set(modules)
    assert not {"dian.runs.record", "dian.training"} & set(modules)
    path = record.folder / "record.json"
    content = json.loads(path.read_text())
    content["key"]["modules"]["dian.rnn.recurrence"] = "another"
    content["checksum"] = sealed(content)
    path.write_bytes(to_json(content))
    told = why_stale("benchmarks-cpu", record.folder.parent)
    assert told.endswith("is stale: dian.rnn.recurrence changed; run: make bench")
    with pytest.raises(DianError, match="cannot be replayed; run: make bench"):
        runner.revalidate("benchmarks-cpu", record.folder.parent)


def test_what_a_gpu_cannot_do_is_told_and_the_rest_goes_on(monkeypatch, capsys):
    def broken(place):
        raise RuntimeError("no compiler\nand much more")

    rnn = {"rnn-32": command.CASES["rnn-32"]}
    monkeypatch.setattr(command, "ON_A_GPU", {"unet-compiled": broken})
    monkeypatch.setattr(
        command, "_cases", lambda place: {"unet-compiled": broken} | rnn
    )
    monkeypatch.setattr(command, "OTHERS", {})
    assert [name for name, _ in command.run(TINY, 0.0)] == ["limits", "rnn-32"]
    assert capsys.readouterr().out == "unet-compiled: not run: no compiler\n"


def test_a_part_is_no_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    threads = str(torch.get_num_threads())
    command.main(["--tiny", "--threads", threads, "metrics"])
    assert "scikit-learn" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_page_shows_every_case_of_the_record():
    """A goal that was missed cannot be left out."""
    page = (Path(__file__).parents[1] / "docs/benchmarks.md").read_text()
    shown = re.findall(r"^```{benchmarks} benchmarks-cpu\n(.*?)```", page, re.M | re.S)
    cases = list(command.CASES | command.OTHERS)
    assert sorted("".join(shown).split()) == sorted(cases)
    record = load("benchmarks-cpu")
    assert set(cases) <= set(record.settings)
    assert record.settings["size"] == "cpu"
