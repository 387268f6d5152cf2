"""Files that are either whole or not there: checksums, and writing by rename."""

import hashlib
import os
import tempfile
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
        What the reader of the error should do; it ends the message.

    Raises
    ------
    DianError
        If the file is missing, cannot be read, or has other content.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DianError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise DianError(f"{path}: {error.strerror}; {remedy}") from None
    found = sha256(content)
    if found != expected:
        raise DianError(
            f"{path}: expected SHA-256 {expected[:16]}…, found {found[:16]}… in "
            f"{len(content)} bytes: damaged or another version; {remedy}"
        )
    return content


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and rename it to ``path`` at the end.

    If anything goes wrong the temporary file is removed, and what was at ``path``
    before is untouched. The data are on the disk before the name is.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
