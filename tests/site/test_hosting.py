"""With an address, the site says where it is; without one, it needs none."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADDRESS = "https://example.org/dian/"
CONF = f"""
from runpy import run_path

whole = run_path({str(ROOT / "conf.py")!r})
names = ("html_baseurl", "sitemap_", "ogp_", "notfound_")
globals().update((k, v) for k, v in whole.items() if k.startswith(names))
extensions = whole["extensions"][-3:]
"""


def settings(monkeypatch, **variables: str) -> dict:
    """Read conf.py as it is with these variables."""
    for name in ("DIAN_URL", "READTHEDOCS_CANONICAL_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(ROOT / "conf.py"))


@pytest.fixture(scope="module")
def hosted(tmp_path_factory):
    """Two pages built with what conf.py says of hosting."""
    source, built = map(tmp_path_factory.mktemp, ("docs", "built"))
    (source / "conf.py").write_text(CONF)
    (source / "index.rst").write_text(
        "Title\n=====\n\nWhat it is about.\n\n.. toctree::\n\n   other\n"
    )
    (source / "other.rst").write_text("Other\n=====\n\nText.\n")
    # A process of its own: sphinx-sitemap leaves one running until Sphinx ends.
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", source, built],
        env=os.environ | {"DIAN_URL": ADDRESS},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return built


def test_the_map_of_the_site_lists_every_page(hosted):
    listed = re.findall("<loc>(.*?)</loc>", (hosted / "sitemap.xml").read_text())
    assert {f"{ADDRESS}index.html", f"{ADDRESS}other.html"} <= set(listed)


def test_a_page_says_its_address_and_what_it_is_about(hosted):
    page = (hosted / "index.html").read_text()
    assert f'<link rel="canonical" href="{ADDRESS}index.html"' in page
    assert f'<meta property="og:url" content="{ADDRESS}' in page
    assert '<meta property="og:title" content="Title"' in page
    assert "What it is about." in re.search("og:description.*", page)[0]


def test_what_is_not_there_has_a_page_that_works_at_every_depth(hosted):
    page = (hosted / "404.html").read_text()
    links = re.findall(r'(?:href|src)="([^"#]+)"', page)
    inside = [a for a in links if not a.startswith("http")]
    assert inside
    assert all(a.startswith("/dian/") for a in inside)


def test_read_the_docs_says_the_address_by_itself(monkeypatch):
    conf = settings(monkeypatch, READTHEDOCS_CANONICAL_URL=ADDRESS)
    assert conf["html_baseurl"] == ADDRESS


def test_without_an_address_nothing_is_said_of_one(monkeypatch):
    conf = settings(monkeypatch)
    assert conf["html_baseurl"] == ""
    assert not {"sphinx_sitemap", "notfound.extension"} & set(conf["extensions"])


@pytest.mark.parametrize(
    ("file", "commands"),
    [
        (".readthedocs.yaml", ["make html"]),
        (
            ".github/workflows/pages.yml",
            ["make pdf", "make pdf LANGUAGE=zh_CN", "make html"],
        ),
    ],
)
def test_who_hosts_it_builds_it_with_the_commands_of_the_readme(file, commands):
    text = (ROOT / file).read_text("utf-8")
    made = re.findall(r"(?:- run: |- )(make .*)", text)
    assert made == commands
    assert "build/html" in text
    names = ("README.md", "README.zh.md")
    readmes = "".join((ROOT / name).read_text("utf-8") for name in names)
    assert all(f"`{c}`" in readmes or f"$ {c}\n" in readmes for c in commands)


def test_every_page_shows_the_version(monkeypatch):
    conf = settings(monkeypatch)
    footer = conf["html_theme_options"]["extra_footer"]
    assert footer == f"<p>Dian {conf['release']}</p>"
