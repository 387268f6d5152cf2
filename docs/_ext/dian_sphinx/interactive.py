"""Interactive figures of the gallery on other pages.

The directive ``interactive`` shows a figure that a page of the gallery makes with
:class:`dian.figures.interactive.Interactive`, with a line that says where it is from.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from dian_sphinx.images import origin

log = logging.getLogger(__name__)
# In the pages that sphinx-gallery writes:
FIGURE = re.compile(
    r'^ +(<figure class="interactive".*?</figure>)', re.DOTALL | re.MULTILINE
)


class Interactive(SphinxDirective):
    """An interactive figure of a page: ``gallery/2_positions/plot_3_rotary``.

    A number behind the page chooses one of several, counted from 1.
    """

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the figure, and the line under it."""
        docname, number = self.arguments[0], int((*self.arguments, 1)[1])
        page = Path(self.env.srcdir, docname).with_suffix(".rst")
        self.env.note_dependency(str(page))
        figures = FIGURE.findall(page.read_text("utf-8")) if page.is_file() else []
        if not 1 <= number <= len(figures):
            place = self.get_location()
            log.warning(
                "interactive: no figure %s on %s", number, docname, location=place
            )
            return []
        parts = [nodes.raw("", figures[number - 1], format="html"), origin(docname, [])]
        for part in parts:
            self.set_source_info(part)
        return parts


def connect(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("interactive", Interactive)
