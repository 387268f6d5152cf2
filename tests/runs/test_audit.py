"""The audit tells of every record and page how it stands, and what moved."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dian import pages
from dian.errors import DianError
from dian.runs import audit as auditor
from dian.runs import code_hash
from dian.runs import record as records
from dian.runs import train as runner

NAME = "rnn-fashion-mnist"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """A copy of a record, which today's code vouches for."""
    shutil.copytree(records.FOLDER / NAME, tmp_path / NAME)
    content = records.load(NAME).content
    modules = records.source_key(content["module"])
    rewrite(tmp_path, key=content["key"] | {"modules": modules}, proofs=[])
    return tmp_path


def rewrite(folder, **fields):
    path = folder / NAME / "record.json"
    content = json.loads(path.read_text()) | fields
    content["checksum"] = records.checksum(content)
    path.write_bytes(records._text(content))


def test_a_fresh_record(folder):
    found = auditor.audit(NAME, folder)
    assert (found["state"], found["problem"], found["reasons"]) == ("fresh", None, [])
    assert found["date"] == records.load(NAME).started[:10]


def test_a_changed_module_is_named(folder):
    key = dict(records.load(NAME).content["key"])
    key["modules"] = records.source_key("dian.experiments.rnn.study")
    key["modules"]["dian.rnn.recurrence"] = "another"
    rewrite(folder, key=key, proofs=[])
    found = auditor.audit(NAME, folder)
    assert (found["state"], found["reasons"]) == (
        "stale",
        ["dian.rnn.recurrence changed"],
    )
    assert found["problem"].endswith(f"revalidate {NAME}, or train it again")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"settings": {"h": 127}}, "setting h 128 -> 127"),
        ({"checksums": {"a.gz": "0"}}, "data file a.gz is new"),
    ],
)
def test_a_changed_setting_or_data_file_is_named(folder, monkeypatch, change, reason):
    experiment = runner.find(NAME)
    settings = replace(experiment.settings, **change.get("settings", {}))
    data = experiment.checksums | change.get("checksums", {})
    other = replace(experiment, settings=settings, checksums=data)
    monkeypatch.setattr(runner, "experiments", lambda: {NAME: other})
    found = auditor.audit(NAME, folder, replay=True)
    assert (found["state"], found["reasons"]) == ("stale", [reason])
    assert found["problem"].endswith("train it again")
    assert found["replay"] is None


def test_a_record_without_its_experiment_is_stale(folder, monkeypatch):
    monkeypatch.setattr(runner, "experiments", dict)
    found = auditor.audit(NAME, folder)
    assert found["state"] == "stale"
    assert f"no experiment '{NAME}'" in found["problem"]


def test_another_version_is_shown_and_is_no_problem(folder, monkeypatch):
    now = auditor._versions(records.load(NAME, folder))
    assert now == []
    monkeypatch.setattr(auditor, "version", lambda name: "0.1")
    found = auditor.audit(NAME, folder)
    assert (found["state"], found["problem"]) == ("fresh", None)
    assert found["versions"][0].startswith("torch 2.")
    assert found["versions"][0].endswith(" -> 0.1")


def test_a_damaged_record_is_told_with_its_name(folder):
    (folder / NAME / "weights.safetensors").write_bytes(b"")
    found = auditor.audit(NAME, folder, replay=True)
    assert found["state"] == "damaged"
    assert "weights.safetensors: expected SHA-256" in found["problem"]


def test_a_replay_compares_the_numbers_and_writes_nothing(folder, real_data):
    path = folder / NAME / "record.json"
    before = path.read_bytes()
    found = auditor.audit(NAME, folder, replay=True)
    assert (found["state"], found["problem"]) == ("fresh", None)
    assert found["replay"] <= 1
    assert path.read_bytes() == before
    replay = json.loads(before)["replay"]
    replay["losses"][6] *= 1 + 3e-5
    rewrite(folder, replay=replay)
    found = auditor.audit(NAME, folder, replay=True)
    assert found["state"] == "differs"
    assert "the replay differs in the loss of step 7" in found["problem"]
    assert found["replay"] > 1


def test_without_the_data_there_is_no_replay_and_it_is_told(folder, monkeypatch):
    def gone(record):
        raise DianError("no data; do this")

    monkeypatch.setattr(runner, "compare", gone)
    found = auditor.audit(NAME, folder, replay=True)
    assert found["problem"] == f"record {NAME} cannot be replayed: no data; do this"


SCRIPT = f'from dian import clipping, records\nrecords.load("{NAME}")\n'


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A gallery of two pages, of which a build has made the first."""
    ignored = shutil.ignore_patterns("__pycache__", "recorded")
    shutil.copytree(ROOT / "dian", tmp_path / "dian", ignore=ignored)
    monkeypatch.setattr(code_hash, "PACKAGE", tmp_path / "dian")
    for part in ("gallery/1_rnn", "docs/gallery/1_rnn"):
        (tmp_path / part).mkdir(parents=True)
    script = tmp_path / "gallery/1_rnn/plot_1_x.py"
    script.write_text(SCRIPT)
    (tmp_path / "gallery/1_rnn/plot_2_y.py").write_text("import dian\n")
    made = tmp_path / "docs/gallery/1_rnn/plot_1_x"
    made.with_suffix(".py.md5").write_text("ran")
    made.with_suffix(".key").write_text(pages.key_of(script))
    return tmp_path


def test_a_page_is_fresh_until_something_in_it_changes(project):
    first, second = auditor.look_at_pages([], project)
    assert (first["name"], first["state"]) == ("1_rnn/plot_1_x", "fresh")
    assert first["records"] == [NAME]
    assert (second["state"], second["records"]) == ("not built", [])
    path = project / "dian/training/clipping.py"
    path.write_text(path.read_text() + "\nx = 1\n")
    first, _ = auditor.look_at_pages([], project)
    assert (first["state"], first["reasons"]) == (
        "stale",
        ["dian.training.clipping changed"],
    )
    assert first["problem"].endswith("make html draws it again")


def test_a_page_is_no_better_than_its_records(project):
    found = auditor.audit(NAME) | {"state": "damaged"}
    first, second = auditor.look_at_pages([found], project)
    assert (first["state"], first["reasons"]) == (
        "stale",
        [f"record {NAME} is damaged"],
    )
    assert first["problem"] is None  # that of the record is told
    assert second["state"] == "not built"


@pytest.mark.parametrize("key", ["", "{", "[1]", "0f3a"])
def test_a_page_of_which_nothing_is_known_is_stale(project, key):
    (project / "docs/gallery/1_rnn/plot_1_x.key").write_text(key)
    first, _ = auditor.look_at_pages([], project)
    assert first["reasons"] == ["nothing tells what it was made of"]


def test_for_machines_it_is_json_and_a_status():
    call = [sys.executable, "-m", "dian", "audit", NAME, "--json"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT)
    told = json.loads(done.stdout)
    [one] = told["records"]
    assert (one["name"], told["pages"]) == (NAME, [])
    assert done.returncode == (one["state"] != "fresh")
