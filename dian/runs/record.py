"""Recorded runs: what was trained, with which code and data, and what it gave.

A record is a folder, ``dian/recorded/NAME/``, of ``record.json`` and two files of
tensors. :func:`load` returns it only if every byte is as it was written. Whether it
still holds for the code of today is the question of :mod:`dian.runs.freshness`.

This module imports no torch: the site reads records without waiting for it.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load as parse_arrays

from dian.errors import DianError, did_you_mean
from dian.runs.code_hash import content_hash, digest, strings
from dian.runs.files import atomic_write, read_verified, replace_folder, sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

RECORDED = Path(__file__).resolve().parents[1] / "recorded"
"""The folder of the records that travel with the package.

:meta hide-value:
"""
FORMAT = 1
# What `save` may leave in a folder, and the beginning of every record.json.
_WRITTEN = re.compile(r"record\.json|(arrays|weights)\.safetensors|\..+\.\d+")
_HEAD = b'{\n "checksum": "'
HEADLINES = {
    "long/class-ddim-50/frechet": "Fréchet distance",
    "test/accuracy": "accuracy",
    "validation/accuracy": "validation accuracy",
    "plain/accuracy/1": "accuracy at the training length",
    "guided-0/frechet": "Fréchet distance",
    "all/frechet": "Fréchet distance",
}
"""The metric that stands for a record in one line: the first of these that it has."""


def _field(name: str, doc: str) -> property:
    return property(lambda record: record.content[name], doc=doc)


@dataclass(frozen=True, repr=False)
class Record:
    """One recorded run, already verified against its checksums.

    Examples
    --------
    >>> record = load("rnn-fashion-mnist")
    >>> record.settings["h"]
    128
    >>> record.headline
    'accuracy 0.87... ± 0.00...'
    """

    folder: Path
    content: Mapping[str, Any]
    """All fields of ``record.json``."""

    name = _field("name", "The name of the run.")
    settings = _field("settings", "The frozen hyperparameters of the run.")
    seeds = _field("seeds", "The seeds, one training run each.")
    started = _field("started", "Date and time of the start: UTC, ISO 8601.")
    seconds = _field("seconds", "Wall time of all seeds together, in seconds.")
    commit = _field("commit", "The git commit of the code; ``+changes`` if not clean.")
    command = _field("command", "The command that reproduces the run.")
    environment = _field("environment", "Device, versions and so on, by name.")
    replay = _field(
        "replay", "A short replay to compare with; empty if it holds times."
    )
    proofs = _field("proofs", "Replays that gave the same numbers with later code.")

    @property
    def device(self) -> str:
        """The device that the run used."""
        return self.environment["device"]

    @property
    def provenance(self) -> str:
        """The origin of the numbers, in one line."""
        n = len(self.seeds)
        runs = "1 seed (a single run)" if n == 1 else f"{n} seeds"
        commit = re.sub(r"^([0-9a-f]{10})[0-9a-f]+", r"\1", self.commit)
        return (
            f"Recorded on {self.device}, {self.started[:10]}, commit {commit}, "
            f"{runs}, {self.seconds:.0f} s; reproduce with: {self.command}"
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
        from safetensors.torch import load as parse_tensors  # only here: it needs torch

        return parse_tensors(self._read("weights.safetensors"))

    def model(self, device: str = "cpu") -> "nn.Module":
        """Build the network with the weights of the first seed, in evaluation mode.

        Examples
        --------
        >>> load("rnn-fashion-mnist").model().training
        False
        """
        if not self.replay:
            raise DianError(f"record {self.name} holds times, no network")
        import torch

        from dian.runs.experiment import find

        experiment = find(self.name)
        settings = type(experiment.settings)(**self.settings)
        model = experiment.build(settings, torch.Generator().manual_seed(0))
        model.load_state_dict(self.weights)
        return model.to(device).eval()

    def values(self) -> dict[str, Any]:
        """Return every value of the record by the name that :meth:`value` takes."""
        values = {"seeds": len(self.seeds), "date": self.started[:10]}
        values |= {key: getattr(self, key) for key in ("seconds", "device", "commit")}
        values |= {f"settings/{key}": value for key, value in self.settings.items()}
        for key, row in self.metrics.items():
            values[key] = values[f"{key}.mean"] = float(row.mean())
            values |= {f"{key}.min": float(row.min()), f"{key}.max": float(row.max())}
            if len(row) > 1:  # a single run has no spread
                values[f"{key}.sd"] = float(row.std(ddof=1))
        return values

    def value(self, path: str) -> Any:
        """Look up one value, as the role ``{result}`` does.

        Parameters
        ----------
        path
            A metric such as ``test/accuracy`` (its mean over the seeds), with
            ``.sd``, ``.min`` or ``.max`` behind it for those; or ``settings/NAME``,
            ``seeds`` (their number), ``seconds``, ``device``, ``commit``, ``date``.
        """
        values = self.values()
        if path not in values:
            raise DianError(
                f"record {self.name} has no value {path!r}; "
                f"{did_you_mean(path, values)}"
            )
        return values[path]

    @property
    def headline(self) -> str:
        """The main metric of the run, mean and standard deviation, if it has one."""
        key = next((key for key in HEADLINES if key in self.metrics), None)
        if key is None:
            return ""
        row = self.metrics[key]
        spread = f" ± {row.std(ddof=1):.3f}" if len(row) > 1 else ""
        return f"{HEADLINES[key]} {row.mean():.3f}{spread}"

    def __repr__(self) -> str:
        from dian.runs.freshness import stale  # which itself reads records

        n = len(self.seeds)
        state = "stale" if stale(self) else "fresh"
        parts = [self.headline, f"{n} seed{'s' if n > 1 else ''}", state]
        return f"<Record {self.name}: {', '.join(filter(None, parts))}>"

    def _repr_html_(self) -> str:
        """Show the record in a notebook: its metrics, and its training loss."""
        rows = [
            f"<tr><td>{key}</td><td>{row.mean():.4g}</td></tr>"
            for key, row in self.metrics.items()
        ]
        table = f"<table>{''.join(rows[:8])}</table>"
        return f"{escape(repr(self))}{table}{self.loss_curve()}"

    def loss_curve(self, width: int = 200, height: int = 60) -> str:
        """Draw the training loss by epoch, if the record holds it, as a small SVG."""
        loss = self.series.get("train/loss", np.empty((1, 0))).mean(0)
        x = np.linspace(0, width, len(loss))
        y = height * (1 - loss / loss.max(initial=1e-9))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        return points and (
            f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img">'
            f'<title>training loss by epoch</title><polyline points="{points}" '
            'fill="none" stroke="currentColor"/></svg>'
        )

    def _read(self, file: str) -> bytes:
        """Read one of the record's files, verified every time."""
        files = self.content["files"]
        if file not in files:
            raise DianError(f"record {self.name} holds no file {file}")
        return read_verified(self.folder / file, files[file], _remedy(self.name))


def record_names(folder: Path = RECORDED) -> list[str]:
    """List the recorded runs.

    >>> "rnn-fashion-mnist" in record_names()
    True
    """
    return sorted(path.parent.name for path in folder.glob("*/record.json"))


def used_in(script: Path, folder: Path = RECORDED) -> list[str]:
    """List the records that a Python file loads.

    Every string that is the name of a record counts, so that no way of loading one
    escapes.
    """
    return sorted(strings(script).intersection(record_names(folder)))


def hashes_of(names: Iterable[str], folder: Path = RECORDED) -> dict[str, str]:
    """Return the SHA-256 of every file of some records."""
    files = (file for name in names for file in sorted((folder / name).iterdir()))
    return {f"{file.parent.name}/{file.name}": content_hash(file) for file in files}


def load(
    name: str | os.PathLike[str], folder: str | os.PathLike[str] = RECORDED
) -> Record:
    """Read a record, and verify every byte of it."""
    name, folder = os.fspath(name), Path(folder)
    path = folder / name / "record.json"
    if not path.is_file():
        names = record_names(folder)
        near = did_you_mean(name, names) if names else f"{folder} holds none"
        raise DianError(f"no record {name!r}; {near}")
    try:
        text = path.read_bytes()
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise DianError(
            f"record {name}: {path} cannot be read ({error}); {_remedy(name)}"
        ) from None
    _verify(name, content, text)
    record = Record(path.parent, content)
    for file in content["files"]:
        record._read(file)
    return record


def check_replaceable(folder: Path) -> None:
    """Refuse a folder that :func:`save` would delete something in.

    Only a record, be it damaged, or an empty folder is replaced.
    """
    if not folder.is_dir():
        return
    try:
        inside = sorted(path.name for path in folder.iterdir())
        foreign = [name for name in inside if not _WRITTEN.fullmatch(name)]
        if inside and not foreign:
            with (folder / "record.json").open("rb") as file:
                foreign = ["record.json"] * (file.read(len(_HEAD)) != _HEAD)
    except FileNotFoundError:
        foreign = inside  # no record.json is among them
    except OSError as error:
        raise DianError(f"{folder}: cannot be read ({error.strerror})") from None
    if foreign:
        raise DianError(
            f"{folder}: {foreign[0]} in it is not part of a record, and would be lost; "
            "move it away, or choose another folder with --out"
        )


def save(folder: Path, content: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Write a record in the place of the one before, whole or not at all.

    A folder that is not a record is refused.

    Parameters
    ----------
    folder
        The record's own folder.
    content
        All fields of ``record.json`` but ``files`` and ``checksum``, which are added.
    files
        The bytes of each file beside it.
    """
    content = sealed(
        content | {"files": {n: sha256(data) for n, data in files.items()}}
    )
    remedy = "free the disk or choose another folder with --out"
    check_replaceable(folder)
    try:
        with replace_folder(folder) as new:
            for name, data in (files | {"record.json": to_json(content)}).items():
                atomic_write(new / name, data, remedy)
    except OSError as error:
        raise DianError(
            f"{folder}: the record cannot be written ({error.strerror}); {remedy}"
        ) from None


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
    """
    changed = {"module": module, "proofs": [*record.proofs, proof]}
    remedy = (
        "the record is unchanged; make room or permit writing, and revalidate again"
    )
    path = record.folder / "record.json"
    atomic_write(path, to_json(sealed(record.content | changed)), remedy)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a record with the checksum of all other fields."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    try:
        return rest | {"checksum": digest(rest)}
    except ValueError:
        raise DianError(
            f"record {content.get('name')}: a number in it is not finite, and such a "
            "result is not kept; lower the learning rate, or clip"
        ) from None


def to_json(content: Mapping[str, Any]) -> bytes:
    """Write a record as JSON, each row of numbers in one line: its diffs are short."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda row: " ".join(row[0].split()), text)
    return f"{text}\n".encode()


def _verify(name: str, content: Any, text: bytes) -> None:
    """Refuse a record that was edited, or is of another name or format."""
    written = isinstance(content, dict) and sealed(content) == content
    if not written or to_json(content) != text:
        problem = "record.json is not as it was written, byte by byte"
    elif (found := (content["name"], content["format"])) != (name, FORMAT):
        problem = f"expected the name {name!r} and format {FORMAT}, found {found}"
    else:
        return
    raise DianError(f"record {name}: {problem}; {_remedy(name)}")


def _remedy(name: str) -> str:
    return f"restore it with git, or run: python -m dian train {name}"
