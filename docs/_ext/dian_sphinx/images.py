"""The figures of the gallery on the pages: captions, dark and SVG forms, copies.

The directive ``caption``, which :mod:`dian_sphinx.figures` writes under an image, makes
a numbered figure of it. The directive ``picture`` shows a figure of the gallery on
another page, with its caption, its alternative text and its origin. On an HTML page,
each image has a second form for the dark mode, and a link to its SVG file.
"""

import re
import shutil
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from dian_sphinx.figures import IMAGE, dark_file
from dian_sphinx.provenance import link_to
from dian_sphinx.wording import own, said, tr, woven

log = logging.getLogger(__name__)
# In the pages that sphinx-gallery writes:
ALT = re.compile(r":alt: (.*)")
CAPTION = re.compile(r"^ *\.\. caption:: \S+\n\n +(.*)\n", re.MULTILINE)
MATH = re.compile(r":math:`([^`]+)`")
NEXT_BLOCK = re.compile(r"^\.\. GENERATED FROM PYTHON SOURCE", re.MULTILINE)
RECORD = re.compile(r"^\.\. provenance:: (\S+)$", re.MULTILINE)
# In HTML, with the address of an image of the gallery in its parts:
FIRST = "first-screen"
PLAIN = re.compile(r'class *= *"[^"]*\bplain\b')
TAG = re.compile(r'<img [^>]*src="([^"]*_images/)(sphx_glr_\w+)\.png"[^>]*>')


class Caption(SphinxDirective):
    """The caption of the image above, ``.. caption:: name``, with its text below."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the caption, which :class:`NumberFigures` joins with the image."""
        caption = nodes.caption("\n".join(self.content))
        caption += self.parse_content_to_nodes()[0].children
        caption["figure"] = self.arguments[0]
        self.set_source_info(caption)
        return [caption]


class NumberFigures(SphinxTransform):
    """Make a figure of each image and the caption that follows it."""

    default_priority = 700  # before Sphinx collects the labels of a page, at 850

    def apply(self, **kwargs) -> None:
        """Put each caption and its image into a figure with the name of the caption."""
        for caption in list(self.document.findall(nodes.caption)):
            if "figure" not in caption:
                continue
            image = caption.parent[caption.parent.index(caption) - 1]
            figure = nodes.figure(names=[caption.attributes.pop("figure")])
            self.document.note_explicit_target(figure)
            image.replace_self(figure)
            caption.parent.remove(caption)
            figure += [image, caption]


class Picture(SphinxDirective):
    """One figure of a page: ``gallery/1_rnn/plot_1_forward 2``, counted from 1.

    With the option ``plain`` it is the image alone, for example on a card. With
    ``first`` the image is loaded at once, and before scripts, because it is on the
    first screen.
    """

    required_arguments = 2
    option_spec: ClassVar = {"plain": directives.flag, "first": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Return the figure, and the line under it."""
        docname, number = self.arguments[0], int(self.arguments[1])
        page = Path(self.env.srcdir, docname).with_suffix(".rst")
        self.env.note_dependency(str(page))
        figures = figures_of(page.read_text("utf-8")) if page.is_file() else []
        if not 1 <= number <= len(figures):
            place = self.get_location()
            log.warning("picture: no figure %s on %s", number, docname, location=place)
            return []
        uri, words, text, records = figures[number - 1]
        words, text = (said(self.env, docname, one) for one in (words, text))
        image = nodes.image(uri=uri, alt=words, classes=["picture"])
        if "first" in self.options:
            image["classes"].append(FIRST)
        else:
            image["loading"] = "lazy"
        if "plain" in self.options:
            image["classes"].append("plain")
            self.set_source_info(image)
            return own([image])
        line = origin(docname, records)
        self.set_source_info(image)
        self.set_source_info(line)
        if not text:
            return own([image, line])
        name = f"fig-{self.env.docname}-{Path(docname).stem}-{number}".replace("_", "-")
        figure = nodes.figure("", image, names=[name.replace("/", "-")])
        caption = nodes.caption()
        # Written as reStructuredText for the page of the gallery.
        caption += self.parse_inline(MATH.sub(r"$\1$", text))[0]
        figure += caption
        self.state.document.note_explicit_target(figure)
        self.set_source_info(figure)
        return own([figure, line])


def figures_of(page: str) -> list[tuple[str, str, str, list[str]]]:
    r"""Find the figures of a page as sphinx-gallery wrote it.

    Returns
    -------
    figures
        Of each the address, the alternative text, the caption, and the records that
        it is drawn from.

    Examples
    --------
    >>> page = ".. image-sg:: /x.png\n   :alt: a curve\n\n.. provenance:: a-run\n"
    >>> figures_of(page)
    [('/x.png', 'a curve', '', ['a-run'])]
    """
    figures = []
    for match in IMAGE.finditer(page):
        # The lines under a figure stand in the text that follows its block of code.
        blocks = NEXT_BLOCK.split(page[match.end() :])
        caption = CAPTION.match(page[match.end() :].lstrip("\n"))
        figures.append(
            (
                match[2],
                ALT.search(match[0])[1],
                caption[1] if caption else "",
                RECORD.findall("".join(blocks[:2])),
            )
        )
    return figures


def origin(docname: str, records: list[str]) -> nodes.paragraph:
    """Return the line under a figure of the gallery on another page."""
    page = page_link(docname)
    if not records:
        parts = woven("From the page {page}, computed as it was built.", page=page)
    else:
        runs = nodes.inline()
        for i, name in enumerate(records):
            runs += [nodes.Text(tr(", "))] if i else []
            runs += link_to(name, name)
        parts = woven("From the page {page}: drawn from {runs}.", page=page, runs=runs)
    return own([nodes.paragraph("", "", *parts, classes=["provenance"])])[0]


def page_link(docname: str) -> addnodes.pending_xref:
    """Link to a page under its title."""
    return addnodes.pending_xref(
        "",
        nodes.inline("", docname),
        refdomain="std",
        reftype="doc",
        reftarget=f"/{docname}",
        refexplicit=False,
        refwarn=True,
    )


# --- The dark form and the SVG file ---------------------------------------------------


def copy_forms(app: Sphinx, exception: Exception | None) -> None:
    """Copy the dark form and the SVG file of each figure that a page shows."""
    if exception or app.builder.format != "html":
        return
    shown = Path(app.outdir, "_images")
    for image in Path(app.srcdir, "gallery").glob("*/images/sphx_glr_*.png"):
        if not (shown / image.name).is_file():
            continue
        for form in (dark_file(image), image.with_suffix(".svg")):
            if form.is_file():
                shutil.copy(form, shown)


def add_forms(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Add the dark form and the link to the SVG file to each image of the gallery."""
    if app.builder.format != "html" or "/sphx_glr_" not in context.get("body", ""):
        return
    if not hasattr(app, "dark_forms"):  # once in a build
        files = Path(app.srcdir, "gallery").glob("*/images/sphx_glr_*_dark.png")
        app.dark_forms = {file.stem for file in files}
    context["body"] = TAG.sub(lambda tag: both(tag, app.dark_forms), context["body"])


def both(tag: re.Match, made: set[str]) -> str:
    """Return the tags of the light and the dark form, and the link below them.

    >>> html = '<img src="_images/sphx_glr_x_001.png" class="y"/>'
    >>> print(TAG.sub(lambda tag: both(tag, {"sphx_glr_x_001_dark"}), html))
    ... # doctest: +NORMALIZE_WHITESPACE, +ELLIPSIS
    <span class="figure-forms"><img src="_images/sphx_glr_x_001.png"
    class="only-light y"/><img loading="lazy" src="_images/sphx_glr_x_001_dark.png"
    class="only-dark y"/><a class="figure-svg" ...>SVG</a></span>
    """
    folder, stem = tag[1], tag[2]
    if f"{stem}_dark" not in made:
        return tag[0]
    plain = re.sub(r' srcset="[^"]*"', "", tag[0]).replace('class = "', 'class="')
    light = re.sub(r'class *= *"', 'class="only-light ', tag[0], count=1)
    if FIRST in tag[0]:
        light = light.replace("<img ", '<img fetchpriority="high" ', 1)
    dark = plain.replace(f"{stem}.png", f"{stem}_dark.png")
    dark = dark.replace('class="', 'class="only-dark ', 1)
    if "loading=" not in dark:
        dark = dark.replace("<img ", '<img loading="lazy" ', 1)
    link = f'<a class="figure-svg" href="{folder}{stem}.svg" download>SVG</a>'
    if PLAIN.search(tag[0]):
        link = ""
    return f'<span class="figure-forms">{light}{dark}{link}</span>'


def connect(app: Sphinx) -> None:
    """Register the directives, and add the forms after the other changes of a page."""
    app.add_directive("caption", Caption)
    app.add_directive("picture", Picture)
    app.add_transform(NumberFigures)
    app.connect("html-page-context", add_forms, priority=920)
    app.connect("build-finished", copy_forms)
