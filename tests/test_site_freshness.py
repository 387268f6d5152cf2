"""Pages are made again when, and only when, what they are made of has changed."""

import json
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from dian import pages
from dian.runs import code_hash
from dian.runs import record as records

ROOT = Path(__file__).parent.parent
NAME = "rnn-fashion-mnist"
sys.path.insert(0, str(ROOT / "docs/_ext"))

import freshness  # noqa: E402
import notebooks  # noqa: E402
import recorded  # noqa: E402

SCRIPT = f'"""Title."""\nfrom dian import clipping, records\nrecords.load("{NAME}")\n'


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A gallery of one script that has run, and copies of library and records."""
    for folder in ("gallery/1_rnn", "docs/gallery/1_rnn/images/thumb"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "gallery/1_rnn/plot_1_x.py").write_text(SCRIPT)
    made = tmp_path / "docs/gallery/1_rnn"
    for name in ("plot_1_x.rst", "plot_1_x.ipynb", "index.rst", "plot_1_x.py"):
        (made / name).write_text("")
    (made / "images/sphx_glr_plot_1_x_001.png").write_text("")
    (made / "images/thumb/sphx_glr_plot_1_x_thumb.png").write_text("")
    library = tmp_path / "dian"
    leave = shutil.ignore_patterns("__pycache__", "recorded")
    shutil.copytree(ROOT / "dian", library, ignore=leave)
    shutil.copytree(records.FOLDER / NAME, tmp_path / "recorded" / NAME)
    monkeypatch.setattr(freshness, "LIBRARY", library)
    monkeypatch.setattr(code_hash, "PACKAGE", library)
    monkeypatch.setattr(recorded, "FOLDER", tmp_path / "recorded")
    settings = {"examples_dirs": "../gallery", "gallery_dirs": "gallery"}
    site = SimpleNamespace(
        root=tmp_path,
        made=made,
        srcdir=tmp_path / "docs",
        config=SimpleNamespace(sphinx_gallery_conf=settings),
    )
    freshness.prepare_gallery(site)
    (made / "plot_1_x.py.md5").write_text("ran")
    return site


def runs_again(site) -> bool:
    freshness.prepare_gallery(site)
    return not (site.made / "plot_1_x.py.md5").exists()


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_nothing_changed_nothing_runs(site):
    assert not runs_again(site)


@pytest.mark.parametrize("module", ["clipping", "files", "records"])
def test_a_change_of_an_imported_module_runs_the_script(site, module):
    append(site.root / f"dian/{module}.py", "\nx = 1\n")
    assert runs_again(site)


def test_a_comment_or_a_module_that_is_not_imported_does_not(site):
    append(site.root / "dian/training/clipping.py", "# a better sentence\n")
    append(site.root / "dian/training/metrics.py", "\nx = 1\n")
    assert not runs_again(site)


@pytest.mark.parametrize("file", ["record.json", "weights.safetensors"])
def test_a_change_of_the_record_runs_the_script(site, file):
    path = site.root / "recorded" / NAME / file
    path.write_bytes(path.read_bytes() + b" ")
    assert runs_again(site)


def test_a_first_build_is_enough(site):
    shutil.rmtree(site.made)
    assert runs_again(site)
    (site.made / "plot_1_x.py.md5").write_text("ran")
    assert not runs_again(site)


def test_a_change_of_the_bundled_sample_runs_the_script(site):
    [sample] = (site.root / "dian/sample").glob("*.npz")
    sample.write_bytes(b"other")
    assert runs_again(site)


def test_another_version_of_torch_runs_the_script(site, monkeypatch):
    monkeypatch.setattr(pages, "version", lambda name: "0.0")
    assert runs_again(site)


def test_another_version_of_katex_has_every_page_read_again(site, monkeypatch):
    freshness.set_extension_key(site, site.config)
    before = site.config.extension_key
    monkeypatch.setattr(freshness, "LOCK", site.root / "package-lock.json")
    freshness.LOCK.write_text("{}")
    freshness.set_extension_key(site, site.config)
    assert site.config.extension_key != before


def test_a_run_that_failed_is_run_again(site):
    append(site.root / "dian/training/clipping.py", "\nx = 1\n")
    assert runs_again(site)
    # It failed: no new mark. The next build must not take it for done.
    assert runs_again(site)


def test_pages_of_a_removed_script_go(site):
    (site.root / "gallery/1_rnn/plot_1_x.py").unlink()
    freshness.prepare_gallery(site)
    assert [p.name for p in site.made.rglob("*") if p.is_file()] == ["index.rst"]


def test_a_removed_folder_goes(site):
    shutil.rmtree(site.root / "gallery/1_rnn")
    freshness.prepare_gallery(site)
    assert not site.made.exists()


def test_cells_have_a_new_cache_for_each_state_of_the_library(site):
    site.outdir = site.root / "build/html"
    caches = [site.root / "build/jupyter_cache/old"]
    caches[0].mkdir(parents=True)
    for change in ("", "\nx = 1\n"):
        append(site.root / "dian/training/metrics.py", change)
        freshness.set_notebook_cache(site, site.config)
        caches.append(Path(site.config.nb_execution_cache_path))
    assert len(set(caches)) == 3
    assert not caches[0].exists()


def test_built_pages_without_a_source_go(site):
    site.outdir = site.root / "html"
    site.builder = SimpleNamespace(format="html")
    site.env = SimpleNamespace(all_docs={"index": 0})
    for name in ("index", "gone/page", "search", "_modules/dian/rnn"):
        path = site.outdir / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    freshness.remove_orphans(site, None)
    kept = {p.relative_to(site.outdir).as_posix() for p in site.outdir.rglob("*.html")}
    assert kept == {"index.html", "search.html", "_modules/dian/rnn.html"}


def test_notebooks_show_what_only_the_site_understands(site):
    recorded.read.cache_clear()
    text = f":result:`{NAME}/seeds` seeds\n\n.. live::\n\n.. provenance:: {NAME}"
    cell = {"cell_type": "markdown", "source": [text]}
    notebook = site.made / "plot_1_x.ipynb"
    notebook.write_text(json.dumps({"cells": [cell]}))
    notebooks.write_out(site)
    record = records.load(NAME)
    shown = f"{len(record.seeds)} seeds\n\n\n\n*{record.provenance}*"
    with zipfile.ZipFile(notebook.with_suffix(".zip")) as archive:
        packed = archive.read("1_rnn/plot_1_x.ipynb").decode()
    for made in (notebook.read_text(), packed):
        assert json.loads(made)["cells"][0]["source"] == [shown]
