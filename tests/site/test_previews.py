"""A page holds a copy of the equations and terms that it refers to on other pages."""

import json
import re

import pytest

ONE = "# One\n\n```{{math}}\n:label: eq-one\n{tex}\n```\n"
TWO = "# Two\n\nSee {eq}`eq-one` and the {term}`hidden state`.\n"
TERMS = (
    "# Glossary\n\n```{{glossary}}\nhidden state\n  {text} See {{eq}}`eq-one`.\n```\n"
)
TREE = "# Top\n\n```{toctree}\none\ntwo\nglossary\n```\n"


@pytest.fixture
def build(tmp_path, root, sphinx_build, extension_of):
    """Build the pages, and return the previews on the second and the search index."""
    source, built = tmp_path / "docs", tmp_path / "built"
    source.mkdir()
    ours = extension_of("equations", "previews", "glossary", "incremental", "katex")
    settings = {
        "extensions": ["myst_nb", ours],
        "html_theme": "basic",
        "html_math_renderer": "katex",
        "katex_package": str(root / "node_modules/katex"),
        "katex_macros": str(root / "docs/macros.json"),
        "nb_execution_mode": "off",
        "master_doc": "index",
    }

    def build(tex="a = 1", text="A vector."):
        pages = {"index": TREE, "two": TWO}
        pages |= {"one": ONE.format(tex=tex), "glossary": TERMS.format(text=text)}
        for name, page in pages.items():
            file = source / f"{name}.md"
            if not file.exists() or file.read_text() != page:
                file.write_text(page)
        assert sphinx_build(source, built, settings) == ""
        page = (built / "two.html").read_text("utf-8")
        template = re.search('<template id="previews">(.*)</template>', page, re.S)
        parts = re.split('<div data-preview="([^"]*)">', template[1])[1:]
        index = (built / "searchindex.js").read_text("utf-8")
        return dict(zip(parts[::2], parts[1::2], strict=True)), index

    return build


def test_the_page_holds_what_it_refers_to(build):
    previews, _ = build()
    assert previews.keys() == {"equation-eq-one", "term-hidden-state"}
    assert "One</p>" in previews["equation-eq-one"]
    assert (
        '<annotation encoding="application/x-tex">a = 1</annotation>'
        in (previews["equation-eq-one"])
    )
    assert "A vector." in previews["term-hidden-state"]


@pytest.mark.parametrize(
    ("change", "name", "expected"),
    [
        ({"tex": "a = 2"}, "equation-eq-one", ">a = 2</annotation>"),
        ({"text": "A matrix."}, "term-hidden-state", "A matrix."),
    ],
)
def test_a_change_of_the_other_page_reaches_the_copy(build, change, name, expected):
    before, _ = build()
    after, _ = build(**change)
    assert expected not in before[name]
    assert expected in after[name]


def test_the_search_leads_from_a_term_to_the_page_that_explains_it(build):
    for text in ("A vector.", "A matrix."):  # with all pages read, and with one
        _, index = build(text=text)
        found = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))
        place = [found["docnames"].index("one"), "equation-eq-one", True]
        assert place in found["indexentries"]["hidden state"]
