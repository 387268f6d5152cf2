"""The directive ``live-figure``: the HTML of a figure that waits for its button."""

import hashlib
import json
from html import escape
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from dian_sphinx.live import kept
from dian_sphinx.live.offered import CLASSES, KINDS, networks
from dian_sphinx.live.puzzles import PUZZLES
from dian_sphinx.live.spot import spot
from dian_sphinx.wording import CLAIMS, mark, own, said, tr

ROOT = Path(__file__).parents[4]
SCRIPTS = ROOT / "docs/_static/live"
RUNTIME = ROOT / "node_modules/onnxruntime-web/dist"
CAPTIONS = {
    "reader": mark(
        "Try it: a recorded recurrent network reads an image row by row in your "
        "browser. The image never leaves this page."
    ),
    "attention": mark(
        "Try it: a recorded transformer reads all rows of an image at once in "
        "your browser. You can shuffle the rows and remove the positional encoding."
    ),
    "denoise": mark(
        "Try it: a recorded diffusion model generates an image in your browser, "
        "step by step."
    ),
}
TEXT = {
    "run": mark("Run"),
    "no script": mark("Without JavaScript, the recorded result is shown."),
    "on paper": mark("The HTML edition has a figure here that runs in the browser."),
    "invitation": mark(
        "Press <em>Run</em>, and the recorded network reads this image in your browser."
    ),
}


class LiveFigure(SphinxDirective):
    """Place a live figure, by its kind; ``spot`` is followed by a chapter."""

    required_arguments = 1
    optional_arguments = 1
    has_content = True
    option_spec: ClassVar = {"small": directives.flag, "name": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Return the figure, with the result that is shown before it runs."""
        kind, *rest = " ".join(self.arguments).split()
        if kind == "spot":
            return self.placed(*self.puzzle(rest[0] if rest else ""))
        if kind not in KINDS:
            kinds = ", ".join((*KINDS, "spot"))
            raise self.error(f"live-figure: expected one of {kinds}, got {kind}")
        return self.placed(*self.network(kind))

    def puzzle(self, chapter: str) -> list[nodes.Node]:
        """Return the puzzle of a chapter."""
        if chapter not in PUZZLES:
            chapters = ", ".join(PUZZLES)
            raise self.error(
                f"live-figure: expected spot and one of {chapters}, got {chapter!r}"
            )
        file = f"spot-{chapter}.json"
        self.env.note_dependency(str(kept.KEPT / file))
        puzzle = kept.read(file)
        title = said(self.env, CLAIMS, puzzle["title"])
        return [raw(spot(puzzle | {"title": title}))]

    def network(self, kind: str) -> list[nodes.Node]:
        """Return a figure that runs a network."""
        files = [*files_of(kind), f"still-{kind}.json"]
        for path in (*(kept.KEPT / file for file in files), *SCRIPTS.glob("*.js")):
            self.env.note_dependency(str(path))
        self.env.metadata[self.env.docname]["live"] = "yes"
        begin, end = html(kind, small="small" in self.options)
        shown = self.parse_content_to_nodes()
        return [raw(begin), *(shown or [raw(recorded_result(kind))]), raw(end)]

    def placed(self, *parts: nodes.Node) -> list[nodes.Node]:
        """Return the parts of a figure in one box, to which its name leads.

        In LaTeX a box has no anchor, so the name is that of a target. On paper, a
        sentence says that the site shows more.
        """
        places = []
        if "name" in self.options:
            places = [nodes.target()]
            self.add_name(places[0])
        box = nodes.container("", *parts, classes=["live-place"])
        self.set_source_info(box)
        text = say("on paper")
        paper = addnodes.only(expr="latex")
        paper += nodes.paragraph("", "", nodes.emphasis(text, text))
        return [*places, box, *own([paper])]


def say(key: str) -> str:
    """Return one of the texts in the language of the edition."""
    text = TEXT[key]
    return tr(text)


def raw(text: str) -> nodes.raw:
    """Return HTML whose words are translated already."""
    return nodes.raw("", text, format="html", translatable=False)


def html(kind: str, *, small: bool) -> tuple[str, str]:
    """Write a figure: what is before its recorded result, and what is after it."""
    size = "small" if small else "whole"
    invitation = f"<span hidden>{say('invitation')}</span> " if small else ""
    start = (
        f'<p class="live-start"><button type="button" hidden>{say("run")}</button> '
        f'{invitation}<span class="live-status" role="status">'
        f"{escape(say('no script'))}</span></p>"
    )
    begin = (
        f'<figure class="live" data-live="{kind}" data-size="{size}">'
        f'<script type="application/json">{facts(kind)}</script>'
        f'{start if small else ""}<div class="live-still">'
    )
    end = (
        f'</div>{"" if small else start}<div class="live-box"></div>'
        f"<figcaption>{escape(tr(CAPTIONS[kind]))}</figcaption></figure>"
    )
    return begin, end


def recorded_result(kind: str) -> str:
    """Write the recorded result of a figure: a picture, four times as large."""
    still = kept.read(f"still-{kind}.json")
    values = dict(still["values"])
    if name := values.get("name"):
        values["name"] = tr(name)
    said = still["said"]
    text = escape(tr(said, **values))
    return (
        f'<img src="{still["image"]}" alt="{text}" width="{4 * still["width"]}">'
        f"<p>{text}</p>"
    )


def files_of(kind: str) -> list[str]:
    """Return the data files that a figure loads."""
    names = networks(kind)
    files = ["images.js", *(f"{name}.js" for name in names)]
    return files + [f"{name}.onnx" for name in names if kind == "denoise"]


def facts(kind: str) -> str:
    """Return as JSON what the script of a figure may load.

    Each file has a version, so that a browser does not use an old copy.
    """
    content = {
        "scripts": {path.name: _sum(path) for path in sorted(SCRIPTS.glob("*.js"))},
        "data": {name: _sum(kept.KEPT / name) for name in files_of(kind)},
        "networks": {name: tr(text) for name, text in networks(kind).items()},
        "classes": [tr(name) for name in CLASSES],
    }
    if kind == "denoise":
        package = json.loads((RUNTIME.parent / "package.json").read_text("utf-8"))
        content["runtime"] = package["version"]
    return json.dumps(content, separators=(",", ":")).replace("<", r"\u003c")


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]
