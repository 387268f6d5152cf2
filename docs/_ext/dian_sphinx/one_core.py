"""What the recorded runs cost on one CPU core, in tables made from the records.

The directive ``core-time`` lists the trainings and evaluations of a chapter with their
sums, and then, folded, their commands. Without an argument it is a table of the sums of
all chapters::

    ```{core-time} rnn
    ```

The time of a run that was recorded on a CPU is that of its record. That of a run on a
GPU is estimated: the record ``benchmarks-one-core`` holds the measured speed.
"""

import math
from collections.abc import Iterable, Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dian.runs.record import Record
from dian_sphinx.records import depend_on, duration, label, names, read, row
from dian_sphinx.teaching import CHAPTERS
from dian_sphinx.wording import mark, own, tr

ESTIMATES = "benchmarks-one-core"
NIGHT = 8 * 3600
RUNS = (mark("Run"), mark("Seeds"), mark("Recorded on"), mark("One core"))
SUMS = (
    mark("Chapter"),
    mark("Runs on a CPU"),
    mark("One core"),
    mark("Nights of 8 hours"),
    mark("Runs on a GPU"),
    mark("One core, estimated"),
)


class CoreTime(SphinxDirective):
    """A table of the runs of a chapter, or of the sums of all chapters."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table, and the commands of a chapter."""
        chapter = next(iter(self.arguments), None)
        shown = [*map(runs_of, [chapter] if chapter else CHAPTERS)]
        for record in (record for runs in shown for record in runs):
            depend_on(self.env, record.name)
        if ESTIMATES in names():
            depend_on(self.env, ESTIMATES)
        lines = [*table_of_runs(shown[0]), *commands(shown[0])] if chapter else sums()
        return own(self.parse_text_to_nodes("\n".join(lines)))


def runs_of(chapter: str) -> list[Record]:
    """Return the recorded trainings and evaluations of a chapter, the shortest first.

    The other records, such as times, are not of an experiment.
    """
    package = f"dian.experiments.{chapter}."
    found = (read(name) for name in names())
    runs = [one for one in found if one.content["module"].startswith(package)]
    return sorted(runs, key=core_seconds)


def on_a_gpu(record: Record) -> bool:
    """Return whether a run was recorded on a GPU."""
    return record.environment["type"] == "cuda"


def core_seconds(record: Record) -> float:
    """Return the seconds that a run takes on one core; infinity if nothing is known."""
    if not on_a_gpu(record):
        used = record.environment
        return record.seconds * used["threads"] * used.get("processes", 1)
    key = f"{record.name}/hours"
    if ESTIMATES in names() and key in read(ESTIMATES).metrics:
        return 3600 * read(ESTIMATES).value(key)
    return math.inf


def table_of_runs(runs: list[Record]) -> Iterator[str]:
    """Yield the lines of the table of a chapter."""
    yield from (row(map(tr, RUNS)), row("---" for _ in RUNS))
    for record in runs:
        place = record.device.removesuffix(", 1 thread")
        if on_a_gpu(record):
            place = f"{place}: {duration(record.seconds)}"
        link = f"{{ref}}`{record.name} <{label(record.name)}>`"
        yield row([link, str(len(record.seeds)), place, core_time([record])])
    for title, part in (
        (mark("Sum, recorded on a CPU"), [r for r in runs if not on_a_gpu(r)]),
        (mark("Sum, recorded on a GPU"), [*filter(on_a_gpu, runs)]),
    ):
        if part:
            seeds = sum(len(record.seeds) for record in part)
            yield row([f"**{tr(title)}**", str(seeds), "", f"**{core_time(part)}**"])


def core_time(runs: Iterable[Record]) -> str:
    """Write the time of some runs on one core; estimates are marked as such.

    A run of which nothing is known is left out of a sum.
    """
    runs = list(runs)
    known = [record for record in runs if core_seconds(record) < math.inf]
    if not known:
        return tr("not measured") if runs else "—"
    time = duration(sum(map(core_seconds, known))).replace(" ", "\N{NO-BREAK SPACE}")
    return tr("about {time}", time=time) if any(map(on_a_gpu, known)) else time


def commands(runs: list[Record]) -> Iterator[str]:
    """Yield a folded block of commands: trainings first, and then evaluations.

    They write to another folder than that of the records, and so replace none.
    """
    ordered = sorted(runs, key=lambda record: "epochs" not in record.settings)
    yield from ("", ":::{dropdown} " + tr("Commands"), "```console")
    yield from (f"$ {record.command} --out runs" for record in ordered)
    yield from ("```", ":::")


def sums() -> Iterator[str]:
    """Yield the lines of the table of all chapters."""
    yield from (row(map(tr, SUMS)), row("---" for _ in SUMS))
    every = {f"{{doc}}`{chapter}`": runs_of(chapter) for chapter in CHAPTERS}
    every[tr("All chapters")] = [run for runs in every.values() for run in runs]
    for title, runs in every.items():
        gpu = [*filter(on_a_gpu, runs)]
        cpu = [run for run in runs if not on_a_gpu(run)]
        nights = f"{sum(map(core_seconds, cpu)) / NIGHT:.2f}"
        cells = (len(cpu), core_time(cpu), nights, len(gpu), core_time(gpu))
        yield row([title, *map(str, cells)])


def connect(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("core-time", CoreTime)
