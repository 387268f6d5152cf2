"""Pages are made again when, and only when, what they depend on has changed."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dian.runs import code_hash
from dian.runs import record as runs
from dian_sphinx import gallery

NAME = "rnn-fashion-mnist"
SCRIPT = f'''"""Title."""
from dian.runs.record import load
from dian.training import clipping

load("{NAME}")
'''


@pytest.fixture
def project(tmp_path, monkeypatch, root):
    """A gallery of one script that has run, and copies of library and records."""
    for folder in ("gallery/1_rnn", "docs/gallery/1_rnn/images/thumb"):
        (tmp_path / folder).mkdir(parents=True)
    script = tmp_path / "gallery/1_rnn/plot_1_x.py"
    script.write_text(SCRIPT)
    made = tmp_path / "docs/gallery/1_rnn"
    for name in ("plot_1_x.rst", "plot_1_x.ipynb", "index.rst", "plot_1_x.py"):
        (made / name).write_text("")
    (made / "images/sphx_glr_plot_1_x_001.png").write_text("")
    (made / "images/thumb/sphx_glr_plot_1_x_thumb.png").write_text("")
    library, recorded = tmp_path / "dian", tmp_path / "recorded"
    leave = shutil.ignore_patterns("__pycache__", "recorded")
    shutil.copytree(root / "dian", library, ignore=leave)
    shutil.copytree(runs.RECORDED / NAME, recorded / NAME)
    monkeypatch.setattr(code_hash, "PACKAGE", library)
    project = SimpleNamespace(root=tmp_path, script=script, made=made, records=recorded)
    assert runs_again(project)
    (made / "plot_1_x.py.md5").write_text("ran")
    return project


def runs_again(project) -> bool:
    copy = project.made / "plot_1_x.py"
    return gallery.expire(copy, project.script, project.records)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_nothing_changed_nothing_runs(project):
    assert not runs_again(project)


@pytest.mark.parametrize("module", ["training/clipping", "runs/files", "runs/record"])
def test_a_change_of_an_imported_module_runs_the_script(project, module):
    append(project.root / f"dian/{module}.py", "\nx = 1\n")
    assert runs_again(project)


def test_a_change_of_the_script_runs_it(project):
    append(project.script, "# a sentence\n")
    assert runs_again(project)


def test_a_comment_or_a_module_that_is_not_imported_does_not(project):
    append(project.root / "dian/training/clipping.py", "# a better sentence\n")
    append(project.root / "dian/training/metrics.py", "\nx = 1\n")
    assert not runs_again(project)


@pytest.mark.parametrize("file", ["record.json", "weights.safetensors"])
def test_a_change_of_the_record_runs_the_script(project, file):
    path = project.records / NAME / file
    path.write_bytes(path.read_bytes() + b" ")
    assert runs_again(project)


def test_a_change_of_the_bundled_sample_runs_the_script(project):
    [sample] = (project.root / "dian/sample").glob("*.npz")
    sample.write_bytes(b"other")
    assert runs_again(project)


def test_another_version_of_torch_runs_the_script(project, monkeypatch):
    assert gallery.installed().keys() >= {"torch", "matplotlib"}
    monkeypatch.setattr(gallery, "installed", lambda: {"torch": "0.0"})
    assert runs_again(project)


def test_a_change_of_the_style_of_figures_runs_the_script(project, monkeypatch):
    style = project.root / "figures.py"
    style.write_text("STYLE = {}")
    monkeypatch.setattr(gallery, "STYLE", style)
    assert runs_again(project)


def test_a_run_that_failed_is_run_again(project):
    append(project.root / "dian/training/clipping.py", "\nx = 1\n")
    assert runs_again(project)
    # It failed: no new mark. The next build must not take it for done.
    assert runs_again(project)


def test_pages_of_a_removed_script_go(project):
    project.script.unlink()
    gallery.remove_old(project.root / "gallery", project.root / "docs/gallery")
    assert [p.name for p in project.made.rglob("*") if p.is_file()] == ["index.rst"]


def test_a_removed_folder_goes(project):
    shutil.rmtree(project.script.parent)
    gallery.remove_old(project.root / "gallery", project.root / "docs/gallery")
    assert not project.made.exists()


# --- Cells on a page ----------------------------------------------------------------

CELLS = f"""# Page

```{{code-cell}} python
---
tags: [remove-input]
---
%matplotlib inline
from dian.runs.record import load

load("{NAME}")
```
"""


@pytest.fixture
def page(project, monkeypatch):
    """A page with a cell that has been read, and a cache with its results."""
    path = project.root / "docs/page.md"
    path.write_text(CELLS)
    cache = project.root / "jupyter_cache"
    monkeypatch.setattr(gallery, "RECORDED", project.records)
    env = SimpleNamespace(
        found_docs={"page", "other"},
        doc2path=lambda name: project.root / f"docs/{name}.md",
    )
    (project.root / "docs/other.md").write_text("# Other\n")
    config = SimpleNamespace(nb_execution_cache_path=cache, language="en")
    app = SimpleNamespace(config=config)

    def outdated() -> set[str]:
        return gallery.reread_cells(app, env, set(), set(), set())

    assert outdated() == {"page"}
    cache.mkdir()
    return SimpleNamespace(path=path, cache=cache, outdated=outdated, config=config)


def test_a_page_with_cells_is_kept_while_nothing_in_it_changes(page, project):
    append(page.path, "A sentence.\n")
    append(project.root / "dian/training/metrics.py", "\nx = 1\n")
    assert page.outdated() == set()
    assert page.cache.exists()


@pytest.mark.parametrize("file", ["dian/runs/files.py", f"recorded/{NAME}/record.json"])
def test_a_page_is_read_and_its_cells_are_run_when_what_they_use_changes(
    page, project, file
):
    append(project.root / file, "\nx = 1\n")
    assert page.outdated() == {"page"}
    assert not page.cache.exists()
    assert page.outdated() == set()


def test_another_edition_keeps_the_results_of_the_cells(page, project):
    page.config.language = "zh_CN"
    append(project.root / "dian/runs/files.py", "\nx = 1\n")
    assert page.outdated() == {"page"}
    assert page.cache.exists()


# --- The status of the pages --------------------------------------------------------


@pytest.fixture
def status(project):
    """Return a function that reports the status of two pages, the second not built."""
    (project.root / "gallery/1_rnn/plot_2_y.py").write_text("import dian\n")
    return lambda: list(gallery.pages(project.root, project.records))


def test_a_page_is_fresh_until_something_in_it_changes(project, status, monkeypatch):
    monkeypatch.setattr(gallery, "why_stale", lambda name, folder: None)
    first, second = status()
    assert (first["name"], first["state"]) == ("1_rnn/plot_1_x", "fresh")
    assert first["records"] == [NAME]
    assert (second["state"], second["records"]) == ("not built", [])
    append(project.root / "dian/training/clipping.py", "\nx = 1\n")
    first, _ = status()
    reasons = ["dian.training.clipping changed"]
    assert (first["state"], first["reasons"]) == ("stale", reasons)


def test_a_page_is_no_better_than_its_records(status, monkeypatch):
    monkeypatch.setattr(gallery, "why_stale", lambda name, folder: "damaged")
    first, second = status()
    reasons = [f"record {NAME} is not fresh"]
    assert (first["state"], first["reasons"]) == ("stale", reasons)
    assert second["state"] == "not built"


@pytest.mark.parametrize("key", ["", "{", "[1]", "0f3a"])
def test_a_page_whose_dependencies_are_unknown_is_stale(
    project, status, monkeypatch, key
):
    monkeypatch.setattr(gallery, "why_stale", lambda name, folder: None)
    (project.made / "plot_1_x.key").write_text(key)
    first, _ = status()
    assert first["reasons"] == ["its dependencies are unknown"]


def test_the_command_names_the_pages_that_are_stale(monkeypatch, capsys):
    page = gallery.Page(name="a", state="stale", reasons=["b changed"], records=[])
    monkeypatch.setattr(gallery, "pages", lambda root: [page])
    assert gallery.main() == 1
    said = capsys.readouterr()
    assert said.err == "page a is stale: b changed; run: make html\n"
    assert "computed while it is built" in said.out
    monkeypatch.setattr(gallery, "pages", lambda root: [page | {"state": "fresh"}])
    assert gallery.main() == 0


def test_the_modules_that_run_scripts_import_no_torch():
    code = (
        "import sys, dian_sphinx.gallery, dian_sphinx.records;"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    extension = str(Path(gallery.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": extension})
    assert done.returncode == 0


def test_a_key_names_every_dependency(project):
    key = json.loads(gallery.page_key(project.script, project.records))
    assert {
        *("dian.training.clipping", "dian.runs.files", "plot_1_x.py", "torch"),
        *(f"{NAME}/record.json", "dian_sphinx/figures.py"),
        "sample/fashion-mnist-sample.npz",
    } <= key.keys()


def test_a_space_in_the_path_is_not_a_warning(tmp_path, sphinx_build):
    """It would stop the build, and the folder above the repository is not ours."""
    ours = runpy.run_path(str(Path(__file__).parents[2] / "conf.py"))
    docs, scripts = tmp_path / "a b/docs", tmp_path / "a b/gallery"
    docs.mkdir(parents=True)
    scripts.mkdir()
    (docs / "index.rst").write_text("Top\n===\n\n.. toctree::\n\n   gallery/index\n")
    (scripts / "GALLERY_HEADER.rst").write_text("Gallery\n=======\n")
    (scripts / "plot_one.py").write_text('"""\nOne\n===\n\nText.\n"""\n')
    names = ("examples_dirs", "gallery_dirs", "write_computation_times")
    settings = {
        "extensions": ["sphinx_gallery.gen_gallery"],
        "sphinx_gallery_conf": {n: ours["sphinx_gallery_conf"][n] for n in names},
        "suppress_warnings": ours["suppress_warnings"],
        # Another build in this process may have changed the default.
        "source_suffix": {".rst": "restructuredtext"},
    }
    warnings = sphinx_build(docs, tmp_path / "built", settings)
    assert "spaces" not in warnings


def test_no_line_break_of_a_text_is_lost(root):
    """Text beside ``# %%`` is left out, and a heading needs a line of its own."""
    lost = re.compile(r"^# %% *\S|^#.*-{6,} \S", re.M)
    scripts = sorted((root / "gallery").rglob("plot_*.py"))
    assert scripts
    assert not [s.name for s in scripts if lost.search(s.read_text("utf-8"))]
