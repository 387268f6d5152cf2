"""The README in Chinese says the same as the English one."""

import re
from collections.abc import Iterator

import pytest

from check_catalogues import differences, in_myst

BLOCK = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
PARTS = {
    "heading": re.compile(r"^#+(?= )", re.MULTILINE),
    "code": BLOCK,
    "image": re.compile(r"!\[[^\]]+\]\(([^)]+)\)"),
    "row": re.compile(r"^\|(?=.*\|$)", re.MULTILINE),
    "item": re.compile(r"^- ", re.MULTILINE),
}
SWITCH = {
    "README.md": "English | [中文](README.zh.md)\n\n",
    "README.zh.md": "[English](README.md) | 中文\n\n",
}
HAN = r"[\u3400-\u9fff]"


@pytest.fixture
def readmes(root):
    """The English and the Chinese text, without the line that switches."""
    texts = {name: (root / name).read_text("utf-8") for name in SWITCH}
    for name, switch in SWITCH.items():
        assert texts[name].startswith(switch)
    return [texts[name].removeprefix(switch) for name, switch in SWITCH.items()]


def problems(english: str, chinese: str) -> Iterator[str]:
    """Name what differs: first what is in order, then what may be in any order."""
    for what, pattern in PARTS.items():
        if pattern.findall(english) != pattern.findall(chinese):
            yield what
    prose = (BLOCK.sub("", text) for text in (english, chinese))
    for found in differences(*prose, lambda text, _: in_myst(text, True)):
        if not found.startswith("half-width mark lost"):  # in English they are right
            yield found


def test_both_say_the_same(readmes):
    assert list(problems(*readmes)) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("## 许可证\n", "", "heading"),
        ("$ make test\n", "$ make tests\n", "code"),
        ("docs/readme.png", "docs/logo.png", "image"),
        ("- **网站自成一体。**", "**网站自成一体。**", "item"),
        ("| `docs/_ext/` | 网站的 Sphinx 扩展 |\n", "", "row"),
        ("(docs/rnn.md)", "(docs/rnn_gated.md)", "link lost: 'docs/rnn.md'"),
        ("`make bench`", "`make benchmark`", "code lost: 'make bench'"),
        (r"$\tanh$", "tanh", r"formula lost: '\\tanh'"),
        ("30 MB", "20 MB", "number lost: '30'"),
        ("。** 它", "。**它", "emphasis lost: 'strong'"),
    ],
)
def test_a_difference_is_found(readmes, old, new, problem):
    english, chinese = readmes
    assert old in chinese
    assert problem in list(problems(english, chinese.replace(old, new)))


def test_the_chinese_one_follows_the_rules_of_its_script(readmes):
    prose = re.sub(r"`[^`]*`", "x", BLOCK.sub("", readmes[1]))
    assert not re.search(rf"{HAN}[,.:;?!()]|{HAN}[A-Za-z0-9$]|[A-Za-z0-9$]{HAN}", prose)
    # A line that ends would be a blank between two characters.
    assert not re.search(rf"{HAN}\n{HAN}", prose)
