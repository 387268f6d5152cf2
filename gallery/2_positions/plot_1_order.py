r"""
Attention without positions does not see the order of tokens
============================================================

**Question.** 我爱你 means "I love you", and 你爱我 means "you love me". Can attention
distinguish the two sentences? If not, what has to be added?

**Answer.** It cannot: the outputs for one sentence are those for the other in another
order, and their means agree up to rounding. Learned positions, the sinusoidal encoding,
rotary embedding and a causal mask each distinguish them. ALiBi alone does not, because
one sentence is the reversal of the other, and all distances are the same.

**Source.** Vaswani et al., *Attention Is All You Need*, 2017 (arXiv:1706.03762),
section 3.5; Su et al., *RoFormer*, 2021 (arXiv:2104.09864); Press, Smith and Lewis,
*Train short, test long*, 2021 (arXiv:2108.12409). **Cost.** Seconds on a CPU, no
download.
"""

# %%
# One attention head
# ------------------
# Each row of :math:`X` is the embedding of a token, here of a word. One head of
# attention, :eq:`def-self-attention`, maps each token to a query, a key and a value.
# Its output for a token is a weighted average of all values; the weights are the
# softmax of the scores of its query with all keys. Positions can enter in three places.

from functools import partial

import matplotlib.pyplot as plt
import torch

from dian.figures.position_diagrams import encoding_places
from dian.figures.tables import markdown_table
from dian.positions.alibi import alibi_bias
from dian.positions.learned import LearnedPositions
from dian.positions.rotary import rotate
from dian.positions.sinusoidal import frequencies, sinusoidal_encoding

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
encoding_places(ax)
ax.set_title("One attention head, and where positions can enter")
fig.set_label(
    "One attention head with the shapes of its matrices, and the three places where "
    "positions can enter. Without any of them, the head does not see the order."
)
plt.show()

# %%
# The code below is this head. Vectors are added to :math:`X` before the call; a
# rotation, a bias and a mask are arguments.

generator = torch.Generator().manual_seed(0)
normal = partial(torch.randn, generator=generator, dtype=torch.float64)

d = 16
words = {"我": normal(d), "爱": normal(d), "你": normal(d)}
W_Q, W_K, W_V = normal(3, d, d) / d**0.5


def sentence(text: str) -> torch.Tensor:
    """Return one row for each word."""
    return torch.stack([words[word] for word in text])


def attention(X, rotation=lambda x: x, bias=0.0, mask=None):
    """Return outputs and weights; ``rotation`` is applied to queries and keys."""
    scores = rotation(X @ W_Q) @ rotation(X @ W_K).T / d**0.5 + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1)
    return weights @ X @ W_V, weights


# %%
# Two sentences
# -------------
# By :eq:`eq-permutation`, permuting the tokens permutes the outputs in the same way.
# The attention weights show why: each word attends to each other word with the same
# weight in both sentences.

love, loved = sentence("我爱你"), sentence("你爱我")
outputs = {}
fig, axes = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
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
    ax.set(title=" ".join(names), xlabel="key", ylabel="query")
fig.suptitle("Attention weights without positions")
fig.set_label(
    "Attention weights for two sentences without positional encoding. The right matrix "
    "is the left one with rows and columns in another order."
)
plt.show()

forward, backward = outputs["我爱你"], outputs["你爱我"]
printed = [
    ("outputs in reversed order", f"{(backward.flip(0) - forward).abs().max():.0e}"),
    ("means of the outputs", f"{(backward - forward).mean(0).abs().max():.0e}"),
]
print(markdown_table(("compared", "difference between the sentences"), printed))

assert torch.allclose(backward.flip(0), forward, rtol=0, atol=1e-14)
assert torch.allclose(backward.mean(0), forward.mean(0), rtol=0, atol=1e-14)

# %%
# Positional encodings
# --------------------
# We add a vector for each position to the embeddings, either the fixed one of the
# sinusoidal encoding or a learned one, which here has its initial value. Or we rotate
# queries and keys by an angle proportional to the position (rotary embedding). Or we
# add a bias to the scores: ALiBi subtracts a penalty proportional to the distance, and
# a causal mask removes all keys after the query.

n = len(love)
where = torch.arange(n)
encoding = sinusoidal_encoding(where, d, dtype=torch.float64)
table = LearnedPositions(n, d, generator)(where).detach().double()
rotation = partial(rotate, omega=frequencies(d))
bias = alibi_bias(where, where, n_head=8, dtype=torch.float64)[0]
causal = where <= where[:, None]

encodings = {
    "none": attention,
    "learned positions": lambda X: attention(X + table),
    "sinusoidal": lambda X: attention(X + encoding),
    "rotary": lambda X: attention(X, rotation=rotation),
    "ALiBi": lambda X: attention(X, bias=bias),
    "causal mask": lambda X: attention(X, mask=causal),
    "ALiBi, causal mask": lambda X: attention(X, bias=bias, mask=causal),
}
apart = {}
for name, encoded in encodings.items():
    difference = encoded(love)[0].mean(0) - encoded(loved)[0].mean(0)
    apart[name] = difference.norm().item() / forward.mean(0).norm().item()

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.barh(list(apart), list(apart.values()))
for name, value in apart.items():
    ax.text(value, name, f" {value:.2g}", va="center")
ax.invert_yaxis()
ax.set(xlabel="distance of the mean outputs / norm of the mean output")
ax.set(xlim=(0, 1.15 * max(apart.values())))
ax.set_title("How much the two sentences differ after attention")
fig.set_label(
    "Distance between the mean outputs for the two sentences, relative to the norm of "
    "the mean output without positional encoding. Without positional encoding, and "
    "with ALiBi alone, the distance is zero up to rounding."
)
plt.show()

blind = ("none", "ALiBi")
assert all(apart[name] < 1e-14 for name in blind)
assert all(apart[name] > 1e-3 for name in encodings if name not in blind)

# %%
# The initial values of learned positions are small, and so is their effect here; it
# can grow in training.
#
# Why ALiBi does not see a reversal
# ---------------------------------
# ALiBi depends on the distance between query and key, and not on their order. A
# reversed sentence has the same distances. If only two words are exchanged, the mean
# outputs differ. In the paper, ALiBi is combined with a causal mask, which breaks the
# symmetry.

words |= {"不": normal(d)}
long, mirrored, other = (
    sentence(text) for text in ("我不爱你", "你爱不我", "你不爱我")
)
where = torch.arange(4)
bias = alibi_bias(where, where, n_head=8, dtype=torch.float64)[0]
means = [attention(X, bias=bias)[0].mean(0) for X in (long, mirrored, other)]
printed = [
    ("reversed", f"{(means[0] - means[1]).norm():.0e}"),
    ("two words exchanged", f"{(means[0] - means[2]).norm():.0e}"),
]
print(markdown_table(("order of the words", "change of the mean output"), printed))

assert torch.allclose(means[0], means[1], rtol=0, atol=1e-14)
assert (means[0] - means[2]).norm() > 1e-3

# %%
# A test for your own implementation
# ----------------------------------
# A random matrix and one permutation are enough: without an encoding the outputs are
# permuted with the inputs, and with an encoding they are not.

X, order = normal(7, d), torch.tensor([3, 0, 6, 2, 5, 1, 4])
encoding = sinusoidal_encoding(torch.arange(7), d, dtype=torch.float64)
without = attention(X[order])[0] - attention(X)[0][order]
with_it = attention(X[order] + encoding)[0] - attention(X + encoding)[0][order]
printed = [
    ("without positions", f"{without.abs().max():.0e}"),
    ("with positions", f"{with_it.abs().max():.2f}"),
]
print(markdown_table(("input", "difference from the permuted outputs"), printed))

assert without.abs().max() < 1e-14
assert with_it.abs().max() > 0.1

# %%
# Limits
# ------
# That attention distinguishes two sentences does not mean that a network makes use of
# the difference. A causal mask alone encodes the order only through the keys that it
# removes; :doc:`/gallery/2_positions/plot_6_extrapolation` measures how well this
# works.
