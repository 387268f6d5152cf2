"""A small site in two editions: what is translated, what is named, where links lead."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import sphinx.locale
from docutils import nodes

from dian.claims import KINDS
from dian_sphinx import claims, untranslated, wording
from dian_sphinx import editions as parts_of_editions
from dian_sphinx.editions import EDITIONS, adapt

PARTS = (
    "wording",
    "quick_messages",
    "messages",
    "untranslated",
    "han_blanks",
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


LATEX = [("page", "page.tex", "Title", "Author", "manual")]


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
        ending = {"html": ".html", "gettext": ".pot", "latex": ".tex"}[form]
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


BLANKS = {  # what a catalogue has, and what a reader sees
    "采用 *交错* 布局": "采用交错布局",
    "**问题。** 循环": "问题。循环",
    "见 [此页](https://a.org) ，和 {doc}`page` 一章": "见此页，和一页一章",
    "作者： Press， 例如": "作者：Press，例如",
    "*一* *二* a *b* *三*": "一二 a b 三",
    "用 softmax 算 `甲 乙，` 和 $甲， 乙$ 等": "用 softmax 算 甲 乙， 和 $甲， 乙$ 等",
    "一（one） $x$ ，又": "一（one）$x$，又",
}
MARKUP = {
    "html": (r"<[^>]*>", ""),
    "latex": (r"\\(?:sphinxhref|DUrole)\{.*?\}|\\hyperref\[.*?\]|\\sphinx\w+|[{}]", ""),
}


@pytest.mark.parametrize("form", MARKUP)
def test_blanks_that_only_the_markup_needs_are_not_shown(editions, monkeypatch, form):
    monkeypatch.setitem(TRANSLATED, "To {doc}`page`.", "|".join(BLANKS))
    page = f"{PAGE}\n\nTo {{doc}}`page`.\n"
    warnings, page = editions(page=page, form=form, latex_documents=LATEX)
    assert warnings == ""
    seen = re.sub(*MARKUP[form], page.read_text("utf-8"))
    seen = re.sub(r"\\[()]", "$", seen)
    shown = next(line for line in seen.splitlines() if "交错" in line)
    assert shown.split("|") == list(BLANKS.values())


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


def test_the_scripts_are_translated_in_the_first_build(editions, tmp_path, monkeypatch):
    catalogues = tmp_path / "own/zh_CN/LC_MESSAGES"
    catalogues.mkdir(parents=True)
    for name in (wording.EXTENSIONS, wording.SCRIPTS):
        source = wording.LOCALE / "zh_CN/LC_MESSAGES" / f"{name}.po"
        shutil.copy(source, catalogues)  # and what was compiled of it stays behind
    monkeypatch.setattr(wording, "LOCALE", tmp_path / "own")
    _, page = editions()
    script = (page.parent / "_static/wording.js").read_text("utf-8")
    table = json.loads(script.removeprefix("var wording = ").rstrip(";\n"))
    assert table["query"] == "查询"


def test_the_script_of_the_search_finds_its_words_translated(editions):
    html = editions()[1].read_text("utf-8")
    scripts = re.findall(r'<script src="_static/([\w./]+)', html)
    place = scripts.index
    assert place("doctools.js") < place("wording.js") < place("translations.js")
    assert place("translations.js") < place("sphinx_highlight.js")


@pytest.mark.parametrize("language", EDITIONS)
def test_a_link_to_the_english_reference_is_marked(language):
    addresses = ("../../api/dian.html", "../page.html")
    links = [nodes.reference("", "x", refuri=address) for address in addresses]
    document = nodes.paragraph("", "", *links)
    app = SimpleNamespace(config=SimpleNamespace(language=language))
    parts_of_editions.mark_english(app, document, "gallery/plot_x")
    marked = ["in-english" in link["classes"] for link in links]
    assert marked == [language == "zh_CN", False]


@pytest.mark.parametrize("around", [None, nodes.strong])
@pytest.mark.parametrize("language", EDITIONS)
def test_no_line_ends_between_code_and_the_marks_after_it(language, around):
    shown = nodes.literal("", "x")
    if around:
        shown = around("", "", nodes.reference("", "", shown, refuri="x"))
    document = nodes.paragraph("", "见（", shown, nodes.Text("）。句"))
    config, builder = SimpleNamespace(language=language), SimpleNamespace(format="html")
    app = SimpleNamespace(config=config, builder=builder)
    parts_of_editions.keep_marks(app, document, "page")
    texts = [part.astext() for part in document.children]
    if language == "en":
        assert texts == ["见（", "x", "）。句"]
    else:
        assert texts == ["见（", "x）。", "句"]
        assert document.children[1]["classes"] == ["nobreak", "long"]
        assert document.children[1].children[0] is shown


def test_a_page_in_english_says_so_in_chinese(editions, monkeypatch):
    monkeypatch.setattr(parts_of_editions, "ENGLISH", {"page"})
    html = editions()[1].read_text("utf-8")
    section = re.search(r'<section[^>]* lang="en">\s*(<h1 [^>]*>)一页<', html)
    assert 'lang="zh-CN"' in section[1]
    notice = re.search(r'<p class="english-page" lang="zh-CN">(.*?)</p>', html)
    assert notice[1] == "本页正文为英文。"
    assert "english-page" not in editions("en")[1].read_text("utf-8")


def test_a_page_of_which_a_part_is_english_keeps_its_language(editions, monkeypatch):
    part = "The modules are described in English."
    monkeypatch.setattr(parts_of_editions, "PARTS", {"page": part})
    html = editions()[1].read_text("utf-8")
    assert '<p class="english-page">' in html
    assert 'lang="en"' not in html


def test_a_card_of_the_gallery_has_the_title_of_its_page():
    card = (
        '<div class="sphx-glr-thumbcontainer" tooltip="In English.">'
        '<div class="sphx-glr-thumbnail-title">A page</div></div>'
    )
    link = nodes.reference("", "一页 <1>", internal=True, refuri="page.html")
    document = nodes.paragraph("", "", link, nodes.raw("", card, format="html"))
    named = document.deepcopy()
    app = SimpleNamespace(config=SimpleNamespace(language="zh_CN"))
    parts_of_editions.name_cards(app, named, "gallery/index")
    html = named[1].astext()
    assert '<div class="sphx-glr-thumbnail-title">一页 &lt;1&gt;</div>' in html
    assert "tooltip" not in html
    app.config.language = "en"
    parts_of_editions.name_cards(app, document, "gallery/index")
    assert document[1].astext() == card


def test_the_authors_are_named_in_the_language_of_the_edition(editions):
    english = "The developers of Dian"
    documents = [("page", "page.tex", "A page", english, "manual")]
    told = {"author": english, "latex_documents": documents, "form": "latex"}
    assert r"\author{Dian 的开发者}" in editions(**told)[1].read_text("utf-8")
    assert rf"\author{{{english}}}" in editions("en", **told)[1].read_text("utf-8")


def test_sentences_follow_each_other_with_the_blanks_of_the_language(editions):
    editions("en")
    assert wording.joined("A.", "B.") == "A. B."
    editions()
    assert wording.joined("甲。", "乙。") == "甲。乙。"


@pytest.mark.parametrize(("language", "mark"), [("en", "; "), ("zh_CN", "；")])
def test_the_kinds_of_a_check_are_a_list_of_the_language(editions, language, mark):
    editions(language)
    env = SimpleNamespace(config=SimpleNamespace(language="en"))
    kinds = list(KINDS)[:2]
    texts = ("source", "assumptions", "file", "code")
    numbers = {"residual": 0.0, "tolerance": 0.0, "passed": True, "mutants": []}
    one = numbers | dict.fromkeys(texts, "x") | {"kinds": " ".join(kinds)}
    lines = claims._details(env, one)
    assert any(line.endswith(mark.join(KINDS[k] for k in kinds)) for line in lines)


def test_a_language_without_an_edition_is_named_with_those_that_there_are():
    config = SimpleNamespace(language="de")
    with pytest.raises(SystemExit, match=r"no edition in 'de'; there are: en, zh_CN$"):
        adapt(None, config)


# What the theme itself calls is not ours.
@pytest.mark.filterwarnings("ignore::sphinx.deprecation.RemovedInSphinx11Warning")
def test_the_foot_of_a_page_names_the_developers_once_and_in_chinese(editions):
    _, page = editions(html_theme="sphinx_book_theme", author="Who wrote it")
    html = page.read_text("utf-8")
    assert "Dian 的开发者" in html
    assert "Who wrote it" not in html
