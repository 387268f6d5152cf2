"""Check a function in a process of its own, with a time limit.

The reader's code never runs in the process of the command: it may loop forever, crash,
print, or end the process. What it prints is thrown away. On Linux the process is a fork
of that of the command, which has imported PyTorch already.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
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
        arguments = (kind, module, name, arrays, str(answer))
        run = _forked if sys.platform == "linux" else _spawned
        try:
            status = run(arguments, seconds)
        except TimeoutError:
            said = f"does not end within {seconds:g} s (see --time-limit)"
            return Report(kind, name, UNCHECKED, fault=said)
        return _read(kind, name, answer, status)


def _read(kind: str, name: str, answer: Path, status: int) -> Report:
    try:
        values = json.loads(answer.read_text("utf-8"))
        error = values.get("error")
        report = None if error else Report.from_dict(values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        said = f"ended the process of the check (exit status {status})"
        return Report(kind, name, UNCHECKED, fault=said)
    if report is None:
        raise DianError(f"{kind} · {name}: {error}")
    return report


def _spawned(arguments: Sequence[str], seconds: float) -> int:
    """Run :func:`main` in a new process, and return its exit status."""
    command = [sys.executable, "-m", "dian.check.runner", *arguments]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            _end(process.pid)


def _forked(arguments: Sequence[str], seconds: float) -> int:
    """Run :func:`main` in a copy of this process, and return its exit status."""
    from dian.check.checker import check  # noqa: F401  imported once, not by each

    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about threads; the copy has none
        child = os.fork()
    if not child:
        try:
            os.setsid()
            # Nobody else ends it if the command itself is killed.
            signal.alarm(int(seconds) + 5)
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            main(*arguments)
        finally:
            os._exit(1)
    end = time.monotonic() + seconds
    try:
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.02)
        return os.waitstatus_to_exitcode(ended[1])
    finally:
        _end(child)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def _end(group: int) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)


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
    sys.modules.setdefault(path.stem, module)  # a file may be named as a library
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        if "relative import" not in str(error):
            raise
        return _from_package(path)
    return module


def _from_package(path: Path) -> ModuleType:
    """Import a file that imports others of its folder with a leading dot."""
    root, name = path.parent.parent, f"{path.parent.name}.{path.stem}"
    while (root / "__init__.py").is_file():
        root, name = root.parent, f"{root.name}.{name}"
    sys.path.insert(0, str(root))
    return importlib.import_module(name)


def _loaded(module: str, name: str) -> Any:
    """Import the reader's function, and undo what this changes for all of torch."""
    import torch

    try:
        return load(module, name)
    finally:
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 1000))


def _functions() -> dict[tuple[str, str], Any]:
    """Return the functions by which the check compares, by module and name."""
    import torch

    ours = {k: m for k, m in sys.modules.items() if k.partition(".")[0] == "dian"}
    found = {
        (place, key): value
        for place, holder in {**ours, "torch.Tensor": torch.Tensor}.items()
        for key, value in vars(holder).items()
        if callable(value)
    }
    # Not all of torch: importing its compiler replaces some.
    names = ("as_tensor", "equal", "stack", "where")
    return found | {("torch", key): getattr(torch, key) for key in names}


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
        before = _functions()
        try:
            function = _loaded(module, name)
        except (Exception, SystemExit) as error:
            report = _unimported(kind, name, error)
        else:
            report = check(kind, function, arrays=arrays)
            report.name = f"{Path(module).name}:{name}"
        now = _functions()
        if changed := [key for key in before if now.get(key) is not before[key]]:
            said = f"replaces {'.'.join(changed[0])}, on which the check relies"
            report = Report(kind, report.name, UNCHECKED, fault=said)
        values = report.as_dict()
    except DianError as error:
        values = {"error": str(error)}
    Path(answer).write_text(json.dumps(values), encoding="utf-8")
    # Threads of the reader's code must not keep the process alive.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
