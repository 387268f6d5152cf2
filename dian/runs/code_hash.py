"""Hashes of code and files: the one place that makes the keys of everything recorded.

A record, a chapter of claims, a gallery page and a notebook are all bound to the
modules of this package that they import. Imports are read from the source and followed;
no module is executed, so the site computes its keys without waiting for torch. Each
file is read and parsed once per process, and again only if its size or modification
time changed.
"""

import ast
import json
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from dian.runs.files import sha256

PACKAGE = Path(__file__).resolve().parents[1]


def source_key(module: str | Path) -> dict[str, str]:
    """Hash the syntax trees of a module and of every module of the package it imports.

    Comments, docstrings and formatting do not count: a better sentence keeps a record
    fresh.

    Parameters
    ----------
    module
        A module of the package, such as ``dian.rnn.recurrence``, or the path of a
        script, which is listed under its file name.

    Examples
    --------
    >>> sorted(source_key("dian.runs.files"))
    ['dian', 'dian.errors', 'dian.runs', 'dian.runs.files']
    """
    return {name: fingerprint(path) for name, path in _closure(module).items()}


def byte_key(module: str | Path) -> dict[str, str]:
    """Hash every byte of the same files, for what also depends on their docstrings."""
    return {name: content_hash(path) for name, path in _closure(module).items()}


def record_key(module: str, settings: Any, data: dict[str, str]) -> dict[str, Any]:
    """Return the key of a run: its settings, data and code, each hashed separately.

    Parameters
    ----------
    module
        The module of the experiment, such as ``dian.experiments.rnn.study``.
    settings
        Its settings, as plain values.
    data
        The SHA-256 of each data file that the run reads.
    """
    return {"settings": digest(settings), "data": data, "modules": source_key(module)}


def fingerprint(path: Path) -> str:
    """Hash the syntax tree of a Python file, without comments and docstrings."""
    return _source(path).tree


def strings(path: Path) -> frozenset[str]:
    """Return the string constants of a Python file, such as the records it loads."""
    return _source(path).strings


def content_hash(path: Path) -> str:
    """Return the SHA-256 of the bytes of any file."""
    return _content_hash(path, *_version(path))


def versions(*packages: str) -> dict[str, str | None]:
    """Return the version of each package, or None if it is not installed."""
    found = {name: metadata.distributions(name=name) for name in packages}
    return {name: next((d.version for d in ds), None) for name, ds in found.items()}


def digest(value: Any) -> str:
    """Hash a plain value of numbers, strings, lists and dictionaries.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode())


def module_path(module: str) -> Path | None:
    """Return the file of a module, or None if the package has no such module."""
    root, *parts = module.split(".")
    if root != PACKAGE.name:
        return None
    folder = PACKAGE.joinpath(*parts)
    candidates = (folder / "__init__.py", folder.with_suffix(".py"))
    return next(filter(Path.is_file, candidates), None)


def _closure(module: str | Path) -> dict[str, Path]:
    """Find the files of a module and of every module of the package it imports."""
    found, todo = {}, [module]
    if isinstance(module, Path):
        found[module.name] = module
        todo = [*_source(module).imports]
    while todo:
        name = todo.pop()
        if name not in found and (path := module_path(name)):
            found[name] = path
            # A package is imported before its modules.
            todo += [name.rpartition(".")[0], *_source(path).imports]
    return dict(sorted(found.items()))


class Source(NamedTuple):
    """What some Python code holds, as far as the keys need it."""

    tree: str
    imports: tuple[str, ...]
    """The full name of whatever the code imports, wherever in it.

    ``from dian import rnn`` may name a module or something inside one: both are here.
    Relative imports are not followed; the linter refuses them (TID252).
    """
    strings: frozenset[str]


def _source(path: Path) -> Source:
    return _parse(path, *_version(path))


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@cache
def _content_hash(path: Path, mtime_ns: int, size: int) -> str:
    return sha256(path.read_bytes())


@cache
def _parse(path: Path, mtime_ns: int, size: int) -> Source:
    return parse(path.read_bytes())


def parse(code: str | bytes) -> Source:
    """Read what some Python code holds."""
    tree = ast.parse(code)
    imports, texts = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imports += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
    hashed = sha256(_canonical(tree).encode())
    return Source(hashed, tuple(imports), frozenset(texts))


def _canonical(node: object) -> str:
    """Write a syntax tree as text that is the same in every release of Python.

    :func:`ast.dump` differs: newer releases know more fields and omit empty ones. Here
    empty fields are always omitted, and so are docstrings, lines and columns.
    """
    if isinstance(node, ast.AST):
        fields = []
        for name, value in sorted(ast.iter_fields(node)):
            if name == "body" and isinstance(value, list):
                value = [part for part in value if not is_docstring(part)]
            if value is not None and value != [] and name != "kind":
                fields.append(f"{name}={_canonical(value)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_canonical, node))}]"
    return repr(node)


def is_docstring(node: ast.AST) -> bool:
    """Whether a statement is a string alone: of a module, function or attribute."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
