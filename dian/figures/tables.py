"""Tables that a script prints: readable as text, and tables on a page."""

import re
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from dian.errors import require

# A number with what may stand around it: an error, an interval, a unit in percent.
NUMBER = re.compile(r"(?=.*\d|nan|inf)(?:[-+±/%().,:\d\s]|e[-+]\d|nan|inf|to|of)+")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table in Markdown, with columns of numbers aligned at the right.

    Parameters
    ----------
    header
        The title of each column, with its unit.
    rows
        The cells of each row. A number that needs a format comes as text.

    Returns
    -------
    table
        The lines of the table.

    Raises
    ------
    ValueError
        If a row has not as many cells as there are columns.

    Examples
    --------
    >>> cells = [("tanh", 8, "1.5 ± 0.2"), ("ReLU", 16, "2.0 ± 0.4")]
    >>> print(markdown_table(("activation", "units", "loss (nats)"), cells))
    | activation   |   units |   loss (nats) |
    |:-------------|--------:|--------------:|
    | tanh         |       8 |     1.5 ± 0.2 |
    | ReLU         |      16 |     2.0 ± 0.4 |
    """
    cells = [[str(cell).strip() for cell in row] for row in rows]
    for row in cells:
        wanted = f"a row must have {len(header)} cells, got {len(row)}"
        require(len(row) == len(header), wanted)
    columns = zip(*cells, strict=True)
    aligned = ["right" if _numbers(column) else "left" for column in columns]
    return tabulate(
        cells, header, tablefmt="pipe", disable_numparse=True, colalign=aligned
    )


def _numbers(column: Sequence[str]) -> bool:
    """Tell whether most cells of a column are numbers."""
    filled = [cell for cell in column if cell]
    return 2 * sum(bool(NUMBER.fullmatch(cell)) for cell in filled) > len(filled)
