"""The commands ``dian check`` and ``dian check-all``."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dian.__main__ import app
from dian.check import runner
from dian.check.registry import KINDS, find
from dian.check.template import TASKS, contracts_page, signature, template
from dian.errors import DianError

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


def test_wrong_arguments():
    for arguments, said in [
        (("clip",), "expected KIND and MODULE:FUNCTION"),
        (("clop", "a:b"), "no kind 'clop'; nearest: clip"),
        (("clip", "a"), "expected MODULE:FUNCTION or FILE.py:FUNCTION, got 'a'"),
    ]:
        with pytest.raises(DianError, match=re.escape(said)):
            CliRunner().invoke(app, ["check", *arguments], catch_exceptions=False)


def before(line):
    """Return a right submission that does something before it computes."""
    return RIGHT.replace("    norm =", f"    {line}\n    norm =")


FORTY = {
    # What a file does, and the verdict; it is right unless something else is said.
    "crash": (CRASH, "not checkable"),
    "loop": (LOOP, "not checkable"),
    "deletes": (DELETES, "right"),
    "wrong": (WRONG, "wrong"),
    "broken": (BROKEN, "not checkable"),
    "empty": ("", "not checkable"),
    "other_functions": ("x = 1", "not checkable"),
    "no_such_module": (f"import nowhere\n{RIGHT}", "not checkable"),
    "exits_on_import": (f"import sys\nsys.exit(0)\n{RIGHT}", "not checkable"),
    "exits": (before("raise SystemExit(0)"), "not checkable"),
    "interrupts": (before("raise KeyboardInterrupt"), "not checkable"),
    "kills_itself": (before("import os; os.kill(os.getpid(), 9)"), "not checkable"),
    "too_deep": (before("clip(gradients, max_norm)"), "not checkable"),
    "out_of_memory": (before("np.empty(10 ** 15)"), "not checkable"),
    "generator": ("def clip(gradients, max_norm):\n    yield 1\n", "wrong"),
    "nothing": ("def clip(gradients, max_norm):\n    pass\n", "wrong"),
    "text": ("def clip(gradients, max_norm):\n    return 'abc'\n", "wrong"),
    "nan": ("def clip(gradients, max_norm):\n"
            "    return [g * float('nan') for g in gradients]\n", "wrong"),
    "huge": ("def clip(gradients, max_norm):\n"
             "    import numpy as np\n"
             "    return [np.zeros(10 ** 6) for g in gradients]\n", "wrong"),
    "prints": (before("print('x' * 10 ** 6)"), "right"),
    "prints_in_between": (before("import os; os.write(1, b'x' * 10 ** 5)"), "right"),
    "reads": (before("import sys; sys.stdin.read()"), "right"),
    "closes_output": (before("import os; os.closerange(1, 2)"), "right"),
    "changes_folder": (before("import os; os.chdir('/')"), "right"),
    "thread": (before("import threading, time; threading.Thread("
                      "target=time.sleep, args=(99,)).start()"), "right"),
    "fork": (before("import os, time; os.fork() or (time.sleep(99), os._exit(0))"),
             "right"),
    "process": (before("import subprocess; subprocess.run(['true'])"), "right"),
    "warns": (before("import warnings; warnings.warn('careful')"), "right"),
    "random_state": (before("np.random.seed(3); np.random.rand(4)"), "right"),
    "default_dtype": (before("import torch; "
                             "torch.set_default_dtype(torch.float16)"), "right"),
    "float32": (RIGHT.replace("[g * min(", "[np.float32(g) * np.float32(min(").replace(
        "1e-300)) for", "1e-300))) for"), "right"),
    "named_otherwise": (RIGHT.replace("gradients", "g_list").replace(
        "max_norm", "limit"), "right"),
    "with a space": (RIGHT, "right"),
    "torch": (RIGHT, "right"),  # a file with the name of a library
    "with_mark": ("\ufeff" + RIGHT, "right"),
    "a folder/mine": (RIGHT, "right"),
    "package/mine": (f"from .helper import f\n{RIGHT}", "right"),
    "package/helper": ("def f():\n    pass\n", "not checkable"),
    "package/__init__": ("", "not checkable"),
    "deletes_another": (f"import os\nos.remove('{{folder}}/wrong.py')\n{RIGHT}",
                        "right"),
}  # fmt: skip


@pytest.mark.slow
def test_forty_submissions(tmp_path):
    assert len(FORTY) == 40
    folder = tmp_path / "of students"
    for name, (source, _) in FORTY.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.replace("{folder}", str(folder)), encoding="utf-8")
    before = {path: path.read_bytes() for path in folder.rglob("*.py")}
    done = dian("check-all", folder, "--csv", "--time-limit", "15", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 40
    verdicts = {row["submission"].removesuffix(".py"): row["verdict"] for row in rows}
    assert verdicts == {name: verdict for name, (_, verdict) in FORTY.items()}
    assert {path: path.read_bytes() for path in before} == before
    notes = {row["submission"]: row["notes"] for row in rows}
    assert "deletes or changes deletes.py, restored" in notes["deletes.py"]
    assert "deletes or changes wrong.py, restored" in notes["deletes_another.py"]


@pytest.mark.slow
def test_a_new_process_says_the_same_as_a_fork(folder, monkeypatch):
    target = f"{folder / 'wrong.py'}:clip"
    forked = runner.check_in_process("clip", target)
    monkeypatch.setattr(runner, "_forked", runner._spawned)
    spawned = runner.check_in_process("clip", target)
    assert [str(line) for line in spawned.lines] == [str(x) for x in forked.lines]
    assert spawned.mistakes == forked.mistakes == ["nothing is clipped"]


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


def test_the_list_names_every_kind():
    done = CliRunner().invoke(app, ["check", "--list"])
    for kind in KINDS:
        assert f"{kind:24}{signature(find(kind))}" in done.stdout.splitlines()
