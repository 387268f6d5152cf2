"""The status of a record: fresh, stale or damaged, and what has changed since."""

from dataclasses import dataclass, field
from pathlib import Path

from dian.errors import DianError
from dian.runs import train
from dian.runs.code_hash import versions
from dian.runs.environment import PACKAGES
from dian.runs.freshness import problem, stale
from dian.runs.record import RECORDED, Record, load, record_names


@dataclass
class Status:
    """What the audit of one record found."""

    name: str
    state: str = "fresh"
    """``fresh``, ``stale``, ``damaged``, or ``differs`` if a replay does."""
    problem: str | None = None
    """What changed or is damaged, and what to do, in one line; None if all is well."""
    device: str | None = None
    date: str | None = None
    versions: list[str] = field(default_factory=list)
    """Packages whose version is another now. A replay shows whether it matters."""
    replay: float | None = None
    """The largest deviation of a replay from the record, in units of the tolerance."""


def audit(name: str, folder: Path = RECORDED, *, replay: bool = False) -> Status:
    """Check one record. Nothing is written.

    Parameters
    ----------
    name
        The name of the record.
    folder
        Where the records are.
    replay
        Whether to compare it with a short replay on this machine, which takes seconds.
    """
    try:
        record = load(name, folder)
    except DianError as error:
        if name not in record_names(folder):
            raise
        return Status(name, "damaged", str(error))
    status = Status(name, device=record.device, date=record.started[:10])
    status.versions = _other_versions(record)
    try:
        changed = train.changed(record) if record.replay else []
    except DianError as error:  # no such experiment
        changed = [str(error)]
    if reasons := stale(record) + changed:
        remedy = "train it again" if changed else None
        status.state, status.problem = "stale", problem(record, reasons, remedy)
    if replay and record.replay and not changed:
        _replay(record, status)
    return status


def _replay(record: Record, status: Status) -> None:
    """Compare a record with a short replay, and enter the result in its status."""
    try:
        where, status.replay = train.compare(record)
    except DianError as error:  # the data are not available
        status.problem = f"record {record.name} cannot be replayed: {error}"
        return
    if not status.replay <= 1:
        status.state = "differs"
        status.problem = (
            f"record {record.name}: the replay differs in {where}, by "
            f"{status.replay:.3g} times the tolerance; train it again: {record.command}"
        )


def _other_versions(record: Record) -> list[str]:
    """List the packages whose version is not that of the run or of its last replay."""
    last = record.proofs[-1]["environment"] if record.proofs else record.environment
    return [
        f"{name} {last.get(name)} -> {today}"
        for name, today in versions(*PACKAGES).items()
        if last.get(name) != today
    ]
