"""The blanks of Chinese text that only its mark-up needs.

Mark-up such as emphasis, links and values ends at a blank, and Chinese has none between
its words: they are left out where Chinese is on both sides, and beside a full-width
mark. Those between Chinese and Latin letters, formulas or code are kept.
"""

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

from dian_sphinx.wording import SOURCE

MARKS = "，。、；：？！（）《》〈〉「」『』【】"  # noqa: RUF001
"""Full-width marks, each of which has a blank of its own in the font."""
CHINESE = rf"\u3400-\u9fff{MARKS}“”…—"
BLANK = re.compile(
    rf"(?<=[{CHINESE}])[ \n]+(?=[{CHINESE}])"
    rf"|(?<=[{MARKS}])[ \n]+(?=\S)|(?<=\S)[ \n]+(?=[{MARKS}])"
)
TAGS = r"((?:</?(?!(?:script|pre|code)\b)[^<>]*>)*)"
IN_HTML = re.compile(
    r"<(script|pre|code)\b.*?</\1>"
    rf"|(?<=[{CHINESE}]){TAGS}[ \n]+{TAGS}(?=[{CHINESE}])"
    rf"|(?<=[{MARKS}]){TAGS}[ \n]+{TAGS}(?=[^\s<])",
    re.DOTALL,
)
VERBATIM = (nodes.literal, nodes.math, nodes.raw, nodes.image)
OPAQUE = "\N{OBJECT REPLACEMENT CHARACTER}"
Leaf = tuple[nodes.Element, int, str]


def leaves(node: nodes.Element) -> Iterator[Leaf]:
    """Yield the parent, the place and the text of all that a reader sees of a node."""
    for place, child in enumerate(node.children):
        if isinstance(child, nodes.Text):
            yield node, place, str(child)
        elif isinstance(child, VERBATIM):
            yield node, place, OPAQUE
        else:
            yield from leaves(child)


def strip(block: nodes.Element) -> None:
    """Leave out the blanks of a block of text, across the elements in it."""
    found = list(leaves(block))
    text = "".join(part for _, _, part in found)
    gone = {i for blank in BLANK.finditer(text) for i in range(*blank.span())}
    if not gone:
        return
    start = 0
    for parent, place, part in found:
        kept = [c for i, c in enumerate(part, start) if i not in gone]
        if len(kept) < len(part):
            parent[place] = nodes.Text("".join(kept))
        start += len(part)


def in_html(html: str) -> str:
    """Leave out the blanks of Chinese text that is HTML already.

    >>> in_html("<b>找错。</b> 24 幅图， <i>这</i> 是 <code>一 二</code> 和 3 个")
    '<b>找错。</b>24 幅图，<i>这</i>是 <code>一 二</code> 和 3 个'
    """

    def without(match: re.Match) -> str:
        verbatim, *tags = match.groups("")
        return match[0] if verbatim else "".join(tags)

    return IN_HTML.sub(without, html)


def is_block(node: nodes.Node) -> bool:
    """Tell whether a node is a block of running text, such as a paragraph."""
    inside = nodes.Inline | nodes.FixedTextElement
    return isinstance(node, nodes.TextElement) and not isinstance(node, inside)


class StripBlanks(SphinxPostTransform):
    """Strip the blanks of a page, once its links have their titles."""

    default_priority = 800  # before a formula and the mark after it are put together

    def run(self, **kwargs) -> None:
        """Go through the blocks, and through what extensions have written in HTML."""
        if self.config.language == SOURCE:
            return
        for block in list(self.document.findall(is_block)):
            strip(block)
        for raw in self.document.findall(nodes.raw):
            if raw["format"] == "html":
                raw.children = [nodes.Text(in_html(raw.astext()))]


def connect(app: Sphinx) -> None:
    """Register the transform."""
    app.add_post_transform(StripBlanks)
