"""What a training needs to go on as if nothing had happened, in one file.

A file is one line, ``dian checkpoint 1`` and the SHA-256 of the rest, and then tensors
in the safetensors format, with everything else as JSON in their header. Nothing in it
is ever executed. It is written whole or not at all, and checked before it is read.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from dian.training import distributed
from dian.errors import DianError
from dian.runs.files import sha256, atomic_write

MAGIC = "dian checkpoint 1"
"""The first words of every file; the number is that of the format."""

DAMAGED = "remove it, and the training goes back to the beginning of this seed"


class Checkpoint:
    """Where one training keeps its state, and how often.

    Parameters
    ----------
    path
        The file. It need not exist, but its folder must.
    identity
        What the training is, as plain values: a file of another is refused.
    every
        Seconds between two savings.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "one.checkpoint"
    >>> import torch
    >>> Checkpoint(path, {"seed": 0}).save({"step": 3, "w": torch.ones(2)})
    >>> Checkpoint(path, {"seed": 0}).load()
    {'step': 3, 'w': tensor([1., 1.])}
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], every: float = 60.0):
        self.path, self.identity, self.every = path, dict(identity), every
        self.began = datetime.now(UTC).isoformat(timespec="seconds")
        self.elapsed = 0.0  # until the last saving; what is lost after it is not in it
        self._last = time.monotonic()

    def due(self) -> bool:
        """Tell whether it is time to save again."""
        return time.monotonic() - self._last >= self.every

    def save(self, state: Any) -> None:
        """Write a state in the place of the one before; one process of several does.

        Parameters
        ----------
        state
            Tensors, numbers, texts and None, in dictionaries and lists of any depth.

        Raises
        ------
        DianError
            If the file cannot be written; what it held before stands.
        """
        if distributed.number():
            return
        now = time.monotonic()
        content = {
            "identity": self.identity,
            "began": self.began,
            "elapsed": self.elapsed + now - self._last,
            "state": state,
        }
        write(self.path, content)
        self.elapsed, self._last = content["elapsed"], now

    def load(self) -> Any:
        """Return the state that was saved last, or None if there is none.

        Raises
        ------
        DianError
            If the file is damaged, or belongs to another training.
        """
        content = distributed.from_first(lambda: _bytes(self.path))
        if content is None:
            return None
        found = parse(content, self.path)
        if found["identity"] != self.identity:
            raise DianError(
                f"{self.path}: saved by another training: "
                f"{'; '.join(differences(found['identity'], self.identity))}; go on "
                "with the code and the options that began it, or remove the file"
            )
        self.began, self.elapsed = found["began"], found["elapsed"]
        self._last = time.monotonic()
        return found["state"]


def write(path: Path, content: Any) -> None:
    """Write tensors and plain values to a file, whole or not at all.

    Raises
    ------
    DianError
        If the file cannot be written; what it held before stands.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_strip(content, tensors))
    body = to_bytes(tensors, metadata={"content": text})
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(f"{MAGIC} {sha256(body)}\n".encode() + body)
    except OSError as error:
        raise DianError(
            f"{path}: cannot be written ({error.strerror}); what was saved before "
            "stands: make room or choose another folder, and go on with --resume"
        ) from None


def parse(content: bytes, path: Path) -> Any:
    """Return what :func:`write` wrote.

    Parameters
    ----------
    content
        All bytes of a file.
    path
        What the file is called.

    Raises
    ------
    DianError
        If one bit is not as it was written.
    """
    head, _, body = content.partition(b"\n")
    if head != f"{MAGIC} {sha256(body)}".encode():
        raise DianError(
            f"{path}: expected a file of {MAGIC!r} with the checksum in its first "
            f"line, found {len(content)} bytes that are damaged or of another format; "
            f"{DAMAGED}"
        )
    size = int.from_bytes(body[:8], "little")
    text = json.loads(body[8 : 8 + size])["__metadata__"]["content"]
    return _fill(json.loads(text), from_bytes(body))


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Name every entry in which two sets of plain values differ, however deep.

    >>> differences({"seed": 0, "h": {"n": 1}}, {"seed": 0, "h": {"n": 2}})
    ['h.n is 1, expected 2']
    """
    told = []
    for key in sorted(found.keys() | expected.keys()):
        old, new = found.get(key, "absent"), expected.get(key, "absent")
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            told += [f"{key}.{line}" for line in differences(old, new)]
        elif old != new:
            told.append(f"{key} is {old}, expected {new}")
    return told


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a folder for one process, and clear it of what a killed one left half done.

    The system lets go of it when the process ends, however it ends.

    Raises
    ------
    DianError
        If the folder cannot be made, or another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DianError(
            f"{folder}: cannot be written ({error.strerror}); choose another --out"
        ) from None
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    """Lock a folder, and remove what was left half written in it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for half in folder.glob(".*.checkpoint.*"):
            half.unlink()
    except BlockingIOError:
        raise DianError(
            f"{folder}: another process is training this; wait for it, or choose "
            "another --out"
        ) from None
    except OSError as error:
        raise DianError(
            f"{folder}: cannot be locked and cleared ({error.strerror}); choose "
            "another --out"
        ) from None


def _bytes(path: Path) -> bytes | None:
    """Read a file, or return None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DianError(
            f"{path}: expected a checkpoint, found what cannot be read "
            f"({error.strerror}); {DAMAGED}"
        ) from None


def _strip(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors out of a nested value, and leave their names in it.

    Dictionaries become lists of pairs: in JSON their keys could only be texts.
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A copy: two names of one tensor would be refused, and views are written whole.
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"map": [[key, _strip(part, tensors)] for key, part in value.items()]}
    if isinstance(value, list | tuple):
        return [_strip(part, tensors) for part in value]
    return value


def _fill(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo :func:`_strip`; a tuple comes back as a list."""
    if isinstance(value, list):
        return [_fill(part, tensors) for part in value]
    if isinstance(value, Mapping):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _fill(part, tensors) for key, part in value["map"]}
    return value
