"""The notebooks that the gallery offers, without the markup that only the site knows.

With ``DIAN_REPOSITORY``, the first cell of each installs the library if it is missing,
as on Colab.

Sphinx-gallery converts the text of a script to Markdown, but not our role ``result``,
our directives ``provenance`` and ``live``, the numbers of equations, or links into the
site.
"""

import json
import re
import zipfile
from pathlib import Path

from sphinx.application import Sphinx

from dian_sphinx.records import formatted, read

RESULT = re.compile(r":result:`([^/`]+)/([^:`]+):?([^`]*)`")
PROVENANCE = re.compile(r"^\.\. provenance:: (\S+)$", re.MULTILINE)
LIVE = re.compile(r"^\.\. live::$", re.MULTILINE)  # everything in a notebook is

LABEL = re.compile(r"(\\begin\{align\}):label: (\S+)\s+")
EQUATION = re.compile(r":eq:`([^`]+)`")
LINK = re.compile(r":(?:doc|ref|func|class|mod|data):`([^`<]+?)(?: <[^`]*>)?`")


def write_out(app: Sphinx) -> None:
    """Rewrite every notebook that was made, and the archive with it."""
    if "sphinx_gallery.gen_gallery" not in app.extensions:
        return
    gallery = Path(app.srcdir) / app.config.sphinx_gallery_conf["gallery_dirs"]
    for notebook in sorted(gallery.rglob("*.ipynb")):
        content = json.loads(notebook.read_text("utf-8"))
        before = json.dumps(content)
        texts = [c for c in content["cells"] if c["cell_type"] == "markdown"]
        for cell in texts:
            cell["source"] = [plain("".join(cell["source"]))]
        whole = [cell["source"][0] for cell in texts]
        for cell, text in zip(texts, numbered(whole), strict=True):
            cell["source"] = [text]
        if repository := getattr(app.config, "repository", ""):
            install(content, repository)
        if json.dumps(content) != before:
            notebook.write_text(json.dumps(content, indent=1), "utf-8")
            archive = notebook.with_suffix(".zip")
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
                for part in (notebook.with_suffix(".py"), notebook):
                    file.write(part, part.relative_to(gallery))


def install(content: dict, repository: str) -> None:
    """Put a cell that installs the library in front, or correct the one that is there.

    >>> notebook = {"cells": []}
    >>> for address in ("https://a.b/c", "https://a.b/d"):
    ...     install(notebook, address)
    >>> print(notebook["cells"][0]["source"][0])
    %pip install --quiet "dian @ git+https://a.b/d"
    >>> len(notebook["cells"])
    1
    """
    cells = [c for c in content["cells"] if not c.get("metadata", {}).get("install")]
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {"install": True},
        "outputs": [],
        "source": [f'%pip install --quiet "dian @ git+{repository}"'],
    }
    content["cells"] = [cell, *cells]


def plain(text: str) -> str:
    """Replace our roles and directives by their text."""

    def value(match: re.Match) -> str:
        name, key, form = match.groups()
        return formatted(read(name).value(key), form)

    text = LIVE.sub("", LINK.sub(r"\1", RESULT.sub(value, text)))
    return PROVENANCE.sub(lambda match: f"*{read(match[1]).provenance}*", text)


def numbered(texts: list[str]) -> list[str]:
    r"""Give the equations of a notebook numbers, in their order.

    >>> print(*numbered([":eq:`eq-x`:", r"\begin{align}:label: eq-x x = 1\end{align}"]))
    (1): \begin{align}\tag{1} x = 1\end{align}
    >>> numbered(["elsewhere, :eq:`eq-y`"])
    ['elsewhere, (`eq-y` in the report)']
    """
    labels = [label for text in texts for _, label in LABEL.findall(text)]
    number = {label: i for i, label in enumerate(labels, 1)}

    def tag(match: re.Match) -> str:
        return rf"{match[1]}\tag{{{number[match[2]]}}} "

    def name(match: re.Match) -> str:
        label = match[1]
        return f"({number[label]})" if label in number else f"(`{label}` in the report)"

    return [EQUATION.sub(name, LABEL.sub(tag, text)) for text in texts]


def connect(app: Sphinx) -> None:
    """Come after sphinx-gallery, which is at priority 500."""
    app.connect("builder-inited", write_out, priority=600)
