"""Every contract accepts our own functions and rejects each known mistake by name."""

import inspect
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from dian.check import check, diagnosis
from dian.check.registry import KINDS, find
from dian.claims.verify import installed, load_mutant

CONVENTIONS = {
    # A claim of the report rejects them, or a mistake of the report's own list, and the
    # check accepts them, since right functions differ on it: it names the convention.
    ("clip", "as torch does, with 1e-6 added to the norm"): "as torch",
    ("confusion-matrix", "rows are predictions"): "rows are predicted classes",
    ("sinusoidal", "half-split instead of interleaved"): "sines first",
    ("alibi", "only keys before the query"): "0 in the future",
    ("causal-mask", "the causal mask is aligned at the first key"): "first key",
    ("q-sample", "the schedule starts one step late"): "t from 0",
    ("q-sample", "the step after"): "t from 0",
    ("ddpm-loss", "the schedule starts one step late"): "t from 0",
    ("ddpm-loss", "a sum over the entries"): "sum over an image",
    ("ddpm-sample", "the model is called with the timestep before"): "t from 0",
    ("ddpm-sample", "beta-tilde although beta is chosen"): "variance beta-tilde",
}
WARNED = {
    # Right within the precision of float32, or where the paper defines nothing: the
    # report warns, and says what is computed.
    ("sinusoidal", "frequencies in float32"): "frequencies in float32",
    ("rotary", "frequencies in float32"): "frequencies in float32",
    ("rotary", "angles in float32"): "angles in float32",
    ("rotary", "products of rotations in single precision"): "in single precision",
    ("noise-schedule", "a schedule in float32"): "a schedule in float32",
    ("attention", "the scores are set to minus a billion"): "minus a billion",
    ("attention-backward", "the scores are set to minus a billion"): "minus a billion",
    ("multi-head", "the scores are set to minus a billion"): "minus a billion",
    # Right for fewer axes, where what was changed is never used.
    ("attention", "softmax over the heads"): "right for (n, d) alone",
    ("q-sample", "the step before"): "right for one timestep for all alone",
}


UNNAMED = {
    # Rejected, but no output can be recognized: memory that was never written, random
    # numbers, and a division by zero.
    "the last block is left out when it is shorter",
    "draws that are given are ignored",
    "the step before, for an int",
}


def planted(contract, known: diagnosis.Known) -> list[Callable]:
    """Return our functions with a mistake."""
    if known.mutant is None:
        return [m.function for m in contract.mistakes if m.what == known.what]
    module = load_mutant(diagnosis.module_of(known.mutant), known.mutant)

    def with_mistake(ours):
        def function(**arguments):
            with installed(module):
                return ours(**arguments)

        function.__signature__ = inspect.signature(ours)
        return function

    return [with_mistake(ours) for ours in contract.ours]


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_functions_are_right(kind):
    for ours in find(kind).ours:
        begin = time.process_time()
        report = check(kind, ours)
        assert report.passed, report
        assert time.process_time() - begin < 5


def outcomes(kind):
    """Yield each function with a known mistake: its names, and the report.

    There are several names if several mistakes compute the same.
    """
    contract, right = find(kind), diagnosis.expected(kind)
    done = set()
    for known in diagnosis.known_mistakes(kind):
        if known.what in done:
            continue
        done.add(known.what)
        for function in planted(contract, known):
            computed = diagnosis.compute(function, diagnosis.cases_of(contract))
            if diagnosis._differs(computed, right):
                same = {
                    other.what
                    for other in diagnosis.known_mistakes(kind)
                    if not diagnosis._differs(computed, other.computed)
                }
                yield known.what, same, check(kind, function)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_known_mistakes_are_rejected_and_named(kind):
    for what, same, report in outcomes(kind):
        convention = CONVENTIONS.get((kind, what))
        if convention is not None:
            assert report.passed, report
            assert convention in report.head(), report
            continue
        if warned := WARNED.get((kind, what)):
            assert report.passed, report
            assert any(warned in note for note in report.notes), report
            continue
        assert not report.passed, f"{what}\n{report}"
        if what not in UNNAMED:
            assert {what, *same} <= set(report.mistakes), f"{what}\n{report}"


@pytest.mark.slow
def test_a_check_takes_seconds():
    """Without the shape checks of the tests, which readers do not have either."""
    found = subprocess.run(
        [sys.executable, __file__], check=True, capture_output=True, text=True
    )
    lines = found.stdout.splitlines()
    kinds = {kind for kind in KINDS if diagnosis.cases_of(find(kind))}
    assert {line.split()[1] for line in lines} == kinds
    assert len(lines) > 5 * len(KINDS)
    assert not [line for line in lines if not 0 < float(line.split()[0]) < 5]


if __name__ == "__main__":  # the seconds of each check, and of what prepares it
    for one in KINDS:
        begin = time.process_time()
        for mistake, *_ in outcomes(one):
            print(f"{time.process_time() - begin:.2f} {one} {mistake}")
            begin = time.process_time()
