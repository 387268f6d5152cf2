r"""What the PDF edition needs beyond Sphinx's own LaTeX.

Equations have the numbers of the site; the macros of the equations become macros of
LaTeX; a line of provenance and a claim under an equation have their own style; and an
interactive figure is replaced by a picture.
"""

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective
from sphinx.util.math import wrap_displaymath

from dian_sphinx.editions import is_source
from dian_sphinx.gallery import OVERVIEW
from dian_sphinx.wording import mark, own, tr

INTERACTIVE = re.compile(
    r'<figure class="interactive" data-figure="(\w+)"[^>]*>.*?'
    r'<script type="application/json">(.*?)</script>.*?'
    r"<figcaption>(.*?)</figcaption>",
    re.DOTALL,
)
NO_NUMBERS = r"\edef\numbereddepth{\arabic{secnumdepth}}\setcounter{secnumdepth}{-1}"
NUMBERS = r"\setcounter{secnumdepth}{\numbereddepth}"
WRAPPED = {"provenance", "claim-badge"}
ELSEWHERE = {
    OVERVIEW,  # cards of all pages, which the PDF has in full
    "references",  # LaTeX sets the literature at the end
    *("exercises", "solutions", "figures"),  # all of which the chapters have
}
WIDTHS = {  # of the columns of tables, by the head of the first
    mark("Claim"): (7, 30, 14, 12, 11, 16, 10),
    mark("Mutant"): (21, 31, 30, 18),
    mark("Run"): (22, 30, 14, 9, 12, 13),
    mark("Library"): (15, 23, 20, 9, 20, 13),
    mark("Work"): (23, 26, 10, 10, 15, 9, 7),
}


def add_macros(app: Sphinx, config: Config) -> None:
    """Define the macros that KaTeX is given for LaTeX, too."""
    file = Path(app.confdir) / config.katex_macros
    macros = json.loads(file.read_text("utf-8"))
    elements = dict(config.latex_elements)
    elements["preamble"] = "\n".join(
        [elements.get("preamble", ""), *map(definition, macros, macros.values())]
    )
    config.latex_elements = elements


def offer(app: Sphinx, config: Config) -> None:
    """Put the PDF of this edition into the site, if there is one.

    That of another language than English is beside the English one, with the language
    in its name, as ``make pdf`` leaves it.
    """
    if config.pdf_file and not is_source(config):
        file = Path(app.confdir, config.pdf_file)
        file = file.with_stem(f"{file.stem}-{config.language}")
        config.pdf_file = str(file) if file.is_file() else ""
    if config.pdf_file:
        config.html_extra_path = [*config.html_extra_path, config.pdf_file]


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


def for_print(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Change what only makes sense on a page of the site, in all chapters at once."""
    if app.builder.format != "latex":
        return
    for paragraph in list(doctree.findall(nodes.paragraph)):
        if WRAPPED & set(paragraph["classes"]):
            box = nodes.container(classes=paragraph["classes"])
            paragraph.replace_self(box)
            box += paragraph
    raws = doctree.findall(nodes.raw)
    moved = [raw for raw in raws if INTERACTIVE.search(raw.astext())]
    for number, raw in enumerate(moved):
        raw.replace_self(still(app, raw, number))
    for start in list(doctree.findall(is_elsewhere)):
        start.parent.remove(start)
    leave_numbers_to_chapters(app, doctree)
    for section in list(doctree.children[0].children):
        if isinstance(section, nodes.section):
            section.replace_self(without_number(section))
    for link in list(doctree.findall(nodes.reference)):
        if "sd-stretched-link" in link["classes"]:
            link.parent.remove(link)
        elif link.get("refuri", "").removeprefix("%") in ELSEWHERE:
            link.replace_self(nodes.Text(link.astext()))
    for table in doctree.findall(nodes.table):
        set_widths(table)
        for code in table.findall(nodes.literal):
            for text in list(code.findall(nodes.Text)):
                text.parent.replace(text, nodes.Text(breakable(text.astext())))
    for image in list(doctree.findall(nodes.image)):
        if "picture" in image["classes"]:
            image["width"] = "75%"
        if "plain" in image["classes"]:  # not in the line of the title above it
            image.replace_self(nodes.paragraph("", "", image.deepcopy()))


def leave_numbers_to_chapters(app: Sphinx, doctree: nodes.document) -> None:
    """Give pages before the chapters no number: equation (1.1) is in chapter 1."""
    pages = list(doctree.findall(addnodes.start_of_file))
    numbered = app.env.toc_secnumbers
    first = next((p for p in pages if numbered.get(p["docname"])), None)
    if first is None or first is pages[0]:
        return
    for page, tex in ((pages[0], NO_NUMBERS), (first, NUMBERS)):
        raw = nodes.raw("", tex, format="latex")
        page.parent.insert(page.parent.index(page), raw)


def breakable(code: str) -> str:
    r"""Let a line end within a long name, at a space that is as wide as nothing.

    >>> ascii(breakable("a.b_c(d-e)"))
    "'a.\\u200bb_\\u200bc(\\u200bd-\\u200be)'"
    """
    return re.sub(r"([._(-])(?=\w)", "\\1\N{ZERO WIDTH SPACE}", code)


class PdfEdition(SphinxDirective):
    """A link to the PDF, where the site is built with one: ``DIAN_PDF``."""

    def run(self) -> list[nodes.Node]:
        """Return a paragraph with the link, or nothing."""
        file = self.env.config.pdf_file
        if not file:
            return []
        link = nodes.reference(
            "", tr("Download the PDF edition"), refuri=Path(file).name
        )
        return own([nodes.paragraph("", "", link, nodes.Text(tr(".")))])


def without_number(section: nodes.section, level: int = 2) -> list[nodes.Node]:
    """Turn a section of the front page into a heading that is not counted."""
    title, *rest = section.children
    parts = [nodes.rubric("", "", *title.children, **{"heading-level": level})]
    for node in rest:
        inner = isinstance(node, nodes.section)
        parts += without_number(node, level + 1) if inner else [node]
    return parts


def still(app: Sphinx, raw: nodes.raw, number: int) -> nodes.container:
    """Return the picture that stands for a figure which can be moved."""
    # Not above: it imports matplotlib, which a build of the site does not need.
    from dian_sphinx import stills

    file = Path(app.outdir, f"still-{number}.pdf")
    caption = stills.draw(raw.astext(), file)
    tex = rf"\begin{{center}}\sphinxincludegraphics{{{file.name}}}\end{{center}}"
    box = nodes.container(classes=["provenance"])
    box += nodes.paragraph("", caption)
    return nodes.container("", nodes.raw("", tex, format="latex"), box)


def is_elsewhere(node: nodes.Node) -> bool:
    """Tell whether a node holds a page that has no chapter here."""
    is_page = isinstance(node, addnodes.start_of_file)
    return is_page and node["docname"] in ELSEWHERE


def set_widths(table: nodes.table) -> None:
    """Fix the widths of the columns where those that LaTeX finds are bad."""
    head = next(table.findall(nodes.entry), None)
    known = {tr(name): widths for name, widths in WIDTHS.items()}
    widths = known.get(head.astext()) if head is not None else None
    columns = list(table.findall(nodes.colspec))
    if widths and len(widths) == len(columns):
        table["classes"] = [*table["classes"], "colwidths-given"]
        for column, width in zip(columns, widths, strict=True):
            column["colwidth"] = width


def connect(app: Sphinx) -> None:
    """Register what concerns LaTeX alone."""
    app.add_config_value("pdf_file", "", "env", str)
    app.add_directive("pdf-edition", PdfEdition)
    app.connect("config-inited", offer)
    app.connect("config-inited", add_macros)
    app.add_node(nodes.math_block, override=True, latex=(visit_math_block, None))
    app.connect("doctree-resolved", for_print, priority=900)
