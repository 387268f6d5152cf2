r"""Generic mutants: every small mistake of a few kinds, wherever a function allows it.

The mutants of a claim are mistakes that somebody thought of. Mutation testing makes the
others mechanically: another operator, a constant that is off by one, a transpose that
is missing, a statement that is dropped. Four things are left out: annotations, texts,
checks of arguments, and the messages of errors.
"""

import ast
import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from types import ModuleType

from dian.claims.mutation import Node, Place, put
from dian.runs.code_hash import is_docstring

OTHER_OPERATOR = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
"""What replaces each operator: an inequality moves its boundary, others are negated.

:meta hide-value:
"""
ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.MatMult)
"""Operators whose operands are also exchanged.

:meta hide-value:
"""
TRANSPOSES = ("T", "mT", "t", "transpose", "swapaxes", "permute")
"""Attributes and methods that are removed."""
ARGUMENT_CHECK = re.compile("_?(check|require)")
"""How the names of functions begin that only check arguments.

:meta hide-value:
"""
_NOT_COMPUTED = {"annotation", "returns", "decorator_list"}

Change = tuple[Place, Node, tuple[int, int]]


@dataclass(frozen=True)
class GenericMutant:
    """One mechanical change of one function."""

    module: str
    function: str
    """Qualified name of the function, or of the variable that holds functions."""
    text: str
    """The code before and after, such as ``a + b -> a - b``; unique in the function."""
    lines: tuple[int, int]
    """First and last line of the statement that changes."""
    tree: ast.Module = field(repr=False, compare=False)
    """The unchanged module."""
    place: Place = field(repr=False, compare=False)
    new: Node = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.module}.{self.function}: {self.text}"

    def load(self) -> ModuleType:
        """Load a copy of the module with this change, for ``verify.installed``."""
        from dian.claims.verify import load_copy

        old = put(self.new, self.place)
        try:
            code = compile(self.tree, f"<mutant of {self.module}>", "exec")
        finally:
            put(old, self.place)
        return load_copy(self.module, code)


def generic_mutants(module: str) -> list[GenericMutant]:
    """Make every generic mutant of the functions of a module, in the order of lines.

    A function with nothing to change has one mutant: it does nothing.

    Parameters
    ----------
    module
        Full name of the module.

    Examples
    --------
    >>> found = generic_mutants("dian.attention.masks")
    >>> {mutant.function for mutant in found} >= {"causal_mask", "padding_mask"}
    True
    """
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    found = []
    for name, node in definitions(tree):
        seen: Counter[str] = Counter()
        for place, new, lines in _all_changes(node):
            text = _text(place, new)
            seen[text] += 1
            if seen[text] > 1:  # the same code again, further below
                text = f"{text} ({seen[text]})"
            found.append(GenericMutant(module, name, text, lines, tree, place, new))
    return found


def definitions(
    node: ast.Module | ast.ClassDef, prefix: str = ""
) -> Iterator[tuple[str, ast.stmt]]:
    r"""Yield each function and method, and each variable that holds lambdas.

    A nested function belongs to the function around it.

    >>> code = "class A:\n def f(self): ...\nTABLE = {1: lambda x: x}"
    >>> [name for name, _ in definitions(ast.parse(code))]
    ['A.f', 'TABLE']
    """
    for part in node.body:
        if isinstance(part, ast.ClassDef):
            yield from definitions(part, f"{prefix}{part.name}.")
        elif isinstance(part, ast.FunctionDef):
            yield f"{prefix}{part.name}", part
        elif isinstance(part, ast.Assign) and any(_lambdas(part)):
            yield f"{prefix}{ast.unparse(part.targets[0])}", part


def _lambdas(node: ast.AST) -> Iterator[ast.Lambda]:
    return (part for part in ast.walk(node) if isinstance(part, ast.Lambda))


def _all_changes(node: ast.stmt) -> list[Change]:
    """Make the changes of a function, or of the functions in a variable."""
    if not isinstance(node, ast.FunctionDef):
        return [
            c for part in _lambdas(node) for c in _changes(part, _lines(part), set())
        ]
    if ARGUMENT_CHECK.match(node.name):
        return []
    changes = list(_changes(node, _lines(node), set()))
    nothing = [ast.copy_location(ast.Pass(), node)]
    return changes or [((node, "body", None), nothing, _lines(node))]


def _changes(
    parent: ast.AST, lines: tuple[int, int], bound: set[str]
) -> Iterator[Change]:
    """Yield the changes below a node.

    Parameters
    ----------
    parent
        The node.
    lines
        Of the statement that the node is in.
    bound
        The names that have a value: a statement that gives another value to one of
        them can be dropped. Names are added as they are found.
    """
    for name, value in ast.iter_fields(parent):
        children = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if name in _NOT_COMPUTED or _is_left_out(child):
                continue
            if isinstance(parent, ast.Slice) and _is_literal(child):
                continue  # changed together with its slice
            place = parent, name, index
            if isinstance(child, ast.stmt):
                lines = _own_lines(child)
                if _can_be_dropped(child, bound):
                    yield place, ast.copy_location(ast.Pass(), child), lines
            for new in _variants(child):
                new = ast.fix_missing_locations(ast.copy_location(new, child))
                yield place, new, lines
            if not _is_literal(child):
                yield from _changes(child, lines, bound)
            if isinstance(child, ast.arg):
                bound.add(child.arg)
            elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                bound.add(child.id)


def _is_left_out(node: object) -> bool:
    """Whether a node computes nothing that a check could notice, or only an error."""
    if isinstance(node, ast.If):
        return isinstance(node.body[-1], ast.Raise) and not node.orelse
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = ast.unparse(node.value.func).rpartition(".")[2]
        return bool(ARGUMENT_CHECK.match(called))
    other = not isinstance(node, ast.AST) or is_docstring(node)
    return other or isinstance(node, ast.JoinedStr | ast.Raise | ast.Assert)


def _lines(node: ast.AST) -> tuple[int, int]:
    return node.lineno, node.end_lineno


def _own_lines(node: ast.stmt) -> tuple[int, int]:
    """Return the lines of a statement, without those of the statements inside it."""
    body = getattr(node, "body", None)
    first, last = _lines(node)
    return first, max(first, body[0].lineno - 1) if body else last


def _can_be_dropped(node: ast.stmt, bound: set[str]) -> bool:
    """Whether the code below may run, and run differently, without a statement."""
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        parts = [part for target in targets for part in ast.walk(target)]
        stored = [p for p in parts if isinstance(getattr(p, "ctx", None), ast.Store)]
        names = [p.id for p in stored if isinstance(p, ast.Name)]
        return set(names) <= bound
    if isinstance(node, ast.If):
        return not node.orelse
    if not isinstance(node, ast.Expr | ast.AugAssign):
        return False
    return "super()" not in ast.unparse(node)  # the function would need other closures


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what a node may be replaced by."""
    match node:
        case ast.BinOp(left, op, right):
            if type(op) in OTHER_OPERATOR:
                yield ast.BinOp(left, OTHER_OPERATOR[type(op)](), right)
            if isinstance(op, ORDERED) and ast.unparse(left) != ast.unparse(right):
                yield ast.BinOp(right, op, left)
        case ast.AugAssign(target, op, value) if type(op) in OTHER_OPERATOR:
            yield ast.AugAssign(target, OTHER_OPERATOR[type(op)](), value)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(OTHER_OPERATOR[type(op)](), values)
        case ast.Compare(left, [op, *more], comparators):
            yield ast.Compare(left, [OTHER_OPERATOR[type(op)](), *more], comparators)
            if more:
                changed = [OTHER_OPERATOR[type(last)]() for last in more]
                yield ast.Compare(left, [op, *changed], comparators)
        case ast.UnaryOp(op, operand):
            yield operand
            if _is_literal(node) and isinstance(op, ast.USub):
                yield from (ast.UnaryOp(op, other) for other in _variants(operand))
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(float() as value):
            yield ast.Constant(1.5 * value or 1.0)
        case ast.Attribute(value, attr, ast.Load()) if attr in TRANSPOSES[:2]:
            yield value
        case ast.Call(ast.Attribute(value, attr)) if attr in TRANSPOSES[2:]:
            yield value
        case ast.Slice():
            yield from _other_slices(node)
    if isinstance(node, ast.Call):
        yield from _swapped_arguments(node)


def _is_literal(node: ast.AST) -> bool:
    """Whether a node is a constant, with or without a sign."""
    node = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(node, ast.Constant)


def _other_slices(node: ast.Slice) -> Iterator[ast.Slice]:
    """Move one end of a slice by one."""
    lower, upper, step = node.lower, node.upper, node.step
    if lower is None and upper is not None:
        yield ast.Slice(ast.Constant(1), upper, step)
    elif lower is not None:
        yield from (ast.Slice(end, upper, step) for end in _moved(lower))
    if upper is None and lower is not None:
        yield ast.Slice(lower, ast.UnaryOp(ast.USub(), ast.Constant(1)), step)
    elif upper is not None:
        yield from (ast.Slice(lower, end, step) for end in _moved(upper))


def _moved(end: ast.expr) -> Iterator[ast.expr]:
    if _is_literal(end):
        yield from _variants(end)
    else:
        yield ast.BinOp(end, ast.Add(), ast.Constant(1))


def _swapped_arguments(node: ast.Call) -> Iterator[ast.Call]:
    """Exchange neighboring positional arguments."""
    for i, (a, b) in enumerate(pairwise(node.args)):
        starred = isinstance(a, ast.Starred) or isinstance(b, ast.Starred)
        if not starred and ast.unparse(a) != ast.unparse(b):
            swapped = [*node.args[:i], b, a, *node.args[i + 2 :]]
            yield ast.Call(node.func, swapped, node.keywords)


def _text(place: Place, new: Node) -> str:
    """Write the code before and after a change; a constant together with its use."""
    if isinstance(new, list):
        return "body -> pass"
    old = put(new, place)
    try:
        after = _shown(*place)
    finally:
        put(old, place)
    if isinstance(new, ast.Call) and new.func is getattr(old, "func", None):
        pairs = zip(old.args, new.args, strict=True)
        swapped = (ast.unparse(a) for a, b in pairs if a is not b)
        return f"{ast.unparse(new.func)}(...): {' <-> '.join(swapped)}"
    return f"{_shown(*place)} -> {after}"


def _shown(parent: ast.AST, name: str, index: int | None) -> str:
    node = getattr(parent, name)
    node = node if index is None else node[index]
    if isinstance(parent, ast.arguments):
        names = parent.kwonlyargs
        if name == "defaults":
            names = (parent.posonlyargs + parent.args)[-len(parent.defaults) :]
        return f"{names[index].arg}={ast.unparse(node)}"
    in_use = isinstance(parent, ast.expr | ast.keyword | ast.Return | ast.Assign)
    if in_use and (_is_literal(node) or isinstance(node, ast.Slice)):
        node = parent
    return ast.unparse(node).partition("\n")[0]
