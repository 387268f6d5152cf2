"""Under each figure is a line that states its origin, or the build warns."""

import re

import pytest

from dian.runs import record as runs

NAME = "rnn-fashion-mnist"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010100000000376ef924"
    "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)


def test_provenance_is_one_line_with_the_name_of_the_run(site):
    assert site.build(f"```{{provenance}} {NAME}\n```") == ""
    record = runs.load(NAME)
    line = f"Recorded run {NAME}, {len(record.seeds)} seeds, {record.started[:10]}."
    assert f'<p class="provenance">{line}</p>' in site.html


def test_several_lines_in_a_row_are_folded(site):
    one = f"```{{provenance}} {NAME}\n```\n\n"
    assert site.build(f"{one * 3}Text.\n\n{one}") == ""
    box = re.search('<details class="provenance">(.*?)</details>', site.html, re.S)[1]
    assert "<summary>3 recorded runs</summary>" in box
    assert box.count("Recorded run ") == 3
    assert site.html.count("Recorded run ") == 4


def test_provenance_of_an_unknown_record_is_a_warning(site):
    assert "provenance nobody: no record" in site.build("```{provenance} nobody\n```")


def test_a_gallery_page_without_provenance_is_a_warning(site):
    script = (
        f'from dian.runs import record as records\nrecord = records.load("{NAME}")\n'
    )
    assert f"loads the record '{NAME}'" in site.build("Text.", page_py=script)
    text = f"```{{provenance}} {NAME}\n```"
    assert site.build(text, page_py=script) == ""


LOADS = f'from dian.runs import record as records\nrecord = records.load("{NAME}")\n'
CODE = ".. code-block:: Python\n\n   draw()\n"
FIGURE = ".. image:: x.png\n   :alt: curve\n"
PRINTED = ".. code-block:: none\n\n   0.5\n"
RECORDED = f".. provenance:: {NAME}\n"
LIVE = '<p class="provenance">Computed while this page was built.</p>'


def build_gallery(site, script: str, *parts: str) -> str:
    """Build a page as sphinx-gallery writes it."""
    page = "\n".join(["Page\n====\n", *parts])
    (site.source / "x.png").write_bytes(PIXEL)
    return site.build(page_py=script, page_rst=page)


@pytest.mark.parametrize(
    "parts",
    [
        [CODE, FIGURE, RECORDED, CODE, FIGURE],
        [CODE, FIGURE, CODE, FIGURE, RECORDED],
        [CODE, FIGURE, "Text.\n", CODE, RECORDED],
        [CODE, RECORDED, FIGURE],
    ],
)
def test_each_figure_of_a_page_with_a_record_needs_its_line(site, parts):
    warning = build_gallery(site, LOADS, *parts)
    said = "the figure 'curve' needs the directive `provenance` or `live` under it"
    assert warning.count(said) == 1
    assert "page.rst:" in warning


@pytest.mark.parametrize(
    "parts",
    [
        [CODE, FIGURE, PRINTED, "Text.\n", RECORDED, CODE],
        [CODE, FIGURE, FIGURE, RECORDED],
        [CODE, FIGURE, RECORDED, CODE, FIGURE, ".. live::\n"],
    ],
)
def test_figures_with_their_lines_are_enough(site, parts):
    assert build_gallery(site, LOADS, *parts) == ""
    assert site.html.count(LIVE) == parts.count(".. live::\n")


def test_figures_of_a_page_without_a_record_get_their_line(site):
    row = ["* " + FIGURE.replace("\n ", "\n  "), "* " + FIGURE.replace("\n ", "\n  ")]
    assert build_gallery(site, "x = 1\n", CODE, FIGURE, PRINTED, CODE, *row) == ""
    assert site.html.count(LIVE) == 2
    assert re.search(rf"x.png\" />\s*{LIVE}", site.html)
    assert re.search(rf"</ul>\s*{LIVE}", site.html)


def test_a_cell_that_loads_a_record_needs_provenance(site):
    head = "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n# Page\n\n"
    cell = f'```{{code-cell}} python\nrecords.load("{NAME}")\n```\n'
    assert "needs the directive `provenance`" in site.build(page_md=head + cell)
