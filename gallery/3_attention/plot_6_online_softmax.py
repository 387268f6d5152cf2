r"""
The softmax in pieces: attention without the matrix of weights
==============================================================

**Question.** Attention over :math:`n` positions has :math:`n^2` weights. Do they have
to be held all at once?

**Answer.** No. Three things for each query, the largest score so far, a sum and a sum
of values, can be updated block by block, in any order and with blocks of any size, and
give the same result to the last few bits, also for scores of ten thousand. On the way
back each block of weights is computed anew. The largest tensor then grows as the
length, and not as its square. The price is that the scores are computed twice, which is
one sixth more operations.

**Source.** Milakov and Gimelshein, *Online normalizer calculation for softmax*, 2018
(arXiv:1805.02867), algorithm 3; Rabe and Staats, *Self-attention does not need*
:math:`O(n^2)` *memory*, 2021 (arXiv:2112.05682); Dao et al., *FlashAttention*, 2022
(arXiv:2205.14135), algorithms 1 and 4. **Cost.** Seconds on a CPU, no download.
"""

# %%
# The state of a query
# --------------------
# Let a query have seen some keys, with scores :math:`s_j` and values :math:`v_j`. All
# that has to be remembered of them is
#
# .. math::
#    :label: eq-online-state
#
#    m = \max_j s_j, \qquad l = \sum_j e^{s_j - m}, \qquad
#    o = \sum_j e^{s_j - m}\, v_j ,
#
# for the output is :math:`o / l`, and the logarithm of the sum of all exponentials is
# :math:`m + \ln l`. Two states are put together by bringing both to the larger maximum:
#
# .. math::
#    :label: eq-online-merge
#
#    m &= \max(m_a, m_b), \\
#    l &= l_a\, e^{m_a - m} + l_b\, e^{m_b - m}, \\
#    o &= o_a\, e^{m_a - m} + o_b\, e^{m_b - m} .
#
# In real arithmetic that is exact, it does not depend on the order, and
# :math:`(-\infty, 0, 0)` is the state of no key at all. No exponent is above 0, so
# nothing overflows. One query and seven keys, one after the other:

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

generator = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


s, v = 2 * normal(1, 7).flip(1), normal(7, 1)
state = empty_state(s, v)
print("score      m      l      o    o / l")
for j in range(7):
    state = merge_states(state, block_state(s[:, j : j + 1], v[j : j + 1]))
    m, l, o = (x.item() for x in state)  # noqa: E741
    print(f"{s[0, j]:5.2f}  {m:5.2f}  {l:5.2f}  {o:5.2f}  {o / l:7.4f}")
expected = (s.softmax(-1) @ v).item()
print(f"softmax of all at once:      {expected:7.4f}")

assert abs(o / l - expected) < 1e-14
assert abs(m + torch.tensor(l).log() - s.logsumexp(-1)) < 1e-6

# %%
# Whenever a new largest score comes, what was summed before is made smaller.
#
# Any partition
# -------------
# Now with many queries, a mask, and blocks of every size from one key to all of them.
# One query may read nothing, so that some blocks hold nothing for it, and there the
# difference of two infinities has to be kept out.

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
for size in (1.0, 1e4):
    row = " ".join(f"{worst[size, block]:.0e}" for block in blocks)
    print(f"scores of about {size:6.0f}, blocks of {blocks}:\n  {row}")

assert max(worst.values()) < 1e-11

# %%
# The way back
# ------------
# Autograd would keep every block, and all would be held after all. Instead, what is
# kept of the way out is the output and the logarithm of the sum, :math:`\ell_i = m_i +
# \ln l_i`, one number for each query: from it each weight can be computed anew. The
# means :math:`D` come from the output (:eq:`eq-attention-row-term`), before the first
# block.
#
# .. math::
#    :label: eq-online-back
#
#    P_{ij} = e^{s_{ij} - \ell_i}, \qquad
#    D_i = \sum_c \bar O_{ic}\, O_{ic}, \qquad
#    \bar S_{ij} = P_{ij} \Big( \sum_c \bar O_{ic} V_{jc} - D_i \Big),
#
# and then, block by block, :math:`\bar Q` adds up and :math:`\bar K` and :math:`\bar V`
# are written where the block stands.
#
# Memory
# ------
# The largest tensor that is made in a forward and a backward pass, over the length.


class Largest(TorchDispatchMode):
    """Watch every tensor that torch makes, and remember the size of the largest."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Compute, and look at what came out."""
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
        leaves = [normal(n, 32).float().requires_grad_() for _ in range(3)]
        with Largest() as seen:
            attend(*leaves).sum().backward()
        largest[way, n] = seen.bytes

fig, ax = plt.subplots(figsize=(6.6, 3.8), layout="constrained")
for (way, _), style in zip(ways.items(), ("s--", "o-"), strict=True):
    ax.loglog(lengths, [largest[way, n] / 2**20 for n in lengths], style, label=way)
ax.set_title("Largest tensor of a forward and a backward pass")
ax.set(xlabel="positions $n$", ylabel="MiB")
ax.set_xticks(lengths, lengths)
ax.minorticks_off()
ax.legend()
plt.show()

print("   n   largest tensor: all at once, blocks of 64 (KiB)")
for n in lengths:
    sizes = (f"{largest[way, n] / 1024:10.0f}" for way in ways)
    print(f"{n:5}", *sizes)

for n, double in pairwise(lengths):
    assert largest["all at once", double] == 4 * largest["all at once", n]
    assert largest["blocks of 64", double] == 2 * largest["blocks of 64", n]

# %%
# Twice the length takes four times the memory in one way, and twice in the other. What
# it costs is one product more: the scores are computed a second time.

n = lengths[0]
leaves = [normal(n, 32).float().requires_grad_() for _ in range(3)]
operations = {}
for way, attend in ways.items():
    with FlopCounterMode(display=False) as counter:
        attend(*leaves).sum().backward()
    operations[way] = counter.get_total_flops() / (n**2 * 32)
    print(f"{way:12} {operations[way]:.0f} operations for each pair and each feature")

assert operations == {"all at once": 12, "blocks of 64": 14}

# %%
# Limits
# ------
# The blocks here are of keys only: what is held grows with the number of queries.
# Kernels cut the queries, too, so that a block fits into the fastest memory there is;
# the arithmetic is the same.
