"""Each diagnosis links to a section of the site that exists."""

import re
from pathlib import Path

import pytest
from docutils.nodes import make_id

from dian.check import diagnosis, pages
from dian.check.registry import KINDS
from dian.claims import verify

ROOT = Path(__file__).parents[2]


def headings(page):
    """Return the anchors of the headings of a page, from its source."""
    source = ROOT / "docs" / Path(page).with_suffix(".md")
    if source.is_file():
        text = source.read_text("utf-8")
        return {make_id(found) for found in re.findall(r"^#+ (.+)$", text, re.M)}
    text = (ROOT / Path(page).with_suffix(".py")).read_text("utf-8")
    titles = re.findall(r"^# (.+)\n# -{4,}$", text, re.M)
    return {make_id(title) for title in titles}


def test_sections_exist():
    found = set()
    for usual, special in pages.SECTIONS.values():
        found |= {usual, *(section for _, section in special)}
    for section in sorted(found):
        page, _, anchor = section.partition("#")
        assert anchor in headings(page), section


def test_every_kind_has_a_section():
    assert list(pages.SECTIONS) == list(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_claim_of_a_mistake_has_a_section(kind):
    claims, names = verify.claims(), set()
    for known in diagnosis.known_mistakes(kind):
        names |= set(known.claims)
    for name in names:
        section = pages.claim_section(name)
        page, _, anchor = section.partition("#")
        assert (ROOT / "docs" / Path(page).with_suffix(".md")).is_file()
        assert anchor == f"claim-{name.lower()}"
        assert name in claims


@pytest.mark.slow
def test_words_belong_to_known_mistakes():
    """No section is given for words that no mistake contains."""
    for kind, (_, special) in pages.SECTIONS.items():
        names = [known.what for known in diagnosis.known_mistakes(kind)]
        unused = [w for w, _ in special if not any(w in name for name in names)]
        if special in (pages.OF_SCORES, pages.OF_TABLES):
            continue
        assert set(unused) <= {w for w, _ in pages.OF_SCORES}, kind


def test_the_output_on_the_page_is_what_is_printed():
    text = (ROOT / "docs/check.md").read_text("utf-8")
    code = re.search(r"^```python\n(import torch.*?)^```", text, re.S | re.M).group(1)
    shown = re.search(r"^```text\n(.*?)^```", text, re.S | re.M).group(1)
    namespace = {}
    exec(code, namespace)
    # The last digits differ from machine to machine.
    found, expected = (re.sub(r"residual \S+", "", str(x))
                       for x in (namespace["report"], shown.rstrip("\n")))  # fmt: skip
    assert found == expected
