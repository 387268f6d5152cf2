r"""
Attention does not see the order of words
=========================================

**Question.** 我爱你 means "I love you", and 你爱我 "you love me". Can attention tell
the two apart? What has to be added so that it can?

**Answer.** As it is, it cannot: the outputs for one sentence are those for the other in
another order, and their means agree to the last digit. Learned positions, the
sinusoidal encoding and rotary embedding each tell them apart, and so does a causal mask
without any positions. ALiBi, a penalty for the distance, does not do so by itself: one
sentence is the other read backwards, and all distances stay the same.

**Source.** Vaswani et al., *Attention Is All You Need*, 2017 (arXiv:1706.03762),
section 3.5; Su et al., *RoFormer*, 2021 (arXiv:2104.09864); Press, Smith and Lewis,
*Train short, test long*, 2021 (arXiv:2108.12409). **Cost.** Seconds on a CPU, no
download.
"""

# %%
# One head of attention
# ---------------------
# Each row of :math:`X` is a word. Every word asks with a query, and gathers the values
# of all words, weighted by how well their keys fit:
#
# .. math::
#    :label: def-self-attention
#
#    f(X) = \operatorname{softmax}\Big( \frac{1}{\sqrt{d}}\,
#    X W_Q\, (X W_K)^\top \Big)\, X W_V .
#
# Put the words into another order with a permutation matrix :math:`\Pi`. The scores
# become :math:`\Pi S \Pi^\top`: their rows are permuted, and their columns. The softmax
# takes each row for itself and does not care in which order a row is. So
# :math:`\Pi^\top` meets the :math:`\Pi` of the values, and what is left is
#
# .. math::
#    :label: eq-permutation
#
#    f(\Pi X) = \Pi\, f(X), \qquad
#    \mathbf 1^\top f(\Pi X) = \mathbf 1^\top f(X) .
#
# The outputs are permuted as the inputs were, and their mean, by which a classifier
# would read the sentence, is the same.

from functools import partial

import matplotlib.pyplot as plt
import torch

from dian.positions.alibi import alibi_bias
from dian.positions.learned import LearnedPositions
from dian.positions.rotary import rotate
from dian.positions.sinusoidal import frequencies, sinusoidal_encoding

generator = torch.Generator().manual_seed(0)
normal = partial(torch.randn, generator=generator, dtype=torch.float64)

d = 16
words = {"我": normal(d), "爱": normal(d), "你": normal(d)}
W_Q, W_K, W_V = normal(3, d, d) / d**0.5


def sentence(text: str) -> torch.Tensor:
    """One row for each word."""
    return torch.stack([words[word] for word in text])


def attention(X, turn=lambda x: x, bias=0.0, may_read=None):
    """Return the outputs, and the weights; ``turn`` is applied to queries and keys."""
    scores = turn(X @ W_Q) @ turn(X @ W_K).T / d**0.5 + bias
    if may_read is not None:
        scores = scores.masked_fill(~may_read, -torch.inf)
    weights = scores.softmax(-1)
    return weights @ X @ W_V, weights


# %%
# Two sentences
# -------------

love, loved = sentence("我爱你"), sentence("你爱我")
outputs = {}
fig, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
english = {"我": "I", "爱": "love", "你": "you"}
for ax, text in zip(axes, ("我爱你", "你爱我"), strict=True):
    outputs[text], weights = attention(sentence(text))
    ax.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(weights):
        for j, weight in enumerate(row):
            color = "white" if weight > 0.6 else "black"
            ax.text(j, i, f"{weight:.2f}", ha="center", va="center", color=color)
    names = [english[word] for word in text]
    ax.set_xticks(range(3), names)
    ax.set_yticks(range(3), names)
    ax.set(title=" ".join(names), xlabel="is read", ylabel="reads")
fig.suptitle("Weights of attention without positions")
plt.show()

forward, backward = outputs["我爱你"], outputs["你爱我"]
print(f"outputs, in the other order: {(backward.flip(0) - forward).abs().max():.0e}")
print(f"means of the outputs:        {(backward - forward).mean(0).abs().max():.0e}")

assert torch.allclose(backward.flip(0), forward, rtol=0, atol=1e-14)
assert torch.allclose(backward.mean(0), forward.mean(0), rtol=0, atol=1e-14)

# %%
# Each word reads each other word with the same weight in both sentences. What a word
# says of itself is all that attention knows.
#
# Four ways to say where
# ----------------------
# A vector for each position can be *added to the words*: a fixed one, by the sinusoidal
# encoding, or a learned one, which here is what a network would start from. Queries and
# keys can be *turned* by an angle in proportion to the position: rotary embedding. Or
# something can be *added to the scores*: ALiBi takes off a penalty in proportion to the
# distance. Finally a causal mask, with which each word reads only those before it and
# itself.

n = len(love)
where = torch.arange(n)
encoding = sinusoidal_encoding(where, d, dtype=torch.float64)
table = LearnedPositions(n, d, generator)(where).detach().double()
turn = partial(rotate, omega=frequencies(d))
bias = alibi_bias(where, where, n_head=8, dtype=torch.float64)[0]
causal = where <= where[:, None]

ways = {
    "none": attention,
    "learned positions": lambda X: attention(X + table),
    "sinusoidal": lambda X: attention(X + encoding),
    "rotary": lambda X: attention(X, turn=turn),
    "ALiBi": lambda X: attention(X, bias=bias),
    "causal mask": lambda X: attention(X, may_read=causal),
    "ALiBi, causal mask": lambda X: attention(X, bias=bias, may_read=causal),
}
apart = {}
for name, way in ways.items():
    difference = way(love)[0].mean(0) - way(loved)[0].mean(0)
    apart[name] = difference.norm().item() / forward.mean(0).norm().item()
    print(f"{name:20} means apart by {apart[name]:7.1e} of their length")

fig, ax = plt.subplots(figsize=(6.6, 3.2), layout="constrained")
ax.barh(list(apart), list(apart.values()))
ax.invert_yaxis()
ax.set(xlabel="distance of the two means / length of one")
ax.set_title("How far apart attention takes two sentences to be")
plt.show()

blind = ("none", "ALiBi")
assert all(apart[name] < 1e-14 for name in blind)
assert all(apart[name] > 1e-3 for name in ways if name not in blind)

# %%
# The learned positions start small, and so does their effect; training would make them
# as large as is needed.
#
# Why ALiBi is blind here
# -----------------------
# It knows distances, and not on which side a word stands. Read backwards, a sentence
# has the same distances. When only the first two words change places, it notices; and
# in the paper it stands beside a causal mask, which has no such symmetry.

words |= {"不": normal(d)}
long, mirrored, other = (
    sentence(text) for text in ("我不爱你", "你爱不我", "你不爱我")
)
where = torch.arange(4)
bias = alibi_bias(where, where, n_head=8, dtype=torch.float64)[0]
means = [attention(X, bias=bias)[0].mean(0) for X in (long, mirrored, other)]
print(f"backwards:         {(means[0] - means[1]).norm():.0e}")
print(f"two words changed: {(means[0] - means[2]).norm():.0e}")

assert torch.allclose(means[0], means[1], rtol=0, atol=1e-14)
assert (means[0] - means[2]).norm() > 1e-3

# %%
# A test case of your own
# -----------------------
# One matrix of random numbers is enough to see it, in any order: the outputs move with
# the inputs, and no longer do so when each row is told where it stands.

X, order = normal(7, d), torch.tensor([3, 0, 6, 2, 5, 1, 4])
encoding = sinusoidal_encoding(torch.arange(7), d, dtype=torch.float64)
without = attention(X[order])[0] - attention(X)[0][order]
with_it = attention(X[order] + encoding)[0] - attention(X + encoding)[0][order]
print(f"without positions: {without.abs().max():.0e}")
print(f"with positions:    {with_it.abs().max():.2f}")

assert without.abs().max() < 1e-14
assert with_it.abs().max() > 0.1

# %%
# Limits
# ------
# That two sentences are told apart says nothing about what a network makes of it. And a
# causal mask alone tells of an order only by what cannot be read: how well that serves
# is a question for an experiment.
