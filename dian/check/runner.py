"""Check a function in a process of its own, with a time limit.

The reader's code never runs in the process of the command: it may loop for ever, crash,
print, or end the process. What it prints goes to a file that is thrown away.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from dian.check.report import UNCHECKED, Report
from dian.errors import DianError

SECONDS = 60.0
"""The default time limit."""


def check_in_process(
    kind: str, target: str, *, arrays: str = "auto", seconds: float = SECONDS
) -> Report:
    """Check ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION`` in a new process.

    Parameters
    ----------
    kind, arrays
        As in :func:`dian.check.checker.check`.
    target
        Where the function is.
    seconds
        The time limit.
    """
    module, colon, name = target.rpartition(":")
    if not (colon and module and name):
        raise DianError(f"expected MODULE:FUNCTION or FILE.py:FUNCTION, got {target!r}")
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "report.json"
        command = [sys.executable, "-m", "dian.check.runner", kind, module, name]
        command += [arrays, str(answer)]
        return _run(kind, name, command, answer, seconds)


def _run(
    kind: str, name: str, command: Sequence[str], answer: Path, seconds: float
) -> Report:
    shown = f"{kind} · {name}"
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            said = f"does not end within {seconds:g} s (see --time-limit)"
            return Report(kind, name, UNCHECKED, fault=said)
        finally:
            _end(process)
    try:
        values = json.loads(answer.read_text("utf-8"))
    except (OSError, ValueError):
        said = f"ended the process of the check (exit status {process.returncode})"
        return Report(kind, name, UNCHECKED, fault=said)
    if "error" in values:
        raise DianError(f"{shown}: {values['error']}")
    return Report.from_dict(values)


def _end(process: subprocess.Popen) -> None:
    """End the process and all that it started."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, 9)
    process.wait()


def load(module: str, name: str) -> Any:
    """Import the reader's function; the current folder comes first."""
    sys.path.insert(0, str(Path.cwd()))
    loaded: Any = _from_file(module) if module.endswith(".py") else None
    loaded = loaded or importlib.import_module(module)
    for part in name.split("."):
        loaded = getattr(loaded, part)
    return loaded


def _from_file(file: str) -> ModuleType:
    path = Path(file).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _unimported(kind: str, name: str, error: BaseException) -> Report:
    line = " ".join(str(error).split())[:200]
    said = f"cannot be imported: {type(error).__name__}: {line}"
    details = traceback.format_exc()
    return Report(kind, name, UNCHECKED, fault=said, details=details)


def main(kind: str, module: str, name: str, arrays: str, answer: str) -> None:
    """Check a function in this process, and write the report to a file."""
    from dian.check.checker import check
    from dian.check.registry import find

    try:
        find(kind)
        try:
            function = load(module, name)
        except (Exception, SystemExit) as error:
            report = _unimported(kind, name, error)
        else:
            report = check(kind, function, arrays=arrays)
            report.name = f"{Path(module).name}:{name}"
        values = report.as_dict()
    except DianError as error:
        values = {"error": str(error)}
    Path(answer).write_text(json.dumps(values), encoding="utf-8")
    # Threads of the reader's code must not keep the process alive.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
