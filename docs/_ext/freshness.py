"""No page outlives what it was made of.

Sphinx-gallery runs a script again when the script changed, and the notebook cache
looks at the cell alone. Here both also depend on the library, on the records, on the
bundled data and on the versions that draw and compute.
"""

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

import recorded
from recorded import files_of, names
from sphinx.application import Sphinx

import dian
from dian import pages

LIBRARY = Path(dian.__file__).parent
LOCK = Path(__file__).parents[2] / "package-lock.json"  # the version of KaTeX
# Pages that are written without a source of their own.
GENERATED = {"genindex", "py-modindex", "search", "404"}


def library_key() -> str:
    """Hash the whole library, with its data and records, for cells on pages."""
    data = [f for name in names() for f in files_of(name)]
    return _hash(_sums([*sorted(LIBRARY.rglob("*.py")), *_bundled(), *data]))


def _bundled() -> list[Path]:
    return sorted(f for f in (LIBRARY / "sample").glob("*") if f.is_file())


def _sums(files: list[Path]) -> list[str]:
    return [hashlib.sha256(f.read_bytes()).hexdigest() for f in files]


def _hash(*parts) -> str:
    versions = {name: version(name) for name in ("torch", "numpy", "matplotlib")}
    text = json.dumps([parts, versions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def set_notebook_cache(app: Sphinx, config) -> None:
    """Give each state of the library a cache of its own, and keep only the last.

    The path is a setting, so when it changes Sphinx reads every page again.
    """
    caches = Path(app.outdir).parent / "jupyter_cache"
    cache = caches / library_key()[:16]
    for old in set(caches.glob("*")) - {cache}:
        shutil.rmtree(old)
    config.nb_execution_cache_path = str(cache)


def set_extension_key(app: Sphinx, config) -> None:
    """Have every page read again when an extension or KaTeX has changed."""
    extensions = sorted(Path(__file__).parent.glob("*.*"))
    config.extension_key = _hash(_sums([*extensions, LOCK]))


def prepare_gallery(app: Sphinx) -> None:
    """Forget the scripts that are gone, and have those run whose key changed."""
    settings = app.config.sphinx_gallery_conf
    source = (Path(app.srcdir) / settings["examples_dirs"]).resolve()
    target = Path(app.srcdir) / settings["gallery_dirs"]
    for page in sorted(target.rglob("plot_*.rst")):
        script = source / page.relative_to(target).with_suffix(".py")
        if not script.is_file():
            _forget(page)
    for folder in {p.parent for p in target.rglob("index.rst")} - {target}:
        if not (source / folder.relative_to(target)).is_dir():
            shutil.rmtree(folder)
    for script in source.rglob("plot_*.py"):
        _expire(target / script.relative_to(source), script)


def _forget(page: Path) -> None:
    """Remove what was generated from one script."""
    stem = page.stem
    made = [*page.parent.glob(f"{stem}.*"), *page.parent.glob(f"images/*_{stem}_0*")]
    for file in [*made, *page.parent.glob(f"images/thumb/*_{stem}_thumb*")]:
        file.unlink()


def _expire(copy: Path, script: Path) -> None:
    """Drop the mark that a script was run, if its key is another now."""
    stored = copy.with_suffix(".key")
    key = pages.key_of(script, recorded.FOLDER)
    if not stored.is_file() or stored.read_text() != key:
        # In this order: if the run fails, the mark is missing and it runs again.
        copy.with_suffix(".py.md5").unlink(missing_ok=True)
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(key)


def remove_orphans(app: Sphinx, exception: Exception | None) -> None:
    """Remove built pages whose source is gone: Sphinx leaves them."""
    if exception or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        docname = page.relative_to(app.outdir).with_suffix("").as_posix()
        kept = docname in app.env.all_docs or docname in GENERATED
        if not kept and not docname.startswith(("_modules/", "_static/")):
            page.unlink()


def setup(app: Sphinx) -> dict:
    """Prepare before the gallery runs its scripts, which is at priority 500."""
    app.add_config_value("extension_key", "", "env", str)
    app.connect("config-inited", set_extension_key)
    app.connect("config-inited", set_notebook_cache)
    app.connect("builder-inited", prepare_gallery, priority=100)
    app.connect("build-finished", remove_orphans)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
