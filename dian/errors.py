"""The one kind of error that a user of the report is meant to read."""

import difflib
from collections.abc import Iterable


class DianError(Exception):
    """Something outside the code is wrong: a file, a record, an option, a device.

    Its message is one line that says what was expected, what was found and what to
    do. The command line prints that line alone. A wrong *argument* of a function is a
    :class:`ValueError` or a :class:`TypeError`, as everywhere in Python.
    """


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """List the valid names nearest to a wrong one, or all of them if none is near.

    >>> did_you_mean("rnn-bets", ["rnn-best", "rows-none"])
    'nearest: rnn-best'
    """
    near = difflib.get_close_matches(wrong, list(valid), n=3, cutoff=0.5)
    return (
        f"nearest: {', '.join(near)}" if near else f"valid: {', '.join(sorted(valid))}"
    )
