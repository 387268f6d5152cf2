r"""
A random matrix under eight heads
=================================

**Question.** Take a random matrix, 20 positions of width 512, and a layer with 8 heads
that nobody has trained. What do its attention weights look like, and can one of them be
computed by hand?

**Answer.** Every head has its own heat map, each row of it sums to one, and all maps
are pale: a row is spread over more than ten of the twenty positions, since the scores
of a fresh layer have the variance 1. Any entry can be had from the rows of the matrix,
with one product for each key. Take the division by the square root away, and the
variance is 64: the same maps turn into a few dark dots. If the rows of the matrix are
shuffled, the maps are shuffled with them, and nothing else changes.

**Source.** The exercise is from the study that this report grew out of; the layer is
that of Vaswani et al., 2017 (arXiv:1706.03762). **Cost.** Seconds on a CPU, no
download.
"""

# %%
# The matrix and the layer
# ------------------------
# Entries are independent and normal, and the projections start as Xavier's. No position
# is told from any other: this matrix stands for 20 words whose vectors know nothing of
# each other.

import math

import matplotlib.pyplot as plt
import torch

from dian.attention.multi_head import MultiHeadAttention
from dian.attention.score_statistics import entropy
from dian.figures import plots
from dian.figures.interactive import Interactive

n, D, H = 20, 512, 8
d_h = D // H
generator = torch.Generator().manual_seed(0)
X = torch.randn(1, n, D, generator=generator)
layer = MultiHeadAttention(D, H, generator=generator)

with torch.no_grad():
    output, weights = layer(X, need_weights=True)
P = weights[0]
print(f"input {tuple(X.shape)}, output {tuple(output.shape)}, weights {tuple(P.shape)}")

# %%
# The heat maps
# -------------

fig, axes = plt.subplots(
    2, 4, figsize=(9, 5), layout="constrained", sharex=True, sharey=True
)
for h, ax in enumerate(axes.flat):
    image = plots.attention(ax, P[h].numpy(), f"head {h + 1}", largest=P.max().item())
    ax.label_outer()
fig.colorbar(image, ax=axes, label="weight", shrink=0.8)
fig.suptitle("Attention weights of an untrained layer, 20 random positions")
plt.show()

print(f"rows sum to one within {(P.sum(-1) - 1).abs().max():.0e}")
print(f"weights from {P.min():.3f} to {P.max():.3f}; 1/20 is 0.050")
spread = entropy(P).exp().mean()
print(f"on average a row is spread over {spread:.1f} of 20 keys")

assert torch.allclose(P.sum(-1), torch.ones(H, n), atol=1e-5)
assert output.shape == X.shape
assert spread > 10
for h in range(H):
    for other in range(h):
        assert (P[h] - P[other]).abs().max() > 0.05

# %%
# Go through the rows yourself: under the map stands the row that is marked.

Interactive(
    "attention",
    "Attention weights: one row for each query, one column for each key.",
    weights=[[[round(p, 4) for p in row] for row in head] for head in P.tolist()],
)

# %%
# One entry by hand
# -----------------
# The weight that position 4 of head 3 gives to position 8 (all counted from 1). Take
# the columns of the projections that belong to the head; project row 4 to a query, and
# every row to a key; divide the products by :math:`\sqrt{64} = 8`; exponentiate; and
# divide by the sum. Nothing below is more than a product or a sum.

h, i, j = 2, 3, 7
own = slice(h * d_h, (h + 1) * d_h)
with torch.no_grad():
    q = X[0, i] @ layer.W_Q[:, own]
    keys = [X[0, position] @ layer.W_K[:, own] for position in range(n)]
scores = [sum((q * k).tolist()) / math.sqrt(d_h) for k in keys]
exponentials = [math.exp(s) for s in scores]
by_hand = exponentials[j] / sum(exponentials)

print("scores:", " ".join(f"{s:.2f}" for s in scores))
print(f"e^{scores[j]:.3f} / {sum(exponentials):.3f} = {by_hand:.5f}")
print(f"the layer says               {P[h, i, j]:.5f}")

assert abs(by_hand - P[h, i, j].item()) < 1e-6

# %%
# How large are the scores?
# -------------------------
# A projected entry is a sum of 512 terms, each of variance :math:`1 \cdot 2 / (512 +
# 512)` (equation :eq:`eq-xavier` of the first chapter): its variance is 1. So far the
# assumption of :eq:`eq-score-variance` holds, and the scores have the variance 1 after
# the division. Without it they have the variance 64, and the maps are those of a
# network that can hardly learn.

with torch.no_grad():
    Q = (X[0] @ layer.W_Q).unflatten(-1, (H, d_h)).transpose(0, 1)
    K = (X[0] @ layer.W_K).unflatten(-1, (H, d_h)).transpose(0, 1)
S = Q @ K.mT
undivided = S.softmax(-1)

fig, axes = plt.subplots(1, 4, figsize=(9, 2.8), layout="constrained", sharey=True)
for h, ax in enumerate(axes):
    image = plots.attention(ax, undivided[h].numpy(), f"head {h + 1}", largest=1)
    ax.label_outer()
fig.colorbar(image, ax=axes, label="weight", shrink=0.9)
fig.suptitle("The same without the division by the square root")
plt.show()

print(f"variance of the scores: divided {(S / 8).var():.2f}, not divided {S.var():.0f}")
for what, p in (("divided", P), ("not divided", undivided)):
    largest = p.amax(-1).mean()
    print(f"{what:12} largest weight of a row: {largest:.2f} on average")

assert 0.8 < (S / 8).var() < 1.2
assert undivided.amax(-1).mean() > 0.7
assert P.amax(-1).mean() < 0.3

# %%
# Where the rows stand does not matter
# ------------------------------------
# Nothing here knows the order. Shuffle the rows of the matrix, and each map is the same
# with its rows and columns shuffled alike: :eq:`eq-equivariance` of the chapter. What
# :doc:`/positions` adds is exactly what is missing.

order = torch.randperm(n, generator=generator)
with torch.no_grad():
    _, shuffled = layer(X[:, order], need_weights=True)
moved = P[:, order][:, :, order]
print(f"shuffled: {(shuffled[0] - moved).abs().max():.0e} apart")

assert torch.allclose(shuffled[0], moved, atol=1e-6)

# %%
# Limits
# ------
# Random maps tell what the formula does, and nothing about language or images. Maps of
# a trained network are on :doc:`/gallery/3_attention/plot_7_rows`.
