"""The page of the benchmarks: tables that are read from a record, with their marks."""

import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from benchmarks import report
from benchmarks import site as builds
from benchmarks.cases import Place
from benchmarks.limits import Limits
from benchmarks.timing import Against, Result
from dian.runs.record import Record
from dian_sphinx.gallery import TO_RUN

RESULTS = {
    "fast": Result("a fast case", "ms", 2.0, {"peer": Against(9.0, [4.5], 1.5, 0.0)}),
    "slow": Result(
        "a slow case",
        "MiB",
        8.0,
        {"copy": Against(1.0, [0.125]), "peer": Against(4.0, [0.5], 1.2, 0.0)},
    ),
}
TABLE = "```{benchmarks} benchmarks-cpu\nslow\nfast\n```"


def write(folder: Path) -> Record:
    place = Place(torch.device("cpu"), "tiny")
    return report.write(
        folder / "benchmarks-cpu",
        "make bench",
        datetime.now(UTC),
        report.settings(RESULTS, place, 2, 0.0),
        report.metrics(RESULTS, Limits(1e9, 1e9)),
        {},
        report.environment(place),
        report.timed_modules(["recurrent"]),
    )


def test_each_row_has_its_mark_and_no_number_is_typed(site):
    write(site.records)
    assert site.build(TABLE) == ""
    rows = [
        [re.sub("<.*?>", "", cell).strip() for cell in re.findall("<td.*?</td>", row)]
        for row in re.findall("<tr.*?</tr>", site.html.replace("\n", ""))
    ]
    assert rows[1:] == [
        ["a slow case", "peer", "8 MiB", "4 MiB", "0.50 (0.50 to 0.50)",
         "at least 1.2", "✗"],
        ["", "copy", "8 MiB", "1 MiB", "0.12 (0.12 to 0.12)", "", ""],
        ["a fast case", "peer", "2 ms", "9 ms", "4.50 (4.50 to 4.50)",
         "at least 1.5", "✓"],
    ]  # fmt: skip


def test_without_names_all_cases_are_shown(site):
    write(site.records)
    assert site.build("```{benchmarks} benchmarks-cpu\n```") == ""
    assert site.html.count("<tr") == 4


def test_a_record_that_is_not_there_is_said_to_be_missing(site):
    assert site.build(TABLE) == ""
    assert "Not measured yet." in site.html


def test_an_unknown_case_is_a_warning(site):
    write(site.records)
    with pytest.raises(Exception, match="no value 'settings/quick'"):
        site.build("```{benchmarks} benchmarks-cpu\nquick\n```")


def test_the_builds_are_shown(site, capsys):
    assert site.build("```{builds} benchmarks-site\n```") == ""
    assert "Not measured yet." in site.html
    metrics = {
        f"{build}/{number}": [float(10 * i + j)]
        for i, build in enumerate(builds.BUILDS)
        for j, number in enumerate(("seconds", "mib", "pages", "scripts"))
    }
    environment = report.environment(Place(torch.device("cpu")))
    builds.write(site.records, datetime.now(UTC), metrics, environment)
    assert str(site.records) in capsys.readouterr().out
    assert site.build("Now it is there.\n\n```{builds} benchmarks-site\n```") == ""
    found = re.findall(r'class="result">(\d+)<', site.html)
    assert found == [str(10 * i + j) for i in range(5) for j in range(4)]
    assert 'class="provenance"' in site.html


def test_a_build_is_watched_and_counted(tmp_path):
    code = (
        "x = bytearray(60 << 20); import time; time.sleep(1);"
        f"print('2 added, 3 changed, 0 removed'); print({TO_RUN % (4, 9)!r})"
    )
    one = builds.build(tmp_path, [sys.executable, "-c", code])
    assert (one.pages, one.scripts) == (5, 4)
    assert one.seconds > 1
    assert one.mib > 60
    with pytest.raises(SystemExit, match=r"no luck\s+.*the build failed"):
        builds.build(tmp_path, [sys.executable, "-c", "raise SystemExit('no luck')"])


def test_every_edit_of_the_site_changes_a_file(root, tmp_path):
    for name in ("docs", "gallery/1_rnn", "dian/figures"):
        (tmp_path / name).mkdir(parents=True)
    paths = (
        "docs/installation.md",
        "gallery/1_rnn/plot_1_forward.py",
        "dian/figures/plots.py",
    )
    for path in paths:
        shutil.copy(root / path, tmp_path / path)
    for edit in builds.BUILDS.values():
        edit(tmp_path)
    for path in paths:
        before, after = (root / path).read_text(), (tmp_path / path).read_text()
        assert after.startswith(before)
        assert len(after) > len(before)


def test_a_build_is_timed_with_the_whole_library():
    """Not with modules of the environment in place of those that are left out."""
    assert "runs" in builds.left_out(str(builds.ROOT), ["runs", "dian"])
    assert builds.left_out(str(builds.ROOT / "dian"), ["runs", "__pycache__"]) == {
        "__pycache__"
    }
