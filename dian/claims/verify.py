"""Run the checks of the claims, and the mutants that they must kill."""

import functools
import importlib
import inspect
import json
import math
import pkgutil
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType, NoneType
from typing import Any

import torch

import dian.claims
from dian.claims import Claim, Mutant
from dian.claims.mutation import mutate
from dian.errors import DianError, did_you_mean

EQUATIONS = Path("build/equations.json")
"""Labels of the equations by their numbers on the site; its build writes the file."""


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
        If an ID is used twice, or a claim has no mutant.

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
                raise DianError(f"two claims have the ID {one.id}; rename one of them")
            if not one.mutants:
                raise DianError(
                    f"claim {one.id} has no mutant, so its check has never been seen "
                    "to fail; add one that it must kill"
                )
            found[one.id] = one
    return found


def find(names: Iterable[str]) -> list[Claim]:
    """Return the claims with these names, or all of them if there is none.

    Parameters
    ----------
    names
        IDs such as ``R5``, chapters such as ``rnn``, files such as ``rotary``, labels
        of equations such as ``eq-mask``, their numbers on the site, such as ``1.17``,
        or a part of the title, such as ``truncated``.

    Raises
    ------
    DianError
        If nothing has such a name; the nearest are listed.

    Examples
    --------
    >>> [one.id for one in find(["clipping", "eq-bptt-states"])]
    ['R13', 'R5']
    >>> [one.title for one in find(["truncated"])]
    ['Truncated backpropagation through time']
    """
    known = claims()
    by_name = defaultdict(list)
    for one in known.values():
        parts = chapter(one).split(".")
        for name in {one.id, chapter(one), *parts, *one.equations}:
            by_name[name].append(one)
    wanted: dict[str, Claim] = {}
    for name in names:
        numbered = re.fullmatch(r"\(?(\d+(?:\.\d+)?)\)?", name)
        label = _label(numbered[1]) if numbered else name
        if label.startswith("def-") and label not in by_name:
            raise DianError(f"equation {label} is a definition, which needs no claim")
        titled = [c for c in known.values() if label.lower() in c.title.lower()]
        if label not in by_name and not titled:
            is_label = label.startswith("eq-")
            alike = [name for name in by_name if name.startswith("eq-") == is_label]
            raise DianError(f"no claim {label!r}; {did_you_mean(label, alike)}")
        wanted |= {one.id: one for one in by_name.get(label, titled)}
    return list(wanted.values()) or list(known.values())


def _label(number: str) -> str:
    """Return the label of the equation that has a number on the site."""
    try:
        labels = json.loads(EQUATIONS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DianError(
            f"no {EQUATIONS}: equation numbers are known after `make html`; labels "
            "(eq-mask) and IDs (R5) always are"
        ) from None
    if number not in labels:
        raise DianError(f"no equation ({number}): the site has {len(labels)}")
    return labels[number]


def chapter(claim: Claim) -> str:
    """Return where a claim is defined below ``dian.claims``: ``rnn.recurrence``."""
    return claim.check.__module__.removeprefix("dian.claims.")


def verify(claim: Claim) -> Result:
    """Run the check of a claim on the code of the report."""
    begin = time.perf_counter()
    residual, error, raised = math.nan, None, None
    try:
        with torch.random.fork_rng(devices=[]):
            # A mutant may draw from it, and the site shows the residual.
            torch.default_generator.manual_seed(0)
            residual = float(claim.check())
    except Exception as stop:  # whatever a check or a mutant may raise is a failure
        error, raised = _one_line(stop), type(stop).__name__
    return Result(claim, residual, time.perf_counter() - begin, error, raised)


def run_mutant(claim: Claim, mutant: Mutant) -> Result:
    """Run the check of a claim on mutated code, which it should have :func:`killed`.

    Raises
    ------
    DianError
        If the mutant does not fit the code; see :func:`load_mutant`.
    """
    module = mutant.module or claim.subjects[0]
    name = module if isinstance(module, str) else module.__name__
    with installed(load_mutant(name, mutant)):
        return verify(claim)


def killed(mutant: Mutant, result: Result) -> bool:
    """Return whether the check detected the mutant.

    It did if the residual is too large or NaN. An error counts only if it is the one
    that the mutant declares: any other may mean that the mutant is outdated.
    """
    if result.error is None:
        return not result.passed
    return result.raised == mutant.raises


def report(claim: Claim, *, mutants: bool) -> dict[str, Any]:
    """Verify a claim, and return the outcome in values that JSON can hold.

    Parameters
    ----------
    claim
        To verify.
    mutants
        Whether to run its mutants, too.
    """
    result = verify(claim)
    return {
        "id": claim.id,
        "chapter": chapter(claim),
        "title": claim.title,
        "statement": inspect.getdoc(claim.check),
        "equations": list(claim.equations),
        "kinds": claim.kinds,
        "tolerance": claim.tolerance,
        "source": claim.source,
        "assumptions": claim.assumptions,
        "file": claim.check.__module__.replace(".", "/") + ".py",
        "code": _code(claim.check),
        "residual": result.residual if math.isfinite(result.residual) else None,
        "error": result.error or _why_not_finite(result.residual),
        "passed": result.passed,
        "seconds": result.seconds,
        "mutants": [_report_mutant(claim, m) for m in claim.mutants] if mutants else [],
    }


def _report_mutant(claim: Claim, mutant: Mutant) -> dict[str, Any]:
    """Run a mutant and report the outcome; one that does not fit was not killed."""
    told = {"what": mutant.what, "at": mutant.at, "old": mutant.old, "new": mutant.new}
    try:
        result = run_mutant(claim, mutant)
    except DianError as error:
        return told | {"caught": False, "by": str(error)}
    by = result.error or f"residual {result.residual:.1e}"
    return told | {"caught": killed(mutant, result), "by": by}


def _code(check: Callable[..., float]) -> str:
    """Return the source of a check, without the declaration of its claim above."""
    source = inspect.getsource(check)
    return source[source.index("def ") :]


def _why_not_finite(residual: float) -> str | None:
    """Put into words what JSON has no number for."""
    return None if math.isfinite(residual) else f"the residual is {residual}"


def load_mutant(name: str, *mutants: Mutant) -> ModuleType:
    """Load a second copy of a module, with one piece of code replaced, or several.

    The syntax tree is compared, without docstrings: neither line breaks nor quotes,
    comments or redundant parentheses matter.

    Parameters
    ----------
    name
        Of the module.
    *mutants
        What to replace, and in which definition.

    Raises
    ------
    DianError
        If a mutant does not fit the module, changes nothing, or cannot be loaded.

    Examples
    --------
    >>> from dian.claims import Mutant
    >>> weak = Mutant("a weak hash", "sha256", "hashlib.sha256", "hashlib.md5")
    >>> len(load_mutant("dian.runs.files", weak).sha256(b""))
    32
    """
    source = inspect.getsource(importlib.import_module(name))
    what = " and ".join(mutant.what for mutant in mutants)
    try:
        for mutant in mutants:
            source = mutate(source, mutant.at, mutant.old, mutant.new)
    except DianError as error:
        raise DianError(f"mutant {what!r} of {name}: {error}") from None
    try:
        return load_copy(name, compile(source, f"<mutant of {name}>", "exec"))
    except Exception as error:  # a mutant may be any code
        raise DianError(
            f"mutant {what!r} of {name} cannot be loaded: {_one_line(error)}"
        ) from None


def load_copy(name: str, code: CodeType) -> ModuleType:
    """Run other code as a second copy of a module, which :func:`installed` takes."""
    original = importlib.import_module(name)
    copy = ModuleType(name)
    copy.__file__ = original.__file__
    copy.__package__ = original.__package__
    exec(code, vars(copy))
    return copy


@contextmanager
def installed(mutant: ModuleType) -> Iterator[None]:
    """Let the whole process compute with a mutated module, until the block ends.

    The code of each function is exchanged, not the function. So the mutant also runs
    where the function was imported before: in other modules, and in the networks of the
    recorded runs.

    Parameters
    ----------
    mutant
        A copy of an imported module, as :func:`load_mutant` returns it.

    Examples
    --------
    >>> from dian.claims import Mutant
    >>> from dian.runs.files import sha256
    >>> weak = Mutant("a weak hash", "sha256", "hashlib.sha256", "hashlib.md5")
    >>> with installed(load_mutant("dian.runs.files", weak)):
    ...     len(sha256(b""))
    32
    >>> len(sha256(b""))
    64
    """
    original = importlib.import_module(mutant.__name__)
    ours, theirs = _functions(original), _functions(mutant)
    before = {name: _state(function) for name, function in ours.items()}
    constants = dict(vars(original))
    tables = {
        name: dict(value)
        for name, value in constants.items()
        if isinstance(value, dict) and name[:2] != "__"
    }
    try:
        for name in ours.keys() & theirs.keys():
            if len(ours[name].__closure__ or ()) != len(theirs[name].__closure__ or ()):
                what = name[0]
                raise DianError(f"the mutant of {what} needs another closure (super?)")
            _set_state(ours[name], _merged(before[name], _state(theirs[name])))
        for name, value in vars(mutant).items():
            if name[:2] == "__" or callable(value) or inspect.ismodule(value):
                continue
            if value is constants.get(name):
                continue  # imported from another module
            if name in tables and isinstance(value, dict):
                _refill(constants[name], value)  # other modules may have imported it
            else:
                setattr(original, name, value)
        yield
    finally:
        for name, state in before.items():
            _set_state(ours[name], state)
        vars(original).update(constants)
        for name, table in tables.items():
            _refill(constants[name], table)


State = tuple[CodeType, tuple | None, dict | None]
"""What a function computes: its code, and the defaults of its parameters."""


def _state(function: FunctionType) -> State:
    return function.__code__, function.__defaults__, function.__kwdefaults__


def _set_state(function: FunctionType, state: State) -> None:
    function.__code__, function.__defaults__, function.__kwdefaults__ = state


def _merged(ours: State, theirs: State) -> State:
    """Return the state of a mutant, but keep defaults that are objects.

    Those of the mutant are instances of its own copies of the classes.
    """
    plain = (bool, int, float, str, tuple, NoneType)
    code, defaults, named = theirs
    if defaults and ours[1] and len(defaults) == len(ours[1]):
        pairs = zip(ours[1], defaults, strict=True)
        defaults = tuple(new if type(new) in plain else old for old, new in pairs)
    if named and ours[2]:
        rest = {k: ours[2].get(k, v) for k, v in named.items()}
        named = {k: v if type(v) in plain else rest[k] for k, v in named.items()}
    return code, defaults, named


def _refill(table: dict, content: dict) -> None:
    table.clear()
    table.update(content)


def _functions(module: ModuleType) -> dict[tuple[str, str], FunctionType]:
    """Find every function that a module defines, methods and properties included.

    The key is its name, and the name of its code. The second differs for a wrapper that
    a decorator made: it is found as well, so that mutants of the decorator run.
    """
    found = {}
    for owner in [module, *filter(inspect.isclass, vars(module).values())]:
        if owner is not module and owner.__module__ != module.__name__:
            continue
        for value in vars(owner).values():
            for function in _layers(value):
                if function.__module__ == module.__name__:
                    key = function.__qualname__, function.__code__.co_qualname
                    found[key] = function
    return found


def _layers(value: Any) -> Iterator[FunctionType]:
    """Yield the functions that a decorated function, method or property consists of."""
    if isinstance(value, property):
        yield from _layers(value.fget)  # a setter has the same name
        return
    if isinstance(value, functools.cached_property):
        value = value.func
    value = getattr(value, "__func__", value)
    while value is not None:
        if isinstance(value, FunctionType):
            yield value
        value = getattr(value, "__wrapped__", None)


def _one_line(error: Exception) -> str:
    """Put an error into one line; ours say all in their message."""
    if isinstance(error, DianError):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0]
