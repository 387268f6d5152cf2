"""The lines that some code executes are those, and no others."""

import importlib
import sys

import pytest

from dian.claims.tracing import traced

CODE = """
def f(x):
    if x:
        return 1
    return inner()

def inner():
    return 2
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "subject.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("subject")
    del sys.modules["subject"]


@pytest.mark.parametrize(
    ("x", "calls_only", "expected"),
    [
        (True, False, {2, 3, 4}),
        (False, False, {2, 3, 5, 7, 8}),
        (True, True, {2}),
        (False, True, {2, 7}),
    ],
)
def test_lines_of_a_file(x, calls_only, expected, module):
    with traced([module.__file__], calls_only=calls_only) as lines:
        module.f(x)
    module.inner()  # no longer traced
    assert lines == {module.__file__: expected}


def test_other_files_do_not_count(module):
    with traced(["elsewhere.py"]) as lines:
        module.f(True)
    assert lines == {}


def test_an_outer_tracer_is_restored(module):
    outer = sys.gettrace()
    with pytest.raises(ZeroDivisionError), traced([module.__file__]):
        1 / 0  # noqa: B018
    assert sys.gettrace() is outer
