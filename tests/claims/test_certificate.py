"""The certificate counts what it should, and no survivor is without a reason."""

import json
import subprocess
import sys

import pytest

from dian.claims import certificate
from dian.claims.checks import ClaimCheck
from dian.claims.generic_mutants import generic_mutants
from dian.claims.survival import Outcome, modules
from dian.claims.verify import claims
from dian.errors import DianError
from dian.runs.freshness import stale

MUTANTS = generic_mutants("dian.training.schedules")[:4]
OUTCOMES = dict(
    zip(
        MUTANTS,
        [
            Outcome("R17", by_claim=True, claims_apply=True),
            Outcome("tests/test_x.py::test", by_claim=False, claims_apply=True),
            Outcome("tests/test_x.py::test", by_claim=False, claims_apply=False),
            Outcome(None, by_claim=False, claims_apply=False),
        ],
        strict=True,
    )
)
SURVIVOR = MUTANTS[3]
WITHOUT = r"^1 mutants survive without a reason"


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Write the table of reasons."""

    def table(rows):
        file = tmp_path / "survivors.toml"
        file.write_text(rows, "utf-8")
        monkeypatch.setattr(certificate, "REASONS", file)
        monkeypatch.setattr(certificate, "reasons", lambda: read(file))

    read = certificate.reasons
    return table


@pytest.fixture
def run(monkeypatch, tmp_path, table):
    """Run the certificate with these outcomes."""
    monkeypatch.setattr(certificate, "certify", lambda *_: OUTCOMES)
    monkeypatch.setattr(certificate, "BUILD", tmp_path / "build")
    monkeypatch.setattr(certificate, "GOAL", 0.75)
    monkeypatch.setattr(certificate, "GOAL_OF_CLAIMS", 0.5)

    def run(rows, folder=tmp_path / "records"):
        table(rows)
        certificate.run_all(MUTANTS, 1, folder, "abc")

    return run


def explained(reason="it is equivalent"):
    return certificate.as_table([SURVIVOR]).replace('""', json.dumps(reason))


def test_a_survivor_without_a_reason_is_an_error(run, tmp_path, capsys):
    for rows in ("", explained("")):
        with pytest.raises(DianError, match=WITHOUT):
            run(rows)
    assert not (tmp_path / "records").exists()
    assert json.dumps(SURVIVOR.text) in capsys.readouterr().out


def test_a_reason_without_a_survivor_is_an_error(run, tmp_path):
    rows = certificate.as_table(MUTANTS[2:]).replace('""', '"never"')
    with pytest.raises(DianError, match=r"no such survivor: dian\.training"):
        run(rows)
    assert not (tmp_path / "records").exists()


def test_the_record_holds_the_killers_and_the_reasons(run, tmp_path):
    run(explained())
    record = certificate.load(certificate.NAME, tmp_path / "records")
    killers = certificate.killers(record)
    assert killers == {str(m): o.killer for m, o in OUTCOMES.items()}
    survivors = record.content["survivors"]["dian.training.schedules"]
    assert survivors == {SURVIVOR.function: {SURVIVOR.text: "it is equivalent"}}
    assert stale(record) == []
    assert {"dian.claims.verify", "dian.training.schedules", "dian.training"} < set(
        record.content["key"]["modules"]
    )


@pytest.mark.parametrize(
    ("goal", "told"),
    [
        ("GOAL", "all/killed is 75.0%; a certificate needs 95%"),
        ("GOAL_OF_CLAIMS", "all/killed-by-claims is 50.0%; a certificate needs 95%"),
    ],
)
def test_too_few_killed_mutants_give_no_record(run, tmp_path, monkeypatch, goal, told):
    monkeypatch.setattr(certificate, goal, 0.95)
    with pytest.raises(DianError, match=told):
        run(explained())
    assert not (tmp_path / "records").exists()


def test_a_check_that_always_fails_kills_nothing(monkeypatch):
    """Neither in the whole run nor in a sample, which trusts the record."""
    check = ClaimCheck(claims()["R17"])
    monkeypatch.setattr(certificate, "with_checks", lambda _, work: work([check]))
    monkeypatch.setattr(certificate, "spread", lambda call, some, _: map(call, some))
    monkeypatch.setattr(certificate, "first_killer", lambda *_: "R17")
    hints = {str(mutant): "R17" for mutant in MUTANTS}
    with pytest.raises(DianError, match="fail although nothing is mutated: R17"):
        certificate.confirm(MUTANTS, hints, 1)
    fails = {None: None}  # without a mutant it passes now
    monkeypatch.setattr(
        certificate, "first_killer", lambda mutant, *_: fails.get(mutant, "R17")
    )
    assert certificate.confirm(MUTANTS, hints, 1) == []


def test_the_counts():
    found = certificate.metrics(OUTCOMES)
    expected = {
        "mutants": 4,
        "by-claims": 1,
        "by-tests": 2,
        "survived": 1,
        "claims-apply": 2,
        "killed": 0.75,
        "killed-by-claims": 0.5,
    }
    for scope in ("all", "training", "training.schedules"):
        assert {key: found[f"{scope}/{key}"] for key in expected} == {
            key: [value] for key, value in expected.items()
        }
    assert found["half-1/mutants"] == found["half-2/mutants"] == [2]


def test_a_sample_skips_what_has_a_reason_and_reports_the_rest(table, monkeypatch):
    tried = []

    def confirm(mutants, hints, jobs):
        tried.extend(mutants)
        return mutants[1:]

    monkeypatch.setattr(certificate, "confirm", confirm)
    monkeypatch.setattr(
        certificate, "certify", lambda some, *_: {m: OUTCOMES[m] for m in some}
    )
    table(explained())
    certificate.run_sample(MUTANTS, 1)
    assert tried == MUTANTS[:3]
    table("")
    with pytest.raises(DianError, match=WITHOUT):
        certificate.run_sample(MUTANTS, 1)


def test_every_reason_is_that_of_a_mutant():
    known = {str(m) for module in modules() for m in generic_mutants(module)}
    assert certificate.reasons().keys() <= known
    assert all(certificate.reasons().values())


def test_the_recorded_certificate_is_of_all_modules_and_reaches_the_goals():
    record = certificate.load(certificate.NAME)
    assert record.content["mutants"].keys() == {
        m for m in modules() if generic_mutants(m)
    }
    assert record.value("all/killed") >= certificate.GOAL
    assert record.value("all/killed-by-claims") >= certificate.GOAL_OF_CLAIMS
    assert abs(record.value("half-1/killed") - record.value("half-2/killed")) < 0.02


@pytest.mark.slow
def test_the_whole_way_for_one_function():
    """In a process of its own: here the checks of shapes are at work."""
    command = [sys.executable, "-m", "dian.claims.certificate", "--jobs", "2"]
    done = subprocess.run(
        [*command, "rnn.recurrence.output_forward"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "100.0%" in done.stdout
