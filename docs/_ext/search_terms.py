"""Terms of the index that the search reads, kept in a build that writes few pages.

Sphinx collects them for the search as it writes a page, and forgets those of all pages
that a later build does not write again. The index itself knows them all.
"""

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.index_entries import split_index_msg


def refill(app: Sphinx, env: BuildEnvironment) -> None:
    """Tell the search the terms of every page, before any is written."""
    for page, entries in env.get_domain("index").entries.items():
        env._search_index_index_entries[page] = sorted(
            {
                (term, target or "", main)
                for kind, value, target, main, _ in entries
                for term in split_index_msg(kind, value)
            }
        )


def setup(app: Sphinx) -> dict:
    """Come when all pages are read."""
    app.connect("env-updated", refill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
