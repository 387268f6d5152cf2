"""What came out, as lines to read and as a record."""

import os
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.cases import Place
from benchmarks.limits import Limits
from benchmarks.timing import Result
from dian.runs.code_hash import record_key, source_key
from dian.runs.environment import describe_environment, git_commit
from dian.runs.record import FORMAT, Record, load, save

FOLDER = Path(__file__).parent
PEERS = (
    "denoising-diffusion-pytorch",
    "diffusers",
    "rotary-embedding-torch",
    "scikit-learn",
    "torchmetrics",
    "transformers",
)


def lines(key: str, result: Result) -> list[str]:
    """Tell a result: a line of its own, then one for each peer."""
    limit = "" if result.limit is None else f", limit {result.limit:.4g} {result.unit}"
    told = [f"{key}: {result.title}", f"  ours {result.ours:.4g} {result.unit}{limit}"]
    if result.images:
        told[-1] += f", {1000 * result.images / result.ours:.4g} images a second"
    for name, one in result.against.items():
        low, high = one.quartiles
        goal = "" if one.met is None else f"  {mark(one.met)} goal {one.goal:.3g}"
        same = "" if one.residual is None else f", equal within {one.residual:.1e}"
        told.append(
            f"  {one.ratio:7.2f} times ({low:.2f} to {high:.2f}){goal}  "
            f"{name}: {one.theirs:.4g} {result.unit}{same}"
        )
    told += [f"  not run: {name}: {why}" for name, why in result.skipped.items()]
    return told


def mark(met: bool) -> str:
    """Draw whether a goal was met."""
    return "✓" if met else "✗"


def metrics(results: dict[str, Result], limits: Limits) -> dict[str, list[float]]:
    """Give every number a name of its own, as a record holds them."""
    found = {
        "limits/gflops": limits.flops / 1e9,
        "limits/gbytes": limits.bandwidth / 1e9,
    }
    for key, result in results.items():
        found[f"{key}/ours"] = result.ours
        if result.limit is not None:
            found[f"{key}/limit"] = result.limit
        if result.images:
            found[f"{key}/images"] = 1000 * result.images / result.ours
        for name, one in result.against.items():
            low, high = one.quartiles
            numbers = {"theirs": one.theirs, "ratio": one.ratio, "low": low}
            numbers |= {"high": high, "goal": one.goal, "residual": one.residual}
            for what, number in numbers.items():
                if number is not None:
                    found[f"{key}/{name}/{what}"] = number
    return {name: [float(number)] for name, number in found.items()}


def settings(
    results: dict[str, Result], place: Place, threads: int, seconds: float
) -> dict:
    """Say what was measured, and for how long; sizes stand in the titles."""
    titles = {key: f"{result.title} ({result.unit})" for key, result in results.items()}
    how = {"size": place.size, "threads": threads, "seconds": seconds}
    return how | titles


def timed_modules(scripts: list[str]) -> dict[str, str]:
    """Hash the modules of the library that the cases in some scripts run."""
    found = {}
    for script in scripts:
        found |= source_key(FOLDER / f"{script}.py")
    return {name: key for name, key in found.items() if name.startswith("dian")}


def write(
    out: Path,
    command: str,
    started: datetime,
    settings: dict,
    metrics: dict[str, list[float]],
    series: dict[str, list[list[float]]],
    environment: dict,
    modules: dict[str, str],
) -> Record:
    """Write the record: the inputs are drawn from one seed, 0.

    It holds for the modules that were timed. No replay can vouch for it after a change,
    since a clock never gives the same numbers twice.
    """
    ended = datetime.now(UTC)
    key = record_key("benchmarks", settings, {}) | {"modules": modules}
    content = {
        "format": FORMAT,
        "name": out.name,
        "status": "success",
        "command": command,
        "module": "benchmarks",
        "settings": settings,
        "seeds": [0],
        "key": key,
        "commit": git_commit(),
        "started": started.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        "seconds": round((ended - started).total_seconds(), 1),
        "environment": environment,
        "series": series,
        "metrics": metrics,
        "replay": {},
        "proofs": [],
    }
    save(out, content, {})
    return load(out.name, out.parent)


def environment(place: Place) -> dict:
    """Describe the machine, how busy it is, and which versions the peers have."""
    found = describe_environment(place.device)
    found |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
