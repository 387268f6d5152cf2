"""What the checker found, as text and as values that JSON can hold."""

from dataclasses import dataclass, field
from typing import Any

RIGHT, WRONG, UNCHECKED = "right", "wrong", "not checkable"
STATUS = {RIGHT: 0, WRONG: 1, UNCHECKED: 2}
"""The exit status of the command for each verdict."""

PASSED, FAILED, WARNED, SKIPPED = "✓", "✗", "!", "-"


@dataclass(frozen=True)
class Line:
    """The outcome of one property."""

    mark: str
    title: str
    claim: str
    residual: float | None = None
    detail: str = ""
    """The smallest input that fails, or why the property was not checked."""

    def __str__(self) -> str:
        found = "" if self.residual is None else f"  residual {_short(self.residual)}"
        said = f" {self.mark} {self.title:<52} {self.claim:<5}{found}".rstrip()
        below = "\n     " if self.mark in (FAILED, WARNED) else "  "
        return f"{said}{below}{self.detail}" if self.detail else said


@dataclass
class Report:
    """The outcome of a check.

    ``str(report)`` is what the command prints.
    """

    kind: str
    name: str
    """Of the function."""
    verdict: str = RIGHT
    conventions: dict[str, str] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    """Those that compute exactly the same; empty if none is known."""
    together: bool = False
    """Whether the function makes all of these mistakes, not one of them."""
    mistake_residual: float | None = None
    claims: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    """The sections of the site that show these mistakes."""
    fault: str = ""
    """Why the function could not be compared."""
    details: str = ""
    notes: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """Outputs that the function does not return."""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the function is right."""
        return self.verdict == RIGHT

    @property
    def status(self) -> int:
        """The exit status of the command: 0 right, 1 wrong, 2 not checkable."""
        return STATUS[self.verdict]

    def head(self) -> str:
        """Return the first line: what was checked, and its conventions."""
        found = "".join(f" · {value}" for value in self.conventions.values())
        return f" {self.kind} · {self.name}{found}"

    def body(self) -> list[str]:
        """Return the lines that follow."""
        lines = [str(line) for line in self.lines]
        if self.fault:
            lines.append(f" {FAILED} {self.fault}")
        lines += [f" {SKIPPED} not returned, not checked: {x}" for x in self.absent]
        lines += [f" {WARNED} {note}" for note in self.notes]
        if self.mistakes:
            joint = " together with " if self.together else " or "
            names = joint.join(f'"{name}"' for name in self.mistakes)
            apart = self.mistake_residual
            shown = "" if apart is None else f" (residual {_short(apart)})"
            lines.append(f" Behaves exactly like: {names}{shown}")
        elif self.verdict == WRONG and not self.fault:
            lines.append(" No known mistake computes the same.")
        if self.verdict == WRONG:
            lines += [f" → {page}" for page in self.pages]
        return [*lines, f" {self.verdict}"]

    def __str__(self) -> str:
        return "\n".join([self.head(), *self.body()])

    def as_dict(self) -> dict[str, Any]:
        """Return everything in values that JSON can hold."""
        values = dict(vars(self))
        values["lines"] = [
            vars(line) | {"residual": _finite(line.residual)} for line in self.lines
        ]
        values["mistake_residual"] = _finite(self.mistake_residual)
        return values | {"passed": self.passed, "status": self.status}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Report":
        """Return the report that :meth:`as_dict` described."""
        values = {k: v for k, v in values.items() if k not in ("passed", "status")}
        values["lines"] = [Line(**line) for line in values["lines"]]
        return cls(**values)


def _short(number: float) -> str:
    return f"{number:.0e}" if number else "0"


def _finite(number: float | None) -> float | str | None:
    """JSON has no infinity."""
    if number is None or number in (float("inf"),) or number != number:
        return None
    return number
