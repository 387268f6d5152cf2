"""The claims of the report, and how each is checked.

A claim covers one or more numbered equations. Its check computes them in two ways, with
the functions of the library and with an independent implementation, and returns the
largest difference. The inputs are small, so a check reduces the block sizes of the
library until several blocks run, and uses the options and functions that the recorded
runs use. The two sides share no formula, no constant and no random draw.

Each claim lists mutants: copies of the code, or of the check's own formula, with one
mistake that the check must detect. So every claim can be seen to fail. The tolerance is
at most a tenth of the effect of the weakest mutant.

There is one module for each subject; :mod:`dian.claims.verify` runs them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

KINDS = {
    "S": "symbolic: the difference simplifies to exactly 0",
    "G": "the gradient by hand against autograd, float64",
    "C": "complex step",
    "N": "central difference",
    "I": "independent implementation",
    "E": "exact recursion or closed form",
    "Q": "quadrature",
    "M": "Monte Carlo, fixed seed",
    "H": "property, over random cases",
    "T": "recorded run",
}


@dataclass(frozen=True)
class Mutant:
    """A planted bug: in one definition of a module, one piece of code is replaced."""

    what: str
    """The mistake, in words."""
    at: str
    """Qualified name of the function, method, class or variable that is changed."""
    old: str
    """An expression or statements, which must occur there exactly once."""
    new: str
    """What replaces it."""
    module: ModuleType | str | None = None
    """The module that defines ``at``. Default: the first subject of the claim."""
    raises: str | None = None
    """Name of the exception by which a check should detect the mutant, such as
    ``RuntimeError``; any other exception means that the mutant is outdated."""


@dataclass(frozen=True)
class Claim:
    """One statement of the report, with its check."""

    id: str
    title: str
    equations: tuple[str, ...]
    """Labels of the numbered equations that it covers."""
    kinds: str
    """Letters of ``KINDS``, separated by spaces."""
    tolerance: float
    source: str
    """Paper and equation."""
    subjects: tuple[ModuleType, ...]
    """Modules under test. A mutant changes the first, unless it names another."""
    mutants: tuple[Mutant, ...]
    check: Callable[..., float]
    """Returns the largest relative difference found."""
    assumptions: str = "none"

    def __post_init__(self):
        if set(self.kinds.split()) - set(KINDS):
            known = " ".join(KINDS)
            raise ValueError(f"kinds must be some of {known}, got {self.kinds!r}")


def claim(
    id_: str, title: str, **fields: Any
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Mark a function as the check of a claim with these fields of :class:`Claim`.

    Examples
    --------
    >>> import operator
    >>> @claim("X1", "Two and two", equations=("eq-two",), kinds="E", tolerance=0.0,
    ...        source="Peano", subjects=(operator,), mutants=())
    ... def two_and_two():
    ...     return abs(operator.add(2, 2) - 4)
    >>> two_and_two.claim.id
    'X1'
    """

    def mark(check: Callable[..., float]) -> Callable[..., float]:
        check.claim = Claim(id_, title, check=check, **fields)
        return check

    return mark
