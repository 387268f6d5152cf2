"""Paragraphs far from the screen are not laid out, and still there for a search."""

import pytest
from built import CHAPTERS, WIDTHS

# Parts of paragraphs, and those of them that are not laid out where they stand.
PARTS = """() => {
  const parts = [...document.querySelectorAll("article section section > p *")];
  const skipped = (part) => !part.checkVisibility({ contentVisibilityAuto: true });
  return [parts.length, parts.filter((p) => p.checkVisibility() && skipped(p)).length];
}"""
SECTIONS = """() =>
  [...document.querySelectorAll("article section section[id]")].map((e) => e.id)"""
TOP = "(id) => document.getElementById(id).getBoundingClientRect().top"


@pytest.mark.parametrize("name", CHAPTERS)
def test_most_is_laid_out_on_paper_only(opened, origin, name):
    with opened() as tab:
        tab.goto(f"{origin}/{name}.html")
        n_part, skipped = tab.evaluate(PARTS)
        assert skipped > 0.6 * n_part > 1000
        tab.emulate_media(media="print")
        assert tab.evaluate(PARTS) == [n_part, 0]


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("name", CHAPTERS)
def test_a_link_leads_to_its_section(opened, origin, name, width):
    with opened(width=width) as tab:
        tab.goto(f"{origin}/{name}.html")
        names = tab.evaluate(SECTIONS)
        for section in (names[-1], names[len(names) // 2], names[1]):
            tab.evaluate("(id) => { location.hash = id }", section)
            tab.wait_for_timeout(500)
            # Under the head of the page; lower if the page ends before.
            lowest = 72 if section != names[-1] else 450
            assert 56 < tab.evaluate(TOP, section) < lowest


def test_the_browser_finds_words_of_the_last_paragraph(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/diffusion.html")
        last = tab.locator("article section section > p").last
        words = " ".join(last.evaluate("(e) => e.lastChild.data").split()[:4])
        assert len(words) > 10
        assert tab.evaluate("(words) => window.find(words)", words)
        assert not tab.evaluate("(words) => window.find(words)", words[::-1])
