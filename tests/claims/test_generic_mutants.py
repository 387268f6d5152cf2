"""Generic mutants are made of all code that computes, and each changes its function."""

import importlib
import inspect
import sys

import pytest

from dian.claims import survival
from dian.claims import verify as verifier
from dian.claims.generic_mutants import generic_mutants


@pytest.fixture
def module_of(tmp_path, monkeypatch):
    """Make a module of some code."""
    monkeypatch.syspath_prepend(tmp_path)

    def module_of(code):
        (tmp_path / "subject.py").write_text(code)
        return importlib.import_module("subject")

    yield module_of
    sys.modules.pop("subject", None)


@pytest.fixture
def texts(module_of):
    def texts(body, head="def f(x, y):"):
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        module_of(f"{head}\n{lines}\n")
        return [mutant.text for mutant in generic_mutants("subject")]

    return texts


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return x + y", ["x + y -> x - y"]),
        ("return x - y", ["x - y -> x + y", "x - y -> y - x"]),
        ("return x / y", ["x / y -> x * y", "x / y -> y / x"]),
        ("return x @ y", ["x @ y -> y @ x"]),
        ("return x ** y", ["x ** y -> x * y"]),
        ("return x < y", ["x < y -> x <= y"]),
        ("return x == y", ["x == y -> x != y"]),
        ("return x is y", ["x is y -> x is not y"]),
        ("return x and y", ["x and y -> x or y"]),
        ("return -x", ["-x -> x"]),
        ("return not x", ["not x -> x"]),
        ("return f(x, 1)", ["f(...): x <-> 1", "f(x, 1) -> f(x, 2)"]),
        ("return f(a=0.5)", ["a=0.5 -> a=0.75"]),
        ("return f(a=True)", ["a=True -> a=False"]),
        ("return x[-1]", ["x[-1] -> x[1]", "x[-1] -> x[-2]"]),
        ("return x.T", ["x.T -> x"]),
        ("return x.t()", ["x.t() -> x"]),
        ("return x[:y]", ["x[:y] -> x[1:y]", "x[:y] -> x[:y + 1]"]),
        ("return x[1:]", ["x[1:] -> x[2:]", "x[1:] -> x[1:-1]"]),
        ("return f(x, y)", ["f(...): x <-> y"]),
        ("x += y\nreturn x", ["x += y -> pass", "x += y -> x -= y"]),
        ("x.fill_(y)\nreturn x", ["x.fill_(y) -> pass"]),
        ("x[y] = y\nreturn x", ["x[y] = y -> pass"]),
        ("x = f(x)\nreturn x", ["x = f(x) -> pass"]),
        ("if x:\n    return y", ["if x: -> pass"]),
        ("return x + y + x + y", [
            "x + y + x + y -> x + y + x - y",
            "x + y + x -> x + y - x",
            "x + y -> x - y",
        ]),
        ("return [x + y, x + y]", ["x + y -> x - y", "x + y -> x - y (2)"]),
    ],
)  # fmt: skip
def test_one_detail_is_another(body, expected, texts):
    assert texts(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        '"""Return x + 1."""\nreturn x',
        "z: int | None = x\nreturn z",
        "if x < 1:\n    raise ValueError(1)\nreturn x",
        "require(x < 1, 'x')\nreturn x",
        "assert x < 1\nreturn x",
        "raise ValueError(x + 1)",
        "return f'{x + 1}'",
        "return f(x, x)",
        "return x - x",
        "z = f(x)\nreturn z",
    ],
)
def test_a_function_with_nothing_to_change_does_nothing(body, texts):
    found = texts(body)
    assert found in (["body -> pass"], ["x - x -> x + x"])


def test_a_function_that_checks_arguments_is_left_out(texts):
    assert texts("return x + y", "def _check_like(x, y):") == []


def test_defaults_methods_and_tables_of_lambdas(module_of):
    module_of(
        "class A:\n    def f(self, x, *, n=1): return x\n"
        "    @property\n    def g(self): return self.h * 2\n"
        "TABLE = {'double': lambda x: 2 * x}\nLIMIT = 3 + 4\n"
    )
    found = [(mutant.function, mutant.text) for mutant in generic_mutants("subject")]
    assert found == [
        ("A.f", "n=1 -> n=2"),
        ("A.g", "self.h * 2 -> self.h / 2"),
        ("A.g", "self.h * 2 -> self.h * 3"),
        ("TABLE", "2 * x -> 2 / x"),
        ("TABLE", "2 * x -> 3 * x"),
    ]


def test_a_mutant_runs_in_place_of_the_function(module_of):
    module = module_of(
        "def f(x, n=1): return x + n\n"
        "class A:\n    @property\n    def g(self): return 5\n"
        "TABLE = {'double': lambda x: 2 * x}\n"
    )
    table = module.TABLE

    def computed():
        return module.f(1), module.A().g, table["double"](4)

    expected = {
        "n=1 -> n=2": (3, 5, 8),
        "x + n -> x - n": (0, 5, 8),
        "return 5 -> return 6": (2, 6, 8),
        "2 * x -> 2 / x": (2, 5, 0.5),
        "2 * x -> 3 * x": (2, 5, 12),
    }
    for mutant in generic_mutants("subject"):
        with verifier.installed(mutant.load()):
            assert computed() == expected.pop(mutant.text)
        assert computed() == (2, 5, 8)
    assert not expected


@pytest.mark.parametrize("name", survival.modules())
def test_mutants_of_the_library_change_their_function_and_no_other(name):
    original = importlib.import_module(name)

    def installed(copy):
        with verifier.installed(copy):
            functions = verifier._functions(original)
            return {key: _computes(f) for key, f in functions.items()}

    code = compile(inspect.getsource(original), "<the same code>", "exec")
    same = installed(verifier.load_copy(name, code))
    names = {qualified for qualified, _ in same}
    for mutant in generic_mutants(name)[::25]:
        other = installed(mutant.load())
        changed = {key[0] for key in same if same[key] != other[key]}
        assert changed == {mutant.function} & names, mutant


def _computes(function):
    """Describe what a function computes, but not where its code is."""
    return [*_instructions(function.__code__), *verifier._state(function)[1:]]


def _instructions(code):
    yield from (code.co_code, code.co_names, code.co_varnames)
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            yield from _instructions(constant)
        else:
            yield repr(constant)
