"""The check of the built site finds what it is there to find."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[2] / "scripts/check_site.py"
GOOD = """<html><head><link rel="stylesheet" href="_static/style.css">
<link rel="canonical" href="https://example.org/"></head><body id="top">
<a href="#top">up</a> <a href="page.html#there">there</a> <a href="sub/">sub</a>
<a href="https://example.org/paper">a link that leads out is no resource</a>
<a href="mailto:x@example.org">write</a> <img src="data:," alt="a curve that falls">
</body></html>"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "_static/style.css").write_text("p { background: url(x.png) }")
    (tmp_path / "_static/template.html").write_text("<a href='{{ nowhere }}'>x</a>")
    (tmp_path / "index.html").write_text(GOOD)
    (tmp_path / "page.html").write_text("<h1 id='there'>There</h1>")
    (tmp_path / "sub/index.html").write_text("<a href='../index.html#top'>up</a>")
    return tmp_path


def check(site: Path) -> tuple[int, str]:
    command = [sys.executable, str(CHECK), str(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_a_good_site_passes(site):
    assert check(site) == (0, "3 pages checked, 0 problems\n")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<script src='https://example.org/x.js'></script>", "fetches https://"),
        ("<script src='//example.org/x.js'></script>", "fetches //example.org"),
        ("<link rel='stylesheet' href='http://example.org/x.css'>", "fetches http://"),
        ("<link rel='preconnect' href='https://example.org'>", "fetches https://"),
        ("<img src='https://example.org/x.png' alt='x'>", "fetches https://"),
        ("<img srcset='page.html, //example.org/x 2x' alt='x'>", "fetches //example"),
        ("<iframe src='https://example.org'></iframe>", "fetches https://"),
        ("<p style='background: url(https://example.org/x)'>", "fetches https://"),
        ("<style>@import 'https://example.org/x.css';</style>", "fetches https://"),
        ("<a href='gone.html'>x</a>", "dead link gone.html: no such file"),
        ("<a href='page.html#gone'>x</a>", "no such place on page.html"),
        ("<a href='#gone'>x</a>", "dead link #gone"),
        ("<a href='../outside.html'>x</a>", "it leaves the site"),
        ("<script src='_static/gone.js'></script>", "dead link _static/gone.js"),
        ("<img src='data:,'>", "no text alternative"),
        ("<p>Why?\n: <a href='page.html'>Here</a>.</p>", "begins with a colon: <a hr"),
        ("<img src='sphx_glr_plot_1_x_001.png' alt='plot 1 x'>", "no text alternative"),
    ],
)
def test_each_problem_is_found(site, body, said):
    (site / "bad.html").write_text(body)
    status, printed = check(site)
    assert status == 1
    assert said in printed
    assert "bad.html: " in printed


def test_code_may_begin_a_line_with_a_colon(site):
    (site / "good.html").write_text("<pre>x = a[\n: 3]</pre><p>as \n:there</p>")
    assert check(site)[0] == 0


def test_a_style_sheet_that_fetches_from_elsewhere_is_found(site):
    (site / "_static/style.css").write_text("@import url('https://example.org/x');")
    assert "style.css: fetches https://example.org/x" in check(site)[1]


def test_an_empty_folder_is_not_a_site(tmp_path):
    assert check(tmp_path)[0] == 1
