"""The directive ``provenance``: one line under a figure that says where it is from."""

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


def marked(text: str, code: str) -> list[nodes.Node]:
    """Turn a line that ends with some code into nodes.

    >>> [node.tagname for node in marked("again: make html", "make html")]
    ['#text', 'literal']
    """
    return [nodes.Text(text.removesuffix(code)), nodes.literal("", code)]


def label(name: str) -> str:
    """Return the label of a record on the page that lists them all."""
    return f"run-{name}"


def link_to(name: str) -> addnodes.pending_xref:
    """Link to the record on the page that lists them all."""
    return addnodes.pending_xref(
        "",
        nodes.inline("", "about this run"),
        refdomain="std",
        reftype="ref",
        reftarget=label(name),
        refexplicit=True,
        refwarn=True,
    )


def check_figures(app: Sphinx, doctree: nodes.document) -> None:
    """Warn if a page loads a record and does not say where it is from."""
    shown = {node.get("record") for node in doctree.findall(nodes.paragraph)}
    for name in sorted(_loaded(app, doctree) - shown):
        log.warning(
            "the page loads the record %r: it needs the directive `provenance` "
            "with that name under its figures",
            name,
            location=app.env.current_document.docname,
        )


def _loaded(app: Sphinx, doctree: nodes.document) -> set[str]:
    """Name the records that the code on a page loads."""
    docname = app.env.current_document.docname
    script = Path(app.srcdir, docname).with_suffix(".py")  # of a gallery page
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
    """Register the directive and its check."""
    app.setup_extension("recorded")
    app.add_directive("provenance", Provenance)
    app.connect("doctree-read", check_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
