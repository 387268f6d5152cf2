"""Which lines of the library some code executes."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Lines = dict[str, set[int]]
"""The executed lines of each file; a call also counts as the first line of its
function."""


@contextmanager
def traced(files: Iterable[str], *, calls_only: bool = False) -> Iterator[Lines]:
    """Collect the lines of some files that are executed in the block, by this thread.

    Parameters
    ----------
    files
        Their absolute paths.
    calls_only
        Collect only the first line of each function that is called, which is faster.

    Examples
    --------
    >>> from dian.training import schedules
    >>> with traced([schedules.__file__]) as lines:
    ...     _ = schedules.SCHEDULES["cosine"](0.5)
    >>> list(lines) == [schedules.__file__]
    True
    """
    lines: Lines = defaultdict(set)
    wanted = set(files)

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in wanted:
            return None
        executed = lines[code.co_filename]
        executed.add(code.co_firstlineno)
        if calls_only:
            return None

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            executed.add(frame.f_lineno)
            return step

        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield lines
    finally:
        sys.settrace(before)
