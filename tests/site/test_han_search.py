"""Chinese is found by characters and pairs, and words in Latin letters as words."""

import json
import subprocess
from pathlib import Path

import pytest

from dian_sphinx.han_search import SPLIT_QUERY, SearchHan

NODE = Path(__file__).parents[2] / ".venv/bin/node"


def test_single_characters_are_kept_only_if_they_are_chinese():
    search = SearchHan({})
    assert search.word_filter("熵")
    assert search.word_filter("ab")
    assert not search.word_filter("a")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("注意力", ["注意", "意力"]),
        ("熵", ["熵"]),
        ("RoPE 缩放", ["RoPE", "缩放"]),
        ("U-Net", ["U", "Net"]),
        ("DDIM采样", ["DDIM", "采样"]),
    ],
)
def test_a_query_is_cut_as_the_index_is(query, words):
    script = (
        f"{SPLIT_QUERY}; console.log(JSON.stringify(splitQuery({json.dumps(query)})))"
    )
    done = subprocess.run(
        [NODE, "-e", script], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == words
    index = SearchHan({}).split(query)
    assert {w for w in words if len(w) > 1} <= set(index)
