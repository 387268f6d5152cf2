"""One test of pytest for each property of a contract."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from dian.check.checker import check
from dian.check.registry import find
from dian.check.report import FAILED, SKIPPED, Report


@dataclass(frozen=True)
class PropertyCheck:
    """Call it to check one property of a function.

    The function is checked once, when the first of its properties is called.
    """

    report: Callable[[], Report]
    title: str

    def __call__(self) -> None:
        """Raise an :class:`AssertionError` that shows the report if it fails."""
        report = self.report()
        if report.fault:
            raise AssertionError(f"\n{report}")
        line = next(line for line in report.lines if line.title == self.title)
        if line.mark == FAILED:
            raise AssertionError(f"\n{report}")
        if line.mark == SKIPPED:
            import pytest

            pytest.skip(line.detail)

    def __str__(self) -> str:
        return self.title


def parametrize_with_checks(kind: str, function: Callable) -> Callable:
    """Decorate a test that is run once for each property of a function.

    Parameters
    ----------
    kind, function
        As in :func:`dian.check.checker.check`.

    Examples
    --------
    >>> @parametrize_with_checks("clip", lambda gradients, max_norm: gradients)
    ... def test_my_clipping(case):
    ...     case()
    """
    import pytest

    report = cache(lambda: check(kind, function))
    cases = [PropertyCheck(report, one.title) for one in find(kind).properties]
    return pytest.mark.parametrize("case", cases, ids=str)
