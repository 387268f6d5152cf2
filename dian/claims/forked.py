"""Work in forked processes, so that a mutant cannot harm those that come after it."""

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

MEMORY = 4 * 2**30
"""Bytes that a child may use beyond what its parent does."""
_work: dict[str, Callable[[Any], Any]] = {}


def spread(work: Callable[[Any], Any], items: Sequence[Any], jobs: int) -> Iterator:
    """Call a function with each item, in some processes, and yield the results.

    The processes are forked, so neither function nor items are pickled; results are.
    """
    _work["items"], _work["call"] = items.__getitem__, work
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_quiet) as pool:
        yield from pool.map(_call, range(len(items)))


def _call(index: int) -> Any:
    return _work["call"](_work["items"](index))


def _quiet() -> None:
    """Write to nowhere, whatever writes: there may be thousands of tracebacks."""
    with Path(os.devnull).open("w") as nowhere:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(nowhere.fileno(), stream.fileno())


def first_failure(steps: Callable[[], Iterator[tuple[str, float]]]) -> str | None:
    """Run steps in a child process, and return the name of the one that it died in.

    Parameters
    ----------
    steps
        Yields the name of each step before the step is taken, and the seconds of
        computing time that it may take. To fail, it raises an exception; a crash, too
        much time and too much memory are failures, too.

    Returns
    -------
    name
        None if nothing failed; empty if something did before the first step.

    Examples
    --------
    >>> def steps():
    ...     yield "a sum", 1.0
    ...     1 + 1
    ...     yield "a division", 1.0
    ...     1 / 0
    >>> first_failure(steps)
    'a division'
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            _limit_memory()
            for name, seconds in steps():
                os.write(writing, f"{name}\n".encode())
                # Of computing: waiting for another process to finish is no failure.
                signal.setitimer(signal.ITIMER_PROF, seconds)
                signal.setitimer(signal.ITIMER_REAL, 10 * seconds)
            os.write(writing, b"\n")  # the end
        finally:
            os._exit(0)  # neither handlers nor what an exception would print
    os.close(writing)
    with os.fdopen(reading) as stream:
        names = stream.read().splitlines()
    os.waitpid(child, 0)
    if not names:
        return ""
    return names[-1] or None


def _limit_memory() -> None:
    """Limit the memory of this process, where the system says how much it has."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
