"""A page is light: what its first load transfers, and what Lighthouse says of it."""

import json
import os
import re
import subprocess

import pytest
from built import CHAPTERS, HTML, NODE_MODULES, chromium

LIMIT = 600_000
"""Bytes of a first load, packed, without pictures."""

SCORES = {"accessibility": 1.0, "best-practices": 0.95}


PICTURE = re.compile(r"\.(png|jpe?g|svg|webp|gif)(\?|$)")


def test_every_first_load_is_small(surveys):
    sizes = {name: weight(look) for name, look in surveys["light"].looks.items()}
    print(max(sizes.values()), max(sizes, key=sizes.get))
    # at least the page, the style sheet and a script
    assert min(sizes.values()) > 80_000
    assert not {name: size for name, size in sizes.items() if size > LIMIT}


def weight(look: dict) -> int:
    """Add up what came with a page, packed as it was sent."""
    parts = (one for one in look["sent"] if not PICTURE.search(one["address"]))
    return sum(one["bytes"] for one in parts)


def longest() -> str:
    """Return the chapter page with most bytes."""
    pages = [f"{name}.html" for name in CHAPTERS]
    return max(pages, key=lambda page: (HTML / page).stat().st_size)


@pytest.mark.parametrize("which", ["longest", "index"])
def test_lighthouse(origin, tmp_path, which):
    name, least = ("index.html", 0.95) if which == "index" else (longest(), 0.90)
    report = tmp_path / "report.json"
    command = [
        *(NODE_MODULES / ".bin/lighthouse", f"{origin}/{name}", "--quiet"),
        *("--output=json", f"--output-path={report}"),
        "--only-categories=performance,accessibility,best-practices",
        "--chrome-flags=--headless=new --no-sandbox --disable-gpu",
    ]
    best: dict[str, float] = {}
    # The speed is measured on a machine that may be busy: the best of three counts.
    for _ in range(3):
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            env=os.environ | {"CHROME_PATH": chromium()},
        )
        found = json.loads(report.read_text("utf-8"))["categories"]
        for key, category in found.items():
            best[key] = max(best.get(key, 0), category["score"])
        if best["performance"] >= least:
            break
    print(name, best)
    assert best["performance"] >= least
    assert all(best[key] >= score for key, score in SCORES.items())
