"""Before the site is built, the examples whose code changed are run, and no others."""

import json
from pathlib import Path

import pytest

import check_code

PAGE = """# Page

A sentence.

```python
from dian.runs.files import sha256
```

```{doctest}
>>> x = 1
>>> x
1
```

```console
$ python
```
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A page and a module with examples, a module without, and what was run."""
    for name in check_code.SHARED:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("")
    for name in ("docs/_ext", "dian"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "docs/page.md").write_text(PAGE)
    (tmp_path / "dian/a.py").write_text('"""A module.\n\n>>> 1\n1\n"""\n')
    (tmp_path / "dian/b.py").write_text('"""A module."""\n')
    monkeypatch.setattr(check_code, "ROOT", tmp_path)
    check_code.shared.cache_clear()
    monkeypatch.setattr(check_code, "PASSED", tmp_path / "build/examples.json")
    monkeypatch.setattr(check_code.cache, "read", lambda file: {"one": []})
    monkeypatch.setattr(check_code.cache, "chapter_keys", lambda: {"one": "key"})
    monkeypatch.setattr(check_code.sys, "argv", ["check_code.py"])
    return tmp_path


@pytest.fixture
def ran(project, monkeypatch):
    """Return a function that checks, and names what was run."""

    def check(succeeds=True) -> list[list[str]]:
        found = []

        def run(commands):
            found.extend(commands)
            return succeeds

        monkeypatch.setattr(check_code, "run", run)
        assert check_code.main() == (not succeeds)
        return found

    return check


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_examples_run_once(ran):
    assert ran() == [["pytest", "-q", "dian/a.py", "docs/page.md"]]
    assert ran() == []


def test_a_sentence_on_a_page_runs_nothing(project, ran):
    ran()
    edit(project / "docs/page.md", "A sentence.", "A better sentence.")
    assert ran() == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("x = 1", "x = 2"), ("\n1\n", "\n2\n"), ("import sha256", "import sha256 as s")],
)
def test_a_change_of_an_example_runs_its_file(project, ran, old, new):
    ran()
    edit(project / "docs/page.md", old, new)
    assert ran() == [["pytest", "-q", "docs/page.md"]]


def test_a_change_of_what_an_example_imports_runs_it(project, ran, monkeypatch):
    ran()
    monkeypatch.setattr(
        check_code, "dependencies", lambda name, code: {"a": str("sha256" in code)}
    )
    assert ["pytest", "-q", "dian/a.py", "docs/page.md"] in ran()


def test_the_order_of_what_an_example_uses_does_not_count(ran, monkeypatch):
    parts = {"a": "0", "b": "0"}
    monkeypatch.setattr(check_code, "dependencies", lambda name, code: parts)
    ran()
    parts = dict(reversed(parts.items()))
    assert ran() == []


def test_a_docstring_counts(project, ran):
    ran()
    edit(project / "dian/a.py", "\n1\n", "\n2\n")
    assert ran() == [["pytest", "-q", "dian/a.py"]]


def test_what_failed_runs_again(ran):
    assert ran(succeeds=False)
    assert ran() == [["pytest", "-q", "dian/a.py", "docs/page.md"]]


def test_claims_are_verified_when_their_code_changed(ran, monkeypatch):
    ran()
    monkeypatch.setattr(check_code.cache, "chapter_keys", lambda: {"one": 1, "two": 2})
    assert ran() == [["dian", "verify", "--results", str(check_code.CLAIMS)]]


def test_the_tests_have_run_the_examples(ran, monkeypatch):
    monkeypatch.setattr(check_code.sys, "argv", ["check_code.py", "--passed"])
    assert ran() == []
    monkeypatch.setattr(check_code.sys, "argv", ["check_code.py"])
    assert ran() == []
    assert json.loads(check_code.PASSED.read_text()).keys() == {
        *("dian/a.py", "docs/page.md")
    }


def test_a_failure_is_shown_and_the_others_are_waited_for(capfd):
    good = "print('quiet')"
    assert check_code.run([["timeit", "-n1", "-r1", "pass"]])
    assert not check_code.run([["no_such_module"], ["timeit", "-n1", "-r1", good]])
    said = capfd.readouterr().err
    assert "No module named no_such_module" in said
    assert "quiet" not in said
