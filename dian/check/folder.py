"""Check a folder of submissions, and report one row for each function of each file."""

import ast
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dian.check.registry import KINDS, find
from dian.check.report import FAILED, UNCHECKED, Report
from dian.check.runner import SECONDS, check_in_process
from dian.errors import DianError

COLUMNS = (
    "submission",
    "kind",
    "verdict",
    "failed",
    "mistake",
    "conventions",
    "notes",
    "seconds",
)


@dataclass(frozen=True)
class Row:
    """The outcome for one function of one submission."""

    submission: str
    kind: str
    report: Report

    def values(self) -> tuple[str, ...]:
        """Return the text of each column."""
        report = self.report
        failed = [line.title for line in report.lines if line.mark == FAILED]
        joint = " + " if report.together else " | "
        return (
            self.submission,
            self.kind,
            report.verdict,
            "; ".join(failed),
            joint.join(report.mistakes) or report.fault,
            "; ".join(report.conventions.values()),
            "; ".join(report.notes),
            f"{report.seconds:.1f}",
        )


def check_folder(
    folder: Path, kinds: Sequence[str] = (), *, seconds: float = SECONDS
) -> Iterator[Row]:
    """Check every file of Python in a folder, one after the other.

    Parameters
    ----------
    folder
        The submissions: one file each, or a folder with one file each.
    kinds
        The kinds that every submission has to contain. Default: those that a
        submission defines, by the names of its functions.
    seconds
        The time limit of each function.
    """
    for kind in kinds:
        find(kind)
    # Listed before anything runs: a submission may delete itself, or another.
    sources = {path: _read(path) for path in sorted(folder.rglob("*.py"))}
    if not sources:
        raise DianError(f"there is no file of Python in {folder}")
    for path, source in sources.items():
        name = str(path.relative_to(folder))
        for kind, function in _wanted(source or b"", kinds):
            report = _checked(path, kind, function, seconds)
            if restored := _restored(sources):
                names = ", ".join(str(p.relative_to(folder)) for p in restored)
                report.notes.append(f"deletes or changes {names}, restored")
            yield Row(name, kind, report)


def _restored(sources: dict[Path, bytes | None]) -> list[Path]:
    """Write back the files that a submission deleted or changed."""
    known = {path: source for path, source in sources.items() if source is not None}
    lost = [path for path, source in known.items() if _read(path) != source]
    for path in lost:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sources[path])
    return lost


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _wanted(source: bytes, kinds: Sequence[str]) -> list[tuple[str, str]]:
    """Return the kinds to check, and the name of the function of each."""
    names = {kind: kind.replace("-", "_") for kind in KINDS}
    if kinds:
        return [(kind, names[kind]) for kind in kinds]
    defined = _defined(source)
    return [(k, n) for k, n in names.items() if n in defined] or [("", "")]


def _defined(source: bytes) -> set[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return set()
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    found = {node.name for node in tree.body if isinstance(node, kinds)}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            names = ast.walk(node)  # also "rotary" of "rotary = partial(rotate)"
            found |= {
                n.id
                for n in names
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {name.asname or name.name for name in node.names}
    return found


def _checked(path: Path, kind: str, function: str, seconds: float) -> Report:
    if not kind:
        said = "defines no function with the name of a kind"
        return Report("", path.name, UNCHECKED, fault=said)
    try:
        return check_in_process(kind, f"{path}:{function}", seconds=seconds)
    except (DianError, OSError) as error:
        return Report(kind, path.name, UNCHECKED, fault=str(error))


def print_csv(rows: Iterator[Row]) -> None:
    """Print comma-separated values, row by row as they come."""
    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(row.values())
        sys.stdout.flush()


def print_table(rows: Iterator[Row]) -> None:
    """Print a table, when all are checked."""
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*map(Text, row.values()))  # not as markup: "[mask]" is kept
    Console().print(table)
