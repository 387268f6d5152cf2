"""On paper a chapter is whole: what is folded opens, and what scrolls is wrapped."""

import io
import unicodedata

import pytest
from built import CHAPTERS, MODES, until
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


# Words that would hardly be seen on white paper (WCAG 2, 1.4.3), by their colours.
PALE = """() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((v) =>
      v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const says = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll("main *")].filter((e) => says(e)
    && e.checkVisibility() && !e.closest("svg, script, .headerlink")
    && 1.05 / (light(getComputedStyle(e).color) + 0.05) < 4.4
  ).map((e) => e.outerHTML.slice(0, 80));
}"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("page", PAGES)
def test_words_are_dark_on_paper_and_the_screen_keeps_its_colours(
    opened, origin, page, mode
):
    with opened(mode) as tab:
        tab.goto(f"{origin}/{page}")
        assert bool(tab.evaluate(PALE)) == (mode == "dark")
        tab.emulate_media(media="print")
        until(tab, "document.documentElement.dataset.theme === 'light'")
        assert not tab.evaluate(PALE)
        tab.emulate_media(media="screen")
        until(tab, f"document.documentElement.dataset.theme === '{mode}'")


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
    assert len(folded) > 1
    assert not [words for words in folded if words not in printed]
