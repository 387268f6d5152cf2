"""A page is light: what its first load transfers, and what Lighthouse says of it."""

import gzip
import json
import os
import subprocess
from urllib.parse import unquote, urlsplit

import pytest
from built import HTML, NODE_MODULES, PACKED, chromium, page_names

LIMIT = 600_000
"""Bytes of a first load, packed, without pictures."""

SCORES = {"accessibility": 1.0, "best-practices": 0.95}


def test_every_first_load_is_small(opened, origin):
    heavy = {}
    for name in page_names():
        with opened() as tab:
            asked = []
            tab.on("request", lambda r, asked=asked: asked.append(r))
            tab.goto(f"{origin}/{name}", wait_until="load")
            size = sum(packed(r.url) for r in asked if r.resource_type != "image")
        if size > LIMIT:
            heavy[name] = size
    assert not heavy


def packed(address: str) -> int:
    path = HTML / unquote(urlsplit(address).path).lstrip("/")
    content = path.read_bytes()
    return len(gzip.compress(content, 6) if path.suffix in PACKED else content)


def longest() -> str:
    """Return the chapter page with most bytes."""
    chapters = ("rnn", "positions", "attention", "diffusion")
    return max(
        (f"{name}.html" for name in chapters), key=lambda p: (HTML / p).stat().st_size
    )


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
