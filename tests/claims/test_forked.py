"""Whatever happens in a child process is a failure there, and nothing here."""

import os
import signal
import time

import pytest

from dian.claims.forked import first_failure, spread

# The processes of pytest-xdist have threads; the children here use no lock of theirs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def compute_for_ever():
    while True:
        pass


@pytest.mark.parametrize(
    ("action", "seconds"),
    [
        (lambda: 1 / 0, 60),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), 60),
        (lambda: os._exit(0), 60),
        (lambda: bytearray(2**40), 60),
        (compute_for_ever, 0.2),
        (lambda: time.sleep(60), 0.05),
    ],
    ids=["error", "crash", "exit", "memory", "computing", "waiting"],
)
def test_the_step_that_fails_is_named(action, seconds):
    def steps():
        yield "good", 60
        yield "bad", seconds
        action()
        yield "never", 60

    assert first_failure(steps) == "bad"


def test_nothing_fails():
    def steps():
        yield "one", 60
        changed.append(1)

    changed = []
    assert first_failure(steps) is None
    assert not changed


def test_a_failure_before_the_first_step_has_no_name():
    def steps():
        raise ValueError
        yield "never", 60

    assert first_failure(steps) == ""


def test_work_is_spread_and_the_results_keep_their_order():
    found = list(spread(lambda x: (x, os.getpid()), [3, 1, 2], jobs=2))
    assert [x for x, _ in found] == [3, 1, 2]
    assert os.getpid() not in {process for _, process in found}
