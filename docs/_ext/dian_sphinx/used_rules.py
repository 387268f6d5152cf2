"""The rules of the style sheets that the pages can use.

The sheet of the theme holds all of Bootstrap, and a browser shows nothing until it has
the whole of it. A rule is left out here if it needs a class that is on no page, and
whose name is a word of no file from which pages are made: the templates, the scripts
and the code of Sphinx, of the theme and of the extensions, and the sources of this
site.
"""

import re
from collections.abc import Iterator, Set
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGES = (
    *("docutils", "sphinx", "sphinx_book_theme", "pydata_sphinx_theme"),
    *("sphinx_design", "sphinx_gallery", "sphinx_copybutton", "myst_nb"),
    "myst_parser",
)
SOURCES = Path(__file__).parents[2]
TYPES = {".py", ".html", ".jinja", ".js", ".js_t", ".md"}
# Stemmers and translations hold words of all kinds, and this one all icons.
NO_SOURCES = {"locale", "parsers", "search", "fontawesome.js"}

WORD = re.compile(r"[A-Za-z_][\w-]*")
ATTRIBUTE = re.compile(r"""\bclass\s*=\s*(["'])(.*?)\1""", re.S)
COMMENT = re.compile(r"/\*.*?\*/", re.S)
LICENSE = re.compile(r"/\*!.*?\*/", re.S)
INNERMOST = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
CLASS = re.compile(r"\.((?:[\w-]|\\.)+)")


@cache
def words() -> frozenset[str]:
    """Return every word of the files from which pages are made."""
    specs = [find_spec(name) for name in PACKAGES]
    roots = [SOURCES, *(Path(spec.origin).parent for spec in specs if spec)]
    return frozenset(
        word
        for root in roots
        for path in root.rglob("*")
        if path.suffix in TYPES and not NO_SOURCES & set(path.parts)
        for word in WORD.findall(path.read_text("utf-8", "replace"))
    )


def shown(site: Path) -> set[str]:
    """Return every class on some page of the built site, and the words of its scripts.

    They include classes that are put together while a page is made.
    """
    lists = {
        names
        for page in site.rglob("*.html")
        for _, names in ATTRIBUTE.findall(page.read_text("utf-8"))
    }
    scripts = [
        path.read_text("utf-8")
        for path in site.rglob("*.js")
        if path.name not in NO_SOURCES
    ]
    return {name for names in lists for name in names.split()} | {
        word for text in scripts for word in WORD.findall(text)
    }


def blocks(text: str) -> Iterator[tuple[str, str | None]]:
    """Split a sheet without comments into rules: what is before braces, and in them.

    A statement without braces has no second part.

    >>> list(blocks("@charset 'x';a{b:c}@media print{d{e:f}}"))
    [("@charset 'x';", None), ('a', 'b:c'), ('@media print', 'd{e:f}')]
    """
    begin = at = depth = 0
    for mark in re.finditer(r"[{};]", text):
        if mark[0] == "{":
            depth += 1
            at = mark.start() if depth == 1 else at
        elif mark[0] == "}":
            depth -= 1
            if depth == 0:
                yield text[begin:at], text[at + 1 : mark.start()]
                begin = mark.end()
        elif depth == 0:
            yield text[begin : mark.end()], None
            begin = mark.end()


def selectors(text: str) -> list[str]:
    """Split a list of selectors, but not within parentheses.

    >>> selectors(".a,.b:is(.c,:not(.d,.e)) .f")
    ['.a', '.b:is(.c,:not(.d,.e)) .f']
    """
    parts = [""]
    for piece in text.split(","):
        inside = parts[-1].count("(") > parts[-1].count(")")
        parts[-1:] = [f"{parts[-1]},{piece}"] if inside else [parts[-1], piece]
    return parts[1:]


def classes(selector: str) -> set[str]:
    r"""Return the classes that a selector needs, without those in parentheses.

    >>> sorted(classes(r"div.a:not(.b) > .c\:d[class^='e.f']"))
    ['a', 'c:d']
    """
    while (shorter := INNERMOST.sub("", selector)) != selector:
        selector = shorter
    return {name.replace("\\", "") for name in CLASS.findall(selector)}


def can_be_used(selector: str, known: Set[str]) -> bool:
    """Tell whether every class that a selector needs can be on a page."""
    return classes(selector) <= known


def used(text: str, known: Set[str]) -> str:
    """Return a sheet without the rules that no page can use.

    Of the comments those that state a license stay, at the beginning.

    >>> used("/* x */.a,.b{c:d}.b{e:f}@media print{.b{g:h}}@font-face{i:j}", {"a"})
    '.a{c:d}@font-face{i:j}'
    """
    kept = LICENSE.findall(text)
    for head, body in blocks(COMMENT.sub("", text)):
        name = head.strip()
        if body is None:
            kept.append(head)
        elif name.startswith(("@media", "@supports", "@layer", "@container")):
            if inner := used(body, known):
                kept.append(f"{name}{{{inner}}}")
        elif name.startswith("@"):
            kept.append(f"{name}{{{body}}}")
        elif some := [one for one in selectors(name) if can_be_used(one, known)]:
            kept.append(f"{','.join(some)}{{{body}}}")
    return "".join(kept)


def left_out(text: str, known: Set[str]) -> list[str]:
    """Return the selectors that a sheet loses."""
    found = []
    for head, body in blocks(COMMENT.sub("", text)):
        if head.strip().startswith("@"):
            found += left_out(body, known) if body and "{" in body else []
        elif body is not None:
            every = selectors(head.strip())
            found += [one for one in every if not can_be_used(one, known)]
    return found
