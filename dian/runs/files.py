"""Files that are read whole or refused, and written whole or not at all."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dian.errors import DianError


def sha256(content: bytes) -> str:
    """Return the SHA-256 of the bytes, in hexadecimal.

    >>> sha256(b"")[:16]
    'e3b0c44298fc1c14'
    """
    return hashlib.sha256(content).hexdigest()


def read_verified(path: Path, expected: str, remedy: str) -> bytes:
    """Read a file, and return its bytes only if they have the expected SHA-256.

    The bytes that were hashed are the bytes that are returned: the file cannot change
    between the check and the use, and no parser ever sees a damaged file.

    Parameters
    ----------
    path
        The file.
    expected
        Its SHA-256, in hexadecimal.
    remedy
        What the user should do if the file is missing or damaged; it ends the message.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DianError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise DianError(f"{path}: {error.strerror}; {remedy}") from None
    return verified(content, expected, path, remedy)


def verified(content: bytes, expected: str, path: Path, remedy: str) -> bytes:
    """Return the bytes read from a file if they have the expected SHA-256."""
    if (found := sha256(content)) != expected:
        raise DianError(
            f"{path}: expected SHA-256 {expected[:16]}…, found {found[:16]}… in "
            f"{len(content)} bytes: damaged or another version; {remedy}"
        )
    return content


def atomic_write(path: Path, content: bytes, remedy: str) -> None:
    """Write a file under a temporary name, and rename it when it is on the disk.

    After an error the temporary file is removed, and the file at ``path`` is as before.

    Parameters
    ----------
    path
        The file; its folder is created if necessary.
    content
        What to write.
    remedy
        What the user should do if it cannot be written; it ends the message.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DianError(
            f"{path}: cannot be written ({error.strerror}); {remedy}"
        ) from None


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder, which takes the place of ``folder`` at the end of the block.

    Until then, and after an error, the old folder is as before. If a process was killed
    between the two renames, the next call restores the old folder first. A link to a
    folder stays a link.

    Everything in the old folder is deleted: see first that it may be.
    """
    folder = folder.resolve()
    new, old = (folder.with_name(f".{folder.name}.writing-{s}") for s in ("new", "old"))
    if old.exists() and not folder.exists():
        old.replace(folder)
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    new.mkdir()
    try:
        yield new
        folder.replace(old)
        try:
            new.replace(folder)
        except OSError:
            old.replace(folder)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
