"""The one style sheet of the site has every rule that a page can use."""

from itertools import product

import pytest
from built import HTML, WIDTHS

from dian_sphinx.used_rules import blocks, classes, left_out, shown, words

SHEETS = ("styles/pydata-sphinx-theme", "sphinx-design.min", "copybutton")
CLASSES = "() => [...document.querySelectorAll('*')].flatMap((e) => [...e.classList])"


@pytest.fixture(scope="module")
def there():
    """Return the classes of all pages."""
    return shown(HTML)


@pytest.mark.parametrize("name", ["styles/pydata-sphinx-theme", "sphinx-design.min"])
def test_no_rule_that_a_page_could_use_is_left_out(there, name):
    sheet = (HTML / f"_static/{name}.css").read_text("utf-8")
    gone = left_out(sheet, words() | there)
    assert {"bd-main", "admonition", "sd-card"} <= there
    assert len(gone) > 500
    assert [one for one in gone if classes(one) <= there] == []


def test_no_rule_for_what_scripts_add_is_left_out(opened, there):
    """Classes of the pages as they are in the browser, with a dialog open."""
    full = "".join((HTML / f"_static/{n}.css").read_text("utf-8") for n in SHEETS)
    gone, found = left_out(full, words() | there), set()
    pages = ("index", "installation", "rnn", "search", "gallery/1_rnn/plot_1_forward")
    for width, page in product(WIDTHS.values(), pages):
        with opened(width=width) as tab:
            tab.goto((HTML / f"{page}.html").as_uri())
            tab.keyboard.press("Control+k")
            tab.wait_for_timeout(200)
            found |= set(tab.evaluate(CLASSES))
    assert {"copybtn", "interactive-control"} <= found
    assert [one for one in gone if classes(one) <= found] == []


def test_the_sheet_has_no_rule_without_use(there):
    sheet = (HTML / "_static/site.css").read_text("utf-8")
    assert left_out(sheet, words() | there) == []
    assert len([*blocks(sheet)]) > 500
    assert "Bootstrap" in sheet  # its license
