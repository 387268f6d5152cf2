"""Results of the claims are kept while the code is the same, if they are good."""

import json

import pytest

from dian.claims import cache
from dian.errors import DianError


def report(chapter, *, passed=True, caught=True):
    mutants = [{"caught": True}, {"caught": caught}]
    identity = {"id": chapter.upper(), "chapter": chapter}
    return identity | {"passed": passed, "mutants": mutants}


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
    monkeypatch.setattr(cache, "chapter_keys", lambda: dict(keys))
    return keys


def test_only_what_changed_is_checked_again(tmp_path, keys, check, checked):
    file = tmp_path / "build" / "claims.json"
    first = cache.renew(file, check)
    assert [one["chapter"] for one in first] == ["one", "two"]
    assert cache.renew(file, check) == first
    keys["two"] = "changed"
    assert cache.read(file).keys() == {"one"}
    assert cache.renew(file, check) == first
    assert checked == [["one", "two"], ["two"]]


def test_a_file_of_claims_that_is_gone_is_not_reported(tmp_path, keys, check, checked):
    file = tmp_path / "claims.json"
    cache.renew(file, check)
    del keys["one"]
    assert [one["chapter"] for one in cache.renew(file, check)] == ["two"]
    assert checked == [["one", "two"]]


@pytest.mark.parametrize("bad", [{"passed": False}, {"caught": False}])
def test_what_failed_is_reported_and_never_kept(tmp_path, keys, bad):
    file = tmp_path / "claims.json"
    reports = cache.renew(file, lambda names: [report("one"), report("two", **bad)])
    assert [one["chapter"] for one in reports] == ["one", "two"]
    assert cache.read(file).keys() == {"one"}


def test_a_result_that_was_edited_into_a_failure_is_not_believed(tmp_path, keys, check):
    file = tmp_path / "claims.json"
    cache.renew(file, check)
    stored = json.loads(file.read_text())
    stored["one"]["reports"][0]["passed"] = False
    file.write_text(json.dumps(stored))
    assert cache.read(file).keys() == {"two"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"one": 1}', '{"one": {}}'])
def test_after_damage_everything_is_checked_again(
    tmp_path, keys, check, checked, content
):
    file = tmp_path / "claims.json"
    file.write_text(content)
    cache.renew(file, check)
    assert checked == [["one", "two"]]
    assert cache.read(file).keys() == {"one", "two"}


def test_a_file_that_cannot_be_written_is_one_clear_line(tmp_path, keys, check):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DianError, match=r"cannot be written .* with --results$"):
        cache.renew(tmp_path / "file" / "claims.json", check)


def moved(before):
    after = cache.chapter_keys()
    return {chapter for chapter in before if before[chapter] != after[chapter]}


@pytest.mark.parametrize(
    ("module", "chapters"),
    [
        (
            "dian.training.loss",
            {
                "rnn.networks",
                "rnn.recurrence",
                "rnn.truncated",
                "rnn.vanishing",
                "training.loop",
            },
        ),
        (
            "dian.claims.positions.sinusoidal",
            {"positions.sinusoidal", "positions.alibi", "positions.registry"},
        ),
    ],
)
def test_a_chapter_depends_on_every_byte_of_what_it_imports(
    monkeypatch, tmp_path, module, chapters
):
    """Even on a comment: the site shows the code as it is written."""
    before, real = cache.chapter_keys(), cache.byte_key
    monkeypatch.setattr(
        cache,
        "byte_key",
        lambda name: {k: "0" if k == module else v for k, v in real(name).items()},
    )
    assert moved(before) == chapters


def test_a_chapter_depends_on_the_records_that_it_reads(monkeypatch):
    before, real = cache.chapter_keys(), cache.hashes_of
    name = "rnn-fashion-mnist/record.json"
    monkeypatch.setattr(
        cache,
        "hashes_of",
        lambda names: {k: "0" if k == name else v for k, v in real(names).items()},
    )
    assert moved(before) == {"training.loop", "training.metrics"}


@pytest.mark.parametrize("package", cache.PEERS)
def test_a_chapter_depends_on_what_the_claims_compute_with(monkeypatch, package):
    before, real = cache.chapter_keys(), cache.versions
    monkeypatch.setattr(
        cache, "versions", lambda *names: real(*names) | {package: None}
    )
    assert moved(before) == set(before)
