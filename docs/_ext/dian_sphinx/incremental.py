"""What a build does again: no more than it must, and no page that is old survives.

Sphinx reads a page again when its source or a file that it depends on has changed, and
writes again what it has read. It does not know that every page shows the titles of all
others, and that a page may be left of which the source is gone; and it reads every
doctree and imports every module to find out that nothing has changed.
"""

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector
from sphinx.util.index_entries import split_index_msg

from dian.runs.code_hash import module_path
from dian_sphinx.editions import english_site
from dian_sphinx.wording import EXTENSIONS, LOCALE

LOCK = Path(__file__).parents[3] / "package-lock.json"  # the version of KaTeX
# Pages that are written without a source of their own.
GENERATED = {"genindex", "py-modindex", "search", "404", "_modules/index"}


def set_extension_key(app: Sphinx, config) -> None:
    """Have every page read again when this extension or KaTeX has changed."""
    code = Path(__file__).parent.rglob("*.*")
    files = [*sorted(f for f in code if f.parent.name != "__pycache__"), LOCK]
    files += LOCALE.glob(f"{config.language}/LC_MESSAGES/{EXTENSIONS}.po")
    sums = [hashlib.sha256(f.read_bytes()).hexdigest() for f in files]
    sums += map(version, ("torch", "numpy", "matplotlib"))
    config.extension_key = hashlib.sha256(" ".join(sums).encode()).hexdigest()


def write_navigation(app: Sphinx, env: BuildEnvironment) -> set[str]:
    """Write all pages again when the navigation, which each of them shows, changed.

    Sphinx writes again only the pages that hold a changed table of contents.
    """
    titles = {page: title.astext() for page, title in env.titles.items()}
    now = titles, dict(env.toctree_includes), app.config.extension_key
    before, env.navigation = getattr(env, "navigation", None), now
    if before == now:
        return set()
    shutil.rmtree(Path(app.outdir, "_modules"), ignore_errors=True)
    return set(env.found_docs)


def note_change(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Note that a page is read or gone."""
    app.pages_changed = True


def keep_numbers(app: Sphinx, env: BuildEnvironment) -> None:
    """Keep Sphinx from reading every doctree to number equations that are the same."""
    if not getattr(app, "pages_changed", False):
        for listener in list(app.events.listeners["env-get-updated"]):
            if isinstance(
                getattr(listener.handler, "__self__", None), TocTreeCollector
            ):
                app.disconnect(listener.id)


def index_terms(app: Sphinx, env: BuildEnvironment) -> None:
    """Give the search the index terms of every page, before any is written.

    Sphinx collects the terms for the search as it writes a page, and would lose those
    of all pages that this build does not write again.
    """
    collected = env._search_index_index_entries
    collected.clear()  # also of pages that are gone, which Sphinx forgets to remove
    # In one order, whichever pages this build has read.
    for page, entries in sorted(env.get_domain("index").entries.items()):
        collected[page] = sorted(
            {
                (term, target or "", main)
                for kind, value, target, main, _ in entries
                for term in split_index_msg(kind, value)
            }
        )


def keep_code_pages(app: Sphinx) -> list:
    """Keep viewcode from importing torch to find out that no module has changed."""
    modules = getattr(app.env, "_viewcode_modules", {})
    for name, entry in list(modules.items()):
        if entry and not entry[2]:
            del modules[name]  # no page links to it; viewcode would drop it later
            continue
        source, page = module_path(name), _code_page(app, name)
        if not (entry and source and page.is_file()):
            continue
        if source.stat().st_mtime < page.stat().st_mtime:
            modules[name] = False  # in this process only: the pickle is written
    return []


def _code_page(app: Sphinx, module: str) -> Path:
    return Path(app.outdir, "_modules", *module.split(".")).with_suffix(".html")


def remove_orphans(app: Sphinx, exception: Exception | None) -> None:
    """Remove built pages whose source is gone, which Sphinx leaves in place.

    Only those that a build has written: the folder may hold other pages, too, such as
    those of another edition. Which they are is kept beside the site.
    """
    if exception or app.builder.format != "html":
        return
    out, modules = Path(app.outdir), getattr(app.env, "_viewcode_modules", {})
    kept = {out / f"{name}.html" for name in {*app.env.all_docs, *GENERATED}}
    kept |= {_code_page(app, name) for name in modules}
    store = beside(app, f"{out.name}.pages.json")
    try:
        written = {out / name for name in json.loads(store.read_text("utf-8"))}
    except (OSError, ValueError):
        written = set()
    for page in written - kept:
        page.unlink(missing_ok=True)
    names = sorted(page.relative_to(out).as_posix() for page in kept if page.is_file())
    store.write_text(json.dumps(names, indent=1), "utf-8")


def beside(app: Sphinx, name: str) -> Path:
    """Return the path of a file beside the site, and not in it."""
    site = english_site(app, app.config) or Path(app.outdir)
    return site.parent / name


def connect(app: Sphinx) -> None:
    """Register what decides which pages are read, written and kept."""
    app.add_config_value("extension_key", "", "env", str)
    app.connect("config-inited", set_extension_key)
    app.connect("env-purge-doc", note_change)
    app.connect("env-updated", index_terms)
    app.connect("env-updated", keep_numbers)
    app.connect("env-get-updated", write_navigation)
    app.connect("html-collect-pages", keep_code_pages, priority=400)  # viewcode: 500
    app.connect("build-finished", remove_orphans)
