#!/usr/bin/env python3
"""Check that the editions of a built site say the same, page by page.

``python scripts/check_editions.py build/html zh_CN`` compares every page with that of
the same name in the folder of the other edition, in what no translation may change:
anchors, headings, lists, emphasis, numbers, formulas, values of records, badges of
claims, figures with their data, links and code. It also checks what leads from one
edition to the other, and that a page names its language and has a title. It prints one
line for each difference; if there is one, the status is 1.
"""

import json
import posixpath
import re
import sys
from collections import Counter
from collections.abc import Iterator
from html import unescape
from pathlib import Path

ARTICLE = re.compile(r'<article class="bd-article">(.*?)</article>', re.DOTALL)
PREVIEWS = re.compile(r'<template id="previews">.*?</template>', re.DOTALL)
PARTS = {
    # Not those that are counted, such as of citations, whose order may change.
    "anchor": r'<(?:section|span|div|table|dt|figure)[^>]* id="(?!id\d+")([^"]+)"',
    "equation": r'<span class="eqno">\((\d[\d.]*)\)<a [^>]*href="#([^"]+)"',
    "formula": r'<annotation encoding="application/x-tex">(.*?)</annotation>',
    "value": r'<span class="result">(.*?)</span>',
    "heading": r"<(h[1-6])[ >]",
    "number of a section": r'<span class="section-number">([\d.]+)',
    "item": r"<(li|dt|dd|ol|ul)[ >]",
    "emphasis": r"<(strong|em)[ >]",
    "badge": r'<p class="claim-badge">(.*?)</p>',
    "claim": r'href="[^"]*verification/\w+\.html#(claim-[\w-]+)"',
    "figure": r'<img [^>]*src="([^"]+)"',
    "alternative text": r'<img [^>]*(alt)="\s*[^"\s]',
    "figure that moves": r'<figure [^>]*data-(?:figure|live)="([^"]+)"',
    "data": r'<script type="application/json">(.*?)</script>',
    "link": r'<a [^>]*class="[^"]*(?:internal|external|paper)[^"]*"[^>]*href="([^"]+)"',
    "code": r"<pre[^>]*>(.*?)</pre>",
    "inline code": r'<code class="docutils literal notranslate">(.*?)</code>',
    "number of a caption": r'<span class="caption-number">\D*([\d.]+)',
}
PATTERNS = {kind: re.compile(text, re.DOTALL) for kind, text in PARTS.items()}
TAG = re.compile(r"<[^>]+>")
NUMBER = re.compile(r"(?<![A-Za-z\d])\d+(?:[.,]\d+)*")
NO_TEXT = re.compile(r"<(script|pre|style|svg)\b.*?</\1>", re.DOTALL)
LANGUAGE = re.compile(r'<html[^>]* lang="([^"]*)"')
TITLE = re.compile(r"<title>\s*[^<\s]")
ALTERNATE = re.compile(r'<link rel="alternate" hreflang="([^"]*)" href="([^"]*)"')
SWITCH = re.compile(
    r'<a class="[^"]*\bedition\b[^"]*" href="([^"]*)" hreflang="([^"]*)"'
)
TEMPLATES = "contracts.html"
"""The page with templates, of which the docstrings are translated."""
DOCSTRING = re.compile(r'"""\w.*?"""', re.DOTALL)
ONE_EDITION = {"404.html", "genindex.html", "py-modindex.html", "search.html"}
"""Pages that are made otherwise in each edition."""
IN_ENGLISH_ONLY = ("_modules/", "_static/", "api/")
"""What only the English edition has."""


def parts(html: str, folder: str) -> dict[str, Counter]:
    """Count what a page says.

    >>> found = parts('<article class="bd-article"><pre>x</pre></article>', "zh_CN")
    >>> found["code"]
    Counter({'x': 1})
    """
    article = ARTICLE.search(html)
    text = PREVIEWS.sub("", article[1]) if article else ""
    found = {}
    for kind, pattern in PATTERNS.items():
        hits = pattern.findall(text)
        if kind in ("code", "value", "inline code", "badge"):
            hits = [unescape(TAG.sub("", hit)) for hit in hits]
        if kind == "data":
            hits = [json.dumps(without_words(json.loads(hit))) for hit in hits]
        if kind in ("formula", "inline code"):  # in a catalogue a line has no ends
            hits = [" ".join(hit.split()) for hit in hits]
        if kind in ("figure", "link"):
            hits = [place(hit, folder) for hit in hits]
        found[kind] = Counter(hits)
    words = unescape(TAG.sub("", NO_TEXT.sub("", text)))
    return found | {"number": Counter(NUMBER.findall(words))}


def without_words(data):
    """Return the data of a figure without their texts.

    >>> without_words({"n": [1, 2.5], "name": "a network"})
    {'n': [1, 2.5], 'name': ''}
    """
    if isinstance(data, dict):
        return {key: without_words(value) for key, value in data.items()}
    if isinstance(data, list):
        return [without_words(value) for value in data]
    return "" if isinstance(data, str) else data


def without_docstrings(found: dict[str, Counter]) -> Counter:
    """Count the code of a page without what it says in words."""
    return Counter(DOCSTRING.sub("", code) for code in found["code"].elements())


def place(address: str, folder: str) -> str:
    """Return where a link leads, without the way up and into the other edition.

    >>> place("../../zh_CN/rnn.html", "zh_CN"), place("rnn.html", "zh_CN")
    ('rnn.html', 'rnn.html')
    """
    address = re.sub(r"^(?:\.\./)+", "", address)
    return address.removeprefix(f"{folder}/")


def around(html: str, page: str, twins: dict[str, str], tag: str) -> Iterator[str]:
    """Name what is wrong around the article of a page.

    ``twins`` are the same page in each language; ``tag`` is the language of this one.
    """
    language = LANGUAGE.search(html)
    if not language or language[1] != tag:
        yield f"{page}: its language is not {tag}"
    if not TITLE.search(html):
        yield f"{page}: no title"
    alternates = dict(ALTERNATE.findall(html))
    switches = {language: href for href, language in SWITCH.findall(html)}
    for language, twin in twins.items():
        if not leads(page, alternates.get(language), twin):
            yield f"{page}: no alternate of {language} that is {twin}"
        if language != tag and not leads(page, switches.get(language), twin):
            yield f"{page}: no switch to {twin}"


def leads(page: str, href: str | None, to: str) -> bool:
    """Tell whether a link of a page leads to another one.

    >>> leads("zh_CN/a/b.html", "../../a/b.html", "a/b.html"), leads("a", None, "b")
    (True, False)
    """
    if not href:
        return False
    if "://" in href:
        return href.endswith(f"/{to}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), href)) == to


def pages(root: Path, other: str = "") -> set[str]:
    """List the pages of an edition, without those of another one in a folder of it."""
    names = {path.relative_to(root).as_posix() for path in root.rglob("*.html")}
    out = (*IN_ENGLISH_ONLY, f"{other}/") if other else IN_ENGLISH_ONLY
    return {name for name in names - ONE_EDITION if not name.startswith(out)}


def differences(site: Path, folder: str) -> Iterator[str]:
    """Yield a line for each difference of the editions."""
    ours, theirs = pages(site, folder), pages(site / folder)
    for name in sorted(ours ^ theirs):
        yield f"{name}: only in the {'English' if name in ours else folder} edition"
    for name in sorted(ours & theirs):
        twins = {"en": name, folder.replace("_", "-"): f"{folder}/{name}"}
        texts = {tag: (site / page).read_text("utf-8") for tag, page in twins.items()}
        for tag, html in texts.items():
            yield from around(html, twins[tag], twins, tag)
        a, b = (parts(html, folder) for html in texts.values())
        if name == TEMPLATES:
            a["code"], b["code"] = without_docstrings(a), without_docstrings(b)
        for kind in a:
            for verb, rest in (
                ("missing", a[kind] - b[kind]),
                ("added", b[kind] - a[kind]),
            ):
                for what in rest:
                    yield f"{folder}/{name}: {kind} {verb}: {str(what)[:100]!r}"


def main() -> int:
    """Compare the editions of a site."""
    site, folder = Path(sys.argv[1]), sys.argv[2]
    found = list(differences(site, folder))
    n_page = len(pages(site / folder))
    print("\n".join([*found, f"{n_page} pages compared, {len(found)} differences"]))
    return 1 if found or not n_page else 0


if __name__ == "__main__":
    sys.exit(main())
