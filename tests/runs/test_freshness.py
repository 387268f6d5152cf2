"""A record is stale when its code changed, unless a replay has proved it irrelevant."""

import ast
import shutil

import pytest

from dian.runs import code_hash
from dian.runs.code_hash import source_key
from dian.runs.freshness import changes, stale, why_stale
from dian.runs.record import RECORDED, add_proof, load, record_names, sealed, to_json

NAME = "rnn-fashion-mnist"
MODULE = "dian.experiments.rnn.study"


@pytest.fixture
def record(tmp_path):
    """A copy of a record, made with other code than today's."""
    shutil.copytree(RECORDED / NAME, tmp_path / NAME)
    content = load(NAME).content
    modules = source_key(MODULE) | {"dian.rnn.recurrence": "another", "dian.gone": "0"}
    del modules["dian.training.loss"]
    key = content["key"] | {"modules": modules}
    content = sealed(content | {"module": MODULE, "key": key, "proofs": []})
    (tmp_path / NAME / "record.json").write_bytes(to_json(content))
    return load(NAME, tmp_path)


def test_the_recorded_runs_are_fresh():
    assert {name: why_stale(name) for name in record_names()} == dict.fromkeys(
        record_names()
    )


def test_the_reasons_name_the_modules_and_a_proof_makes_it_fresh(record):
    reasons = [
        *("dian.gone is gone", "dian.rnn.recurrence changed"),
        "dian.training.loss is new",
    ]
    assert stale(record) == reasons
    assert why_stale(NAME, record.folder.parent) == (
        f"record {NAME} is stale: {', '.join(reasons)}; "
        f"run: python -m dian revalidate {NAME}, or train it again"
    )
    add_proof(record, {"modules": source_key(MODULE)}, MODULE)
    assert stale(load(NAME, record.folder.parent)) == []
    assert why_stale(NAME, record.folder.parent) is None


def test_the_last_proof_is_what_is_compared(record):
    modules = source_key(MODULE) | {"dian.errors": "another"}
    add_proof(record, {"modules": modules}, MODULE)
    assert stale(load(NAME, record.folder.parent)) == ["dian.errors changed"]


def test_damage_is_a_reason_too(record):
    (record.folder / "weights.safetensors").write_bytes(b"")
    told = why_stale(NAME, record.folder.parent)
    assert "weights.safetensors: expected SHA-256" in told


def test_a_benchmark_depends_on_the_modules_that_it_timed(tmp_path):
    content = load("benchmarks-cpu").content
    modules = {"dian.errors": source_key("dian.errors")["dian.errors"]}
    for state in (modules, {"dian.errors": "another"}, modules | {"dian.gone": "0"}):
        key = content["key"] | {"modules": state}
        folder = tmp_path / "benchmarks-cpu"
        folder.mkdir(exist_ok=True)
        (folder / "record.json").write_bytes(to_json(sealed(content | {"key": key})))
        told = why_stale("benchmarks-cpu", tmp_path)
        if state is modules:
            assert told is None
        else:
            assert told.endswith("; run: make bench")


@pytest.mark.parametrize(
    ("before", "today", "expected"),
    [
        ({}, {}, []),
        ({"a": "0"}, {"a": "0"}, []),
        (
            {"a": "0", "b": "1"},
            {"b": "2", "c": "3"},
            ["a is gone", "b changed", "c is new"],
        ),
    ],
)
def test_changes(before, today, expected):
    assert changes(before, today) == expected


def test_every_file_is_parsed_once_for_all_records(monkeypatch):
    parsed, real = [], ast.parse
    code_hash._parse.cache_clear()
    monkeypatch.setattr(
        code_hash.ast, "parse", lambda text: parsed.append(text) or real(text)
    )
    for _ in range(2):
        for name in record_names():
            why_stale(name)
    assert len(parsed) == code_hash._parse.cache_info().currsize > 20
