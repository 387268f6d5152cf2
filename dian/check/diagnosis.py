"""Which known mistake computes the same as a function that is wrong.

The mistakes are the mutants of the claims: each is installed in the library for a
moment, and our own function with it is called on the cases of the contract.
"""

import importlib
import inspect
import itertools
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from dian.check.contract import Case, Choice, Contract, Function, Outputs
from dian.check.registry import find
from dian.claims import Claim, Mutant
from dian.claims.verify import installed, load_mutant
from dian.errors import DianError

EXACT, SINGLE = 1e-9, 2e-5
"""Largest residual in float64, and where something is computed in float32."""
ROUNDING = 1e-12
"""Below this, two of our own functions compute the same."""
PAIRS_SECONDS = 1.5
"""Time of the processor for trying two mistakes at once."""

Observed = dict[int, Outputs | None]
"""Outputs by the number of the case; ``None`` if there are none."""


@dataclass(frozen=True)
class Known:
    """A known mistake, and what our function computes with it."""

    what: str
    claims: tuple[str, ...]
    """IDs of the claims whose check rejects it."""
    mutant: Mutant | None
    computed: tuple[Outputs | None, ...]


@dataclass(frozen=True)
class Diagnosis:
    """Mistakes that compute exactly what the reader's function computes."""

    names: tuple[str, ...]
    """One, or several that nobody can tell apart by what they compute."""
    claims: tuple[str, ...]
    choice: Choice
    residual: float
    together: bool = False
    """Whether it makes all of these mistakes at once."""


def residual(found: Outputs | None, expected: Outputs | None) -> float:
    """Return the largest difference of the outputs that both have, relative to 1."""
    if found is None or expected is None:
        return 0.0 if found is expected else torch.inf
    worst = 0.0
    for a, b in zip(found, expected, strict=False):
        if a.shape != b.shape:
            return torch.inf
        if not b.numel():
            continue
        a, b = a.double(), b.double()
        difference = (a - b).abs().max().item()
        if difference < torch.inf:  # neither NaN nor infinities, as almost always
            worst = max(worst, difference / max(1.0, b.abs().max().item()))
            continue
        missing = a.isnan() & b.isnan()
        same = missing | (a == b)  # infinities, too
        difference = torch.where(same, 0.0, a - b).abs().max().item()
        finite = b[b.isfinite()]
        scale = max(1.0, finite.abs().max().item() if finite.numel() else 1.0)
        if not difference <= torch.finfo(torch.float64).max:  # NaN or infinite
            return torch.inf
        worst = max(worst, difference / scale)
    return worst


def cases_of(contract: Contract, *, advice: bool = False) -> list[Case]:
    """Return the cases that a right function must agree on, or those of the advice."""
    return [
        case
        for one in contract.properties
        if one.advice == advice
        for case in one.cases
    ]


def compute(function: Function, cases: Sequence[Case]) -> tuple[Outputs | None, ...]:
    """Call one of our own functions on all cases."""
    return tuple(_attempt(function, case) for case in cases)


def _attempt(function: Function, case: Case) -> Outputs | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = function(**case.arguments)
    except Exception:  # a mutant may raise anything
        return None
    return tuple(x.detach().double().clone() for x in found)


@cache
def expected(kind: str) -> tuple[Outputs | None, ...]:
    """Return what our own function computes."""
    contract = find(kind)
    return compute(contract.ours[0], cases_of(contract))


@cache
def known_mistakes(kind: str) -> tuple[Known, ...]:
    """Return the mistakes that change what our functions compute, each only once."""
    contract = find(kind)
    cases, right = cases_of(contract), expected(kind)
    found: list[Known] = []
    for mutant, claims in _mutants(contract):
        with installed(load_mutant(module_of(mutant), mutant)):
            for ours in contract.ours:
                computed = compute(ours, cases)
                if _differs(computed, right):
                    found.append(Known(mutant.what, claims, mutant, computed))
    for mistake in contract.mistakes:
        computed = compute(mistake.function, cases)
        found.append(Known(mistake.what, (), None, computed))
    return tuple(found)


def silent_mutants(kind: str) -> list[str]:
    """Name the mutants in code that a contract runs, and that it does not notice."""
    seen = {known.what for known in known_mistakes(kind)}
    return [m.what for m, _ in _mutants(find(kind)) if m.what not in seen]


def diagnose(
    kind: str, observed: list[tuple[Choice, Observed]], limit: float
) -> Diagnosis | None:
    """Return the mistakes that compute what was observed, under one of the choices.

    Parameters
    ----------
    kind
        Name of the contract.
    observed
        What the function computed, under each choice of conventions.
    limit
        The largest residual that counts as the same.
    """
    right = expected(kind)
    best: Diagnosis | None = None
    for choice, outputs in observed:
        if not any(outputs.values()):
            continue  # it raises, and so does some mutant
        hits = []
        for known in known_mistakes(kind):
            apart = _distance(outputs, known.computed, limit)
            if apart > limit:
                continue
            near = 10 * limit
            if _distance(_only(right, outputs), known.computed, near) <= near:
                continue  # nobody could tell it from a right function
            hits.append((apart, known))
        names = tuple(dict.fromkeys(known.what for _, known in hits))
        if hits and (best is None or len(names) > len(best.names)):
            best = Diagnosis(
                names,
                tuple(dict.fromkeys(c for _, known in hits for c in known.claims)),
                choice,
                max(apart for apart, _ in hits),
            )
    return best


def diagnose_pairs(
    kind: str, observed: list[tuple[Choice, Observed]], limit: float
) -> Diagnosis | None:
    """Try two mistakes at once, for a second or two."""
    end, contract = time.process_time() + PAIRS_SECONDS, find(kind)
    cases = cases_of(contract)
    single = {k.what: k for k in known_mistakes(kind) if k.mutant is not None}
    for a, b in itertools.combinations(single.values(), 2):
        if time.process_time() > end:
            return None
        if module_of(a.mutant) != module_of(b.mutant):
            continue
        try:
            both = load_mutant(module_of(a.mutant), a.mutant, b.mutant)
        except DianError:
            continue  # the two change the same code
        with installed(both):
            computed = compute(contract.ours[0], cases)
        for choice, outputs in observed:
            apart = _distance(outputs, computed, limit)
            if apart <= limit and any(outputs.values()):
                claims = tuple(dict.fromkeys((*a.claims, *b.claims)))
                return Diagnosis((a.what, b.what), claims, choice, apart, together=True)
    return None


def _only(outputs: Sequence, observed: Observed) -> Observed:
    return {i: outputs[i] for i in observed}


def _distance(
    observed: Observed, computed: Sequence[Outputs | None], limit: float
) -> float:
    """Return the largest residual of the cases, or the first above ``limit``."""
    worst = 0.0
    for i, outputs in observed.items():
        worst = max(worst, residual(outputs, computed[i]))
        if worst > limit:
            break
    return worst if observed else torch.inf


def _differs(a: Sequence[Outputs | None], b: Sequence[Outputs | None]) -> bool:
    return any(residual(x, y) > ROUNDING for x, y in zip(a, b, strict=True))


def module_of(mutant: Mutant, claim: Claim | None = None) -> str:
    """Return the name of the module that a mutant changes."""
    module = mutant.module or claim.subjects[0]
    return module if isinstance(module, str) else module.__name__


def _mutants(contract: Contract) -> list[tuple[Mutant, tuple[str, ...]]]:
    """Return the mutants of code that our functions run, with the IDs of their claims.

    One that several claims share is returned once.
    """
    ran = executed(contract)
    found: dict[tuple, tuple[Mutant, list[str]]] = {}
    for claim, mutant in _ledger(contract):
        name = module_of(mutant, claim)
        if name.startswith("dian.claims") or not runs(name, mutant.at, ran):
            continue
        key = (name, mutant.at, mutant.old, mutant.new)
        placed = Mutant(mutant.what, mutant.at, mutant.old, mutant.new, name)
        found.setdefault(key, (placed, []))[1].append(claim.id)
    for mutant in contract.mutants:
        key = (module_of(mutant), mutant.at, mutant.old, mutant.new)
        found.setdefault(key, (mutant, []))
    return [(mutant, tuple(ids)) for mutant, ids in found.values()]


def _ledger(contract: Contract) -> Iterator[tuple[Claim, Mutant]]:
    for name in contract.ledger:
        for value in vars(importlib.import_module(f"dian.claims.{name}")).values():
            claim = getattr(value, "claim", None)
            if isinstance(claim, Claim):
                yield from ((claim, mutant) for mutant in claim.mutants)


def executed(contract: Contract) -> set[tuple[str, str]]:
    """Return the file and the qualified name of every function that ours call."""
    found: set[tuple[str, str]] = set()

    def note(frame, event, _):
        if event == "call":
            found.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        for ours in contract.ours:
            compute(ours, cases_of(contract))
    finally:
        sys.setprofile(before)
    return found


def runs(
    module: str, at: str, executed: set[tuple[str, str]], *, tables: bool = True
) -> bool:
    """Return whether the code of a mutant is among what was executed.

    Of a table it is not known whether it was read.
    """
    loaded = importlib.import_module(module)
    part = at.split(".")[0]
    if "." not in at and not callable(getattr(loaded, part, None)):
        return tables
    file = inspect.getsourcefile(loaded)
    return any(f == file and (q == at or q.startswith(f"{at}.")) for f, q in executed)
