"""Under each function and class of the API: the pages of the gallery that use it."""

import ast
import functools
from pathlib import Path

from sphinx.application import Sphinx

GALLERY = Path(__file__).parents[2] / "gallery"
LISTED = {"function", "class", "exception", "data"}


def add_pages(app: Sphinx, what, name, obj, options, lines: list[str]) -> None:
    """Put the links below the docstring."""
    if what not in LISTED:
        return
    for script in scripts():
        app.env.note_dependency(str(script))
    using = [script for script in scripts() if name in used_in(script)]
    if using:
        links = ", ".join(f":ref:`{target(script)}`" for script in using)
        lines += ["", f":Shown on: {links}", ""]


@functools.cache
def scripts() -> list[Path]:
    """List the pages of the gallery in their order."""
    return sorted(GALLERY.rglob("plot_*.py"))


def target(script: Path) -> str:
    """Return the label that sphinx-gallery gives to a page.

    >>> target(GALLERY / "1_rnn/plot_2_bptt.py")
    'sphx_glr_gallery_1_rnn_plot_2_bptt.py'
    """
    return "sphx_glr_gallery_" + "_".join(script.relative_to(GALLERY).parts)


@functools.cache
def used_in(script: Path) -> frozenset[str]:
    """Name what a script uses of the library."""
    return frozenset(used(ast.parse(script.read_text("utf-8"))))


def used(tree: ast.AST) -> set[str]:
    """Name what some code uses of the library, whichever way it is imported.

    >>> code = "from dian import data; from dian.rnn.recurrence import f; data.g()"
    >>> sorted(used(ast.parse(code)))
    ['dian.data', 'dian.data.g', 'dian.rnn.recurrence.f']
    """
    named, found = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dian"):
            for alias in node.names:
                named[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        owner = node.value if isinstance(node, ast.Attribute) else None
        if isinstance(owner, ast.Name) and owner.id in named:
            found.add(f"{named[owner.id]}.{node.attr}")
    return found | set(named.values())


def setup(app: Sphinx) -> dict:
    """Come after napoleon, which is at priority 500."""
    app.connect("autodoc-process-docstring", add_pages, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
