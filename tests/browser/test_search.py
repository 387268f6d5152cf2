"""The search, in the browser, finds what a reader looks for."""

import importlib
import inspect
import pkgutil
import re

import pytest
from bs4 import BeautifulSoup
from built import CHAPTERS, HTML, until

import dian
from dian.claims import verify as verifier

TERMS = {
    "rnn": ["backpropagation through time", "vanishing gradient", "clipping"],
    "positions": ["sinusoidal", "rotary", "relative position", "self-attention"],
    "positions_rotary": ["long-term decay", "half-split"],
    "positions_length": ["extrapolation", "ALiBi", "YaRN"],
    "attention": ["softmax", "attention head", "causal mask"],
    "attention_backward": ["online softmax"],
    "diffusion": [
        "noise schedule",
        "variational bound",
        "forward process",
        "posterior",
    ],
}
CLAIMS = {chapter[0].upper(): f"verification/{chapter}.html" for chapter in CHAPTERS}
# What the page itself does with a query, without the summaries that it fetches then:
# for each result its page with the place on it, the best first.
FIND = """queries => queries.map(query =>
  Search._performSearch(...Search._parseQuery(query)).reverse().map(
    ([page, title, anchor]) => `${page}.html${anchor || ""}`))"""


@pytest.fixture(scope="module")
def find(browser, origin):
    """Return a function that asks many things at once."""
    tab = browser.new_page()
    tab.goto(f"{origin}/search.html")
    until(tab, "Search.hasIndex()")
    yield lambda queries: dict(zip(queries, tab.evaluate(FIND, queries), strict=True))
    tab.close()


def test_each_claim_is_the_first_that_its_id_finds(find):
    found = find(sorted(verifier.claims()))
    wrong = {
        claim: places[:2]
        for claim, places in found.items()
        if places[:1] != [f"{CLAIMS[claim[0]]}#claim-{claim.lower()}"]
    }
    assert not wrong


def public_functions() -> list[str]:
    """List the names of all functions and classes that the API reference shows."""
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(dian.__path__, "dian.")
        if not module.name.endswith("__main__")
    ]
    return sorted(
        f"{module.__name__}.{name}"
        for module in modules
        for name, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and not name.startswith("_")
        and not hasattr(value, "claim")  # the check of a claim is on another page
        and value.__module__ == module.__name__
    )


@pytest.mark.parametrize("form", ["bare", "dotted"])
def test_each_function_is_among_what_its_name_finds(find, form):
    names = public_functions()
    queries = {n: n.rpartition(".")[2] if form == "bare" else n for n in names}
    found = find(list(queries.values()))
    assert len(names) > 100
    places = {n: f"api/{n.rpartition('.')[0]}.html#{n}" for n in names}
    assert not [n for n in names if places[n] not in found[queries[n]]]


def test_what_is_nowhere_is_not_found(find):
    assert find(["zyzzyva", "dian.no_such_thing"]) == {
        "zyzzyva": [],
        "dian.no_such_thing": [],
    }


@pytest.mark.parametrize("page", TERMS)
def test_the_main_terms_find_their_page(find, page):
    first = {
        term: [place.partition("#")[0] for place in places[:3]]
        for term, places in find(TERMS[page]).items()
    }
    # A chapter has several pages: rnn.html, rnn_gradients.html, ...
    wanted = re.compile(rf"{page}(_\w+)?\.html")
    assert not [term for term in first if not any(map(wanted.fullmatch, first[term]))]


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_who_types_into_the_dialog_gets_there(opened, origin, scheme):
    base = origin if scheme == "http" else HTML.as_uri()
    with opened() as tab:
        tab.goto(f"{base}/index.html")
        tab.keyboard.press("Control+k")
        icon = tab.locator("dialog .fa-magnifying-glass")
        field = tab.locator("dialog input")
        lens, box = icon.bounding_box(), field.bounding_box()
        assert lens["x"] + lens["width"] <= box["x"]  # it covers no letter
        tab.keyboard.type("R1")
        tab.keyboard.press("Enter")
        first = tab.locator("#search-results li a").first
        first.wait_for()
        first.click()
        tab.wait_for_url("**/verification/rnn.html**")
        assert "#claim-r1" in tab.url
        assert tab.locator("#claim-r1").is_visible()


def explained() -> dict[str, str]:
    """Return for each term of the glossary the page that its first link names."""
    page = BeautifulSoup((HTML / "glossary.html").read_text("utf-8"), "html.parser")
    found = {}
    for term in page.select("dl.glossary dt"):
        definition = term.find_next_sibling("dd")
        address = definition.find("a", class_="internal")["href"]
        name = term.get_text().removesuffix("#")
        found[name] = address.partition("#")[0]
    return found


def test_the_page_that_explains_a_term_is_the_first_that_it_finds(find):
    pages = explained()
    assert len(pages) > 100
    places = {
        term: [place.partition("#")[0] for place in found[:3]]
        for term, found in find(list(pages)).items()
    }
    assert not {t: found for t, found in places.items() if pages[t] not in found}
    first = [t for t, found in places.items() if found[0] == pages[t]]
    assert len(first) >= 0.9 * len(pages), set(pages) - set(first)
