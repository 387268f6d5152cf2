"""A mutant meets the checks that execute it, and the first that fails is its killer."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from dian.claims import survival
from dian.claims.generic_mutants import generic_mutants
from dian.claims.survival import Trace, Trial, first_killer
from dian.errors import DianError

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
CODE = """
def double(x):
    return 2 * x

def other(x):
    return x + 1
"""


@dataclass(frozen=True)
class Check:
    """A check of the kind that pytest has collected."""

    name: str
    passes_with: object
    source: Path = Path("tests/test_subject.py")

    def passes(self, following=None):
        return self.passes_with()


@pytest.fixture
def subject(tmp_path, monkeypatch):
    (tmp_path / "subject.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("subject")
    del sys.modules["subject"]


@pytest.fixture
def mutants(subject):
    return {mutant.text: mutant for mutant in generic_mutants("subject")}


@pytest.fixture
def checks(subject):
    return [
        Check("weak", lambda: subject.double(0) == 0),
        Check("strong", lambda: subject.double(4) == 8),
        Check("another", lambda: subject.double(3) == 6),
    ]


@pytest.mark.parametrize(
    ("text", "killer"),
    [
        ("2 * x -> 3 * x", "strong"),
        ("2 * x -> 2 / x", "weak"),
        ("x + 1 -> x - 1", None),
    ],
)
def test_the_first_check_that_fails_or_raises_kills(text, killer, mutants, checks):
    assert first_killer(mutants[text], checks, [60.0] * 3) == killer
    assert all(check.passes() for check in checks)  # here nothing is mutated


def test_a_check_that_fails_by_itself_is_found():
    checks = [Check("good", lambda: True), Check("bad", lambda: False)]
    assert first_killer(None, checks[:1], [60.0]) is None
    assert first_killer(None, checks, [60.0] * 2) == "bad"


def test_no_check_kills_nothing(mutants):
    assert first_killer(mutants["x + 1 -> x - 1"], [], []) is None


def trace(*lines, seconds=0.0):
    return Trace(passed=True, seconds=seconds, lines={"subject": list(lines)})


@pytest.fixture
def trial(checks, monkeypatch):
    monkeypatch.setattr(survival, "files_of_tests", lambda module: [checks[0].source])
    elsewhere = Check("elsewhere", lambda: False, Path("tests/test_other.py"))
    known = {"weak": trace(3), "strong": trace(3, seconds=2.0), "another": trace(3)}
    return Trial([*checks, elsewhere], known | {"elsewhere": trace(3)})


def test_only_tests_of_the_module_that_execute_the_statement_run(trial, mutants):
    tests = trial.tests_of(mutants["2 * x -> 3 * x"])
    assert [test.name for test in tests] == ["weak", "another", "strong"]
    assert trial.tests_of(mutants["x + 1 -> x - 1"]) == []


def test_the_check_that_killed_before_is_the_first(trial, mutants):
    mutant = mutants["2 * x -> 3 * x"]
    assert trial(mutant).killer == "another"  # it is faster
    assert trial(mutant, hint="strong").killer == "strong"
    assert not trial(mutant).claims_apply


def test_what_fails_without_a_mutant_is_an_error(subject, tmp_path):
    checks = [Check("good", lambda: True), Check("bad", lambda: False)]
    checks = [Check(c.name, c.passes_with, Path(subject.__file__)) for c in checks]
    with pytest.raises(DianError, match=r"although nothing is mutated: bad$"):
        survival.traces(checks, 1, tmp_path / "traces.json")


def test_a_trace_is_kept_while_the_source_of_the_check_is_the_same(subject, tmp_path):
    file, source = tmp_path / "traces.json", tmp_path / "source.py"
    source.write_text("x = 1")
    log = tmp_path / "log"

    def passes():
        with log.open("a") as stream:
            stream.write("x")
        return True

    checks = [Check("one", passes, source)]
    for text in ("x = 1", "x = 1", "x = 2"):
        source.write_text(text)
        survival._key.cache_clear()
        found = survival.traces(checks, 1, file)
        assert found["one"].passed
    assert log.read_text() == "xx"
