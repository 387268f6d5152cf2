r"""
The online softmax computes attention in memory linear in the length
====================================================================

**Question.** Attention over :math:`n` positions has :math:`n^2` weights. Must they all
be stored at once?

**Answer.** No. A running maximum, a running sum and a running output for each query can
be updated block by block, with the same result up to rounding. The backward pass
recomputes each block. The largest tensor then grows as :math:`n`, not as :math:`n^2`;
computing the scores twice costs one sixth more FLOPs.

**Source.** Milakov and Gimelshein, *Online normalizer calculation for softmax*, 2018
(arXiv:1805.02867), algorithm 3; Rabe and Staats, *Self-attention does not need*
:math:`O(n^2)` *memory*, 2021 (arXiv:2112.05682); Dao et al., *FlashAttention*, 2022
(arXiv:2205.14135), algorithms 1 and 4. **Cost.** Seconds on a CPU, no download.
"""

# %%
# Memory
# ------
# We measure the largest tensor that PyTorch allocates in one forward and backward pass,
# for attention with all weights at once and for blocks of 64 keys.

from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dian.attention.blockwise import (
    block_state,
    blockwise_attention,
    blockwise_backward,
    empty_state,
    merge_states,
    online_attention,
)
from dian.attention.dot_product import (
    attention,
    attention_backward,
    scaled_dot_product_attention,
)
from dian.figures.tables import markdown_table

generator = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Largest(TorchDispatchMode):
    """Record the size of the largest tensor that PyTorch allocates."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Compute, and record the sizes of the results."""
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else [result]:
            if isinstance(x, torch.Tensor):
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return result


lengths = [128, 256, 512, 1024, 2048]
ways = {
    "all at once": attention,
    "blocks of 64": lambda Q, K, V: online_attention(Q, K, V, block=64),
}
largest = {}
for way, attend in ways.items():
    for n in lengths:
        leaves = [torch.zeros(n, 32, requires_grad=True) for _ in range(3)]
        with Largest() as seen:
            attend(*leaves).sum().backward()
        largest[way, n] = seen.bytes

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (way, _), style in zip(ways.items(), ("s--", "o-"), strict=True):
    ax.loglog(lengths, [largest[way, n] / 2**20 for n in lengths], style, label=way)
ax.set_title("Largest tensor of a forward and a backward pass")
ax.set(xlabel="sequence length $n$ (positions)", ylabel="size (MiB)")
ax.set_xticks(lengths, lengths)
ax.minorticks_off()
ax.legend()
fig.set_label(
    "With all weights at once, the largest tensor grows with the square of the length; "
    "with the online softmax it grows linearly."
)
plt.show()

printed = [
    (f"{n:,}", *(f"{largest[way, n] / 1024:,.0f}" for way in ways)) for n in lengths
]
header = ("length n", *(f"largest tensor (KiB), {way}" for way in ways))
print(markdown_table(header, printed))

for n, double in pairwise(lengths):
    assert largest["all at once", double] == 4 * largest["all at once", n]
    assert largest["blocks of 64", double] == 2 * largest["blocks of 64", n]


# %%
# Doubling the length multiplies the largest tensor by four if all weights are computed
# at once, and by two if they are computed in blocks.
#
# The state of a query
# --------------------
# For each query, three quantities summarize the keys processed so far: the maximum
# :math:`m` of the scores, the sum :math:`l` of their exponentials, and the weighted sum
# :math:`o` of the values, :eq:`eq-online-state`. We call them the *state* of the query.
# Two states are merged by rescaling the running sums to the larger maximum,
# :eq:`eq-online-merge`. In exact arithmetic the result does not depend on the order;
# :math:`(-\infty, 0, 0)` is the state before the first key. No exponent is positive, so
# nothing overflows. Here is one query with seven keys, merged one after the other:

s, v = 2 * normal(1, 7).flip(1), normal(7, 1)
state = empty_state(s, v)
printed = []
for j in range(7):
    state = merge_states(state, block_state(s[:, j : j + 1], v[j : j + 1]))
    m, l, o = (x.item() for x in state)  # noqa: E741
    printed.append((*(f"{x:.2f}" for x in (s[0, j], m, l, o)), f"{o / l:.4f}"))
print(markdown_table(("score", "m", "l", "o", "o / l"), printed))
expected = (s.softmax(-1) @ v).item()
print(f"softmax over all keys: {expected:.4f}")

assert abs(o / l - expected) < 1e-14
assert abs(m + torch.tensor(l).log() - s.logsumexp(-1)) < 1e-6

# %%
# Whenever a new maximum occurs, the running sums are rescaled to it, that is, reduced.
#
# Any partition of the keys
# -------------------------
# Now we use many queries, a mask, and blocks of every size from one key to all of them.
# For some queries, all keys of a block are masked; for a fully masked query, this holds
# for every block. The maximum of the scores is then :math:`-\infty`, so the
# implementation has to avoid the difference of two infinities.

n_query, n_key, d = 13, 101, 8
Q, K, V = normal(n_query, d), normal(n_key, d), normal(n_key, d)
O_bar = normal(n_query, d)
mask = torch.rand(n_query, n_key, generator=generator) < 0.5
mask[3] = False
mask[4, :60] = False

blocks = [1, 2, 3, 7, 16, 50, 100, 101]
worst = {}
for size in (1.0, 1e4):
    plain, P = scaled_dot_product_attention(size * Q, K, V, mask=mask)
    back = attention_backward(O_bar, size * Q, K, V, P)
    for block in blocks:
        options = {"mask": mask, "block": block}
        found = blockwise_attention(size * Q, K, V, **options)
        found_back = blockwise_backward(O_bar, size * Q, K, V, found, **options)
        apart = [(found.output - plain).abs().max()]
        apart += [
            (a - b).abs().max() / size
            for a, b in zip(found_back[:3], back[:3], strict=True)
        ]
        worst[size, block] = max(apart).item()
        assert not found.output[3].any()
printed = [(b, *(f"{worst[size, b]:.0e}" for size in (1.0, 1e4))) for b in blocks]
header = ("size of the blocks", "scores of about 1", "scores of about 10,000")
print(markdown_table(header, printed))

assert max(worst.values()) < 1e-11

# %%
# The backward pass
# -----------------
# Autograd would store every block. Instead, the forward pass stores its output and, for
# each query, the log-sum-exp :math:`\ell_i = m_i + \ln l_i`, from which the backward
# pass recomputes each weight, :eq:`eq-online-back`. Block by block, it adds to
# :math:`\bar Q` and writes the rows of :math:`\bar K` and :math:`\bar V`. The only
# additional cost is that the scores are computed a second time:

n = lengths[0]
leaves = [normal(n, 32).float().requires_grad_() for _ in range(3)]
operations, printed = {}, []
for way, attend in ways.items():
    with FlopCounterMode(display=False) as counter:
        attend(*leaves).sum().backward()
    operations[way] = counter.get_total_flops() / (n**2 * 32)
    printed.append((way, f"{operations[way]:.0f}"))
print(markdown_table(("attention", "FLOPs for each pair and each feature"), printed))

assert operations == {"all at once": 12, "blocks of 64": 14}

# %%
# Limits
# ------
# The blocks here are of keys only, so the memory grows with the number of queries. GPU
# kernels such as FlashAttention also partition the queries, so that a block fits into
# the fastest memory; the arithmetic is the same.
