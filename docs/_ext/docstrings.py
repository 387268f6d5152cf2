"""What autodoc shows of the library: docstrings and signatures as they were meant."""

from sphinx.application import Sphinx

ATTRIBUTES = {"attribute", "data", "property"}


def keep_colons(app: Sphinx, what, name, obj, options, lines: list[str]) -> None:
    """Keep napoleon from reading "When it started: date and time" as type and text.

    It looks for that in the first line of an attribute's docstring; ours have their
    types in the code. So the first line becomes an empty comment.
    """
    if what in ATTRIBUTES and lines:
        lines[:0] = ["..", ""]


def write_factories(app: Sphinx, what, name, obj, options, arguments, returned):
    """Write a field's default that a factory makes as ``...``.

    What dataclasses write is not Python, so Sphinx could not parse the signature.

    >>> write_factories(None, "class", "", None, None, "(x: list = <factory>)", None)
    ('(x: list = ...)', None)
    """
    return arguments and arguments.replace("<factory>", "..."), returned


def skip_aliases(app: Sphinx, what, name, obj, skip, options) -> bool | None:
    """Leave out the fields of named tuples: the signature of the class lists them."""
    text = getattr(obj, "__doc__", None) or ""
    return True if text.startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict:
    """Come before napoleon, which is at priority 500."""
    app.connect("autodoc-skip-member", skip_aliases)
    app.connect("autodoc-process-signature", write_factories)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
