"""One line under each figure that says where it is from.

The directive ``provenance`` names a record, and ``live`` says that the figure was
computed while the page was built. A page of the gallery that loads a record needs one
of them under every figure; on one that loads none, ``live`` is put there.
"""

from pathlib import Path

from docutils import nodes
from recorded import depend_on, names, read, used_in
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from dian.errors import DianError

log = logging.getLogger(__name__)
PAGE = "reproducing"  # where all runs are listed
LIVE = "Computed while this page was built."


class Provenance(SphinxDirective):
    """Device, date, commit, seeds, seconds and command of a record."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the line as a paragraph, or nothing after a warning."""
        name = self.arguments[0]
        try:
            record = read(name)
        except DianError as error:
            log.warning("provenance %s: %s", name, error, location=self.get_location())
            return []
        depend_on(self.env, name)
        line = nodes.paragraph(classes=["provenance"], record=name)
        line += marked(record.provenance, record.command)
        if PAGE in self.env.found_docs:
            line += nodes.Text(" (")
            line += link_to(name)
            line += nodes.Text(")")
        self.set_source_info(line)
        return [line]


class Live(SphinxDirective):
    """The same line for a figure that no record has a part in."""

    def run(self) -> list[nodes.Node]:
        """Return the line as a paragraph."""
        return [live_line()]


def live_line() -> nodes.paragraph:
    """Say that a figure comes from the page itself."""
    return nodes.paragraph("", LIVE, classes=["provenance"])


def marked(text: str, code: str) -> list[nodes.Node]:
    """Turn a line that ends with some code into nodes.

    >>> [node.tagname for node in marked("again: make html", "make html")]
    ['#text', 'literal']
    """
    return [nodes.Text(text.removesuffix(code)), nodes.literal("", code)]


def label(name: str) -> str:
    """Return the label of a record on the page that lists them all."""
    return f"run-{name}"


def link_to(name: str, text: str = "about this run") -> addnodes.pending_xref:
    """Link to the record on the page that lists them all."""
    return addnodes.pending_xref(
        "",
        nodes.inline("", text),
        refdomain="std",
        reftype="ref",
        reftarget=label(name),
        refexplicit=True,
        refwarn=True,
    )


def check_figures(app: Sphinx, doctree: nodes.document) -> None:
    """Warn if a page shows a record, or a figure beside it, and says not from where."""
    shown = {node.get("record") for node in doctree.findall(nodes.paragraph)}
    loaded = _loaded(app, doctree)
    for name in sorted(loaded - shown):
        log.warning(
            "the page loads the record %r: it needs the directive `provenance` "
            "with that name under its figures",
            name,
            location=app.env.current_document.docname,
        )
    if not _script(app).is_file():
        return
    for figure in without_line(doctree):
        if loaded:
            log.warning(
                "the page loads a record: the figure %r needs the directive "
                "`provenance` or `live` under it, before the next block of code",
                figure.get("alt"),
                location=figure,
            )
        else:
            _insert_after(figure, live_line())


def without_line(doctree: nodes.document) -> list[nodes.Node]:
    """Find the last figure of every block of code that has no line of ours under it."""
    missing, figure = [], None
    for node in doctree.findall():
        if node.tagname in ("image", "imgsgnode"):
            figure = node
        elif "provenance" in getattr(node, "attributes", {}).get("classes", ()):
            figure = None
        elif _is_code(node) and figure is not None:
            missing.append(figure)
            figure = None
    return missing if figure is None else [*missing, figure]


def _is_code(node: nodes.Node) -> bool:
    """Tell a block of the script from what it printed."""
    is_block = isinstance(node, nodes.literal_block)
    return is_block and node.get("language", "").lower() == "python"


def _insert_after(figure: nodes.Node, line: nodes.paragraph) -> None:
    """Put the line under a figure, or under the row of figures that it ends."""
    while not isinstance(figure.parent, nodes.section | nodes.document):
        figure = figure.parent
    figure.parent.insert(figure.parent.index(figure) + 1, line)


def _script(app: Sphinx) -> Path:
    """Where the script of the page is, if it is one of the gallery."""
    return Path(app.srcdir, app.env.current_document.docname).with_suffix(".py")


def _loaded(app: Sphinx, doctree: nodes.document) -> set[str]:
    """Name the records that the code on a page loads."""
    script = _script(app)
    if script.is_file():
        return used_in(script.read_text("utf-8"))
    return {
        name
        for cell in doctree.findall(nodes.container)
        if "cell_input" in cell["classes"]
        for name in names()
        if f'"{name}"' in cell.astext() or f"'{name}'" in cell.astext()
    }


def setup(app: Sphinx) -> dict:
    """Register the directives and their check."""
    app.setup_extension("recorded")
    app.add_directive("provenance", Provenance)
    app.add_directive("live", Live)
    app.connect("doctree-read", check_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
