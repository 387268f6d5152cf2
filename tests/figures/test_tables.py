"""A printed table: what is a number, and what is not."""

import pytest

from dian.figures.tables import NUMBER, markdown_table


@pytest.mark.parametrize(
    "cell",
    ["1", "-0.5", "1,000", "2e-16", "+3.0 ± 0.1", "87.5%", "0 of 5", "nan", "inf"],
)
def test_these_are_numbers(cell):
    assert NUMBER.fullmatch(cell)


@pytest.mark.parametrize("cell", ["tanh", "1 - A² in place", "5 seeds", "", "e", "to"])
def test_these_are_words(cell):
    assert not NUMBER.fullmatch(cell)


def test_a_column_is_aligned_by_most_of_its_cells():
    rows = [("1 - A²", 1, ""), ("a", "error", 2), ("b", 3, "")]
    rule = markdown_table(("x", "y", "z"), rows).splitlines()[1]
    assert [mark.endswith("-:") for mark in rule.strip("|").split("|")] == [0, 1, 1]


def test_every_row_needs_all_cells():
    with pytest.raises(ValueError, match="a row must have 2 cells, got 1"):
        markdown_table(("x", "y"), [("a",)])


def test_numbers_are_written_as_they_come():
    table = markdown_table(("loss (nats)",), [("0.10",), ("1e-16",)])
    assert [line.strip("| ") for line in table.splitlines()[2:]] == ["0.10", "1e-16"]
