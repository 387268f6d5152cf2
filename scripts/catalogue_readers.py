"""What a message of a catalogue says beside its words: the readers of its three forms.

A message is read with the parser that Sphinx uses for it: that of MyST or that of
docutils. The text of a program has placeholders, marks and HTML, which it is searched
for. What no translation may change is counted; :mod:`check_catalogues` compares it.
"""

import re
import unicodedata
from collections import Counter
from functools import cache
from unittest.mock import patch

from docutils import nodes
from docutils.frontend import get_default_settings
from docutils.languages import get_language
from docutils.parsers.rst import Parser, states
from docutils.utils import new_document
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

MYST = {"amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"}
"""The extensions of MyST that conf.py enables."""

TITLED = re.compile(r"^(.*?)\s*<([^<>]+)>$", re.DOTALL)
NUMBER = re.compile(
    r"(?:(?<![A-Za-z\d)\]}])[-\u2212])?(?<![A-Za-z\d])\d+(?:[.,]\d+)*(?:\s?%)?"
)
"""With its sign: ``-`` after a letter or a digit is a hyphen or a range."""
PLACEHOLDER = re.compile(r"\{\w*(?::[^}]*)?\}|%\(\w+\)s|%s")
UNREAD = re.compile(r"\*\*?|`+|\$|:[a-z]+:(?=`|$)|\{[a-z:]+\}(?=`|$)|\]\(")
"""What is left in plain text where mark-up was meant."""
BLOCK = re.compile(r"^(?:[-*+•]\s|(?:\d+|[a-zA-Z#])[.)]\s|\.\. |#+\s|>\s|\s)")
"""How a paragraph of reStructuredText must not begin."""
BETWEEN = re.compile(r"\n[ ]*\n")
"""What is between two paragraphs; only the statement of a claim has several."""
PARAGRAPH = ["paragraph_open", "inline", "paragraph_close"]
HAN = r"[\u3400-\u9fff]"
HALF_WIDTH = re.compile(rf"{HAN}[,.:;?!()]|\({HAN}")
CUT, OBJECT = "\0", "\ufffc"
"""What stands in the words for a role, beside which two numbers are two; and for a
formula or code, which a blank separates from Han as it does Latin letters."""
NO_BLANK = re.compile(rf"{HAN}[A-Za-z0-9{OBJECT}]|[A-Za-z0-9{OBJECT}]{HAN}")
MARKS = re.compile(r"</?[a-z]\w*[^<>]*>|\*\*?|`+|\$")
"""Mark-up in the text of a program, which may become MyST or HTML on the page."""
FUNCTIONS = re.compile(r"(?<![A-Za-z])(?:ln|log|exp|sin|cos|tanh)(?![A-Za-z]|-[a-z])")


class Content:
    """What a message says beside its words, counted; and its words."""

    def __init__(self) -> None:
        self.parts: Counter[tuple[str, str]] = Counter()
        self.prose: list[str] = []

    def add(self, kind: str, what: str) -> None:
        """Count a part."""
        self.parts[kind, " ".join(what.split())] += 1

    def finished(self) -> "Content":
        """Count what is to be found in the words."""
        text = self.words
        for number in NUMBER.findall(text):
            self.add("number", number.replace(" ", "").replace("\u2212", "-"))
        for mark in UNREAD.findall(text):
            self.add("mark-up that is not read as such", mark)
        for mark in HALF_WIDTH.findall(text):
            self.add("half-width mark", mark)
        for place in NO_BLANK.findall(text):
            self.add("place without a blank", place.replace(OBJECT, "$"))
        return self

    @property
    def words(self) -> str:
        """All that is neither a role nor a formula nor code."""
        return "".join(self.prose)

    def add_role(self, name: str, text: str) -> None:
        """Count the target of a role; its title is read as words."""
        match = TITLED.match(text.strip())
        self.add(f"role {{{name}}}", match[2] if match else text.strip())
        self.prose += [CUT, match[1] if match else "", CUT]


# --- MyST -----------------------------------------------------------------------------


@cache
def markdown() -> MarkdownIt:
    """Return the parser of MyST."""
    return create_md_parser(MdParserConfig(enable_extensions=MYST), RendererHTML)


def in_myst(text: str, translated: bool) -> Content:
    """Read a message of a page in MyST; Sphinx reads a translation as paragraphs."""
    content = Content()
    blocks = markdown().parse(text) if translated else markdown().parseInline(text)
    kinds = [block.type for block in blocks]
    paragraphs = len(BETWEEN.split(text.strip()))
    content.parts["paragraph", ""] = paragraphs
    if translated and kinds != PARAGRAPH * paragraphs:
        first = next(iter(kinds), "nothing")
        content.add("not read as a paragraph (write 1\\. for 1.)", first)
    for block in blocks:
        for token in block.children or []:
            _add_token(content, token)
        content.prose.append(CUT)
    return content.finished()


def _add_token(content: Content, token) -> None:
    kind = token.type
    if kind == "myst_role":
        content.add_role(token.meta["name"], token.content)
    elif kind.startswith("math_"):
        content.add("formula", token.content)
    elif kind == "code_inline":
        content.add("code", token.content)
    elif kind == "link_open":
        content.add("link", token.attrs.get("href", ""))
    elif kind in ("strong_open", "em_open"):
        content.add("emphasis", kind.removesuffix("_open"))
    elif kind.startswith("html"):
        content.add("html", token.content)
    content.prose.append(_in_words(kind, token.content))


def _in_words(kind: str, text: str) -> str:
    """Return what stands for a token in the words of its message."""
    if kind in ("text", "text_special"):
        return text
    if kind in ("softbreak", "hardbreak"):
        return " "
    return OBJECT if kind == "code_inline" or kind.startswith("math_") else CUT


# --- reStructuredText -----------------------------------------------------------------


class role_node(nodes.Inline, nodes.TextElement):
    """Any role."""


def any_role(name: str, *_):
    """Return a function that makes a node of any role."""

    def make(_name, rawtext, text, *_args, **_options):
        return [role_node(rawtext, text, role=name)], []

    return make, []


@cache
def rest() -> tuple[states.Inliner, states.Struct, nodes.document]:
    """Return the parser of docutils for what is in a line."""
    settings = get_default_settings(Parser)
    settings.report_level = settings.halt_level = 5
    document = new_document("", settings)
    inliner = states.Inliner()
    inliner.init_customizations(settings)
    memo = states.Struct(
        document=document,
        reporter=document.reporter,
        language=get_language("en"),
        title_styles=[],
        section_level=0,
        section_bubble_up_kludge=False,
        inliner=inliner,
    )
    return inliner, memo, document


def in_rest(text: str, translated: bool) -> Content:
    """Read a message of a page in reStructuredText."""
    content = Content()
    if translated and BLOCK.match(text):
        content.add("not read as a paragraph (write 1\\. for 1.)", text[:8])
    inliner, memo, document = rest()
    with patch.object(states.roles, "role", any_role):
        found, problems = inliner.parse(text, 1, memo, document)
    for _ in problems:
        content.add("mark-up that is not read as such", "(docutils warns)")
    for node in found:
        _add_node(content, node)
    return content.finished()


def _add_node(content: Content, node: nodes.Node) -> None:
    if isinstance(node, nodes.Text):
        content.prose.append(str(node))
        return
    content.prose.append(CUT)
    if isinstance(node, role_node):
        name, inner = node["role"], node.rawsource.partition("`")[2].removesuffix("`")
        if not name:  # without a blank in front of a role, `...` is read alone
            content.add("mark-up that is not read as such", node.rawsource)
        elif name == "math":
            content.add("formula", inner)
        else:
            content.add_role(name, inner)
    elif isinstance(node, nodes.literal):
        content.add("code", node.astext())
    elif isinstance(node, nodes.strong | nodes.emphasis):
        content.add("emphasis", node.tagname)
        content.prose.append(node.astext())
    elif isinstance(node, nodes.reference):
        content.add("link", node.get("refuri", node.get("refname", "")))
    elif not isinstance(node, nodes.target):
        content.add("mark-up", node.tagname)


# --- Programs -------------------------------------------------------------------------


def in_program(text: str, translated: bool) -> Content:
    """Read the text of a program; some of it is read as MyST or HTML on the page."""
    content = Content()
    for mark in PLACEHOLDER.findall(text):
        content.add("placeholder", mark)
    text = PLACEHOLDER.sub(CUT, text)
    for mark in MARKS.findall(text):
        content.add("mark", mark)
    if not is_balanced(text):
        content.add("mark-up that is not closed", text)
    text = MARKS.sub("", text)
    for name in FUNCTIONS.findall(text):
        content.add("function", name)
    for symbol in filter(is_symbol, text):
        content.add("symbol", symbol)
    content.prose.append(text)
    return content.finished()


def is_balanced(text: str) -> bool:
    """Tell whether each HTML element ends after it begins, and within another one.

    >>> is_balanced("<b>a <i>b</i></b>"), is_balanced("</b>a<b>")
    (True, False)
    """
    begun = []
    for end, name in re.findall(r"<(/?)([a-z]\w*)[^<>]*>", text):
        if not end:
            begun.append(name)
        elif not begun or begun.pop() != name:
            return False
    return not begun


def is_symbol(character: str) -> bool:
    """Tell a symbol of mathematics or a Greek letter from punctuation and from Han.

    >>> [c for c in "损失 θ、√dₖ：“✓”" if is_symbol(c)]
    ['θ', '√', 'ₖ', '✓']
    """
    kind, name = unicodedata.category(character), unicodedata.name(character, "")
    is_word = kind in ("Ll", "Lu") and name.startswith("LATIN")
    is_han = name.startswith(("CJK", "FULLWIDTH"))
    return not (character.isascii() or is_word or is_han) and kind[0] in "LNS"
