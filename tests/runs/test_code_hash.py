"""The hash of code: it sees what computes, and only that."""

import pytest

from dian.runs import code_hash

BEFORE = '''
"""A module."""
from math import tanh

EDGE = 1

def f(x):
    """Compute."""
    y = tanh(x)  # the state
    return -y
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("A module.", "A better sentence.", True),
        ('    """Compute."""\n', "", True),
        ("# the state", "# the new state", True),
        ("EDGE = 1", 'EDGE = 1\n"""What an attribute is."""', True),
        ("EDGE = 1", "EDGE = 2", False),
        ("\n\ndef", "\n\n\n\ndef", True),
        ("return -y", "return y", False),
        ("y = tanh(x)", "y = tanh( x )", True),
        ("return -y", "return -y or None", False),
        ("from math import tanh", "from cmath import tanh", False),
    ],
)
def test_fingerprint(tmp_path, old, new, same):
    assert old in BEFORE
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    files[0].write_text(BEFORE)
    files[1].write_text(BEFORE.replace(old, new))
    first, second = map(code_hash.fingerprint, files)
    assert (first == second) is same


def test_the_name_of_a_variable_counts(tmp_path):
    (tmp_path / "a.py").write_text(BEFORE)
    (tmp_path / "b.py").write_text(BEFORE.replace("y", "z"))
    first, second = (
        code_hash.fingerprint(tmp_path / name) for name in ("a.py", "b.py")
    )
    assert first != second


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of its own in place of dian."""
    folder = tmp_path / "pack"
    (folder / "sub").mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "a.py": "from pack import b\nimport os",
        "b.py": "def f():\n    from pack.sub import c",
        "alone.py": "",
        "sub/__init__.py": "from . import d",
        "sub/c.py": "from ..b import f",
        "sub/d.py": "",
    }.items():
        (folder / name).write_text(text)
    monkeypatch.setattr(code_hash, "PACKAGE", folder)
    return folder


def test_imports_are_followed_wherever_they_stand(package):
    assert sorted(code_hash.source_key("pack.a")) == [
        *("pack", "pack.a", "pack.b", "pack.sub", "pack.sub.c", "pack.sub.d")
    ]


def test_only_what_is_imported_changes_a_key(package):
    before = code_hash.source_key("pack.a")
    (package / "alone.py").write_text("x = 1")
    assert code_hash.source_key("pack.a") == before
    (package / "sub" / "d.py").write_text("x = 1")
    after = code_hash.source_key("pack.a")
    assert [name for name in after if after[name] != before[name]] == ["pack.sub.d"]


def test_a_script_has_a_key_too(package, tmp_path):
    script = tmp_path / "plot_x.py"
    script.write_text("from pack.sub.d import nothing")
    assert sorted(code_hash.source_key(script)) == [
        *("pack", "pack.sub", "pack.sub.d", "plot_x.py")
    ]
