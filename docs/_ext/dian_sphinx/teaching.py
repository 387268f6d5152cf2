"""What a teacher needs, collected from the chapters: nothing is typed twice.

Three directives read the pages of a chapter. ``lesson-plan`` lists the reading time and
the learning goals that the box at the head of each page states, ``exercise-sheet`` the
exercises, with the option ``solutions`` also their solutions, and ``figure-list`` the
figures of the chapter's gallery pages. Without an argument, ``lesson-plan`` is a table
of all pages.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from dian_sphinx.images import MATH, figures_of, page_link

log = logging.getLogger(__name__)
CHAPTERS = ("rnn", "positions", "attention", "diffusion")
BOX, GOALS = "Before you start", "You will learn"
TIME = re.compile(r"Reading time:? (?:about )?(\d+) minutes")
EXERCISES = "Exercises"
NUMBERED = re.compile(r"\d+\. ")


# --- What a page says -----------------------------------------------------------------


def goals(doctree: nodes.document) -> nodes.bullet_list | None:
    """Find the learning goals in the box at the head of a page."""
    for part in _box(doctree):
        if isinstance(part, nodes.bullet_list):
            return part
    return None


def minutes(doctree: nodes.document) -> int | None:
    """Find the reading time of a page in its box, without that of other pages."""
    words = " ".join(" ".join(part.astext() for part in _box(doctree)).split())
    found = TIME.search(words)
    return int(found[1]) if found else None


def _box(doctree: nodes.document) -> list[nodes.Node]:
    for box in doctree.findall(nodes.admonition):
        if box.next_node(nodes.title).astext() == BOX:
            return box.children
    return []


def exercises(doctree: nodes.document) -> list[list[nodes.Node]]:
    """Return the parts of each exercise of a page: its text, and then its solution."""
    found: list[list[nodes.Node]] = []
    for section in doctree.findall(nodes.section):
        if section.next_node(nodes.title).astext() != EXERCISES:
            continue
        for part in section.children:
            # MyST begins a paragraph that begins in bold type with an empty text.
            first = next((c for c in part.children if c.astext()), None)
            if (
                isinstance(part, nodes.paragraph)
                and isinstance(first, nodes.strong)
                and NUMBERED.match(first.astext())
            ):
                found.append([])
            elif not found:
                continue  # the title and the words before the first exercise
            if not isinstance(part, addnodes.toctree) and not _holds_toctree(part):
                found[-1].append(part)
    return found


def _holds_toctree(part: nodes.Node) -> bool:
    return any(isinstance(node, addnodes.toctree) for node in part.findall())


def is_solution(part: nodes.Node) -> bool:
    """Return whether a part of an exercise is its solution, which unfolds."""
    return (
        isinstance(part, nodes.Element)
        and part.get("design_component") == "dropdown"
        and part.next_node(nodes.rubric).astext() == "Solution"
    )


def pages_of(env: BuildEnvironment, chapter: str) -> list[str]:
    """List the pages of text of a chapter, in reading order."""
    below = env.toctree_includes.get(chapter, [])
    return [chapter, *(page for page in below if not page.startswith("gallery/"))]


# --- The directives -------------------------------------------------------------------


class collected(nodes.General, nodes.Element):
    """A placeholder for what is collected once all pages are read."""


class Collect(SphinxDirective):
    """Put a placeholder where something of a chapter is shown."""

    optional_arguments = 1
    option_spec: ClassVar = {"solutions": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Return the placeholder, and depend on every page of the chapter."""
        chapter = self.arguments[0] if self.arguments else ""
        for file in Path(self.env.srcdir).glob(f"{chapter}*.md"):
            self.env.note_dependency(str(file))
        node = collected(
            kind=self.name,
            chapter=chapter,
            docname=self.env.docname,
            solutions="solutions" in self.options,
        )
        self.set_source_info(node)
        return [node]


class Fill(SphinxPostTransform):
    """Replace each placeholder, before the references in it are resolved."""

    default_priority = 5

    def run(self, **kwargs) -> None:
        """Fill the page, or all pages at once in the PDF."""
        kinds = {
            "lesson-plan": self.plan,
            "exercise-sheet": self.sheet,
        }
        for node in list(self.document.findall(collected)):
            make = kinds[node["kind"]] if node["chapter"] else self.table
            parts = list(make(node))
            for part in parts:
                clean(part, node["docname"])
            node.replace_self(parts)

    def plan(self, node: collected) -> Iterator[nodes.Node]:
        """Yield the title, the reading time and the goals of each page."""
        for page in pages_of(self.env, node["chapter"]):
            doctree = self.env.get_doctree(page)
            time, found = minutes(doctree), goals(doctree)
            if time is None or found is None:
                log.warning(
                    "the page needs a box %r with the goals and the reading time, "
                    "such as 'Reading time: about 20 minutes'",
                    BOX,
                    location=page,
                )
                continue
            line = nodes.paragraph("", "", page_link(page))
            line += nodes.Text(f", {time} minutes")
            yield from (line, found.deepcopy())

    def table(self, node: collected) -> Iterator[nodes.Node]:
        """Yield a table of all pages: time, and number of exercises."""
        rows, total, count = [], 0, 0
        for chapter in CHAPTERS:
            for page in pages_of(self.env, chapter):
                doctree = self.env.get_doctree(page)
                time, n_exercise = minutes(doctree) or 0, len(exercises(doctree))
                total, count = total + time, count + n_exercise
                rows.append([page_link(page), str(time), str(n_exercise)])
        rows.append(["All pages", str(total), str(count)])
        yield table(("Page", "Minutes", "Exercises"), rows)

    def sheet(self, node: collected) -> Iterator[nodes.Node]:
        """Yield the exercises of each page under its title."""
        for page in pages_of(self.env, node["chapter"]):
            found = exercises(self.env.get_doctree(page))
            if not found:
                continue
            title = nodes.paragraph("", "From the page ", classes=["sheet-page"])
            title += [page_link(page), nodes.Text(":")]
            yield title
            for part in (part for exercise in found for part in exercise):
                if is_solution(part):
                    if node["solutions"]:
                        copy = part.deepcopy()
                        copy["opened"] = True
                        yield copy
                else:
                    yield part.deepcopy()


def table(head: tuple[str, ...], rows: list[list]) -> nodes.table:
    """Build a table whose cells are text or nodes."""
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=60 if i == 0 else 20) for i in range(len(head))]
    for kind, lines in ((nodes.thead, [list(head)]), (nodes.tbody, rows)):
        part = kind()
        for line in lines:
            row = nodes.row()
            for cell in line:
                content = nodes.Text(cell) if isinstance(cell, str) else cell
                row += nodes.entry("", nodes.paragraph("", "", content))
            part += row
        group += part
    return nodes.table("", group)


def clean(part: nodes.Node, docname: str) -> None:
    """Make a copy fit for its page: no ID is there twice, and links start from it."""
    for node in part.findall(nodes.Element):
        node["ids"], node["names"] = [], []
        if isinstance(node, addnodes.pending_xref):
            node["refdoc"] = docname
        if isinstance(node, nodes.math_block):
            node["label"] = node["number"] = None
            node["docname"] = docname
    for index in list(part.findall(addnodes.index)):
        index.parent.remove(index)


class FigureList(SphinxDirective):
    """All figures of the gallery pages of a chapter, small, with their captions."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a paragraph for each page and a list of its figures."""
        source = Path(self.env.srcdir, "gallery")
        folder = f"{CHAPTERS.index(self.arguments[0]) + 1}_{self.arguments[0]}"
        found: list[nodes.Node] = []
        for page in sorted((source / folder).glob("plot_*.rst")):
            self.env.note_dependency(str(page))
            docname = page.relative_to(self.env.srcdir).with_suffix("").as_posix()
            title = nodes.paragraph("", "From the page ", classes=["sheet-page"])
            title += [page_link(docname), nodes.Text(":")]
            parts = [self.entry(figure) for figure in figures_of(page.read_text())]
            found += [title, *parts] if parts else []
        return found

    def entry(self, figure: tuple[str, str, str, list[str]]) -> nodes.container:
        """Return the image with the number and the text of its caption."""
        uri, words, caption, _ = figure
        image = nodes.image(uri=uri, alt=words, classes=["slide"], loading="lazy")
        text = nodes.paragraph()
        if caption:
            name = f"fig-{Path(uri).stem.removeprefix('sphx_glr_')}".replace("_", "-")
            text += addnodes.pending_xref(
                "",
                nodes.inline("", name),
                refdomain="std",
                reftype="numref",
                reftarget=name,
                refexplicit=False,
                refwarn=True,
                refdoc=self.env.docname,
            )
            text += nodes.Text(". ")
            text += self.parse_inline(MATH.sub(r"$\1$", caption))[0]
        else:
            text += nodes.Text(words)
        box = nodes.container("", image, text, classes=["figure-entry"])
        self.set_source_info(image)
        self.set_source_info(text)
        return box


def connect(app: Sphinx) -> None:
    """Register the directives, and fill in what they collect."""
    app.add_node(collected)
    app.add_directive("lesson-plan", Collect)
    app.add_directive("exercise-sheet", Collect)
    app.add_directive("figure-list", FigureList)
    app.add_post_transform(Fill)
