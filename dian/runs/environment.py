"""The machine of a run: its device, what is installed, the commit of the code."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from dian.errors import DianError


def device(name: str) -> torch.device:
    """Return the device that an option names.

    Parameters
    ----------
    name
        ``cpu``, ``cuda``, or ``auto``: a GPU if there is one.

    Raises
    ------
    DianError
        If there is no such device. A run that was meant for a GPU never starts
        on a CPU without saying so.

    Examples
    --------
    >>> device("cpu")
    device(type='cpu')
    """
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    if name not in ("cpu", "cuda"):
        raise DianError(f"--device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not there:
        raise DianError(
            "--device cuda: torch finds no CUDA GPU on this machine; check the driver "
            "with nvidia-smi, or use --device cpu"
        )
    return torch.device(name)


def make_deterministic() -> None:
    """Let torch refuse what may give other numbers the second time."""
    # cuBLAS reads this when it starts, and torch asks for it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def describe(used: torch.device) -> dict[str, str | int | bool | None]:
    """Say what a run used, for its record."""
    packages = ("torch", "torchvision", "numpy", "safetensors")
    return {
        "device": name(used) + _threads(used),
        "type": used.type,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda if used.type == "cuda" else None,
        "driver": _run(
            "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"
        )
        if used.type == "cuda"
        else None,
    } | {package: version(package) for package in packages}


def commit() -> str:
    """Return the commit of the code, with ``+changes`` if files differ from it.

    A copy that is not under git, such as on a machine that only trains, gets it from
    the variable ``DIAN_COMMIT``, or is ``unknown``.
    """
    if stated := os.environ.get("DIAN_COMMIT"):
        return stated
    folder = str(Path(__file__).parents[1])
    head = _run("git", "-C", folder, "rev-parse", "HEAD")
    # An installed copy may lie inside the repository of something else.
    if head is None or not _run("git", "-C", folder, "ls-files", "__init__.py"):
        return "unknown"
    changed = _run("git", "-C", folder, "status", "--porcelain", "--", "*.py")
    return f"{head}+changes" if changed else head


def name(used: torch.device) -> str:
    """Name the GPU, or the processor."""
    if used.type == "cuda":
        return torch.cuda.get_device_name(used)
    return _processor()


def _threads(used: torch.device) -> str:
    """Say how many threads a processor uses, on which the last digits depend."""
    if used.type == "cuda":
        return ""
    threads = torch.get_num_threads()
    return f", {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    """Name the processor; Linux alone tells more than its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return " ".join(names[0].split()) if names else f"{platform.machine()} processor"


def _run(*command: str) -> str | None:
    """Return what a command prints, or None if it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
