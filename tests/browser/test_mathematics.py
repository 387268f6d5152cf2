"""Equations are set before the reader gets them, and can be linked to and copied."""

import re

import pytest
from built import CHAPTERS


def test_no_script_sets_mathematics(surveys):
    told = [
        part["address"]
        for look in surveys["light"].looks.values()
        for part in look["sent"]
        if re.search(r"mathjax|katex[^/]*\.js|auto-render", part["address"], re.I)
    ]
    assert not told


@pytest.mark.parametrize("what", ["without_tex", "unlinked"])
def test_every_formula_has_its_tex_and_every_number_a_link(surveys, what):
    assert not surveys["light"].each(what)


@pytest.mark.parametrize("name", CHAPTERS)
def test_without_scripts_the_equations_are_there(opened, origin, name):
    with opened(java_script_enabled=False) as tab:
        tab.goto(f"{origin}/{name}.html")
        assert tab.locator(".eqno").count() > 5
        box = tab.locator("main .katex-display .katex-html").first.bounding_box()
        assert box["width"] > 30
        assert box["height"] > 10


SELECT = """(selector) => {
  const range = document.createRange();
  range.selectNodeContents(document.querySelector(selector));
  getSelection().removeAllRanges();
  getSelection().addRange(range);
}"""


@pytest.fixture
def copied(opened, origin):
    """Return a function that selects an element of a page, and copies it."""

    def copy(page: str, selector: str) -> str:
        with opened(permissions=["clipboard-read", "clipboard-write"]) as tab:
            tab.goto(f"{origin}/{page}")
            tab.evaluate(SELECT, selector)
            tab.keyboard.press("Control+c")
            return tab.evaluate("navigator.clipboard.readText()")

    return copy


def test_who_copies_an_equation_gets_its_tex(copied):
    # the drawn formula alone, as when it is chosen with the mouse
    text = copied("rnn.html", "main .katex-display .katex-html")
    assert text.startswith("$$")
    assert text.endswith("$$")
    assert text.count("$") == 4
    assert "\\" in text


@pytest.mark.parametrize("where", ["main p", "main section section:last-of-type > p"])
def test_who_copies_a_paragraph_gets_its_formulas_once(copied, where):
    text = copied("rnn.html", f"{where}:has(.katex)")
    formulas = re.findall(r"\$([^$]+)\$", text)
    assert formulas
    words = re.sub(r"\$[^$]+\$", "", text)
    assert not re.search(r"\\[a-z]+", words)


def test_other_text_is_copied_as_it_stands(copied):
    assert copied("rnn.html", "article h1").startswith("1. Recurrent neural networks")


def test_a_link_to_an_equation_shows_it(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/rnn.html")
        links = tab.locator(".eqno a.headerlink")
        last = links.nth(links.count() - 1).get_attribute("href")
        tab.goto(f"{origin}/rnn.html{last}")
        tab.wait_for_timeout(500)
        top = tab.locator(last).bounding_box()["y"]
    assert -5 < top < 900
