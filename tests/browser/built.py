"""Where the built site is, what is on it, and in which ways it is looked at."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HTML = ROOT / "build/html"
NODE_MODULES = Path(__file__).parent / "node_modules"
PACKED = {".html", ".css", ".js", ".svg", ".json", ".txt", ".ipynb", ".py"}
MODES = ("light", "dark")
WIDTHS = {"desktop": 1280, "telephone": 390}
CHAPTERS = ("rnn", "positions", "attention", "diffusion")

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    pytest.exit("no Playwright; run: make test-site", returncode=2)


def chromium() -> str:
    """Find the browser, or say in one line what to install."""
    names = ("chromium", "chromium-browser", "google-chrome")
    for name in (os.environ.get("CHROME_PATH"), *names):
        if name and (found := shutil.which(name)):
            return found
    pytest.exit("no Chromium; on Debian: apt-get install chromium", returncode=2)


@contextmanager
def started():
    """Start the browser for a while."""
    if not (NODE_MODULES / "axe-core").is_dir():
        pytest.exit("no axe-core; run: make test-site", returncode=2)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=["--no-sandbox", "--disable-gpu", "--disable-quic"],
        )
        try:
            yield browser
        finally:
            browser.close()


def until(tab, expression: str, seconds: float = 30) -> None:
    """Wait until an expression is true.

    Playwright's own ``wait_for_function`` evaluates a text in the page, which the
    policy of the pages refuses.
    """
    for _ in range(int(20 * seconds)):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"expected within {seconds} s: {expression}")


def page_names() -> list[str]:
    """List the pages of the built site, and of the code of modules the first.

    All pages of code have one form, a heading and a listing; their links are checked
    by scripts/check_site.py.
    """
    if not (HTML / "index.html").exists():
        pytest.exit("the site is not built; run: make html", returncode=2)
    found = (path.relative_to(HTML) for path in HTML.rglob("*.html"))
    pages = sorted(path.as_posix() for path in found if "_static" not in path.parts)
    code = [name for name in pages if name.startswith("_modules/dian/")]
    return [name for name in pages if name not in code[1:]]


def gallery_pages() -> list[str]:
    """List the pages that were made of a script, in English."""
    return [
        name
        for name in page_names()
        if name.startswith("gallery/") and "/plot_" in name
    ]
