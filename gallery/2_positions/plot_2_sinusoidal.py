r"""
What the sinusoidal encoding says, and what it does not
=======================================================

**Question.** Why sines and cosines? What can attention read from the encoding, and
which of the things that are often said about it are true?

**Answer.** A shift of the position turns every pair of features, by an angle that does
not depend on where it starts. So the dot product of two encodings depends on their
offset alone, and is the sum of the cosines of all angles between them. It falls, but
not steadily; the scores of attention, with matrices between the encodings, depend on
where the two words stand; and the longest wavelength is less than 10000 times
:math:`2\pi`.

**Source.** Vaswani et al., *Attention Is All You Need*, 2017 (arXiv:1706.03762),
section 3.5; the four terms of a score are those of Dai et al., *Transformer-XL*, 2019
(arXiv:1901.02860), section 3.3. **Cost.** Seconds on a CPU, no download.
"""

# %%
# Clock hands
# -----------
# Pair :math:`i` of the encoding is a point on a circle, which goes round with the
# frequency :math:`\omega_i = \theta^{-2i/d}`, as the hand of a clock: the first is the
# fastest, and each later one is slower by the same factor. Here are 128 positions in 64
# features; each column is one feature, sine and cosine by turns.

import math

import matplotlib.pyplot as plt
import mpmath
import numpy as np
import torch

from dian.positions.rotary import rotation_matrix
from dian.positions.sinusoidal import frequencies, offset_product, sinusoidal_encoding


def encode(positions, d: int) -> torch.Tensor:
    """Encode positions in double precision."""
    where = torch.as_tensor(positions)
    return sinusoidal_encoding(where, d, dtype=torch.float64)


d = 64
PE = encode(torch.arange(128), d)

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
image = ax.imshow(PE.numpy(), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
ax.set(xlabel="feature", ylabel="position", title="The sinusoidal encoding")
fig.colorbar(image, label="value")
plt.show()

print("first features of positions 0 and 1:")
print(PE[:2, :6].numpy().round(4))

assert torch.equal(PE[0], torch.tensor([0.0, 1.0] * 32).double())
assert torch.allclose(PE.square().sum(1), torch.tensor(d / 2).double())

# %%
# A test case
# -----------
# The formula once more, one number at a time, for positions and features of any choice.

generator = torch.Generator().manual_seed(0)
where = torch.randint(100_000, (5,), generator=generator)
found, slow = encode(where, d), torch.empty(5, d, dtype=torch.float64)
for row, p in enumerate(where.tolist()):
    for i in range(d // 2):
        angle = p / 10_000 ** (2 * i / d)
        slow[row, 2 * i] = math.sin(angle)
        slow[row, 2 * i + 1] = math.cos(angle)
print(f"positions {where.tolist()}: apart by {(found - slow).abs().max():.0e}")

assert torch.allclose(found, slow, rtol=0, atol=1e-10)

# %%
# A shift is a rotation
# ---------------------
# By the addition theorems,
#
# .. math::
#
#    \sin (p + k)\omega &= \cos k\omega \sin p\omega + \sin k\omega \cos p\omega, \\
#    \cos (p + k)\omega &= \cos k\omega \cos p\omega - \sin k\omega \sin p\omega .
#
# Both are linear in sine and cosine of :math:`p\omega`, with factors in which :math:`p`
# does not occur. Written for all pairs at once,
#
# .. math::
#    :label: eq-shift-rotation
#
#    PE(p + k) = M_k \, PE(p), \qquad
#    M_k = \operatorname{blockdiag}_i \begin{pmatrix}
#    \cos k\omega_i & \sin k\omega_i \\ -\sin k\omega_i & \cos k\omega_i
#    \end{pmatrix}, \qquad M_k^\top M_k = I .
#
# One matrix moves every position by :math:`k`. It is the transpose of the matrix by
# which rotary embedding rotates a query (:doc:`/gallery/2_positions/plot_3_rotary`). As
# all rotations in this report, it acts on column vectors.

k, omega = 5, frequencies(d)
M = rotation_matrix(torch.tensor(k), omega).mT
error = (PE[:-k] @ M.T - PE[k:]).abs().max()
print(f"all positions moved by {k} with one matrix: apart by {error:.0e}")

assert error < 1e-12

fig, axes = plt.subplots(1, 3, figsize=(8, 3.1), layout="constrained")
for ax, i in zip(axes, (0, 4, 8), strict=True):
    ax.plot(PE[:13, 2 * i + 1], PE[:13, 2 * i], "o-", linewidth=0.7, markersize=4)
    for p in (0, 1, 2, 3):
        ax.annotate(str(p), (1.13 * PE[p, 2 * i + 1], 1.13 * PE[p, 2 * i]), ha="center")
    ax.set(title=f"pair {i}", xlabel="cosine", xlim=(-1.3, 1.3), ylim=(-1.3, 1.3))
    ax.set_aspect("equal")
axes[0].set_ylabel("sine")
fig.suptitle("Positions 0 to 12 on the circles of three pairs")
plt.show()

# %%
# The product of two encodings
# ----------------------------
# A rotation keeps products, so that of two encodings depends on their offset alone.
# Pair by pair it is :math:`\sin p\omega \sin q\omega + \cos p\omega \cos q\omega`,
# which is the cosine of the difference:
#
# .. math::
#    :label: eq-offset-product
#
#    \langle PE(p), PE(q) \rangle = c(p - q), \qquad
#    c(\Delta) = \sum_{i=0}^{d/2-1} \cos \Delta\,\omega_i, \qquad
#    \lVert PE(p) - PE(q) \rVert^2 = d - 2\,c(p - q) .
#
# It is the same in both directions, and largest at :math:`c(0) = d/2`. For wide
# encodings the sum is close to an integral over :math:`i`, in which
# :math:`u = \Delta\,\omega` is the variable; Euler and Maclaurin add half of what the
# two ends differ by:
#
# .. math::
#    :label: eq-offset-integral
#
#    c(\Delta) \approx \frac{d}{2 \ln \theta}
#    \Big[ \operatorname{Ci}(\Delta) - \operatorname{Ci}(\Delta/\theta) \Big]
#    + \tfrac12 \big( \cos \Delta - \cos (\Delta/\theta) \big), \qquad
#    \operatorname{Ci}(x) = -\int_x^\infty \frac{\cos u}{u}\, du .


def integral(x: int, d: int, base: float = 10_000) -> float:
    """Approximate the sum by an integral, with its ends."""
    inner = float(mpmath.ci(x) - mpmath.ci(x / base))
    return d / (2 * math.log(base)) * inner + (math.cos(x) - math.cos(x / base)) / 2


products = PE @ PE.T
offsets = torch.arange(128)
assert torch.allclose(products[0], offset_product(offsets, d), rtol=0, atol=1e-12)
assert torch.allclose(products[100, :101], products[0, :101].flip(0), atol=1e-12)

wide, far = 512, torch.arange(1, 2000)
exact = offset_product(far, wide)
smooth = np.array([integral(x, wide) for x in far.tolist()])

fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
image = left.imshow(products.numpy(), cmap="viridis")
left.set(title="Products, d = 64", xlabel="position $q$", ylabel="position $p$")
fig.colorbar(image, ax=left)
right.semilogx(far, exact, "-", label="sum")
right.semilogx(far, smooth, "--", label="integral")
right.set(title="d = 512", xlabel=r"offset $\Delta$", ylabel=r"product $c(\Delta)$")
right.legend()
plt.show()

error = np.abs(smooth / exact.numpy() - 1)
for x in (10, 100, 512):
    print(f"offset {x:4}: sum {exact[x - 1]:7.2f}, integral {smooth[x - 1]:7.2f}")
print(f"largest relative error up to 100: {error[:100].max():.1%}")
rises = (offset_product(torch.arange(64), d).diff() > 0).nonzero().flatten()
print(f"d = 64: rises first from offset {rises[0]} to {rises[0] + 1}")

assert error[:100].max() < 0.01
assert error.max() > 0.5
assert 0 < rises[0] < 63

# %%
# Three things that are not true
# ------------------------------
# **"The product falls with the distance."** On the whole it does; but as was printed,
# it also rises.
#
# **"So attention sees relative positions."** It would, if it took the product of the
# encodings. But it takes the product of queries and keys. With words and encodings as
# row vectors again, this is
#
# .. math::
#    :label: eq-absolute-logits
#
#    (x_p + PE_p)\, A\, (x_q + PE_q)^\top
#    = x_p A x_q^\top + x_p A\, PE_q^\top + PE_p\, A\, x_q^\top + PE_p\, A\, PE_q^\top,
#    \qquad A = W_Q W_K^\top,
#
# and even the last term depends on the offset alone only for special matrices
# :math:`A`, such as the unit matrix. Here it is for pairs of words five apart:

W_Q, W_K = (
    torch.randn(d, 11, generator=generator, dtype=torch.float64) / d**0.5
    for _ in range(2)
)
starts = torch.arange(100)
with_matrices = ((PE[starts] @ W_Q) * (PE[starts + 5] @ W_K)).sum(1)
without = (PE[starts] * PE[starts + 5]).sum(1)

fig, ax = plt.subplots(figsize=(6.6, 3), layout="constrained")
for values, style, label in [
    (without, "--", "A = I"),
    (with_matrices, "-", "random A"),
]:
    ax.plot(starts, values - values.mean(), style, label=label)
ax.set(xlabel="position $p$", ylabel="minus its mean")
ax.set_title(r"$PE_p\, A\, PE_{p+5}^\top$ along a text")
ax.legend()
plt.show()

print(f"spread with A = I:      {without.std():.0e}")
print(f"spread with a random A: {with_matrices.std():.2f}")
assert without.std() < 1e-12
assert with_matrices.std() > 0.1

# %%
# A network may learn such an :math:`A`, and must for each head anew. Rotary embedding
# leaves it no choice.
#
# **"Wavelengths go up to 10000 times** :math:`2\pi` **".** They are
#
# .. math::
#    :label: eq-wavelengths
#
#    \lambda_i = \frac{2\pi}{\omega_i} = 2\pi\,\theta^{2i/d}, \qquad
#    \lambda_0 = 2\pi, \qquad \lambda_{d/2-1} = 2\pi\,\theta^{1 - 2/d},
#
# and the last one reaches :math:`2\pi\,\theta` only in the limit of a wide encoding.

for width in (64, 512):
    last = 1 / frequencies(width)[-1].item()
    print(f"d = {width}: the last wavelength is {last:.0f} times 2 pi")
    assert last < 9999

# %%
# No two positions are alike
# --------------------------
# The first frequency is 1. If two encodings were the same, then so would be their first
# pairs, and :math:`p - q` would be a multiple of :math:`2\pi`. No whole number is, but
# 0:
#
# .. math::
#    :label: eq-injective
#
#    PE(p) = PE(q), \quad p, q \in \mathbb Z
#    \quad \Rightarrow \quad p - q \in 2\pi \mathbb Z
#    \quad \Rightarrow \quad p = q .
#
# The other pairs see to it that they are not even close.

far = torch.arange(1, 4096)
distances = (d - 2 * offset_product(far, d)).sqrt()
first_pair = (2 - 2 * offset_product(far, 2)).sqrt()
print(f"least distance of 4096 positions, d = 64: {distances.min():.2f}")
print(f"with the first pair alone:                {first_pair.min():.0e}")

assert distances.min() > 1
assert 0 < first_pair.min() < 1e-3

# %%
# Limits
# ------
# All this is about the encoding by itself. Words are added to it, matrices and a
# softmax follow, and what a network makes of it beyond the positions that it was
# trained on, is another question: :doc:`/positions`.
