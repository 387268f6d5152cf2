"""Every claim holds, every mutant is killed, and neither can be hidden."""

import importlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dian.claims
from dian.claims import Mutant, claim
from dian.claims import verify as verifier
from dian.claims.compare import complex_step, holds, largest, relative
from dian.errors import DianError

ROOT = Path(__file__).parents[2]
CLAIMS = verifier.claims()
MUTANTS = [(one.id, mutant.what) for one in CLAIMS.values() for mutant in one.mutants]


def verify(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "dian", "verify", *arguments],
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def reports():
    """Verify all claims once, for the site as well.

    In another process: the tests check the shapes of arguments, and some mutants would
    fail on that and not on the check of their claim.
    """
    done = verify("--json", "--results", str(ROOT / "build/claims.json"))
    return {one["id"]: one for one in json.loads(done.stdout)}


@pytest.mark.parametrize("name", CLAIMS)
def test_claim(name, reports):
    one = reports[name]
    assert one["error"] is None
    assert one["residual"] <= CLAIMS[name].tolerance


@pytest.mark.parametrize(("name", "what"), MUTANTS)
def test_mutant(name, what, reports):
    (told,) = [m for m in reports[name]["mutants"] if m["what"] == what]
    assert told["caught"], told["by"]


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


ANY = (Mutant("any", "f", "1", "2"),)


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
    assert not verifier.verify(one_claim(lambda: residual)).passed


def test_a_residual_that_depends_on_chance_is_the_same_every_time():
    state = torch.get_rng_state()
    one = one_claim(lambda: torch.rand(()))
    found = [verifier.verify(one).residual for _ in range(2)]
    assert found[0] == found[1] > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_a_check_that_raises_fails_and_tells_why():
    result = verifier.verify(one_claim(lambda: 1 / 0))
    assert not result.passed
    assert result.error == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("at", "old", "new", "told"),
    [
        ("gone", "1", "2", "there is no definition of 'gone'"),
        ("claim", "gone(1)", "2", "'claim' contains 'gone(1)' 0 times, expected once"),
        ("claim", "check", "2", "'claim' contains 'check' 3 times, expected once"),
        ("claim", "mark", "(mark)", "'(mark)' is the same code as 'mark'"),
        ("KINDS", "{", "", "'{' is not Python: '{' was never closed"),
    ],
)
def test_a_mutant_that_does_not_fit_is_an_error_and_not_killed(at, old, new, told):
    def check():
        return 0.0

    mutant = Mutant("no bug", at, old, new)
    unfit = one_claim(check, mutants=(mutant,))
    told = f"mutant 'no bug' of dian.claims: {told}"
    with pytest.raises(DianError, match=re.escape(told)):
        verifier.run_mutant(unfit, mutant)
    (reported,) = verifier.report(unfit, mutants=True)["mutants"]
    assert reported["caught"] is False
    assert reported["by"].startswith(told)


def mutated(check, **mutant):
    """Report a claim about this very module with one mutant of its check."""
    mutants = (Mutant("any", check.__name__, module=__name__, **mutant),)
    (told,) = verifier.report(one_claim(check, mutants=mutants), mutants=True)[
        "mutants"
    ]
    return told


def right():
    return sum([1, -1])


RIGHT = "sum([1, -1])"


@pytest.mark.parametrize(
    ("new", "by"),
    [
        ("no_such_name", "NameError: name 'no_such_name' is not defined"),
        ("sum(1)", "TypeError: 'int' object is not iterable"),
        ("sum([1", "'sum([1' is not Python: '[' was never closed"),
        ("(yield)", "TypeError: float() argument must be"),
        ("return = 1", "is not Python: invalid syntax"),
        ("sum([2, -2])", "residual 0.0e+00"),
    ],
)
def test_a_mutant_that_is_outdated_is_not_killed(new, by):
    told = mutated(right, old=RIGHT, new=new)
    assert told["caught"] is False
    assert by in told["by"]


def test_a_mutant_that_cannot_be_loaded_is_an_error():
    told = "mutant 'no bug' of dian.claims cannot be loaded: NameError: name 'no_such"
    mutant = Mutant("no bug", "KINDS", '"recorded run"', "no_such_name")
    with pytest.raises(DianError, match=told):
        verifier.load_mutant("dian.claims", mutant)


def test_the_report_tells_what_was_changed_and_where():
    told = mutated(right, old=RIGHT, new="sum([1])")
    assert told == {
        "what": "any",
        "at": "right",
        "old": RIGHT,
        "new": "sum([1])",
        "caught": True,
        "by": "residual 1.0e+00",
    }


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
def test_a_mutant_is_killed_by_a_residual_or_by_the_error_it_declares(
    new, raises, caught
):
    told = mutated(right, old=RIGHT, new=new, raises=raises)
    assert told["caught"] is caught


SUBJECT = """
LIMIT = 3


def outer(x):
    def inner(y):
        return y + 1

    return inner(x)


class Layer:
    def forward(self, x):
        return outer(x) * LIMIT

    @staticmethod
    def scale(x):
        return 7 * x

    def __repr__(self):
        return super().__repr__()
"""


@pytest.fixture
def subject(tmp_path, monkeypatch):
    """A module that others import."""
    (tmp_path / "subject.py").write_text(SUBJECT)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("subject")
    del sys.modules["subject"]


@pytest.mark.parametrize(
    ("at", "old", "new", "expected"),
    [
        ("outer", "y + 1", "y + 2", (3, 9, 7)),  # a nested function
        ("Layer.forward", "outer(x) * LIMIT", "outer(x)", (2, 2, 7)),
        ("Layer.scale", "7 * x", "x", (2, 6, 1)),
        ("LIMIT", "3", "5", (2, 10, 7)),
        ("outer", "return inner(x)", "return x", (1, 3, 7)),
    ],
)
def test_a_mutant_runs_wherever_the_code_was_imported(at, old, new, expected, subject):
    outer, layer = subject.outer, subject.Layer()

    def computed():
        return outer(1), layer.forward(1), layer.scale(1)

    mutant = verifier.load_mutant("subject", Mutant("any", at, old, new))
    assert computed() == (2, 6, 7)
    with verifier.installed(mutant):
        assert computed() == expected
    assert computed() == (2, 6, 7)


def test_a_mutant_that_cannot_run_in_place_is_refused(subject):
    mutant = Mutant("any", "Layer.__repr__", "super().__repr__()", "''")
    loaded = verifier.load_mutant("subject", mutant)
    with (
        pytest.raises(DianError, match=r"mutant of Layer.__repr__ needs another clos"),
        verifier.installed(loaded),
    ):
        pass
    assert subject.outer(1) == 2


def test_what_a_mutant_breaks_is_restored_after_an_error(subject):
    mutant = Mutant("any", "outer", "y + 1", "y / 0")
    loaded = verifier.load_mutant("subject", mutant)
    with pytest.raises(ZeroDivisionError), verifier.installed(loaded):
        subject.outer(1)
    assert subject.outer(1) == 2


def test_a_claim_without_a_mutant_is_refused(monkeypatch):
    from dian.claims.positions import sinusoidal

    bare = one_claim(lambda: 0.0, mutants=())
    monkeypatch.setattr(sinusoidal, "bare", bare.check, raising=False)
    with pytest.raises(DianError, match="claim X1 has no mutant"):
        verifier.claims()


def test_an_id_is_used_once(monkeypatch):
    from dian.claims.positions import sinusoidal

    monkeypatch.setattr(sinusoidal, "again", sinusoidal.sinusoidal, raising=False)
    assert verifier.claims()  # the same function under two names is one claim
    other = one_claim(lambda: 0.0)
    object.__setattr__(other, "id", "P1")
    monkeypatch.setattr(sinusoidal, "other", other.check, raising=False)
    with pytest.raises(DianError, match="two claims have the ID P1"):
        verifier.claims()


def test_the_command_line_prints_a_table():
    done = verify("R2", "A3", "--mutants")
    assert done.returncode == 0, done.stderr
    assert re.search(r"R2 .*✓", done.stdout)
    count = sum(len(one.mutants) for one in verifier.find(["R2", "A3"]))
    assert f"2 claims hold, {count} of {count} mutants were killed" in done.stdout


def test_the_command_line_tells_all_as_json():
    done = verify("R2", "--json", "--mutants")
    (told,) = json.loads(done.stdout)
    assert told["id"] == "R2"
    assert told["passed"] is True
    assert [m["caught"] for m in told["mutants"]] == [True, True]


def test_an_unknown_claim_lists_the_nearest():
    done = verify("R222")
    assert done.returncode == 1
    assert done.stderr.startswith("dian: no claim 'R222'; nearest: R22")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["R2"], ["R2"]),
        (["clipping"], ["R13"]),
        (["training.clipping", "R13"], ["R13"]),
        (["eq-mask"], ["A8"]),
        (["eq-cross-entropy", "R3", "R2"], ["R3", "R2"]),
        (["(3.17)"], ["A8"]),
        (["3.17", "1.3"], ["A8", "R3"]),
        (["Truncated"], ["R12"]),
    ],
)
def test_a_claim_is_found_by_any_of_its_names(names, expected, numbers):
    assert [one.id for one in verifier.find(names)] == expected


@pytest.fixture
def numbers(tmp_path, monkeypatch):
    """The numbers of the equations, as the build of the site writes them."""
    file = tmp_path / "equations.json"
    labels = {"1.3": "eq-cross-entropy", "5": "def-rnn", "3.17": "eq-mask"}
    file.write_text(json.dumps(labels))
    monkeypatch.setattr(verifier, "EQUATIONS", file)
    return file


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("eq-masc", "no claim 'eq-masc'; nearest: eq-mask"),
        ("(5)", "equation def-rnn is a definition, which needs no claim"),
        ("99", r"no equation \(99\): the site has 3"),
        ("((17)", r"no claim '\(\(17\)'; nearest: R17, P17, D17"),
    ],
)
def test_a_name_that_means_no_claim_is_an_error(name, told, numbers):
    with pytest.raises(DianError, match=told):
        verifier.find([name])


@pytest.mark.parametrize("content", [None, "", "{"])
def test_numbers_are_known_once_the_site_is_built(content, numbers):
    numbers.unlink()
    if content is not None:
        numbers.write_text(content)
    with pytest.raises(DianError, match="known after `make html`; labels"):
        verifier.find(["(3.17)"])
    assert verifier.find(["eq-mask"])
