"""The layout of a gallery page: downloads at the top, and long blocks of code folded.

A page is read for its argument and its figures first. Code that is longer than a few
lines would put a figure screens away from the text that it belongs to, so a reader
unfolds it; printed pages and the PDF have all of it.

A script prints a table in Markdown, which a terminal and a notebook show as text. Here
it becomes a table.
"""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from dian_sphinx.folded import folded
from dian_sphinx.wording import mark, tr

LONG = 14
"""Lines of code of which a block may consist without being folded."""
DOWNLOADS = "sphx-glr-footer"
SHORT = {
    "jupyter": mark("Notebook"),
    "python": mark("Script"),
    "zip": mark("Both, zipped"),
}
"""The text of the link to each file."""
POINTER = "sphx-glr-download-link-note"  # "go to the end to download"
OUTPUT = "sphx-glr-script-out"
# A row that a rule follows is the header of the next table.
TABLE = re.compile(r"^\|.*\|\n\|[-:|]+\|(?:\n\|.*\|(?!\n\|[-:|]+\|))*$", re.MULTILINE)
FORMULA = re.compile(r"\$([^$]+)\$")


def arrange(app: Sphinx, doctree: nodes.document) -> None:
    """Fold long code, and move the downloads of the page below its title."""
    if not app.env.docname.startswith("gallery/"):
        return
    for block in list(doctree.findall(nodes.literal_block)):
        fold(block)
        if OUTPUT in block["classes"]:
            # Not by `replace_self`: the first part would inherit the classes, and a
            # table would be laid out like printed text.
            place = block.parent.index(block)
            block.parent[place : place + 1] = tabulated(block)
    _move_downloads(doctree)


def fold(block: nodes.literal_block) -> None:
    """Fold a block of Python if it is long; what it prints stays."""
    lines = [line for line in block.astext().splitlines() if line.strip()]
    is_python = block.get("language", "").lower() == "python"
    if is_python and len(lines) > LONG and not isinstance(block.parent, folded):
        box = folded(classes=["code"], summary=tr("Code, {n} lines", n=len(lines)))
        block.replace_self(box)
        box += block


def tabulated(block: nodes.literal_block) -> list[nodes.Element]:
    """Split what a script printed into text and tables."""
    parts, end, text = [], 0, block.astext()
    for match in TABLE.finditer(text):
        parts += [_printed(block, text[end : match.start()]), table(match[0])]
        end = match.end()
    parts.append(_printed(block, text[end:]))
    return [part for part in parts if part is not None]


def _printed(block: nodes.literal_block, text: str) -> nodes.literal_block | None:
    text = text.strip("\n")
    if not text:
        return None
    part = block.copy()
    part.rawsource = text
    part += nodes.Text(text)
    return part


def table(markdown: str) -> nodes.table:
    r"""Make a table of one in Markdown; formulas between dollar signs are set.

    >>> lines = ["| unit | $h_t$ |", "|:-----|------:|", "| 1    |   0.5 |"]
    >>> found = table("\n".join(lines))
    >>> [entry.astext() for entry in found.findall(nodes.entry)]
    ['unit', 'h_t', '1', '0.5']
    >>> [entry["classes"] for entry in found.findall(nodes.entry)][-1]
    ['text-right']
    """
    header, rule, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in markdown.splitlines()
    )
    right = [mark.endswith(":") and not mark.startswith(":") for mark in rule]
    width = [max(map(len, column)) + 2 for column in zip(header, *rows, strict=True)]
    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=size) for size in width]
    for part, lines in ((nodes.thead(), [header]), (nodes.tbody(), rows)):
        group += part
        for line in lines:
            row = nodes.row()
            part += row
            for text, at_right in zip(line, right, strict=True):
                paragraph = nodes.paragraph("", "", *_inline(text))
                side = ["text-right"] if at_right else []
                row += nodes.entry("", paragraph, classes=side)
    return nodes.table("", group, classes=["printed", "colwidths-auto"])


def _inline(text: str) -> list[nodes.Node]:
    """Return a text with its formulas."""
    parts = enumerate(FORMULA.split(text))
    return [nodes.math(t, t) if i % 2 else nodes.Text(t) for i, t in parts if t]


def _move_downloads(doctree: nodes.document) -> None:
    """Put the links to the script and the notebook where a reader looks first."""
    title = next(doctree.findall(nodes.title), None)
    for part in list(doctree.findall(addnodes.only)):
        elements = part.findall(nodes.Element)
        classes = {name for element in elements for name in element["classes"]}
        if POINTER in classes:
            part.parent.remove(part)
        elif DOWNLOADS in classes and title is not None:
            part.parent.remove(part)
            title.parent.insert(title.parent.index(title) + 1, part)
            _shorten(part)


def _shorten(downloads: nodes.Element) -> None:
    """Name each download in a word: the names of the files are wider than a phone."""
    for box in downloads.findall(nodes.container):
        for kind, text in SHORT.items():
            if f"sphx-glr-download-{kind}" in box["classes"]:
                for link in box.findall(addnodes.download_reference):
                    link.children = []
                    link += nodes.Text(tr(text))


def connect(app: Sphinx) -> None:
    """Arrange each page once it is read, after the checks of its figures."""
    app.connect("doctree-read", arrange, priority=700)
