"""A run record: what was trained, with what, when, and whether it still holds.

A record is a folder, ``dian/recorded/NAME/``, of ``record.json`` and two files of
tensors. It is *intact* when every byte is as it was written, and *fresh* when the code
that made it is today's code, or when a replay has proved that today's code computes
the same. :func:`load` checks the first on every read; :func:`stale` tells the second.

This module imports no torch: the site reads records without waiting for it.
"""

import difflib
import glob
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load as parse_arrays

from dian.errors import DianError
from dian.runs.files import read_verified, sha256, atomic_write
from dian.runs.code_hash import fingerprint, module_path, source_key

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).resolve().parents[1] / "recorded"
FORMAT = 1
FIELDS = {
    "format": int,
    "name": str,
    "status": str,
    "command": str,
    "module": str,
    "settings": dict,
    "seeds": list,
    "key": dict,
    "commit": str,
    "started": str,
    "ended": str,
    "seconds": (int, float),
    "environment": dict,
    "series": dict,
    "metrics": dict,
    "replay": dict,
    "proofs": list,
    "files": dict,
    "checksum": str,
}


@dataclass(frozen=True)
class Record:
    """One recorded run, already checked against its checksums.

    Examples
    --------
    >>> record = load("rnn-fashion-mnist")
    >>> record.settings["h"]
    128
    >>> 0.5 < record.value("test/accuracy") < 1
    True
    """

    folder: Path
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.content["name"]

    @property
    def settings(self) -> dict[str, Any]:
        """The frozen settings of the run."""
        return self.content["settings"]

    @property
    def seeds(self) -> list[int]:
        """The seeds, one run each."""
        return self.content["seeds"]

    @property
    def started(self) -> str:
        """When it started: date and time, UTC, ISO 8601."""
        return self.content["started"]

    @property
    def seconds(self) -> float:
        """Wall time of all seeds together, in seconds."""
        return self.content["seconds"]

    @property
    def device(self) -> str:
        """The device that trained it."""
        return self.content["environment"]["device"]

    @property
    def commit(self) -> str:
        """The git commit of the code, with ``+changes`` if it was not clean."""
        return self.content["commit"]

    @property
    def command(self) -> str:
        """The command that trains it again."""
        return self.content["command"]

    @property
    def provenance(self) -> str:
        """Where the numbers come from, in one line."""
        n = len(self.seeds)
        runs = "1 seed (a single run)" if n == 1 else f"{n} seeds"
        commit = re.sub(r"^([0-9a-f]{10})[0-9a-f]+", r"\1", self.commit)
        return (
            f"Recorded on {self.device}, {self.started[:10]}, commit {commit}, "
            f"{runs}, {self.seconds:.0f} s; again: {self.command}"
        )

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Final numbers, one value for each seed."""
        return {key: np.array(row) for key, row in self.content["metrics"].items()}

    @property
    def series(self) -> dict[str, np.ndarray]:
        """Numbers by epoch, of shape (seeds, epochs)."""
        return {key: np.array(rows) for key, rows in self.content["series"].items()}

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Larger results, such as confusion matrices: (seeds, ...)."""
        return parse_arrays(self._read("arrays.safetensors"))

    @cached_property
    def weights(self) -> dict[str, "Tensor"]:
        """The trained parameters of the first seed."""
        # Only here is torch needed.
        from safetensors.torch import load as parse_tensors

        return parse_tensors(self._read("weights.safetensors"))

    def value(self, path: str) -> Any:
        """Look one value up, as the role ``{result}`` does.

        Parameters
        ----------
        path
            A metric such as ``test/accuracy`` (its mean over the seeds), with
            ``.sd``, ``.min`` or ``.max`` behind it for those; or ``settings/NAME``,
            ``seeds`` (their number), ``seconds``, ``device``, ``commit``, ``date``.

        Raises
        ------
        DianError
            If there is no such value; the nearest ones are listed.
        """
        values = {
            "seeds": len(self.seeds),
            "seconds": self.seconds,
            "device": self.device,
            "commit": self.commit,
            "date": self.started[:10],
        }
        values |= {f"settings/{key}": value for key, value in self.settings.items()}
        for key, row in self.metrics.items():
            values[key] = values[f"{key}.mean"] = float(row.mean())
            values |= {f"{key}.min": float(row.min()), f"{key}.max": float(row.max())}
            if len(row) > 1:  # a single run has no spread
                values[f"{key}.sd"] = float(row.std(ddof=1))
        if path not in values:
            raise DianError(
                f"record {self.name} has no value {path!r}; {did_you_mean(path, values)}"
            )
        return values[path]

    def _read(self, file: str) -> bytes:
        """Read one of the record's files; its checksum is compared every time."""
        expected = self.content["files"].get(file)
        if expected is None:
            there = ", ".join(self.content["files"])
            raise DianError(
                f"record {self.name}: expected a file {file}, found {there}; "
                f"{_remedy(self.content)}"
            )
        return read_verified(self.folder / file, expected, _remedy(self.content))


def names(folder: Path = FOLDER) -> list[str]:
    """List the recorded runs.

    >>> "rnn-fashion-mnist" in names()
    True
    """
    return sorted(path.parent.name for path in folder.glob("*/record.json"))


def load(name: str, folder: Path = FOLDER) -> Record:
    """Read a record, and check every byte of it.

    Raises
    ------
    DianError
        If there is no such record, or anything in it is not as it was written; the
        message names it.
    """
    if name not in names(folder):
        raise DianError(f"no record {name!r}; {did_you_mean(name, names(folder))}")
    path = folder / name / "record.json"
    try:
        text = path.read_bytes()
        content = json.loads(text.decode(), parse_constant=_refuse)
    except (OSError, ValueError) as error:
        raise DianError(
            f"record {name}: {path} cannot be read ({error}); {_remedy({'name': name})}"
        ) from None
    _validate(name, content)
    if text != _text(content):
        raise DianError(
            f"record {name}: {path} holds what was recorded, expected it as it was "
            f"written, byte by byte; {_remedy(content)}"
        )
    record = Record(path.parent, content)
    for file in content["files"]:
        record._read(file)
    return record


def save(folder: Path, content: dict[str, Any], files: Mapping[str, bytes]) -> None:
    """Write a record: the files of tensors first, ``record.json`` last.

    Parameters
    ----------
    folder
        The record's own folder, made if it is not there.
    content
        All fields of ``record.json`` but ``files`` and ``checksum``, which are added.
    files
        The bytes of each file beside it.

    Raises
    ------
    DianError
        If it cannot be written, or holds what a record may not hold.

    Notes
    -----
    Everything is written into another folder first, which takes the place of the old
    one when all of it is on the disk: if something fails, the old record stands.
    """
    content = content | {"files": {name: sha256(data) for name, data in files.items()}}
    content["checksum"] = checksum(content)
    _validate(content["name"], content)
    try:
        with _beside(folder) as beside:
            new = beside / "new"
            new.mkdir()
            for name, data in [*files.items(), ("record.json", _text(content))]:
                with atomic_write(new / name) as temporary:
                    temporary.write_bytes(data)
            _exchange(folder, new, beside / "old")
    except OSError as error:
        raise DianError(
            f"{folder}: the record cannot be written ({error.strerror}); "
            "free the disk or choose another folder with --out"
        ) from None


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Make a folder, and yield another beside it, which is removed at the end.

    If a process was killed while it exchanged them, it is undone first.
    """
    prefix = f".{folder.name}.writing-"
    for left in folder.parent.glob(f"{glob.escape(prefix)}*"):
        if (left / "old").exists() and not folder.exists():
            (left / "old").replace(folder)
        shutil.rmtree(left, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _exchange(folder: Path, new: Path, old: Path) -> None:
    """Put a new folder in the place of one, which goes elsewhere, or back."""
    folder.replace(old)
    try:
        new.replace(folder)
    except OSError:
        old.replace(folder)
        raise


def add_proof(record: Record, proof: dict[str, Any], module: str) -> None:
    """Store that a replay with today's code gave the recorded numbers.

    Parameters
    ----------
    record
        The record that was replayed.
    proof
        Date, commit, residual, environment and code hashes of the replay.
    module
        The module that defines the experiment today.

    Raises
    ------
    DianError
        If it cannot be written; the record stands as it was.
    """
    content = dict(record.content) | {
        "module": module,
        "proofs": [*record.content["proofs"], proof],
    }
    content["checksum"] = checksum(content)
    path = record.folder / "record.json"
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(_text(content))
    except OSError as error:
        raise DianError(
            f"{path}: cannot be written ({error.strerror}); the record stands as it "
            "was: make room or make the folder writable, and revalidate again"
        ) from None


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of everything in the record but this checksum."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    try:
        return sha256(json.dumps(rest, sort_keys=True, allow_nan=False).encode())
    except ValueError:
        name = content.get("name")
        raise DianError(
            f"record {name}: a number in it is not finite, and such a result is not "
            "kept; lower the learning rate, or clip"
        ) from None


def make_key(module: str, settings: dict, data: dict) -> dict[str, Any]:
    """Return the source key: settings, data and code, each hashed for itself.

    Parameters
    ----------
    module
        The module of the experiment, such as ``dian.experiments.rnn.study``.
    settings
        Its settings.
    data
        SHA-256 of each data file it read.
    """
    canonical = json.dumps(settings, sort_keys=True).encode()
    return {
        "settings": sha256(canonical),
        "data": data,
        "modules": source_key(module),
    }


def stale(record: Record) -> list[str]:
    """Say why a record is not fresh; the list is empty if it is.

    Fresh means: its modules are today's, or a stored replay was made with today's. If
    not, what changed is told since the last state of the code that it held for.

    A benchmark is no part of the package. Its record names the modules that it timed,
    and is fresh while these are the same: no replay can vouch for a time.
    """
    today = _today(record)
    vouched = _vouched(record)
    if today in vouched:
        return []
    last = vouched[-1]
    return [
        f"{module} {change(last.get(module), today.get(module))}"
        for module in sorted(last | today)
        if last.get(module) != today.get(module)
    ]


def _today(record: Record) -> dict[str, str]:
    """Hash the code that the record depends on as it is now."""
    if record.content["replay"]:
        return source_key(record.content["module"])
    # A benchmark is not part of the package: its record names the modules it timed.
    paths = ((name, module_path(name)) for name in record.content["key"]["modules"])
    return {name: fingerprint(path) for name, path in paths if path}


def why_stale(name: str, folder: Path = FOLDER) -> str | None:
    """Say in one line why a record must not be shown, or nothing if it may be.

    >>> why_stale("rnn-fashion-mnist")
    """
    try:
        record = load(name, folder)
        reasons = stale(record)
    except DianError as error:
        return str(error)
    if not reasons:
        return None
    return f"record {name} is stale: {', '.join(reasons)}; {refresh_hint(record)}"


def refresh_hint(record: Record) -> str:
    """Say what makes a record fresh whose code alone has changed.

    >>> refresh_hint(load("rnn-fashion-mnist"))
    'run: python -m dian revalidate rnn-fashion-mnist, or train it again'
    """
    if not record.content["replay"]:  # it holds times, which no replay gives again
        return f"run: {record.command}"
    return f"run: python -m dian revalidate {record.name}, or train it again"


def _vouched(record: Record) -> list[dict[str, str]]:
    """Every state of the code that the record is known to hold for, in order."""
    proofs = [proof["modules"] for proof in record.content["proofs"]]
    return [record.content["key"]["modules"], *proofs]


def change(before: str | None, after: str | None) -> str:
    """Say what became of something that has a hash.

    >>> change("a", "b"), change(None, "b"), change("a", None)
    ('changed', 'is new', 'is gone')
    """
    if before is None:
        return "is new"
    return "is gone" if after is None else "changed"


def _refuse(constant: str) -> None:
    """Refuse NaN and infinity, which are no JSON, though Python reads them."""
    raise ValueError(f"{constant} is not a number")


def _text(content: Mapping[str, Any]) -> bytes:
    """Write a record as JSON, a row of numbers in one line, so that a diff is short."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda row: " ".join(row[0].split()), text)
    return f"{text}\n".encode()


def _validate(name: str, content: Any) -> None:
    """Refuse a record that is not of the format, was edited, or did not succeed."""

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise DianError(f"record {name}: {what}; {_remedy({'name': name})}")

    require(isinstance(content, dict), "expected a JSON object")
    for field, kind in FIELDS.items():
        require(field in content, f"expected a field {field!r}, found none")
        found = type(content[field]).__name__
        require(
            isinstance(content[field], kind),
            f"field {field!r} has a wrong type, {found}",
        )
    unknown = sorted(set(content) - set(FIELDS))
    require(not unknown, f"unknown fields {unknown}, expected none")
    form = content["format"]
    require(form == FORMAT, f"expected format {FORMAT}, found {form}")
    require(
        checksum(content) == content["checksum"],
        "record.json was changed by hand: its checksum does not fit",
    )
    require(content["name"] == name, f"it says that it is {content['name']!r}")
    status = content["status"]
    require(status == "success", f"its status is {status!r}, expected 'success'")
    seeds = content["seeds"]
    different = bool(seeds) and len(set(seeds)) == len(seeds)
    require(different, f"bad seeds {seeds}, expected one or more, all different")
    for group in ("series", "metrics"):
        for key, rows in content[group].items():
            fits = len(rows) == len(seeds)
            told = f"{len(seeds)} expected, {len(rows)} found"
            require(fits, f"{key} is not one row for each seed: {told}")


def _remedy(content: Mapping[str, Any]) -> str:
    name = content["name"]
    return f"restore it with git, or run: python -m dian train {name}"


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """Say what the reader may have meant."""
    near = difflib.get_close_matches(wrong, list(valid), n=3, cutoff=0.5)
    return (
        f"nearest: {', '.join(near)}" if near else f"valid: {', '.join(sorted(valid))}"
    )
