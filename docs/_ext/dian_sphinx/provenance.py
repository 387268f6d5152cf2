"""One line under each figure that states its origin.

The directive ``provenance`` names a record; ``live`` states that the figure was
computed while the page was built. A gallery page that loads a record needs one of them
under every figure; on a page that loads none, ``live`` is added automatically. Several
lines in a row become one that unfolds.
"""

from itertools import takewhile
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from dian.errors import DianError
from dian.runs.record import used_in
from dian_sphinx import records
from dian_sphinx.folded import folded
from dian_sphinx.records import depend_on, label, read
from dian_sphinx.wording import mark, own, tr, woven

log = logging.getLogger(__name__)
LIVE = mark("Computed while this page was built.")


class Provenance(SphinxDirective):
    """The name, the seeds and the date of a record, with a link to all of it."""

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
        listed = records.PAGE in self.env.found_docs
        count = len(record.seeds)
        parts = woven(
            "Recorded run {run}, {seeds}, {date}.",
            run=link_to(name, name) if listed else name,
            seeds=tr("{n} seeds", n=count) if count > 1 else tr("a single seed"),
            date=record.started[:10],
        )
        line = nodes.paragraph("", "", *parts, classes=["provenance"], record=name)
        self.set_source_info(line)
        return own([line])


def fold(app: Sphinx, doctree: nodes.document) -> None:
    """Put consecutive lines of provenance into one element."""
    for first in list(doctree.findall(_names_record)):
        siblings = first.parent[first.parent.index(first) :]
        lines = list(takewhile(_names_record, siblings))
        if len(lines) < 2 or isinstance(first.parent, folded):
            continue
        summary = tr("{n} recorded runs", n=len(lines))
        box = folded(classes=["provenance"], summary=summary)
        first.parent.insert(first.parent.index(first), box)
        for line in lines:
            line.parent.remove(line)
            box += line


def _names_record(node: nodes.Node) -> bool:
    return isinstance(node, nodes.paragraph) and "record" in node


class Live(SphinxDirective):
    """The same line for a figure that shows nothing of a record."""

    def run(self) -> list[nodes.Node]:
        """Return the line as a paragraph."""
        return [live_line()]


def live_line() -> nodes.paragraph:
    """State that a figure was computed by the page itself."""
    return own([nodes.paragraph("", tr(LIVE), classes=["provenance"])])[0]


def link_to(name: str, text: str) -> addnodes.pending_xref:
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
    """Warn if a page shows a record, or a figure beside it, without its origin."""
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
    """Find the last figure of every block of code that has no line under it."""
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
    """Distinguish a block of the script from its printed output."""
    is_block = isinstance(node, nodes.literal_block)
    return is_block and node.get("language", "").lower() == "python"


def _insert_after(figure: nodes.Node, line: nodes.paragraph) -> None:
    """Put the line under a figure, or under the row of figures that it ends."""
    while not isinstance(figure.parent, nodes.section | nodes.document):
        figure = figure.parent
    figure.parent.insert(figure.parent.index(figure) + 1, line)


def _script(app: Sphinx) -> Path:
    """Return the path of the script of a gallery page."""
    return Path(app.srcdir, app.env.current_document.docname).with_suffix(".py")


def _loaded(app: Sphinx, doctree: nodes.document) -> set[str]:
    """Name the records that the code on a page loads."""
    script = _script(app)
    if script.is_file():
        return set(used_in(script, records.FOLDER))
    return {
        name
        for cell in doctree.findall(nodes.container)
        if "cell_input" in cell["classes"]
        for name in records.names()
        if f'"{name}"' in cell.astext() or f"'{name}'" in cell.astext()
    }


def connect(app: Sphinx) -> None:
    """Register the directives and their check."""
    app.add_directive("provenance", Provenance)
    app.add_directive("live", Live)
    app.connect("doctree-read", check_figures)
    app.connect("doctree-read", fold, priority=600)  # after the check of each line
