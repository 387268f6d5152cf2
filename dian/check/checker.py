"""Check a function: find its conventions, then its mistakes."""

import contextlib
import functools
import inspect
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import nn

from dian.check import diagnosis, pages
from dian.check.adapters import Fault, Skipped, Subject
from dian.check.contract import (
    Case,
    Choice,
    Contract,
    Function,
    Outputs,
    Property,
    under,
)
from dian.check.diagnosis import EXACT, SINGLE, Diagnosis, Observed, residual
from dian.check.registry import find
from dian.check.report import (
    FAILED,
    PASSED,
    SKIPPED,
    UNCHECKED,
    WARNED,
    WRONG,
    Line,
    Report,
)
from dian.errors import require_one_of

ARRAYS = ("auto", "torch", "numpy")
ROUGH = 0.01
"""Largest residual in float32 that rounding alone explains."""
NOT_COMPARABLE = {"signature", "raises", "module", "import"}
"""Faults after which nothing is known about what the function computes."""


def check(kind: str, function: Any, *, arrays: str = "auto") -> Report:
    """Check a function against the report: what holds, and which mistake it makes.

    Parameters
    ----------
    kind
        What the function computes, one of :data:`dian.check.registry.KINDS`.
    function
        The function, or a class of :class:`torch.nn.Module` where the kind allows one.
    arrays
        The arrays that it takes, ``"torch"`` or ``"numpy"``. Default: torch, and NumPy
        if that raises.

    Returns
    -------
    report
        In pytest: ``assert report.passed, report``.

    Examples
    --------
    >>> def clip(gradients, max_norm):  # each tensor by itself
    ...     return [g * min(1, max_norm / g.norm()) for g in gradients]
    >>> report = check("clip", clip)
    >>> report.passed, report.mistakes
    (False, ['each tensor is clipped separately'])
    """
    return Checker(kind, function, arrays).report()


class Checker:
    """One check, step by step."""

    def __init__(self, kind: str, function: Any, arrays: str = "auto"):
        require_one_of("arrays", arrays, ARRAYS)
        self.kind, self.function, self.arrays = kind, function, arrays
        self.contract: Contract = find(kind)
        self.cases = diagnosis.cases_of(self.contract)
        self.begin = time.perf_counter()
        self.returned = 0
        self.tried: list[tuple[Choice, Function, Observed]] = []
        self.result = Report(kind, name_of(function))

    def report(self) -> Report:
        """Run all steps."""
        try:
            self._run()
        except Fault as fault:
            self._fail(fault)
        found = self.result
        found.pages = pages.sections(self.kind, found.mistakes, found.claims[:1])
        found.seconds = time.perf_counter() - self.begin
        return self.result

    def _fail(self, fault: Fault) -> None:
        unknown = fault.code in NOT_COMPARABLE
        self.result.verdict = UNCHECKED if unknown else WRONG
        self.result.fault, self.result.details = str(fault), fault.details

    def _run(self) -> None:
        function, form = _as_function(self.contract, self.function), ""
        if self.contract.adapt is not None:
            function, form = self.contract.adapt(function)
        self.subject, choice, worst = self._conventions(function)
        named = None
        if self.contract.probe is None and (choice is None or worst > EXACT):
            observed = [p for p in self.observed if choice in (None, p[0])]
            named = self._diagnose(observed, choice is not None)
            if named is None and choice is None:
                named = diagnosis.diagnose_pairs(self.kind, observed, self.limit)
            choice = named.choice if named else choice or self._nearest()
        self.choice = choice
        self.result.conventions = {
            **({"form": form} if form else {}),
            **self.result.conventions,
            **{c.name: o.name for c, o in choice},
        }
        self._lines()
        self._behaviour()
        failed = any(line.mark == FAILED for line in self.result.lines)
        if failed or self.result.fault:
            self.result.verdict = WRONG
        else:
            self._single()
        self._tell(named, failed)
        self._tell_properties()
        self._ambiguous()
        self._narrow()
        self._absent()
        self.result.notes += self.subject.notes

    # Conventions

    def _subjects(self, function: Callable) -> Iterator[Subject]:
        if self.arrays in ("auto", "torch"):
            yield Subject(self.contract, function, "torch", torch.float64)
            yield Subject(self.contract, function, "torch", torch.float32)
        if self.arrays in ("auto", "numpy"):
            yield Subject(self.contract, function, "numpy", torch.float64)

    def _conventions(self, function: Callable) -> tuple[Subject, Choice | None, float]:
        """Return how to call the function, its conventions and the residual.

        There are no conventions if it is wrong under all of them.
        """
        first: Fault | None = None
        for subject in self._subjects(function):
            self.subject, self.fits = subject, []
            if self.contract.probe is not None:
                fault, choice = self._running()
                if choice is not None:
                    self._note_arrays(subject)
                    return subject, choice, 0.0
                first = first or fault
                continue
            self.limit = EXACT if subject.dtype == torch.float64 else SINGLE
            self.faults: dict[int, Fault] = {}
            self.tried = [
                (choice, self._under(choice), {})
                for choice in self.contract.choices(subject.accepted)
            ]
            for choice, under_choice, found in self.tried:
                worst = self._worst(under_choice, found)
                if worst <= SINGLE:
                    self.fits.append((worst, choice))
            exact = [fit for fit in self.fits if fit[0] <= self.limit]
            if exact or self.fits:
                worst, choice = (
                    exact[0] if exact else min(self.fits, key=lambda f: f[0])
                )
                self._note_arrays(subject)
                return subject, choice, 0.0 if exact else worst
            if any(any(out.values()) for _, out in self.observed):
                self._note_arrays(subject)
                return subject, None, torch.inf
            del self.observed
            none = Fault("signature", "takes too few of the arguments to be checked")
            first = first or next(iter(self.faults.values()), none)
        raise first

    def _running(self) -> tuple[Fault | None, Choice | None]:
        """Return the first conventions under which the function can be called."""
        first = None
        for choice in self.contract.choices(self.subject.accepted):
            try:
                self._under(choice)(**self.contract.probe.arguments)
            except Fault as fault:
                first = first or fault
            else:
                return None, choice
        return first, None

    def _note_arrays(self, subject: Subject) -> None:
        if subject.arrays == "numpy" and self.arrays == "auto":
            self.result.conventions["arrays"] = "NumPy arrays"
        if subject.dtype == torch.float32:
            subject.notes["takes float32 only, so that residuals are larger"] = None

    def _worst(self, function: Function, found: Observed) -> float:
        """Return the largest residual under a choice, or the first that is large.

        The outputs are kept in ``found``.
        """
        worst, called = 0.0, False
        for i, case in enumerate(self.cases):
            try:
                found[i] = function(**case.arguments)
            except Skipped:
                continue
            except Fault as fault:
                self.faults.setdefault(len(self.faults), fault)
                found[i] = None
                return torch.inf
            called, worst = True, max(worst, residual(found[i], self.right[i]))
            if worst > SINGLE:
                break
        return worst if called else torch.inf

    @property
    def right(self) -> tuple:
        """What our own function computes on the cases."""
        return diagnosis.expected(self.kind)

    def _under(self, choice: Choice) -> Function:
        function = under(self.subject, choice, self.subject.wrapped)
        in_place = any(option.in_place for _, option in choice)
        return functools.partial(_call, self.subject, in_place, function)

    @cached_property
    def observed(self) -> list[tuple[Choice, Observed]]:
        """What the function computes in all cases under each choice of conventions."""
        observed = []
        for choice, function, found in self.tried:
            outputs = dict(found)
            for i, case in enumerate(self.cases):
                if i in outputs:
                    continue
                try:
                    outputs[i] = function(**case.arguments)
                except Skipped:
                    continue
                except Fault as fault:
                    self.faults.setdefault(len(self.faults), fault)
                    outputs[i] = None
            observed.append((choice, outputs))
        return observed

    def _nearest(self) -> Choice:
        """Return the choice under which most cases come out right."""

        def score(pair: tuple[Choice, Observed]) -> tuple[int, int, float]:
            apart = [residual(out, self.right[i]) for i, out in pair[1].items()]
            faults = sum(out is None for out in pair[1].values())
            wrong = sum(x > SINGLE for x in apart)
            return wrong, faults, sum(min(x, 10.0) for x in apart)

        return min(self.observed, key=score)[0]

    def _tell_properties(self) -> None:
        """Name the mistakes that properties stand for."""
        failed = {line.title for line in self.result.lines if line.mark == FAILED}
        named = [p for p in self.contract.properties if p.mistake and p.title in failed]
        present = {one.mistake for one in named}
        for one in named:
            if not present & set(one.follows):
                self.result.mistakes.append(one.mistake)
                self.result.claims.append(one.claim)
        self.result.together |= len(self.result.mistakes) > 1 and not self.cases

    def _ambiguous(self) -> None:
        """Note other conventions that fit as well."""
        for worst, choice in self.fits:
            pairs = zip(choice, self.choice, strict=True)
            names = [o.name for (c, o), (_, p) in pairs if o != p and not c.layout]
            if worst > self.limit or not names:
                continue
            fits = f"also fits another convention ({', '.join(names)})"
            said = f"{fits}; no input that it takes tells them apart"
            self.subject.notes[said] = None
            return

    def _narrow(self) -> None:
        """Note if the function runs on the axes of the report, and is wrong there."""
        layouts = [(c, o) for c, o in self.choice if c.layout and o != c.options[0]]
        for convention, option in layouts:
            usual = tuple(
                (c, c.options[0] if c == convention else o) for c, o in self.choice
            )
            function = self._under(usual)
            try:
                found = function(**self.cases[-1].arguments)
            except (Fault, Skipped):
                continue
            if [x.shape for x in found] == [
                x.shape for x in self.right[-1][: len(found)]
            ]:
                name = convention.options[0].name
                said = (
                    f"right for {option.name} alone: it runs for {name}, and is wrong"
                )
                self.subject.notes[said] = None

    def _absent(self) -> None:
        """Name the outputs that were never returned, and so not compared."""
        optional = {a.name for a in self.contract.arguments if not a.required}
        self.result.absent = [
            name
            for i, (name, _, _) in enumerate(self.contract.returns)
            if i >= self.returned > 0 and name not in optional
        ]

    # Mistakes

    def _diagnose(self, observed: list, fits: bool) -> Diagnosis | None:
        named = diagnosis.diagnose(self.kind, observed, EXACT)
        if named is None and not fits:
            named = diagnosis.diagnose(self.kind, observed, SINGLE)
        return named

    def _tell(self, named: Diagnosis | None, failed: bool) -> None:
        if named is None:
            return
        if not failed:
            said = '" or "'.join(named.names)
            self.subject.notes[f'computes as in: "{said}"'] = None
            return
        self.result.mistakes = list(named.names)
        self.result.claims = list(named.claims)
        self.result.mistake_residual = named.residual
        self.result.together = named.together

    # Properties

    def _lines(self) -> None:
        function = self._under(self.choice)
        for one in self.contract.properties:
            absent = [n for n in one.needs if n not in self.subject.accepted]
            if absent:
                line = Line(SKIPPED, one.title, one.claim, None, f"no {absent[0]}")
            elif one.law is not None:
                line = self._law(one, function)
            else:
                line = self._cases(one, function)
            self.result.lines.append(line)

    def _law(self, one: Property, function: Function) -> Line:
        limit = one.tolerance or SINGLE
        try:
            found = float(one.law(function))
        except Skipped as skipped:
            return Line(SKIPPED, one.title, one.claim, None, f"no {skipped}")
        except Fault as fault:
            return Line(_bad(one), one.title, one.claim, None, str(fault))
        except (ValueError, TypeError, RuntimeError, IndexError):
            said = "the shapes of the outputs do not fit"
            return Line(_bad(one), one.title, one.claim, None, said)
        mark = PASSED if found <= limit else _bad(one)
        return Line(mark, one.title, one.claim, found)

    def _cases(self, one: Property, function: Function) -> Line:
        limit = one.tolerance or SINGLE
        worst, first, checked = 0.0, "", False
        rights = (
            diagnosis.compute(self.contract.ours[0], one.cases)
            if one.advice
            else [self.right[self.cases.index(case)] for case in one.cases]
        )
        for case, right in zip(one.cases, rights, strict=True):
            try:
                found = function(**case.arguments)
            except Skipped as skipped:
                first = first or f"no {skipped}"
                continue
            except Fault as fault:
                return Line(_bad(one), one.title, one.claim, None, _faulty(fault, case))
            checked, apart = True, residual(found, right)
            self.returned = max(self.returned, len(found))
            worst = max(worst, apart)
            if apart > limit:
                said = _compared(found, right)
                return Line(
                    _bad(one), one.title, one.claim, apart, f"{case.words}{said}"
                )
        if not checked:
            return Line(SKIPPED, one.title, one.claim, None, first)
        return Line(PASSED, one.title, one.claim, worst)

    def _behaviour(self) -> None:
        """Look for randomness, and for state that is kept between calls."""
        function = self._under(self.choice)
        for case in reversed(self.cases or [self.contract.probe]):
            try:
                found = function(**case.arguments)
            except (Skipped, Fault):
                continue
            break
        else:
            return
        if residual(function(**case.arguments), found) > SINGLE:
            self.result.fault = (
                "returns something else when it is called again with the same "
                "arguments: it keeps state between calls, or draws at random"
            )
            return
        try:
            Subject.seed = 1
            if residual(function(**case.arguments), found) > SINGLE:
                self.result.fault = (
                    "is random: it draws from the global generator, though all that "
                    "it needs is given"
                )
        finally:
            Subject.seed = 0

    def _single(self) -> None:
        """Warn of a function that is wrong in float32, in which networks compute."""
        double, worst = self.subject, 0.0
        if double.dtype != torch.float64:
            return
        self.subject = Subject(
            self.contract, double.function, double.arrays, torch.float32
        )
        function = self._under(self.choice)
        for case, right in zip(self.cases, self.right, strict=True):
            with contextlib.suppress(Skipped, Fault):
                worst = max(worst, residual(function(**case.arguments), right))
        self.subject = double
        if worst > ROUGH:
            said = f"right in float64, but not in float32 (residual {worst:.0e})"
            double.notes[said] = None


def _bad(one: Property) -> str:
    return WARNED if one.advice else FAILED


def _faulty(fault: Fault, case: Case) -> str:
    return f"{case.words}: {fault}"


def _compared(found: Any, right: Any) -> str:
    """Put into words how an output differs."""
    for a, b in zip(found, right, strict=False):
        if a.shape != b.shape:
            return f": shape {tuple(a.shape)}, expected {tuple(b.shape)}"
        if a.isnan().any() and not b.isnan().any():
            return ": NaN"
        if residual((a,), (b,)) > SINGLE:
            away = torch.where(a == b, 0.0, (a - b).abs()).nan_to_num(posinf=1e300)
            i = int(away.flatten().argmax())
            x, y = a.flatten()[i].item(), b.flatten()[i].item()
            return f": {x:.4g}, expected {y:.4g}"
    return ""


def _call(
    subject: Subject, in_place: bool, function: Function, **arguments: Any
) -> Outputs:
    """Call a canonical form of a subject."""
    subject.in_place = in_place
    try:
        return function(**subject.taken(arguments))
    except (Fault, Skipped):
        raise
    except Exception as error:  # of a wrapper, on outputs that it did not expect
        line = " ".join(str(error).split())[:120]
        raise Fault("shape", f"returns what does not fit: {line}") from None


def _as_function(contract: Contract, function: Any) -> Callable:
    """Make a function of a module, if the kind allows one."""
    module = isinstance(function, nn.Module) or (
        inspect.isclass(function) and issubclass(function, nn.Module)
    )
    if not module:
        if not callable(function):
            kind = type(function).__name__
            raise Fault("signature", f"is no function but of type {kind}")
        return function
    if contract.module is None:
        if inspect.isclass(function):
            said = (
                f"is a class of modules; {contract.kind} takes a function or an object"
            )
            raise Fault("module", said)
        return _forward(function)
    if not (inspect.isclass(function) or contract.made):
        raise Fault("module", "is a module that was made already; give its class")
    return contract.module(function)


def _forward(module: nn.Module) -> Callable:
    """Return a module as a function that has the arguments of ``forward``."""

    @functools.wraps(module.forward)
    def function(*arguments: Any, **named: Any) -> Any:
        return module(*arguments, **named)

    return function


def name_of(function: Any) -> str:
    """Return the name of a function for the report."""
    name = getattr(function, "__qualname__", type(function).__name__)
    return name.replace("<locals>.", "").rpartition("test_")[2] if "<" in name else name
