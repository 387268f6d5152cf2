"""Whether what was recorded is still what today's code would give.

A record, a gallery page and a notebook are *fresh* if the parts that they were made of
are unchanged, and *stale* otherwise; the reasons name each part that changed. A record
is also fresh if a replay with today's code has given the same numbers.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from dian.errors import DianError
from dian.runs.code_hash import fingerprint, module_path, source_key
from dian.runs.record import RECORDED, Record, load


def stale(record: Record) -> list[str]:
    """Return the reasons why a record is stale; the list is empty if it is fresh.

    The reasons are the changes since the last code that the record holds for: that of
    the run, or that of a replay.
    """
    today = modules_today(record)
    holds_for = [part["modules"] for part in (record.content["key"], *record.proofs)]
    return [] if today in holds_for else changes(holds_for[-1], today)


def modules_today(record: Record) -> dict[str, str]:
    """Hash the code that a record depends on as it is now.

    A benchmark is not part of the package: its record lists the modules that it timed.
    """
    if record.replay:
        return source_key(record.content["module"])
    paths = {name: module_path(name) for name in record.content["key"]["modules"]}
    return {name: fingerprint(path) for name, path in paths.items() if path}


def changes(before: Mapping[str, str], today: Mapping[str, str]) -> list[str]:
    """List what changed between two sets of named hashes.

    >>> changes({"a": "0", "b": "0"}, {"a": "1", "c": "0"})
    ['a changed', 'b is gone', 'c is new']
    """
    found = []
    for name in sorted(before.keys() | today.keys()):
        if name not in before:
            found.append(f"{name} is new")
        elif name not in today:
            found.append(f"{name} is gone")
        elif before[name] != today[name]:
            found.append(f"{name} changed")
    return found


def why_stale(name: str, folder: Path = RECORDED) -> str | None:
    """Say in one line why a record must not be shown, or nothing if it may be.

    >>> why_stale("rnn-fashion-mnist")
    """
    try:
        record = load(name, folder)
    except DianError as error:
        return str(error)
    reasons = stale(record)
    return problem(record, reasons) if reasons else None


def problem(record: Record, reasons: Iterable[str], remedy: str | None = None) -> str:
    """Say in one line why a record is stale, and which command makes it fresh again."""
    if remedy is None:
        # A clock never gives the same numbers twice, so times cannot be replayed.
        revalidate = f"python -m dian revalidate {record.name}, or train it again"
        remedy = f"run: {revalidate if record.replay else record.command}"
    return f"record {record.name} is stale: {', '.join(reasons)}; {remedy}"
