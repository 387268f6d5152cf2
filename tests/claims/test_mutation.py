"""A mutant changes one piece of code, however it is written."""

import difflib

import pytest

from dian.claims.mutation import mutate
from dian.errors import DianError

SOURCE = '''
"""A module."""

TABLE = {"sum": lambda x: x + 1}
first, second = 1, 2


def f(x, y=3):
    """Return x + y."""
    # x + y
    total = (
        x  # the first
        + y
    )

    def inner(z):
        """Return z."""
        return z * "a"

    if x > y:
        total += 1
        total -= 2
    return total, inner(x) - -y


class Layer:
    """A layer."""

    size: int = 3

    def forward(self, x):
        return x[1:] + self.size

    def backward(self, x):
        return x[1:] + self.size


def last():
    return 0
'''


def canonical(source):
    return mutate(source, "last", "0", "1")


def changed(at, old, new):
    """Return the canonical lines that a mutant removes and adds."""
    before, after = canonical(SOURCE), canonical(mutate(SOURCE, at, old, new))
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [f"{line[0]} {line[1:].strip()}" for line in lines if line[0] in "-+"]


@pytest.mark.parametrize(
    ("at", "old", "new", "expected"),
    [
        ("f", "x + y", "x - y", ["- total = x + y", "+ total = x - y"]),
        ("second", "2", "5", ["- first, second = (1, 2)", "+ first, second = (1, 5)"]),
        ("f", "3", "4", ["- def f(x, y=3):", "+ def f(x, y=4):"]),
        ("f", "z * 'a'", "z", ["- return z * 'a'", "+ return z"]),
        ("Layer.size", "3", "4", ["- size: int = 3", "+ size: int = 4"]),
        ("Layer", "size: int = 3", "size = 4", ["- size: int = 3", "+ size = 4"]),
        ("f", "total += 1\ntotal -= 2", "", ["+ pass", "- total += 1", "- total -= 2"]),
        ("f", "total -= 2", "return", ["- total -= 2", "+ return"]),
    ],
)
def test_one_piece_of_one_definition_changes(at, old, new, expected):
    assert changed(at, old, new) == expected


def test_a_method_is_another_in_each_class_and_a_variable_a_definition():
    forward, backward = mutate(SOURCE, "Layer.forward", "x[1:]", "x").split("backward")
    assert "return x + self.size" in forward
    assert "return x[1:] + self.size" in backward
    assert "lambda x: x}" in mutate(SOURCE, "TABLE", "x + 1", "x")


def test_code_is_replaced_as_a_whole_and_not_as_text():
    """The precedence is that of the tree, and a name is not part of another one."""
    source = "def f(x, xx):\n    return 2 * x + xx"
    assert mutate(source, "f", "x", "x + 1").endswith("return 2 * (x + 1) + xx")
    assert mutate(source, "f", "xx", "0").endswith("return 2 * x + 0")


@pytest.mark.parametrize(
    "old",
    [
        "g(x, 'a')",
        'g(x, "a")',
        "g( x,\n  'a', )",
        "(g(x, ('a')))",
        "g(x, 'a')  # a comment",
    ],
)
@pytest.mark.parametrize(
    "written",
    [
        'g(x, "a")',
        "g(x, 'a')",
        'g(\n        x,\n        # a comment\n        "a",\n    )',
        '(g)(x, ("a"))',
    ],
)
def test_neither_source_nor_mutant_need_a_certain_form(old, written):
    source = f'def f(x):\n    """Doc."""\n    return {written} + 1\n'
    assert mutate(source, "f", old, "x") == "def f(x):\n    return x + 1"


def test_statements_match_without_the_docstrings_between_them():
    source = 'class A:\n    a = 1\n    """What a is."""\n    b = 2\n'
    assert mutate(source, "A", "a = 1\nb = 2", "") == "class A:\n    pass"
    inner = 'def f():\n    def g():\n        """Return 1."""\n        return 1\n'
    assert "return 2" in mutate(
        inner, "f", "def g():\n  return 1", "def g():\n  return 2"
    )


def test_what_replaces_a_statement_may_contain_it():
    source = "def f(x):\n    x += 1\n    return x"
    assert mutate(source, "f", "x += 1", "if x:\n    x += 1") == (
        "def f(x):\n    if x:\n        x += 1\n    return x"
    )


def test_the_target_of_an_assignment_can_be_replaced():
    assert mutate("def f(H):\n    H[0] = 1", "f", "H[0]", "H[1]").endswith("H[1] = 1")


def test_a_property_and_its_setter_are_one_definition():
    source = """
class A:
    @property
    def x(self):
        return self._x

    @x.setter
    def x(self, value):
        self._x = value
"""
    assert "= -value" in mutate(source, "A.x", "self._x = value", "self._x = -value")
    with pytest.raises(DianError, match=r"'A.x' contains 'self._x' 2 times"):
        mutate(source, "A.x", "self._x", "0")


@pytest.mark.parametrize(
    ("at", "old", "new", "told"),
    [
        ("h", "x", "y", "no definition of 'h'"),
        ("inner", "z", "y", "no definition of 'inner'"),  # that of f
        ("f.inner", "z", "y", "no definition of 'f.inner'"),
        ("Layer.sideways", "x", "y", "no definition of 'Layer.sideways'"),
        ("f", "x * y", "x", r"'f' contains 'x \* y' 0 times, expected once"),
        ("f", "x", "y", "'f' contains 'x' 3 times, expected once"),
        ("Layer", "x[1:]", "x", "'Layer' contains .* 2 times, expected once"),
        ("f", "Return x + y.", "x", "'Return x .* is not Python: invalid syntax"),
        ("f", "'Return x + y.'", "x", "contains .* 0 times"),  # a docstring
        ("f", "total", "total", "'total' is the same code as 'total'"),
        ("f", "x + y", "(x\n+ y)", "is the same code as 'x [+] y'"),
        ("f", "x + y", "x +", r"'x \+' is not Python: invalid syntax"),
        ("f", "", "x", "replaces nothing"),
        ("f", "# x + y", "x", "replaces nothing"),
    ],
)
def test_a_mutant_that_does_not_fit_is_refused_in_one_line(at, old, new, told):
    with pytest.raises(DianError, match=told) as refused:
        mutate(SOURCE, at, old, new)
    assert "\n" not in str(refused.value)
