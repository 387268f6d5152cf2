"""The search leads from a term of the glossary to the page that explains it.

The first link in a definition names that page. Each term becomes a main index entry
there, which Sphinx's search ranks above pages that only use the term.
"""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PAGE = "glossary"
Place = tuple[str, str]
"""A page and an anchor on it."""


def explained_at(env: BuildEnvironment) -> dict[str, Place]:
    """Return where the first link of each definition leads."""
    found = {}
    for item in env.get_doctree(PAGE).findall(nodes.definition_list_item):
        link = next(item.findall(addnodes.pending_xref), None)
        place = target(env, link) if link is not None else None
        if place:
            terms = (term.astext() for term in item.findall(nodes.term))
            found |= {name: place for term in terms for name in names(term)}
    return found


def names(term: str) -> list[str]:
    """Return the names in a term: a translated one has the English name in brackets.

    >>> names("批量（batch）"), names("batch")
    (['批量', 'batch'], ['batch'])
    """
    return [name for name in re.split("[（）]", term) if name]  # noqa: RUF001


def target(
    env: BuildEnvironment, link: addnodes.pending_xref
) -> tuple[str, str] | None:
    """Return the page and the anchor to which a reference leads."""
    name = link["reftarget"]
    if link["refdomain"] == "math":
        page, _ = env.domains.math_domain.equations.get(name, (None, 0))
        return page and (page, nodes.make_id(f"equation-{name}"))
    if link["reftype"] == "doc":
        return name.removeprefix("/"), ""
    return env.domains.standard_domain.anonlabels.get(name.lower())


def index_terms(app: Sphinx, env: BuildEnvironment) -> None:
    """Add the terms to the index of the pages that explain them."""
    if PAGE not in env.found_docs:
        return
    entries = env.get_domain("index").entries
    for page, added in getattr(env, "glossary_entries", {}).items():
        if page in entries:
            entries[page] = [one for one in entries[page] if one not in added]
    env.glossary_entries = {}
    for term, (page, anchor) in explained_at(env).items():
        entry = ("single", term, anchor, "main", None)
        env.glossary_entries.setdefault(page, []).append(entry)
        entries.setdefault(page, []).append(entry)


def mark_page(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Add the entries to a page that is written: the search reads them there."""
    if entries := getattr(app.env, "glossary_entries", {}).get(docname):
        doctree += addnodes.index(entries=list(entries))


def connect(app: Sphinx) -> None:
    """Index the terms before ``incremental`` hands the index to the search."""
    app.connect("env-updated", index_terms, priority=400)
    app.connect("doctree-resolved", mark_page)
