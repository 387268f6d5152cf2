"""The directive ``runs``: every recorded run, for the page on reproducing them."""

from docutils import nodes
from provenance import PAGE, label
from recorded import depend_on, names, read
from results import written
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dian.runs import record as records
from dian.runs.code_hash import source_key

HEAD = ("Run", "Device", "Date", "Seeds", "Seconds", "Fresh")


class Runs(SphinxDirective):
    """A table of all records, then a section on each."""

    def run(self) -> list[nodes.Node]:
        """Return the table and the sections; pages link to these."""
        every = [read(name) for name in names()]
        for record in every:
            depend_on(self.env, record.name)
        rows = [_row(HEAD), _row("---" for _ in HEAD), *map(_summary, every)]
        return [*self.parse_text_to_nodes("\n".join(rows)), *map(self.section, every)]

    def section(self, record: records.Record) -> nodes.section:
        """Write what it takes to make a record again."""
        title = nodes.title("", record.name)
        section = nodes.section("", title, names=[label(record.name)])
        section += self.parse_text_to_nodes("\n".join(_details(record)))
        self.state.document.note_explicit_target(section)
        return section


def _summary(record: records.Record) -> str:
    # A stale record stops the build, but this page must not rely on that.
    reasons = records.stale(record)
    return _row(
        [
            f"{{ref}}`{record.name} <{label(record.name)}>`",
            record.device,
            record.started[:10],
            str(len(record.seeds)),
            f"{record.seconds:.0f}",
            f"no: {', '.join(reasons)}" if reasons else "yes",
        ]
    )


def _details(record: records.Record) -> list[str]:
    return [
        "```console",
        f"$ {record.command}",
        "```",
        "",
        "| Setting | Value |",
        "|---|---|",
        *(_row([f"`{k}`", written(v, "")]) for k, v in record.settings.items()),
        _row(["seeds", ", ".join(map(str, record.seeds))]),
        _row(["device", record.device]),
        _row(["commit", f"`{record.commit}`"]),
        _row(["started", record.started]),
        _row(["took", f"{record.seconds:.0f} s, all seeds together"]),
        _row(["with", _versions(record.content["environment"])]),
        _row(["fresh", _why_fresh(record)]),
    ]


def _versions(environment: dict) -> str:
    return f"Python {environment['python']}, PyTorch {environment['torch']}"


def _why_fresh(record: records.Record) -> str:
    reasons = records.stale(record)
    if reasons:
        return f"no: {', '.join(reasons)}"
    if not record.content["replay"]:
        return "yes: what was timed has not changed since"
    today = source_key(record.content["module"])
    if today == record.content["key"]["modules"]:
        return "yes: its code has not changed since"
    proofs = (p for p in record.content["proofs"] if p["modules"] == today)
    last = list(proofs)[-1]
    return f"yes: replayed on {last['date'][:10]}, with the code of `{last['commit']}`"


def _row(cells) -> str:
    return f"| {' | '.join(cells)} |"


def watch_names(app: Sphinx, env, added, changed, removed) -> set[str]:
    """Read the pages that list or count the runs again when one is new or gone."""
    old, env.recorded_names = getattr(env, "recorded_names", names()), names()
    return {PAGE, "index"} & env.found_docs if old != env.recorded_names else set()


def setup(app: Sphinx) -> dict:
    """Register the directive."""
    app.setup_extension("provenance")
    app.add_directive("runs", Runs)
    app.connect("env-get-outdated", watch_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
