r"""
Attention connects all positions in one step, at quadratic cost
===============================================================

**Question.** A recurrent layer and a layer of attention both map a sequence to another.
What does each cost in FLOPs, in memory for the backward pass, and in sequential steps?

**Answer.** Counted on the layers of this library, the recurrence costs
:math:`4 n D^2` FLOPs and attention :math:`8 n D^2 + 4 n^2 D`. Attention stores a number
for each pair of positions and head, unless it is computed block by block. In return,
one step connects any two positions, where the recurrence needs :math:`n` steps.

**Source.** Vaswani et al., *Attention Is All You Need*, 2017 (arXiv:1706.03762),
section 4 and Table 1, which gives orders of magnitude; the exact counts are our own.
**Cost.** Seconds on a CPU, no download.
"""

# %%
# FLOPs and memory
# ----------------
# All layers have the same embedding dimension, and the hidden state of the recurrent
# layer has as many features as its input. We count the FLOPs of the matrix products
# that PyTorch executes, and the numbers in the tensors that autograd stores for the
# backward pass, other than parameters. Both equal :eq:`eq-complexity-flops` and
# :eq:`eq-complexity-memory` exactly.

import matplotlib.pyplot as plt
import torch

from dian.attention.blockwise import online_attention
from dian.attention.complexity import count_flops, depends_on, saved_bytes
from dian.attention.dot_product import attention
from dian.attention.multi_head import MultiHeadAttention
from dian.figures.tables import markdown_table
from dian.rnn.recurrence import RNN

D, H = 64, 4
lengths = [16, 32, 64, 128, 256, 512, 1024]
layers = {
    "recurrence": RNN(D, D),
    "attention": MultiHeadAttention(D, H, attention_fn=attention),
    "blockwise attention": MultiHeadAttention(D, H, attention_fn=online_attention),
}
flops: dict[str, list[int]] = {name: [] for name in layers}
kept: dict[str, list[int]] = {name: [] for name in layers}
for n in lengths:
    for name, layer in layers.items():
        X = torch.zeros(n, 1, D) if name == "recurrence" else torch.zeros(1, n, D)
        flops[name].append(count_flops(layer, X))
        kept[name].append(saved_bytes(layer, X) // 4)

for i, n in enumerate(lengths):
    assert flops["recurrence"][i] == 4 * n * D**2
    assert flops["attention"][i] == 8 * n * D**2 + 4 * n**2 * D
    assert flops["blockwise attention"][i] == flops["attention"][i]
    assert kept["recurrence"][i] == 2 * n * D + 2 * D
    assert kept["attention"][i] == 5 * n * D + H * n**2
    assert kept["blockwise attention"][i] == 6 * n * D + H * n

# %%
# In memory, the recurrence and blockwise attention grow linearly, and attention with
# all weights quadratically. In FLOPs, both kinds of attention are quadratic: blocks
# save memory, not work.

fig, axes = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
styles = ("^-", "s--", "o:")
for (name, _), style in zip(layers.items(), styles, strict=True):
    axes[0].loglog(lengths, flops[name], style, label=name)
    axes[1].loglog(lengths, kept[name], style, label=name)
axes[0].set(xlabel="sequence length $n$", ylabel="FLOPs of a forward pass")
axes[1].set(xlabel="sequence length $n$", ylabel="numbers stored by autograd")
axes[0].legend()
fig.suptitle(f"Cost of a layer with $D = {D}$ and {H} heads")
fig.set_label(
    "FLOPs and memory of one layer. Blocks make the memory of attention linear in the "
    "length, but not its FLOPs."
)
plt.show()

# %%
# Path length
# -----------
# Which input positions does an output position depend on after :math:`k` steps? A layer
# of attention updates all positions at once. To count steps in the same way for the
# recurrence, we let one step update all states at once from their predecessors,
# :math:`h_t \leftarrow \tanh(x_t W_{xh} + h_{t-1} W_{hh} + b_h)`, starting from zero.
# After :math:`n` such steps the states are those of the usual loop. For attention, a
# step is one causal layer, either with all earlier positions or with a window of three
# positions. A nonzero block of the Jacobian shows the dependence.

n, d = 9, 4
generator = torch.Generator().manual_seed(0)
recurrent = RNN(d, d, generator=generator).double()
attend = MultiHeadAttention(d, 2, generator=generator).double()
X = torch.randn(n, d, generator=generator, dtype=torch.float64)
lag = torch.arange(n)[:, None] - torch.arange(n)


def recurrence(X, k):
    """Update all states k times, each from the state before it."""
    states = torch.zeros_like(X)
    for _ in range(k):
        before = torch.cat([torch.zeros_like(X[:1]), states[:-1]])
        states = recurrent(X[None], before)[0][0]
    return states


def attention_in_window(X, k, window):
    """Apply a causal layer k times that attends to the last positions."""
    mask = (lag >= 0) & (lag < window)
    for _ in range(k):
        X = attend(X[None], mask=mask)[0]
    return X


ways = {
    "recurrence": recurrence,
    "attention, window of 3": lambda X, k: attention_in_window(X, k, 3),
    "attention": lambda X, k: attention_in_window(X, k, n),
}
steps = (1, 2, 4, n)
fig, axes = plt.subplots(3, len(steps), figsize=(7, 5.5), layout="constrained")
needed = {}
for row, (name, function) in zip(axes, ways.items(), strict=True):
    for ax, k in zip(row, steps, strict=True):
        dependent = depends_on(lambda X, f=function, k=k: f(X, k), X)
        ax.imshow(dependent, cmap="Blues", vmin=0, vmax=1.4)
        ax.set(xticks=[], yticks=[], xlabel="input", ylabel="output")
        ax.set_title(f"{name}\n{k} step" + "s" * (k > 1), fontsize=8)
    needed[name] = next(
        k
        for k in range(1, n + 1)
        if depends_on(lambda X, f=function, k=k: f(X, k), X)[-1, 0]
    )
fig.suptitle("Dependence of outputs (rows) on inputs (columns)")
fig.set_label(
    "Blue: the output position (row) depends on the input position (column). The band "
    "of the recurrence widens by one position a step, that of a window by two; full "
    "attention reaches all earlier positions at once."
)
plt.show()

header = ("layer", "path length from the first input to the last output (steps)")
print(markdown_table(header, needed.items()))

assert needed == {"recurrence": n, "attention, window of 3": 4, "attention": 1}
in_turn, _ = recurrent(X[:, None])
assert torch.allclose(recurrence(X, n), in_turn[:, 0], rtol=0, atol=1e-12)

# %%
# The path lengths are those of :eq:`eq-complexity-path`: :math:`n`,
# :math:`\lceil (n-1)/(w-1) \rceil` and 1.
#
# Limits
# ------
# FLOPs are not seconds: a GPU computes the matrix products of attention in parallel,
# while the steps of the recurrence must be computed one after the other. Wall-clock
# times of the layers are on the page :doc:`/benchmarks`. And a short path means that
# information *can* reach a position, not that a trained network uses it.
