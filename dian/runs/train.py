"""From an experiment to its record, and back: train, replay, revalidate."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from dian.errors import DianError
from dian.runs.checkpoint import (
    ONE_PROCESS,
    Checkpoint,
    Processes,
    clear_folder,
    lock_folder,
)
from dian.runs.code_hash import record_key, source_key
from dian.runs.environment import (
    describe_environment,
    device_name,
    git_commit,
    make_deterministic,
    select_device,
)
from dian.runs.experiment import Experiment, Job, Outcome, find
from dian.runs.freshness import changes
from dian.runs.record import (
    FORMAT,
    RECORDED,
    Record,
    add_proof,
    check_replaceable,
    load,
    save,
)

TOLERANCE = 1e-5
"""The largest relative difference between a replayed number and the recorded one."""


@dataclass(frozen=True)
class Options:
    """How an experiment is trained; what is trained is in its settings."""

    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    n_seed: int | None = None
    """Number of seeds, from 0 on. Default: that of the experiment."""
    quick: bool = False
    """Use the quick settings and the bundled sample: a dry run, not a result."""
    commit: str | None = None
    """The commit that the record names. Default: that of git."""
    resume: bool = False
    """Continue an interrupted training run; without it, one is an error."""
    interval_s: float = 60.0
    """Seconds between two checkpoints."""
    report: Callable[[int, Any], object] | None = None
    """Called in process 0 with the seed and each step."""
    processes: Processes = ONE_PROCESS
    """The processes that share each batch."""


def train(
    experiment: Experiment, out: Path, options: Options = Options()
) -> Record | None:
    """Train an experiment with every seed, and write its record.

    Checkpoints are kept in a hidden folder beside ``out`` until the record is written.
    A record that ``out`` held before stays until then; anything else in it is refused,
    and so is a record that would be replaced by a dry run or by fewer seeds.

    Returns
    -------
    record
        In process 0; None in the others, which write nothing.
    """
    device, processes = select_device(options.device), options.processes
    settings = experiment.quick if options.quick else experiment.settings
    if first := processes.rank == 0:
        check_replaceable(out)
        _check_not_less(out, options.quick, options.n_seed or experiment.n_seed)
    data = experiment.data(options.quick)
    make_deterministic()
    # Now, before anybody edits the code that is running.
    content = _description(experiment, settings, device, options)
    working = working_folder(out)
    with lock_folder(working) if first else nullcontext():
        if first and not options.resume and [*working.glob("seed-*.checkpoint")]:
            raise DianError(
                f"{working}: an interrupted training run is here; resume it with "
                "--resume, or remove the folder to start again"
            )
        with processes.group(device):
            runs = []
            for seed in content["seeds"]:
                job = _job(seed, device, out, content, options)
                runs.append((_run(experiment, settings, data, job), job.checkpoint))
        if not first:
            return None
        content["replay"] = replay(experiment, settings, data)
        _write(out, content, runs)
        # If this fails, complete runs are left: they do no harm, and can be resumed.
        clear_folder(working)
    return load(out.name, out.parent)


def _check_not_less(out: Path, quick: bool, n_seed: int) -> None:
    """Refuse to replace a record by a dry run, or by one of fewer seeds.

    That the weights or arrays beside it are damaged makes no difference.
    """
    try:
        old = json.loads((out / "record.json").read_bytes())
        was_quick, n_old = " --quick" in old["command"], len(old["seeds"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # there is none, or nobody can read it
    if (quick and not was_quick) or (quick == was_quick and n_seed < n_old):
        raise DianError(
            f"{out}: the record in it is that of `{old['command']}`, and would be "
            "replaced by less; move it away, or choose another folder with --out"
        )


def working_folder(out: Path) -> Path:
    """Return where a training run keeps its checkpoints until its record is written.

    >>> working_folder(Path("runs/rnn"))
    PosixPath('runs/.rnn.training')
    """
    return out.with_name(f".{out.name}.training")


def _description(
    experiment: Experiment, settings: Any, device: torch.device, options: Options
) -> dict[str, Any]:
    """Return the fields of the record that are known before training."""
    n = options.processes.world_size
    start = "python" if n == 1 else f"torchrun --nproc-per-node={n}"
    seeds = "" if options.n_seed is None else f" --seeds {options.n_seed}"
    used = describe_environment(device)
    # The bundled sample is a part of the package, and a dry run is not a result.
    checksums = {} if options.quick else dict(experiment.checksums)
    plain = asdict(settings)
    return {
        "format": FORMAT,
        "name": experiment.name,
        "status": "success",
        "command": f"{start} -m dian train {experiment.name}"
        f"{' --quick' * options.quick}{seeds}",
        "module": experiment.module,
        "settings": plain,
        "seeds": list(range(options.n_seed or experiment.n_seed)),
        "commit": options.commit or git_commit(),
        "environment": used
        | {"device": f"{n} x {used['device']}" if n > 1 else used["device"]}
        | {"processes": n},
        "proofs": [],
        "key": record_key(experiment.module, plain, checksums),
    }


def _job(
    seed: int,
    device: torch.device,
    out: Path,
    content: dict[str, Any],
    options: Options,
) -> Job:
    """Return the job of one seed, with the checkpoint that it resumes from."""
    identity = {key: content[key] for key in ("name", "settings", "key")}
    # Another device or version of torch would not give the same numbers.
    identity["processor"] = device_name(device)
    identity["torch"] = content["environment"]["torch"]
    checkpoint = Checkpoint(
        working_folder(out) / f"seed-{seed}.checkpoint",
        identity | {"seed": seed},
        options.interval_s,
        options.processes,
    )
    report = None if options.processes.rank else options.report
    return Job(seed, device, report=report, checkpoint=checkpoint)


def _run(experiment: Experiment, settings: Any, data: Any, job: Job) -> Outcome:
    """Run one seed, unless its outcome is already saved."""
    if (saved := job.checkpoint.load()) and "complete" in saved:
        return Outcome(**saved["complete"])
    try:
        outcome = experiment.run(settings, data, job)
    except torch.OutOfMemoryError as error:
        raise DianError(
            f"seed {job.seed}: {str(error).partition('.')[0]}; free some memory or "
            "share each batch among several devices with torchrun, and use --resume"
        ) from None
    job.checkpoint.save({"complete": outcome.state_dict()})
    return outcome


def _write(
    out: Path, content: dict[str, Any], runs: list[tuple[Outcome, Checkpoint]]
) -> None:
    """Write the record of complete runs, one for each seed."""
    outcomes, checkpoints = zip(*runs, strict=True)

    def collect(part: str) -> dict[str, list[Any]]:
        rows = [getattr(outcome, part) for outcome in outcomes]
        return {key: [row[key] for row in rows] for key in rows[0]}

    content |= {
        "started": checkpoints[0].began,
        "ended": _now(),
        "seconds": round(sum(checkpoint.elapsed for checkpoint in checkpoints), 1),
        "series": collect("series"),
        "metrics": collect("metrics"),
    }
    arrays = {key: torch.stack(parts) for key, parts in collect("arrays").items()}
    # The format has no other layout, such as channels last.
    weights = {key: w.contiguous() for key, w in outcomes[0].weights.items()}
    files = {
        "arrays.safetensors": to_bytes(arrays),
        "weights.safetensors": to_bytes(weights),
    }
    save(out, content, files)


def replay(experiment: Experiment, settings: Any, data: Any) -> dict[str, Any]:
    """Run seed 0 at reduced scale, on the CPU in float64, and return all numbers.

    It is a whole run, so that what happens late, such as the end of the schedule or the
    evaluation, is a part of it. In float64, because training amplifies rounding errors:
    in float32 another number of threads changes the fourth digit of the 50th loss.
    """
    small, few = experiment.smoke_settings(settings, data)
    outcome = experiment.run(small, few, Job(dtype=torch.float64))
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
    name: str, folder: Path = RECORDED, commit: str | None = None
) -> dict[str, Any]:
    """Replay a record with today's code, and store the proof if the numbers agree.

    Returns
    -------
    proof
        Date, commit, residual and the hashes of the modules that it holds for.
    """
    record = load(name, folder)
    if not record.replay:
        raise DianError(
            f"record {name}: it holds times, which cannot be replayed; run: "
            f"{record.command}"
        )
    module = find(name).module  # an experiment may have moved
    # Before the replay: the hashes are those of the code that runs.
    modules, commit = source_key(module), commit or git_commit()
    if not (reasons := changed(record)):
        where, residual = compare(record)
        if not residual <= 1:
            reasons = [
                f"the replay differs from the record in {where}, by {residual:.3g} "
                "times the tolerance"
            ]
    if reasons:
        again = f"train it again: {record.command}"
        raise DianError(f"record {name}: {', '.join(reasons)}; {again}")
    proof = {
        "date": _now(),
        "commit": commit,
        "residual": residual * TOLERANCE,
        "environment": describe_environment(torch.device("cpu")),
        "modules": modules,
    }
    add_proof(record, proof, module)
    return proof


def changed(record: Record) -> list[str]:
    """List the settings and data files of a record that are different today.

    >>> changed(load("rnn-fashion-mnist"))
    []
    """
    experiment = find(record.name)
    today = json.loads(json.dumps(asdict(experiment.settings)))  # tuples become lists
    settings = [
        f"setting {key} {record.settings.get(key)} -> {today.get(key)}"
        for key in sorted(today | record.settings)
        if today.get(key) != record.settings.get(key)
    ]
    files = changes(record.content["key"]["data"], experiment.checksums)
    return settings + [f"data file {change}" for change in files]


def compare(record: Record) -> tuple[str, float]:
    """Replay a record with today's code; nothing is written.

    Returns
    -------
    where, excess
        The number that differs most, and by how much, in units of the tolerance.
    """
    experiment = find(record.name)
    make_deterministic()
    new = replay(experiment, experiment.settings, experiment.data(False))
    return _difference(record.replay, new)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _difference(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, float]:
    """Return where two replays differ most, in units of the tolerance."""
    before, after = dict(_numbers(old)), dict(_numbers(new))
    if before.keys() != after.keys():
        missing = sorted(before.keys() ^ after.keys())
        return f"what it holds ({missing[0]})", math.inf

    def excess(key: str) -> float:
        (value, scale), (today, _) = before[key], after[key]
        times = abs(today - value) / max(scale, 1e-2) / TOLERANCE
        return times if math.isfinite(times) else math.inf

    where = max(before, key=excess)
    return where, excess(where)


def _numbers(replayed: dict[str, Any]) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield every number of a replay by a name of its own, with its scale."""
    for step, loss in enumerate(replayed["losses"], start=1):
        yield f"the loss of step {step}", (loss, abs(loss))
    for key, value in replayed["metrics"].items():
        yield f"metrics/{key}", (value, abs(value))
    for key, (norm, projection) in replayed["weights"].items():
        # By chance a projection can be close to 0, and its rounding error is not.
        yield f"the norm of {key}", (norm, norm)
        yield f"the projection of {key}", (projection, norm)


def _fingerprint(weight: Tensor) -> list[float]:
    """Return the norm of a tensor and a projection of it.

    Unlike a checksum they can be compared with a tolerance, on another machine.
    """
    flat = weight.detach().double().flatten()
    direction = torch.cos(torch.arange(len(flat), dtype=torch.float64))
    return [flat.norm().item(), (flat @ direction).item()]
