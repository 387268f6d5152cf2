"""The Chinese edition in the browser: its search, and the way to the other and back."""

import pytest
from babel.messages.pofile import read_po
from built import HTML, ROOT
from test_search import FIND

CATALOGUE = ROOT / "locale/zh_CN/LC_MESSAGES/glossary.po"
ENOUGH = 0.9
"""Fraction of the terms that the search has to find as it does in English."""


def terms() -> dict[str, str]:
    """Return the Chinese name of each term that has one."""
    with CATALOGUE.open("rb") as source:
        found = read_po(source)
    names = {m.id: m.string.partition("（")[0] for m in found if "（" in m.string}
    return {english: name for english, name in names.items() if len(english) < 40}


@pytest.fixture(scope="module")
def first(browser, origin):
    """Return a function that asks for the first page of each query."""

    def find(edition: str, queries: list[str]) -> list[str]:
        tab = browser.new_page()
        tab.goto(f"{origin}/{edition}search.html")
        tab.wait_for_function("Search.hasIndex()")
        places = tab.evaluate(FIND, queries)
        tab.close()
        return [found[0].partition("#")[0] if found else "" for found in places]

    return find


def test_a_term_leads_to_the_same_page_in_both_editions(first):
    names = terms()
    assert len(names) >= 40
    english = first("", list(names))
    chinese = first("zh_CN/", list(names.values()))
    wrong = {
        name: (there, here)
        for name, there, here in zip(names.values(), english, chinese, strict=True)
        if there != here
    }
    assert len(wrong) <= (1 - ENOUGH) * len(names), wrong


def test_what_is_on_no_page_is_not_found(first):
    assert first("zh_CN/", ["饕餮"]) == [""]


@pytest.mark.parametrize("page", ["index", "glossary", "gallery/1_rnn/plot_1_forward"])
def test_the_link_leads_to_the_same_place_and_back(browser, page):
    tab = browser.new_page()
    english = (HTML / f"{page}.html").as_uri()
    tab.goto(f"{english}#license")
    assert tab.evaluate("document.documentElement.lang") == "en"
    tab.click("a.edition:visible")
    tab.wait_for_url("**/zh_CN/**")
    chinese = (HTML / f"zh_CN/{page}.html").as_uri()
    assert tab.url == f"{chinese}#license"
    assert tab.evaluate("document.documentElement.lang") == "zh-CN"
    tab.click("a.edition:visible")
    tab.wait_for_url(f"{english}#license")
    tab.close()


def test_an_interactive_figure_speaks_the_language_of_its_page(browser):
    tab = browser.new_page()
    tab.goto((HTML / "zh_CN/positions.html").as_uri())
    words = tab.text_content("figure[data-figure=rotary] .interactive-words")
    assert "相对位置" in words
    tab.close()


def test_a_live_figure_speaks_the_language_of_its_page(browser):
    tab, errors = browser.new_page(), []
    tab.on("pageerror", lambda error: errors.append(error))
    tab.goto((HTML / "zh_CN/attention_results.html").as_uri())
    tab.click("figure.live .live-start button")
    tab.wait_for_selector("figure.live .live-bars")
    words = tab.text_content("figure.live .interactive-words")
    assert "预测的类" in words
    assert "短靴" in words
    assert not errors
    tab.close()


def test_the_search_says_in_chinese_what_it_has_found(browser, origin):
    tab, errors = browser.new_page(), []
    tab.on("pageerror", lambda error: errors.append(error))
    tab.goto(f"{origin}/zh_CN/search.html?q=注意力")
    tab.wait_for_selector("#search-results p.search-summary:has-text('搜索完成')")
    assert "undefined" not in tab.text_content("#search-results")
    assert not errors
    tab.close()


@pytest.mark.parametrize("page", ["rnn", "gallery/1_rnn/plot_1_forward"])
def test_what_the_search_has_marked_is_hidden_by_a_button_in_chinese(browser, page):
    tab = browser.new_page()
    tab.goto(f"{(HTML / f'zh_CN/{page}.html').as_uri()}?highlight=梯度")
    assert tab.text_content(".highlight-link") == "隐藏搜索结果"
    tab.close()


def test_a_link_to_an_english_page_is_marked_on_a_telephone(opened):
    with opened(width=390) as tab:
        tab.goto((HTML / "zh_CN/rnn.html").as_uri())
        link = tab.locator("article a.in-english").first
        mark = "(link) => getComputedStyle(link, '::after').content"
        assert '"EN"' in link.evaluate(mark)
        # Far from the screen a paragraph has its text, but nothing of a style.
        link.scroll_into_view_if_needed()
        tab.wait_for_timeout(200)
        # Playwright's own names of links know no text beside the content of a style.
        session = tab.context.new_cdp_session(tab)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        names = [node.get("name", {}).get("value") for node in nodes]
        assert f"{link.text_content()} 英文" in names
