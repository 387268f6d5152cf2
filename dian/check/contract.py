"""What the checker expects of a function: arguments, conventions and properties.

All functions are compared in one form, the *canonical* one, that of the report.
An :class:`Option` of a convention wraps the reader's function, so that it takes and
returns the canonical form whatever its own convention is.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dian.claims import Mutant

Arguments = Mapping[str, Any]
Outputs = tuple[Tensor, ...]
Function = Callable[..., Outputs]
"""Takes the canonical arguments by name and returns the canonical outputs."""

ANY = object()
"""The default of an argument that adds an output and changes no other."""
REQUIRED = object()


@dataclass(frozen=True)
class Argument:
    """One argument of the reader's function."""

    name: str
    shape: str
    """Its shape, or the type of what is no tensor."""
    words: str
    aliases: tuple[str, ...] = ()
    """Other usual names; a parameter of such a name is this argument."""
    default: Any = REQUIRED
    """What holds if the function has no such parameter: a value, a function of the
    other arguments, or :data:`ANY`."""
    fill: Callable[[Arguments], Any] | None = None
    """Makes it where a function needs it and a case does not give it."""

    @property
    def required(self) -> bool:
        """Whether every function must take it."""
        return self.default is REQUIRED


@dataclass(frozen=True)
class Option:
    """One choice of a convention: how to call a function that follows it."""

    name: str
    wrap: Callable[[Function], Function] = lambda function: function
    in_place: bool = False
    """Whether such a function changes its arguments, and is right to do so."""


@dataclass(frozen=True)
class Convention:
    """Something on which right functions differ. The first option is the report's."""

    name: str
    options: tuple[Option, ...]
    needs: str | None = None
    """The argument without which there is nothing to choose."""
    layout: bool = False
    """Whether it concerns axes alone, where one function may well take several."""


Choice = tuple[tuple[Convention, Option], ...]
"""One option of each convention."""


@dataclass(frozen=True)
class Case:
    """One call of the function; cases are sorted from the smallest to the largest."""

    words: str
    arguments: Arguments


@dataclass(frozen=True)
class Property:
    """Something that holds for every right function."""

    claim: str
    """ID of the claim of the report that states it."""
    title: str
    cases: tuple[Case, ...] = ()
    """On these the function must agree with that of the report."""
    law: Callable[[Function], float] | None = None
    """Returns the residual of a relation between several calls."""
    needs: tuple[str, ...] = ()
    """Optional arguments without which it cannot be checked."""
    tolerance: float | None = None
    """Of the law. Default: that of the arithmetic in use."""
    advice: bool = False
    """Whether a right function may fail it; the report then warns."""
    mistake: str = ""
    """What a function that fails it does, where there are no outputs to compare."""
    follows: tuple[str, ...] = ()
    """Mistakes of other properties, of which this one is only a consequence."""


@dataclass(frozen=True)
class Mistake:
    """A function with a known mistake, for what no mutant of the library expresses."""

    what: str
    function: Function


@dataclass(frozen=True)
class Contract:
    """What is expected of one kind of function, and the mistakes that are known."""

    kind: str
    title: str
    arguments: tuple[Argument, ...]
    returns: tuple[tuple[str, str, str], ...]
    """Name, shape and words of each output; only the first must be returned."""
    ours: tuple[Function, ...]
    """Functions of the report in canonical form; all compute the same."""
    properties: tuple[Property, ...]
    chapter: str
    """The page of the site that derives it."""
    pitfalls: str
    """The page of the gallery on which such mistakes are planted."""
    ledger: tuple[str, ...]
    """Modules below ``dian.claims`` whose mutants are diagnoses."""
    conventions: tuple[Convention, ...] = ()
    mutants: tuple[Mutant, ...] = ()
    """Further mutants; each names its module."""
    mistakes: tuple[Mistake, ...] = ()
    module: Callable[[Any], Callable] | None = None
    """Makes a function of a ``torch.nn.Module`` class, if the kind allows one."""
    made: bool = False
    """Whether it may be a module that was made already."""
    adapt: Callable[[Callable], tuple[Callable, str]] | None = None
    """Turns other forms of the function into the expected one, and names the form."""
    notes: tuple[str, ...] = field(default=())
    """What else a reader must know."""
    probe: Case | None = None
    """A call for kinds of which any two right functions differ, so that there are no
    cases. The first conventions are taken under which it succeeds."""

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the arguments that every function takes."""
        return tuple(a.name for a in self.arguments if a.required)

    def choices(self, accepted: frozenset[str]) -> Iterator[Choice]:
        """Yield every combination of options, the report's own first."""
        asked = [c for c in self.conventions if c.needs is None or c.needs in accepted]
        for options in itertools.product(*(c.options for c in asked)):
            yield tuple(zip(asked, options, strict=True))


def under(
    function: Function, choice: Choice, wrapped: dict[Choice, Function]
) -> Function:
    """Return the canonical form of a function that follows these conventions.

    The forms are kept in ``wrapped``, because choices share their first conventions.
    """
    if not choice:
        return function
    if choice not in wrapped:
        *_, (_, option) = choice
        wrapped[choice] = option.wrap(under(function, choice[:-1], wrapped))
    return wrapped[choice]


def converting(**converters: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """Return a wrapper that converts arguments, which may be absent or ``None``."""

    def wrap(function: Function) -> Function:
        def wrapped(**arguments: Any) -> Outputs:
            for name, convert in converters.items():
                if arguments.get(name) is not None:
                    arguments[name] = convert(arguments[name])
            return function(**arguments)

        return wrapped

    return wrap


def returning(convert: Callable[..., Outputs]) -> Callable[[Function], Function]:
    """Return a wrapper that converts outputs, given the canonical arguments as well."""

    def wrap(function: Function) -> Function:
        def wrapped(**arguments: Any) -> Outputs:
            return convert(function(**arguments), arguments)

        return wrapped

    return wrap
