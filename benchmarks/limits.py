"""What the machine can do at most, measured in the same run."""

from dataclasses import dataclass

import torch

from benchmarks.cases import Case, Place
from benchmarks.timing import clock


@dataclass(frozen=True)
class Limits:
    """The best of many tries."""

    flops: float
    """Operations a second in a product of two large matrices."""
    bandwidth: float
    """Bytes a second, read and written, in a copy of an array as large as those of the
    cases, which fits into no cache of a core."""

    def milliseconds(self, case: Case) -> float | None:
        """Return what the arithmetic, or the memory, of a case takes at least."""
        seconds = max(case.flops / self.flops, case.moved / self.bandwidth)
        return 1000 * seconds or None


def limits(place: Place, seconds: float, dtype: torch.dtype = torch.float32) -> Limits:
    """Measure both in turn."""
    n = place.pick(64, 2048, 8192)
    A, B = (place.normal(n, n, seed=seed).to(dtype) for seed in (0, 1))
    x = torch.ones(place.pick(1 << 16, 1 << 21, 1 << 28), device=place.device)
    C, y = torch.empty_like(A), torch.empty_like(x)
    product, copy = [], []
    end = clock(place.device) + seconds
    while len(product) < 5 or clock(place.device) < end:
        product.append(_once(lambda: torch.mm(A, B, out=C), place.device))
        # Again and again, as the cases are: where the arrays have been counts, too.
        copy += [_once(lambda: y.copy_(x), place.device) for _ in range(10)]
    return Limits(2 * n**3 / min(product), 2 * x.nbytes / min(copy))


def _once(call, device: torch.device) -> float:
    begin = clock(device)
    call()
    return clock(device) - begin
