"""Which property of chapter 2 notices which bug: the table of the report."""

from itertools import combinations

import pytest

from dian.claims.positions import bug_matrix

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
TABLES = [(ROTARY, bug_matrix.ROTARY_BUGS), (SINUSOIDAL, bug_matrix.SINUSOIDAL_BUGS)]


@pytest.mark.parametrize(("table", "bugs"), TABLES, ids=["rotary", "sinusoidal"])
def test_the_matrix(table, bugs):
    """What is computed, what stands beside each bug, and this table are one."""
    names, *rows = [line.split() for line in table.strip().splitlines()]
    computed = bug_matrix.matrix(bugs)
    assert len(computed) == len(bugs) == len(rows)
    for bug, row in zip(bugs, rows, strict=True):
        expected = {n for n, mark in zip(names, row, strict=True) if mark == "x"}
        assert computed[bug.mutant.what] == bug.seen == expected, bug.mutant.what


def test_every_property_holds_without_a_bug():
    assert not bug_matrix.seen(bug_matrix.rotary_properties())
    assert not bug_matrix.seen(bug_matrix.sinusoidal_properties())


def test_a_nan_is_noticed():
    assert bug_matrix.seen({"norm": float("nan"), "zero": 0.0}) == {"norm"}


def test_four_properties_suffice_and_no_three():
    seen = [bug.seen for bug in bug_matrix.ROTARY_BUGS]
    names = frozenset().union(*seen)

    def cover(chosen):
        return all(row & set(chosen) for row in seen)

    assert not any(cover(three) for three in combinations(names, 3))
    four = {frozenset(chosen) for chosen in combinations(names, 4) if cover(chosen)}
    rest = {"shift", "golden", "cache"}
    assert four == {frozenset({"zero"} | rest), frozenset({"group"} | rest)}
