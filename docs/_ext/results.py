"""The role ``result``: a number in a sentence is read from a record, never typed.

``{result}`rnn-fashion-mnist/test/accuracy:.1%` `` in MyST, or
``:result:`rnn-fashion-mnist/test/accuracy:.1%` `` in the text of a gallery script:
record, path inside it, and a format as in Python's :func:`format`.
"""

import re
from collections.abc import Iterator

from docutils import nodes
from recorded import depend_on, read
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from dian.errors import DianError

log = logging.getLogger(__name__)

# A decimal number or a percentage. Whole numbers may be typed: "28 steps".
TYPED_NUMBER = re.compile(r"\d*\.\d+|\d+\s?(?:%|per ?cent)")

# What these hold is code, a formula or the name of something.
NOT_PROSE = (nodes.literal, nodes.math, nodes.reference, nodes.footnote_reference)


class Result(SphinxRole):
    """Write a value of a record in the given format."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the text, or what was asked for after a warning."""
        path, _, form = self.text.partition(":")
        name, _, key = path.partition("/")
        try:
            text = written(read(name).value(key), form)
        except (DianError, ValueError, TypeError) as error:
            place = self.get_location()
            log.warning("result %s: %s", self.text, error, location=place)
            return [nodes.problematic(self.rawtext, self.text)], []
        depend_on(self.env, name)
        return [nodes.inline(self.rawtext, text, classes=["result"])], []


def written(value: float | int | str, form: str) -> str:
    """Format a value.

    >>> written(0.86912, ".1%"), written(128, ""), written(0.1, "")
    ('86.9%', '128', '0.1')
    """
    if form:
        return format(value, form)
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_prose(app: Sphinx, doctree: nodes.document) -> None:
    """Warn of every number that was typed beside one that is read from a record."""
    for block in _blocks_with_results(doctree):
        for text in _prose(block):
            for number in TYPED_NUMBER.findall(text.astext()):
                log.warning(
                    "typed number %r: numbers in a results sentence come from a record",
                    number.strip(),
                    location=text.parent,
                )


def _blocks_with_results(doctree: nodes.document) -> list[nodes.Element]:
    """Find the paragraphs and table rows that hold a result, each once."""
    blocks = []
    for node in doctree.findall(nodes.inline):
        if "result" in node["classes"]:
            block = _around(node, nodes.row) or _around(node, nodes.TextElement)
            if block is not None and block not in blocks:
                blocks.append(block)
    return blocks


def _prose(block: nodes.Element) -> Iterator[nodes.Text]:
    """Yield the texts of a block that somebody typed as prose.

    A cell of a table that cites its source holds a published number: it may be typed.
    """
    for text in block.findall(nodes.Text):
        parents = list(_parents(text, block))
        cell = next((p for p in parents if isinstance(p, nodes.entry)), None)
        if cell is not None and any(map(_is_citation, cell.findall())):
            continue
        if not any(
            isinstance(p, NOT_PROSE) or _is_citation(p) or "result" in p["classes"]
            for p in parents
        ):
            yield text


def _is_citation(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Element) and node.get("refdomain") == "cite"


def _around(node: nodes.Node, kind: type) -> nodes.Element | None:
    """Return the nearest parent of a kind, other than inline markup."""
    for parent in _parents(node, None):
        if isinstance(parent, kind) and not isinstance(parent, nodes.Inline):
            return parent
    return None


def _parents(node: nodes.Node, last: nodes.Node | None) -> Iterator[nodes.Element]:
    parent = node.parent
    while parent is not None and parent is not last:
        yield parent
        parent = parent.parent


def setup(app: Sphinx) -> dict:
    """Register the role and its check."""
    app.setup_extension("recorded")
    app.add_role("result", Result())
    app.connect("doctree-read", check_prose)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
