"""The directive ``picture``: a figure of the gallery, shown once more elsewhere.

It brings what the figure has on its own page: the words that stand for it, and where
it is from.
"""

import re
from pathlib import Path

from docutils import nodes
from provenance import link_to
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

log = logging.getLogger(__name__)
FIGURE = re.compile(r"^ *\.\. image-sg:: (\S+)\n +:alt: (.*)\n", re.MULTILINE)
NEXT_BLOCK = re.compile(r"^\.\. GENERATED FROM PYTHON SOURCE", re.MULTILINE)
RECORD = re.compile(r"^\.\. provenance:: (\S+)$", re.MULTILINE)


class Picture(SphinxDirective):
    """One figure of a page: ``gallery/1_rnn/plot_1_forward 2``, counted from 1."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Return the picture and the line under it."""
        docname, number = self.arguments[0], int(self.arguments[1])
        page = Path(self.env.srcdir, docname).with_suffix(".rst")
        self.env.note_dependency(str(page))
        figures = found(page.read_text("utf-8")) if page.is_file() else []
        if not 1 <= number <= len(figures):
            place = self.get_location()
            log.warning("picture: no figure %s on %s", number, docname, location=place)
            return []
        uri, words, records = figures[number - 1]
        image = nodes.image(uri=uri, alt=words, classes=["picture"], loading="lazy")
        line = nodes.paragraph(classes=["provenance"])
        line += nodes.Text("From the page ")
        line += page_link(docname)
        line += nodes.Text(": drawn from " if records else ", computed as it was built")
        for i, name in enumerate(records):
            line += [nodes.Text(", ")] if i else []
            line += link_to(name, name)
        line += nodes.Text(".")
        self.set_source_info(image)
        self.set_source_info(line)
        return [image, line]


def found(page: str) -> list[tuple[str, str, list[str]]]:
    r"""Find the figures of a page as sphinx-gallery wrote it.

    Returns
    -------
    figures
        Of each the address, the words, and the records that it is from.

    Examples
    --------
    >>> page = ".. image-sg:: /x.png\n   :alt: a curve\n\n.. provenance:: a-run\n"
    >>> found(page)
    [('/x.png', 'a curve', ['a-run'])]
    """
    figures = []
    for match in FIGURE.finditer(page):
        # The lines under a figure stand in the text that follows its block of code.
        blocks = NEXT_BLOCK.split(page[match.end() :])
        figures.append((match[1], match[2], RECORD.findall("".join(blocks[:2]))))
    return figures


def page_link(docname: str) -> addnodes.pending_xref:
    """Link to a page under its title."""
    return addnodes.pending_xref(
        "",
        nodes.inline("", docname),
        refdomain="std",
        reftype="doc",
        reftarget=f"/{docname}",
        refexplicit=False,
        refwarn=True,
    )


def setup(app: Sphinx) -> dict:
    """Register the directive."""
    app.setup_extension("provenance")
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
