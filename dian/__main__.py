"""The command line: ``python -m dian --help``."""

import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from json import dumps as to_json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import dian
from dian.check import folder as submissions
from dian.check import runner as checking
from dian.check import template as templates
from dian.check.checker import ARRAYS
from dian.check.registry import find as find_kind
from dian.check.report import STATUS, UNCHECKED, Report
from dian.claims import cache
from dian.claims import verify as verifier
from dian.errors import DianError
from dian.runs import audit as auditor
from dian.runs import train as runner
from dian.runs.checkpoint import Processes
from dian.runs.environment import select_device
from dian.runs.experiment import experiments, find
from dian.runs.freshness import stale
from dian.runs.progress import reporting
from dian.runs.record import RECORDED, Record, load, record_names
from dian.training import distributed

app = typer.Typer(
    help="Train, inspect, use and verify the recorded networks of the report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Argument(help="Name of an experiment; see `list`.")]
Recorded = Annotated[str, typer.Argument(help="Name of a record; see `list`.")]
Commit = Annotated[
    str | None, typer.Option(help="Commit hash to record if git is unavailable.")
]
shown = {"traceback": False}


def _flag(name: str, help_: str, **options: Any) -> Any:
    """Return the type of an option that is given or not, without a ``--no-`` form."""
    return Annotated[bool, typer.Option(f"--{name}", help=help_, **options)]


def _path(help_: str, *names: str) -> Any:
    """Return the type of an option that names a file or a folder."""
    return Annotated[Path | None, typer.Option(*names, help=help_, callback=_at_home)]


def _at_home(path: Path | None) -> Path | None:
    """Replace ``~``, which a shell leaves in ``--out=~/runs``."""
    return path and Path(os.path.expanduser(path))  # noqa: PTH111  never an error


Source = _path("Folder of the record, such as runs. Default: the package.", "--from")


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"dian {dian.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    debug: _flag("debug", "Show the traceback of an error.") = False,
    version: _flag(
        "version", "Print the version.", callback=_print_version, is_eager=True
    ) = False,
) -> None:
    """Take the options of all commands."""
    shown["traceback"] = debug


@app.command("list")
def list_(
    long: _flag("long", "Add the result, size and time of records.") = False,
) -> None:
    """List the experiments and the records."""
    recorded = set(record_names())
    for name in sorted(recorded | set(experiments())):
        if not long or name not in recorded:
            print(f"{name:36}{'recorded' if name in recorded else 'not recorded'}")
            continue
        record = load(name)
        size = sum(file.stat().st_size for file in record.folder.iterdir()) / 2**20
        print(f"{name:36}{size:5.1f} MiB{record.seconds:8.0f} s   {record.headline}")


@app.command()
def show(name: Recorded, source: Source = None) -> None:
    """Show the results, hyperparameters and origin of a record."""
    record = load(name, source or RECORDED)
    print(repr(record))
    for key, value in record.settings.items():
        print(f"{f'settings/{key}':44}{value}")
    _print_results(record)


def _print_results(record: Record) -> None:
    for key, row in record.metrics.items():
        spread = f" ± {row.std(ddof=1):.4f}" if len(row) > 1 else ""
        print(f"{key:44}{row.mean():.4f}{spread}")
    print(record.provenance)


@app.command()
def sample(
    name: Recorded,
    n: Annotated[int, typer.Option("-n", min=1, help="Number of images.")] = 16,
    out: _path("Image file to write. Default: grid.png, if new.", "-o") = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the sampler.")] = 50,
    eta: Annotated[float, typer.Option(min=0, max=1, help="0: DDIM, 1: DDPM.")] = 0.0,
    label: Annotated[
        str | None, typer.Option(help="Name or number of a class, if it has classes.")
    ] = None,
    guidance: Annotated[float, typer.Option(help="Guidance weight; 0: none.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of all noise.")] = 0,
    source: Source = None,
) -> None:
    """Sample images from a recorded diffusion model, and write them as one image."""
    from dian.figures.plots import save_grid

    out, record = _image_file(out), load(name, source or RECORDED)
    try:
        images = dian.generate(
            record, n, steps=steps, eta=eta, label=label, guidance=guidance, seed=seed
        )
        save_grid(images, out)
    except (ValueError, OSError) as error:  # more steps than the model has
        raise DianError(" ".join(str(error).split())) from None
    except (RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split()) or "out of memory"
        raise DianError(f"{n} images cannot be sampled: {reason}") from None
    print(f"written to {out}")


def _image_file(given: Path | None) -> Path:
    """Check before an image is computed that it can be written."""
    out = given or Path("grid.png")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise DianError(f"{out}: expected the name of a .png or .jpg file")
    if out.is_dir():
        raise DianError(f"{out}: expected the name of a file, and this is a folder")
    if not out.parent.is_dir():
        raise DianError(f"{out}: there is no folder {out.parent}")
    if out.exists() and not given:
        raise DianError(f"{out} exists; name the file to write with -o")
    return out


@app.command()
def predict(
    name: Recorded,
    image: Annotated[
        str,
        typer.Argument(
            help="Image file, 28 x 28 pixels, light on dark; or number of an image of "
            "the bundled test sample."
        ),
    ],
    source: Source = None,
) -> None:
    """Classify an image with a recorded network."""
    from dian.inference import classify, read_image

    pixels, label = read_image(image)
    probabilities = classify(load(name, source or RECORDED), pixels[None])[0]
    for p, index in zip(*(t.tolist() for t in probabilities.topk(3)), strict=True):
        mark = "  (the true class)" if index == label else ""
        print(f"{dian.data.CLASSES[index]:12} {p:6.1%}{mark}")


@app.command()
def train(
    name: Name,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds.")] = None,
    quick: _flag("quick", "A dry run of seconds on bundled images.") = False,
    out: _path("Folder to write records to.") = None,
    commit: Commit = None,
    resume: _flag("resume", "Resume an interrupted training run.") = False,
    tensorboard: _path("Folder to write losses to, for TensorBoard.") = None,
) -> None:
    """Train an experiment and write its record.

    Only a full run replaces a record in dian/recorded; a quick one, or one with
    another number of seeds, goes to runs/ here, unless --out says otherwise.

    Several devices: torchrun --nproc-per-node=N -m dian train NAME.
    """
    experiment = find(name)
    full = not quick and seeds in (None, experiment.n_seed)
    folder = out or (RECORDED if full else Path("runs"))
    if quick and folder.resolve() == RECORDED:
        raise DianError("--quick never overwrites a recorded run; choose another --out")
    select_device(device)  # refused before the bar is drawn
    processes = Processes(
        distributed.rank(),
        distributed.world_size(),
        distributed.process_group,
        distributed.broadcast_from_rank0,
    )
    board = None if processes.rank else tensorboard
    with reporting(name, board) as report:
        options = runner.Options(
            device, seeds, quick, commit, resume, report=report, processes=processes
        )
        record = runner.train(experiment, folder / name, options)
    if record is not None:  # process 0 prints the result
        _print_results(record)
        print(f"written to {record.folder}")


@app.command()
def revalidate(
    names: Annotated[
        list[str] | None, typer.Argument(help="Records. Default: all that are stale.")
    ] = None,
    commit: Commit = None,
) -> None:
    """Replay records with today's code, and store the proof that they still hold."""
    for name in names or filter(_replayable, record_names()):
        proof = runner.revalidate(name, commit=commit)
        agrees = f"the replay agrees within {proof['residual']:.1e}"
        print(f"record {name} is fresh: {agrees}", flush=True)


def _replayable(name: str) -> bool:
    """Whether a record is stale, and a replay can show that it still holds."""
    record = load(name)
    return bool(record.replay and stale(record))


@app.command()
def audit(
    names: Annotated[
        list[str] | None, typer.Argument(help="Records. Default: all.")
    ] = None,
    replay: _flag("replay", "Re-run each experiment at reduced scale.") = False,
    json: _flag("json", "Print JSON.") = False,
) -> None:
    """Report whether each record is fresh, stale or damaged, and what changed.

    The exit status is 0 if all are fresh and no replay differs.
    """
    wanted = names or record_names()
    with _bar() as progress:
        steps = progress.track(wanted, description="auditing")
        found = [auditor.audit(name, replay=replay) for name in steps]
    if json:
        print(to_json([asdict(status) for status in found], indent=1))
    else:
        _print_audit(found)
    if problems := [status.problem for status in found if status.problem]:
        raise DianError("\ndian: ".join(problems))


def _print_audit(found: list[auditor.Status]) -> None:
    heads = ("record", "state", "trained on", "date", "other versions now", "replay")
    table = Table(*heads)
    for status in found:
        replay = "" if status.replay is None else f"{status.replay:.2g} tolerances"
        row = (status.name, status.state, status.device, status.date)
        table.add_row(*row, ", ".join(status.versions), replay)
    Console().print(table)


@app.command()
def verify(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Claims (R5), chapters (rnn), equations (eq-mask, 1.17). Default: all."
        ),
    ] = None,
    mutants: _flag("mutants", "Run the mutants, too.") = False,
    json: _flag("json", "Print JSON.") = False,
    results: _path("File that keeps results: only what changed is checked.") = None,
    coverage: _flag(
        "coverage", "Instead, list the checks of every function that records run."
    ) = False,
) -> None:
    """Verify the claims of the report, and that each check can fail.

    With --coverage the arguments are names of records. A function is covered if a claim
    or a test kills a mutant of it; the exit status is 0 if all are.
    """
    if coverage:
        _cover(ids or [], json=json)
        return
    if results and ids:
        raise DianError("--results keeps the results of all claims: name none of them")
    if results:
        # Results that are kept include the mutants.
        reports = cache.renew(results, lambda changed: _verify(changed, mutants=True))
    else:
        reports = _verify(ids or [], mutants=mutants)
    if json:
        print(to_json(reports, indent=1))
    else:
        _print_claims(reports)
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


def _cover(names: list[str], *, json: bool) -> None:
    """Print which checks cover the functions of recorded runs."""
    from dian.claims.coverage import coverage, require_covered  # it forks processes

    found = coverage(names)
    if json:
        plain = {
            record: {
                name: {"claims": sorted(checks.claims), "tests": sorted(checks.tests)}
                for name, checks in functions.items()
            }
            for record, functions in found.items()
        }
        print(to_json(plain, indent=1))
    else:
        for record, functions in found.items():
            table = Table("function", "claims", "tests", title=record)
            for name, checks in functions.items():
                claims = " ".join(sorted(checks.claims)) or "-"
                table.add_row(name, claims, str(len(checks.tests) or "-"))
            Console().print(table)
    require_covered(found)


def _verify(names: Iterable[str], *, mutants: bool) -> list[dict]:
    claims = verifier.find(names)
    with _bar() as progress:
        steps = progress.track(claims, description="verifying")
        return [verifier.report(claim, mutants=mutants) for claim in steps]


def _bar() -> Progress:
    """Make a progress bar, which shows on a terminal only and disappears at the end."""
    hidden = not sys.stderr.isatty()
    return Progress(console=Console(stderr=True), transient=True, disable=hidden)


def _found(report: dict) -> str:
    """Return the residual of a check, or why there is none."""
    return report["error"] or f"residual {report['residual']:.1e}"


def _print_claims(reports: list[dict]) -> None:
    """Print the table of all claims, and count them."""
    table = Table("ID", "statement", "kind", "residual", "tolerance", "seconds", "")
    for r in reports:
        mark = "✓" if r["passed"] else "✗"
        row = (r["id"], r["title"], r["kinds"], _found(r), f"{r['tolerance']:.0e}")
        table.add_row(*row, f"{r['seconds']:.2f}", mark)
    Console().print(table)
    killed = [m["caught"] for r in reports for m in r["mutants"]]
    tally = f"{sum(r['passed'] for r in reports)} claims hold"
    if killed:
        tally += f", {sum(killed)} of {len(killed)} mutants were killed"
    print(tally)


@app.command()
def check(
    kind: Annotated[str, typer.Argument(help="Kind of function; see --list.")] = "",
    target: Annotated[
        str, typer.Argument(help="MODULE:FUNCTION or FILE.py:FUNCTION.")
    ] = "",
    arrays: Annotated[
        str, typer.Option(help="Arrays that it takes: auto, torch or numpy.")
    ] = "auto",
    json: _flag("json", "Print JSON.") = False,
    time_limit: Annotated[
        float, typer.Option(min=1, help="Seconds after which the check is given up.")
    ] = checking.SECONDS,
    list_: _flag("list", "List the kinds.") = False,
    template: _flag("template", "Print a stub to fill in.") = False,
    language: Annotated[
        str, typer.Option(help="Language of the stub: en or zh_CN.")
    ] = templates.SOURCE,
) -> None:
    """Check your own implementation, and name the mistake that it makes.

    The exit status is 0 if it is right, 1 if it is wrong and 2 if it cannot be checked.
    """
    if list_:
        print(templates.listing())
        return
    if template:
        print(_stub(kind, language), end="")
        return
    report = _checked(kind, target, arrays, time_limit, quiet=json)
    print(to_json(report.as_dict(), indent=1) if json else report)
    if report.details and shown["traceback"]:
        print(report.details, file=sys.stderr)
    raise typer.Exit(report.status)


class NothingChecked(DianError):
    """The command cannot be carried out, so the function is neither right nor wrong."""


def _stub(kind: str, language: str) -> str:
    try:
        return templates.template(kind, language)
    except DianError as error:
        raise NothingChecked(str(error)) from error


def _checked(
    kind: str, target: str, arrays: str, seconds: float, *, quiet: bool
) -> Report:
    try:
        if not (kind and target):
            said = "expected KIND and MODULE:FUNCTION; `--list` lists the kinds"
            raise DianError(said)
        find_kind(kind)
        if arrays not in ARRAYS:
            said = f"--arrays must be one of {', '.join(ARRAYS)}, got {arrays!r}"
            raise DianError(said)
        if not quiet:
            print(f"checking {target} ...", file=sys.stderr, flush=True)
        return checking.check_in_process(kind, target, arrays=arrays, seconds=seconds)
    except DianError as error:
        raise NothingChecked(str(error)) from error


@app.command()
def check_all(
    folder: Annotated[Path, typer.Argument(help="Folder of submissions, one a file.")],
    kinds: Annotated[
        list[str] | None, typer.Argument(help="Kinds. Default: by function name.")
    ] = None,
    csv: _flag("csv", "Print CSV.") = False,
    time_limit: Annotated[
        float, typer.Option(min=1, help="Seconds for each function.")
    ] = checking.SECONDS,
) -> None:
    """Check every file of a folder, and print one row for each."""
    rows = submissions.check_folder(folder, kinds or [], seconds=time_limit)
    submissions.print_csv(rows) if csv else submissions.print_table(rows)


def main() -> None:
    """Run the command line; an error of the user's world is one line, no traceback."""
    for stream in (sys.stdout, sys.stderr):
        # On a terminal that has no such character a "±" is a question mark.
        stream.reconfigure(errors="replace")
    try:
        app()
    except DianError as error:
        if shown["traceback"]:
            raise
        rank = distributed.rank()
        who = f"dian (process {rank})" if rank else "dian"
        print(f"{who}: {error}", file=sys.stderr)
        sys.exit(STATUS[UNCHECKED] if isinstance(error, NothingChecked) else 1)
    except KeyboardInterrupt:
        if not distributed.rank():
            told = "interrupted; a training run continues with --resume"
            print(f"dian: {told}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
