"""The table of terms for translators has every term of the glossary, each once."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
TERMS = ROOT / "locale/zh_CN/terms.md"
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]*)\|$", re.MULTILINE)


def english() -> list[str]:
    rows = ROW.findall(TERMS.read_text("utf-8"))
    return [term for term, _, _ in rows if term != "English"]


def glossary() -> list[str]:
    text = (ROOT / "docs/glossary.md").read_text("utf-8")
    _, _, body = text.partition("```{glossary}\n:sorted:\n")
    terms = re.findall(r"^(?![ `])(.+)$", body, re.MULTILINE)
    assert len(terms) > 100
    return terms


def test_every_term_of_the_glossary_has_a_translation():
    assert set(glossary()) - set(english()) == set()


def test_no_term_is_there_twice():
    assert [term for term, n in Counter(english()).items() if n > 1] == []
