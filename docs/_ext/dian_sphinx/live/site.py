"""Make, copy and load what the live figures of the site need."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from sphinx.application import Sphinx

from dian_sphinx.editions import EDITIONS, is_source
from dian_sphinx.live import kept
from dian_sphinx.live.figure import RUNTIME, LiveFigure

RUNTIME_FILES = (
    "ort.wasm.min.js",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
FOLDER = "_static/live"
USED = re.compile(r"^[:`]{3,}\{live-figure\}", re.M)


def make_missing(app: Sphinx) -> None:
    """Make the files that are out of date before any page with a figure is read."""
    pages = Path(app.srcdir).glob("*.md")
    if not is_source(app.config) or not any(
        USED.search(page.read_text("utf-8")) for page in pages
    ):
        return
    app.has_live = True
    if kept.kept_keys() == kept.keys():
        return
    extensions = str(Path(__file__).parents[2])
    path = os.pathsep.join([extensions, *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.make"],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"the live figures could not be made:\n{done.stderr}")


def copy_into_site(app: Sphinx, exception: Exception | None) -> None:
    """Copy the files that the browser loads, and the runtime, into the site."""
    if exception or app.builder.format != "html" or not hasattr(app, "has_live"):
        return
    data = [path for path in kept.KEPT.iterdir() if path.suffix in (".js", ".onnx")]
    runtime = [RUNTIME / name for name in RUNTIME_FILES]
    for folder, sources in (("data", data), ("runtime", runtime)):
        target = Path(app.outdir, FOLDER, folder)
        target.mkdir(parents=True, exist_ok=True)
        for source in sources:
            copied = target / source.name
            if not copied.is_file() or copied.read_bytes() != source.read_bytes():
                shutil.copyfile(source, copied)


def load_script(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Load the small script that waits for the button, on pages that have one."""
    if app.env.metadata.get(pagename, {}).get("live"):
        # What it loads is there once, in the English edition.
        up = ""
        if not is_source(app.config):
            folders = EDITIONS[app.config.language].folder.count("/") + 1
            up = "../" * folders + "_static/"
        app.add_js_file(f"{up}live/live.js")


def connect(app: Sphinx) -> None:
    """Make the files before pages are read, and copy them after all are written."""
    app.add_directive("live-figure", LiveFigure)
    app.connect("builder-inited", make_missing)
    app.connect("html-page-context", load_script, priority=800)
    app.connect("build-finished", copy_into_site)
