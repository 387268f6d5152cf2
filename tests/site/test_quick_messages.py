"""The shortcut for messages without mark-up gives what Sphinx's own function gives."""

from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from dian_sphinx import quick_messages, wording
from dian_sphinx.quick_messages import MARKUP, _kept, parse, publish

CATALOGUES = wording.LOCALE / "zh_CN/LC_MESSAGES"
PAGES = {"page.md": "*.po", "page.rst": "gallery/**/*.po"}
"""A page of each kind, and the catalogues of the pages of that kind."""
WAYS = (parse, publish, publish)
"""Sphinx's own function, and ours in the two rounds in which it is called."""


def messages(pattern: str) -> set[str]:
    """Return what the catalogues say in Chinese and in English."""
    found = set()
    for file in CATALOGUES.glob(pattern):
        with file.open("rb") as stream:
            found |= {text for m in read_po(stream) for text in (m.id, m.string)}
    return found - {""}


@pytest.fixture
def compare(tmp_path, sphinx_build, extension_of, monkeypatch):
    """Return a function that parses messages of a page in both ways."""

    def compare(page: str, texts: list[str]) -> list[tuple[str, str, str]]:
        found = []

        class Compare(SphinxTransform):
            default_priority = 1

            def apply(self, **kwargs) -> None:
                given = {"config": self.config, "env": self.env, "registry": registry}
                given["settings"] = self.document.settings
                path = self.document["source"]
                for text in texts:
                    ways = (way(text, path, 1, **given) for way in WAYS)
                    found.append((text, *(tree.pformat() for tree in ways)))

        def connect(app: Sphinx) -> None:
            nonlocal registry
            registry = app.registry
            app.add_transform(Compare)

        registry = None
        monkeypatch.setattr(quick_messages, "connect", connect)
        source = tmp_path / "docs"
        source.mkdir()
        (source / page).write_text("Title\n=====\n")
        settings = {
            "extensions": ["myst_nb", extension_of("quick_messages")],
            "nb_execution_mode": "off",
            "master_doc": Path(page).stem,
            "myst_enable_extensions": {
                *("amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath")
            },
        }
        sphinx_build(source, tmp_path / "built", settings, "dummy")
        return found

    yield compare
    _kept.clear()


@pytest.mark.parametrize("page", PAGES)
def test_a_message_without_markup_becomes_what_sphinx_makes_of_it(compare, page):
    plain = sorted(m for m in messages(PAGES[page]) if not MARKUP.search(m))
    assert len(plain) > 400
    compared = compare(page, plain[::16])
    assert compared
    assert [(a, b) for _, a, b, _ in compared if a != b] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_message_with_markup_is_the_same_in_the_second_round(compare, page):
    marked = ["a *b* c", "“a” -- `b`", "1. a", "* a", "a_ {b}"]
    compared = compare(page, marked)
    assert len(compared) == len(marked)
    assert [ways for _, *ways in compared if len(set(ways)) > 1] == []
