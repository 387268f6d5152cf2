"""The style sheets of the site become one, and nothing in them is lost."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs/_ext"))

import assets  # noqa: E402


@pytest.fixture
def static(tmp_path):
    (tmp_path / "styles").mkdir()
    return tmp_path


def test_addresses_count_from_the_folder_of_the_joined_file(static):
    (static / "a.css").write_text("a{b:url(x.png)}")
    (static / "styles/b.css").write_text(
        "a{b:url(../fonts/y.woff2) url('z.png') url(\"data:,\") url(#id)}"
    )
    joined = assets.joined(static, ["a.css", "styles/b.css"])
    assert joined == (
        "a{b:url(x.png)}\n"
        "a{b:url(fonts/y.woff2) url('styles/z.png') url(\"data:,\") url(#id)}"
    )


def test_an_import_is_refused(static):
    (static / "a.css").write_text('@import "b.css";')
    with pytest.raises(ValueError, match=r"a.css imports another style sheet; expect"):
        assets.joined(static, ["a.css"])


def test_rules_of_icons_that_nobody_draws_go(static):
    (static / "a.css").write_text('.fa-moon{--fa:"x"}.fa-0{--fa:"y"}.fa-lg{a:b}')
    assert assets.joined(static, ["a.css"]) == '.fa-moon{--fa:"x"}.fa-lg{a:b}'


def test_the_font_holds_what_the_style_sheet_asks_for(static):
    from fontTools.ttLib import TTFont
    from pydata_sphinx_theme import __file__ as theme

    folder = Path(theme).parent / "theme/pydata_sphinx_theme/static"
    style = '.fa-sun{--fa:"\\f185"} .note::before{content:"\uf05a"}'
    assets.write_icons(folder / assets.FONT, static / "icons.woff2", style)
    assert set(TTFont(static / "icons.woff2").getBestCmap()) == {0xF185, 0xF05A}
    assert (static / "icons.woff2").stat().st_size < 2000
