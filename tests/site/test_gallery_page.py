"""A gallery page shows its argument first: code is folded, downloads are on top."""

import re

import pytest
from docutils import nodes

from dian_sphinx import gallery_page

SETTINGS = {
    "extensions": ["myst_nb"],
    "html_theme": "basic",
    "nb_execution_mode": "off",
    "master_doc": "index",
}
DOWNLOADS = """
.. only:: html

  .. container:: sphx-glr-footer sphx-glr-footer-example

    Download the notebook.
"""
POINTER = """
.. only:: html

    .. note::
        :class: sphx-glr-download-link-note

        Go to the end.
"""


def code(lines: int, language: str = "Python") -> str:
    body = "\n".join(f"    x = {i}\n" for i in range(lines))
    return f"\n.. code-block:: {language}\n\n{body}\n"


@pytest.fixture
def page(tmp_path, sphinx_build, extension_of):
    """Build one page as sphinx-gallery writes it, and return its HTML or LaTeX."""

    def build(text, form="html", folder="gallery"):
        source = tmp_path / "docs"
        (source / folder).mkdir(parents=True)
        tree = f"Top\n===\n\n.. toctree::\n\n   {folder}/one\n"
        (source / "index.rst").write_text(tree)
        title = f"{POINTER}\nOne\n===\n\nThe question.\n{text}{DOWNLOADS}"
        (source / folder / "one.rst").write_text(title)
        ours = [*SETTINGS["extensions"], extension_of("folded", "gallery_page")]
        settings = SETTINGS | {"extensions": ours}
        assert sphinx_build(source, tmp_path / "out", settings, form) == ""
        [found] = (tmp_path / "out").rglob("one.html" if form == "html" else "*.tex")
        return found.read_text("utf-8")

    return build


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        (code(gallery_page.LONG), 0),
        (code(gallery_page.LONG + 1), 1),
        (code(gallery_page.LONG + 1, "none"), 0),
        (code(gallery_page.LONG + 1) + code(2) + code(99), 2),
    ],
)
def test_long_blocks_of_python_are_folded(page, text, folded):
    html = page(text)
    assert html.count('<details class="code">') == folded
    sizes = re.findall("<summary>Code, (\\d+) lines</summary>", html)
    assert all(int(size) > gallery_page.LONG for size in sizes)


def test_the_downloads_are_below_the_title(page):
    html = page(code(2))
    places = [html.index(text) for text in ("<h1>", "notebook", "The question", "x")]
    assert places[:3] == sorted(places[:3])
    assert "Go to the end" not in html


def test_code_on_other_pages_is_shown(page):
    assert "<details" not in page(code(99), folder="chapters")


def test_the_pdf_shows_all_code(page):
    tex = page(code(30), form="latex")
    assert "Code, 30 lines" not in tex
    assert tex.count("n}{x}") + tex.count("{x}") >= 30


PRINTED = """
.. rst-class:: sphx-glr-script-out

 .. code-block:: none

    before
    | network      |   loss (nats) |
    |:-------------|--------------:|
    | $W_{hh} = 0$ |          2.10 |
    | ReLU         |          1.85 |

    | a   |
    |:----|
    | b   |
    after | not a table
"""


def test_what_is_printed_as_a_table_is_one(page):
    html = page(PRINTED)
    assert html.count("<table") == 2
    assert len(re.findall(r"<th\b", html)) == 3
    assert html.count('<td class="text-right"') == 2
    assert re.search(r"<td><p><span class=\"math[^>]*>\\\(W_\{hh\} = 0\\\)", html)
    texts = re.findall(r"<pre>(?:<span></span>)?(.*?)\n?</pre>", html, re.DOTALL)
    assert texts == ["before", "after | not a table"]
    assert html.count("sphx-glr-script-out") == 2
    assert html.index("before") < html.index("<table") < html.index("after |")


def test_a_table_at_the_beginning_is_not_laid_out_as_text(page):
    html = page(PRINTED.replace("    before\n", ""))
    assert html.count("<table") == 2
    assert html.count("sphx-glr-script-out") == 1


def test_the_pdf_has_the_table_too(page):
    tex = page(PRINTED, form="latex")
    assert "|:---" not in tex
    assert tex.count(r"\sphinxstyletheadfamily") == 3
    assert r"\(W_{hh} = 0\)" in tex


def test_a_table_in_code_is_left_alone(page):
    assert "<table" not in page(PRINTED.replace("script-out", "script"))


def test_a_table_on_other_pages_is_left_alone(page):
    assert "<table" not in page(PRINTED, folder="chapters")


def test_one_table_follows_another():
    lines = ["| a |", "|--:|", "| 1 |", "| b | c |", "|--:|--:|", "| 2 | 3 |"]
    parts = gallery_page.tabulated(nodes.literal_block("", "\n".join(lines)))
    assert [part.astext().split() for part in parts] == [
        ["a", "1"],
        ["b", "c", "2", "3"],
    ]
