r"""
Eight heads take the FLOPs of one, and a shared projection makes them equal
===========================================================================

**Question.** What do several heads compute that one cannot, what do they cost, and what
is lost if all of them share one projection?

**Answer.** The output is a sum over heads, each a map of low rank with attention
weights of its own. The numbers of parameters and FLOPs do not depend on the number of
heads. If all heads share one projection, they are all equal: the layer is one narrow
head, with little more than a third of the weights. Its output has the right shape, and
no error is raised.

**Source.** Vaswani et al., *Attention Is All You Need*, 2017 (arXiv:1706.03762),
section 3.2.2. **Cost.** Seconds on a CPU, no download.
"""

# %%
# The layer
# ---------
# The embedding dimension :math:`D` is split into :math:`H` heads of
# :math:`d_h = D / H` features. Each head attends separately, and the outputs are
# concatenated and projected, :eq:`eq-multi-head`. A single head returns one average for
# each query, in which information from several tokens is mixed. Two heads keep
# information from two tokens apart, for example from a verb and from its subject.

import matplotlib.pyplot as plt
import torch
from torch.utils.flop_counter import FlopCounterMode

from dian.attention.multi_head import (
    MultiHeadAttention,
    Projections,
    multi_head_attention,
    split_heads,
)
from dian.figures import attention_diagrams, plots
from dian.figures.tables import markdown_table

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
attention_diagrams.multi_head(ax)
ax.set_title("Multi-head self-attention")
fig.set_label(
    "Multi-head self-attention with three heads. Each head uses its own block of "
    "columns of $Q$, $K$ and $V$; the outputs are concatenated and projected."
)
plt.show()

# %%
# A sum over heads
# ----------------
# Concatenating and projecting equals projecting each head and summing,
# :eq:`eq-head-sum`. The loop below computes this sum; the library concatenates.

batch, n, D, H = 2, 7, 12, 3
d_h = D // H
generator = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


X = normal(batch, n, D)
weights = Projections(*(normal(D, D) for _ in range(4)), *(normal(D) for _ in range(4)))
Y, inner = multi_head_attention(X, X, weights, H)

by_heads = weights.b_O
for h in range(H):
    own = slice(h * d_h, (h + 1) * d_h)
    Q = X @ weights.W_Q[:, own] + weights.b_Q[own]
    K = X @ weights.W_K[:, own] + weights.b_K[own]
    V = X @ weights.W_V[:, own] + weights.b_V[own]
    P = (Q @ K.mT / d_h**0.5).softmax(-1)
    by_heads = by_heads + P @ V @ weights.W_O[own]


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest entry above 1."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()


print(f"concatenated or summed: {apart(by_heads, Y):.0e} apart")
assert apart(by_heads, Y) < 1e-12

# %%
# The degrees of freedom of a head
# --------------------------------
# Given its attention weights, a head is a linear map of low rank, :eq:`eq-head-rank`.
# The product :math:`W_V^{(h)} W_O^{(h)}` determines which information a head takes from
# a position, and :math:`W_Q^{(h)} W_K^{(h)\top}` from which positions: without biases,
# the scores are :math:`x_i W_Q^{(h)} W_K^{(h)\top} x_j^\top / \sqrt{d_h}`. Because only
# these products matter, different weights give the same layer. Invertible matrices of
# size :math:`d_h` may be inserted between queries and keys (:math:`A`) and between
# values and output (:math:`B`), and the heads may be permuted (:math:`\pi`) together
# with their rows of :math:`W_O`:
#
# .. math::
#    :label: eq-head-freedom
#
#    \bigl(W_Q^{(h)}, W_K^{(h)}\bigr) &\to
#    \bigl(W_Q^{(h)} A, W_K^{(h)} A^{-\top}\bigr), \\
#    \bigl(W_V^{(h)}, W_O^{(h)}\bigr) &\to
#    \bigl(W_V^{(h)} B, B^{-1} W_O^{(h)}\bigr), \\
#    h &\to \pi(h) .
#
# (The biases of queries, keys and values change like the columns of their matrices.)
#
# Two of the biases are redundant as well. The bias of the keys adds
# :math:`q_i \cdot b_K / \sqrt{d_h}` to all scores of a query, which does not change the
# softmax. The bias of the values passes through the average unchanged, since weights
# sum to one:
#
# .. math::
#    :label: eq-idle-biases
#
#    \frac{\partial L}{\partial b_K} = 0, \qquad
#    Y(b_V) = Y(0) + \mathbf 1\, b_V W_O, \qquad
#    \bar b_V = \bar b_O\, W_O^\top .
#
# The first equation does not hold if a rotary embedding rotates the keys. The second
# and third need weights that sum to one: they hold neither for a fully masked query nor
# with dropout of the weights, since the rows of :math:`P \odot Z` do not sum to one.

ranks = []
for h in range(H):
    own = slice(h * d_h, (h + 1) * d_h)
    read = weights.W_V[:, own] @ weights.W_O[own]
    where = weights.W_Q[:, own] @ weights.W_K[:, own].T
    ranks.append([torch.linalg.matrix_rank(x).item() for x in (read, where)])
print("ranks of W_V W_O and of W_Q W_K^T, for each head:", ranks, f"of {D}")

order = torch.arange(D).view(H, d_h)[[2, 0, 1]].flatten()
A = normal(d_h, d_h)
left, right = torch.block_diag(*H * [A]), torch.block_diag(*H * [A.inverse().T])
B = left  # any other invertible matrices are possible
same = {
    "heads in another order": weights._replace(
        **{name: getattr(weights, name)[..., order] for name in weights._fields[:3]},
        **{
            name: getattr(weights, name)[order] for name in ("b_Q", "b_K", "b_V", "W_O")
        },
    ),
    "A between queries and keys": weights._replace(
        W_Q=weights.W_Q @ left,
        b_Q=weights.b_Q @ left,
        W_K=weights.W_K @ right,
        b_K=weights.b_K @ right,
    ),
    "B between values and output": weights._replace(
        W_V=weights.W_V @ B, b_V=weights.b_V @ B, W_O=B.inverse() @ weights.W_O
    ),
    "no bias of the keys": weights._replace(b_K=torch.zeros(D).double()),
    "no bias of the values": weights._replace(
        b_V=torch.zeros(D).double(), b_O=weights.b_O + weights.b_V @ weights.W_O
    ),
}
printed = []
for what, other in same.items():
    found, _ = multi_head_attention(X, X, other, H)
    printed.append((what, f"{apart(found, Y):.0e}"))
    assert apart(found, Y) < 1e-10
print(markdown_table(("other weights", "difference of the output"), printed))
assert ranks == H * [[d_h, d_h]]

# %%
# Cost
# ----
# A layer has four :math:`D \times D` matrices and four biases,
# :eq:`eq-attention-parameters`. For :math:`n` positions it computes four products with
# these matrices, the scores, and the averages of the values, :eq:`eq-attention-flops`.
# The numbers of parameters and FLOPs do not depend on the number of heads. The term of
# the FLOPs with :math:`n^2` is the larger one if :math:`n > 2 D`. PyTorch's counter
# confirms the formulas:

printed = []
for width, length in ((64, 28), (64, 512), (512, 512)):
    for n_head in (1, 8):
        layer = MultiHeadAttention(width, n_head, generator=generator)
        parameters = sum(p.numel() for p in layer.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(torch.zeros(1, length, width), need_weights=True)
        counted = counter.get_total_flops()
        formula = 8 * length * width**2 + 4 * length**2 * width
        counts = (f"{x:,}" for x in (parameters, counted, formula))
        printed.append((width, length, n_head, *counts))
        assert counted == formula
        assert parameters == 4 * width**2 + 4 * width
header = ("D", "n", "heads", "parameters", "FLOPs", "formula (FLOPs)")
print(markdown_table(header, printed))

lengths = torch.arange(0, 2049, 32)
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for width, style in ((512, "-"), (64, "--")):
    quadratic = 4 * lengths**2 * width
    fraction = quadratic / (8 * lengths * width**2 + quadratic)
    ax.plot(lengths[1:], fraction[1:], style, label=f"$D = {width}$")
    ax.plot(2 * width, 0.5, "ko", markersize=5, fillstyle="none")
ax.set_title("Fraction of the FLOPs that grows with the square of the length")
ax.set(xlabel="sequence length $n$ (positions)", ylabel="fraction", ylim=(0, 1))
ax.legend()
fig.set_label(
    "The two products over all pairs of positions, $QK^\\top$ and $PV$, take half of "
    "the FLOPs at $n = 2D$ (circles)."
)
plt.show()

# %%
# One projection for all heads
# ----------------------------
# This mistake is easily made: one ``Linear(D, d_h)`` is used for all heads, where
# :math:`H` of them are needed. If :math:`W_Q, W_K, W_V \in \mathbb R^{D \times d_h}`
# are the same for all heads, so are the outputs. Without biases,
#
# .. math::
#    :label: eq-shared-heads
#
#    O_1 = \dots = O_H = O, \qquad
#    Y = O \sum_h W_O^{(h)}, \qquad
#    \operatorname{rank} Y \le d_h .
#
# The layer is one head of dimension :math:`d_h`, with :math:`3 D d_h + D^2` weights
# instead of :math:`4 D^2`. The heat maps of several heads reveal the mistake:

zero = torch.zeros(D).double()
repeated = {
    name: getattr(weights, name)[:, :d_h].repeat(1, H) for name in ("W_Q", "W_K", "W_V")
}
shared = weights._replace(**repeated, b_Q=zero, b_K=zero, b_V=zero, b_O=zero)
wrong, of_wrong = multi_head_attention(X, X, shared, H)

fig, axes = plt.subplots(2, H, figsize=(7, 5.5), layout="constrained")
for row, P, what in zip(
    axes, (inner.P, of_wrong.P), ("separate", "shared"), strict=True
):
    for h, ax in enumerate(row):
        plots.attention(ax, P[0, h].numpy(), f"head {h + 1}, {what}", largest=1)
fig.suptitle("Attention weights with separate and with shared projections")
fig.set_label(
    "With separate projections (top), each head has its own weights. With a shared "
    "projection (bottom), all heads have the same weights."
)
plt.show()

heads = split_heads(of_wrong.C, H)
one = heads[:, 0] @ weights.W_O.unflatten(0, (H, d_h)).sum(0)
rank = torch.linalg.matrix_rank(wrong.flatten(0, 1)).item()
full = torch.linalg.matrix_rank((Y - weights.b_O).flatten(0, 1)).item()
counts = 3 * D * d_h + D**2, 4 * D**2
print(f"shapes: {tuple(Y.shape)} and {tuple(wrong.shape)}")
print(f"one narrow head instead: {apart(wrong, one):.0e} apart")
print(f"rank of the output: separate {full}, shared {rank}, of {D}")
print(f"weights: separate {counts[1]}, shared {counts[0]}")

wide = 512, 64  # D and d_h with eight heads
assert apart(heads, heads[:, :1].expand_as(heads)) < 1e-12
assert apart(wrong, one) < 1e-12
assert (full, rank) == (D, d_h)
assert 3 * wide[0] * wide[1] + wide[0] ** 2 < 0.35 * 4 * wide[0] ** 2
assert not torch.allclose(inner.P[:, 0], inner.P[:, 1], atol=0.1)

# %%
# Four checks detect this mistake: the number of parameters; a comparison of two heads;
# the rank of the output; and a comparison with another implementation.
#
# The number of heads in translation
# ----------------------------------
# Vaswani et al. (Table 3) varied the number of heads of a translation model at a
# constant embedding dimension, so that each head has :math:`512/H` features. BLEU
# measures the agreement with reference translations.

heads_and_bleu = {1: 24.9, 4: 25.5, 8: 25.8, 16: 25.8, 32: 25.4}
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.semilogx(list(heads_and_bleu), list(heads_and_bleu.values()), "o-", base=2)
ax.set_xticks(list(heads_and_bleu), list(heads_and_bleu))
ax.minorticks_off()
ax.set(xlabel="number of heads $H$", ylabel="BLEU, development set", ylim=(24.5, 26))
ax.set_title("Translation quality against the number of heads")
fig.set_label(
    "BLEU of translations from English to German, Vaswani et al., Table 3. One head "
    "and 32 narrow heads are worse than 8 or 16 heads."
)
plt.show()

# %%
# Limits
# ------
# Heads *can* attend to different positions; the experiments with random weights do not
# show that they do. In trained networks many heads can be removed with little loss:
# Michel, Levy and Neubig, *Are sixteen heads really better than one?*, 2019
# (arXiv:1905.10650).
