"""The directive ``benchmarks``: cases of a record of times, with their goals.

It names a record, and its content the cases, one a line, in the order of the rows::

    ```{benchmarks} benchmarks-cpu
    rnn-256
    ```

The directive ``builds`` does the same for a record of builds of the site.
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dian.runs.record import Record
from dian_sphinx.records import depend_on, names, read, row
from dian_sphinx.wording import mark, own, tr

HEAD = (
    mark("Work"),
    mark("Beside"),
    mark("Ours"),
    mark("Theirs"),
    mark("Ratio"),
    mark("Goal"),
    mark("Met"),
)
PEERS = {
    "a-copy": mark("a copy"),
    "the-network-alone": mark("the network alone"),
    "the-plain-formula": mark("the plain formula"),
    "transformers-tables-given": mark("transformers, tables given"),
}
"""Sides that are called otherwise than in the record."""
BUILDS = (
    mark("Build"),
    mark("Seconds"),
    mark("Peak memory, MiB"),
    mark("Pages read"),
    mark("Scripts run"),
)
WHAT = {
    "cold": mark("cold"),
    "warm": mark("nothing changed"),
    "prose-edit": mark("a sentence in a page"),
    "gallery-edit": mark("a sentence in a script of the gallery"),
    "library-edit": mark("a line in a module of the library"),
}
NONE = mark("Not measured yet.")


class Benchmarks(SphinxDirective):
    """A table: a row for each side that ours was timed beside."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the table, or say that there is no such record."""
        name = self.arguments[0]
        if name not in names():
            return own([nodes.paragraph("", tr(NONE))])
        depend_on(self.env, name)
        record = read(name)
        cases = [line for line in self.content if line] or cases_of(record)
        rows = [row(map(tr, HEAD)), row("---" for _ in HEAD)]
        for case in cases:
            rows += [row(cells) for cells in rows_of(record, case)]
        return own(self.parse_text_to_nodes("\n".join(rows)))


class Builds(SphinxDirective):
    """A table: a row for each build, and under it where the numbers are from."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return both, or say that there is no such record."""
        name = self.arguments[0]
        if name not in names():
            return own([nodes.paragraph("", tr(NONE))])
        depend_on(self.env, name)
        rows = [row(map(tr, BUILDS)), row("---" for _ in BUILDS)]
        for key, title in WHAT.items():
            path = f"{{result}}`{name}/{key}"
            cells = (f"{path}/{n}:.0f`" for n in ("seconds", "mib", "pages", "scripts"))
            rows.append(row([tr(title), *cells]))
        line = ["", f"```{{provenance}} {name}", "```"]
        return own(self.parse_text_to_nodes("\n".join([*rows, *line])))


def cases_of(record: Record) -> list[str]:
    """Name the cases of a record."""
    return sorted({key.partition("/")[0] for key in record.metrics} - {"limits"})


def peers_of(record: Record, case: str) -> list[str]:
    """Name the sides beside ours, those with a goal first."""
    found = [
        key.split("/")[1]
        for key in record.metrics
        if key.startswith(f"{case}/") and key.endswith("/ratio")
    ]
    return sorted(found, key=lambda peer: f"{case}/{peer}/goal" not in record.metrics)


def rows_of(record: Record, case: str):
    """Yield the cells of each row; every number is a role ``result``."""
    title = record.value(f"settings/{case}")
    what, _, unit = title.rpartition(" (")
    unit = unit.removesuffix(")")
    for peer in peers_of(record, case):
        key = f"{case}/{peer}"

        def value(path: str, form: str) -> str:
            return f"{{result}}`{record.name}/{path}:{form}`"

        goal = mark = ""
        if f"{key}/goal" in record.metrics:
            goal = tr("at least {goal}", goal=value(f"{key}/goal", ".3g"))
            met = record.value(f"{key}/ratio") >= record.value(f"{key}/goal")
            mark = "✓" if met else "✗"
        ratio = value(f"{key}/ratio", ".2f")
        low, high = (value(f"{key}/{end}", ".2f") for end in ("low", "high"))
        yield (
            what,
            tr(PEERS[peer]) if peer in PEERS else peer,
            f"{value(f'{case}/ours', _form(record, f'{case}/ours'))} {unit}",
            f"{value(f'{key}/theirs', _form(record, f'{key}/theirs'))} {unit}",
            tr("{ratio} ({low} to {high})", ratio=ratio, low=low, high=high),
            goal,
            mark,
        )
        what = ""


def _form(record: Record, path: str) -> str:
    """Write large numbers without an exponent."""
    return ",.0f" if record.value(path) >= 1000 else ".3g"


def connect(app: Sphinx) -> None:
    """Register the directives."""
    app.add_directive("benchmarks", Benchmarks)
    app.add_directive("builds", Builds)
