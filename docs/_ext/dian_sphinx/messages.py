"""Which messages gettext finds on a page.

Sphinx misses some text, such as the cells of a ``table`` directive and the alternative
text of a gallery figure. It also finds what no translator should see: formulas, numbers
and code alone, and names of downloads.
"""

import re
from html import escape, unescape

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from dian_sphinx.editions import ENGLISH
from dian_sphinx.gallery_page import DOWNLOADS, POINTER
from dian_sphinx.wording import own

WORD = re.compile(r"[A-Za-z]{2,}")
# Of a role, a reader sees its title; code and formulas are the same in all languages.
MARKUP = re.compile(
    r"(?:\{[\w:]+\}|:[\w:]+:)?`+(?:([^`<]*?)\s*<[^>`]*>|[^`]*)`+|\$[^$]*\$"
)
FIGCAPTION = re.compile(r"<figcaption>(.*?)</figcaption>", re.DOTALL)
NAMES = {DOWNLOADS, POINTER}


class words(addnodes.translatable, nodes.Invisible, nodes.Element):
    """A message of the node in ``of``, which is none that gettext looks into."""

    def preserve_original_messages(self) -> None:
        """Do nothing: the message is kept in ``message``."""

    def extract_original_messages(self) -> list[str]:
        """Return the one message."""
        return [self["message"]]

    def apply_translated_message(self, original: str, translated: str) -> None:
        """Put the translation where the message was."""
        self["translated"] = True
        node = self["of"]
        if isinstance(node, nodes.raw):
            html = caption_replaced(node.astext(), translated)
            node.children = [nodes.Text(html)]
        elif isinstance(node, nodes.inline):
            node.children = []
            node += nodes.Text(translated)
        else:
            node["alt"] = translated


def caption_of(html: str) -> str | None:
    """Return the caption of an interactive figure, if it is one."""
    found = FIGCAPTION.search(html)
    return unescape(found[1]) if found else None


def caption_replaced(html: str, caption: str) -> str:
    """Put another caption into an interactive figure.

    >>> caption_replaced("<figcaption>a</figcaption>", "b < c")
    '<figcaption>b &lt; c</figcaption>'
    """
    new = f"<figcaption>{escape(caption)}</figcaption>"
    return FIGCAPTION.sub(lambda _: new, html)


class FindMessages(SphinxTransform):
    """Let gettext see what it would miss, and not what is no text."""

    default_priority = 5  # before the messages are kept (10) and replaced (20)

    def apply(self, **kwargs) -> None:
        """Give sources to text that has none; mark what is not to be translated."""
        path, line = str(self.env.doc2path(self.env.docname)), 1
        for node in list(self.document.findall(nodes.Element)):
            line = node.line or line
            if isinstance(node, nodes.paragraph) and not node.source:
                # MyST gives no source to the cells of the directive `table`.
                if isinstance(node.parent, nodes.entry):
                    node.source, node.line = path, line
            elif is_picture_of_code(node) and node.get("alt"):
                _stand_beside(node, node["alt"])
            elif isinstance(node, nodes.inline) and node.get("translatable"):
                # The text of a button, which gettext does not find on a whole page.
                del node["translatable"]
                _stand_beside(node, node.astext())
            elif isinstance(node, nodes.raw) and node.get("translatable", True):
                if caption := caption_of(node.astext()):
                    _stand_beside(node, caption)
            elif isinstance(node, nodes.image) and not node.get("translatable", True):
                # Sphinx translates each alternative text that it finds.
                node["words"] = node.attributes.pop("alt", "")
            if isinstance(node, nodes.field_list) and node.parent is self.document:
                own([node])  # the settings at the top of a page
            if is_no_text(node):
                node["translatable"] = False
        if self.env.docname in ENGLISH:
            own([self.document])
            self.document.next_node(nodes.title)["translatable"] = True


def is_picture_of_code(node: nodes.Element) -> bool:
    """Tell whether a node is a picture of the gallery or of a cell."""
    from_cell = isinstance(node, nodes.image) and node.parent.get("mime_type")
    return node.tagname == "imgsgnode" or bool(from_cell)


def _stand_beside(node: nodes.Element, message: str) -> None:
    beside, place, above = words("", of=node, message=message), node, node
    while above := above.parent:
        # Sphinx replaces what is in a reference, and MyST-NB the outputs of a cell.
        if isinstance(above, addnodes.pending_xref) or above.get("nb_element"):
            place = above
    place.parent.insert(place.parent.index(place), beside)


def is_no_text(node: nodes.Element) -> bool:
    """Tell whether a node has nothing that a translator could change."""
    if isinstance(node, nodes.math_block):
        return True
    if isinstance(node, nodes.paragraph) and _names_files(node):
        return True
    if not isinstance(node, nodes.paragraph | nodes.term | nodes.field_name):
        return False
    text = node.rawsource or node.astext()
    return not WORD.search(MARKUP.sub(lambda match: match[1] or " ", text))


def _names_files(node: nodes.Node) -> bool:
    while node := node.parent:
        if NAMES & set(getattr(node, "attributes", {}).get("classes", ())):
            return True
    return False


class DropWords(SphinxTransform):
    """Undo what was done for gettext, once the messages are translated."""

    default_priority = 30

    def apply(self, **kwargs) -> None:
        """Keep them for gettext, which reads the finished page."""
        if self.config.for_translators:
            return
        for node in list(self.document.findall(words)):
            node.parent.remove(node)
        for image in self.document.findall(nodes.image):
            if "words" in image:
                image["alt"] = image.attributes.pop("words")


def connect(app: Sphinx) -> None:
    """Register the transforms."""
    app.add_node(words)
    app.add_transform(FindMessages)
    app.add_transform(DropWords)
