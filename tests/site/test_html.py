"""The pages beyond the theme: one style sheet, one sidebar, and nothing that is old."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from dian_sphinx import html


@pytest.fixture
def static(tmp_path):
    (tmp_path / "styles").mkdir()
    return tmp_path


def test_addresses_count_from_the_folder_of_the_joined_file(static):
    (static / "a.css").write_text("a{b:url(x.png)}")
    (static / "styles/b.css").write_text(
        "a{b:url(../fonts/y.woff2) url('z.png') url(\"data:,\") url(#id)}"
    )
    joined = html.joined(static, ["a.css", "styles/b.css"])
    assert joined == (
        "a{b:url(x.png)}\n"
        "a{b:url(fonts/y.woff2) url('styles/z.png') url(\"data:,\") url(#id)}"
    )


def test_an_import_is_refused(static):
    (static / "a.css").write_text('@import "b.css";')
    with pytest.raises(ValueError, match=r"a.css imports another style sheet; expect"):
        html.joined(static, ["a.css"])


def test_rules_of_icons_that_nobody_draws_go(static):
    (static / "a.css").write_text('.fa-moon{--fa:"x"}.fa-0{--fa:"y"}.fa-lg{a:b}')
    assert html.joined(static, ["a.css"]) == '.fa-moon{--fa:"x"}.fa-lg{a:b}'


def test_the_font_holds_what_the_style_sheet_asks_for(static):
    from fontTools.ttLib import TTFont
    from pydata_sphinx_theme import __file__ as theme

    folder = Path(theme).parent / "theme/pydata_sphinx_theme/static"
    style = '.fa-sun{--fa:"\\f185"} .note::before{content:"\uf05a"}'
    html.write_icons(folder / html.FONT, static / "icons.woff2", style)
    assert set(TTFont(static / "icons.woff2").getBestCmap()) == {0xF185, 0xF05A}
    assert (static / "icons.woff2").stat().st_size < 2000


UNMARKED = (
    '<ul class="nav bd-sidenav"><li class="toctree-l1"><a class="reference" '
    'href="a.html">A</a></li><li class="toctree-l1 has-children"><a class="reference" '
    'href="b.html">B</a><details><ul><li class="toctree-l2"><a class="reference" '
    'href="d/c.html">C</a></li></ul></details></li></ul>'
)
ON_C = (
    '<ul class="current nav bd-sidenav"><li class="toctree-l1"><a class="reference" '
    'href="../a.html">A</a></li><li class="toctree-l1 current active has-children"><a '
    'class="reference" href="../b.html">B</a><details open="open"><ul class="current">'
    '<li class="toctree-l2 current active"><a class="current reference" href="#">C</a>'
    "</li></ul></details></li></ul>"
)


def test_the_sidebar_of_one_page_is_turned_into_that_of_another():
    sidebar = html.Sidebar(ON_C, "d/c")
    assert sidebar.of("search") == UNMARKED
    assert sidebar.of("d/c") == ON_C
    below = UNMARKED.replace("a.html", "../a.html").replace("b.html", "../b.html")
    assert sidebar.of("x/y") == below.replace("d/c.html", "../d/c.html")
    assert 'active"><a class="current reference" href="#">A<' in sidebar.of("a")
    assert sidebar.of("search") == UNMARKED


def test_the_terms_of_a_page_that_is_not_written_again_are_kept():
    entries = {
        "rnn": [("single", "clipping", "index-5", "main", None)],
        "api": [("pair", "a; b", "x", "", None)],
    }
    env = SimpleNamespace(
        get_domain={"index": SimpleNamespace(entries=entries)}.__getitem__,
        _search_index_index_entries={"api": []},
    )
    html.index_terms(None, env)
    assert env._search_index_index_entries == {
        "rnn": [("clipping", "index-5", "main")],
        "api": [("a", "x", ""), ("b", "x", "")],
    }


@pytest.fixture
def app(tmp_path):
    """An application whose library has one module with a page of its code."""
    page = tmp_path / "_modules/dian/errors.html"
    page.parent.mkdir(parents=True)
    page.write_text("code")
    env = SimpleNamespace(
        all_docs={"index": 0},
        found_docs={"index"},
        titles={"index": SimpleNamespace(astext=lambda: "Front")},
        toctree_includes={},
        _viewcode_modules={"dian.errors": ("code", {}, {"f": "api"}, "api")},
    )
    return SimpleNamespace(
        outdir=tmp_path,
        env=env,
        builder=SimpleNamespace(format="html"),
        config=SimpleNamespace(extension_key="a"),
    )


def test_built_pages_without_a_source_go(app, tmp_path):
    for name in ("index", "gone/page", "search", "_modules/dian/gone", "_static/x"):
        path = tmp_path / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    html.remove_orphans(app, None)
    kept = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.html")}
    assert kept == {
        *("index.html", "search.html", "_static/x.html", "_modules/dian/errors.html")
    }


def test_the_code_of_a_module_is_written_again_only_if_it_is_newer(app, tmp_path):
    html.keep_code_pages(app)
    assert app.env._viewcode_modules == {"dian.errors": False}
    app.env._viewcode_modules = {"dian.errors": ("code", {}, {"f": "api"}, "api")}
    os.utime(tmp_path / "_modules/dian/errors.html", (0, 0))
    html.keep_code_pages(app)
    assert app.env._viewcode_modules["dian.errors"]
    app.env._viewcode_modules = {"dian.errors": ("code", {}, {}, "api")}
    html.keep_code_pages(app)
    assert app.env._viewcode_modules == {}


def test_all_pages_are_written_again_when_the_navigation_changes(app, tmp_path):
    assert html.write_navigation(app, app.env) == {"index"}
    assert not (tmp_path / "_modules").exists()
    assert html.write_navigation(app, app.env) == set()
    app.env.titles["index"] = SimpleNamespace(astext=lambda: "Another")
    assert html.write_navigation(app, app.env) == {"index"}
    assert html.write_navigation(app, app.env) == set()
    app.env.toctree_includes = {"index": ["new"]}
    assert html.write_navigation(app, app.env) == {"index"}


def test_another_version_of_katex_has_every_page_read_again(app, tmp_path, monkeypatch):
    html.set_extension_key(app, app.config)
    before = app.config.extension_key
    monkeypatch.setattr(html, "LOCK", tmp_path / "package-lock.json")
    html.LOCK.write_text("{}")
    html.set_extension_key(app, app.config)
    assert app.config.extension_key != before
