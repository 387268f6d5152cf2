"""The command line: ``python -m dian --help``."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from json import dumps as to_json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from dian.claims import cache as ledger
from dian.claims import verify as verifier
from dian.errors import DianError
from dian.pages import Page
from dian.runs import audit as auditor
from dian.runs import environment as machine
from dian.runs import record as records
from dian.runs import runlog
from dian.runs import train as runner
from dian.runs.audit import Found
from dian.runs.runlog import Entry, Report, RunLog, describe
from dian.training import distributed

app = typer.Typer(
    help="Train, replay, audit and verify what the report shows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Argument(help="Name of an experiment; `list` shows them.")]
Commit = Annotated[
    str | None, typer.Option(help="Commit to write down where git is not at hand.")
]


shown = {"traceback": False}


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Take the options of all commands."""
    shown["traceback"] = debug


@app.command("list")
def list_() -> None:
    """List the experiments, and whether each is recorded."""
    recorded = records.names()
    for name in runner.experiments():
        print(f"{name:32} {'recorded' if name in recorded else 'not recorded'}")


@app.command()
def train(
    name: Name,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A trial of seconds on the bundled sample.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write records to.")
    ] = None,
    commit: Commit = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted training.")
    ] = False,
) -> None:
    """Train an experiment and write its record.

    Only a full run replaces a record in dian/recorded; a quick one, or one with
    another number of seeds, goes to runs/ here, unless --out says otherwise.

    Several devices: torchrun --nproc-per-node=N -m dian train NAME.
    """
    experiment = runner.find(name)
    full = not quick and seeds in (None, experiment.n_seed)
    folder = out or (records.FOLDER if full else Path("runs"))
    if quick and folder.resolve() == records.FOLDER:
        raise DianError("--quick never overwrites a recorded run; choose another --out")
    machine.device(device)  # refused before the bar is drawn
    with _progress(name) as report:
        record = runner.train(
            name,
            folder / name,
            device=device,
            n_seed=seeds,
            quick=quick,
            commit=commit,
            resume=resume,
            report=report,
        )
    if record is None:
        return  # the first process tells
    for key, values in record.metrics.items():
        spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
        print(f"{key:18} {values.mean():.4f}{spread}")
    print(f"{record.provenance}\nwritten to {record.folder}")


@app.command()
def watch(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(help="Folder that the records are written to.")
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Tell how far it is, and end.")
    ] = False,
) -> None:
    """Follow a training that goes on in another process."""
    runner.find(name)
    folders = (out,) if out else (records.FOLDER, Path("runs"))
    logs = [runner.working_folder(f / name) / runner.LOG for f in folders]
    log = next((log for log in logs if log.exists()), logs[0])
    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            entries = runlog.read(log)
            if not entries:
                raise DianError(f"{log}: no step is done yet; try again in a moment")
            part = [e for e in entries if e["part"] == entries[-1]["part"]]
            # What was done before an interruption says nothing of the speed.
            begin = max(n for n, e in enumerate(part) if n == 0 or not e["seconds"])
            told = describe(part[-1], part[begin])
            drawn = runlog.curve([e["loss"] for e in part])
            live.update(Text(f"{name}, {told}\n{drawn}"), refresh=True)
            time.sleep(0 if once else 1)
            if once or not log.exists():
                return


@app.command()
def revalidate(
    names: Annotated[
        list[str] | None, typer.Argument(help="Records. Default: all that are stale.")
    ] = None,
    commit: Commit = None,
) -> None:
    """Replay records with today's code, and store the proof that they still hold."""
    for name in names or filter(_replayable, records.names()):
        proof = runner.revalidate(name, commit=commit)
        agrees = f"the replay agrees within {proof['residual']:.1e}"
        print(f"record {name} is fresh: {agrees}", flush=True)


def _replayable(name: str) -> bool:
    """Tell whether a record is stale and a replay can help, and if not, what can."""
    record = records.load(name)
    if not records.stale(record):
        return False
    if not record.content["replay"]:
        print(f"record {name} is stale, and holds times: run {record.command}")
    return bool(record.content["replay"])


@app.command()
def audit(
    names: Annotated[
        list[str] | None, typer.Argument(help="Records. Default: all, and all pages.")
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Repeat each in little on this machine.")
    ] = False,
    records_only: Annotated[
        bool, typer.Option("--records", help="Leave the pages of the gallery out.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Tell of every record and page whether it is fresh, stale or damaged.

    The status is 0 if none is stale or damaged, and no replay differs.
    """
    wanted = names or records.names()
    with _bar() as progress:
        looks = auditor.look(wanted, replay=replay)
        steps = progress.track(looks, total=len(wanted), description="auditing")
        found = list(steps)
    drawn = [] if names or records_only else auditor.look_at_pages(found)
    if json:
        print(to_json({"records": found, "pages": drawn}, indent=1))
    else:
        _print_audit(found, drawn, replay=replay)
    if bad := [one["problem"] for one in [*found, *drawn] if one["problem"]]:
        raise DianError("\ndian: ".join(bad))


def _print_audit(found: list[Found], drawn: list[Page], *, replay: bool) -> None:
    """Draw the table of records, and that of the pages."""
    table = Table("record", "state", "trained on", "date", "other versions since")
    if replay:
        table.add_column("replay")
    for one in found:
        row = [one["name"], one["state"], one["device"], one["date"]]
        row.append(", ".join(one["versions"]))
        if one["replay"] is not None:
            row.append(f"{one['replay']:.2g} of what is allowed")
        table.add_row(*row)
    Console().print(table)
    if drawn:
        table = Table("page of the gallery", "state", "made of")
        for page in drawn:
            shown = ", ".join(page["records"]) or "computed while it is built"
            table.add_row(page["name"], page["state"], shown)
        Console().print(table)


@app.command()
def verify(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Claims (R5), chapters (rnn) or equations (eq-mask, 17). Default: all."
        ),
    ] = None,
    mutants: Annotated[
        bool, typer.Option("--mutants", help="Run the mutants, too.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    results: Annotated[
        Path | None,
        typer.Option(help="File to keep results in: only what changed is checked."),
    ] = None,
) -> None:
    """Check the claims of the report, and that each check can fail."""
    if results and ids:
        raise DianError("--results keeps the results of all claims: name none of them")
    if results:
        # What is kept includes the mutants.
        reports = ledger.renew(results, lambda changed: _verify(changed, mutants=True))
    else:
        reports = _verify(ids or [], mutants=mutants)
    print(to_json(reports, indent=1) if json else _table(reports))
    failed = [f"{r['id']} ({_found(r)})" for r in reports if not r["passed"]]
    survived = [
        f"{r['id']} ({m['what']}: {m['by']})"
        for r in reports
        for m in r["mutants"]
        if not m["caught"]
    ]
    if failed:
        raise DianError(f"claims that do not hold: {', '.join(failed)}")
    if survived:
        raise DianError(f"mutants that survived: {', '.join(survived)}")


def _verify(names: Iterable[str], *, mutants: bool) -> list[dict]:
    claims = verifier.find(names)
    with _bar() as progress:
        steps = progress.track(claims, description="verifying")
        return [verifier.report(claim, mutants=mutants) for claim in steps]


def _bar() -> Progress:
    """Make a bar for a terminal, which leaves nothing behind, and nothing elsewhere."""
    away = not sys.stderr.isatty()
    return Progress(console=Console(stderr=True), transient=True, disable=away)


def _found(report: dict) -> str:
    """Say what a check found: a residual, or why there is none."""
    return report["error"] or f"residual {report['residual']:.1e}"


def _table(reports: list[dict]) -> str:
    """Draw the table of all claims, and count them."""
    table = Table("ID", "statement", "kind", "residual", "tolerance", "seconds", "")
    for r in reports:
        mark = "✓" if r["passed"] else "✗"
        row = (r["id"], r["title"], r["kinds"], _found(r), f"{r['tolerance']:.0e}")
        table.add_row(*row, f"{r['seconds']:.2f}", mark)
    console = Console()
    with console.capture() as drawn:
        console.print(table)
    killed = [m["caught"] for r in reports for m in r["mutants"]]
    held = sum(r["passed"] for r in reports)
    tally = f"{held} claims hold"
    if killed:
        tally += f", {sum(killed)} of {len(killed)} mutants were killed"
    return f"{drawn.get()}{tally}"


@contextmanager
def _progress(name: str) -> Iterator[Report]:
    """Yield what tells of each step: by a bar in a terminal, elsewhere by lines."""
    if distributed.number():
        yield lambda part, done, total, loss: None
        return
    if not sys.stderr.isatty():
        first: dict[str, Entry] = {}

        def tell(entry: Entry) -> None:
            line = describe(entry, first.setdefault(entry["part"], entry))
            print(f"{name}, {line}", file=sys.stderr, flush=True)

        yield RunLog(tell, every=30.0)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps, loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as progress:
        tasks = {}

        def report(part: str, done: int, total: int, loss: float) -> None:
            if part not in tasks:
                tasks[part] = progress.add_task(f"{name}, {part}", total=total, loss=0)
            progress.update(tasks[part], completed=done, loss=loss)

        yield report


def main() -> None:
    """Run the command line; an error of the user's world is one line, no traceback."""
    try:
        app()
    except DianError as error:
        if shown["traceback"]:
            raise
        who = (
            f"dian (process {distributed.number()})" if distributed.number() else "dian"
        )
        print(f"{who}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        if not distributed.number():
            told = "interrupted; a training goes on with --resume"
            print(f"dian: {told}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
