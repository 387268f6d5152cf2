"""The files that are made for the browser, and whether they are up to date.

They are kept in ``build/live``. The key of a file changes with its records, with the
modules of this package that make it, and with the modules of the library that those
import. This module only names the functions that make the files, because they need
torch.
"""

import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from dian.runs.code_hash import digest, parse, source_key
from dian.runs.record import hashes_of
from dian_sphinx.live.offered import KINDS, evaluations, networks
from dian_sphinx.live.puzzles import PUZZLES

PACKAGE = Path(__file__).parent
KEPT = PACKAGE.parents[3] / "build/live"
KEYS = "keys.json"


class Piece(NamedTuple):
    """How one file is made."""

    module: str
    """The module of this package that makes it."""
    function: str
    arguments: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    library: tuple[str, ...] = ()
    """Modules of the library that no import statement names."""


def pieces() -> dict[str, Piece]:
    """Return every file, and how it is made."""
    made = {"images.js": Piece("images", "script")}
    for kind in KINDS:
        for name in networks(kind):
            records = (name, *evaluations(name))
            made[f"{name}.js"] = Piece(kind, "script", (name,), records)
        first = next(iter(networks(kind)))
        made[f"still-{kind}.json"] = Piece(kind, "recorded_result", records=(first,))
    for name in networks("denoise"):
        made[f"{name}.onnx"] = Piece("unet_export", "onnx_file", (name,), (name,))
    for chapter, puzzle in PUZZLES.items():
        library = puzzle.module, puzzle.claims
        made[f"spot-{chapter}.json"] = Piece(
            "puzzle_results", "results", (chapter,), library=library
        )
    return made


def code_of(module: str) -> dict[str, str]:
    """Hash a module of this package and every module that it imports.

    >>> sorted(code_of("packed"))
    ['packed.py']
    >>> {"images.py", "packed.py", "dian.data"} <= code_of("images").keys()
    True
    """
    paths = [PACKAGE / f"{module}.py"]
    for path in paths:  # which grows meanwhile
        paths += [one for one in imported(path) if one not in paths]
    return {name: key for path in paths for name, key in source_key(path).items()}


@cache
def imported(path: Path) -> list[Path]:
    """Return the modules beside a module that it imports."""
    names = [name.rpartition(".") for name in parse(path.read_bytes()).imports]
    paths = {path.parent / f"{part}.py" for at, _, part in names if at == __package__}
    return sorted(filter(Path.is_file, paths))


def keys() -> dict[str, str]:
    """Return the key of each file, which changes with everything that it depends on."""
    made = pieces()
    code = {module: code_of(module) for module in {one.module for one in made.values()}}
    versions = {name: version(name) for name in ("torch", "onnx")}
    return {
        name: digest(
            {
                "call": [piece.module, piece.function, *piece.arguments],
                "records": hashes_of(piece.records),
                "code": code[piece.module],
                "library": [source_key(module) for module in piece.library],
                "versions": versions,
            }
        )
        for name, piece in made.items()
    }


def kept_keys() -> dict[str, str]:
    """Return the keys of the files that are there."""
    try:
        stored = json.loads((KEPT / KEYS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: key for name, key in stored.items() if (KEPT / name).is_file()}


def read(name: str) -> dict:
    """Read one of the files that hold JSON."""
    return json.loads((KEPT / name).read_text("utf-8"))
