r"""What the PDF edition needs beyond what Sphinx writes of itself.

Equations have the numbers of the site; the macros of the equations become macros of
LaTeX; a line of provenance and a claim under an equation look like what they are; and
where a figure can be moved on the site, its picture stands, or words that say so.
"""

import json
import re
from pathlib import Path

from docutils import nodes
from order import OVERVIEW
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.math import wrap_displaymath

WRAPPED = {"provenance", "claim-badge"}

CAPTION = re.compile(r"<figcaption>(.*?)</figcaption>", re.DOTALL)


def add_macros(app: Sphinx, config) -> None:
    """Define the macros that KaTeX is given for LaTeX, too."""
    file = Path(app.confdir) / config.katex_macros
    macros = json.loads(file.read_text("utf-8"))
    elements = dict(config.latex_elements)
    elements["preamble"] = "\n".join(
        [elements.get("preamble", ""), *map(definition, macros, macros.values())]
    )
    config.latex_elements = elements


def definition(name: str, tex: str) -> str:
    r"""Write a macro of KaTeX as one of LaTeX.

    >>> print(definition(r"\norm", r"\lVert #1 \rVert_{#2}"))
    \newcommand{\norm}[2]{\lVert #1 \rVert_{#2}}
    """
    count = max(map(int, re.findall(r"#(\d)", tex)), default=0)
    arguments = f"[{count}]" if count else ""
    return rf"\newcommand{{{name}}}{arguments}{{{tex}}}"


def visit_math_block(self, node: nodes.math_block) -> None:
    """Write a displayed equation with the number that it has on the site."""
    numbers = self.builder.env.toc_fignumbers.get(node.get("docname"), {})
    known = numbers.get("displaymath", {})
    number = next((known[id_] for id_ in node["ids"] if id_ in known), None)
    label = node.get("label") and f"equation:{node['docname']}:{node['label']}"
    if node.get("no-wrap"):
        tex = node.astext()
        self.body.append(tagged(tex, label, number) if label else tex)
    else:
        tex = wrap_displaymath(node.astext(), label, self.config.math_number_all)
        self.body.append(tagged(tex, label, number) if number else tex)
    raise nodes.SkipNode


def tagged(tex: str, label: str, number: tuple[int, ...] | None) -> str:
    r"""Give the label of an equation a number of ours.

    >>> tagged(r"\begin{align}\label{a}x\end{align}", "a", (3,))
    '\\begin{align}\\label{a}\\tag{3}x\\end{align}'
    """
    mark = rf"\label{{{label}}}"
    if mark not in tex:  # an environment that was written by hand
        tex = re.sub(r"\\begin\{\w+\*?\}", lambda m: m[0] + mark, tex, count=1)
    tag = rf"\tag{{{'.'.join(map(str, number))}}}" if number else ""
    return tex.replace(mark, mark + tag, 1)


class ForPrint(SphinxPostTransform):
    """Change what only makes sense on a page of the site."""

    default_priority = 800  # after all references are resolved
    formats = ("latex",)

    def run(self, **kwargs) -> None:
        """Change the whole report at once."""
        for paragraph in list(self.document.findall(nodes.paragraph)):
            if WRAPPED & set(paragraph["classes"]):
                box = nodes.container(classes=paragraph["classes"])
                paragraph.replace_self(box)
                box += paragraph
        for raw in list(self.document.findall(nodes.raw)):
            if 'class="interactive"' in raw.astext():
                raw.replace_self(words_for(raw.astext()))
        for start in list(self.document.findall(is_overview)):
            start.parent.remove(start)
        for section in list(self.document.children[0].children):
            if isinstance(section, nodes.section):
                section.replace_self(without_number(section))
        for link in list(self.document.findall(nodes.reference)):
            if "sd-stretched-link" in link["classes"]:
                link.parent.remove(link)
            elif link.get("refuri") == f"%{OVERVIEW}":
                link.replace_self(link.children)


class PdfEdition(SphinxDirective):
    """A link to the PDF, where the site is built with one: ``DIAN_PDF``."""

    def run(self) -> list[nodes.Node]:
        """Return a paragraph with the link, or nothing."""
        file = self.env.config.pdf_file
        if not file:
            return []
        link = nodes.reference("", "Download the PDF edition", refuri=Path(file).name)
        return [nodes.paragraph("", "", link, nodes.Text("."))]


def without_number(section: nodes.section, level: int = 2) -> list[nodes.Node]:
    """Turn a section of the front page into a heading that is not counted."""
    title, *rest = section.children
    parts = [nodes.rubric("", "", *title.children, **{"heading-level": level})]
    for node in rest:
        inner = isinstance(node, nodes.section)
        parts += without_number(node, level + 1) if inner else [node]
    return parts


def words_for(html: str) -> nodes.container:
    """Say where on the site a figure can be moved, and what it shows."""
    match = CAPTION.search(html)
    text = "On the site a figure here can be moved. " + (match[1] if match else "")
    box = nodes.container(classes=["provenance"])
    box += nodes.paragraph("", text.strip())
    return box


def is_overview(node: nodes.Node) -> bool:
    """Tell whether a node holds the page with all cards."""
    return (
        getattr(node, "tagname", "") == "start_of_file"
        and node.get("docname") == OVERVIEW
    )


def setup(app: Sphinx) -> dict:
    """Register what concerns LaTeX alone."""
    app.setup_extension("katex_build")  # whose macros they are
    app.add_config_value("pdf_file", "", "env", str)
    app.add_directive("pdf-edition", PdfEdition)
    app.connect("config-inited", add_macros)
    app.add_node(nodes.math_block, override=True, latex=(visit_math_block, None))
    app.add_post_transform(ForPrint)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
