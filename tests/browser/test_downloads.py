"""Every page of the gallery offers its script and a notebook, and both work."""

import ast
import json
import re
from pathlib import Path

import nbclient
import nbformat
import pytest
from built import HTML, NODE_MODULES, ROOT, gallery_pages

LEFT_OVER = re.compile(r":[a-z]+(?::[a-z]+)?:`|^\.\. [\w-]+::|:label:", re.MULTILINE)
# One of each chapter that is done in seconds.
QUICK = [
    *("1_rnn/plot_1", "2_positions/plot_1"),
    *("3_attention/plot_1", "4_diffusion/plot_1"),
]


def offered(page: str, kind: str) -> Path:
    """Return what a page offers as a download."""
    text = (HTML / page).read_text("utf-8")
    [address] = set(re.findall(rf'<a[^>]* download[^>]* href="([^"]+\.{kind})"', text))
    return (HTML / page).parent / address


def cells(page: str, kind: str) -> list[str]:
    """Return the cells of one kind of the notebook of a page."""
    notebook = json.loads(offered(page, "ipynb").read_text("utf-8"))
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == kind]


def code(text: str) -> str:
    """Return what Python reads of it, without the text that stands around."""
    body = ast.parse(text).body
    texts = [x for x in body if isinstance(x, ast.Expr) and _is_text(x.value)]
    return ast.unparse([x for x in body if x not in texts])


def _is_text(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


@pytest.mark.parametrize("page", gallery_pages())
def test_a_page_offers_the_script_that_was_run(page):
    script = ROOT / "gallery" / page.removeprefix("gallery/").replace(".html", ".py")
    assert offered(page, "py").read_text("utf-8") == script.read_text("utf-8")
    # The build ran the script: so runs the notebook, which has the same code.
    told = "\n".join(cells(page, "code"))
    assert code(told) == code(script.read_text("utf-8"))


@pytest.mark.parametrize("page", gallery_pages())
def test_a_notebook_speaks_markdown_alone(page):
    assert not [
        text for cell in cells(page, "markdown") for text in LEFT_OVER.findall(cell)
    ]


@pytest.mark.parametrize("start", QUICK)
def test_a_notebook_runs(start, tmp_path, monkeypatch):
    # as at a reader's, where figures stand under their cells
    monkeypatch.delenv("MPLBACKEND", raising=False)
    [page] = [page for page in gallery_pages() if f"/{start}_" in page]
    notebook = nbformat.read(offered(page, "ipynb"), as_version=4)
    where = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(notebook, timeout=300, resources=where).execute()
    shown = [o for c in notebook.cells for o in c.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not list(tmp_path.iterdir())


# As Jupyter has MathJax set what it finds in a cell, but that it tells of an error.
MATHJAX = """window.MathJax = {
  tex: {
    inlineMath: [["$", "$"]], processEnvironments: true, processEscapes: true,
    packages: { "[-]": ["noerrors", "noundefined"] },
  },
  svg: { fontCache: "none" },
  options: { enableAssistiveMml: false, enableMenu: false },
  startup: { typeset: false },
}"""
TYPESET = """async (texts) => {
  document.body.replaceChildren(...texts.map((text) => {
    const cell = document.createElement("div");
    // what stands between backquotes is code
    text.split(/(`[^`]*`)/).forEach((part, i) => {
      const kind = document.createElement(i % 2 ? "code" : "span");
      kind.textContent = part;
      cell.append(kind);
    });
    return cell;
  }));
  await MathJax.typesetPromise();
  const all = (what) => [...document.querySelectorAll(what)];
  const wrong = all("[data-mml-node='merror']").map((e) => e.outerHTML.slice(0, 300));
  const formulas = all("mjx-container").length;
  all("mjx-container, code").forEach((e) => e.remove());
  const left = document.body.textContent.match(/\\$[^$]*\\$|\\\\[a-z]+/g) || [];
  MathJax.typesetClear();
  MathJax.texReset();
  return { formulas, wrong: [...wrong, ...left] };
}"""


@pytest.fixture(scope="module")
def typeset(browser):
    """Return a function that shows texts as Jupyter does, and says what went wrong."""
    tab = browser.new_page()
    tab.evaluate(MATHJAX)
    tab.add_script_tag(path=NODE_MODULES / "mathjax/es5/tex-svg-full.js")
    tab.evaluate("MathJax.startup.promise")
    yield lambda texts: tab.evaluate(TYPESET, texts)
    tab.close()


def test_the_equations_of_the_notebooks_render(typeset):
    told = {page: typeset(cells(page, "markdown")) for page in gallery_pages()}
    assert not {page: told["wrong"] for page, told in told.items() if told["wrong"]}
    assert sum(told["formulas"] for told in told.values()) > 300


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (r"$\softmax(x)$", "Undefined control sequence"),
        (r"$\frac{1}$", "Missing argument"),
        (r"text \begin{align} x", r"\begin"),
    ],
)
def test_the_test_above_can_fail(typeset, text, said):
    assert any(said in line for line in typeset([text])["wrong"])
