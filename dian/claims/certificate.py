"""The mutation certificate: how many generic mutants the claims and the tests kill.

``python -m dian.claims.certificate`` makes every generic mutant of the four chapters
and of ``training``. Each is installed in a process of its own. There, the claims that
execute the changed statement run first, and if all of them hold, the tests of the
module that execute it. A mutant that survives both needs a reason in ``survivors.toml``
why it is equivalent or does not matter; without one there is no certificate.

With ``--sample`` only some mutants are made, and what killed each of them according to
the record has to kill it again: a check of the record that takes a minute.
"""

import argparse
import json
import random
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from os import cpu_count
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dian.claims.checks import ROOT, Check, with_checks
from dian.claims.forked import spread
from dian.claims.generic_mutants import GenericMutant, generic_mutants
from dian.claims.survival import Outcome, Trial, first_killer, modules, traces
from dian.errors import DianError
from dian.runs.code_hash import PACKAGE, fingerprint, record_key
from dian.runs.environment import describe_environment, git_commit
from dian.runs.files import atomic_write
from dian.runs.record import FORMAT, RECORDED, Record, load, record_names, save

MODULE = "dian.claims.certificate"
NAME = "mutation-certificate"
"""The name of the record."""
REASONS = Path(__file__).with_name("survivors.toml")
"""Why mutants may survive: a table for each module, in it one for each function."""
BUILD = ROOT / "build/certificate"
"""The folder of the traces and of the outcomes of the last run."""
GOAL = 0.95
"""The fraction of all mutants that has to be killed."""
GOAL_OF_CLAIMS = 0.85
"""The fraction that claims alone have to kill where one executes the statement."""

Outcomes = dict[GenericMutant, Outcome]
Nested = dict[str, dict[str, dict[str, Any]]]
"""A value for each mutant: by module, by function, by text."""


def reasons(file: Path = REASONS) -> dict[str, str]:
    """Read why mutants may survive, by the names of the mutants.

    >>> all(reasons().values())
    True
    """
    return dict(_flat(tomllib.loads(file.read_text("utf-8"))))


def killers(record: Record) -> dict[str, str | None]:
    """Return what killed each mutant of a certificate, by the names of the mutants."""
    return dict(_flat(record.content["mutants"]))


def _flat(nested: Nested) -> Iterator[tuple[str, Any]]:
    """Yield the values in three levels of tables by the names of mutants."""
    for module, functions in nested.items():
        for function, values in functions.items():
            for text, value in values.items():
                yield f"{module}.{function}: {text}", value


def _nested(values: Mapping[GenericMutant, Any]) -> Nested:
    nested: Nested = defaultdict(lambda: defaultdict(dict))
    for mutant, value in values.items():
        nested[mutant.module][mutant.function][mutant.text] = value
    return nested


def certify(
    mutants: Sequence[GenericMutant], hints: Mapping[str, str | None], jobs: int
) -> Outcomes:
    """Find what kills each mutant.

    Parameters
    ----------
    mutants
        Of any modules.
    hints
        What killed mutants before, which is tried first.
    jobs
        How many processes work side by side.

    Raises
    ------
    DianError
        If a check that killed a mutant also fails in such a process without one.
    """
    outcomes: Outcomes = {}

    def work(checks: list[Check]) -> None:
        trial = Trial(checks, traces(checks, jobs, BUILD / "traces.json"))

        def one(mutant: GenericMutant) -> Outcome:
            return trial(mutant, hints.get(str(mutant)))

        found = spread(one, mutants, jobs)
        outcomes.update(zip(mutants, _tracked(found, len(mutants)), strict=True))
        names = {outcome.killer for outcome in outcomes.values()}
        used = [check for check in checks if check.name in names]
        unmutated = spread(lambda check: trial.first_killer(None, [check]), used, jobs)
        if failed := [name for name in unmutated if name is not None]:
            told = ", ".join(failed)
            raise DianError(f"these fail although nothing is mutated: {told}")

    with_checks({mutant.module for mutant in mutants}, work)
    return outcomes


def confirm(
    mutants: Sequence[GenericMutant], hints: Mapping[str, str], jobs: int
) -> list[GenericMutant]:
    """Return the mutants that are *not* killed by what killed them before."""
    remaining: list[GenericMutant] = []

    def work(checks: list[Check]) -> None:
        by_name = {check.name: check for check in checks}

        def survives(mutant: GenericMutant) -> bool:
            before = by_name.get(hints.get(str(mutant)))
            return not (before and first_killer(mutant, [before], [60]))

        found = _tracked(spread(survives, mutants, jobs), len(mutants))
        remaining.extend(m for m, s in zip(mutants, found, strict=True) if s)

    with_checks({mutant.module for mutant in mutants}, work)
    return remaining


def _tracked(results: Iterable, total: int) -> Iterable:
    """Show progress where a person may look at it."""
    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(results, "mutants", total, console=console, disable=hidden)


def metrics(outcomes: Outcomes) -> dict[str, list[float]]:
    """Count the mutants of all modules, of each package and of each module.

    Two random halves are counted, too: they show how far the fraction depends on which
    mutants are made.
    """
    scopes: dict[str, list[Outcome]] = defaultdict(list)
    for mutant, outcome in outcomes.items():
        _, package, module = mutant.module.split(".")
        for scope in ("all", package, f"{package}.{module}"):
            scopes[scope].append(outcome)
    shuffled = random.Random(0).sample([*outcomes.values()], len(outcomes))
    half = len(shuffled) // 2
    scopes |= {"half-1": shuffled[:half], "half-2": shuffled[half:]}
    return {
        f"{scope}/{name}": [float(value)]
        for scope, found in scopes.items()
        for name, value in _counts(found).items()
    }


def _counts(outcomes: Sequence[Outcome]) -> dict[str, int | float]:
    n, killed = len(outcomes), sum(o.killer is not None for o in outcomes)
    by_claims, apply = (sum(getattr(o, f) for o in outcomes) for f in _FLAGS)
    counts = {"mutants": n, "by-claims": by_claims, "by-tests": killed - by_claims}
    counts |= {"survived": n - killed, "claims-apply": apply}
    counts["killed"] = killed / max(n, 1)
    if apply:
        counts["killed-by-claims"] = by_claims / apply
    return counts


_FLAGS = ("by_claim", "claims_apply")


def unexplained(survivors: Iterable[GenericMutant]) -> list[GenericMutant]:
    """Return the survivors without a reason."""
    known = reasons()
    return [mutant for mutant in survivors if not known.get(str(mutant))]


def outdated(outcomes: Outcomes) -> list[str]:
    """Return the reasons of mutants that were killed, or that no longer exist."""
    survivors = {str(m) for m, outcome in outcomes.items() if outcome.killer is None}
    return sorted(reasons().keys() - survivors)


def as_table(mutants: Iterable[GenericMutant]) -> str:
    """Write mutants as rows of ``survivors.toml``, for a reason to be filled in."""
    lines = []
    for module, functions in _nested(dict.fromkeys(mutants, "")).items():
        for function, texts in functions.items():
            lines += ["", f"[{json.dumps(module)}.{json.dumps(function)}]"]
            lines += [f'{json.dumps(text, ensure_ascii=False)} = ""' for text in texts]
    return "\n".join(lines)


def write(outcomes: Outcomes, started: datetime, folder: Path, commit: str) -> Record:
    """Write the record; it holds for the mutated modules and for the claims."""
    known, ended = reasons(), datetime.now(UTC)
    paths = [PACKAGE / "claims", *{PACKAGE / m.module.split(".")[1] for m in outcomes}]
    files = sorted(file for path in paths for file in path.rglob("*.py"))
    names = (f.relative_to(PACKAGE.parent).with_suffix("").parts for f in files)
    hashes = {".".join(n): fingerprint(f) for n, f in zip(names, files, strict=True)}
    hashes = {n.removesuffix(".__init__"): h for n, h in hashes.items()}
    settings = {"goal": GOAL, "goal-of-claims": GOAL_OF_CLAIMS}
    content = {
        "format": FORMAT,
        "name": NAME,
        "status": "success",
        "command": "make certificate",
        "module": MODULE,
        "settings": settings,
        "seeds": [0],
        "key": record_key("dian.claims.certificate", settings, {})
        | {"modules": hashes},
        "commit": commit,
        "started": started.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        "seconds": round((ended - started).total_seconds(), 1),
        "environment": describe_environment(torch.device("cpu")),
        "series": {},
        "metrics": metrics(outcomes),
        "replay": {},
        "proofs": [],
        "mutants": _nested({m: o.killer for m, o in outcomes.items()}),
        "survivors": _nested(
            {m: known[str(m)] for m, o in outcomes.items() if o.killer is None}
        ),
    }
    save(folder / NAME, content, {})
    return load(NAME, folder)


def show(numbers: Mapping[str, list[float]]) -> None:
    """Print a table with a row for each module."""
    table = Table(
        "", "mutants", "by claims", "by tests", "survived", "killed", "claims"
    )
    for scope in dict.fromkeys(key.partition("/")[0] for key in numbers):
        row = {key: numbers.get(f"{scope}/{key}", [0.0])[0] for key in _COLUMNS}
        cells = (format(row[key], form) for key, form in _COLUMNS.items())
        table.add_row(scope, *cells)
    Console().print(table)


_COLUMNS = {
    "mutants": ".0f",
    "by-claims": ".0f",
    "by-tests": ".0f",
    "survived": ".0f",
    "killed": ".1%",
    "killed-by-claims": ".1%",
}


def known_killers() -> dict[str, str | None]:
    """Return what killed each mutant in the record, or in the last run here."""
    known = killers(load(NAME)) if NAME in record_names() else {}
    try:
        return known | json.loads((BUILD / "killers.json").read_text("utf-8"))
    except (OSError, ValueError):
        return known


def run_sample(mutants: list[GenericMutant], jobs: int) -> None:
    """Check that mutants are killed by what killed them before, or by anything else.

    Raises
    ------
    DianError
        If one survives without a reason.
    """
    known, hints = reasons(), known_killers()
    tried = [mutant for mutant in mutants if not known.get(str(mutant))]
    remaining = confirm(tried, hints, jobs)
    outcomes = certify(remaining, hints, jobs) if remaining else {}
    survivors = [m for m, outcome in outcomes.items() if outcome.killer is None]
    again, other = len(tried) - len(remaining), len(remaining) - len(survivors)
    Console().print(
        f"{len(mutants)} mutants: {again} killed as recorded, {other} by other checks, "
        f"{len(mutants) - len(tried)} survive for a reason, {len(survivors)} without"
    )
    _require_reasons(survivors)


def run_all(
    mutants: list[GenericMutant], jobs: int, folder: Path | None, commit: str | None
) -> None:
    """Find out what kills each mutant, and write the record if there is a folder.

    Raises
    ------
    DianError
        If a survivor has no reason, or a reason has no survivor.
    """
    started, commit = datetime.now(UTC), commit or git_commit()
    hints = known_killers()
    outcomes = certify(mutants, hints, jobs)
    found = hints | {str(m): outcome.killer for m, outcome in outcomes.items()}
    remedy = "make room, or permit writing"
    atomic_write(BUILD / "killers.json", json.dumps(found, indent=0).encode(), remedy)
    show(metrics(outcomes))
    _require_reasons([m for m, outcome in outcomes.items() if outcome.killer is None])
    if folder is None:
        return
    if old := outdated(outcomes):
        raise DianError(f"{REASONS.name}: no such survivor: {'; '.join(old)}")
    Console().print(f"written to {write(outcomes, started, folder, commit).folder}")


def _require_reasons(survivors: Iterable[GenericMutant]) -> None:
    if missing := unexplained(survivors):
        Console().print(
            as_table(missing), markup=False, highlight=False, soft_wrap=True
        )
        raise DianError(
            f"{len(missing)} mutants survive without a reason: kill them by a claim or "
            f"a test, or say in {REASONS.name} why each does not matter"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dian.claims.certificate", description=__doc__.partition("\n")[0]
    )
    add = parser.add_argument
    add("only", nargs="*", help="parts of names of modules or functions; no record")
    add("--sample", type=int, help="make so many mutants, and no record")
    add("--seed", type=int, default=0, help="which mutants are in the sample")
    add("--jobs", type=int, default=cpu_count(), help="processes side by side")
    add("--out", type=Path, default=RECORDED, help="folder to write the record to")
    add("--commit", help="commit to record if git is unavailable")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    mutants = [m for module in modules() for m in generic_mutants(module)]
    if options.only:
        mutants = [m for m in mutants if any(part in str(m) for part in options.only)]
    if options.sample:
        n = min(options.sample, len(mutants))
        run_sample(random.Random(options.seed).sample(mutants, n), options.jobs)
    else:
        folder = None if options.only else options.out
        run_all(mutants, options.jobs, folder, options.commit)


if __name__ == "__main__":
    try:
        main()
    except DianError as error:
        sys.exit(f"certificate: {error}")
