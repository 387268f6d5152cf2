"""The TeX and the number of every labelled equation, for pages other than its own."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def note_equations(app: Sphinx, doctree: nodes.document) -> None:
    """Keep the TeX of each labelled equation of a page."""
    env = app.env
    if not hasattr(env, "equation_tex"):
        env.equation_tex = {}
    env.equation_tex[env.docname] = {
        equation["ids"][0]: equation.astext()
        for equation in doctree.findall(nodes.math_block)
        if equation.get("label") and equation["ids"]
    }


def forget_equations(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Drop the equations of a page that is read again or gone."""
    getattr(env, "equation_tex", {}).pop(docname, None)


def merge_equations(app: Sphinx, env, docnames, other) -> None:
    """Take over the equations that another process has read."""
    found = getattr(other, "equation_tex", {})
    env.equation_tex = getattr(env, "equation_tex", {})
    env.equation_tex |= {name: found[name] for name in docnames if name in found}


def find_equation(env: BuildEnvironment, id_: str) -> tuple[str, str, str] | None:
    """Find the page, the number and the TeX of a labelled equation by its ID."""
    for page, found in env.equation_tex.items():
        if id_ in found:
            numbers = env.toc_fignumbers.get(page, {}).get("displaymath", {})
            return page, ".".join(map(str, numbers.get(id_, ()))), found[id_]
    return None


def connect(app: Sphinx) -> None:
    """Collect the equations as pages are read."""
    app.connect("doctree-read", note_equations)
    app.connect("env-purge-doc", forget_equations)
    app.connect("env-merge-info", merge_equations)
