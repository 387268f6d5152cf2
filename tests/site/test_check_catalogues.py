"""A translation that says something else than its message is found."""

import inspect

import pytest

import check_catalogues
import own_messages
from dian.claims import KINDS
from dian.claims.verify import claims

HEAD = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n'
MYST = (
    "**Rule.** By {eq}`eq-a`, $x^2$ is at most 42.5 % of `size`, see [here](rnn) "
    "{cite:p}`a2017`."
)
GOOD = (
    "**规则。** 由 {eq}`eq-a`，$x^2$ 至多为 `size` 的 42.5 %，"
    "见[此处](rnn) {cite:p}`a2017`。"
)
REST = "The state :math:`H_0` of ``rnn`` is in :ref:`the chapter <rnn>`: *twice* 3."
GOOD_REST = "``rnn`` 的状态 :math:`H_0` 在 :ref:`本章 <rnn>`：*两次* 3。"


@pytest.fixture
def problems(tmp_path):
    """Return a function that checks one translation of a page."""

    def of(message: str, text: str, page: str = "page") -> str:
        (tmp_path / "page.md").touch()
        file = tmp_path / f"{page}.po"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'{HEAD}\nmsgid "{message}"\nmsgstr "{text}"\n', "utf-8")
        _, found = check_catalogues.check(file, page, tmp_path)
        return "\n".join(found)

    return of


def test_what_says_the_same_passes(problems):
    assert problems(MYST, GOOD) == ""
    assert problems(REST, GOOD_REST, "gallery/x") == ""
    assert problems("{n} seeds", "{n} 个随机种子", "dian") == ""
    assert problems("{n} of {total}", "{n}/{total}", "dian") == ""
    assert problems("1. A network", r"1\\. 网络") == ""


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("{eq}`eq-a`", "{eq}`eq-b`", "role {eq} lost: 'eq-a'"),
        ("，见[此处](rnn) {cite:p}`a2017`", "，见[此处](rnn)", "role {cite:p} lost"),
        ("{cite:p}`a2017`", "{cite:p}`b2018`", "role {cite:p} added: 'b2018'"),
        ("$x^2$", "$x^3$", "formula lost: 'x^2'"),
        ("$x^2$", "x^2", "formula lost"),
        ("42.5 %", "42.2 %", "number lost: '42.5%'"),
        ("42.5 %", "42.5", "number lost"),
        ("`size`", "`length`", "code added: 'length'"),
        ("[此处](rnn)", "[此处](lstm)", "link lost: 'rnn'"),
        ("**规则。** 由", "规则。由", "emphasis lost: 'strong'"),
        (
            "**规则。** 由",
            "**规则。**由",
            "mark-up that is not read as such added: '**'",
        ),
        ("{eq}`eq-a`", "{eq} `eq-a`", "role {eq} lost"),
        ("**规则。** 由", "- **规则。** 由", "not read as a paragraph"),
        ("**规则。** 由", "**规则。**\\n\\n由", "paragraph added"),
    ],
)
def test_each_fault_on_a_page_in_myst_is_named(problems, before, after, named):
    assert before in GOOD
    assert named in problems(MYST, GOOD.replace(before, after))


def test_a_half_width_mark_is_named(problems):
    assert "half-width mark added: '的,'" in problems("So it is.", "是的,如此。")


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (" :math:`H_0` 在", ":math:`H_0`在", "mark-up that is not read as such"),
        (":math:`H_0`", "$H_0$", "mark-up that is not read as such added: '$'"),
        (":math:`H_0`", ":math:`H_1`", "formula lost: 'H_0'"),
        ("<rnn>", "<lstm>", "role {ref} lost: 'rnn'"),
        ("``rnn``", "`rnn`", "code lost: 'rnn'"),
        ("*两次*", "两次", "emphasis lost"),
        ("3。", "三。", "number lost: '3'"),
    ],
)
def test_each_fault_on_a_page_of_the_gallery_is_named(problems, before, after, named):
    assert before in GOOD_REST
    found = problems(REST, GOOD_REST.replace(before, after), "gallery/x")
    assert named in found


@pytest.mark.parametrize(
    ("message", "text", "named"),
    [
        ("the step", " ", "the translation is blank"),
        ("the step", "[a]: b", "not read as a paragraph"),
        ("the step", "the step", "nothing of it is in Chinese"),
        ("the step", "A page on LSTM.", "nothing of it is in Chinese"),
        ("the step", "。", "nothing of it is in Chinese"),
        ("see {doc}`a`", "{doc}`a`", "nothing of it is in Chinese"),
        ("from -1 to 1", "从 1 到 1", "number lost: '-1'"),
        ("a \u22122 b", "甲 2 乙", "number lost: '-2'"),
        ("{doc}`the page <a>`", "{doc}`第 9 页 <a>`", "number added: '9'"),
        ("{doc}`the page <a>`", "{doc}`这,页 <a>`", "half-width mark added: '这,'"),
        ("{doc}`the page <a>`", "{doc}`**页** <a>`", "not read as such added: '**'"),
        ("So.", "是的.", "half-width mark added: '的.'"),
        ("So (it) is.", "是 (它)。", "half-width mark added"),
        ("of $x$", "$x$的", "place without a blank added: '$的'"),
        ("of `x`", "由 `x`的", "place without a blank added: '$的'"),
        ("of LSTM", "LSTM的", "place without a blank added: 'M的'"),
    ],
)
def test_each_fault_in_a_sentence_is_named(problems, message, text, named):
    assert named in problems(message, text)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("The LSTM", "LSTM"),
        ("(batch, q), (batch, h)", "(batch, q)、(batch, h)"),
        ("of 3 to 5", "3-5 个"),
        ("{doc}`the chapter <a>`", "{doc}`本章 <a>`"),
    ],
)
def test_names_shapes_and_ranges_pass(problems, message, text):
    assert problems(message, text) == ""


@pytest.mark.parametrize(
    ("message", "text", "named"),
    [
        ("the angle θ", "角 φ", "symbol lost: 'θ'"),
        ("by √dₖ", "除以 dₖ", "symbol lost: '√'"),
        ("ln {n}", "对数 log {n}", "function lost: 'ln'"),
        ("**so** it is", "如此", "mark lost: '**' (2 times)"),
        ("an <em>x</em>", "一个 <em>甲", "mark lost: '</em>'"),
        ("an <em>x</em>", "一个 </em>甲<em>", "mark-up that is not closed"),
        ("{n} seeds", "随机种子", "placeholder lost: '{n}'"),
        ("{n} seeds", "{m} 个随机种子", "placeholder added: '{m}'"),
        ("at lag 0", "在时滞 1", "number lost: '0'"),
    ],
)
def test_each_fault_in_a_program_is_named(problems, message, text, named):
    assert named in problems(message, text, "dian")


def language(tmp_path, *messages: str, whole: str = "page\n"):
    folder = tmp_path / "zh_CN/LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "page.po").write_text("\n".join([HEAD, *messages]), "utf-8")
    (folder.parent / "whole.txt").write_text(whole)
    (tmp_path / "page.md").touch()
    return ["check_catalogues.py", str(folder.parent), "--docs", str(tmp_path)]


@pytest.mark.parametrize(
    ("second", "whole", "status", "named"),
    [
        ('msgid "B"\nmsgstr "乙"\n', "page\n", 0, "2 of    2, 0 fuzzy, whole"),
        ('msgid "B"\nmsgstr ""\n', "page\n", 1, "page is listed as whole"),
        ('#, fuzzy\nmsgid "B"\nmsgstr "乙"\n', "page\n", 1, "1 fuzzy, whole"),
        ('msgid "B"\nmsgstr "乙"\n', "", 1, "page.po: not listed in whole.txt"),
        ('msgid "B 2"\nmsgstr "乙"\n', "page\n", 1, "number lost: '2'"),
    ],
)
def test_the_status_is_that_of_the_list_of_whole_pages(
    tmp_path, monkeypatch, capsys, second, whole, status, named
):
    given = language(tmp_path, 'msgid "A"\nmsgstr "甲"\n', second, whole=whole)
    monkeypatch.setattr("sys.argv", given)
    assert check_catalogues.main() == status
    assert named in capsys.readouterr().out


def test_the_catalogues_of_the_project_have_no_problem(root):
    language = root / "locale/zh_CN"
    folder = language / "LC_MESSAGES"
    whole = set((language / "whole.txt").read_text().split())
    names = {
        f.relative_to(folder).with_suffix("").as_posix() for f in folder.rglob("*.po")
    }
    assert whole == names
    for name in sorted(names):
        file = folder / f"{name}.po"
        count, found = check_catalogues.check(file, name, root / "docs")
        assert found == []
        assert count["done"] == count.total(), name


def of_the_claims():
    yield from KINDS.values()
    for one in claims().values():
        yield from (one.title, inspect.getdoc(one.check))


@pytest.mark.parametrize("name", ["dian", "scripts", "claims"])
def test_each_message_of_the_programs_and_the_claims_has_an_entry(root, name):
    file = root / f"locale/zh_CN/LC_MESSAGES/{name}.po"
    of_programs = own_messages.collected()
    messages = of_the_claims() if name == "claims" else of_programs[name]
    assert list(check_catalogues.without_entry(file, messages)) == []


def test_a_message_without_an_entry_is_a_problem(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "extensions"
    folder.mkdir()
    (folder / "words.py").write_text('tr("A")\nwoven("B {n}")\nmark("C")\n')
    monkeypatch.setattr(own_messages, "EXTENSIONS", folder)
    given = language(tmp_path, whole="dian\n")
    catalogue = tmp_path / "zh_CN/LC_MESSAGES/dian.po"
    (catalogue.parent / "page.po").rename(catalogue)
    catalogue.write_text(f'{HEAD}\nmsgid "A"\nmsgstr "甲"\n', "utf-8")
    monkeypatch.setattr("sys.argv", given)
    assert check_catalogues.main() == 1
    out = capsys.readouterr().out
    assert "dian.po: no entry for 'B {n}'; run make translate" in out
    assert "no entry for 'C'" in out
    assert "no entry for 'A'" not in out
