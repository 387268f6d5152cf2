"""How much memory attention takes: the plain formula, and block by block.

``python -m benchmarks.blocks plain 16384`` prints the bytes of one way, forward and
back, in a process of its own: what a process has held at most can be read there, and
nothing that ran before counts.
"""

import re
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cases import Place
from benchmarks.timing import Against, Result, compare
from dian.attention.blockwise import online_attention
from dian.attention.dot_product import attention

WAYS = {"plain": attention, "block-wise": online_attention}
D = 64


def memory(place: Place, _: float) -> Result:
    """Compare the two, then measure each by itself."""
    n = place.pick(1024, 16_384)
    sides = (run(way, place, 257) for way in ("block-wise", "plain"))
    residual = compare("plain", *sides, tol=1e-4)
    blockwise, plain = (held(way, place, n) for way in ("block-wise", "plain"))
    return Result(
        f"attention over {n:,} positions with its gradients: memory",
        "MiB",
        blockwise,
        {"the-plain-formula": Against(plain, [plain / blockwise], 20.0, residual)},
        limit=7 * n * D * 4 / 2**20,  # what goes in, and what comes out
    )


def run(way: str, place: Place, n: int) -> list[Tensor]:
    """Return the output and the gradients by queries, keys and values."""
    Q, K, V, G = (place.normal(n, D, seed=seed) for seed in range(4))
    inputs = [x.requires_grad_() for x in (Q, K, V)]
    output = WAYS[way](*inputs)
    (output * G).sum().backward()
    return [output.detach(), *(x.grad for x in inputs)]


def held(way: str, place: Place, n: int) -> float:
    """Return how many MiB one way takes at most, in a process of its own."""
    if place.device.type == "cuda":
        run(way, place, 64)
        before = torch.cuda.memory_allocated(place.device)
        torch.cuda.reset_peak_memory_stats(place.device)
        run(way, place, n)
        return (torch.cuda.max_memory_allocated(place.device) - before) / 2**20
    command = [sys.executable, "-m", "benchmarks.blocks", way, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main(way: str, n: str) -> None:
    """Print the MiB that the process holds more at the height than before."""
    place = Place(torch.device("cpu"))
    run(way, place, 64)  # what comes with the first use
    before = _peak()
    run(way, place, int(n))
    print(_peak() - before)


def _peak() -> float:
    """Return the most memory that this process has held so far, in MiB.

    From Linux itself: what :mod:`resource` tells includes the parent's memory.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
