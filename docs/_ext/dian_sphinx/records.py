r"""Recorded runs on the site: their numbers in the text, and the list of all runs.

Only records that are intact and up to date are shown. All of them are verified before
anything else, so that a build fails even if no page has to be read.

The role ``result`` reads a number from a record, so that none is typed by hand:
``{result}`rnn-fashion-mnist/test/accuracy:.1%` `` in MyST, or
``:result:`rnn-fashion-mnist/test/accuracy:.1%` `` in a gallery script. It names the
record, the path of the value and a format as in Python's :func:`format`.

The directive ``runs`` lists every record.
"""

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from dian.errors import DianError
from dian.runs.code_hash import source_key
from dian.runs.freshness import stale, why_stale
from dian.runs.record import RECORDED, Record, load, record_names
from dian_sphinx.editions import is_source
from dian_sphinx.wording import mark, own, tr

log = logging.getLogger(__name__)
FOLDER = RECORDED
PAGE = "reproducing"  # the page that lists all runs

MANY = 12  # metrics, beyond which their table is folded

# A decimal number or a percentage. Whole numbers may be typed: "28 steps".
TYPED_NUMBER = re.compile(r"\d*\.\d+|\d+\s?(?:%|per ?cent)")
# Their content is code, a formula or the name of something.
NOT_PROSE = (nodes.literal, nodes.math, nodes.reference, nodes.footnote_reference)
HEAD = (
    mark("Run"),
    mark("Result"),
    mark("Seeds"),
    mark("Time"),
    mark("Date"),
    mark("Up to date"),
)
METRICS = (
    mark("Metric"),
    mark("Mean"),
    mark("Standard deviation"),
    mark("Minimum"),
    mark("Maximum"),
)
HEADLINES = (
    mark("accuracy"),
    mark("accuracy at the training length"),
    mark("Fréchet distance"),
)
"""How the result of a record begins; a number follows."""


# --- Reading ------------------------------------------------------------------------


def names() -> list[str]:
    """List the recorded runs."""
    return record_names(FOLDER)


@functools.cache
def read(name: str) -> Record:
    """Load and verify a record, once per process."""
    return load(name, FOLDER)


def files_of(name: str) -> list[Path]:
    """List the files of a record."""
    return sorted(p for p in (FOLDER / name).rglob("*") if p.is_file())


def depend_on(env: BuildEnvironment, name: str) -> None:
    """Have the current page read again when the record changes."""
    for file in files_of(name):
        env.note_dependency(str(file))


def verify_all(app: Sphinx, config) -> None:
    """Stop the build if a record must not be shown; name it and the pages that do."""
    read.cache_clear()
    if not is_source(config):
        return  # the English edition, which is built first, has verified them
    problems = [
        f"{problem} (shown by {', '.join(_pages_with(app, name)) or 'no page'})"
        for name in names()
        if (problem := why_stale(name, FOLDER))
    ]
    if problems:
        # An exception of Sphinx would bury these lines in a traceback.
        raise SystemExit("\n".join(problems))


def _pages_with(app: Sphinx, name: str) -> Iterator[str]:
    """Name the pages and gallery scripts whose source mentions a record."""
    root = Path(app.srcdir).parent
    for pattern in ("docs/*.md", "gallery/**/*.py"):
        for page in sorted(root.glob(pattern)):
            if name in page.read_text("utf-8"):
                yield str(page.relative_to(root))


def reread_lists(app: Sphinx, env, added, changed, removed) -> set[str]:
    """Read the pages that list, count or show runs again if one is new or gone."""
    old, env.recorded_names = getattr(env, "recorded_names", names()), names()
    pages = {PAGE, "abstract", "benchmarks", "one_core", "verification"}
    return pages & env.found_docs if old != env.recorded_names else set()


# --- The role ``result`` ------------------------------------------------------------


class Result(SphinxRole):
    """Write a value of a record in the given format."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the formatted value, or the text of the role after a warning."""
        path, _, form = self.text.partition(":")
        name, _, key = path.partition("/")
        try:
            text = formatted(read(name).value(key), form)
        except (DianError, ValueError, TypeError) as error:
            place = self.get_location()
            log.warning("result %s: %s", self.text, error, location=place)
            return [nodes.problematic(self.rawtext, self.text)], []
        depend_on(self.env, name)
        return [nodes.inline(self.rawtext, text, classes=["result"])], []


def formatted(value: float | int | str, form: str) -> str:
    """Format a value.

    >>> formatted(0.86912, ".1%"), formatted(128, ""), formatted(0.1, "")
    ('86.9%', '128', '0.1')
    """
    if form:
        return format(value, form)
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_prose(app: Sphinx, doctree: nodes.document) -> None:
    """Warn of every number that was typed beside one that is read from a record."""
    for block in _blocks_with_results(doctree):
        for text in _prose(block):
            for number in TYPED_NUMBER.findall(text.astext()):
                log.warning(
                    "typed number %r: numbers in a results sentence come from a record",
                    number.strip(),
                    location=text.parent,
                )


def _blocks_with_results(doctree: nodes.document) -> list[nodes.Element]:
    """Find the paragraphs and table rows that hold a result, each once."""
    blocks = []
    for node in doctree.findall(nodes.inline):
        if "result" in node["classes"]:
            block = _around(node, nodes.row) or _around(node, nodes.TextElement)
            if block is not None and block not in blocks:
                blocks.append(block)
    return blocks


def _prose(block: nodes.Element) -> Iterator[nodes.Text]:
    """Yield the text nodes of a block that are prose.

    A cell of a table that cites its source holds a published number, which may be
    typed.
    """
    for text in block.findall(nodes.Text):
        parents = list(_parents(text, block))
        cell = next((p for p in parents if isinstance(p, nodes.entry)), None)
        if cell is not None and any(map(_is_citation, cell.findall())):
            continue
        if not any(
            isinstance(p, NOT_PROSE) or _is_citation(p) or "result" in p["classes"]
            for p in parents
        ):
            yield text


def _is_citation(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Element) and node.get("refdomain") == "cite"


def _around(node: nodes.Node, kind: type) -> nodes.Element | None:
    """Return the nearest ancestor of a kind that is not inline markup."""
    for parent in _parents(node, None):
        if isinstance(parent, kind) and not isinstance(parent, nodes.Inline):
            return parent
    return None


def _parents(node: nodes.Node, last: nodes.Node | None) -> Iterator[nodes.Element]:
    parent = node.parent
    while parent is not None and parent is not last:
        yield parent
        parent = parent.parent


# --- The directive ``runs`` -----------------------------------------------------------


def label(name: str) -> str:
    """Return the label of a record on the page that lists all runs."""
    return f"run-{name}"


class Runs(SphinxDirective):
    """A table of all records, then a section on each."""

    def run(self) -> list[nodes.Node]:
        """Return the table and the sections, to which other pages link."""
        every = [read(name) for name in names()]
        for record in every:
            depend_on(self.env, record.name)
        rows = [row(map(tr, HEAD)), row("---" for _ in HEAD), *map(_summary, every)]
        table = self.parse_text_to_nodes("\n".join(rows))
        return own([*table, *map(self.section, every)])

    def section(self, record: Record) -> nodes.section:
        """Return a section with the results, the command and the settings."""
        title = nodes.title("", record.name)
        section = nodes.section("", title, names=[label(record.name)])
        lines = _details(record, Path(self.env.srcdir))
        section += self.parse_text_to_nodes("\n".join(lines))
        self.state.document.note_explicit_target(section)
        return section


def row(cells) -> str:
    """Write a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _summary(record: Record) -> str:
    # An outdated record stops the build, but this page does not rely on that.
    reasons = stale(record)
    return row(
        [
            f"{{ref}}`{record.name} <{label(record.name)}>`",
            headline(record.headline) or tr("see below"),
            str(len(record.seeds)),
            duration(record.seconds),
            record.started[:10],
            tr("no: {reasons}", reasons=", ".join(reasons)) if reasons else tr("yes"),
        ]
    )


def headline(text: str) -> str:
    """Translate the words of a result such as ``accuracy 0.9``."""
    number = re.search(r" \d", text)
    return f"{tr(text[: number.start()])}{text[number.start() :]}" if number else text


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it.

    >>> duration(49.6), duration(400), duration(9000)
    ('50 s', '6.7 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _details(record: Record, source: Path) -> list[str]:
    curve = record.loss_curve()
    return [
        *_results(record),
        *(
            [
                "```{raw} html",
                "<p>" + tr("Training loss by epoch: {curve}", curve=curve) + "</p>",
                "```",
            ]
            * bool(curve)
        ),
        *_use(record, source),
        ":::{dropdown} " + tr("Settings and environment"),
        *_settings(record),
        ":::",
    ]


def _results(record: Record) -> list[str]:
    """List the metrics, and their spread if there are several seeds."""
    several = len(record.seeds) > 1
    head = [tr(one) for one in METRICS] if several else [tr("Metric"), tr("Value")]
    rows = []
    for key, values in record.metrics.items():
        spread = [values.std(ddof=1), values.min(), values.max()] if several else []
        cells = (f"{value:.4g}" for value in [values.mean(), *spread])
        rows.append(row([f"`{key}`", *cells]))
    table = [row(head), row("---" for _ in head), *rows]
    if len(rows) > MANY:
        title = tr("{n} metrics", n=len(rows))
        return [f":::{{dropdown}} {title}", *table, ":::", ""]
    return [*table, ""]


def _use(record: Record, source: Path) -> list[str]:
    """Show how to load the record, where its weights are, and how to train it again."""
    lines = ["```python", f'record = dian.load("{record.name}")']
    if record.replay:
        lines += ["model = record.model()"]
    lines += ["```", ""]
    if "weights.safetensors" in record.content["files"]:
        file = record.folder / "weights.safetensors"
        size = f"{file.stat().st_size / 1e3:.0f} kB"
        # A path that begins with / starts at the folder of the sources.
        path = f"/{os.path.relpath(file, source)}"
        title = tr("The weights of the first seed")
        end = tr(" ({size}).", size=size)
        lines += [f"{{download}}`{title} <{path}>`{end}", ""]
    return [*lines, "```console", f"$ {record.command}", "```", ""]


def _settings(record: Record) -> list[str]:
    environment, time = record.content["environment"], duration(record.seconds)
    return [
        row([tr("Setting"), tr("Value")]),
        "|---|---|",
        *(row([f"`{k}`", formatted(v, "")]) for k, v in record.settings.items()),
        row([tr("seeds"), ", ".join(map(str, record.seeds))]),
        row([tr("device"), record.device]),
        row([tr("commit"), f"`{record.commit}`"]),
        row([tr("started"), record.started]),
        row([tr("duration"), tr("{time}, all seeds together", time=time)]),
        row([tr("versions"), "Python {python}, PyTorch {torch}".format(**environment)]),
        row([tr("up to date"), _why_fresh(record)]),
    ]


def _why_fresh(record: Record) -> str:
    reasons = stale(record)
    if reasons:
        return tr("no: {reasons}", reasons=", ".join(reasons))
    if not record.content["replay"]:
        return tr("yes: the code that was measured has not changed since")
    today = source_key(record.content["module"])
    if today == record.content["key"]["modules"]:
        return tr("yes: its code has not changed since")
    proofs = (p for p in record.content["proofs"] if p["modules"] == today)
    last = list(proofs)[-1]
    # All 40 digits in one line with the words would not fit into the column on paper.
    commit = re.sub(r"^([0-9a-f]{10})[0-9a-f]+", r"\1", last["commit"])
    return tr(
        "yes: replayed on {date}, with the code of {commit}",
        date=last["date"][:10],
        commit=f"`{commit}`",
    )


def connect(app: Sphinx) -> None:
    """Verify all records as soon as the settings are read."""
    app.connect("config-inited", verify_all)
    app.connect("env-get-outdated", reread_lists)
    app.add_role("result", Result())
    app.connect("doctree-read", check_prose)
    app.add_directive("runs", Runs)
