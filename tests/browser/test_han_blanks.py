"""In the Chinese edition no blank is between characters, and no mark begins a line."""

import re

import pytest
from built import HTML, WIDTHS

PAGES = sorted((HTML / "zh_CN").rglob("*.html"))
OTHER = re.compile(
    r"<(pre|script|style|code|annotation|title|svg)\b.*?</\1>|<!--.*?-->", re.DOTALL
)
INLINE = r"(?:</?(?:a|em|strong|span|i|b|cite|sup|sub)\b[^>]*>)*"
MARKS = "，。、；：？！（）《》「」"
CHINESE = rf"[\u3400-\u9fff{MARKS}]"
BLANK = re.compile(rf".{{,20}}{CHINESE}{INLINE}[ \n]+{INLINE}{CHINESE}.{{,20}}")
WRAPPED = """() => [...document.querySelectorAll(".punctuation")].flatMap(mark => {
  const kept = mark.previousElementSibling;
  if (!mark.checkVisibility()) return [];
  const last = [...kept.querySelectorAll(".katex-base")].at(-1) ?? kept;
  const [end, at] = [last, mark].map((e) => [...e.getClientRects()].at(-1));
  const page = document.querySelector("article").getBoundingClientRect();
  // below what is before it, elsewhere than directly after it, or beside the page
  const wrong = at.top > end.bottom || Math.abs(at.left - end.right) > 1
    || at.right > page.right;
  return [wrong ? kept.textContent.slice(-40) : ""];
})"""
"""Asks each mark whether it is elsewhere than directly after its element."""
KEPT = (".katex", "code")
VISIBLE = "article p { content-visibility: visible !important; }"  # also far below


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_blank_is_between_two_chinese_characters(page):
    html = OTHER.sub("\N{OBJECT REPLACEMENT CHARACTER}", page.read_text("utf-8"))
    assert BLANK.findall(html) == []


@pytest.mark.parametrize("width", [*WIDTHS.values(), 700])
@pytest.mark.parametrize("page", ["rnn", "diffusion", "diffusion_evaluation"])
def test_no_mark_begins_a_line(browser, page, width):
    tab = browser.new_page(viewport={"width": width, "height": 900})
    tab.goto((HTML / f"zh_CN/{page}.html").as_uri())
    tab.add_style_tag(content=VISIBLE)
    marks = tab.evaluate(WRAPPED)
    kept = {part: tab.locator(f"article .nobreak {part}").count() for part in KEPT}
    tab.close()
    assert len(marks) > 10
    assert all(kept.values()), kept
    assert not any(marks), set(marks)
