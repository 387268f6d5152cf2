"""What a script prints as a table is one; nothing is aligned with spaces."""

import re
from itertools import chain, pairwise

import pytest
from built import HTML, MODES, gallery_pages

# Pages that print text whose lines look alike, and are no tables.
NO_TABLES = {
    "1_rnn/plot_5_fashion_mnist": "the two data sets as Python describes them",
    "1_rnn/plot_8_how_it_breaks": "which training runs stopped, a sentence each",
    "3_attention/plot_4_random_matrix": "twenty scores, ten in a line",
    "3_attention/plot_5b_language_model": "sequences that a model wrote",
    "4_diffusion/plot_3_algorithms": "the code of the library",
}
WIDE = "gallery/4_diffusion/plot_6_ablations.html"
PRINTED = re.compile(
    r'sphx-glr-script-out[^>]*><div class="highlight"><pre[^>]*>(.*?)</pre>', re.DOTALL
)
NUMBER = re.compile(r"[-+]?\d[\d.,]*(?:e[-+]\d+)?%?")


def aligned(text: str) -> list[str]:
    """Return the lines that are a table in disguise, in pairs of neighbours.

    Either both have columns that spaces keep apart, or they are one sentence with other
    numbers in it.
    """
    lines = [line.strip() for line in text.splitlines()]
    found = []
    for pair in pairwise(lines):
        columns = all(re.search(r"\S {2,}\S", one) for one in pair)
        first, second = (NUMBER.sub("0", one) for one in pair)
        if columns or (first == second and NUMBER.search(pair[0])):
            found.append(" / ".join(pair))
    return found


def test_no_page_prints_aligned_columns():
    told = {}
    for name in gallery_pages():
        page = (HTML / name).read_text("utf-8")
        text = [re.sub("<[^>]*>", "", block) for block in PRINTED.findall(page)]
        key = name.removeprefix("gallery/").removesuffix(".html")
        if key not in NO_TABLES and (lines := [*chain(*map(aligned, text))]):
            told[key] = lines
    assert not told


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rate   failed\n0.03   0 of 5\n", 1),
        ("the last 4 rows: 44.2%\nthe last 14 rows: 99.0%\n", 1),
        ("accuracy 0.9\nloss of the first step 2.3\n", 0),
        ("one sentence\nanother sentence\n", 0),
    ],
)
def test_the_test_above_sees_them(text, found):
    assert len(aligned(text)) == found


def test_most_pages_have_a_table():
    pages = [(HTML / name).read_text("utf-8") for name in gallery_pages()]
    assert sum('class="printed' in page for page in pages) > 30
    assert not [page for page in pages if re.search(r"<pre[^>]*>[^<]*\|:?--", page)]


@pytest.mark.parametrize("mode", MODES)
def test_a_wide_table_scrolls_alone(opened, origin, mode):
    with opened(mode, width=390) as tab:
        tab.goto(f"{origin}/{WIDE}")
        tab.wait_for_timeout(300)  # until the keyboard reaches what scrolls
        boxes = tab.evaluate(
            """() => [...document.querySelectorAll("table.printed")].map((e) => {
              const box = e.closest(".pst-scrollable-table-container");
              return [box.scrollWidth > box.clientWidth, box.tabIndex,
                getComputedStyle(box).overflowX];
            })"""
        )
        assert tab.evaluate("document.scrollingElement.scrollWidth") == 390
    wide = [rest for scrolls, *rest in boxes if scrolls]
    assert wide
    assert all(index == 0 and how == "auto" for index, how in wide)


def test_a_narrow_table_keeps_words_in_chinese(opened, origin):
    """The first column holds names, such as 循环神经网络 with six characters."""
    with opened(width=390) as tab:
        tab.goto(f"{origin}/zh_CN/one_core.html")
        lines = tab.evaluate(
            """() => [...document.querySelectorAll("article td:first-child p")].filter(
                (name) => /^[\\u3400-\\u9fff]{3,6}$/.test(name.textContent)
              ).map((name) => Math.round(name.getBoundingClientRect().height
                / parseFloat(getComputedStyle(name).lineHeight)))"""
        )
        assert tab.evaluate("document.scrollingElement.scrollWidth") == 390
    assert len(lines) >= 4
    assert set(lines) == {1}
