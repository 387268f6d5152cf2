"""The pages beyond the theme: one style sheet, and one sidebar for all."""

from pathlib import Path

import pytest

from dian_sphinx import html


@pytest.fixture
def static(tmp_path):
    (tmp_path / "styles").mkdir()
    return tmp_path


def test_addresses_count_from_the_folder_of_the_joined_file(static):
    (static / "a.css").write_text("a{b:url(x.png)}")
    (static / "styles/b.css").write_text(
        "a{b:url(../fonts/y.woff2) url('z.png') url(\"data:,\") url(#id)}"
    )
    joined = html.joined(static, ["a.css", "styles/b.css"])
    assert joined == (
        "a{b:url(x.png)}\n"
        "a{b:url(fonts/y.woff2) url('styles/z.png') url(\"data:,\") url(#id)}"
    )


def test_an_import_is_refused(static):
    (static / "a.css").write_text('@import "b.css";')
    with pytest.raises(ValueError, match=r"a.css imports another style sheet; expect"):
        html.joined(static, ["a.css"])


def test_rules_of_icons_that_nobody_draws_go(static):
    (static / "a.css").write_text('.fa-moon{--fa:"x"}.fa-0{--fa:"y"}.fa-lg{a:b}')
    assert html.joined(static, ["a.css"]) == '.fa-moon{--fa:"x"}.fa-lg{a:b}'


def test_the_font_holds_what_the_style_sheet_asks_for(static):
    from fontTools.ttLib import TTFont
    from pydata_sphinx_theme import __file__ as theme

    folder = Path(theme).parent / "theme/pydata_sphinx_theme/static"
    style = '.fa-sun{--fa:"\\f185"} .note::before{content:"\uf05a"}'
    html.write_icons(folder / html.FONT, static / "icons.woff2", style)
    assert set(TTFont(static / "icons.woff2").getBestCmap()) == {0xF185, 0xF05A}
    assert (static / "icons.woff2").stat().st_size < 2000


UNMARKED = (
    '<ul class="nav bd-sidenav"><li class="toctree-l1"><a class="reference" '
    'href="a.html">A</a></li><li class="toctree-l1 has-children"><a class="reference" '
    'href="b.html">B</a><details><ul><li class="toctree-l2"><a class="reference" '
    'href="d/c.html">C</a></li></ul></details></li></ul>'
)
ON_C = (
    '<ul class="current nav bd-sidenav"><li class="toctree-l1"><a class="reference" '
    'href="../a.html">A</a></li><li class="toctree-l1 current active has-children"><a '
    'class="reference" href="../b.html">B</a><details open="open"><ul class="current">'
    '<li class="toctree-l2 current active"><a class="current reference" href="#">C</a>'
    "</li></ul></details></li></ul>"
)


def test_the_sidebar_of_one_page_is_turned_into_that_of_another():
    sidebar = html.Sidebar(ON_C, "d/c")
    assert sidebar.of("search") == UNMARKED
    assert sidebar.of("d/c") == ON_C
    below = UNMARKED.replace("a.html", "../a.html").replace("b.html", "../b.html")
    assert sidebar.of("x/y") == below.replace("d/c.html", "../d/c.html")
    assert 'active"><a class="current reference" href="#">A<' in sidebar.of("a")
    assert sidebar.of("search") == UNMARKED
