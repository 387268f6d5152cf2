"""A build does no more than it must, and no page that is old survives."""

import os
from types import SimpleNamespace

import pytest

from dian_sphinx import incremental


def test_the_terms_of_a_page_that_is_not_written_again_are_kept():
    entries = {
        "rnn": [("single", "clipping", "index-5", "main", None)],
        "api": [("pair", "a; b", "x", "", None)],
    }
    env = SimpleNamespace(
        get_domain={"index": SimpleNamespace(entries=entries)}.__getitem__,
        _search_index_index_entries={"api": []},
    )
    incremental.index_terms(None, env)
    assert env._search_index_index_entries == {
        "rnn": [("clipping", "index-5", "main")],
        "api": [("a", "x", ""), ("b", "x", "")],
    }


def test_the_terms_are_in_one_order_whichever_pages_were_read():
    entries = {page: [("single", "a", page, "", None)] for page in ("b", "c", "a")}
    orders = []
    for known in ([], ["c"], ["c", "b"]):
        env = SimpleNamespace(
            get_domain={"index": SimpleNamespace(entries=entries)}.__getitem__,
            _search_index_index_entries=dict.fromkeys(known),
        )
        incremental.index_terms(None, env)
        orders.append(list(env._search_index_index_entries))
    assert orders == [["a", "b", "c"]] * 3


def test_the_terms_of_a_page_that_is_gone_are_removed():
    env = SimpleNamespace(
        get_domain={"index": SimpleNamespace(entries={})}.__getitem__,
        _search_index_index_entries={"gone": [("clipping", "index-5", "main")]},
    )
    incremental.index_terms(None, env)
    assert env._search_index_index_entries == {}


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
        config=SimpleNamespace(extension_key="a", language="en"),
    )


def test_built_pages_without_a_source_go_and_no_others(app, tmp_path):
    def write(*names):
        for name in names:
            path = tmp_path / f"{name}.html"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")

    write("index", "gone/page", "search", "_modules/dian/gone")
    app.env.all_docs["gone/page"] = 0
    app.env._viewcode_modules["dian.gone"] = ("code", {}, {"g": "api"}, "api")
    incremental.remove_orphans(app, None)
    write("mine", "_static/x")  # not written by a build
    del app.env.all_docs["gone/page"], app.env._viewcode_modules["dian.gone"]
    incremental.remove_orphans(app, None)
    kept = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.html")}
    assert kept == {
        *("index.html", "search.html", "_modules/dian/errors.html"),
        *("mine.html", "_static/x.html"),
    }


def test_the_code_of_a_module_is_written_again_only_if_it_is_newer(app, tmp_path):
    incremental.keep_code_pages(app)
    assert app.env._viewcode_modules == {"dian.errors": False}
    app.env._viewcode_modules = {"dian.errors": ("code", {}, {"f": "api"}, "api")}
    os.utime(tmp_path / "_modules/dian/errors.html", (0, 0))
    incremental.keep_code_pages(app)
    assert app.env._viewcode_modules["dian.errors"]
    app.env._viewcode_modules = {"dian.errors": ("code", {}, {}, "api")}
    incremental.keep_code_pages(app)
    assert app.env._viewcode_modules == {}


def test_all_pages_are_written_again_when_the_navigation_changes(app, tmp_path):
    assert incremental.write_navigation(app, app.env) == {"index"}
    assert not (tmp_path / "_modules").exists()
    assert incremental.write_navigation(app, app.env) == set()
    app.env.titles["index"] = SimpleNamespace(astext=lambda: "Another")
    assert incremental.write_navigation(app, app.env) == {"index"}
    assert incremental.write_navigation(app, app.env) == set()
    app.env.toctree_includes = {"index": ["new"]}
    assert incremental.write_navigation(app, app.env) == {"index"}


def test_another_version_of_katex_has_every_page_read_again(app, tmp_path, monkeypatch):
    incremental.set_extension_key(app, app.config)
    before = app.config.extension_key
    monkeypatch.setattr(incremental, "LOCK", tmp_path / "package-lock.json")
    incremental.LOCK.write_text("{}")
    incremental.set_extension_key(app, app.config)
    assert app.config.extension_key != before


def test_what_an_edition_has_written_is_listed_outside_of_the_site(app, tmp_path):
    site = tmp_path / "html"
    app.outdir, app.config.language = site / "zh_CN", "zh_CN"
    app.outdir.mkdir(parents=True)
    (site / "objects.inv").touch()
    (app.outdir / "index.html").touch()
    incremental.remove_orphans(app, None)
    assert (tmp_path / "zh_CN.pages.json").is_file()
    app.outdir, app.config.language = site, "en"  # and the next English build
    incremental.remove_orphans(app, None)
    assert (site / "zh_CN/index.html").is_file()
    assert not list(site.rglob("*.json"))


def test_an_edition_that_is_built_elsewhere_writes_only_beside_itself(app, tmp_path):
    app.outdir, app.config.language = tmp_path / "made/zh_CN", "zh_CN"
    app.outdir.mkdir(parents=True)
    (app.outdir / "index.html").touch()
    incremental.remove_orphans(app, None)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []
    assert (tmp_path / "made/zh_CN.pages.json").is_file()
