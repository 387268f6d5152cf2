"""Which property of chapter 2 notices which bug: the table of the report."""

from itertools import combinations

import pytest

from dian import positions, rotary, verifier
from dian.claims import corners

# x: noticed. One row for each bug, in the order of the lists.
ROTARY = """
norm zero relative group shift same golden cache
x    x    x        x     x     x    x      .
x    .    x        x     x     x    x      .
x    .    x        x     x     x    x      .
x    .    x        x     x     x    x      .
.    .    x        .     x     x    x      .
.    .    x        .     x     x    x      .
.    .    .        .     x     .    .      .
.    .    .        .     .     .    x      .
.    .    .        .     .     .    x      .
.    x    .        x     .     .    .      .
.    x    .        x     .     x    x      .
.    .    x        x     x     .    x      x
.    .    .        .     .     .    .      x
"""
SINUSOIDAL = """
norm offset shift zero product golden
x    x      x     x    x       x
.    .      x     .    x       x
.    .      x     .    x       x
.    .      .     x    .       x
.    .      x     x    .       x
.    .      x     x    .       x
x    x      x     .    x       x
.    x      x     .    x       x
"""
TABLES = [(ROTARY, corners.ROTARY_BUGS), (SINUSOIDAL, corners.SINUSOIDAL_BUGS)]


@pytest.mark.parametrize(("table", "bugs"), TABLES, ids=["rotary", "sinusoidal"])
def test_the_matrix(table, bugs):
    """What is computed, what stands beside each bug, and this table are one."""
    names, *rows = [line.split() for line in table.strip().splitlines()]
    computed = corners.matrix(verifier.load_mutant, bugs)
    assert len(computed) == len(bugs) == len(rows)
    for bug, row in zip(bugs, rows, strict=True):
        expected = {n for n, mark in zip(names, row, strict=True) if mark == "x"}
        assert computed[bug.mutant.what] == bug.seen == expected, bug.mutant.what


def test_every_property_holds_without_a_bug():
    assert not corners.seen(corners.rotary_properties(rotary))
    assert not corners.seen(corners.sinusoidal_properties(positions))


def test_a_nan_is_noticed():
    assert corners.seen({"norm": float("nan"), "zero": 0.0}) == {"norm"}


def test_four_properties_suffice_and_no_three():
    seen = [bug.seen for bug in corners.ROTARY_BUGS]
    names = frozenset().union(*seen)

    def cover(chosen):
        return all(row & set(chosen) for row in seen)

    assert not any(cover(three) for three in combinations(names, 3))
    four = {frozenset(chosen) for chosen in combinations(names, 4) if cover(chosen)}
    rest = {"shift", "golden", "cache"}
    assert four == {frozenset({"zero"} | rest), frozenset({"group"} | rest)}
