"""What a piece of code depends on, and a hash that a better sentence does not change.

The key of a record covers the syntax tree, without comments and docstrings, of every
module of this package that the run could import. Imports are read from the source and
followed; nothing is executed, so the site can ask without waiting for torch.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from dian.runs.files import sha256

PACKAGE = Path(__file__).resolve().parents[1]


def source_key(module: str | Path) -> dict[str, str]:
    """Hash a module and every module of the package that it imports.

    Parameters
    ----------
    module
        A module of the package, such as ``dian.rnn.recurrence``, or the path of a script.

    Returns
    -------
    key
        Name of each module to the SHA-256 of its syntax tree. A script is listed
        under its path's name.

    Examples
    --------
    >>> sorted(source_key("dian.runs.files"))
    ['dian', 'dian.errors', 'dian.runs', 'dian.runs.files']
    """
    if isinstance(module, Path):
        found = {module.name: module}
        todo = list(_imports(_text(module), package=None))
    else:
        found, todo = {}, [module]
    while todo:
        name = todo.pop()
        path = module_path(name)
        if path is None or name in found:
            continue
        found[name] = path
        is_package = path.name == "__init__.py"
        package = name if is_package else name.rpartition(".")[0]
        todo += _imports(_text(path), package)
        todo.append(name.rpartition(".")[0])  # a package is imported before its parts
    return {name: fingerprint(path) for name, path in sorted(found.items())}


def fingerprint(path: Path) -> str:
    """Hash the syntax tree of a file, without its comments and docstrings."""
    return _fingerprint(_text(path))


def _text(path: Path) -> str:
    """Read a file; again only if its time or its size has changed."""
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@cache
def _read(path: Path, mtime_ns: int, size: int) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _fingerprint(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [part for part in body if not _is_docstring(part)]
    return sha256(_canonical(tree).encode())


def _is_docstring(node: ast.AST) -> bool:
    """Tell whether a statement is a text alone: of a module, function or attribute."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _canonical(node: object) -> str:
    """Write a tree as text that does not depend on the release of Python.

    :func:`ast.dump` does: newer releases know more fields and omit empty ones. So
    fields that are empty are left out here, and lines and columns are not looked at.
    """
    if isinstance(node, ast.AST):
        fields = (
            f"{name}={_canonical(value)}"
            for name, value in sorted(ast.iter_fields(node))
            if value is not None and value != [] and name != "kind"
        )
        # The constant None has a value that is None, and must not vanish.
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_canonical, node))}]"
    return repr(node)


@cache
def _imports(text: str, package: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_imported(text, package)))


def _imported(text: str, package: str | None) -> Iterator[str]:
    """Name what some code imports, wherever in it.

    ``from dian import rnn`` may name a module or something in one: both are yielded,
    and what is not a module is dropped by the caller.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                if package is None:
                    continue  # a script has no package to import from
                parts = package.split(".")
                stem = ".".join(parts[: len(parts) - node.level + 1])
                base = f"{stem}.{base}" if base else stem
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def module_path(module: str) -> Path | None:
    """Find the file of a module of the package, or None if it is not one."""
    root, *parts = module.split(".")
    if root != PACKAGE.name:
        return None
    folder = PACKAGE.joinpath(*parts)
    for path in (folder / "__init__.py", folder.with_suffix(".py")):
        if path.is_file():
            return path
    return None
