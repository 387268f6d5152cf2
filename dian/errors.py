"""Errors: the one that the command line prints, and the check of an argument."""

import difflib
import math
from collections.abc import Collection, Iterable
from numbers import Integral
from typing import Any


class DianError(Exception):
    """Something outside the code is wrong: a file, a record, an option, a device.

    Its message is one line that says what was expected, what was found and what to
    do. The command line prints that line alone. A wrong *argument* of a function is a
    :class:`ValueError` or a :class:`TypeError`, as everywhere in Python.
    """


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """List the valid names nearest to a wrong one, or all of them if none is near.

    >>> did_you_mean("rnn-recipe-bets", ["rnn-recipe-best", "rows-none"])
    'nearest: rnn-recipe-best'
    """
    near = difflib.get_close_matches(wrong, list(valid), n=3, cutoff=0.5)
    return (
        f"nearest: {', '.join(near)}" if near else f"valid: {', '.join(sorted(valid))}"
    )


def require(condition: object, message: str) -> None:
    """Raise a :class:`ValueError` with this message unless a condition holds.

    >>> require(0 <= 1.5 <= 1, "rate must be in [0, 1], got 1.5")
    Traceback (most recent call last):
    ValueError: rate must be in [0, 1], got 1.5
    """
    if not condition:
        raise ValueError(message)


def require_one_of(name: str, value: object, valid: Collection[str]) -> None:
    """Raise a :class:`ValueError` unless a value is one of these.

    >>> require_one_of("layout", "whole", ["interleaved", "half"])
    Traceback (most recent call last):
    ValueError: layout must be one of interleaved, half, got 'whole'
    """
    known = ", ".join(valid)
    require(value in valid, f"{name} must be one of {known}, got {value!r}")


def require_whole(
    name: str, value: object, low: int, high: int | float = math.inf
) -> None:
    """Raise a :class:`ValueError` unless a value is an integer from low to high.

    >>> require_whole("T", 1e3, 1)
    Traceback (most recent call last):
    ValueError: T must be a whole number, at least 1, got 1000.0
    """
    span = f"at least {low}" if high == math.inf else f"{low} to {high}"
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    fits = whole and low <= value <= high
    require(fits, f"{name} must be a whole number, {span}, got {value!r}")


def kind(tensor: Any) -> str:
    """Describe a tensor in an error message.

    >>> import torch
    >>> kind(torch.zeros(3, 2))
    'torch.float32 of shape (3, 2)'
    >>> kind(5)
    '5'
    """
    if not hasattr(tensor, "shape"):
        return repr(tensor)
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"
