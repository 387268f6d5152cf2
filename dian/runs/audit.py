"""How every record and every page of the gallery stands: fresh, stale or damaged."""

from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

from dian import pages
from dian.runs import record as records, train as runner
from dian.errors import DianError
from dian.pages import Page
from dian.runs.code_hash import PACKAGE

PACKAGES = ("torch", "torchvision", "numpy", "safetensors")


class Found(TypedDict):
    """How a record stands."""

    name: str
    state: str
    """``fresh``, ``stale``, ``damaged``, or ``differs``: the replay does."""
    reasons: list[str]
    """Which module, setting or data file changed, or what is damaged."""
    problem: str | None
    """The same with what to do, in one line, or None if all is well."""
    device: str | None
    date: str | None
    versions: list[str]
    """Packages that have another version now. The replay shows whether it matters."""
    replay: float | None
    """How far a replay on this machine is from the record, if one was made, in units
    of what is allowed."""


def audit(name: str, folder: Path = records.FOLDER, *, replay: bool = False) -> Found:
    """Look at one record, and if asked repeat its beginning on this machine.

    Parameters
    ----------
    name
        Of the record.
    folder
        Where the records are.
    replay
        Whether to run it in little, too, which takes seconds. Nothing is written.
    """
    found = Found(
        name=name,
        state="fresh",
        reasons=[],
        problem=None,
        device=None,
        date=None,
        versions=[],
        replay=None,
    )
    try:
        record = records.load(name, folder)
    except DianError as error:
        found |= {"state": "damaged", "reasons": [str(error)], "problem": str(error)}
        return found
    found |= {"device": record.device, "date": record.started[:10]}
    found["versions"] = _versions(record)
    repeatable = bool(record.content["replay"])  # times are not
    try:
        changed = runner.changed(record) if repeatable else []
    except DianError as error:  # no such experiment
        changed = [str(error)]
    if reasons := [*records.stale(record), *changed]:
        told = f"record {name} is stale: {', '.join(reasons)}"
        again = "train it again" if changed else records.refresh_hint(record)
        problem = f"{told}; {again}"
        found |= {"state": "stale", "reasons": reasons, "problem": problem}
    if replay and repeatable and not changed:
        _replay(record, found)
    return found


def look(
    names: Iterable[str], folder: Path = records.FOLDER, *, replay: bool = False
) -> Iterator[Found]:
    """Look at some records, or at all if none is named.

    Raises
    ------
    DianError
        If there is no record of a name; the nearest ones are listed.
    """
    known = records.names(folder)
    for name in names or known:
        if name not in known:
            raise DianError(f"no record {name!r}; {records.did_you_mean(name, known)}")
        yield audit(name, folder, replay=replay)


def look_at_pages(found: Iterable[Found], root: Path = PACKAGE.parent) -> list[Page]:
    """Tell of every page of the gallery how it stands, and its records.

    A page that shows a record which is not fresh is no better than that.
    """
    bad = {one["name"]: one["state"] for one in found if one["state"] != "fresh"}
    pages_there = list(pages.look(root))
    for page in pages_there:
        of_records = [f"record {n} is {bad[n]}" for n in page["records"] if n in bad]
        if of_records:
            page["state"] = "stale"
            page["reasons"] = of_records + page["reasons"]
    return pages_there


def _replay(record: records.Record, found: Found) -> None:
    """Repeat a record in little, and write down what came of it."""
    try:
        where, excess = runner.compare(record)
    except DianError as error:  # the data are not at hand
        found |= {"problem": f"record {record.name} cannot be replayed: {error}"}
        return
    found["replay"] = excess
    if not excess <= 1:
        reason = f"the replay differs in {where}, by {excess:.3g} times what is allowed"
        found["reasons"] = [*found["reasons"], reason]
        again = f"train it again: {record.command}"
        problem = f"record {record.name}: {reason}; {again}"
        found |= {"state": "differs", "problem": problem}


def _versions(record: records.Record) -> list[str]:
    """Name the packages whose version is not that of the last run that vouches."""
    proofs: list[dict[str, Any]] = record.content["proofs"]
    last = [record.content, *proofs][-1]["environment"]
    today = {name: version(name) for name in PACKAGES}
    return [
        f"{name} {last.get(name)} -> {today[name]}"
        for name in PACKAGES
        if last.get(name) != today[name]
    ]
