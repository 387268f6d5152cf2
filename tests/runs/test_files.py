"""Files are complete or absent, whichever operation fails."""

import itertools
import os
import shutil
from pathlib import Path

import pytest

from dian.errors import DianError
from dian.runs import files

CONTENT = b"what was there before"


def test_only_the_right_bytes_are_returned(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(CONTENT)
    assert files.read_verified(path, files.sha256(CONTENT), "do it") == CONTENT


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda path: path.write_bytes(b""),
            r"a: expected SHA-256 .* in 0 bytes.*do it",
        ),
        (
            lambda path: path.write_bytes(CONTENT[:-1]),
            r"a: expected SHA-256 .* 20 bytes",
        ),
        (
            lambda path: path.write_bytes(CONTENT + b"\0"),
            r"a: expected SHA-256 .* 22 b",
        ),
        (lambda path: None, r"a: no such file; do it"),
        (lambda path: path.mkdir(), r"a: Is a directory; do it"),
    ],
)
def test_other_files_are_refused(tmp_path, spoil, message):
    spoil(tmp_path / "a")
    with pytest.raises(DianError, match=message):
        files.read_verified(tmp_path / "a", files.sha256(CONTENT), "do it")


def test_any_name_and_any_folder_will_do(tmp_path):
    path = tmp_path / "new" / "Größe 大小.bin"
    files.atomic_write(path, b"new", "do it")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def failing(patch, n):
    """Let the n-th operation on a file fail; the list gets the name of each."""
    done = []

    def wrap(name, real):
        def operation(*arguments, **options):
            done.append(name)
            if len(done) == n:
                raise OSError(28, "No space left on device")
            return real(*arguments, **options)

        return operation

    for owner, name in (
        *((Path, "mkdir"), (Path, "write_bytes"), (os, "fsync"), (Path, "replace")),
    ):
        patch.setattr(owner, name, wrap(name, getattr(owner, name)))
    return done


def test_a_file_is_as_before_if_any_operation_fails(tmp_path, monkeypatch):
    path = tmp_path / "a"
    for n in itertools.count(1):
        path.write_bytes(CONTENT)
        with monkeypatch.context() as patch:
            done = failing(patch, n)
            if n <= 4:
                with pytest.raises(
                    DianError, match=r"a: cannot be written .No space.*do"
                ):
                    files.atomic_write(path, b"new", "do it")
            else:
                files.atomic_write(path, b"new", "do it")
        assert path.read_bytes() == (CONTENT if n <= len(done) else b"new")
        assert list(tmp_path.iterdir()) == [path]
        if n > len(done):
            assert done == ["mkdir", "write_bytes", "fsync", "replace"]
            break


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def replace(folder):
    """Replace a folder, and return the message if that fails."""
    try:
        with files.replace_folder(folder) as new:
            files.atomic_write(new / "b", b"new", "do it")
    except (DianError, OSError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_is_as_before_if_any_operation_fails(tmp_path, monkeypatch, exists):
    folder = tmp_path / "folder"
    for n in itertools.count(1):
        shutil.rmtree(folder, ignore_errors=True)
        if exists:
            folder.mkdir()
            (folder / "a").write_bytes(CONTENT)
        with monkeypatch.context() as patch:
            done = failing(patch, n)
            told = replace(folder)
        failed = n <= len(done)
        assert ("No space left on device" in told) == failed
        if failed and exists:
            assert contents(folder) == {"a": CONTENT}
        elif failed:
            assert not folder.exists() or contents(folder) == {}
        else:
            assert contents(folder) == {"b": b"new"}
            break
        assert set(tmp_path.iterdir()) <= {folder}
    assert n > 7


def test_a_folder_that_a_killed_process_moved_away_comes_back(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(CONTENT)
    folder.rename(tmp_path / ".folder.writing-old")

    def fail():
        with files.replace_folder(folder):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert contents(folder) == {"a": CONTENT}
    assert list(tmp_path.iterdir()) == [folder]
