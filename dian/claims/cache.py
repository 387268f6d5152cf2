"""What the claims gave, kept from one run to the next while the code is the same.

One chapter is one entry. Its key covers every byte of its claims, of all that they
import and of the recorded runs that they name, since the site shows docstrings and code
as they are written. A change runs the chapters that use what changed again, and no
other. Nothing is kept of a chapter in which a claim failed or a mutant survived.
"""

import ast
import json
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dian.errors import DianError
from dian.runs import record as records
from dian.runs.code_hash import PACKAGE, module_path, source_key
from dian.runs.files import atomic_write, sha256

Reports = list[dict[str, Any]]
PEERS = ("torch", "scikit-learn", "sympy", "mpmath")
"""Packages that the claims compute with."""


def chapter_keys() -> dict[str, str]:
    """Hash what the claims of each chapter depend on; no torch is needed for it.

    >>> "rnn.recurrence" in chapter_keys()
    True
    """
    shared = [_modules("dian.claims.verify"), {name: _version(name) for name in PEERS}]
    chapters = sorted(
        ".".join(path.relative_to(PACKAGE / "claims").with_suffix("").parts)
        for path in PACKAGE.glob("claims/*/*.py")
        if "\n@claim(" in path.read_text(encoding="utf-8")  # others only help them
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
        Verifies the claims of some chapters, and runs their mutants.

    Returns
    -------
    reports
        Of all claims, chapter by chapter.

    Raises
    ------
    DianError
        If the file cannot be written.
    """
    keys, kept = chapter_keys(), read(file)
    changed = [chapter for chapter in keys if chapter not in kept]
    fresh = check(changed) if changed else []
    for chapter in changed:
        kept[chapter] = [one for one in fresh if one["chapter"] == chapter]
    reports = [one for chapter in keys for one in kept[chapter]]
    good = {
        chapter: {"key": keys[chapter], "reports": kept[chapter]}
        for chapter in keys
        if _good(kept[chapter])
    }
    if changed:
        _keep(good, file)
    return reports


def _keep(good: dict[str, Any], file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(good, indent=1), encoding="utf-8")
    except OSError as error:
        raise DianError(
            f"{file}: the results cannot be written ({error.strerror}); make room, or "
            "name another file with --results"
        ) from None


def _good(reports: Reports) -> bool:
    caught = (mutant["caught"] for one in reports for mutant in one["mutants"])
    return all(one["passed"] for one in reports) and all(caught)


def _hash(chapter: str, shared: list) -> str:
    module = f"dian.claims.{chapter}"
    parts = [_modules(module), _records(module_path(module)), shared]
    return sha256(json.dumps(parts, sort_keys=True).encode())


def _modules(module: str) -> dict[str, str]:
    """Hash the bytes of a module and of all that it imports, comments included."""
    return {name: sha256(module_path(name).read_bytes()) for name in source_key(module)}


def _records(path: Path) -> dict[str, str]:
    """Hash the files of every record whose name stands as a string in a file."""
    tree, folder = ast.parse(path.read_bytes()), records.FOLDER
    named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {
        file.relative_to(folder).as_posix(): sha256(file.read_bytes())
        for name in records.names(folder)
        if name in named
        for file in sorted((folder / name).rglob("*"))
        if file.is_file()
    }


def _version(package: str) -> str | None:
    """Return its version, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
