"""The Markdown of the pages: no fence swallows a section, and examples run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"\s*(:{3,}|`{3,})(.*)")


def problems(text: str) -> list[str]:
    """Return one line for each fence that is not closed, or closes another one."""
    found, opened = [], []  # the fences around a line: number of the line, and marks
    for number, line in enumerate(text.splitlines(), 1):
        around = opened[-1][1] if opened else ""
        match = FENCE.fullmatch(line)
        marks, rest = match.groups() if match else ("", "")
        if marks and not rest.strip() and marks[0] * len(around) == around != "":
            if len(marks) >= len(around):
                opened.pop()
        elif around.startswith("`"):
            continue  # code, or a directive without others in it
        elif marks and not rest.strip() and marks[0] == ":":
            found.append(f"{number}: closes nothing")
        elif marks:
            if marks[0] * len(around) == around != "" and len(marks) >= len(around):
                found.append(f"{number}: stands in a fence that is no longer")
            opened.append((number, marks))
        elif around and re.match("#+ ", line):
            found.append(f"{number}: a section inside a fence")
    return found + [f"{number}: is not closed" for number, _ in opened]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_fences_are_closed_before_the_next_section(page):
    assert problems(page.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            ":::{note} A\ntext\n\n## B",
            ["4: a section inside a fence", "1: is not closed"],
        ),
        (
            ":::{note} A\n:::{tip} B\n:::\n:::",
            ["2: stands in a fence that is no longer"],
        ),
        ("text\n:::", ["2: closes nothing"]),
        ("```python\n# a comment\n:::", ["1: is not closed"]),
    ],
)
def test_each_problem_is_found(text, said):
    assert problems(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "::::{grid}\n:::{card}\n:::\n::::",
        ":::{tip} A\n```python\n# a comment\n:::\n```\n:::\n\n## B",
        "```{math}\na\n```",
        "````\n```\n````",
    ],
)
def test_good_fences_pass(text):
    assert problems(text) == []


def test_the_python_of_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    exec("".join(blocks), {})
    assert "accuracy" in capsys.readouterr().out
