"""The environment of a run: device, installed versions, commit of the code."""

import functools
import logging
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from dian.errors import DianError
from dian.runs.code_hash import PACKAGE, versions

log = logging.getLogger(__name__)
PACKAGES = ("torch", "torchvision", "numpy", "safetensors")
"""The packages whose versions a record names."""


def select_device(name: str) -> torch.device:
    """Return the device that an option names.

    A run that was meant for a GPU never starts on a CPU without an error.

    Parameters
    ----------
    name
        ``cpu``, ``cuda``, or ``auto``: a GPU if there is one.

    Examples
    --------
    >>> select_device("cpu")
    device(type='cpu')
    """
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if name not in ("cpu", "cuda"):
        raise DianError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not available:
        raise DianError(
            "device cuda: torch finds no CUDA GPU on this machine; check the driver "
            "with nvidia-smi, or use cpu"
        )
    return torch.device(name)


def make_deterministic() -> None:
    """Have torch raise an error wherever a repetition could give other numbers."""
    # cuBLAS reads this when it starts, and torch requires it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before it is written; to fill it takes long on a GPU.
    torch.utils.deterministic.fill_uninitialized_memory = False


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Describe what a run uses, for its record."""
    threads, on_gpu = torch.get_num_threads(), device.type == "cuda"
    # The last digits of a result on a CPU depend on the number of threads.
    suffix = "" if on_gpu else f", {threads} thread{'s' if threads > 1 else ''}"
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "device": device_name(device) + suffix,
        "type": device.type,
        "threads": threads,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda if on_gpu else None,
        "driver": _output(*query) if on_gpu else None,
    } | versions(*PACKAGES)


def device_name(device: torch.device) -> str:
    """Name the GPU or the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")  # elsewhere Python knows the architecture only
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return " ".join(names[0].split()) if names else f"{platform.machine()} processor"


def git_commit() -> str:
    """Return the commit of the code, with ``+changes`` if files differ from it.

    Where the code is not under git, such as on a machine that only trains, it is taken
    from the variable ``DIAN_COMMIT``, or is ``unknown``; the reason is logged once.
    """
    if stated := os.environ.get("DIAN_COMMIT"):
        return stated
    try:
        head = _git("rev-parse", "HEAD")
        # An installed copy may be inside the repository of another project.
        if not _git("ls-files", "__init__.py"):
            raise DianError(f"git does not track {PACKAGE}")
        changed = _git("status", "--porcelain", "--", "*.py")
    except DianError as error:
        _log_unknown(str(error))
        return "unknown"
    return f"{head}+changes" if changed else head


@functools.cache
def _log_unknown(reason: str) -> None:
    log.warning(
        "dian: the commit is recorded as unknown (%s); name it with DIAN_COMMIT", reason
    )


def _git(*arguments: str) -> str:
    """Return what git prints about the repository of this code."""
    # Set where make runs in a hook of git, these would name another repository.
    others = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
    environment = {k: v for k, v in os.environ.items() if k not in others}
    command = ("git", "-C", str(PACKAGE), *arguments)
    options = {"capture_output": True, "text": True, "timeout": 30}
    try:
        done = subprocess.run(command, env=environment | {"LC_ALL": "C"}, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DianError(f"git: {getattr(error, 'strerror', None) or error}") from None
    if done.returncode:
        raise DianError((done.stderr.strip() or "git failed").splitlines()[0])
    return done.stdout.strip()


def _output(*command: str) -> str | None:
    """Return what a command prints, or None if it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
