"""The commands ``dian check`` and ``dian check-all``."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dian.check.registry import KINDS, find
from dian.check.template import TASKS, contracts_page, signature, template

RIGHT = """
import numpy as np

def clip(gradients, max_norm):
    norm = np.sqrt(sum((g ** 2).sum() for g in gradients))
    return [g * min(1, max_norm / max(norm, 1e-300)) for g in gradients]
"""
WRONG = "def clip(gradients, max_norm):\n    return gradients\n"
CRASH = "import os\n\ndef clip(gradients, max_norm):\n    os._exit(7)\n"
LOOP = "def clip(gradients, max_norm):\n    while True:\n        pass\n"
DELETES = f"import os\n\nos.remove(__file__)\n{RIGHT}"
BROKEN = "def clip(gradients, max_norm:\n"


def dian(*arguments, cwd):
    command = [sys.executable, "-m", "dian", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    return tmp_path


@pytest.mark.slow
def test_right_and_wrong(folder):
    done = dian("check", "clip", "mine:clip", cwd=folder)
    assert done.returncode == 0, done.stderr
    head, *_, last = done.stdout.splitlines()
    assert head == " clip · mine:clip · returns gradients · theta / norm"
    assert last == " right"
    done = dian("check", "clip", "wrong.py:clip", "--json", cwd=folder)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["verdict"] == "wrong"
    assert found["lines"][0]["mark"] == "✗"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("mine:norm", "cannot be imported: AttributeError"),
        ("nowhere:clip", "cannot be imported: ModuleNotFoundError"),
        ("broken.py:clip", "cannot be imported: SyntaxError"),
        ("crash.py:clip", "ended the process of the check (exit status 7)"),
        ("loop.py:clip", "does not end within 9 s"),
    ],
)
def test_what_cannot_be_checked_is_one_line(folder, target, said):
    for name, source in [("broken", BROKEN), ("crash", CRASH), ("loop", LOOP)]:
        (folder / f"{name}.py").write_text(source)
    done = dian("check", "clip", target, "--time-limit", "9", cwd=folder)
    assert done.returncode == 2
    assert said in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_wrong_arguments(tmp_path):
    for arguments, said in [
        (("clip",), "expected KIND and MODULE:FUNCTION"),
        (("clop", "a:b"), "no kind 'clop'; nearest: clip"),
        (("clip", "a"), "expected MODULE:FUNCTION or FILE.py:FUNCTION, got 'a'"),
    ]:
        done = dian("check", *arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert said in done.stderr


@pytest.mark.slow
def test_a_folder_of_submissions(folder):
    sources = {"crash": CRASH, "loop": LOOP, "deletes": DELETES, "none": "x = 1"}
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    done = dian("check-all", folder, "--csv", "--time-limit", "9", cwd=folder)
    assert done.returncode == 0, done.stderr
    rows = {r["submission"]: r for r in csv.DictReader(io.StringIO(done.stdout))}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "crash.py": "not checkable",
        "deletes.py": "right",
        "loop.py": "not checkable",
        "mine.py": "right",
        "none.py": "not checkable",
        "wrong.py": "wrong",
    }
    assert "deletes or changes deletes.py, restored" in rows["deletes.py"]["notes"]
    assert (folder / "deletes.py").read_text() == DELETES
    assert "scales all gradients" in rows["wrong.py"]["failed"]


@pytest.mark.parametrize("kind", KINDS)
def test_templates_are_python(kind):
    namespace = {}
    exec(template(kind), namespace)
    function = namespace[kind.replace("-", "_")]
    for name, _, _ in find(kind).returns:
        assert name in function.__doc__
    assert find(kind).title in function.__doc__
    with pytest.raises(NotImplementedError):
        function(*[None] * function.__code__.co_argcount)


def test_the_page_of_contracts_is_up_to_date():
    page = Path(__file__).parents[2] / "docs/contracts.md"
    assert page.read_text("utf-8") == contracts_page(), "run scripts/write_contracts.py"


@pytest.mark.parametrize("task", TASKS)
def test_templates_of_tasks(task):
    namespace = {}
    exec(template(task), namespace)
    for kind in TASKS[task][1].split():
        assert kind.replace("-", "_") in namespace


def test_the_list_names_every_kind(tmp_path):
    done = dian("check", "--list", cwd=tmp_path)
    for kind in KINDS:
        assert f"{kind:24}{signature(find(kind))}" in done.stdout.splitlines()
