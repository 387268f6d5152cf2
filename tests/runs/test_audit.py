"""The audit reports the status of every record, and what changed."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dian.errors import DianError
from dian.runs import audit as auditor
from dian.runs import experiment as experiments
from dian.runs import train
from dian.runs.audit import audit
from dian.runs.code_hash import source_key
from dian.runs.experiment import find
from dian.runs.record import RECORDED, load, sealed, to_json

NAME = "rnn-fashion-mnist"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """A copy of a record that is fresh."""
    shutil.copytree(RECORDED / NAME, tmp_path / NAME)
    module = find(NAME).module
    key = load(NAME).content["key"] | {"modules": source_key(module)}
    rewrite(tmp_path, module=module, key=key, proofs=[])
    return tmp_path


def rewrite(folder, **fields):
    path = folder / NAME / "record.json"
    content = json.loads(path.read_text()) | fields
    path.write_bytes(to_json(sealed(content)))


def test_a_fresh_record(folder):
    status = audit(NAME, folder)
    assert (status.state, status.problem, status.replay) == ("fresh", None, None)
    assert status.date == load(NAME).started[:10]
    assert status.device == load(NAME).device


def test_a_changed_module_is_named(folder):
    modules = source_key(find(NAME).module) | {"dian.rnn.recurrence": "another"}
    rewrite(folder, key=load(NAME).content["key"] | {"modules": modules})
    status = audit(NAME, folder)
    assert (status.state, status.problem) == (
        "stale",
        f"record {NAME} is stale: dian.rnn.recurrence changed; run: python -m dian "
        f"revalidate {NAME}, or train it again",
    )


@pytest.mark.parametrize(
    ("settings", "checksums", "reason"),
    [
        ({"h": 127}, {}, "setting h 128 -> 127"),
        ({}, {"a.gz": "0"}, "data file a.gz is new"),
    ],
)
def test_a_changed_setting_or_data_file_is_named(
    folder, monkeypatch, settings, checksums, reason
):
    found = find(NAME)
    other = replace(
        found,
        settings=replace(found.settings, **settings),
        checksums=found.checksums | checksums,
    )
    monkeypatch.setattr(experiments, "experiments", lambda: {NAME: other})
    status = audit(NAME, folder, replay=True)
    assert (status.state, status.replay) == ("stale", None)
    assert status.problem == f"record {NAME} is stale: {reason}; train it again"


def test_a_record_without_its_experiment_is_stale(folder, monkeypatch):
    monkeypatch.setattr(experiments, "experiments", dict)
    status = audit(NAME, folder)
    assert status.state == "stale"
    assert f"no experiment '{NAME}'" in status.problem


def test_another_version_is_shown_and_is_no_problem(folder, monkeypatch):
    assert audit(NAME, folder).versions == []
    monkeypatch.setattr(auditor, "versions", lambda *names: dict.fromkeys(names, "0.1"))
    status = audit(NAME, folder)
    assert (status.state, status.problem) == ("fresh", None)
    assert status.versions[0].startswith("torch 2.")
    assert status.versions[0].endswith(" -> 0.1")


def test_damage_is_reported_and_a_wrong_name_is_an_error(folder):
    (folder / NAME / "weights.safetensors").write_bytes(b"")
    status = audit(NAME, folder, replay=True)
    assert status.state == "damaged"
    assert "weights.safetensors: expected SHA-256" in status.problem
    with pytest.raises(DianError, match="no record 'rnn'"):
        audit("rnn", folder)


def test_a_replay_compares_the_numbers_and_writes_nothing(folder, real_data):
    path = folder / NAME / "record.json"
    before = path.read_bytes()
    status = audit(NAME, folder, replay=True)
    assert (status.state, status.problem) == ("fresh", None)
    assert status.replay <= 1
    assert path.read_bytes() == before
    replay = json.loads(before)["replay"]
    replay["losses"][6] *= 1 + 3e-5
    rewrite(folder, replay=replay)
    status = audit(NAME, folder, replay=True)
    assert status.state == "differs"
    assert "the replay differs in the loss of step 7" in status.problem
    assert status.replay > 1


def test_without_the_data_there_is_no_replay_and_the_reason_is_given(
    folder, monkeypatch
):
    def gone(record):
        raise DianError("no data; do this")

    monkeypatch.setattr(train, "compare", gone)
    status = audit(NAME, folder, replay=True)
    assert status.problem == f"record {NAME} cannot be replayed: no data; do this"


def test_the_command_prints_json_and_has_a_status():
    call = [sys.executable, "-m", "dian", "audit", NAME, "--json"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT)
    [status] = json.loads(done.stdout)
    assert status["name"] == NAME
    assert done.returncode == (status["state"] != "fresh")
    assert done.stderr.count("\n") == done.returncode
