"""Where the built site is, what is on it, and in which ways it is looked at."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HTML = ROOT / "build/html"
NODE_MODULES = Path(__file__).parent / "node_modules"
PACKED = {".html", ".css", ".js", ".svg", ".json", ".txt", ".ipynb", ".py"}
MODES = ("light", "dark")
WIDTHS = {"desktop": 1280, "telephone": 390}


def chromium() -> str:
    """Find the browser, or say in one line what to install."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.exit("no Chromium; on Debian: apt-get install chromium", returncode=2)


def page_names() -> list[str]:
    """List every page of the built site."""
    if not (HTML / "index.html").exists():
        pytest.exit("the site is not built; run: make html", returncode=2)
    found = (path.relative_to(HTML).as_posix() for path in HTML.rglob("*.html"))
    return sorted(name for name in found if not name.startswith("_static/"))
