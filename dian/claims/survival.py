"""Which checks execute a statement, and which of them kills a mutant of it first."""

import functools
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from dian.claims.checks import Check, ClaimCheck, files_of_tests
from dian.claims.forked import first_failure, spread
from dian.claims.generic_mutants import GenericMutant
from dian.claims.tracing import traced
from dian.claims.verify import installed
from dian.errors import DianError
from dian.runs.code_hash import PACKAGE, byte_key, digest, module_path, versions
from dian.runs.files import atomic_write

MUTATED = ("rnn", "positions", "attention", "diffusion", "training")
"""The packages whose functions are mutated."""


@dataclass(frozen=True)
class Trace:
    """What a check does when nothing is mutated."""

    passed: bool
    seconds: float
    lines: dict[str, list[int]]
    """The lines that it executes, by module."""

    def executes(self, mutant: GenericMutant) -> bool:
        """Whether the check executes the statement that a mutant changes."""
        first, last = mutant.lines
        return any(first <= n <= last for n in self.lines.get(mutant.module, ()))


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant."""

    killer: str | None
    """The claim or test that failed first; None if the mutant survived."""
    by_claim: bool
    """Whether a claim killed it."""
    claims_apply: bool
    """Whether a claim executes the changed statement."""


def modules() -> list[str]:
    """List the modules that are mutated.

    >>> "dian.rnn.recurrence" in modules()
    True
    """
    files = (f for name in MUTATED for f in sorted((PACKAGE / name).glob("*.py")))
    return [f"dian.{f.parent.name}.{f.stem}" for f in files if f.stem != "__init__"]


def traces(checks: Sequence[Check], jobs: int, file: Path) -> dict[str, Trace]:
    """Trace every check, except where a file has the trace of the same code.

    Raises
    ------
    DianError
        If a check fails although nothing is mutated.
    """
    try:
        kept = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        kept = {}
    keys = {check.name: _key(check.source) for check in checks}
    new = [c for c in checks if kept.get(c.name, {}).get("key") != keys[c.name]]
    for check, trace in zip(new, spread(_trace, new, jobs), strict=True):
        kept[check.name] = {"key": keys[check.name], "trace": trace}
    found = {check.name: Trace(**kept[check.name]["trace"]) for check in checks}
    failed = [name for name, trace in found.items() if not trace.passed]
    if new:
        passed = {name: one for name, one in kept.items() if name not in failed}
        atomic_write(file, json.dumps(passed).encode(), "make room in build/")
    if failed:
        raise DianError(f"these fail although nothing is mutated: {', '.join(failed)}")
    return found


@functools.cache
def _key(source: str | Path) -> str:
    """Hash the code that a check executes: that of a module or file, and its imports.

    Byte by byte, since a comment moves the lines below it.
    """
    return digest([byte_key(source), versions("torch")])


def _trace(check: Check) -> dict:
    """Run a check and note the lines of the mutated packages that it executes."""
    files = {str(module_path(name)): name for name in modules()}
    begin = time.process_time()
    with traced(files) as lines:
        passed = check.passes()
    seconds = time.process_time() - begin
    executed = {files[file]: sorted(found) for file, found in lines.items()}
    return asdict(Trace(passed, seconds, executed))


class Trial:
    """Runs the checks of mutants, each mutant in a process of its own.

    Parameters
    ----------
    checks
        Claims and tests.
    known
        Their traces.
    """

    def __init__(self, checks: Sequence[Check], known: dict[str, Trace]):
        self.known = known
        order = sorted(checks, key=lambda check: known[check.name].seconds)
        self.claims = [check for check in order if isinstance(check, ClaimCheck)]
        self.tests = [check for check in order if not isinstance(check, ClaimCheck)]

    def __call__(self, mutant: GenericMutant, hint: str | None = None) -> Outcome:
        """Run the claims that apply, then the tests; what killed it before, first."""
        claims = [c for c in self.claims if self.known[c.name].executes(mutant)]
        if killer := self.first_killer(mutant, _first(hint, claims)):
            return Outcome(killer, by_claim=True, claims_apply=True)
        killer = self.first_killer(mutant, _first(hint, self.tests_of(mutant)))
        return Outcome(killer, by_claim=False, claims_apply=bool(claims))

    def tests_of(self, mutant: GenericMutant) -> list[Check]:
        """Return the tests of the module that execute the mutant, file by file."""
        files = files_of_tests(mutant.module)
        found = (t for t in self.tests if t.source in files)
        found = [t for t in found if self.known[t.name].executes(mutant)]
        return sorted(found, key=lambda test: files.index(test.source))

    def first_killer(
        self, mutant: GenericMutant | None, checks: list[Check]
    ) -> str | None:
        """Run some checks of a mutant, and return the name of the first that fails."""
        limits = [10 + 20 * self.known[check.name].seconds for check in checks]
        return first_killer(mutant, checks, limits)


def first_killer(
    mutant: GenericMutant | None, checks: Sequence[Check], limits: Sequence[float]
) -> str | None:
    """Run checks of a mutant in a child process until one fails; return its name.

    Parameters
    ----------
    mutant
        Is installed in the child process only; None changes nothing.
    checks
        Claims and tests, in the order in which they run.
    limits
        The seconds of computing after which each counts as failed.
    """

    def steps() -> Iterator[tuple[str, float]]:
        with installed(mutant.load()) if mutant else nullcontext():
            following = [*checks[1:], None]
            for check, then, limit in zip(checks, following, limits, strict=True):
                yield check.name, limit
                if not check.passes(then):
                    raise AssertionError

    if not checks:
        return None
    killer = first_failure(steps)
    if killer == "":
        raise DianError(f"the mutant cannot be installed: {mutant}")
    return killer


def _first(hint: str | None, checks: list[Check]) -> list[Check]:
    """Put the check of this name before the others."""
    return sorted(checks, key=lambda check: check.name != hint)
