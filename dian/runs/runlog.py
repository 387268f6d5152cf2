"""The log of a training: lines of JSON that others can read while it goes on."""

import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypedDict

from dian.errors import DianError

Report = Callable[[str, int, int, float], None]
"""``report(part, done, total, loss)`` is called after each step."""

BARS = "▁▂▃▄▅▆▇█"


class Entry(TypedDict):
    """What one line says."""

    part: str
    done: int
    total: int
    loss: float
    seconds: float
    """Since this process began with the part."""


class RunLog:
    """Writes a line now and then, and at the end of each part.

    Parameters
    ----------
    write
        Called with each entry.
    every
        Seconds between two of them.
    """

    def __init__(self, write: Callable[[Entry], None], every: float = 1.0):
        self.write, self.every = write, every
        self.part, self.begin, self.last = "", 0.0, 0.0

    def __call__(self, part: str, done: int, total: int, loss: float) -> None:
        """Take note of a step."""
        now = time.monotonic()
        if part != self.part:
            self.part, self.begin, self.last = part, now, now
        elif done < total and now - self.last < self.every:
            return
        self.last = now
        entry = Entry(part=part, done=done, total=total, loss=loss, seconds=0.0)
        entry["seconds"] = round(now - self.begin, 3)
        self.write(entry)


def into(path: Path) -> Callable[[Entry], None]:
    """Return what appends entries to a file, each as one line that is there at once.

    It raises a :class:`~dian.errors.DianError` if the file cannot be written.
    """

    def write(entry: Entry) -> None:
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise DianError(
                f"{path}: cannot be written ({error.strerror}); what was saved stands: "
                "make room, and go on with --resume"
            ) from None

    return write


def read(path: Path) -> list[Entry]:
    """Return the entries of a log; a last line that is half written is left out.

    Raises
    ------
    DianError
        If there is no log, or it holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DianError(
            f"{path}: {error.strerror}; expected the log of a training that goes on"
        ) from None
    except UnicodeDecodeError:
        lines = ["something that is no text", ""]
    try:
        entries = [json.loads(line) for line in lines[:-1]]
    except ValueError as error:
        raise DianError(
            f"{path}: expected lines of JSON, found something else ({error}); the "
            "training is not followed by this log any more: remove it"
        ) from None
    return entries


def describe(entry: Entry, first: Entry | None = None) -> str:
    """Say in one line how far a training is, how fast, and what is left.

    Parameters
    ----------
    entry
        The last one of a part.
    first
        The first one of the same part and process, to measure the speed from.

    Examples
    --------
    >>> first = Entry(part="seed 0", done=10, total=100, loss=2.0, seconds=0.0)
    >>> last = Entry(part="seed 0", done=40, total=100, loss=0.5, seconds=60.0)
    >>> describe(last, first)
    'seed 0: step 40 of 100, loss 0.500, 0.5 steps/s, 2 min left'
    """
    told = (
        f"{entry['part']}: step {entry['done']} of {entry['total']}, "
        f"loss {entry['loss']:.3f}"
    )
    if first is None or entry["seconds"] <= first["seconds"]:
        return told
    speed = (entry["done"] - first["done"]) / (entry["seconds"] - first["seconds"])
    left = (entry["total"] - entry["done"]) / speed if speed else float("inf")
    return f"{told}, {speed:.1f} steps/s, {left / 60:.0f} min left"


def curve(losses: list[float], width: int = 60) -> str:
    """Draw a series as a line of bars, each the mean of its share.

    >>> curve([3.0, 3.0, 2.0, 1.0], width=4)
    '██▅▁'
    """
    n = min(width, len(losses))
    cuts = [round(i * len(losses) / n) for i in range(n + 1)] if n else []
    shares = [losses[a:b] for a, b in pairwise(cuts)]
    means = [sum(share) / len(share) for share in shares]
    low, high = min(means, default=0), max(means, default=0)
    steps = len(BARS) - 1
    scale = steps / (high - low) if high > low else 0
    return "".join(BARS[round((m - low) * scale)] for m in means)
