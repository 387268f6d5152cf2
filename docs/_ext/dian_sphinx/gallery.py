"""The pages whose code is run: which are out of date, and how they are run again.

Sphinx-gallery runs a script again when the script has changed, and MyST-NB a cell when
the page has. Here both also depend on the modules that the code imports, on the records
and the data that it reads, and on the versions of what computes and draws.

Beside the copy of a script that a build makes is a file ``.key`` with the hash of each
of these. ``python -m dian_sphinx.gallery`` reports the status of every page.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypedDict

from sphinx.application import Sphinx
from sphinx.util import logging

from dian.runs import code_hash
from dian.runs.code_hash import content_hash, parse, source_key, versions
from dian.runs.files import sha256
from dian.runs.freshness import changes, why_stale
from dian.runs.record import RECORDED, hashes_of, record_names, used_in
from dian_sphinx.editions import is_source

log = logging.getLogger(__name__)
TO_RUN = "gallery: %d of %d scripts to run"
"""A line of the log, which ``benchmarks.site`` reads."""
PACKAGES = ("torch", "numpy", "matplotlib", "sphinx-gallery")
"""With another version of one of these, a page is made again."""
STYLE = Path(__file__).with_name("figures.py")
OVERVIEW = "gallery/index"  # cards of all pages
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(?:---\n.*?---\n)?(.*?)^```", re.M | re.S)


# --- What a page depends on ---------------------------------------------------------


def dependencies(name: str, code: str, folder: Path = RECORDED) -> dict[str, str]:
    """Hash some code, all that it imports from the library, and all that it reads.

    Parameters
    ----------
    name
        What the code is called among its dependencies.
    code
        A script of the gallery, or the cells of a page.
    folder
        The folder of the records.

    Returns
    -------
    parts
        The name of each part to its hash, or to its version.
    """
    modules: dict[str, str] = {}
    source = parse(code)
    for module in source.imports:
        modules |= source_key(module)
    files = [f for f in code_hash.PACKAGE.glob("sample/*") if f.is_file()]
    read = {f"{f.parent.name}/{f.name}": content_hash(f) for f in [*files, STYLE]}
    read |= hashes_of(source.strings.intersection(record_names(folder)), folder)
    return modules | read | installed() | {name: sha256(code.encode())}


@cache
def installed() -> dict[str, str | None]:
    """Return the versions of what computes and draws."""
    return versions(*PACKAGES)


def page_key(script: Path, folder: Path = RECORDED) -> str:
    """Write down what a page depends on, for the file beside the built one."""
    parts = dependencies(script.name, script.read_text("utf-8"), folder)
    return json.dumps(parts, indent=1, sort_keys=True)


# --- The status of each page ----------------------------------------------------------


class Page(TypedDict):
    """A page of the gallery, and its status."""

    name: str
    state: str
    """``fresh``, ``stale`` or ``not built``."""
    reasons: list[str]
    records: list[str]
    """The records that it shows; without one, all is computed while it is built."""


def pages(root: Path, folder: Path = RECORDED) -> Iterator[Page]:
    """Report the status of every page of the gallery.

    Parameters
    ----------
    root
        The folder of the project.
    folder
        The folder of the records.
    """
    gallery = root / "gallery"
    bad = {name for name in record_names(folder) if why_stale(name, folder)}
    for script in sorted(gallery.glob("*/plot_*.py")):
        name = script.relative_to(gallery).with_suffix("")
        state, reasons = _state(script, root / "docs/gallery" / name, folder)
        shown = used_in(script, folder)
        if of_records := [f"record {one} is not fresh" for one in shown if one in bad]:
            state, reasons = "stale", of_records + reasons
        yield Page(name=str(name), state=state, reasons=reasons, records=shown)


def _state(script: Path, built: Path, folder: Path) -> tuple[str, list[str]]:
    """Compare a page with the dependencies of the one that the last build made."""
    if not built.with_suffix(".py.md5").is_file():  # the mark that the script ran
        return "not built", []
    try:
        before = dict(json.loads(built.with_suffix(".key").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return "stale", ["its dependencies are unknown"]
    today = json.loads(page_key(script, folder))
    reasons = changes(before, today)
    return ("stale" if reasons else "fresh"), reasons


# --- In a build -----------------------------------------------------------------------


def prepare(app: Sphinx) -> None:
    """Remove the pages of scripts that are gone, and run the scripts that changed."""
    if "sphinx_gallery.gen_gallery" not in app.extensions or not is_source(app.config):
        return
    settings = app.config.sphinx_gallery_conf
    source = (Path(app.srcdir) / settings["examples_dirs"]).resolve()
    target = Path(app.srcdir) / settings["gallery_dirs"]
    remove_old(source, target)
    scripts = sorted(source.rglob("plot_*.py"))
    outdated = [s for s in scripts if expire(target / s.relative_to(source), s)]
    log.info(TO_RUN, len(outdated), len(scripts))
    run(outdated, source, target, settings)


def remove_old(source: Path, target: Path) -> None:
    """Remove what was generated from scripts and folders that are gone."""
    for page in sorted(target.rglob("plot_*.rst")):
        if not (source / page.relative_to(target).with_suffix(".py")).is_file():
            stem = page.stem
            made = [f"{stem}.*", f"images/*_{stem}_0*", f"images/thumb/*_{stem}_thumb*"]
            for pattern in made:
                for file in list(page.parent.glob(pattern)):
                    file.unlink()
    for folder in {p.parent for p in target.rglob("index.rst")} - {target}:
        if not (source / folder.relative_to(target)).is_dir():
            shutil.rmtree(folder)


def expire(copy: Path, script: Path, folder: Path = RECORDED) -> bool:
    """Return whether a script has to run, after dropping the mark that it was run."""
    stored, mark = copy.with_suffix(".key"), copy.with_suffix(".py.md5")
    key = page_key(script, folder)
    if not stored.is_file() or stored.read_text() != key:
        # In this order: if the run fails, the mark is missing and it runs again.
        mark.unlink(missing_ok=True)
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(key)
    return not mark.is_file()


def run(scripts: list[Path], source: Path, target: Path, settings: dict) -> None:
    """Run scripts side by side, in other processes.

    Sphinx-gallery would wait at the end of each chapter for its last script, on one
    core; here all scripts are in one queue, those that took longest first. It finds
    them done, and makes the rest of the pages in this process, in which torch must not
    run because it forks later.
    """
    # Not above: they take a second, and this module is imported by ``make audit`` too.
    from joblib import Parallel, delayed
    from sphinx_gallery.gen_rst import generate_file_rst

    def seconds(script: Path) -> float:
        cost = target / script.relative_to(source).with_suffix(".cost.json")
        return json.loads(cost.read_text())["time"] if cost.is_file() else 0.0

    jobs = []
    for script in sorted(scripts, key=seconds, reverse=True):
        folder = target / script.relative_to(source).parent
        (folder / "images/thumb").mkdir(parents=True, exist_ok=True)
        job = script.name, folder, script.parent, settings
        jobs.append(delayed(generate_file_rst)(*job))
    if jobs:
        pool = Parallel(
            n_jobs=settings["parallel"],
            pre_dispatch="n_jobs",
            batch_size=1,
            backend="loky",
        )
        pool(jobs)
    settings["parallel"] = False


def reread_cells(app: Sphinx, env, added, changed, removed) -> set[str]:
    """Read the pages again whose cells depend on something that changed.

    MyST-NB keeps the results of cells by their code alone, so these are dropped too.
    """
    now = {}
    for page in env.found_docs:
        file = Path(env.doc2path(page))
        if file.suffix == ".md" and (code := cells(file.read_text("utf-8"))):
            now[page] = dependencies(page, code, RECORDED)
    before, env.cells = getattr(env, "cells", {}), now
    outdated = {page for page in now if now[page] != before.get(page)}
    if outdated and is_source(app.config):  # another edition finds the results there
        shutil.rmtree(app.config.nb_execution_cache_path, ignore_errors=True)
    return outdated


def cells(page: str) -> str:
    r"""Return the Python of the cells of a page, without commands of IPython.

    >>> cells("Text.\n\n```{code-cell} python\n---\na: 1\n---\n%magic\nx = 1\n```\n")
    'x = 1\n'
    """
    code = "".join(CELL.findall(page))
    return re.sub(r"^[%!].*\n", "", code, flags=re.M)


def drop_list(app: Sphinx, docname: str, source: list[str]) -> None:
    """Cut off the list of chapters that sphinx-gallery writes below the cards.

    ``docs/index.md`` puts each of them after the chapter whose evidence it is, and so
    do the links to the previous and to the next page.
    """
    if docname == OVERVIEW:
        source[0] = without_list(source[0])


def without_list(text: str) -> str:
    r"""Leave out every hidden table of contents.

    >>> without_list("Cards\n\n.. toctree::\n   :hidden:\n\n   /a/index\n   /b/index\n")
    'Cards\n\n'
    """
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        if line.startswith(".. toctree::"):
            inside = True
        elif line.strip() and not line.startswith(" "):
            inside = False
        if not inside:
            kept.append(line)
    return "".join(kept)


def connect(app: Sphinx) -> None:
    """Run the scripts before sphinx-gallery looks at them, at priority 500."""
    app.connect("builder-inited", prepare, priority=100)
    app.connect("env-get-outdated", reread_cells)
    app.connect("source-read", drop_list)


def main() -> int:
    """Print the status of every page; return 1 if one is stale."""
    found = list(pages(code_hash.PACKAGE.parent))
    for page in found:
        shown = ", ".join(page["records"]) or "computed while it is built"
        print(f"{page['state']:9}  {page['name']}  ({shown})")
    stale = [page for page in found if page["state"] == "stale"]
    for page in stale:
        reasons = ", ".join(page["reasons"])
        told = f"page {page['name']} is stale: {reasons}; run: make html"
        print(told, file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
