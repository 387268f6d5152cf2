"""An element of which a page shows a summary until a reader unfolds it.

The PDF shows its content in full.
"""

from docutils import nodes
from sphinx.application import Sphinx


class folded(nodes.General, nodes.Element):
    """The content, with the text of the summary in ``summary``."""


def visit(self, node: folded) -> None:
    """Open the element."""
    self.body.append(self.starttag(node, "details"))
    self.body.append(f"<summary>{node['summary']}</summary>")


def depart(self, node: folded) -> None:
    """Close the element."""
    self.body.append("</details>")


def connect(app: Sphinx) -> None:
    """Register the element."""
    nothing = (lambda self, node: None, lambda self, node: None)
    app.add_node(folded, html=(visit, depart), latex=nothing)
