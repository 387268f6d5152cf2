"""The hash of code covers what computes, and only that."""

import pytest

from dian.runs import code_hash
from dian.runs.code_hash import (
    byte_key,
    content_hash,
    digest,
    fingerprint,
    record_key,
    source_key,
    strings,
    versions,
)
from dian.runs.files import sha256

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
        ("\n\ndef", "\n\n\n\ndef", True),
        ("y = tanh(x)", "y = tanh( x )", True),
        ("EDGE = 1", "EDGE = 2", False),
        ("EDGE = 1", "EDGE = None", False),
        ("return -y", "return y", False),
        ("return -y", "return -y or None", False),
        ("y", "z", False),
        ("from math import tanh", "from cmath import tanh", False),
    ],
)
def test_fingerprint(tmp_path, old, new, same):
    assert old in BEFORE
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    files[0].write_text(BEFORE)
    files[1].write_text(BEFORE.replace(old, new))
    assert (fingerprint(files[0]) == fingerprint(files[1])) is same
    assert content_hash(files[0]) != content_hash(files[1])


def test_the_text_that_is_hashed_is_the_same_in_every_release_of_python(tmp_path):
    """Another text would make every record stale."""
    (tmp_path / "a.py").write_text('"""A."""\nx = None')
    text = "Assign(targets=[Name(ctx=Store(),id='x')],value=Constant())"
    assert fingerprint(tmp_path / "a.py") == sha256(f"Module(body=[{text}])".encode())


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of its own in place of dian."""
    folder = tmp_path / "pack"
    (folder / "sub").mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "a.py": '"""A."""\nfrom pack import b\nimport os',
        "b.py": "def f():\n    from pack.sub import c",
        "alone.py": "",
        "sub/__init__.py": "from pack.sub import d",
        "sub/c.py": "from pack.b import f",
        "sub/d.py": "",
    }.items():
        (folder / name).write_text(text)
    monkeypatch.setattr(code_hash, "PACKAGE", folder)
    return folder


def test_imports_are_followed_wherever_they_are(package):
    expected = ["pack", "pack.a", "pack.b", "pack.sub", "pack.sub.c", "pack.sub.d"]
    assert list(source_key("pack.a")) == list(byte_key("pack.a")) == expected


def test_only_what_is_imported_changes_a_key(package):
    before = source_key("pack.a")
    (package / "alone.py").write_text("x = 1")
    assert source_key("pack.a") == before
    (package / "sub" / "d.py").write_text("x = 1")
    after = source_key("pack.a")
    assert [name for name in after if after[name] != before[name]] == ["pack.sub.d"]
    (package / "sub" / "d.py").unlink()
    assert "pack.sub.d" not in source_key("pack.a")


def test_a_docstring_changes_only_the_key_of_bytes(package):
    trees, contents = source_key("pack.a"), byte_key("pack.a")
    (package / "a.py").write_text('"""Another."""\nfrom pack import b\nimport os')
    assert source_key("pack.a") == trees
    assert byte_key("pack.a").keys() == contents.keys()
    assert byte_key("pack.a") != contents


def test_a_script_has_a_key_too(package, tmp_path):
    script = tmp_path / "plot_x.py"
    script.write_text("from pack.sub.d import nothing")
    assert list(source_key(script)) == ["pack", "pack.sub", "pack.sub.d", "plot_x.py"]


def test_the_key_of_a_run_covers_settings_data_and_code(package):
    key = record_key("pack.a", {"h": 1}, {"train": "0"})
    assert key["modules"] == source_key("pack.a")
    for other in (
        record_key("pack.a", {"h": 2}, {"train": "0"}),
        record_key("pack.a", {"h": 1}, {"train": "1"}),
        record_key("pack.b", {"h": 1}, {"train": "0"}),
    ):
        assert other != key


def test_the_strings_of_a_file(tmp_path):
    (tmp_path / "a.py").write_text("x = load('one', [f'{y}two'])  # 'three'")
    assert strings(tmp_path / "a.py") == {"one", "two"}


def test_values_that_are_equal_have_one_digest():
    assert digest({"a": [1, 2.5, None]}) == digest({"a": [1, 2.5, None]})
    assert digest({"a": 1}) != digest({"a": 1.0}) != digest({"a": "1"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"a": float("nan")})


def test_a_package_that_is_not_installed_has_no_version():
    found = versions("torch", "no-such-package")
    assert found["torch"][0].isdigit()
    assert found["no-such-package"] is None
