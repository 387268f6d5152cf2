r"""
Attention reaches every position in one step, and pays with the square of the length
====================================================================================

**Question.** A recurrent layer and a layer of attention both map a sequence to another.
What does each cost in operations, in memory for the backward pass, and in steps that
must be computed one after the other?

**Answer.** Counted on the layers of this library, the recurrence costs
:math:`4 n D^2` FLOPs and attention :math:`8 n D^2 + 4 n^2 D`. Attention keeps a number
for each pair of positions, unless it is computed block by block. In return, one step
leads from any position to any other, where the recurrence needs as many steps as there
are positions.

**Source.** Vaswani et al., *Attention Is All You Need*, 2017 (arXiv:1706.03762),
section 4 and Table 1, which gives orders of magnitude; the exact counts are our own.
**Cost.** Seconds on a CPU, no download.
"""

# %%
# Operations and memory
# ---------------------
# The layers have the same model dimension, and the state of the recurrent layer has as
# many features as its input. The FLOPs are those of the matrix products that PyTorch
# executes. The memory is that of the tensors which autograd keeps for the backward
# pass, other than the parameters. Both follow equations :eq:`eq-complexity-flops` and
# :eq:`eq-complexity-memory` exactly.

import matplotlib.pyplot as plt
import torch

from dian.attention.blockwise import online_attention
from dian.attention.complexity import count_flops, depends_on, saved_bytes
from dian.attention.dot_product import attention
from dian.attention.multi_head import MultiHeadAttention
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

print(f"D = {D}, {H} heads, one sequence; FLOPs in millions, memory in numbers")
print("    n   " + "".join(f"{name:>27}" for name in layers))
for i, n in enumerate(lengths):
    row = (f"{flops[k][i] / 1e6:13.2f} {kept[k][i]:13,}" for k in layers)
    print(f"{n:5}   " + "".join(row))

for i, n in enumerate(lengths):
    assert flops["recurrence"][i] == 4 * n * D**2
    assert flops["attention"][i] == 8 * n * D**2 + 4 * n**2 * D
    assert flops["blockwise attention"][i] == flops["attention"][i]
    assert kept["recurrence"][i] == 2 * n * D + 2 * D
    assert kept["attention"][i] == 5 * n * D + H * n**2
    assert kept["blockwise attention"][i] == 6 * n * D + H * n

# %%
# The recurrence and blockwise attention grow linearly in memory, and attention with all
# weights quadratically. In operations both kinds of attention are quadratic: blocks
# save memory, not work.

fig, axes = plt.subplots(1, 2, figsize=(7.6, 3.4), layout="constrained")
styles = ("^-", "s--", "o:")
for (name, _), style in zip(layers.items(), styles, strict=True):
    axes[0].loglog(lengths, flops[name], style, label=name)
    axes[1].loglog(lengths, kept[name], style, label=name)
axes[0].set(xlabel="positions $n$", ylabel="FLOPs of a forward pass")
axes[1].set(xlabel="positions $n$", ylabel="numbers kept")
axes[0].legend(fontsize=8)
plt.show()

# %%
# Path length
# -----------
# Which input positions does an output position depend on after :math:`k` steps? For the
# recurrence, one step updates all states at once from their predecessors,
# :math:`h_t \leftarrow \tanh(x_t W_{xh} + h_{t-1} W_{hh} + b_h)`, starting from zero;
# after :math:`n` such steps the states are those of the usual loop. For attention, a
# step is one causal layer, either with all earlier positions or with a window of three.
# The Jacobian shows the dependence.

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
fig, axes = plt.subplots(3, len(steps), figsize=(7.2, 5.6), layout="constrained")
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
plt.show()

for name, k in needed.items():
    print(f"{name:24} the last output depends on the first input after {k} steps")

assert needed == {"recurrence": n, "attention, window of 3": 4, "attention": 1}
in_turn, _ = recurrent(X[:, None])
assert torch.allclose(recurrence(X, n), in_turn[:, 0], rtol=0, atol=1e-12)

# %%
# A blue square means that the output in this row depends on the input in this column.
# The band of the recurrence widens by one diagonal with each step, that of the window
# by two, and attention fills the triangle at once. This is equation
# :eq:`eq-complexity-path`: :math:`n`, :math:`\lceil (n-1)/(w-1) \rceil` and 1.
#
# Limits
# ------
# FLOPs are not seconds: a GPU computes the matrix products of attention in parallel,
# while the steps of the recurrence wait for one another. Wall-clock times of the layers
# are on the page :doc:`/benchmarks`. And a short path says that information *can* reach
# a position, not that a trained network uses it.
