r"""
Rotary embedding makes attention scores relative
================================================

**Question.** How can the score of a query and a key depend on their relative position
alone? And why can two correct libraries give different results?

**Answer.** Each pair of features is rotated by an angle proportional to the position,
and the product of two rotated pairs depends on the difference of the angles alone. The
rotation can be written as a complex product or as a block-diagonal matrix. Libraries
differ in which two features form a pair, neighbors or features :math:`d/2` apart; one
permutation converts the layouts, and mixing them changes the scores but no shape.

**Source.** Su et al., *RoFormer: Enhanced transformer with rotary position embedding*,
2021 (arXiv:2104.09864), sections 3.2 and 3.4.2. **Cost.** Seconds on a CPU, no
download.
"""

# %%
# Two dimensions
# --------------
# Let a query and a key have two features each, and read them as complex numbers:
# :math:`\tilde q = q_0 + j q_1`, :math:`\tilde k = k_0 + j k_1`, where :math:`j` is the
# imaginary unit. Their dot product is the real part of :math:`\tilde q\, \tilde k^*`,
# where :math:`{}^*` is the complex conjugate. Now rotate the query at position
# :math:`m` by the angle :math:`m\omega`, and the key at position :math:`n` by
# :math:`n\omega`:
#
# .. math::
#
#    \operatorname{Re} \Big[ \tilde q\, e^{jm\omega} \,
#    \big( \tilde k\, e^{jn\omega} \big)^* \Big]
#    = \operatorname{Re} \Big[ \tilde q\, \tilde k^*\, e^{j(m - n)\omega} \Big] .
#
# The conjugate reverses the angle of the key, so that only the difference of the two
# angles remains. In two dimensions rotations are the only maps with this property: the
# chapter derives them in :eq:`eq-rotary-solution` and lists the assumptions.

import cmath
import math

import matplotlib.pyplot as plt
import torch

from dian.figures.interactive import Interactive
from dian.figures.position_diagrams import rotated_pairs
from dian.figures.tables import markdown_table
from dian.positions.rotary import (
    half_split_order,
    rotate,
    rotate_half_split,
    rotation_matrix,
)
from dian.positions.sinusoidal import frequencies

generator = torch.Generator().manual_seed(0)

omega = torch.tensor([math.pi / 8])
q, k = torch.tensor([[1.0, 0.2]]).double(), torch.tensor([[0.5, 0.7]]).double()

fig, axes = plt.subplots(1, 3, figsize=(7, 4), layout="constrained", sharey=True)
scores = []
for ax, (m, n) in zip(axes, [(0, 0), (3, 1), (7, 5)], strict=True):
    pair = rotate(q, omega, offset=m)[0], rotate(k, omega, offset=n)[0]
    for (x, y), color, name in zip(pair, ("C0", "C1"), ("query", "key"), strict=True):
        ax.annotate(
            "", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": color}
        )
        ax.plot([], [], color=color, label=name)
    scores.append((pair[0] @ pair[1]).item())
    ax.set(title=f"m = {m}, n = {n}\nscore {scores[-1]:.2f}", xlabel="feature 0")
    ax.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
axes[0].set_ylabel("feature 1")
axes[0].legend(loc="lower left")
fig.suptitle("A query at position m and a key at position n")
fig.set_label(
    "One pair of features of a query and a key, rotated by $\\pi/8$ per position. Both "
    "panels on the right have the relative position 2, and therefore the same score."
)
plt.show()

assert math.isclose(scores[1], scores[2])
assert not math.isclose(scores[0], scores[1], rel_tol=0.01)

# %%
# Many dimensions
# ---------------
# A head has an even number :math:`d` of features. In the interleaved layout,
# neighboring features form a pair, and each pair has the frequency that it has in the
# sinusoidal encoding, :eq:`eq-rotary-complex`. Note that :math:`d` is the dimension of
# *one head*.

d, n = 8, 6
omega = frequencies(d)

fig, axes = plt.subplots(4, 4, figsize=(7, 5.5), layout="constrained")
rotated_pairs(axes, omega.tolist(), (0, 1, 10, 100))
fig.suptitle("The four pairs of a head with 8 features, at four positions")
fig.set_label(
    "The four pairs of a head with 8 features at the positions 0, 1, 10 and 100. Each "
    "hand is a pair that points to the right (dotted) before the rotation. The first "
    "pair distinguishes neighboring positions, the last one distant positions."
)
plt.show()

# %%
# With real numbers, each pair is multiplied by a matrix of two rows, and these matrices
# are the blocks of one large matrix, :eq:`eq-rotary-blocks`. The large matrix serves
# for illustration and tests only: most of its entries are zero, so that a product with
# it wastes time.

R = rotation_matrix(torch.tensor(3), omega)

fig, ax = plt.subplots(figsize=(7, 5.5), layout="constrained")
image = ax.imshow(R.numpy(), cmap="RdBu", vmin=-1, vmax=1)
ax.set(title="$R_3$ for d = 8", xlabel="feature of $x$", ylabel="feature of $R_3 x$")
fig.colorbar(image, label="entry")
fig.set_label(
    "The rotation matrix of position 3. Each block rotates one pair; the blocks of the "
    "slow pairs are close to the identity."
)
plt.show()

# %%
# In the interactive figure below, the four pairs of a query and a key are drawn as
# hands, which point to the right at position 0. If you move the query or the key alone,
# the score changes. If you move both by the same number of positions, all hands rotate,
# and the score stays the same.

hands = torch.tensor([[1.0, 0.0] * (d // 2)], dtype=torch.float64)
at_7, at_4 = (rotate(hands, omega, torch.tensor([place])) for place in (7, 4))
assert torch.allclose(at_7 @ at_4.T, torch.cos(3 * omega).sum())

Interactive(
    "rotary",
    "Top: four pairs of features of a query and a key, rotated by their positions. "
    "Bottom: the score, the sum of the products of the pairs, for each relative "
    "position. The dot marks the chosen positions.",
    omega=omega.tolist(),
)

# %%
# A test for your own implementation
# ----------------------------------
# We rotate a random matrix of six vectors with eight features in three ways: with the
# library, with the block-diagonal matrix, and one pair at a time with the complex
# numbers of Python.

x = torch.randn(n, d, generator=generator, dtype=torch.float64)
by_library = rotate(x, omega)
by_blocks = (rotation_matrix(torch.arange(n), omega) @ x[..., None])[..., 0]
by_hand = torch.empty(n, d, dtype=torch.float64)
for m in range(n):
    for i in range(d // 2):
        z = complex(x[m, 2 * i], x[m, 2 * i + 1])
        z *= cmath.exp(1j * m * 10_000 ** (-2 * i / d))
        by_hand[m, 2 * i], by_hand[m, 2 * i + 1] = z.real, z.imag

printed = []
for name, other in [("matrix", by_blocks), ("complex numbers", by_hand)]:
    printed.append((name, f"{(by_library - other).abs().max():.0e}"))
    assert torch.allclose(by_library, other, rtol=0, atol=1e-14)
print(markdown_table(("computed with", "difference from the library"), printed))

# %%
# Norms, groups, and relative scores
# ----------------------------------
# Rotations preserve norms, :eq:`eq-rotary-norm`, and they form a group,
# :eq:`eq-rotary-group`. From these two properties it follows that scores depend on the
# relative position alone, :eq:`eq-rotary-relative`. With the pairs
# :math:`(a_i, b_i)` of :math:`q` and :math:`(c_i, e_i)` of :math:`k`, a score is
#
# .. math::
#    :label: eq-rotary-score
#
#    \langle R_m q, R_n k \rangle = \sum_i \Big[
#    (a_i c_i + b_i e_i) \cos (m - n)\omega_i
#    + (a_i e_i - b_i c_i) \sin (m - n)\omega_i \Big] .
#
# Because of the sine, the score also depends on whether the key is before or after the
# query. The product of two sinusoidal encodings does not.

q, k = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
here = rotate(q, omega) @ rotate(k, omega).T
there = rotate(q, omega, offset=1000) @ rotate(k, omega, offset=1000).T
m, p = 1, 4
difference = rotation_matrix(torch.tensor(p - m), omega)
R_2, R_3, R_5 = rotation_matrix(torch.tensor([2, 3, 5]), omega)
differences = {
    "norms before and after": rotate(x, omega).norm(dim=1) - x.norm(dim=1),
    "R_2 R_3 and R_5": R_2 @ R_3 - R_5,
    "scores here and 1000 positions later": here - there,
}
printed = [(name, f"{x.abs().max():.0e}") for name, x in differences.items()]
print(markdown_table(("compared", "largest difference"), printed))

assert torch.allclose(rotate(x, omega).norm(dim=1), x.norm(dim=1))
assert torch.allclose(R_2 @ R_3, R_5, rtol=0, atol=1e-14)
assert torch.allclose(here, there, rtol=0, atol=1e-12)
assert torch.isclose(here[m, p], q[m] @ difference @ k[p])

# %%
# Two layouts
# -----------
# The interleaved layout of the paper takes neighbors as pairs. The half-split layout of
# Llama in transformers, and of many other libraries, takes feature :math:`i` with
# feature :math:`i + d/2`, :eq:`eq-rotary-halves`. The permutation
# :math:`\pi = (0, 2, 4, \dots, 1, 3, 5, \dots)` converts one to the other,
# :eq:`eq-rotary-layouts`.
#
# Scores are sums over features, so they do not change if the features of *both* query
# and key are permuted. Therefore weights that were trained in one layout can be used in
# the other, after the features of each head have been permuted in :math:`W_Q` and
# :math:`W_K`. (In ``torch.nn.Linear`` these are the rows of the weight.)

pi = half_split_order(d)
print("order:", pi.tolist())
halves = rotate_half_split(x[:, pi], omega)
assert torch.allclose(halves, rotate(x, omega)[:, pi], rtol=0, atol=1e-14)
assert torch.allclose(rotate(x[:, pi], omega, layout="half"), halves)

scores = {
    "both interleaved": rotate(q, omega) @ rotate(k, omega).T,
    "both half-split": rotate_half_split(q[:, pi], omega)
    @ rotate_half_split(k[:, pi], omega).T,
    "mixed": rotate(q, omega) @ rotate_half_split(k, omega).T,
}
printed = [(name, f"{(s - here).abs().max():.0e}") for name, s in scores.items()]
print(markdown_table(("layouts of query and key", "difference of scores"), printed))

assert torch.allclose(scores["both half-split"], here, rtol=0, atol=1e-13)
assert (scores["mixed"] - here).abs().max() > 1

# %%
# Decoding with a cache
# ---------------------
# A sequence is generated token by token, and the rotated keys of all earlier positions
# are cached. The new query needs their number as its offset.


def attend(q, k, v):
    """Return the average of the values of all given keys."""
    return (q @ k.T / d**0.5).softmax(-1) @ v


v = torch.randn(n, 3, generator=generator, dtype=torch.float64)
cached, outputs = torch.empty(0, d).double(), []
for m in range(n):
    offset = len(cached)
    cached = torch.cat([cached, rotate(k[m : m + 1], omega, offset=offset)])
    query = rotate(q[m : m + 1], omega, offset=offset)
    outputs.append(attend(query, cached, v[: m + 1]))
causal = torch.ones(n, n).tril().bool()
scores = (here / d**0.5).masked_fill(~causal, -torch.inf)
error = (torch.cat(outputs) - scores.softmax(-1) @ v).abs().max()
print(f"token by token and all at once: difference {error:.0e}")

assert error < 1e-14

# %%
# Values are not rotated, so the output does not depend on the position at which a
# sequence begins.
#
# Running time
# ------------
# The complex product reads every feature once and writes it once. The usual form with
# two halves also copies the features in another order, and computes several
# intermediate products. We time both for queries of 4 sequences, 8 heads, 1024
# positions and 64 features; each computes its own table of angles.

from time import perf_counter

x, omega = torch.randn(4, 8, 1024, 64, generator=generator), frequencies(64)
seconds = {rotate: [], rotate_half_split: []}
for _ in range(7):
    for form, times in seconds.items():
        begin = perf_counter()
        form(x, omega)
        times.append(perf_counter() - begin)
faster = min(seconds[rotate]) < min(seconds[rotate_half_split])
print("the complex product was faster:", faster)

assert faster

# %%
# Limits
# ------
# A score depends on the relative position alone, but this does not determine how it
# changes with the distance: see :doc:`/gallery/2_positions/plot_4_decay`.
