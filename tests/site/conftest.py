"""Small sites of one or a few pages, built with some parts of the extension."""

import io
import json
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from dian.runs import record as runs
from dian_sphinx import records

ROOT = Path(__file__).parents[2]
NAME = "rnn-fashion-mnist"
SETTINGS = {
    "html_theme": "basic",
    "html_math_renderer": "katex",
    "katex_package": str(ROOT / "node_modules/katex"),
    "katex_macros": str(ROOT / "docs/macros.json"),
    "myst_enable_extensions": {"dollarmath"},
    "nb_execution_mode": "off",
    "master_doc": "page",
}


@pytest.fixture(scope="session")
def root():
    """The folder of the project."""
    return ROOT


@pytest.fixture
def extension_of(monkeypatch):
    """Return a function that makes an extension of some parts of dian_sphinx."""

    def make(*names: str) -> str:
        def setup(app: Sphinx) -> None:
            for name in names:
                import_module(f"dian_sphinx.{name}").connect(app)

        extension = ModuleType("_".join(names))
        extension.setup = setup
        monkeypatch.setitem(sys.modules, extension.__name__, extension)
        return extension.__name__

    return make


def build(source: Path, built: Path, settings: dict, form: str = "html") -> str:
    """Build what is in a folder, and return the warnings."""
    warnings = io.StringIO()
    with docutils_namespace():
        Sphinx(
            *(source, None, built, built.with_name(f"{built.name}-trees"), form),
            dict(settings),
            status=None,
            warning=warnings,
        ).build()
    return re.sub(r"\x1b\[[\d;]*m", "", warnings.getvalue())


@pytest.fixture
def sphinx_build():
    """Return the function that builds a folder."""
    return build


class Site:
    """A site of one page, and a copy of the record that it shows."""

    def __init__(self, folder: Path, extension: str):
        self.source, self.built = folder / "docs", folder / "built"
        self.source.mkdir()
        self.records = folder / "recorded"
        shutil.copytree(runs.RECORDED / NAME, self.records / NAME)
        self.settings = SETTINGS | {"extensions": ["myst_nb", extension]}

    def build(self, text: str | None = None, **files: str) -> str:
        """Build the page, and return the warnings."""
        if text is not None:
            (self.source / "page.md").write_text(f"# Page\n\n{text}\n")
        for name, content in files.items():
            (self.source / name.replace("_", ".")).write_text(content)
        return build(self.source, self.built, self.settings)

    @property
    def html(self) -> str:
        """The built page."""
        return (self.built / "page.html").read_text("utf-8")

    def rewrite_record(self, **metrics: float) -> None:
        """Write other metrics into the record, with a checksum that fits."""
        path = self.records / NAME / "record.json"
        content = json.loads(path.read_text())
        for name, value in metrics.items():
            content["metrics"][name] = [value for _ in content["seeds"]]
        content = runs.sealed(content)
        path.write_bytes(runs.to_json(content))

    def edit_record(self) -> None:
        """Change one number of the record by hand."""
        path = self.records / NAME / "record.json"
        content = json.loads(path.read_text())
        content["metrics"]["test/accuracy"][0] += 0.01
        path.write_text(json.dumps(content))


@pytest.fixture
def site(tmp_path, monkeypatch, extension_of):
    """A site with the parts that read records."""
    made = Site(
        tmp_path,
        extension_of(*("folded", "records", "provenance", "benchmarks", "katex")),
    )
    monkeypatch.setattr(records, "FOLDER", made.records)
    return made
