"""Punctuation that no line begins with.

Browsers end a line between an element and the mark after it if the element can be
broken anywhere, such as a formula, or a long name in code on a narrow page.
"""

import re

from docutils import nodes

MARK = re.compile(r"[,.;:!?)，。、；：？！）》」』】”…]+")  # noqa: RUF001


def keep_mark(element: nodes.Element) -> None:
    """Put an element and the marks after it, if there are any, in one that is kept."""
    parent, place = element.parent, element.parent.index(element)
    text = parent[place + 1] if place + 1 < len(parent) else ""
    if not (mark := isinstance(text, str) and MARK.match(text)):
        return
    long = ["long"] * (len(mark[0]) > 1)
    together = nodes.inline(classes=["nobreak", *long])
    parent[place] = together
    parent[place + 1] = nodes.Text(text[mark.end() :])
    together += [element, nodes.inline("", mark[0], classes=["punctuation"])]
