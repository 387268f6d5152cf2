"""Every claim holds, every planted bug is rejected, and neither can be hidden."""

import json
import math
import re
import subprocess
import sys

import pytest

import dian.claims
from dian.claims import Mutant, claim
from dian.claims import verify as verifier
from dian.claims.compare import complex_step, holds, largest, relative
from dian.errors import DianError

CLAIMS = verifier.claims()
PLANTED = [(one, mutant) for one in CLAIMS.values() for mutant in one.mutants]


@pytest.mark.parametrize("one", CLAIMS.values(), ids=lambda one: one.id)
def test_claim(one):
    result = verifier.verify(one)
    assert result.error is None
    assert result.residual <= one.tolerance


@pytest.mark.parametrize(
    ("one", "mutant"), PLANTED, ids=[f"{o.id}-{m.what}" for o, m in PLANTED]
)
def test_mutant(one, mutant):
    assert verifier.caught(mutant, verifier.plant(one, mutant))


def test_the_difference_is_relative_to_the_largest_entry():
    import torch

    a, b = torch.tensor([1.0, 200.0]), torch.tensor([1.0, 100.0])
    assert relative(a, b) == 1.0
    assert relative(a / 1000, b / 1000) == pytest.approx(0.1)  # not below 1
    assert math.isnan(relative(torch.tensor([math.nan, 0.0]), b))
    with pytest.raises(ValueError, match="shapes"):
        relative(a, b[:1])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_nan_is_never_lost(place):
    residuals = [0.0, 1.0, 2.0]
    residuals[place] = math.nan
    assert math.isnan(largest(residuals))
    assert holds(False) == math.inf
    assert holds(True) == 0


def test_the_complex_step_is_exact():
    import torch

    x = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    found = complex_step(lambda z: (torch.sin(z) * z).sum(), x)
    torch.testing.assert_close(found, x.cos() * x + x.sin(), rtol=0, atol=1e-15)


ANY = (Mutant("any", "", ""),)


def one_claim(check, tolerance=1e-3, mutants=ANY):
    marked = claim(
        "X1",
        "a claim",
        equations=("eq-x",),
        kinds="E",
        tolerance=tolerance,
        source="none",
        subjects=(dian.claims,),
        mutants=mutants,
    )(check)
    return marked.claim


@pytest.mark.parametrize("residual", [math.nan, math.inf, 2e-3])
def test_what_is_not_within_the_tolerance_fails(residual):
    assert not verifier.verify(one_claim(lambda _: residual)).passed


def test_a_check_that_raises_fails_and_tells_why():
    result = verifier.verify(one_claim(lambda _: 1 / 0))
    assert not result.passed
    assert result.error == "ZeroDivisionError: division by zero"


def test_a_mutant_that_no_longer_fits_the_source_is_an_error():
    gone = one_claim(lambda _: 0.0, mutants=(Mutant("gone", "not there at all", ""),))
    with pytest.raises(DianError, match=r"'gone' replaces .* holds it 0 times"):
        verifier.plant(gone, gone.mutants[0])


def test_a_mutant_that_does_not_fit_is_reported_as_not_caught():
    def check(_):
        return 0.0

    gone = one_claim(check, mutants=(Mutant("gone", "not there at all", ""),))
    (told,) = verifier.report(gone, mutants=True)["mutants"]
    assert told["caught"] is False
    assert "0 times" in told["by"]


def planted(check, **mutant):
    """Report a claim about this very module with one bug in its check."""
    one = one_claim(check, mutants=(Mutant("any", module=__name__, **mutant),))
    (told,) = verifier.report(one, mutants=True)["mutants"]
    return told


RIGHT = "sum([1, " + "-1])"  # so that it stands once


def right(_):
    return sum([1, -1])


@pytest.mark.parametrize(
    ("new", "by"),
    [
        ("no_such_name", "NameError: name 'no_such_name' is not defined"),
        ("sum(1)", "TypeError: 'int' object is not iterable"),
        ("sum([1", "leaves no module test_claims: SyntaxError"),
        ("sum([2, -2])", "residual 0.0e+00"),
    ],
)
def test_a_mutant_that_rots_is_not_caught(new, by):
    told = planted(right, old=RIGHT, new=new)
    assert told["caught"] is False
    assert by in told["by"]


@pytest.mark.parametrize(
    ("new", "raises", "caught"),
    [
        ("sum([1])", None, True),
        ("math.nan", None, True),
        ("sum([1])", "TypeError", True),
        ("sum(1)", "TypeError", True),
        ("sum(1)", "RuntimeError", False),
        ("1 / 0", "ArithmeticError", False),  # its parent is another name
    ],
)
def test_a_mutant_is_caught_by_a_residual_or_by_the_error_it_announces(
    new, raises, caught
):
    told = planted(right, old=RIGHT, new=new, raises=raises)
    assert told["caught"] is caught


def test_no_claim_and_no_mutant_vanishes_unseen(monkeypatch):
    monkeypatch.setitem(dian.claims.EXPECTED, "R99", 1)
    monkeypatch.setitem(dian.claims.EXPECTED, "R1", 99)
    monkeypatch.delitem(dian.claims.EXPECTED, "P1")
    told = "claim P1 is new, .* claim R1 has 4 mutants, expected 99, claim R99 is gone"
    with pytest.raises(DianError, match=told):
        verifier.claims()


def test_a_claim_without_a_mutant_is_refused(monkeypatch):
    from dian.claims.positions import sinusoidal

    bare = one_claim(lambda _: 0.0, mutants=())
    monkeypatch.setattr(sinusoidal, "bare", bare.check, raising=False)
    with pytest.raises(DianError, match="claim X1 has no mutant"):
        verifier.claims()


def test_an_id_stands_once(monkeypatch):
    from dian.claims.positions import sinusoidal

    monkeypatch.setattr(sinusoidal, "again", sinusoidal.sinusoidal, raising=False)
    assert verifier.claims()  # the same function under two names is one claim
    other = one_claim(lambda _: 0.0)
    object.__setattr__(other, "id", "P1")
    monkeypatch.setattr(sinusoidal, "other", other.check, raising=False)
    with pytest.raises(DianError, match="claim P1 stands twice"):
        verifier.claims()


def verify(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "dian", "verify", *arguments],
        capture_output=True,
        text=True,
    )


def test_the_command_line_prints_a_table():
    done = verify("R2", "A3", "--mutants")
    assert done.returncode == 0, done.stderr
    assert re.search(r"R2 .*✓", done.stdout)
    assert "2 claims hold, 6 of 6 planted bugs were caught" in done.stdout


def test_the_command_line_tells_all_as_json():
    done = verify("R2", "--json", "--mutants")
    (told,) = json.loads(done.stdout)
    assert told["id"] == "R2"
    assert told["passed"] is True
    assert [m["caught"] for m in told["mutants"]] == [True, True]


def test_an_unknown_claim_lists_the_nearest():
    done = verify("R22")
    assert done.returncode == 1
    assert done.stderr.startswith("dian: no claim 'R22'; nearest: R2")
