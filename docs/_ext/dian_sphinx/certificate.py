"""The directive ``certificate``: the mutation certificate, read from its record.

It writes a paragraph and a table with a row for each module, in which every number is
read from the record, and lists the mutants that survived with the reasons.
"""

from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dian.runs.record import Record
from dian_sphinx.api import READING_ORDER
from dian_sphinx.records import depend_on, names, read, row

NAME = "mutation-certificate"
NONE = "There is no certificate of the present code yet."
COLUMNS = {
    "mutants": ("Mutants", ".0f"),
    "by-claims": ("Killed by claims", ".0f"),
    "by-tests": ("By tests", ".0f"),
    "survived": ("Survived", ".0f"),
    "killed": ("Killed", ".1%"),
    "killed-by-claims": ("By claims alone", ".1%"),
}
"""Metrics of a module, their titles, and how each is written."""


class Certificate(SphinxDirective):
    """All figures of the certificate, and its survivors."""

    def run(self) -> list[nodes.Node]:
        """Return them, or say that there is no such record."""
        if NAME not in names():
            return [nodes.paragraph("", NONE)]
        depend_on(self.env, NAME)
        record = read(NAME)
        lines = [*_summary(), "", *_table(record), "", *_survivors(record), ""]
        lines += [f"```{{provenance}} {NAME}", "```"]
        return self.parse_text_to_nodes("\n".join(lines))


def _value(path: str, form: str) -> str:
    return f"{{result}}`{NAME}/{path}:{form}`"


def _summary() -> Iterator[str]:
    n = {name: _value(f"all/{name}", form) for name, (_, form) in COLUMNS.items()}
    halves = [_value(f"half-{i}/killed", ".1%") for i in (1, 2)]
    yield (
        f"**{n['killed']} of {n['mutants']} generic mutants are killed**: "
        f"{n['by-claims']} by a claim, {n['by-tests']} by a test of the module, and "
        f"{n['survived']} survive. Of the mutants in statements that a claim executes, "
        f"claims alone kill {n['killed-by-claims']}. In two random halves of the "
        f"mutants, the fraction that is killed is {halves[0]} and {halves[1]}."
    )


def _table(record: Record) -> Iterator[str]:
    yield row(["Module", *(title for title, _ in COLUMNS.values())])
    yield row("---" for _ in range(1 + len(COLUMNS)))
    for module in modules_of(record):
        scope = module.removeprefix("dian.")
        paths = {f"{scope}/{name}": form for name, (_, form) in COLUMNS.items()}
        cells = (_value(p, f) if p in record.metrics else "" for p, f in paths.items())
        yield row([f"{{py:mod}}`{scope} <{module}>`", *cells])


def modules_of(record: Record) -> list[str]:
    """List the modules that were mutated, in the order of the chapters."""

    def place(module: str) -> tuple[int, str]:
        return READING_ORDER.index(module.split(".")[1]), module

    return sorted(record.content["mutants"], key=place)


def _survivors(record: Record) -> Iterator[str]:
    """Yield a folded list for each module that has survivors."""
    survivors = record.content["survivors"]
    for module in filter(survivors.get, modules_of(record)):
        yield f":::{{dropdown}} Mutants of {module} that survive"
        for function, reasons in survivors[module].items():
            yield f"- `{function}`"
            for text, reason in reasons.items():
                yield f"  - `{text}`: {reason}"
        yield ":::"
        yield ""


def connect(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("certificate", Certificate)
