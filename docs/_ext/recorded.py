"""What the site may read of the recorded runs: only what is whole and fresh.

Every record is verified before anything else happens, so that a build fails even if
no page had to be read again.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from dian import pages
from dian.runs import record as records

FOLDER = records.FOLDER


def verify_all(app: Sphinx, config) -> None:
    """Stop the build, naming each record that is unfit and the pages that show it."""
    read.cache_clear()
    problems = [
        f"{problem} (shown by {', '.join(pages_with(app, name)) or 'no page'})"
        for name in names()
        if (problem := records.why_stale(name, FOLDER))
    ]
    if problems:
        # Not an exception of Sphinx's: it would bury these lines in a traceback.
        raise SystemExit("\n".join(problems))


def names() -> list[str]:
    """List the recorded runs."""
    return records.names(FOLDER)


@functools.cache
def read(name: str) -> records.Record:
    """Load a record, verified; once for each process of a build."""
    return records.load(name, FOLDER)


def depend_on(env: BuildEnvironment, name: str) -> None:
    """Have the page that is being read, read again when the record changes."""
    for file in files_of(name):
        env.note_dependency(str(file))


def files_of(name: str) -> list[Path]:
    """List the files of a record."""
    return sorted(p for p in (FOLDER / name).rglob("*") if p.is_file())


def used_in(code: str) -> set[str]:
    """Name the records that some Python code loads."""
    return pages.used_in(code, FOLDER)


def pages_with(app: Sphinx, name: str) -> Iterator[str]:
    """Name the sources, pages and gallery scripts, that mention a record."""
    root = Path(app.srcdir).parent
    for pattern in ("docs/*.md", "gallery/**/*.py"):
        for page in sorted(root.glob(pattern)):
            if name in page.read_text("utf-8"):
                yield str(page.relative_to(root))


def setup(app: Sphinx) -> dict:
    """Verify all records as soon as the settings are read."""
    app.connect("config-inited", verify_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
