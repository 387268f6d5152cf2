"""Files are whole or not there, whichever operation on the way fails."""

import os
from pathlib import Path

import pytest

from dian.errors import DianError
from dian.runs import files

CONTENT = b"what was there before"


def test_only_the_right_bytes_are_returned(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(CONTENT)
    assert files.read_verified(path, files.sha256(CONTENT), "do it") == CONTENT


@pytest.mark.parametrize("cut", [0, 1, 10, len(CONTENT) - 1])
def test_a_truncated_file_is_refused(tmp_path, cut):
    path = tmp_path / "a"
    path.write_bytes(CONTENT[:cut])
    with pytest.raises(DianError, match=rf"a: expected SHA-256 .* {cut} bytes.*do it"):
        files.read_verified(path, files.sha256(CONTENT), "do it")


def test_a_missing_file_and_a_folder_in_its_place(tmp_path):
    with pytest.raises(DianError, match="no such file; do it"):
        files.read_verified(tmp_path / "none", "0", "do it")
    with pytest.raises(DianError, match="Is a directory; do it"):
        files.read_verified(tmp_path, "0", "do it")


def test_written_whole(tmp_path):
    path = tmp_path / "Größe 大小.bin"  # any name will do
    with files.atomic_write(path) as temporary:
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_nth_file_operation_fails(tmp_path, monkeypatch):
    """Fail at the 1st, 2nd, 3rd... operation, until it runs through."""
    path = tmp_path / "a"
    originals = {
        name: getattr(owner, name)
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "chmod"))
    }
    for n in range(1, 10):
        path.write_bytes(CONTENT)
        count = 0

        def failing(name):
            def operation(*arguments):
                nonlocal count
                count += 1
                if count == n:  # noqa: B023  used before the next turn
                    raise OSError(28, "No space left on device")
                return originals[name](*arguments)

            return operation

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing("fsync"))
            patch.setattr(Path, "replace", failing("replace"))
            patch.setattr(Path, "chmod", failing("chmod"))
            try:
                with files.atomic_write(path) as temporary:
                    temporary.write_bytes(b"new")
            except OSError:
                # After the rename the new file stands; only syncing its name failed.
                assert path.read_bytes() == (CONTENT if n < 4 else b"new")
            else:
                break
        assert list(tmp_path.iterdir()) == [path]
    assert n == 5
    assert path.read_bytes() == b"new"


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(CONTENT)

    def write_half():
        with files.atomic_write(path) as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]
