r"""
From one head to many, and one projection too few
=================================================

**Question.** What do several heads do that one does not, what do they cost, and what is
lost if all of them share one projection?

**Answer.** The output is a sum over the heads, and each adds a map of low rank,
weighted by where it looks. So a layer with eight heads looks at eight places at once,
at no higher cost: the number of parameters does not depend on the number of heads, nor
does the number of operations. If all heads share one small projection, they all look at
the same places: the layer is one narrow head, with an output of low rank, and with
eight heads it has little more than a third of the weights. Its output has the right
shape, and nothing complains.

**Source.** Vaswani et al., *Attention Is All You Need*, 2017 (arXiv:1706.03762),
section 3.2.2. **Cost.** Seconds on a CPU, no download.
"""

# %%
# One head
# --------
# One head projects what comes in to queries, keys and values, attends, and returns a
# mean of values for each position: equation :eq:`eq-attention` of the chapter, of
# :math:`Q = X W_Q`, :math:`K = X W_K`, :math:`V = X W_V` (biases are left out here). A
# single mean is a single place to look at. To look at a verb *and* at its subject, a
# position needs two.
#
# Many
# ----
# Cut the width :math:`D` into :math:`H` parts of :math:`d_h = D / H`, let each attend
# by itself, put the results side by side, and mix them with one more matrix
# (:eq:`eq-multi-head` of the chapter). With :math:`W_O^{(h)}` for the rows of
# :math:`W_O` that meet head :math:`h`,
#
# .. math::
#    :label: eq-head-sum
#
#    Y = [O_1 \dots O_H]\, W_O + b_O = \sum_h O_h\, W_O^{(h)} + b_O .
#
# Side by side and then mixed is the same as each mixed by itself and then added. Below,
# the loop is the sum on the right, and the library does what stands on the left.

import matplotlib.pyplot as plt
import torch
from torch.utils.flop_counter import FlopCounterMode

from dian.attention.multi_head import (
    MultiHeadAttention,
    Projections,
    multi_head_attention,
    split_heads,
)
from dian.figures import plots

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


print(f"side by side, or added: {apart(by_heads, Y):.0e} apart")
assert apart(by_heads, Y) < 1e-12

# %%
# What a head can do
# ------------------
# With its weights given, head :math:`h` is a linear map: it takes rows of :math:`X` in
# the proportions :math:`P_h`, and multiplies them by one matrix. Both matrices of a
# head have a low rank.
#
# .. math::
#    :label: eq-head-rank
#
#    O_h\, W_O^{(h)} = P_h\, X\; W_V^{(h)} W_O^{(h)}, \qquad
#    \operatorname{rank} W_V^{(h)} W_O^{(h)} \le d_h, \qquad
#    \operatorname{rank} W_Q^{(h)} W_K^{(h)\top} \le d_h .
#
# The first says what is read, the second where: the scores are
# :math:`x_i W_Q^{(h)} W_K^{(h)\top} x_j^\top`, a bilinear form in the rows. So only the
# products matter, and different weights give the same layer. Invertible
# :math:`d_h \times d_h` matrices may be inserted between queries and keys (:math:`A`)
# and between values and output (:math:`B`), and the heads may be permuted together with
# their rows of :math:`W_O`. Each of these changes leaves :math:`Y` as it is:
#
# .. math::
#    :label: eq-head-freedom
#
#    \bigl(W_Q^{(h)}, W_K^{(h)}\bigr) &\to
#    \bigl(W_Q^{(h)} A, W_K^{(h)} A^{-\top}\bigr), \\
#    \bigl(W_V^{(h)}, W_O^{(h)}\bigr) &\to
#    \bigl(W_V^{(h)} B, B^{-1} W_O^{(h)}\bigr), \\
#    \text{head } h &\to \text{head } \pi(h) .
#
# (The biases of queries, keys and values change like the columns of their matrices.)
#
# Nor do all biases matter. One of the keys adds :math:`q_i \cdot b_K`, the same for all
# keys of a query, and the softmax does not see it. One of the values passes through the
# mean, since weights sum to one:
#
# .. math::
#    :label: eq-idle-biases
#
#    \frac{\partial L}{\partial b_K} = 0, \qquad
#    Y(b_V) = Y(0) + \mathbf 1\, b_V W_O, \qquad
#    \bar b_V = \bar b_O\, W_O^\top .
#
# The first equation does not hold if the keys are rotated by their positions. The
# second and third need weights that sum to one: they hold neither for a fully masked
# query nor with dropout of the weights, since the rows of :math:`P \odot Z` do not sum
# to one.

ranks = []
for h in range(H):
    own = slice(h * d_h, (h + 1) * d_h)
    read = weights.W_V[:, own] @ weights.W_O[own]
    where = weights.W_Q[:, own] @ weights.W_K[:, own].T
    ranks.append([torch.linalg.matrix_rank(x).item() for x in (read, where)])
print("ranks of what is read, and of where:", ranks, f"of {D}")

order = torch.arange(D).view(H, d_h)[[2, 0, 1]].flatten()
A = normal(d_h, d_h)
left, right = torch.block_diag(*H * [A]), torch.block_diag(*H * [A.inverse().T])
B = left  # any other invertible matrices would do
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
for what, other in same.items():
    found, _ = multi_head_attention(X, X, other, H)
    print(f"{what:27} {apart(found, Y):.0e} apart")
    assert apart(found, Y) < 1e-10
assert ranks == H * [[d_h, d_h]]

# %%
# What it costs
# -------------
# A layer has four :math:`D \times D` matrices and four biases; and for :math:`n`
# positions it computes four products with these, the scores, and the means of the
# values. A multiplication with its addition counts as two operations, the softmax as
# none:
#
# .. math::
#    :label: eq-attention-parameters
#
#    4 D^2 + 4 D \quad \text{parameters}
#
# .. math::
#    :label: eq-attention-flops
#
#    8\, n D^2 + 4\, n^2 D \quad \text{operations}
#
# whatever the number of heads: :math:`H` products of a width :math:`D / H` cost as much
# as one of width :math:`D`. The square of the length takes the larger part from
# :math:`n = 2 D` on. PyTorch counts while it computes:

print("   D    n  heads  parameters    operations       formula")
for width, length in ((64, 28), (64, 512), (512, 512)):
    for n_head in (1, 8):
        layer = MultiHeadAttention(width, n_head, generator=generator)
        parameters = sum(p.numel() for p in layer.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(torch.zeros(1, length, width), need_weights=True)
        counted = counter.get_total_flops()
        formula = 8 * length * width**2 + 4 * length**2 * width
        print(f"{width:4} {length:4} {n_head:6} {parameters:11,}", end=" ")
        print(f"{counted:13,} {formula:13,}")
        assert counted == formula
        assert parameters == 4 * width**2 + 4 * width

lengths = torch.arange(0, 2049, 32)
fig, ax = plt.subplots(figsize=(6.6, 3.6), layout="constrained")
for width, style in ((512, "-"), (64, "--")):
    share = 4 * lengths**2 * width / (8 * lengths * width**2 + 4 * lengths**2 * width)
    ax.plot(lengths[1:], share[1:], style, label=f"$D = {width}$")
    ax.plot(2 * width, 0.5, "ko", markersize=5, fillstyle="none")
ax.set_title("Share of the operations that grows with the square of the length")
ax.set(xlabel="positions $n$", ylabel="share", ylim=(0, 1))
ax.legend()
plt.show()

# %%
# One projection for all heads
# ----------------------------
# It is easily written by mistake: one ``Linear(D, d_h)`` where :math:`H` of them are
# needed, used for every head. If :math:`W_Q, W_K, W_V \in \mathbb R^{D \times d_h}` are
# the same for all heads, then so are their outputs, and
#
# .. math::
#    :label: eq-shared-heads
#
#    O_1 = \dots = O_H = O, \qquad
#    Y = O \sum_h W_O^{(h)}, \qquad
#    \operatorname{rank} Y \le d_h,
#
# one head of width :math:`d_h`, with :math:`3 D d_h + D^2` weights in place of
# :math:`4 D^2`. The heat maps give it away, if somebody prints more than one.

zero = torch.zeros(D).double()
repeated = {
    name: getattr(weights, name)[:, :d_h].repeat(1, H) for name in ("W_Q", "W_K", "W_V")
}
shared = weights._replace(**repeated, b_Q=zero, b_K=zero, b_V=zero, b_O=zero)
wrong, of_wrong = multi_head_attention(X, X, shared, H)

fig, axes = plt.subplots(2, H, figsize=(7.6, 5), layout="constrained")
for row, P, what in zip(axes, (inner.P, of_wrong.P), ("own", "shared"), strict=True):
    for h, ax in enumerate(row):
        plots.attention(ax, P[0, h].numpy(), f"head {h + 1}, {what}", largest=1)
fig.suptitle(
    "Attention weights, with projections of each head's own and with shared ones"
)
plt.show()

heads = split_heads(of_wrong.C, H)
one = heads[:, 0] @ weights.W_O.unflatten(0, (H, d_h)).sum(0)
rank = torch.linalg.matrix_rank(wrong.flatten(0, 1)).item()
full = torch.linalg.matrix_rank((Y - weights.b_O).flatten(0, 1)).item()
counts = 3 * D * d_h + D**2, 4 * D**2
print(f"shapes: {tuple(Y.shape)} and {tuple(wrong.shape)}")
print(f"one narrow head instead: {apart(wrong, one):.0e} apart")
print(f"rank of the output: own {full}, shared {rank}, of {D}")
print(f"weights: own {counts[1]}, shared {counts[0]}")

wide = 512, 64  # D and d_h with eight heads
assert apart(heads, heads[:, :1].expand_as(heads)) < 1e-12
assert apart(wrong, one) < 1e-12
assert (full, rank) == (D, d_h)
assert 3 * wide[0] * wide[1] + wide[0] ** 2 < 0.35 * 4 * wide[0] ** 2
assert not torch.allclose(inner.P[:, 0], inner.P[:, 1], atol=0.1)

# %%
# Four checks find it: the number of parameters; two heads compared; the rank of the
# output; and any comparison with another implementation.
#
# Limits
# ------
# That heads *can* look at different places does not say that they do. In a trained
# network many of them turn out to be dispensable: Michel, Levy and Neubig, *Are sixteen
# heads really better than one?*, 2019 (arXiv:1905.10650).
