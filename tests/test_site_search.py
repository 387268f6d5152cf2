"""The terms that the search reads, in a build that writes few pages."""

import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[1] / "docs/_ext"))

import search_terms


def test_the_terms_of_a_page_that_is_not_written_again_are_kept():
    entries = {
        "rnn": [("single", "clipping", "index-5", "main", None)],
        "api": [("pair", "a; b", "x", "", None)],
    }
    env = SimpleNamespace(
        get_domain={"index": SimpleNamespace(entries=entries)}.__getitem__,
        _search_index_index_entries={"api": []},
    )
    search_terms.refill(None, env)
    assert env._search_index_index_entries == {
        "rnn": [("clipping", "index-5", "main")],
        "api": [("a", "x", ""), ("b", "x", "")],
    }
