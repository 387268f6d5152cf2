"""Run the checks of the claims, and the planted bugs that they must reject."""

import importlib
import inspect
import math
import pkgutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import dian.claims
from dian.claims import Claim, Mutant, require_expected
from dian.errors import DianError
from dian.records import nearest


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
    for module in pkgutil.iter_modules(dian.claims.__path__):
        loaded = importlib.import_module(f"dian.claims.{module.name}")
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
        named = {id_: one for id_, one in known.items() if name in (id_, chapter(one))}
        if not named:
            raise DianError(f"no claim {name!r}; {nearest(name, known)}")
        wanted |= named
    return list(wanted.values()) or list(known.values())


def chapter(claim: Claim) -> str:
    """Return the name of the module of ``dian.claims`` that holds a claim."""
    return claim.check.__module__.rpartition(".")[2]


def verify(claim: Claim) -> Result:
    """Run the check of a claim on the code of the report."""
    return _run(claim, claim.check, {})


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
    check = claim.check
    if name != check.__module__:
        return _run(claim, check, {name: mutated(name, mutant)})
    # The bug is in the formula that the check itself writes down.
    bugged = mutated(name, mutant, after=f"def {check.__name__}(")
    return _run(claim, getattr(bugged, check.__name__), {})


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
    >>> bugged = mutated("dian.files", Mutant("", "hashlib.sha256(", "hashlib.md5("))
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


def _run(
    claim: Claim, check: Callable[..., float], instead: dict[str, ModuleType]
) -> Result:
    """Call a check, with some modules replaced, and never let it pass by an error."""
    begin = time.perf_counter()
    subjects = [instead.get(module.__name__, module) for module in claim.subjects]
    residual, error, raised = math.nan, None, None
    try:
        residual = float(check(*subjects))
    except Exception as stop:  # whatever a check or a bug may raise is a failure
        error, raised = _one_line(stop), type(stop).__name__
    return Result(claim, residual, time.perf_counter() - begin, error, raised)


def _one_line(error: Exception) -> str:
    """Put an error into one line; ours say all in their message."""
    if isinstance(error, DianError):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0]
