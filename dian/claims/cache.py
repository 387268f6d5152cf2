"""The results of the claims, kept from one run to the next while the code is the same.

One file of claims is one entry. Its key covers every byte of the file, of whatever it
imports and of the recorded runs that it names: the site shows docstrings and code as
they are written. After a change only the files that use what changed are checked again,
and nothing is kept of a file in which a claim failed or a mutant survived.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dian.runs.code_hash import PACKAGE, byte_key, digest, versions
from dian.runs.files import atomic_write
from dian.runs.record import hashes_of, used_in

Reports = list[dict[str, Any]]
PEERS = ("torch", "scikit-learn", "sympy", "mpmath")
"""Packages that the claims compute with."""


def chapter_keys() -> dict[str, str]:
    """Hash what each file of claims depends on, without importing any.

    >>> "rnn.recurrence" in chapter_keys()
    True
    """
    shared = [byte_key("dian.claims.verify"), versions(*PEERS)]
    keys = {}
    for path in sorted(PACKAGE.glob("claims/*/*.py")):
        if "\n@claim(" in path.read_text("utf-8"):  # other files only help them
            chapter = f"{path.parent.name}.{path.stem}"
            parts = [byte_key(f"dian.claims.{chapter}"), hashes_of(used_in(path))]
            keys[chapter] = digest([*parts, *shared])
    return keys


def read(file: Path) -> dict[str, Reports]:
    """Return the reports of every file of claims that are those of today's code.

    Parameters
    ----------
    file
        Where they are kept; it need not exist.
    """
    keys = chapter_keys()
    try:
        return {
            chapter: entry["reports"]
            for chapter, entry in json.loads(file.read_text("utf-8")).items()
            if entry["key"] == keys.get(chapter) and _good(entry["reports"])
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # missing, or not ours: check again


def renew(file: Path, check: Callable[[Iterable[str]], Reports]) -> Reports:
    """Check the claims whose code changed, and keep what is good.

    Parameters
    ----------
    file
        Where to keep it.
    check
        Verifies the claims of some files, and runs their mutants.

    Returns
    -------
    reports
        Of all claims, file by file.
    """
    keys, reports = chapter_keys(), read(file)
    changed = [chapter for chapter in keys if chapter not in reports]
    for report in check(changed) if changed else []:
        reports.setdefault(report["chapter"], []).append(report)
    entries = {c: {"key": key, "reports": reports[c]} for c, key in keys.items()}
    good = {c: entry for c, entry in entries.items() if _good(entry["reports"])}
    if changed:
        remedy = "make room, or name another file with --results"
        atomic_write(file, json.dumps(good, indent=1).encode(), remedy)
    return [report for entry in entries.values() for report in entry["reports"]]


def _good(reports: Reports) -> bool:
    killed = (mutant["caught"] for one in reports for mutant in one["mutants"])
    return all(one["passed"] for one in reports) and all(killed)
