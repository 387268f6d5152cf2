"""Everything that an interrupted run needs to continue, in one file.

A file is one line, ``dian checkpoint 2`` and the SHA-256 of the rest, followed by what
:func:`torch.save` writes. It is written atomically, checked before it is read, and read
with ``weights_only=True``, so that no code in it is ever executed.
"""

import fcntl
import io
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

from dian.errors import DianError
from dian.runs.files import atomic_write, sha256

MAGIC = "dian checkpoint 2"
"""The first words of every file; the number is that of the format."""


@dataclass(frozen=True)
class Processes:
    """The processes that share a run; by default there is only this one.

    See :mod:`dian.training.distributed` for those that ``torchrun`` starts.
    """

    rank: int = 0
    """The number of this process; only process 0 writes files."""
    world_size: int = 1
    group: Callable[[torch.device], AbstractContextManager] = nullcontext
    """Connects the processes during a ``with`` statement."""
    broadcast: Callable[[Any], Any] = lambda value: value
    """Returns the value of process 0 in all processes."""


ONE_PROCESS = Processes()


class Checkpoint:
    """The file in which one run saves its state.

    Parameters
    ----------
    path
        The file. It need not exist, but its folder must.
    identity
        What the run is, as plain values: the file of another run is refused.
    interval_s
        Seconds between two savings.
    processes
        Process 0 writes, and reads for all.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "one.checkpoint"
    >>> Checkpoint(path, {"seed": 0}).save({"step": 3, "w": torch.ones(2)})
    >>> Checkpoint(path, {"seed": 0}).load()
    {'step': 3, 'w': tensor([1., 1.])}
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        interval_s: float = 60.0,
        processes: Processes = ONE_PROCESS,
    ):
        self.path, self.identity = path, dict(identity)
        # Such as NaN: every resumption would be refused as that of another run.
        if _unpacked(_packed(self.identity)) != self.identity:
            raise ValueError(f"identity must equal itself when read, got {identity}")
        self.interval_s, self.processes = interval_s, processes
        self.began = datetime.now(UTC).isoformat(timespec="seconds")
        self.elapsed = 0.0  # until the last saving: what is lost later is not counted
        self._last = time.monotonic()

    def beside(self, suffix: str) -> "Checkpoint":
        """Return another file of the same run, with this suffix."""
        path = self.path.with_suffix(suffix)
        return Checkpoint(path, self.identity, self.interval_s, self.processes)

    def due(self) -> bool:
        """Return whether it is time to save again."""
        return time.monotonic() - self._last >= self.interval_s

    def save(self, state: Any) -> None:
        """Write a state in place of the previous one; only process 0 does.

        It may hold tensors, numbers, strings and None, in dictionaries and lists of any
        depth; other objects are a :class:`TypeError`.
        """
        if self.processes.rank:
            return
        now = time.monotonic()
        elapsed = self.elapsed + now - self._last
        content = {"identity": self.identity, "began": self.began, "elapsed": elapsed}
        write(self.path, content | {"state": state})
        self.elapsed, self._last = elapsed, now

    def load(self) -> Any:
        """Return the state that was saved last, or None if there is none."""
        mine = self.processes.rank == 0 and self.path.exists()
        content = self.processes.broadcast(self.path.read_bytes() if mine else None)
        if content is None:
            return None
        found = parse(content, self.path)
        if found["identity"] != self.identity:
            raise DianError(
                f"{self.path}: saved by another run: "
                f"{'; '.join(differences(found['identity'], self.identity))}; resume "
                "with the code and the options that started it, or remove the file"
            )
        self.began, self.elapsed = found["began"], found["elapsed"]
        self._last = time.monotonic()
        return found["state"]


def write(path: Path, content: Any) -> None:
    """Write tensors and plain values to a file atomically."""
    body = _packed(content)
    remedy = (
        "the previous checkpoint is intact: free some space or choose another folder, "
        "and use --resume"
    )
    atomic_write(path, f"{MAGIC} {sha256(body)}\n".encode() + body, remedy)


def parse(content: bytes, path: Path) -> Any:
    """Return what :func:`write` wrote, if no bit of it has changed."""
    head, _, body = content.partition(b"\n")
    if head != f"{MAGIC} {sha256(body)}".encode():
        raise DianError(
            f"{path}: expected {MAGIC!r} and its checksum in the first line, found "
            f"{len(content)} bytes that are damaged or of another format; remove it, "
            "and the run starts this seed again"
        )
    return _unpacked(body)


def _packed(content: Any) -> bytes:
    """Serialize tensors and plain values; raise on what could not be read back."""
    buffer, allowed = io.BytesIO(), "a checkpoint holds tensors and plain values only"
    try:
        torch.save(content, buffer)
        buffer.seek(0)
        if wrong := get_unsafe_globals_in_checkpoint(buffer):
            raise TypeError(", ".join(wrong))
        _unpacked(buffer.getvalue())
    except (AttributeError, RuntimeError, TypeError, pickle.PickleError) as error:
        reason = str(error).partition("\n")[0]
        raise TypeError(f"{allowed}, got {reason}") from None
    return buffer.getvalue()


def _unpacked(body: bytes) -> Any:
    return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Name every entry in which two nested sets of plain values differ.

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
    """Hold a folder for one process, and clear it of half-written files.

    The system releases the lock when the process ends, however it ends.
    """
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((folder / "lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for half_written in folder.glob(".*.checkpoint.*"):
                half_written.unlink()
        except OSError as error:
            reason = f"cannot be written ({error.strerror})"
            if isinstance(error, BlockingIOError):
                reason = "another process is training this; wait for it"
            raise DianError(f"{folder}: {reason}, or choose another --out") from None
        yield


def clear_folder(folder: Path) -> None:
    """Remove the files of a run, and their folder unless there is something else in it.

    What cannot be removed does no harm, and is left.
    """
    with suppress(OSError):
        for file in (*folder.glob("seed-*.*"), folder / "lock"):
            file.unlink()
        folder.rmdir()
