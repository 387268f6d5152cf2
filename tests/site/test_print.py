"""On paper a chapter is whole: what is folded opens, and what scrolls is wrapped."""

import io
import unicodedata

import pytest
from built import CHAPTERS
from pypdf import PdfReader

# What a sheet of A4 leaves between margins of a centimetre, at 96 points an inch.
PAPER = 718
HIDDEN = """() => [...document.querySelectorAll(
  "main details > *, main .sd-tab-content, main .math-scroll, main pre")].filter(
    e => !e.closest(".d-print-none") && !e.checkVisibility()
  ).map(e => e.outerHTML.slice(0, 80))"""
CLIPPED = """() => [...document.querySelectorAll(
  "main pre, main .math-scroll, main table, main img")].filter(e => {
    const end = document.querySelector("main").getBoundingClientRect().right + 1;
    const inside = e.querySelector(".katex-html .base:last-child, .katex-html > *");
    return [e, inside].some(x => x && x.getBoundingClientRect().right > end)
      || e.matches("pre") && e.scrollWidth > e.clientWidth + 1;
  }).map(e => e.outerHTML.slice(0, 200))"""
PAGES = [
    *(f"{name}.html" for name in CHAPTERS),
    "gallery/1_rnn/plot_2_bptt.html",
    "verification.html",
]


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_hidden_or_cut_off(opened, origin, page):
    with opened(width=PAPER) as tab:
        tab.goto(f"{origin}/{page}")
        tab.emulate_media(media="print")
        assert not tab.evaluate(HIDDEN)
        assert not tab.evaluate(CLIPPED)


def test_the_tests_above_can_fail(opened, origin):
    with opened(width=PAPER) as tab:
        tab.goto(f"{origin}/rnn.html")
        assert tab.evaluate(HIDDEN)  # on the screen the solutions are folded
        tab.evaluate(
            "document.querySelector('main pre').style.cssText ="
            " 'width: 900px; white-space: pre'"
        )
        assert tab.evaluate(CLIPPED)


# Of each part that is folded on the screen, the first words outside formulas.
FOLDED = """() => [...document.querySelectorAll("main details")].map((folded) => {
  const texts = document.createTreeWalker(folded, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const { data, parentElement: around } = texts.currentNode;
    const words = data.trim().split(/\\s+/);
    if (!around.closest(".katex, summary") && words.length > 3)
      return words.slice(0, 4).join("");
  }
})"""


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_solutions_are_on_paper(opened, origin, name):
    with opened() as tab:
        tab.goto(f"{origin}/{name}.html")
        folded = tab.evaluate(FOLDED)
        paper = PdfReader(io.BytesIO(tab.pdf(format="A4")))
    text = "".join(sheet.extract_text() for sheet in paper.pages)
    # letters that are printed as one, such as ff, are two again
    printed = "".join(unicodedata.normalize("NFKC", text).split())
    assert len(folded) > 4
    assert not [words for words in folded if words not in printed]
