"""The page on one CPU core lists every run with its time, and adds the times up."""

import json
import re
import shutil
from datetime import UTC, datetime

import pytest
import torch

from benchmarks import one_core as benchmark
from benchmarks import report
from benchmarks.cases import Place
from dian.runs import record as runs
from dian_sphinx import one_core, records
from dian_sphinx.teaching import CHAPTERS

GPU = "rnn-pixels-full-lstm"
SETTINGS = {
    "html_theme": "basic",
    "nb_execution_mode": "off",
    "master_doc": "one_core",
    "myst_enable_extensions": {"colon_fence"},
    "suppress_warnings": ["toc.not_included"],
}


@pytest.fixture(autouse=True)
def read_again():
    """Read the records of this test, and not those of another."""
    records.read.cache_clear()
    yield
    records.read.cache_clear()


def contents() -> dict[str, dict]:
    """Read the content of each record by name, with nothing of the library."""
    paths = runs.RECORDED.glob("*/record.json")
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def test_every_training_and_evaluation_is_in_the_table_of_its_chapter():
    listed = {chapter: one_core.runs_of(chapter) for chapter in CHAPTERS}
    found = sorted(record.name for part in listed.values() for record in part)
    expected = {name: one for name, one in contents().items() if one["replay"]}
    assert found == sorted(expected)
    for chapter, part in listed.items():
        assert part
        for record in part:
            assert expected[record.name]["module"].split(".")[2] == chapter


def test_every_run_is_repeated_by_the_same_command_and_replaces_no_record():
    for chapter in CHAPTERS:
        listed = one_core.runs_of(chapter)
        block = [line for line in one_core.commands(listed) if line.startswith("$")]
        command = "$ python -m dian train {} --out runs"
        expected = [command.format(record.name) for record in listed]
        assert sorted(block) == sorted(expected)
        modules = [contents()[line.split()[5]]["module"] for line in block]
        is_training = [not module.endswith("evaluation") for module in modules]
        assert is_training == sorted(is_training, reverse=True)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_sums_are_those_of_the_rows(chapter):
    """And the rows, whatever their unit, those of the records."""
    found = contents()
    table = one_core.table_of_runs(one_core.runs_of(chapter))
    lines = [line.strip("| ").split(" | ") for line in table][2:]
    rows = {
        re.findall(r"`(\S+)", cells[0])[0]: cells
        for cells in lines
        if cells[0].startswith("{ref}")
    }
    for name, (_, seeds, place, time) in rows.items():
        assert int(seeds) == len(found[name]["seeds"])
        device = found[name]["environment"]["device"].removesuffix(", 1 thread")
        assert place.startswith(device)
        if found[name]["environment"]["type"] == "cpu":
            assert seconds(time) == pytest.approx(found[name]["seconds"], rel=0.06)
    sums = {cells[0].strip("*"): seconds(cells[3]) for cells in lines[len(rows) :]}
    expected = {}
    for kind, title in (("cpu", "a CPU"), ("cuda", "a GPU")):
        part = [n for n in rows if found[n]["environment"]["type"] == kind]
        if part:
            total = sum(seconds(rows[name][3]) for name in part)
            expected[f"Sum, recorded on {title}"] = pytest.approx(total, rel=0.06)
    assert sums == expected


def seconds(text: str) -> float:
    """Read a time that is written with its unit, and 0 if there is none."""
    found = re.search(r"([\d.]+)\s(s|min|h)\b", text)
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]] if found else 0


# --- A page with three runs, one of them from a GPU -----------------------------------


@pytest.fixture
def page(tmp_path, monkeypatch, sphinx_build, extension_of):
    """Build a page with some text, and return the rows of its tables, and its HTML."""
    source, folder = tmp_path / "docs", tmp_path / "recorded"
    source.mkdir()
    for name in ("rnn-fashion-mnist", "rnn-relu", GPU):
        shutil.copytree(runs.RECORDED / name, folder / name)
    monkeypatch.setattr(records, "FOLDER", folder)
    ours = extension_of("records", "one_core")
    settings = SETTINGS | {"extensions": ["myst_nb", "sphinx_design", ours]}

    def build(text: str | None = None):
        if text is not None:
            text = f"# Page\n\n{text}\n\n```{{runs}}\n```\n"
            (source / "one_core.md").write_text(text)
            for chapter in CHAPTERS:
                (source / f"{chapter}.md").write_text(f"# On {chapter}\n")
        warnings = sphinx_build(source, tmp_path / "built", settings)
        assert warnings == ""
        html = (tmp_path / "built/one_core.html").read_text("utf-8")
        html = html.replace("\N{NO-BREAK SPACE}", " ").split("<section")
        found = re.findall("<tr.*?</tr>", html[1].replace("\n", ""))
        cells = [re.findall("<t[dh].*?</t[dh]>", row) for row in found]
        return [[re.sub("<.*?>", "", c).strip() for c in r] for r in cells], html[1]

    build.folder = folder
    return build


def estimate(folder, seconds_a_step: float) -> None:
    """Record how long a training step takes on one core."""
    environment = report.environment(Place(torch.device("cpu")))
    rounds = {GPU: [seconds_a_step]}
    benchmark.write(folder, datetime.now(UTC), rounds, 1.0, environment)


def set_seconds(folder, name: str, value: float, threads: int = 1) -> None:
    """Give a record another time."""
    path = folder / name / "record.json"
    content = json.loads(path.read_text())
    content["seconds"] = value
    content["environment"]["threads"] = threads
    path.write_bytes(runs.to_json(runs.sealed(content)))


def test_the_runs_of_a_chapter_are_listed_with_their_times(page):
    set_seconds(page.folder, "rnn-fashion-mnist", 600)
    set_seconds(page.folder, "rnn-relu", 900, threads=2)  # half an hour of one core
    set_seconds(page.folder, GPU, 60)
    estimate(page.folder, 3 * 3600 / benchmark.total_steps(benchmark.find(GPU)))
    rows, html = page("```{core-time} rnn\n```")
    cpu = "Intel(R) Xeon(R) Processor"
    assert rows[:6] == [
        ["Run", "Seeds", "Recorded on", "One core"],
        ["rnn-fashion-mnist", "5", cpu, "10.0 min"],
        ["rnn-relu", "5", cpu, "30.0 min"],
        [GPU, "3", "NVIDIA H200: 60 s", "about 3.0 h"],
        ["Sum, recorded on a CPU", "10", "", "40.0 min"],
        ["Sum, recorded on a GPU", "3", "", "about 3.0 h"],
    ]
    assert 'href="#run-rnn-relu"' in html
    text = re.sub("<[^>]+>", "", html)
    assert "$ python -m dian train rnn-relu --out runs\n" in text


def test_the_chapters_are_summed_up(page):
    set_seconds(page.folder, "rnn-fashion-mnist", 3600)
    set_seconds(page.folder, "rnn-relu", 3 * 3600)
    estimate(page.folder, 3 * 3600 / benchmark.total_steps(benchmark.find(GPU)))
    rows, html = page("```{core-time}\n```")
    assert rows[1:6] == [
        ["On rnn", "2", "4.0 h", "0.50", "1", "about 3.0 h"],
        ["On positions", "0", "—", "0.00", "0", "—"],
        ["On attention", "0", "—", "0.00", "0", "—"],
        ["On diffusion", "0", "—", "0.00", "0", "—"],
        ["All chapters", "2", "4.0 h", "0.50", "1", "about 3.0 h"],
    ]
    assert 'href="rnn.html"' in html


def test_a_run_on_a_gpu_without_an_estimate_is_said_to_be_not_measured(page):
    rows, _ = page("```{core-time} rnn\n```")
    assert [rows[3][0], rows[3][3]] == [GPU, "not measured"]
    assert rows[5][3] == "not measured"


def test_the_page_is_read_again_when_a_run_or_an_estimate_is_new(page):
    before, _ = page("```{core-time} rnn\n```")
    shutil.copytree(runs.RECORDED / "rnn-recipe-best", page.folder / "rnn-recipe-best")
    estimate(page.folder, 1.0)
    after, _ = page()
    assert "rnn-recipe-best" in {row[0] for row in after} - {row[0] for row in before}
    assert "not measured" not in {row[3] for row in after if len(row) == 4}
