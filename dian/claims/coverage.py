"""Which functions the recorded runs execute, and which checks can see a mistake there.

A function is *covered* if some claim or test kills at least one mutant of it: a mutant
that a claim plants, or a generic one of the mutation certificate. To be executed is not
enough, since a check may run a function and not look at its result.
"""

import ast
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from os import cpu_count
from pathlib import Path

import torch

from dian.claims.certificate import known_killers
from dian.claims.forked import spread
from dian.claims.generic_mutants import ARGUMENT_CHECK, definitions, generic_mutants
from dian.claims.survival import modules
from dian.claims.tracing import Lines, traced
from dian.claims.verify import claims
from dian.errors import DianError
from dian.runs.code_hash import digest, module_path, source_key
from dian.runs.experiment import Experiment, Job, find
from dian.runs.files import atomic_write
from dian.runs.record import load, record_names

TRACES = Path("build/coverage.json")
"""The functions of each run, kept while the code of the run is the same."""


@dataclass
class Killers:
    """The checks that kill a mutant of one function."""

    claims: set[str] = field(default_factory=set)
    tests: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.claims or self.tests)


def executed(names: Iterable[str], file: Path = TRACES) -> dict[str, list[str]]:
    """Return the functions that each of some recorded runs executes.

    The runs are replayed at the reduced scale of ``dian audit --replay``.

    Parameters
    ----------
    names
        Of records. Those that hold times, and no run, are left out.
    file
        Where the result is kept.
    """
    try:
        kept = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        kept = {}
    experiments = [find(name) for name in names if load(name).replay]
    keys = {one.name: _key(one) for one in experiments}
    new = [e for e in experiments if kept.get(e.name, {}).get("key") != keys[e.name]]
    traced_runs = spread(_functions_of, new, cpu_count())
    for one, functions in zip(new, traced_runs, strict=True):
        kept[one.name] = {"key": keys[one.name], "functions": functions}
    if new:
        atomic_write(file, json.dumps(kept).encode(), "make room, or permit writing")
    return {one.name: kept[one.name]["functions"] for one in experiments}


def _key(experiment: Experiment) -> str:
    settings = asdict(experiment.settings)
    return digest([source_key(experiment.module), json.dumps(settings, default=str)])


def _functions_of(experiment: Experiment) -> list[str]:
    """Replay an experiment, and return the functions that it executes."""
    torch.set_num_threads(1)
    data = experiment.data(False)
    settings, few = experiment.smoke_settings(experiment.settings, data)
    with traced((str(module_path(m)) for m in modules()), calls_only=True) as lines:
        experiment.run(settings, few, Job(dtype=torch.float64))
    return functions_at(lines)


def functions_at(lines: Lines) -> list[str]:
    """Return the functions to which lines belong, by their full names.

    Functions that only check arguments are left out.

    >>> from dian.training import clipping
    >>> functions_at({clipping.__file__: set(range(1, 70))})
    ['dian.training.clipping.clip_by_norm']
    """
    found = []
    for module in modules():
        path = module_path(module)
        executed = lines.get(str(path), ())
        for name, node in definitions(ast.parse(path.read_text("utf-8"))):
            first = min(n.lineno for n in [node, *getattr(node, "decorator_list", ())])
            inside = any(first <= line <= node.end_lineno for line in executed)
            if inside and not ARGUMENT_CHECK.match(name.rpartition(".")[2]):
                found.append(f"{module}.{name}")
    return found


def killers() -> dict[str, Killers]:
    """Return the checks that kill a mutant of a function, by the function's full name.

    The mutants of claims are all killed, or ``dian verify --mutants`` fails. Of the
    generic ones count those that are still made of today's code.
    """
    known = claims()
    found: dict[str, Killers] = defaultdict(Killers)
    for one in known.values():
        for mutant in one.mutants:
            module = mutant.module or one.subjects[0]
            name = module if isinstance(module, str) else module.__name__
            found[f"{name}.{mutant.at}"].claims.add(one.id)
    by_mutant = known_killers()
    for mutant in (m for module in modules() for m in generic_mutants(module)):
        if killer := by_mutant.get(str(mutant)):
            killed = found[f"{mutant.module}.{mutant.function}"]
            (killed.claims if killer in known else killed.tests).add(killer)
    return found


def coverage(names: Iterable[str] = ()) -> dict[str, dict[str, Killers]]:
    """Return the checks of every function of every recorded run, record by record.

    Parameters
    ----------
    names
        Of records; all if there are none.
    """
    by_function = killers()
    runs = executed(names or record_names())
    return {
        record: {name: by_function.get(name, Killers()) for name in functions}
        for record, functions in runs.items()
    }


def require_covered(found: dict[str, dict[str, Killers]]) -> None:
    """Raise an error that lists the functions that no check covers.

    Parameters
    ----------
    found
        As :func:`coverage` returns it.
    """
    runs = defaultdict(list)
    for record, functions in found.items():
        for name, checks in functions.items():
            if not checks:
                runs[name].append(record)
    if runs:
        told = (f"{name} (executed by {', '.join(runs[name])})" for name in runs)
        raise DianError(
            "no claim and no test kills a mutant of these functions of recorded runs; "
            f"add one that does, or run make certificate: {'; '.join(told)}"
        )
