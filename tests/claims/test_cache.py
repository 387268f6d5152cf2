"""Results of the claims are kept while the code is the same, if they are good."""

import json
import shutil

import pytest

from dian.claims import cache as ledger


def report(chapter, *, passed=True, caught=True):
    mutants = [{"caught": True}, {"caught": caught}]
    of_chapter = {"id": chapter.upper(), "chapter": chapter}
    return of_chapter | {"passed": passed, "mutants": mutants}


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


def test_a_chapter_that_is_gone_is_not_reported(tmp_path, keys, check, checked):
    file = tmp_path / "claims.json"
    ledger.renew(file, check)
    del keys["one"]
    assert [one["chapter"] for one in ledger.renew(file, check)] == ["two"]
    assert checked == [["one", "two"]]


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


def moved(before):
    after = ledger.chapter_keys()
    return {chapter for chapter in before if before[chapter] != after[chapter]}


@pytest.mark.parametrize(
    ("module", "chapters"),
    [
        ("dian.training.loss", {"rnn.recurrence", "rnn.vanishing", "training.loop"}),
        (
            "dian.claims.positions.sinusoidal",
            {"positions.sinusoidal", "positions.alibi"},
        ),
    ],
)
def test_a_chapter_depends_on_every_byte_of_what_it_imports(
    monkeypatch, tmp_path, module, chapters
):
    """Even on a comment: the site shows the code as it is written."""
    before, real = ledger.chapter_keys(), ledger.module_path
    changed = tmp_path / "changed.py"
    changed.write_bytes(real(module).read_bytes() + b"# a comment\n")
    monkeypatch.setattr(
        ledger, "module_path", lambda name: changed if name == module else real(name)
    )
    assert moved(before) == chapters


def test_a_chapter_depends_on_the_records_that_it_reads(monkeypatch, tmp_path):
    folder = tmp_path / "recorded"
    shutil.copytree(ledger.records.FOLDER, folder)
    monkeypatch.setattr(ledger.records, "FOLDER", folder)
    before = ledger.chapter_keys()
    with (folder / "rnn-fashion-mnist" / "record.json").open("a") as file:
        file.write("\n")
    assert moved(before) == {"training.loop"}


@pytest.mark.parametrize("package", ["torch", "scikit-learn", "sympy", "mpmath"])
def test_a_chapter_depends_on_what_the_claims_compute_with(monkeypatch, package):
    before, real = ledger.chapter_keys(), ledger.version

    def without(name):
        if name == package:
            raise ledger.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(ledger, "version", without)
    assert moved(before) == set(before)
