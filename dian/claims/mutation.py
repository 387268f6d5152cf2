"""Replace one piece of code in the source of a module.

Code is compared as syntax trees without docstrings, so line breaks, quotes, comments
and redundant parentheses do not matter.
"""

import ast
from collections.abc import Iterator

from dian.errors import DianError
from dian.runs.code_hash import is_docstring

Node = ast.AST | list[ast.stmt]
Place = tuple[ast.AST, str, int | None]
"""A node, the name of one of its fields, and an index in it if the field is a list."""


def mutate(source: str, at: str, old: str, new: str) -> str:
    r"""Return the canonical source of a module with one piece of code replaced.

    Parameters
    ----------
    source
        Of the module.
    at
        Qualified name of the function, method, class or variable that is changed; a
        nested function belongs to the function around it.
    old
        An expression or statements, which must occur there exactly once.
    new
        What replaces it; an empty string removes statements.

    Examples
    --------
    >>> code = "def f(x):\n    return ('a',  # a tuple\n            x + 1)"
    >>> print(mutate(code, "f", "x+1", "x - 1"))
    def f(x):
        return ('a', x - 1)
    """
    tree, before, after = (_parse(code) for code in (source, old, new))
    if not before.body:
        raise DianError("it replaces nothing: expected an expression or statements")
    if ast.unparse(before) == ast.unparse(after):
        raise DianError(f"{new!r} is the same code as {old!r}")
    definitions = _definitions(tree.body, at)
    if not definitions:
        raise DianError(f"there is no definition of {at!r}")
    wanted, replacement = before.body, after.body
    if _is_expression(wanted) and _is_expression(replacement):
        wanted, replacement = [wanted[0].value], [replacement[0].value]
    places = [place for node in definitions for place in _places(node, wanted)]
    if len(places) != 1:
        raise DianError(f"{at!r} contains {old!r} {len(places)} times, expected once")
    _put(replacement, *places[0], length=len(wanted))
    return ast.unparse(tree)


def put(new: Node, place: Place) -> Node:
    """Put a node in a place, and return the one that was there."""
    parent, field, index = place
    value = getattr(parent, field)
    if index is None:
        setattr(parent, field, new)
        return value
    old, value[index] = value[index], new
    return old


def _parse(code: str) -> ast.Module:
    """Parse code, and remove the docstrings of what it defines."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        raise DianError(f"{code!r} is not Python: {error.msg}") from None
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and not isinstance(node, ast.Module):
            kept = [part for part in body if not is_docstring(part)]
            node.body = kept or [ast.Pass()]
    return tree


def _is_expression(body: list[ast.stmt]) -> bool:
    return len(body) == 1 and isinstance(body[0], ast.Expr)


def _definitions(body: list[ast.stmt], at: str) -> list[ast.stmt]:
    """Find the definitions of a qualified name; a property may have several."""
    name, _, rest = at.partition(".")
    found = [node for node in body if name in _names(node)]
    if not rest:
        return found
    classes = [node for node in found if isinstance(node, ast.ClassDef)]
    return [inner for node in classes for inner in _definitions(node.body, rest)]


def _names(node: ast.stmt) -> set[str]:
    """Return the names that a definition or an assignment binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    else:
        return set()
    inner = (part for target in targets for part in ast.walk(target))
    return {part.id for part in inner if isinstance(part, ast.Name)}


def _places(root: ast.AST, wanted: list[ast.AST]) -> Iterator[Place]:
    """Yield where an expression or consecutive statements occur below a node."""
    text = [ast.unparse(node) for node in wanted]
    for parent in ast.walk(root):
        for field, value in ast.iter_fields(parent):
            nodes = value if isinstance(value, list) else [value]
            for i in range(len(nodes)):
                part = nodes[i : i + len(wanted)]
                if [*map(type, part)] != [*map(type, wanted)]:
                    continue  # unparsing every node would be slow
                if [ast.unparse(node) for node in part] == text:
                    yield parent, field, i


def _put(
    replacement: list[ast.AST], parent: ast.AST, field: str, index: int, length: int
) -> None:
    value = getattr(parent, field)
    if not isinstance(value, list):
        setattr(parent, field, replacement[0])
        return
    value[index : index + length] = replacement
    if field == "body" and not value:
        value.append(ast.Pass())
