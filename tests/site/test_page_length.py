"""No page of a chapter is longer than can be read at a time: at most 2,500 words.

Counted are the words that a reader sees at once: paragraphs, headings, lists, boxes,
tables and exercises. A link counts with its text, one without a text and a number that
is read from a record count as one word. Not counted are code, displayed formulas,
figures, index entries and other directives, formulas in the text, and what is folded:
dropdowns, such as those with the solutions.
"""

import re
from pathlib import Path

import pytest

from dian_sphinx.teaching import CHAPTERS

ROOT = Path(__file__).parents[2]
PAGES = [page for name in CHAPTERS for page in sorted(ROOT.glob(f"docs/{name}*.md"))]
MOST = 2_500
FENCE = re.compile(r"\s*(:{3,}|`{3,})(.*)")
OPTION = re.compile(r"\s*:[\w-]+:")
LABEL = re.compile(r"^\([\w-]+\)=$", re.MULTILINE)
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$]+\$", re.DOTALL)
TITLED = re.compile(r"(?:\{[\w:]+\})?`([^`<]+?)\s*<[^`]*>`")
OTHER_ROLE = re.compile(r"\{[\w:]+\}`[^`]*`|`[^`]*`")
TARGET = re.compile(r"\]\([^)]*\)")
WORD = re.compile(r"[^\W_](?:[\w.,'’/-]*\w)?")


def count(text: str) -> int:
    """Return the number of words of a page."""
    text = FORMULA.sub(" ", LABEL.sub("", visible(text)))
    text = OTHER_ROLE.sub(" word ", TITLED.sub(r"\1", text))
    return len(WORD.findall(TARGET.sub("]", text)))


def visible(text: str) -> str:
    """Leave out what is in a fence of backticks, or in a dropdown."""
    kept, opened = [], []  # the fences around a line: their marks, and what follows
    for line in text.splitlines():
        marks, rest = match.groups() if (match := FENCE.fullmatch(line)) else ("", "")
        around = opened[-1][0] if opened else ""
        if marks and not rest and marks[0] == around[:1] and len(marks) >= len(around):
            opened.pop()
            continue
        if marks and not around.startswith("`"):
            opened.append((marks, rest))
            line = rest.partition("}")[2]  # the title of a box
        left_out = any(m[0] == "`" or r.startswith("{dropdown}") for m, r in opened)
        if not left_out and not (opened and OPTION.match(line)):
            kept.append(line)
    return "\n".join(kept)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_of_a_chapter_is_not_too_long(page):
    assert count(page.read_text("utf-8")) <= MOST


def test_every_chapter_has_pages():
    assert len(PAGES) >= 4 * len(CHAPTERS)


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("One two, three.", 3),
        ("# A heading\n\n- an item\n- *another* one", 6),
        ("(label)=\n## Title", 1),
        ("The weight $W_{hh}$ and $a + b$.", 3),
        ("Then\n\n$$\na = b\n$$\n\nis $c$ here.", 3),
        ("It is {result}`name/test/accuracy:.1%` of `1 + 2` tests.", 6),
        ("See {doc}`rnn` and {ref}`the next page <target>`, [here](a.md#b).", 7),
        ("| a | b |\n|---|---|\n| {result}`name/x` | two words |", 5),
        ("```python\nx = 1\n```\ntext", 1),
        ("```{math}\n:label: eq\na + b\n```\ntext", 1),
        (":::{admonition} Before you start\n:class: tip\nTwo words.\n:::", 5),
        ("::::{dropdown} Solution\n:::{tip} A\ntext\n:::\nMore.\n::::\nafter it", 2),
        (":::{dropdown} Solution\n```python\n:::\n```\n:::\nafter", 1),
        ("Half-open, don't, 2,500 and 0.5.", 5),
    ],
)
def test_words_are_counted(text, n):
    assert count(text) == n


def test_a_word_too_many_is_noticed():
    assert count("word " * MOST + "\n\n`code`") == MOST + 1
