"""The API reference lists every module, and every public name that is described."""

import ast
import json
import pkgutil
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import dian
from dian_sphinx import api

MODULES = {module.name: module for module in api.modules()}
SOURCE = '''"""What it is.

More of it."""

from dian.claims import claim

LIMIT = 3
"""A number."""
width: int = 4
"""Another."""
BARE = 5

@claim("X1", "Two and two", kinds="E")
def check():
    """They are four."""

def f():
    """Compute."""

def _hidden():
    """Help."""

def mute(): ...

class Thing:
    """A thing."""
'''


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(SOURCE)
    return api.read("dian.a", path)


def test_a_module_is_read_without_being_imported(module):
    assert module.row[1] == "     - What it is."
    assert module.members == {
        "Data": {"LIMIT": "A number.", "width": "Another."},
        "Functions": {"f": "Compute."},
        "Classes": {"Thing": "A thing."},
    }
    assert module.claims == [("X1", "Two and two")]


def test_a_page_has_tables_claims_and_the_pages_that_use_the_module(module):
    used = {"dian.a.f": [["plot_x.py", "gallery/1", "docs/1", "Intro", "Title"]]}
    page = api.stub(module, used, [])
    assert page.startswith("``dian.a``\n==========\n")
    assert ".. automodule:: dian.a\n" in page
    assert re.findall(r"\.\. rubric:: (\w+)", page) == [
        *("Functions", "Classes", "Data", "Claims")
    ]
    assert "* - :py:data:`LIMIT`\n        - A number." in page
    assert ":ref:`X1 <claim-x1>`: Two and two" in page
    assert ".. minigallery::\n\n   dian.a.f\n" in page
    assert page.endswith(".. only:: not html\n\n   - :doc:`/gallery/1/plot_x`\n")
    used["dian.a.f"][0][-1] = "Another title"
    assert api.stub(module, used, []) != page
    assert "minigallery" not in api.stub(module, {}, [])


def test_the_page_of_a_package_lists_its_modules(module):
    package = api.Module("dian", Path(), "The package.")
    inner = api.Module("dian.x", Path(), "Nothing but a docstring.")
    page = api.stub(package, {}, [module, inner])
    assert ":no-members:" in page
    assert ".. py:module:: dian.x\n\nNothing but a docstring.\n" in page
    assert "* - :py:mod:`dian.a`\n     - What it is." in page
    assert page.endswith(":hidden:\n\n   dian.a </api/dian.a>\n")


def test_every_module_has_its_place():
    walked = pkgutil.walk_packages(dian.__path__, "dian.")
    names = {module.name for module in walked} - {"dian.__main__"}
    assert MODULES.keys() == names
    grouped = api.groups(list(MODULES.values()))
    inside = [m.name for group in grouped.values() for m in group]
    assert sorted([*inside, *grouped]) == sorted([*names, "dian"])
    assert list(grouped)[:4] == [
        *("dian.rnn", "dian.positions", "dian.attention", "dian.diffusion")
    ]
    assert list(grouped)[-1] == "dian"


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_says_what_it_is(name):
    """The page of a module lists a name only if it is described."""
    module = MODULES[name]
    body = ast.parse(module.path.read_text("utf-8")).body
    named = [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    mute = [n.name for n in named if n.name[0] != "_" and not ast.get_docstring(n)]
    assert module.doc
    assert mute == []


@pytest.fixture
def app(tmp_path, monkeypatch, module):
    """An application whose library has one module, which a page uses."""
    bare = api.Module("dian.b", tmp_path, "Nothing but a docstring.")
    monkeypatch.setattr(api, "modules", lambda: iter([module, bare]))
    # The second is a guess of sphinx-gallery, the third another module.
    entries = {
        key: [list("abcde")] for key in ("dian.a.f", "dian.a.guess", "dian.a2.f")
    }
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / api.BACKREFERENCES).write_text(json.dumps(entries))
    settings = {"backreferences_dir": "used"}
    config = SimpleNamespace(sphinx_gallery_conf=settings, language="en")
    return SimpleNamespace(srcdir=tmp_path, config=config)


def test_stubs_are_written_when_they_change_and_go_with_their_module(app, tmp_path):
    folder = tmp_path / "api"
    folder.mkdir()
    (folder / "dian.gone.rst").write_text("")
    api.write_stubs(app)
    assert [p.name for p in folder.iterdir()] == ["dian.a.rst"]
    stub = folder / "dian.a.rst"
    assert ".. minigallery::\n\n   dian.a.f\n" in stub.read_text()
    before = stub.stat().st_mtime_ns
    api.write_stubs(app)
    assert stub.stat().st_mtime_ns == before


def test_the_index_shows_packages_and_links_to_modules(
    tmp_path, monkeypatch, sphinx_build, extension_of, module
):
    (tmp_path / "docs").mkdir()
    package = api.Module("dian.b", Path(__file__), "A package.")
    members = {"Functions": {"f": "Compute."}}
    inside = api.Module("dian.b.c", Path(__file__), "A module.", members)
    monkeypatch.setattr(api, "modules", lambda: iter([module, package, inside]))
    monkeypatch.setattr(api, "write_stubs", lambda app: None)
    stub = ":orphan:\n\n{0}\n========\n\n.. py:module:: {0}\n"
    (tmp_path / "docs/api").mkdir()
    for name in ("dian.a", "dian.b", "dian.b.c"):
        (tmp_path / f"docs/api/{name}.rst").write_text(stub.format(name))
    text = "# API\n\n{mod}`dian.b`\n\n```{modules}\n```\n"
    (tmp_path / "docs/api.md").write_text(text)
    extensions = ["myst_nb", "sphinx.ext.autodoc", extension_of("api")]
    settings = {"extensions": extensions, "master_doc": "api"}
    settings |= {"html_theme": "basic", "nitpicky": True}
    assert sphinx_build(tmp_path / "docs", tmp_path / "built", settings) == ""
    page = (tmp_path / "built/api.html").read_text()
    assert 'href="api/dian.b.c.html#module-dian.b.c"' in page
    assert page.index("dian.b") < page.index("A package.") < page.index("A module.")
    assert 'href="api/dian.b.html#module-dian.b"' in page
