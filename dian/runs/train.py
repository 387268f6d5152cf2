"""From an experiment to its record, and back: train, replay, revalidate."""

import importlib
import json
import math
import pkgutil
import shutil
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

import dian.experiments
from dian.runs import (
    checkpoint as checkpoints,
    environment as machine,
    record as records,
    runlog,
)
from dian.training import distributed
from dian.runs.checkpoint import Checkpoint
from dian.data import SAMPLE_CHECKSUMS
from dian.errors import DianError
from dian.runs.experiment import Experiment
from dian.runs.runlog import Report, RunLog
from dian.runs.code_hash import source_key
from dian.runs.experiment import Outcome

TOLERANCE = 1e-5
"""How far a replayed number may be from the recorded one, relative to it."""

LOG = "log.jsonl"
"""The log of a training, in its :func:`working_folder`."""


def experiments() -> dict[str, Experiment]:
    """Find every experiment by its name.

    >>> "rnn-fashion-mnist" in experiments()
    True
    """
    found = {}
    names = pkgutil.walk_packages(dian.experiments.__path__, "dian.experiments.")
    for module in names:
        loaded = importlib.import_module(module.name)
        for experiment in getattr(loaded, "EXPERIMENTS", ()):
            found[experiment.name] = experiment
    return dict(sorted(found.items()))


def find(name: str) -> Experiment:
    """Return the experiment of this name.

    Raises
    ------
    DianError
        If there is none; the nearest names are listed.
    """
    known = experiments()
    if name not in known:
        raise DianError(f"no experiment {name!r}; {records.did_you_mean(name, known)}")
    return known[name]


def train(
    name: str,
    out: Path,
    *,
    device: str = "auto",
    n_seed: int | None = None,
    quick: bool = False,
    commit: str | None = None,
    resume: bool = False,
    every: float = 60.0,
    report: Report = lambda part, done, total, loss: None,
) -> records.Record | None:
    """Train an experiment with every seed, and write its record.

    What is done is saved in a hidden folder beside ``out`` until the record is there.
    Where torchrun started several processes they share each batch, and the first alone
    writes.

    Parameters
    ----------
    name
        Of the experiment.
    out
        The folder of the record. It is written when everything is done, and what it
        held before stands until then.
    device
        ``auto``, ``cpu`` or ``cuda``.
    n_seed
        How many seeds, from 0 on. Default: as many as the experiment says.
    quick
        Its quick settings on the bundled sample: a trial, not a result.
    commit
        What the record says of the code. Default: what git says.
    resume
        Go on with a training that was interrupted. Without it one is refused.
    every
        Seconds between two savings of a training.
    report
        Called after each step with the seed's name, the steps done and in all, and
        the loss, in the first process.

    Returns
    -------
    record
        In the first process; None in the others.

    Raises
    ------
    DianError
        If the name, the device or the data are not there, if a loss is not finite, if
        an interrupted training is there and is not to be resumed, or was another.
    """
    experiment = find(name)
    target = machine.device(device)
    settings = experiment.quick if quick else experiment.settings
    data = experiment.data(quick)
    seeds = range(experiment.n_seed if n_seed is None else n_seed)
    # Of the code that runs, so they are taken before somebody edits a file.
    commit = commit or machine.commit()
    key = records.make_key(
        experiment.run.__module__,
        asdict(settings),
        SAMPLE_CHECKSUMS if quick else experiment.checksums,
    )
    machine.make_deterministic()
    environment = _environment(target)
    identity = {
        "name": name,
        "settings": asdict(settings),
        "key": key,
        # Another machine would not give the same numbers, and the record names one.
        "environment": {
            "processor": machine.name(target),
            "torch": environment["torch"],
        },
    }
    first = distributed.number() == 0

    def run(seed: int, folder: Path) -> tuple[Outcome, Checkpoint]:
        log = RunLog(runlog.into(folder / LOG))

        def after_step(done: int, total: int, loss: float) -> None:
            if first:
                log(f"seed {seed}", done, total, loss)
                report(f"seed {seed}", done, total, loss)

        path = folder / f"seed-{seed}.checkpoint"
        checkpoint = Checkpoint(path, identity | {"seed": seed}, every)
        if (saved := checkpoint.load()) and "outcome" in saved:
            return Outcome(**saved["outcome"]), checkpoint
        options = {"after_step": after_step, "checkpoint": checkpoint}
        try:
            outcome = experiment.run(settings, data, seed, target, **options)
        except torch.OutOfMemoryError as error:
            raise DianError(
                f"seed {seed}: expected room for a batch on {machine.name(target)}, "
                f"found too little ({str(error).partition('.')[0]}); free it or share "
                "the batch among several with torchrun, and go on with --resume"
            ) from None
        checkpoint.save({"outcome": outcome.state_dict()})
        return outcome, checkpoint

    working = working_folder(out)
    with checkpoints.lock_folder(working) if first else nullcontext():
        left = sorted(working.glob("seed-*.checkpoint"))
        if first and left and not resume:
            raise DianError(
                f"{working}: an interrupted training is here ({left[-1].name}); go on "
                "with --resume, or remove the folder to begin anew"
            )
        with distributed.together(target):
            _require_same(identity)
            runs = [run(seed, working) for seed in seeds]
        if not first:
            return None
        outcomes = [outcome for outcome, _ in runs]
        content = {
            "format": records.FORMAT,
            "name": name,
            "status": "success",
            "command": _command(name, quick, n_seed),
            "module": experiment.run.__module__,
            "settings": asdict(settings),
            "seeds": list(seeds),
            "commit": commit,
            "started": runs[0][1].began,
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(sum(checkpoint.elapsed for _, checkpoint in runs), 1),
            "environment": environment,
            "series": _rows([outcome.series for outcome in outcomes]),
            "metrics": _rows([outcome.metrics for outcome in outcomes]),
            "replay": replay(experiment, settings, data),
            "proofs": [],
            "key": key,
        }
        files = {
            "arrays.safetensors": to_bytes(_stack([o.arrays for o in outcomes])),
            "weights.safetensors": to_bytes(outcomes[0].weights),
        }
        records.save(out, content, files)
        _remove(working)
    return records.load(out.name, out.parent)


def working_folder(out: Path) -> Path:
    """Where a training keeps its state and its log until the record is written.

    >>> working_folder(Path("runs/rnn"))
    PosixPath('runs/.rnn.training')
    """
    return out.with_name(f".{out.name}.training")


def replay(experiment: Experiment, settings: Any, data: Any) -> dict[str, Any]:
    """Run seed 0 in little, on the CPU, in float64, and tell all numbers.

    A whole run: what happens late, such as the end of the schedule or the judging, is
    a part of it. In float64, since training amplifies rounding: in float32 another
    number of threads changes the loss of the 50th step in its fourth digit.
    """
    small, few = experiment.smoke_settings(settings, data)
    outcome = experiment.run(small, few, 0, torch.device("cpu"), dtype=torch.float64)
    series = {
        f"{key} of epoch {epoch}": value
        for key, values in outcome.series.items()
        for epoch, value in enumerate(values)
    }
    return {
        "losses": outcome.losses,
        "metrics": outcome.metrics | series,
        "weights": {k: _fingerprint(w) for k, w in outcome.weights.items()},
    }


def revalidate(
    name: str, folder: Path = records.FOLDER, commit: str | None = None
) -> dict[str, Any]:
    """Replay a record with today's code, and store the proof if it is the same.

    Parameters
    ----------
    name
        Of the record.
    folder
        Where the records are.
    commit
        What the proof says of the code. Default: what git says.

    Returns
    -------
    proof
        Its date, commit, residual and the hashes of the modules it holds for.

    Raises
    ------
    DianError
        If a number differs, or the settings do: then the run has to be trained again.
    """
    record = records.load(name, folder)
    if not record.content["replay"]:
        raise DianError(
            f"record {name}: it holds times, which no replay gives again; "
            f"run: {record.command}"
        )
    again = f"train it again: {record.command}"
    if other := changed(record):
        raise DianError(f"record {name}: {', '.join(other)}; {again}")
    module = find(name).run.__module__  # an experiment may have moved
    modules = source_key(module)
    commit = commit or machine.commit()
    where, residual = compare(record)
    if not residual <= 1:
        raise DianError(
            f"record {name}: the replay differs from the record in {where}, by "
            f"{residual:.3g} times what is allowed; {again}"
        )
    proof = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "residual": residual * TOLERANCE,
        "environment": machine.describe(torch.device("cpu")),
        "modules": modules,
    }
    records.add_proof(record, proof, module)
    return proof


def changed(record: records.Record) -> list[str]:
    """Name the settings and the data of a record that are not those of today.

    >>> changed(records.load("rnn-fashion-mnist"))
    []
    """
    experiment = find(record.name)
    today = json.loads(json.dumps(asdict(experiment.settings)))  # tuples become lists
    data, data_today = record.content["key"]["data"], experiment.checksums
    settings = [
        f"setting {key} {record.settings.get(key)} -> {today.get(key)}"
        for key in sorted(today | record.settings)
        if today.get(key) != record.settings.get(key)
    ]
    files = [
        f"data file {file} {records.change(data.get(file), data_today.get(file))}"
        for file in sorted(data | data_today)
        if data.get(file) != data_today.get(file)
    ]
    return settings + files


def compare(record: records.Record) -> tuple[str, float]:
    """Replay a record with today's code, here, and write nothing.

    Returns
    -------
    where, excess
        The number that differs most, and by how much, in units of what is allowed.
    """
    experiment = find(record.name)
    machine.make_deterministic()
    new = replay(experiment, experiment.settings, experiment.data(False))
    return _difference(record.content["replay"], new)


def _remove(working: Path) -> None:
    """Remove what a training kept, now that its record is written."""
    try:
        shutil.rmtree(working)
    except OSError as error:
        raise DianError(
            f"{working}: the record is written, but this folder cannot be removed "
            f"({error.strerror}); remove it before the next training"
        ) from None


def _environment(target: torch.device) -> dict[str, Any]:
    """Say what a training uses, in all its processes."""
    found, n = machine.describe(target), distributed.processes()
    device = found["device"] if n == 1 else f"{n} x {found['device']}"
    return found | {"device": device, "processes": n}


def _require_same(identity: dict[str, Any]) -> None:
    """Refuse to train together with processes that would do something else."""
    ours = json.dumps(identity)
    theirs = distributed.from_first(ours.encode).decode()
    if ours != theirs:
        told = checkpoints.differences(json.loads(ours), json.loads(theirs))
        raise DianError(
            f"process {distributed.number()} differs from the first: {'; '.join(told)}; "
            "start all of them with the same code, options, data and kind of device"
        )


def _command(name: str, quick: bool, n_seed: int | None) -> str:
    n = distributed.processes()
    start = "python" if n == 1 else f"torchrun --nproc-per-node={n}"
    seeds = "" if n_seed is None else f" --seeds {n_seed}"
    return f"{start} -m dian train {name}{' --quick' if quick else ''}{seeds}"


def _difference(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, float]:
    """Find where two replays differ most, in units of what is allowed there."""
    flat_old, flat_new = dict(_flatten(old)), dict(_flatten(new))
    if flat_old.keys() != flat_new.keys():
        missing = sorted(flat_old.keys() ^ flat_new.keys())
        return f"what it holds ({missing[0]})", float("inf")

    def excess(key: str) -> float:
        scale = max(abs(flat_old[key]), 1e-2)  # of what is nearly 0
        times = abs(flat_new[key] - flat_old[key]) / scale / TOLERANCE
        return times if math.isfinite(times) else math.inf

    where = max(flat_old, key=excess)
    return where, excess(where)


def _flatten(replayed: dict[str, Any]):
    """Yield every number of a replay with a name of its own."""
    for step, loss in enumerate(replayed["losses"], start=1):
        yield f"the loss of step {step}", loss
    for key, value in replayed["metrics"].items():
        yield f"metrics/{key}", value
    for key, values in replayed["weights"].items():
        for what, value in zip(("length", "projection"), values, strict=True):
            yield f"the {what} of {key}", value


def _fingerprint(weight: Tensor) -> list[float]:
    """Two numbers that move when a tensor does: its length, and a projection of it.

    Unlike a checksum they can be compared within a tolerance, on another machine.
    """
    flat = weight.detach().double().flatten()
    direction = torch.cos(torch.arange(len(flat), dtype=torch.float64))
    return [flat.norm().item(), (flat @ direction).item()]


def _rows(parts: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Collect one value for each seed under each name."""
    return {key: [part[key] for part in parts] for key in parts[0]}


def _stack(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.stack([part[key] for part in parts]) for key in parts[0]}
