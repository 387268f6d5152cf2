"""A small site in two editions: what is translated, what is named, where links lead."""

import pytest
import sphinx.locale

from dian_sphinx import untranslated
from dian_sphinx.editions import EDITIONS

PARTS = (
    "wording",
    "quick_messages",
    "messages",
    "untranslated",
    "editions",
)
HEAD = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n'
PAGE = """# A page

A sentence with $x^2$ and `code`.

```{table} A caption

| Head | 12.5 |
|---|---|
| A cell | $y$ |
```
"""
TRANSLATED = {
    "A page": "一页",
    "A sentence with $x^2$ and `code`.": "一句话，带有 $x^2$ 和 `code`。",
    "A caption": "标题",
    "Head": "表头",
    "A cell": "单元格",
}


@pytest.fixture
def editions(tmp_path, extension_of, sphinx_build, monkeypatch):
    """Return a function that builds the edition of a language, and its warnings."""
    source = tmp_path / "docs"
    catalogue = source / "locale/zh_CN/LC_MESSAGES/page.po"
    catalogue.parent.mkdir(parents=True)
    monkeypatch.setattr(sphinx.locale, "translators", {})
    settings = {
        "extensions": ["myst_nb", extension_of(*PARTS)],
        "nb_execution_mode": "off",
        "master_doc": "page",
        "html_theme": "basic",
        "html_math_renderer": "mathjax",
        "myst_enable_extensions": {"dollarmath"},
        "locale_dirs": ["locale"],
        "gettext_compact": False,
    }

    def build(language="zh_CN", page=PAGE, whole="page", form="html", **settings_too):
        sphinx.locale.translators.clear()
        (source / "page.md").write_text(page)
        (source / "locale/zh_CN/whole.txt").write_text(whole)
        entries = [f'msgid "{a}"\nmsgstr "{b}"\n' for a, b in TRANSLATED.items()]
        catalogue.write_text("\n".join([HEAD, *entries]), "utf-8")
        given = settings | {"language": language} | settings_too
        given["extensions"] = given.pop("extensions_too", []) + given["extensions"]
        built = tmp_path / "site" / EDITIONS[language].folder
        ending = {"html": ".html", "gettext": ".pot"}[form]
        return sphinx_build(source, built, given, form), built / f"page{ending}"

    return build


def test_a_page_and_its_table_are_translated(editions):
    warnings, page = editions()
    assert warnings == ""
    html = page.read_text("utf-8")
    assert '<html lang="zh-CN"' in html
    for text in TRANSLATED.values():
        assert text.partition(" ")[0] in html
    assert "12.5" in html
    assert 'id="a-page"' in html  # places have the same names in all editions


def test_a_sentence_that_changed_is_a_warning_on_a_page_that_is_whole(editions):
    changed = PAGE.replace("A sentence", "Another sentence")
    warnings, _ = editions(page=changed)
    assert "not translated: 'Another sentence with" in warnings
    assert "page.md:3" in warnings


def test_a_page_that_is_not_listed_is_a_warning_unless_it_is_english(
    editions, monkeypatch
):
    warnings, _ = editions(page=PAGE.replace("A sentence", "Another one"), whole="")
    assert "page.md: WARNING: not listed in whole.txt" in warnings
    assert "not translated" not in warnings
    monkeypatch.setattr(untranslated, "ENGLISH", {"page"})
    assert editions(page=PAGE.replace("A sentence", "A third one"), whole="")[0] == ""
    assert editions("en", whole="")[0] == ""


ENTRIES = (
    PAGE
    + """
```{index} single: A page; A term
```
"""
)


@pytest.mark.parametrize(
    ("text", "warned"), [("", True), ("术语", False), ("A term", False)]
)
def test_an_entry_of_the_index_that_is_not_translated_is_a_warning(
    editions, monkeypatch, text, warned
):
    monkeypatch.setitem(TRANSLATED, "A term", text)
    warnings, _ = editions(page=ENTRIES, gettext_additional_targets=["index"])
    assert ("not translated: 'A term'" in warnings) == warned
    assert bool(warnings) == warned


BUTTON = """---
file_format: mystnb
---

# A page

```{button-ref} page
:ref-type: doc

A cell
```
"""


def test_the_text_of_a_button_reaches_the_translators_and_the_page(editions):
    extensions = ["myst_nb", "sphinx_design"]
    warnings, page = editions(page=BUTTON, extensions_too=extensions)
    assert warnings == ""
    assert ">单元格<" in page.read_text("utf-8")
    told = {"form": "gettext", "for_translators": True}
    _, template = editions("en", page=BUTTON, extensions_too=extensions, **told)
    assert 'msgid "A cell"' in template.read_text("utf-8")


def test_emphasis_in_latin_letters_is_told_from_chinese(editions, monkeypatch):
    monkeypatch.setitem(TRANSLATED, "A sentence with $x^2$ and `code`.", "*一* 与 *a*")
    html = editions()[1].read_text("utf-8")
    assert "<em>一</em>" in html
    assert '<em class="latin">a</em>' in html


def test_a_cell_that_is_not_translated_is_a_warning(editions):
    warnings, _ = editions(page=PAGE.replace("A cell", "Another cell"))
    assert "not translated: 'Another cell'" in warnings


def test_a_heading_that_is_read_as_a_list_is_a_warning(editions, monkeypatch):
    monkeypatch.setitem(TRANSLATED, "A caption", "1. 标题")
    assert "not translated: 'A caption'" in editions()[0]


def test_the_list_of_whole_pages_is_read(tmp_path):
    (tmp_path / "zh_CN").mkdir()
    (tmp_path / "zh_CN/whole.txt").write_text("rnn\ngallery/1_rnn/plot_1_forward\n")
    found = untranslated.whole("zh_CN", tmp_path)
    assert found == {"rnn", "gallery/1_rnn/plot_1_forward"}
    assert untranslated.whole("en", tmp_path) == set()


def test_the_english_edition_is_as_without_catalogues(editions):
    warnings, page = editions("en")
    assert warnings == ""
    assert "A sentence with" in page.read_text("utf-8")


def test_the_address_of_an_edition_ends_in_its_folder(editions):
    _, page = editions(html_baseurl="https://example.org/dian/")
    assert 'href="https://example.org/dian/zh_CN/page.html"' in page.read_text("utf-8")
