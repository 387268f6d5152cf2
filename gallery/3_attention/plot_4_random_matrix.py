r"""
An untrained layer attends to more than ten of twenty positions at once
=======================================================================

**Question.** A random matrix, 20 positions with 512 features, passes through an
untrained layer with 8 heads. What are its attention weights, and can one of them be
computed by hand?

**Answer.** Each head has its own heat map, whose rows sum to one. Every map is diffuse,
because the scores of an untrained layer have the variance 1. Without the division by
:math:`\sqrt{d_k}` the variance is 64, and most rows have one large weight. Shuffling
the rows of the matrix shuffles the maps in the same way.

**Source.** The exercise is from the study that this report grew out of; the layer is
that of Vaswani et al., 2017 (arXiv:1706.03762). **Cost.** Seconds on a CPU, no
download.
"""

# %%
# The attention weights
# ---------------------
# The entries of the matrix are independent and standard normal, and the projections
# have Xavier initialization. There is no positional encoding: the matrix represents 20
# unrelated tokens without order. To measure how diffuse a row is, we print the
# exponential of the entropy of its weights: the number of keys with equal weights that
# would have the same entropy.

import math

import matplotlib.pyplot as plt
import torch

from dian.attention.multi_head import MultiHeadAttention
from dian.attention.score_statistics import entropy
from dian.figures import plots
from dian.figures.interactive import Interactive
from dian.figures.tables import markdown_table

n, D, H = 20, 512, 8
d_h = D // H
generator = torch.Generator().manual_seed(0)
X = torch.randn(1, n, D, generator=generator)
layer = MultiHeadAttention(D, H, generator=generator)

with torch.no_grad():
    output, weights = layer(X, need_weights=True)
P = weights[0]
print(f"input {tuple(X.shape)}, output {tuple(output.shape)}, weights {tuple(P.shape)}")

fig, axes = plt.subplots(
    2, 4, figsize=(7, 4), layout="constrained", sharex=True, sharey=True
)
for h, ax in enumerate(axes.flat):
    image = plots.attention(ax, P[h].numpy(), f"head {h + 1}", largest=P.max().item())
    ax.label_outer()
fig.colorbar(image, ax=axes, label="weight", shrink=0.8)
fig.suptitle("Attention weights of an untrained layer, 20 random positions")
fig.set_label(
    "The weights of all eight heads, one row for each query. The heads differ, and "
    "each spreads its weight over many keys."
)
plt.show()

print(f"rows sum to one within {(P.sum(-1) - 1).abs().max():.0e}")
print(f"weights from {P.min():.3f} to {P.max():.3f}; 1/20 is 0.050")
spread = entropy(P).exp().mean()
print(f"effective number of keys, exp(entropy): {spread:.1f} of 20 on average")

assert torch.allclose(P.sum(-1), torch.ones(H, n), atol=1e-5)
assert output.shape == X.shape
assert spread > 10
for h in range(H):
    for other in range(h):
        assert (P[h] - P[other]).abs().max() > 0.05

# %%
# Select a head and a query (counted from 0) to see its row of weights below the map.

Interactive(
    "attention",
    "Attention weights of one head of an untrained layer: one row for each query, one "
    "column for each key. Below: the weights of the marked query.",
    weights=[[[round(p, 4) for p in row] for row in head] for head in P.tolist()],
)

# %%
# One weight by hand
# ------------------
# We compute the weight that query 3 gives to key 7 in head 3 (positions are counted
# from 0, heads from 1, as in the figure). Take the columns of the projections that
# belong to the head; project row 3 of the input to a query, and every row to a key;
# divide the dot products by :math:`\sqrt{64} = 8`; exponentiate; and divide by the sum.

h, i, j = 2, 3, 7
own = slice(h * d_h, (h + 1) * d_h)
with torch.no_grad():
    q = X[0, i] @ layer.W_Q[:, own]
    keys = [X[0, position] @ layer.W_K[:, own] for position in range(n)]
scores = [sum((q * k).tolist()) / math.sqrt(d_h) for k in keys]
exponentials = [math.exp(s) for s in scores]
by_hand = exponentials[j] / sum(exponentials)

print("scores of keys 0 to 9:", " ".join(f"{s:.2f}" for s in scores[:10]))
print("scores of keys 10 to 19:", " ".join(f"{s:.2f}" for s in scores[10:]))
print(f"e^{scores[j]:.3f} / {sum(exponentials):.3f} = {by_hand:.5f}")
print(f"computed by the layer: {P[h, i, j]:.5f}")

assert abs(by_hand - P[h, i, j].item()) < 1e-6

# %%
# The variance of the scores
# --------------------------
# Each entry of a query or a key is a sum of 512 terms, each of variance :math:`1 \cdot
# 2 / (512 + 512)` by :eq:`eq-xavier`; so its variance is 1, as :eq:`eq-score-variance`
# assumes, and the scores have the variance 1 after the division. Without the division,
# their variance is 64, and the softmax saturates:

with torch.no_grad():
    Q = (X[0] @ layer.W_Q).unflatten(-1, (H, d_h)).transpose(0, 1)
    K = (X[0] @ layer.W_K).unflatten(-1, (H, d_h)).transpose(0, 1)
S = Q @ K.mT
undivided = S.softmax(-1)

fig, axes = plt.subplots(
    2, 4, figsize=(7, 4), layout="constrained", sharex=True, sharey=True
)
for h, ax in enumerate(axes.flat):
    image = plots.attention(ax, undivided[h].numpy(), f"head {h + 1}", largest=1)
    ax.label_outer()
fig.colorbar(image, ax=axes, label="weight", shrink=0.8)
fig.suptitle("Attention weights without the division by $\\sqrt{d_k}$")
fig.set_label(
    "Without the division, most queries give nearly all their weight to a single key."
)
plt.show()

print(f"variance of the scores: divided {(S / 8).var():.2f}, not divided {S.var():.0f}")
printed = [
    (what, f"{p.amax(-1).mean():.2f}")
    for what, p in (("divided", P), ("not divided", undivided))
]
print(markdown_table(("scores", "mean of the largest weight of a row"), printed))

assert 0.8 < (S / 8).var() < 1.2
assert undivided.amax(-1).mean() > 0.7
assert P.amax(-1).mean() < 0.3

# %%
# The order of the rows does not matter
# -------------------------------------
# Shuffling the rows of the matrix shuffles the rows and columns of each map in the same
# way, and changes nothing else: attention is permutation equivariant,
# :eq:`eq-equivariance`. The chapter :doc:`/positions` shows how to encode the order.

order = torch.randperm(n, generator=generator)
with torch.no_grad():
    _, shuffled = layer(X[:, order], need_weights=True)
moved = P[:, order][:, :, order]
print(f"shuffled: {(shuffled[0] - moved).abs().max():.0e} apart")

assert torch.allclose(shuffled[0], moved, atol=1e-6)

# %%
# Limits
# ------
# Random inputs show how the formula behaves, and nothing about language or images. The
# attention weights of a trained network are shown in
# :doc:`/gallery/3_attention/plot_7_rows`.
