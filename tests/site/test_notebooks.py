"""The notebooks of the gallery show what only the site understands."""

import json
import zipfile
from types import SimpleNamespace

from dian.runs import record as runs
from dian_sphinx import notebooks, records

NAME = "rnn-fashion-mnist"


def test_notebooks_show_what_only_the_site_understands(tmp_path):
    records.read.cache_clear()
    folder = tmp_path / "gallery/1_rnn"
    folder.mkdir(parents=True)
    (folder / "plot_1_x.py").write_text("")
    text = f":result:`{NAME}/seeds` seeds\n\n.. live::\n\n.. provenance:: {NAME}"
    cell = {"cell_type": "markdown", "source": [text]}
    notebook = folder / "plot_1_x.ipynb"
    notebook.write_text(json.dumps({"cells": [cell]}))
    settings = {"gallery_dirs": "gallery"}
    app = SimpleNamespace(
        srcdir=tmp_path,
        extensions={"sphinx_gallery.gen_gallery"},
        config=SimpleNamespace(sphinx_gallery_conf=settings, language="en"),
    )
    notebooks.write_out(app)
    record = runs.load(NAME)
    shown = f"{len(record.seeds)} seeds\n\n\n\n*{record.provenance}*"
    with zipfile.ZipFile(notebook.with_suffix(".zip")) as archive:
        packed = archive.read("1_rnn/plot_1_x.ipynb").decode()
    for made in (notebook.read_text(), packed):
        assert json.loads(made)["cells"][0]["source"] == [shown]
