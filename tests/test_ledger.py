"""Results of the claims are kept while the code is the same, if they are good."""

import json

import pytest

from dian import ledger


def report(chapter, *, passed=True, caught=True):
    mutants = [{"caught": True}, {"caught": caught}]
    return {"chapter": chapter, "passed": passed, "mutants": mutants}


@pytest.fixture
def checked():
    return []


@pytest.fixture
def check(checked):
    def check(chapters):
        checked.append(list(chapters))
        return [report(chapter) for chapter in chapters]

    return check


@pytest.fixture
def keys(monkeypatch):
    keys = {"one": "a", "two": "b"}
    monkeypatch.setattr(ledger, "chapter_keys", lambda: dict(keys))
    return keys


def test_only_what_changed_is_checked_again(tmp_path, keys, check, checked):
    file = tmp_path / "build" / "claims.json"
    first = ledger.renew(file, check)
    assert [one["chapter"] for one in first] == ["one", "two"]
    assert ledger.renew(file, check) == first
    keys["two"] = "changed"
    assert ledger.read(file).keys() == {"one"}
    ledger.renew(file, check)
    assert checked == [["one", "two"], ["two"]]
    del keys["one"]
    assert [one["chapter"] for one in ledger.renew(file, check)] == ["two"]


@pytest.mark.parametrize("bad", [{"passed": False}, {"caught": False}])
def test_what_failed_is_told_and_never_kept(tmp_path, keys, bad):
    file = tmp_path / "claims.json"
    reports = ledger.renew(file, lambda names: [report("one"), report("two", **bad)])
    assert len(reports) == 2
    assert ledger.read(file).keys() == {"one"}


def test_a_result_that_was_edited_into_a_failure_is_not_believed(tmp_path, keys, check):
    file = tmp_path / "claims.json"
    ledger.renew(file, check)
    stored = json.loads(file.read_text())
    stored["one"]["reports"][0]["passed"] = False
    file.write_text(json.dumps(stored))
    assert ledger.read(file).keys() == {"two"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"one": 1}', '{"one": {}}'])
def test_a_damaged_file_means_to_check_again(tmp_path, keys, check, checked, content):
    file = tmp_path / "claims.json"
    file.write_text(content)
    ledger.renew(file, check)
    assert checked == [["one", "two"]]
    assert ledger.read(file).keys() == {"one", "two"}


def test_a_chapter_depends_on_what_its_claims_import(monkeypatch):
    before = ledger.chapter_keys()
    real = ledger.source_key

    def changed(module):
        return real(module) | (
            {"dian.loss": "x"} if "dian.loss" in real(module) else {}
        )

    monkeypatch.setattr(ledger, "source_key", changed)
    after = ledger.chapter_keys()
    moved = {chapter for chapter in before if before[chapter] != after[chapter]}
    assert "rnn" in moved
    assert "positions" not in moved
