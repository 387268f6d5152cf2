"""The other side of the claims on diffusion shares nothing with the library."""

import ast
import inspect

from dian.claims.diffusion import by_hand


def test_it_does_not_import_the_library():
    tree = ast.parse(inspect.getsource(by_hand))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else name.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported == {"math", "collections", "torch"}
