"""The templates in Chinese: the same code, and a translation of all that is said."""

import ast
import dataclasses
import re

import pytest
from typer.testing import CliRunner

from check_catalogues import differences, in_program
from dian.__main__ import NothingChecked, app
from dian.check import template as templates
from dian.check.registry import KINDS, find
from dian.check.template import LANGUAGES, SOURCE, TASKS, template, words, written
from dian.errors import DianError

OTHERS = [language for language in LANGUAGES if language != SOURCE]
NAME = re.compile(r"\w*_\{?\w[\w-]*|\b[B-Zqtz]\b", re.ASCII)
CODE_ALONE = {"1 - beta"}


def messages() -> set[str]:
    """Everything that the templates say."""
    found = set()

    def note(text):
        found.add(text)
        return text

    for name in (*KINDS, *TASKS):
        written(name, note)
    return found


def unlike(english: str, chinese: str) -> list[str]:
    """Name the numbers, placeholders and identifiers that a translation changes."""
    first, second = (sorted(NAME.findall(text)) for text in (english, chinese))
    found = list(differences(english, chinese, in_program))
    return found + [f"{first}, not {second}"] * (first != second)


@pytest.mark.parametrize("language", OTHERS)
def test_every_text_is_translated_and_no_other(language):
    table = words(language)
    assert messages() - table.keys() == set()
    assert table.keys() - messages() == set()


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_keeps_numbers_and_names(language):
    for english, other in words(language).items():
        kept = ["nothing of it is in Chinese"] * (english in CODE_ALONE)
        assert unlike(english, other) == kept


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("gradient with respect to W_xh", "关于 W_hh 的梯度"),
        ("gradient with respect to X", "关于 H 的梯度"),
        ("the states H_1 to H_T", "状态 H_0 到 H_T"),
        ("Posterior q(x_{t-1} | x_t, x_0)", "后验 q(x_t | x_t, x_0)"),
        ("number of heads, a power of 2", "头数，3 的幂"),
        ("{title}.", "。"),
        ("z of every step, of t = 1 first", "每一步的 z，从 x = 1 开始"),
        ("queries, keys", "查询,键"),
    ],
)
def test_a_wrong_translation_is_found(english, chinese):
    assert unlike(english, chinese)


@pytest.mark.parametrize("name", [*KINDS, *TASKS])
def test_the_code_is_the_same_in_each_language(name):
    def code(language):
        tree = ast.parse(template(name, language))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.FunctionDef)):
                node.body = node.body[ast.get_docstring(node) is not None :]
        return ast.unparse(tree)

    for language in OTHERS:
        assert code(language) == code(SOURCE)
        assert template(name, language) != template(name)


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Clipping of gradients"},
        {"returns": (("g_1", "...", "another gradient"),)},
        {"arguments": (dataclasses.replace(find("clip").arguments[0], words="grads"),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_contract_that_changed_without_its_translation_is_found(change, monkeypatch):
    changed = dataclasses.replace(find("clip"), **change)
    monkeypatch.setattr(
        templates, "find", lambda kind: changed if kind == "clip" else find(kind)
    )
    for language in OTHERS:
        assert messages() - words(language).keys()
        assert words(language).keys() - messages()
        with pytest.raises(KeyError):
            template("clip", language)


def test_the_command_prints_it():
    arguments = ["check", "task-1", "--template", "--language", "zh_CN"]
    assert CliRunner().invoke(app, arguments).stdout == template("task-1", "zh_CN")
    assert "（time batch d）：输入序列" in template("task-1", "zh_CN")


def test_an_unknown_language_is_refused():
    with pytest.raises(DianError, match="no language 'zh'; nearest: zh_CN"):
        template("clip", "zh")


@pytest.mark.parametrize("given", [["clip", "--language", "zh"], ["clap"]])
def test_a_mistyped_command_has_the_status_of_what_cannot_be_checked(given):
    done = CliRunner().invoke(app, ["check", *given, "--template"])
    assert isinstance(done.exception, NothingChecked)
    assert "nearest" in str(done.exception)
