"""What the claims gave, kept from one run to the next while the code is the same.

One chapter is one entry. Its key covers the code of its claims and of everything that
they import, so a change of one function runs the chapters that use it again, and no
other. Nothing is kept of a chapter in which a claim failed or a planted bug survived.
"""

import json
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dian.files import sha256, written_whole
from dian.source import PACKAGE, source_key

Reports = list[dict[str, Any]]


def chapter_keys() -> dict[str, str]:
    """Hash what the claims of each chapter depend on; no torch is needed for it.

    >>> "rnn" in chapter_keys()
    True
    """
    shared = [source_key("dian.verifier"), version("torch")]
    chapters = sorted(
        path.stem
        for path in PACKAGE.glob("claims/*.py")
        if path.stem not in ("__init__", "compare")
    )
    return {chapter: _hash(chapter, shared) for chapter in chapters}


def read(file: Path) -> dict[str, Reports]:
    """Return the reports of every chapter that are still those of today's code.

    Parameters
    ----------
    file
        Where they are kept; it need not be there.
    """
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        keys = chapter_keys()
        return {
            chapter: entry["reports"]
            for chapter, entry in stored.items()
            if entry["key"] == keys.get(chapter) and _good(entry["reports"])
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # gone, or not ours: check again


def renew(file: Path, check: Callable[[Iterable[str]], Reports]) -> Reports:
    """Have the chapters checked whose code changed, and keep what is good.

    Parameters
    ----------
    file
        Where to keep it.
    check
        Verifies the claims of some chapters, planted bugs included.

    Returns
    -------
    reports
        Of all claims, chapter by chapter.
    """
    keys, kept = chapter_keys(), read(file)
    changed = [chapter for chapter in keys if chapter not in kept]
    fresh = check(changed) if changed else []
    for chapter in changed:
        kept[chapter] = [one for one in fresh if one["chapter"] == chapter]
    good = {
        chapter: {"key": keys[chapter], "reports": reports}
        for chapter, reports in sorted(kept.items())
        if _good(reports)
    }
    if changed:
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as temporary:
            temporary.write_text(json.dumps(good, indent=1), encoding="utf-8")
    return [one for chapter in keys for one in kept[chapter]]


def _good(reports: Reports) -> bool:
    caught = (mutant["caught"] for one in reports for mutant in one["mutants"])
    return all(one["passed"] for one in reports) and all(caught)


def _hash(chapter: str, shared: list) -> str:
    parts = [source_key(f"dian.claims.{chapter}"), shared]
    return sha256(json.dumps(parts, sort_keys=True).encode())
