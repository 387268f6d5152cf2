#!/usr/bin/env python3
"""Check that each translated message says the same as the English one.

``python scripts/check_catalogues.py locale/zh_CN`` parses every message and its
translation with the parsers that Sphinx uses, and compares what no translation may
change: roles with their targets, formulas, code, links, numbers, emphasis and
placeholders. It also names what looks like mark-up but is not read as such, of which
Sphinx says nothing. Names of catalogues, such as ``rnn gallery/1_rnn/plot_1_forward``,
restrict the check to these.

It prints one line for each problem, and for each catalogue how many messages are
translated, fuzzy or missing. The status is 1 if there is a problem, or if a catalogue
that ``whole.txt`` lists is not complete.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from unittest.mock import patch

from babel.messages.catalog import Message
from babel.messages.pofile import read_po
from docutils import nodes
from docutils.frontend import get_default_settings
from docutils.languages import get_language
from docutils.parsers.rst import Parser, states
from docutils.utils import new_document
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

ROOT = Path(__file__).parents[1]
MYST = {"amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"}
"""The extensions of MyST that conf.py enables."""
PLAIN = {"dian", "scripts", "sphinx"}
"""Catalogues of programs, whose messages are text with placeholders."""
IN_MYST = {"claims"}
"""Catalogues in MyST that are not those of a page in docs/."""

TITLED = re.compile(r"^.*?\s*<([^<>]+)>$", re.DOTALL)
NUMBER = re.compile(r"(?<![A-Za-z\d])\d+(?:[.,]\d+)*(?:\s?%)?")
PLACEHOLDER = re.compile(r"\{\w*(?::[^}]*)?\}|%\(\w+\)s|%s")
UNREAD = re.compile(r"\*\*?|`+|\$|:[a-z]+:(?=`|$)|\{[a-z:]+\}(?=`|$)|\]\(")
"""What is left in plain text where mark-up was meant."""
BLOCK = re.compile(r"^(?:[-*+•]\s|(?:\d+|[a-zA-Z#])[.)]\s|\.\. |#+\s|>\s|\s)")
"""How a paragraph of reStructuredText must not begin."""
BETWEEN = re.compile(r"\n[ ]*\n")
"""What is between two paragraphs; only the statement of a claim has several."""
PARAGRAPH = ["paragraph_open", "inline", "paragraph_close"]
HALF_WIDTH = re.compile(r"[\u3400-\u9fff][,;:?!]")


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
        text = "".join(self.prose)
        for number in NUMBER.findall(text):
            self.add("number", number.replace(" ", ""))
        for mark in UNREAD.findall(text):
            self.add("mark-up that is not read as such", mark)
        for mark in HALF_WIDTH.findall(text):
            self.add("half-width mark", mark)
        return self


Reader = Callable[[str, bool], Content]
"""A function of a message, and of whether it is a translation."""


def target(text: str) -> str:
    """Return the target of a role, without the title that a reader sees.

    >>> target("the chapter <rnn>"), target("eq-rnn")
    ('rnn', 'eq-rnn')
    """
    match = TITLED.match(text.strip())
    return match[1] if match else text.strip()


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
        content.add("not read as a paragraph (write 1\\. for 1.)", kinds[0])
    for block in blocks:
        for token in block.children or []:
            _add_token(content, token)
    return content.finished()


def _add_token(content: Content, token) -> None:
    kind = token.type
    if kind == "myst_role":
        content.add(f"role {{{token.meta['name']}}}", target(token.content))
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
    elif kind in ("text", "text_special"):
        content.prose.append(token.content)
    elif kind in ("softbreak", "hardbreak"):
        content.prose.append(" ")
    if kind not in ("text", "text_special"):
        content.prose.append("\0")  # two numbers with a role between them are two


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
    content.prose.append("\0")
    if isinstance(node, role_node):
        name, inner = node["role"], node.rawsource.partition("`")[2].removesuffix("`")
        if not name:  # without a blank in front of a role, `...` is read alone
            content.add("mark-up that is not read as such", node.rawsource)
        elif name == "math":
            content.add("formula", inner)
        else:
            content.add(f"role {{{name}}}", target(inner))
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
    """Read a message of a program."""
    content = Content()
    for mark in PLACEHOLDER.findall(text):
        content.add("placeholder", mark)
    # Mark-up in it is text here: only its placeholders and numbers are compared.
    content.prose.append(re.sub(r"[*`$]", "", PLACEHOLDER.sub("\0", text)))
    return content.finished()


# --- What is compared -----------------------------------------------------------------


def reader(catalogue: str, docs: Path) -> Reader:
    """Return the parser for a catalogue."""
    if catalogue in PLAIN:
        return in_program
    is_myst = catalogue in IN_MYST or (docs / f"{catalogue}.md").is_file()
    return in_myst if is_myst else in_rest


def differences(message: str, translation: str, read: Reader) -> Iterator[str]:
    """Name the parts in which a translation differs from its message.

    >>> list(differences("See {eq}`a`, 2 %.", "见 {eq}`b`。", in_myst))
    ["role {eq} lost: 'a'", "number lost: '2%'", "role {eq} added: 'b'"]
    """
    ours, theirs = read(message, False).parts, read(translation, True).parts
    for verb, parts in (("lost", ours - theirs), ("added", theirs - ours)):
        for (kind, what), n in parts.items():
            yield f"{kind} {verb}: {what!r}" + (f" ({n} times)" if n > 1 else "")


def state(message: Message) -> str:
    """Tell how far a message is translated."""
    return "fuzzy" if message.fuzzy else "done" if message.string else "missing"


def check(file: Path, catalogue: str, docs: Path) -> tuple[Counter[str], list[str]]:
    """Count the states of the messages of a catalogue, and list its problems."""
    read, count, problems = reader(catalogue, docs), Counter(), []
    with file.open("rb") as source:
        found = read_po(source)
    for message in filter(lambda one: one.id, found):
        count[state(message)] += 1
        if state(message) == "done":
            line = f"{file}:{message.lineno}"
            for problem in differences(message.id, message.string, read):
                problems.append(f"{line}: {problem}\n    {message.string[:70]}")
    return count, problems


def main() -> int:
    """Check the catalogues of a language."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("language", type=Path, help="a folder such as locale/zh_CN")
    options.add_argument("names", nargs="*", help="catalogues; without one, all")
    options.add_argument("--docs", type=Path, default=ROOT / "docs")
    options.add_argument("--quiet", action="store_true", help="only sums and problems")
    given = options.parse_args()
    root = given.language / "LC_MESSAGES"
    whole = set((given.language / "whole.txt").read_text("utf-8").split())
    total, problems, incomplete = Counter(), [], []
    for file in sorted(root.rglob("*.po")):
        name = file.relative_to(root).with_suffix("").as_posix()
        if given.names and name not in given.names:
            continue
        count, found = check(file, name, given.docs)
        total, problems = total + count, problems + found
        if name in whole and count["done"] < count.total():
            incomplete.append(name)
        if not given.quiet:
            rest = f"{count['fuzzy']} fuzzy" + ", whole" * (name in whole)
            print(f"{name:48} {count['done']:4} of {count.total():4}, {rest}")
    print("\n".join(problems + [f"{name} is listed as whole" for name in incomplete]))
    print(
        f"{total['done']} of {total.total()} messages translated, "
        f"{total['fuzzy']} fuzzy; {len(problems)} problems"
    )
    return 1 if problems or incomplete or not total else 0


if __name__ == "__main__":
    sys.exit(main())
