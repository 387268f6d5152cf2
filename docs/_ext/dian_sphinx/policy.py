"""A Content-Security-Policy on every page: the browser itself refuses other origins.

A page may load what the site serves, and run the scripts that were written into it when
it was built, which are named by their hashes. Styles may stand in the text, since KaTeX
writes thousands of them; a style cannot run anything, and what it could load from
elsewhere is refused.
``wasm-unsafe-eval`` allows WebAssembly, for the live figures, and no ``eval``.
"""

import base64
import hashlib
import re
from html import escape, unescape

from sphinx.application import Sphinx

SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script>", re.S)
DATA = re.compile(r"""\btype\s*=\s*["']?application/(ld\+)?json""")
SOURCE = re.compile(r"\bsrc\s*=")
HANDLER = re.compile(r"<[a-z][^<>]*?\s(on[a-z]+)=\"([^\"]*)\"")
HEAD = re.compile(r"<head\b[^>]*>")


def hashed(text: str) -> str:
    """Name a script by its content.

    >>> hashed("")
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def policy(page: str) -> str:
    """Return the policy of a page, with the hashes of its own scripts.

    >>> policy("<script>a()</script><script src='b.js'></script>").count("sha256")
    1
    >>> "unsafe-hashes" in policy('<button onclick="a()">')
    True
    """
    scripts = [
        hashed(text)
        for attributes, text in SCRIPT.findall(page)
        if not SOURCE.search(attributes) and not DATA.search(attributes)
    ]
    bare = SCRIPT.sub("", page)
    handlers = [hashed(unescape(text)) for _, text in HANDLER.findall(bare)]
    if handlers:
        handlers.insert(0, "'unsafe-hashes'")
    allowed = dict.fromkeys([*scripts, *handlers])
    return "; ".join(
        [
            "default-src 'none'",
            " ".join(["script-src 'self' 'wasm-unsafe-eval'", *allowed]),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'self'",
            "form-action 'self'",
        ]
    )


def secured(page: str) -> str:
    """Write the policy of a page at the beginning of its head.

    >>> secured("<head><title>x</title></head>")[:60]
    '<head><meta http-equiv="Content-Security-Policy" content="de'
    """
    head = HEAD.search(page)
    if head is None:  # not a page
        return page
    content = escape(policy(page)).replace("&#x27;", "'")
    meta = f'<meta http-equiv="Content-Security-Policy" content="{content}">'
    return f"{page[: head.end()]}{meta}{page[head.end() :]}"


def secure(app: Sphinx) -> None:
    """Have every page that is written pass through :func:`secured`."""
    if app.builder.format != "html":
        return
    render = app.builder.templates.render
    app.builder.templates.render = lambda *args: secured(render(*args))


def connect(app: Sphinx) -> None:
    """Change what the templates of the pages return."""
    app.connect("builder-inited", secure)
