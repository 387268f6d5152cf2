"""Peak memory of attention, by the plain formula and block by block.

``python -m benchmarks.blocks plain 16384`` prints the MiB of one forward and backward
pass. Each is measured in its own process, whose peak nothing else has raised.
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

METHODS = {"plain": attention, "block-wise": online_attention}
D = 64


def memory(place: Place, _: float) -> Result:
    """Compare the results of both, then measure each."""
    n = place.pick(1024, 16_384)
    methods = ("block-wise", "plain")
    residual = compare("plain", *(run(m, place, 257) for m in methods), tol=1e-4)
    blockwise, plain = (peak_memory(method, place, n) for method in methods)
    return Result(
        f"attention over {n:,} positions with its gradients: memory",
        "MiB",
        blockwise,
        {"the-plain-formula": Against(plain, [plain / blockwise], 20.0, residual)},
        limit=7 * n * D * 4 / 2**20,  # inputs, output and gradients
    )


def run(method: str, place: Place, n: int) -> list[Tensor]:
    """Return the output, and the gradients of queries, keys and values."""
    Q, K, V, G = (place.normal(n, D, seed=seed) for seed in range(4))
    inputs = [x.requires_grad_() for x in (Q, K, V)]
    output = METHODS[method](*inputs)
    (output * G).sum().backward()
    return [output.detach(), *(x.grad for x in inputs)]


def peak_memory(method: str, place: Place, n: int) -> float:
    """Return the peak memory of a method in MiB, on a CPU in a new process."""
    if place.device.type == "cuda":
        run(method, place, 64)
        before = torch.cuda.memory_allocated(place.device)
        torch.cuda.reset_peak_memory_stats(place.device)
        run(method, place, n)
        return (torch.cuda.max_memory_allocated(place.device) - before) / 2**20
    command = [sys.executable, "-m", "benchmarks.blocks", method, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main(method: str, n: str) -> None:
    """Print by how many MiB the peak memory of the process increases."""
    place = Place(torch.device("cpu"))
    run(method, place, 64)  # memory that only the first call allocates
    before = _peak()
    run(method, place, int(n))
    print(_peak() - before)


def _peak() -> float:
    """Return the peak memory of this process so far, in MiB.

    From Linux directly: the value of :mod:`resource` includes the parent's memory.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
