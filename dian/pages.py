"""What each page of the gallery is made of, and whether the built one still is.

Beside the copy of a script that a build makes lies a file ``.key``: the hash of
everything that went into the page. This module imports no torch and no Sphinx, so that
the site and the audit look with the same eyes.
"""

import ast
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

from dian.runs import code_hash
from dian.runs import record as records
from dian.runs.code_hash import source_key
from dian.runs.files import sha256

PACKAGES = ("torch", "numpy", "matplotlib")
"""What computes and draws: with another version of one, a page is made again."""


class Page(TypedDict):
    """A page of the gallery, and how it stands."""

    name: str
    state: str
    """``fresh``, ``stale`` or ``not built``."""
    reasons: list[str]
    records: list[str]
    """The records that it shows; without one, all is computed while it is built."""
    problem: str | None
    """What is wrong with it, and not with a record, in one line; or None."""


def used_in(code: str, folder: Path = records.FOLDER) -> set[str]:
    """Name the records that some Python code loads.

    Any string that is the name of a record counts, so that no way of loading one
    escapes.

    >>> used_in("x = load('no-such-record')")
    set()
    """
    strings = {
        node.value
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return strings & set(records.names(folder))


def made_of(script: Path, folder: Path = records.FOLDER) -> dict[str, str]:
    """Hash a script, all that it imports from the library, and all that it reads.

    Parameters
    ----------
    script
        A page of the gallery.
    folder
        Where the records are.

    Returns
    -------
    parts
        The name of each part to its hash, or to its version.
    """
    code = script.read_text("utf-8")
    library = code_hash.PACKAGE
    files = [*library.glob("sample/*"), library.parent / "docs/_ext/figures.py"]
    files += [f for name in used_in(code, folder) for f in (folder / name).rglob("*")]
    read = {
        f"{file.parent.name}/{file.name}": sha256(file.read_bytes())
        for file in files
        if file.is_file()
    }
    modules = source_key(script) | {script.name: sha256(code.encode())}
    return modules | read | {name: version(name) for name in PACKAGES}


def key_of(script: Path, folder: Path = records.FOLDER) -> str:
    """Write down what a page is made of, for the file beside the built one."""
    return json.dumps(made_of(script, folder), indent=1, sort_keys=True)


def look(root: Path, folder: Path = records.FOLDER) -> Iterator[Page]:
    """Tell of every page of the gallery how it stands.

    Parameters
    ----------
    root
        The folder of the project; where it has no gallery, there is no page.
    folder
        Where the records are.
    """
    gallery = root / "gallery"
    for script in sorted(gallery.glob("*/plot_*.py")):
        name = script.relative_to(gallery).with_suffix("")
        state, reasons = _state(script, root / "docs/gallery" / name, folder)
        told = f"page {name} is stale: {', '.join(reasons)}; make html draws it again"
        yield Page(
            name=str(name),
            state=state,
            reasons=reasons,
            records=sorted(used_in(script.read_text("utf-8"), folder)),
            problem=told if reasons else None,
        )


def _state(script: Path, built: Path, folder: Path) -> tuple[str, list[str]]:
    """Compare a page with what the last build made of it."""
    if not built.with_suffix(".py.md5").is_file():  # the mark that the script ran
        return "not built", []
    try:
        before = dict(json.loads(built.with_suffix(".key").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return "stale", ["nothing tells what it was made of"]
    today = made_of(script, folder)
    reasons = [
        f"{part} {records.change(before.get(part), today.get(part))}"
        for part in sorted(before | today)
        if before.get(part) != today.get(part)
    ]
    return ("stale" if reasons else "fresh"), reasons
