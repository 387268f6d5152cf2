"""What the report claims, and how each claim is checked.

A claim vouches for one or more numbered equations. Its check computes them in two
ways, from the code that the report runs and from something else, and returns how far
apart they are. Beside each check stand planted bugs: changes of one expression, in the
code or in the formula, that the check must reject. So every claim can be seen to fail.

There is one module for each subject; :mod:`dian.claims.verify` runs them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType

from dian.errors import DianError

EXPECTED = {
    "R1": 4,
    "R2": 2,
    "R3": 3,
    "R4": 7,
    "R5": 12,
    "R6": 2,
    "R7": 6,
    "R8": 5,
    "R9": 4,
    "R10": 5,
    "R11a": 4,
    "R11b": 5,
    "R12": 6,
    "R13": 6,
    "R14a": 6,
    "R14b": 4,
    "R14c": 3,
    "R15": 7,
    "R16": 4,
    "R17": 5,
    "P1": 6,
    "P2": 6,
    "P3": 7,
    "P4": 3,
    "P5": 3,
    "P6": 4,
    "P7": 5,
    "P8": 10,
    "P9": 3,
    "P10": 4,
    "P11": 5,
    "P12": 6,
    "P13": 5,
    "P14": 5,
    "P15": 7,
    "A1": 7,
    "A2": 4,
    "A3": 4,
    "A4": 7,
    "A5": 8,
    "A6": 11,
    "A7": 5,
    "A8": 8,
    "A9": 4,
    "A10": 10,
    "A11": 3,
    "A12": 3,
    "A13": 4,
    "A14": 4,
    "A15": 5,
    "D1": 5,
    "D2": 3,
    "D3": 4,
    "D4": 4,
    "D5": 8,
    "D6": 4,
    "D6b": 6,
    "D7": 6,
    "D8a": 7,
    "D8b": 8,
    "D9": 4,
    "D10": 6,
    "D11": 5,
    "D12a": 4,
    "D12b": 4,
    "D13": 8,
    "D13b": 5,
    "D14a": 10,
    "D14b": 3,
    "D15": 4,
    "D16": 4,
    "D16b": 4,
    "D17": 9,
}
"""Which claims there are, and how many bugs are planted for each. None can vanish
unseen: :func:`require_expected` compares what is found with this list."""

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
    """A planted bug: one expression of a module is replaced by a wrong one."""

    what: str
    """The mistake, in words."""
    old: str
    """What the source says; it must say so exactly once."""
    new: str
    """What it says with the bug."""
    module: ModuleType | str | None = None
    """Where. Default: the first subject of the claim."""
    raises: str | None = None
    """Name of the exception that is the right way to notice it, such as
    ``RuntimeError``. Any other means that the bug is not the one that was meant."""


@dataclass(frozen=True)
class Claim:
    """One statement of the report, with its check."""

    id: str
    title: str
    equations: tuple[str, ...]
    """Labels of the numbered equations that it vouches for."""
    kinds: tuple[str, ...]
    tolerance: float
    source: str
    """Paper and equation."""
    assumptions: str
    subjects: tuple[ModuleType, ...]
    """Modules under test; the check gets them as its arguments, in this order."""
    mutants: tuple[Mutant, ...]
    check: Callable[..., float]
    """Returns the largest relative difference found."""


def claim(
    id_: str,
    title: str,
    *,
    equations: tuple[str, ...],
    kinds: str,
    tolerance: float,
    source: str,
    subjects: tuple[ModuleType, ...],
    mutants: tuple[Mutant, ...],
    assumptions: str = "none",
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Mark a function as the check of a claim; see :class:`Claim` for the fields.

    Examples
    --------
    >>> import operator
    >>> @claim("X1", "Two and two", equations=("eq-two",), kinds="E", tolerance=0.0,
    ...        source="Peano", subjects=(operator,), mutants=())
    ... def two_and_two(operator):
    ...     return abs(operator.add(2, 2) - 4)
    >>> two_and_two.claim.id
    'X1'
    """
    unknown = set(kinds.split()) - set(KINDS)
    if unknown:
        raise ValueError(f"kinds must be some of {' '.join(KINDS)}, got {kinds!r}")

    def mark(check: Callable[..., float]) -> Callable[..., float]:
        check.claim = Claim(
            id=id_,
            title=title,
            equations=equations,
            kinds=tuple(kinds.split()),
            tolerance=tolerance,
            source=source,
            assumptions=assumptions,
            subjects=subjects,
            mutants=mutants,
            check=check,
        )
        return check

    return mark


def require_expected(found: Mapping[str, int]) -> None:
    """Refuse claims, or numbers of mutants, that are not those of :data:`EXPECTED`.

    Parameters
    ----------
    found
        The number of mutants of each claim, by its ID.

    Raises
    ------
    DianError
        If a claim is gone, is new, or has another number of mutants; it names all.
    """
    told = []
    for name in sorted(found.keys() | EXPECTED):
        if name not in found:
            told.append(f"claim {name} is gone")
        elif name not in EXPECTED:
            told.append(f"claim {name} is new, with {found[name]} mutants")
        elif found[name] != EXPECTED[name]:
            told.append(
                f"claim {name} has {found[name]} mutants, expected {EXPECTED[name]}"
            )
    if told:
        raise DianError(
            f"not as EXPECTED in dian/claims/__init__.py says: {', '.join(told)}; if "
            "that is meant, change it there"
        )
