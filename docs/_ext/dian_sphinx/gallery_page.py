"""The layout of a gallery page: downloads at the top, and long blocks of code folded.

A page is read for its argument and its figures first. Code that is longer than a few
lines would put a figure screens away from the text that it belongs to, so a reader
unfolds it; printed pages and the PDF have all of it.
"""

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from dian_sphinx.folded import folded

LONG = 14
"""Lines of code of which a block may consist without being folded."""
DOWNLOADS = "sphx-glr-footer"
SHORT = {"jupyter": "Notebook", "python": "Script", "zip": "Both, zipped"}
"""The text of the link to each file."""
POINTER = "sphx-glr-download-link-note"  # "go to the end to download"


def arrange(app: Sphinx, doctree: nodes.document) -> None:
    """Fold long code, and move the downloads of the page below its title."""
    if not app.env.docname.startswith("gallery/"):
        return
    for block in list(doctree.findall(nodes.literal_block)):
        fold(block)
    _move_downloads(doctree)


def fold(block: nodes.literal_block) -> None:
    """Fold a block of Python if it is long; what it prints stays."""
    lines = [line for line in block.astext().splitlines() if line.strip()]
    is_python = block.get("language", "").lower() == "python"
    if is_python and len(lines) > LONG and not isinstance(block.parent, folded):
        box = folded(classes=["code"], summary=f"Code, {len(lines)} lines")
        block.replace_self(box)
        box += block


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
                    link += nodes.Text(text)


def connect(app: Sphinx) -> None:
    """Arrange each page once it is read, after the checks of its figures."""
    app.connect("doctree-read", arrange, priority=700)
