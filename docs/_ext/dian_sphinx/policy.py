"""A Content-Security-Policy on every page: the browser itself refuses other origins.

A page may load files of the site, and run the inline scripts and event handlers that
were written into it when it was built; their hashes are in the policy. Inline styles
are allowed, because KaTeX writes thousands of them: a style runs no code, and the
policy refuses files that it would load from another origin. ``wasm-unsafe-eval`` allows
WebAssembly, which the live figures need, but not ``eval``.
"""

import base64
import hashlib
import re
from html import escape, unescape

from sphinx.application import Sphinx

SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script>", re.S)
DATA = re.compile(r"""\btype\s*=\s*["']?application/(ld\+)?json""")
SOURCE = re.compile(r"\bsrc\s*=")
TAG = re.compile(r'<[a-z](?:"[^"]*"|[^<>"])*>')
HANDLER = re.compile(r'\son[a-z]+="([^"]*)"')
HEAD = re.compile(r"<head\b[^>]*>")


def hashed(text: str) -> str:
    """Return the source expression of the policy that allows one script.

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
    tags = "".join(TAG.findall(SCRIPT.sub("", page)))
    handlers = [hashed(unescape(text)) for text in HANDLER.findall(tags)]
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
    """Let every page pass through :func:`secured` when it is written."""
    if app.builder.format != "html":
        return
    render = app.builder.templates.render
    app.builder.templates.render = lambda *args: secured(render(*args))


def connect(app: Sphinx) -> None:
    """Register the change of the pages."""
    app.connect("builder-inited", secure)
