"""Claims and tests as checks that run one by one in this process.

The tests are collected by pytest once. So a mutant that is installed in a forked
process meets its checks without waiting for any import.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dian.claims import Claim
from dian.claims.verify import claims, verify
from dian.errors import DianError
from dian.runs.code_hash import PACKAGE

ROOT = PACKAGE.parent
SHARED_TESTS = ("test_autograd", "test_numeric_inputs", "test_right_values")
"""Files of tests that are about all chapters."""


@runtime_checkable
class Check(Protocol):
    """Something that a mutant can fail."""

    name: str
    source: str | Path
    """The module or the file in which it is defined."""

    def passes(self, following: Any = None) -> bool:
        """Run it; the check that follows may share what it has prepared."""


@dataclass(frozen=True)
class ClaimCheck:
    """Whether a claim holds."""

    claim: Claim

    @property
    def name(self) -> str:
        """The ID of the claim."""
        return self.claim.id

    @property
    def source(self) -> str:
        """The module of the claim."""
        return self.claim.check.__module__

    def passes(self, following: Any = None) -> bool:
        """Run the check of the claim."""
        return verify(self.claim).passed


@dataclass(frozen=True)
class PytestCheck:
    """Whether a test passes."""

    item: Any
    """A test that pytest has collected."""
    run: Callable[[Any, Any], bool]

    @property
    def name(self) -> str:
        """The name by which pytest runs the test."""
        return self.item.nodeid

    @property
    def source(self) -> Path:
        """The file of the test, or of the doctest."""
        return self.item.path

    def passes(self, following: Any = None) -> bool:
        """Run the test; fixtures that the following check shares are kept."""
        return self.run(self.item, getattr(following, "item", None))


def files_of_tests(module: str) -> list[Path]:
    """Return the files with the tests of a module: its own, its doctests, the shared.

    >>> [file.name for file in files_of_tests("dian.rnn.recurrence")][:2]
    ['test_recurrence.py', 'recurrence.py']
    """
    _, chapter, name = module.split(".")
    own = ROOT / "tests" / chapter / f"test_{name}.py"
    shared = [ROOT / "tests" / f"{name}.py" for name in SHARED_TESTS]
    files = [own, PACKAGE / chapter / f"{name}.py", *shared]
    return [file for file in files if file.is_file()]


def with_checks(modules: Iterable[str], work: Callable[[list[Check]], None]) -> None:
    """Call a function with all claims, and with the tests of some modules.

    Pytest has to be active while tests run, so this calls ``work`` and returns nothing.
    Slow tests, and the checks of shapes, are not part of it.

    Parameters
    ----------
    modules
        Full names of modules.
    work
        Takes the checks.

    Raises
    ------
    DianError
        If there are no tests here, or they cannot be collected.
    """
    import pytest  # not part of what is installed with the package

    if not (ROOT / "tests").is_dir():
        raise DianError(f"{ROOT}: the tests are in the repository, not in the package")
    files = {str(file): None for module in modules for file in files_of_tests(module)}
    options = ["-o", "addopts=", "-c", str(ROOT / "pyproject.toml"), "-s"]
    options += ["-p", "no:terminal", "-p", "no:cacheprovider", "-m", "not slow"]
    options += ["--import-mode=importlib", "--doctest-modules"]
    # Modules of ours are imported before pytest starts, and need no better messages.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    plugin = _Plugin(work)
    status = pytest.main([*options, *files], plugins=[plugin])
    if plugin.error or not plugin.collected:
        raise plugin.error or DianError(f"pytest collected nothing (status {status})")


class _Plugin:
    """Calls a function instead of running all tests."""

    def __init__(self, work: Callable[[list[Check]], None]):
        self.work, self.error = work, None
        self.collected = self.failed = False

    def pytest_collection(self) -> None:
        """Stop Hypothesis at the first failing example: no smaller one is needed."""
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        options = {"deadline": None, "database": None, "derandomize": True}
        settings.register_profile("mutants", phases=phases, **options)
        settings.load_profile("mutants")

    def pytest_runtestloop(self, session: Any) -> bool:
        """Hand the collected tests over."""
        if session.testsfailed:
            return True
        self.collected = True
        tests = [PytestCheck(item, self.run) for item in session.items]
        try:
            self.work([*map(ClaimCheck, claims().values()), *tests])
        except Exception as error:  # pytest would only print it
            self.error = error
        return True

    def run(self, item: Any, following: Any) -> bool:
        """Run one test, and return whether it passes."""
        self.failed = False
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return not self.failed

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note whether a part of the test failed."""
        self.failed |= report.failed
