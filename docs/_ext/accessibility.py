"""What the theme leaves out for readers with a screen reader or a keyboard."""

import re

from sphinx.application import Sphinx

CODE = '<div class="highlight"><pre>'
FIGURE = re.compile(r'<img [^>]*class = "sphx-glr-(?:single|multi)-img"/>')
# A list of terms without a term: Sphinx writes the parameters of a signature so.
PARAMETERS = re.compile(r'(<span class="sig-paren">\(</span>\s*)<dl>(.*?)</dl>', re.S)
SUMMARY = re.compile(r"(<a [^>]*>)([^<]*)(</a><details[^>]*><summary)>")


def mend_page(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Name the buttons that unfold the sidebar, and give bibliography items a role."""
    make_toctree = context.get("generate_toctree_html")
    if make_toctree:

        def named(*args, **kwargs) -> str:
            tree = str(make_toctree(*args, **kwargs))
            return SUMMARY.sub(r'\1\2\3 aria-label="\2">', tree)

        context["generate_toctree_html"] = named
    if "body" in context:
        context["body"] = mend_body(context["body"])


def mend_body(body: str) -> str:
    """Correct roles and lists, and let the keyboard reach what scrolls.

    >>> mend_body('<div class="highlight"><pre>x</pre></div>')
    '<div class="highlight"><pre tabindex="0">x</pre></div>'
    >>> mend_body('<span class="sig-paren">(</span><dl><dd>x</dd></dl>')
    '<span class="sig-paren">(</span><div class="parameters"><div>x</div></div>'
    >>> mend_body('<img src="x.png" class = "sphx-glr-single-img"/>')[:41]
    '<div class="figure-scroll" tabindex="0"><'
    """
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    body = body.replace(CODE, f'{CODE[:-1]} tabindex="0">')
    body = FIGURE.sub(r'<div class="figure-scroll" tabindex="0">\g<0></div>', body)
    return PARAMETERS.sub(_as_blocks, body)


def _as_blocks(match: re.Match) -> str:
    rows = match[2].replace("<dd>", "<div>").replace("</dd>", "</div>")
    return f'{match[1]}<div class="parameters">{rows}</div>'


def setup(app: Sphinx) -> dict:
    """Mend each page after the theme has filled its context."""
    app.connect("html-page-context", mend_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
