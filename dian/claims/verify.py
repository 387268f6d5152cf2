"""Run the checks of the claims, and the planted bugs that they must reject."""

import importlib
import inspect
import math
import pkgutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import dian.claims
from dian.claims import Claim, Mutant, require_expected
from dian.errors import DianError
from dian.runs.record import did_you_mean


@dataclass(frozen=True)
class Result:
    """What a check found."""

    claim: Claim
    residual: float
    seconds: float
    error: str | None = None
    """The error that stopped the check, if one did."""
    raised: str | None = None
    """The name of its type."""

    @property
    def passed(self) -> bool:
        """Whether the residual is a number, and within the tolerance."""
        return self.error is None and self.residual <= self.claim.tolerance


def claims() -> dict[str, Claim]:
    """Find every claim by its ID, chapter by chapter.

    Raises
    ------
    DianError
        If an ID is used twice, a claim has no mutant, or claims or mutants are not
        those of :data:`dian.claims.EXPECTED`.

    Examples
    --------
    >>> claims()["R1"].title
    'Forward pass'
    """
    found: dict[str, Claim] = {}
    for module in pkgutil.walk_packages(dian.claims.__path__, "dian.claims."):
        loaded = importlib.import_module(module.name)
        for value in vars(loaded).values():
            one = getattr(value, "claim", None)
            if not isinstance(one, Claim):
                continue
            if found.get(one.id) is one:
                continue  # one function under two names
            if one.id in found:
                raise DianError(f"claim {one.id} stands twice; give one another ID")
            if not one.mutants:
                raise DianError(
                    f"claim {one.id} has no mutant: nobody has seen it fail; plant a "
                    "bug that its check must reject"
                )
            found[one.id] = one
    require_expected({name: len(one.mutants) for name, one in found.items()})
    return found


def find(names: Iterable[str]) -> list[Claim]:
    """Return the claims with these names, or all of them if there is none.

    Parameters
    ----------
    names
        IDs such as ``R5``, or chapters such as ``rnn`` for all of their claims.

    Raises
    ------
    DianError
        If there is no such claim and no such chapter; the nearest are listed.

    Examples
    --------
    >>> [one.id for one in find(["clipping", "R5"])]
    ['R13', 'R5']
    """
    known = claims()
    wanted: dict[str, Claim] = {}
    for name in names:
        named = {
            id_: one
            for id_, one in known.items()
            if name in (id_, chapter(one), *chapter(one).split("."))
        }
        if not named:
            raise DianError(f"no claim {name!r}; {did_you_mean(name, known)}")
        wanted |= named
    return list(wanted.values()) or list(known.values())


def chapter(claim: Claim) -> str:
    """Return the module below ``dian.claims`` that holds a claim: ``rnn.recurrence``."""
    return claim.check.__module__.removeprefix("dian.claims.")


def verify(claim: Claim) -> Result:
    """Run the check of a claim on the code of the report."""
    begin = time.perf_counter()
    residual, error, raised = math.nan, None, None
    try:
        residual = float(claim.check())
    except Exception as stop:  # whatever a check or a bug may raise is a failure
        error, raised = _one_line(stop), type(stop).__name__
    return Result(claim, residual, time.perf_counter() - begin, error, raised)


def plant(claim: Claim, mutant: Mutant) -> Result:
    """Run the check of a claim on code with a planted bug; it should be :func:`caught`.

    Raises
    ------
    DianError
        If the source does not hold what the mutant replaces exactly once, or is no
        module any more with the bug.
    """
    module = mutant.module or claim.subjects[0]
    name = module if isinstance(module, str) else module.__name__
    # A mutant of the check itself is declared above it, in the same file.
    own = name == claim.check.__module__
    after = f"def {claim.check.__name__}(" if own else ""
    with installed(mutated(name, mutant, after)):
        return verify(claim)


def caught(mutant: Mutant, result: Result) -> bool:
    """Say whether the check noticed the planted bug itself.

    It did if the residual is too large or NaN. An error counts only if it is the one
    that the mutant announces: any other may come from a mutant that has rotted.
    """
    if result.error is None:
        return not result.passed
    return result.raised == mutant.raises


def report(claim: Claim, *, mutants: bool) -> dict[str, Any]:
    """Check a claim, and tell all about it in plain values.

    Parameters
    ----------
    claim
        To check.
    mutants
        Whether to plant its bugs, too.
    """
    result = verify(claim)
    return {
        "id": claim.id,
        "chapter": chapter(claim),
        "title": claim.title,
        "statement": inspect.getdoc(claim.check),
        "equations": list(claim.equations),
        "kinds": " ".join(claim.kinds),
        "tolerance": claim.tolerance,
        "source": claim.source,
        "assumptions": claim.assumptions,
        "file": claim.check.__module__.replace(".", "/") + ".py",
        "code": _code(claim.check),
        "residual": result.residual if math.isfinite(result.residual) else None,
        "error": result.error or _why_not_finite(result.residual),
        "passed": result.passed,
        "seconds": result.seconds,
        "mutants": [_planted(claim, m) for m in claim.mutants] if mutants else [],
    }


def _planted(claim: Claim, mutant: Mutant) -> dict[str, Any]:
    """Plant a bug and tell what came of it; one that does not fit was not caught."""
    told = {"what": mutant.what, "old": mutant.old, "new": mutant.new}
    try:
        bugged = plant(claim, mutant)
    except DianError as error:
        return told | {"caught": False, "by": str(error)}
    by = bugged.error or f"residual {bugged.residual:.1e}"
    return told | {"caught": caught(mutant, bugged), "by": by}


def _code(check: Callable[..., float]) -> str:
    """Return the source of a check, without the declaration of its claim above."""
    source = inspect.getsource(check)
    return source[source.index("def ") :]


def _why_not_finite(residual: float) -> str | None:
    """Put into words what JSON has no number for."""
    return None if math.isfinite(residual) else f"the residual is {residual}"


def mutated(name: str, mutant: Mutant, after: str = "") -> ModuleType:
    """Load a second copy of a module, with one expression replaced.

    Parameters
    ----------
    name
        Of the module.
    mutant
        What to replace.
    after
        Look for it only behind this text: a mutant that is declared in the module
        itself holds the expression too.

    Examples
    --------
    >>> from dian.claims import Mutant
    >>> bugged = mutated("dian.runs.files", Mutant("", "b.sha256", "b.md5"))
    >>> len(bugged.sha256(b""))
    32
    """
    original = importlib.import_module(name)
    source = inspect.getsource(original)
    head, start, body = source.partition(after) if after else ("", "", source)
    times = body.count(mutant.old)
    if times != 1:
        raise DianError(
            f"the mutant {mutant.what!r} replaces {mutant.old!r} in {name}, which "
            f"holds it {times} times, expected once"
        )
    copy = ModuleType(name)
    copy.__file__ = original.__file__
    copy.__package__ = original.__package__
    bugged = head + start + body.replace(mutant.old, mutant.new)
    try:
        exec(compile(bugged, f"<{name}, bugged>", "exec"), vars(copy))
    except Exception as error:  # a mutant may be any text
        raise DianError(
            f"the mutant {mutant.what!r} leaves no module {name}: {_one_line(error)}"
        ) from None
    return copy


@contextmanager
def installed(mutant: ModuleType) -> Iterator[None]:
    """Let the whole process compute with a mutated module, until the block ends.

    The code of each function of the original is exchanged, not the function: so the
    mutant is also what runs where a name was imported before, in other modules and in
    the networks of the recorded runs.

    Parameters
    ----------
    mutant
        A copy of an imported module, as :func:`mutated` returns it.

    Examples
    --------
    >>> from dian.claims import Mutant
    >>> from dian.runs.files import sha256
    >>> with installed(mutated("dian.runs.files", Mutant("", "b.sha256", "b.md5"))):
    ...     len(sha256(b""))
    32
    >>> len(sha256(b""))
    64
    """
    original = importlib.import_module(mutant.__name__)
    ours, theirs = _functions(original), _functions(mutant)
    before = {name: function.__code__ for name, function in ours.items()}
    constants = dict(vars(original))
    for name, function in theirs.items():
        if name in ours:
            ours[name].__code__ = function.__code__
    for name, value in vars(mutant).items():
        if not (name.startswith("__") or callable(value) or inspect.ismodule(value)):
            setattr(original, name, value)
    try:
        yield
    finally:
        for name, code in before.items():
            ours[name].__code__ = code
        vars(original).update(constants)


def _functions(module: ModuleType) -> dict[str, FunctionType]:
    """Find every function that a module defines, methods included, by its name."""
    found = {}
    for owner in [module, *filter(inspect.isclass, vars(module).values())]:
        if owner is not module and owner.__module__ != module.__name__:
            continue
        for value in vars(owner).values():
            function = inspect.unwrap(getattr(value, "__func__", value))
            if getattr(function, "__module__", None) != module.__name__:
                continue
            if isinstance(function, FunctionType):
                found[function.__qualname__] = function
    return found


def _one_line(error: Exception) -> str:
    """Put an error into one line; ours say all in their message."""
    if isinstance(error, DianError):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0]
