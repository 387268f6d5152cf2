"""Translations in half the time: Sphinx parses each of them twice, and plain text too.

Here a message without mark-up becomes text at once, and what was parsed in Sphinx's
first round is kept for the second.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import i18n

MARKUP = re.compile(
    r"""[\\`*_$\[\]<>{}|~^&#=+\n@'"]|:/|^\W|^\w+[.)]|::|--|\.\.\.|\((?:c|r|tm)\)""",
    re.I,
)
"""What MyST or reST could read as mark-up, or change, as quotation marks and dashes."""
parse = i18n._publish_msgstr
_kept: dict[tuple, nodes.Node] = {}


def publish(source: str, source_path, source_line, **kwargs) -> nodes.Node:
    """Return the tree of a message, as Sphinx's own function does."""
    if not MARKUP.search(source):
        return nodes.paragraph(source, source)
    key = source, source_path, source_line
    if key in _kept:
        return _kept.pop(key)
    tree = parse(source, source_path, source_line, **kwargs)
    _kept[key] = tree.deepcopy()
    return tree


def forget(app: Sphinx, doctree: nodes.document) -> None:
    """Keep nothing from one page to the next."""
    _kept.clear()


def connect(app: Sphinx) -> None:
    """Take the place of Sphinx's function."""
    i18n._publish_msgstr = publish
    app.connect("doctree-read", forget)
