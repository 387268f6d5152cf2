"""Hovering or focusing a reference shows the equation, term, claim or source it names.

What a page refers to on other pages is embedded in it while it is written, so that a
preview needs no request and works in files opened from a disk. What is on the page
itself is copied by the script, ``docs/_static/previews.js``.
"""

import re
from html import escape

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from dian_sphinx.equations import find_equation
from dian_sphinx.katex import displayed
from dian_sphinx.wording import CLAIMS, look_up, tr

ELSEWHERE = re.compile(r'<a class="[^"]*internal[^"]*" href="[^"#]+#([^"]+)"')
LINK = re.compile(r"</?a\b[^>]*>")
GLOSSARY = "glossary"


def add_previews(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Embed in a page what it refers to on other pages."""
    if app.builder.format != "html" or "body" not in context:
        return
    if pagename.startswith("verification"):
        return  # these pages show each equation that they refer to
    body = context["body"]
    found = {id_: preview(app, id_) for id_ in dict.fromkeys(ELSEWHERE.findall(body))}
    parts = [
        f'<div data-preview="{escape(id_)}">{content}</div>'
        for id_, content in found.items()
        if content
    ]
    if parts:
        context["body"] = f'{body}<template id="previews">{"".join(parts)}</template>'


def preview(app: Sphinx, id_: str) -> str:
    """Return the preview of an equation, a term or a claim as HTML, or nothing."""
    kind, _, name = id_.partition("-")
    if kind == "equation" and (found := find_equation(app.env, id_)):
        page, number, tex = found
        title = escape(app.env.titles[page].astext())
        head = tr("({number}), {title}", number=number, title=title)
        return f"<p>{head}</p>{displayed(app.builder, tex)}"
    if kind == "claim" and (one := claims_by_anchor(app.env).get(name)):
        title = look_up(app.env, CLAIMS, one["title"]) or one["title"]
        return f"<p><b>{one['id']}</b> {escape(title)}</p>"
    if kind == "term":
        return terms(app).get(id_, "")
    return ""


def claims_by_anchor(env: BuildEnvironment) -> dict[str, dict]:
    """Return each claim by the end of its address."""
    return {one["id"].lower(): one for one in getattr(env, "claims", {}).values()}


def terms(app: Sphinx) -> dict[str, str]:
    """Return the definition of each term of the glossary as HTML."""
    if not hasattr(app, "glossary_previews"):
        app.glossary_previews = {}
        if GLOSSARY in app.env.found_docs:
            doctree = app.env.get_and_resolve_doctree(
                GLOSSARY, app.builder, tags=app.tags
            )
            for item in doctree.findall(nodes.definition_list_item):
                html = app.builder.render_partial(item)["fragment"]
                html = LINK.sub("", html)  # counted from the page of the glossary
                for term in item.findall(nodes.term):
                    for id_ in term["ids"]:
                        app.glossary_previews[id_] = f"<dl>{html}</dl>"
    return app.glossary_previews


def rewrite_changed(app: Sphinx, env: BuildEnvironment) -> set[str]:
    """Write all pages again when the content of a preview has changed.

    Sphinx writes again only the page on which an equation or a term was changed. Any
    other page may hold a copy of it, and the pages of claims do.
    """
    glossary = GLOSSARY in env.found_docs and env.get_doctree(GLOSSARY).astext()
    titles = {name: one["title"] for name, one in claims_by_anchor(env).items()}
    now = dict(getattr(env, "equation_tex", {})), titles, glossary
    before, env.preview_contents = getattr(env, "preview_contents", now), now
    return set() if before == now else set(env.found_docs)


def connect(app: Sphinx) -> None:
    """Embed previews as the pages are written."""
    app.connect("env-get-updated", rewrite_changed)
    app.connect("html-page-context", add_previews, priority=910)  # after html.mend_page
