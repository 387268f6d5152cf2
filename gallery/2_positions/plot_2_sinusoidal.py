r"""
Sinusoids turn shifts into rotations, but scores stay absolute
==============================================================

**Question.** Why does the encoding consist of sines and cosines? Which conclusions
about attention scores follow from its form?

**Answer.** A shift by :math:`k` positions rotates every pair of features, by an angle
that depends on :math:`k` alone. The dot product of two encodings therefore depends on
their offset alone; it decreases on the whole, but not monotonically. Attention scores
still depend on absolute positions. The longest wavelength is below
:math:`10\,000 \cdot 2\pi`.

**Source.** Vaswani et al., *Attention Is All You Need*, 2017 (arXiv:1706.03762),
section 3.5; the four terms of a score are those of Dai et al., *Transformer-XL*, 2019
(arXiv:1901.02860), section 3.3. **Cost.** Seconds on a CPU, no download.
"""

# %%
# The encoding
# ------------
# Pair :math:`i` of the encoding is a point that moves on a circle with the frequency
# :math:`\omega_i = \theta^{-2i/d}`, like the tip of a clock hand: the first pair is the
# fastest, and each pair is slower than the one before it by the same factor. The figure
# shows 128 positions in 64 features; features with an even index are sines, the others
# cosines.

import math

import matplotlib.pyplot as plt
import mpmath
import numpy as np
import torch

from dian.figures.interactive import Interactive
from dian.figures.tables import markdown_table
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
fig.set_label(
    "The sinusoidal encoding of 128 positions. The first two features oscillate with "
    "a period of $2\\pi$ positions; the last ones hardly change."
)
plt.show()

assert torch.equal(PE[0], torch.tensor([0.0, 1.0] * 32).double())
assert torch.allclose(PE.square().sum(1), torch.tensor(d / 2).double())

# %%
# In the interactive figure below you can change the base :math:`\theta`. With a small
# base all pairs are fast, and the product of two encodings falls to about zero within a
# few positions. With a large base most pairs hardly change within 48 positions, and all
# products are large. If you move the position, the curve of the products moves along.

few, many = (offset_product(torch.arange(48), 32, base) for base in (10.0, 1e5))
assert few[5:].abs().max() < 4 < 7 < many.min() < many.max() == 16

Interactive(
    "sinusoidal",
    "Left: the encoding of 48 positions with 32 features. Right: the product of each "
    "encoding with that of the chosen position. The hue of a cell shows "
    "the sign of the value, and its strength the magnitude.",
    d=32,
    n=48,
    bases=[10, 100, 1000, 10_000, 100_000],
)

# %%
# A test for your own implementation
# ----------------------------------
# We evaluate the formula :eq:`eq-sinusoidal` once more, one number at a time, at random
# positions.

generator = torch.Generator().manual_seed(0)
where = torch.randint(100_000, (5,), generator=generator)
found, slow = encode(where, d), torch.empty(5, d, dtype=torch.float64)
for row, p in enumerate(where.tolist()):
    for i in range(d // 2):
        angle = p / 10_000 ** (2 * i / d)
        slow[row, 2 * i] = math.sin(angle)
        slow[row, 2 * i + 1] = math.cos(angle)
print(f"positions {where.tolist()}: difference {(found - slow).abs().max():.0e}")

assert torch.allclose(found, slow, rtol=0, atol=1e-10)

# %%
# A shift is a rotation
# ---------------------
# By the angle-addition formulas, one matrix :math:`M_k` shifts every position by
# :math:`k`, and it rotates each pair by a fixed angle, :eq:`eq-shift-rotation`. This
# matrix is the transpose of the one by which rotary embedding rotates a query
# (:doc:`/gallery/2_positions/plot_3_rotary`). Like all rotations in this report, it
# acts on column vectors.

k, omega = 5, frequencies(d)
M = rotation_matrix(torch.tensor(k), omega).mT
error = (PE[:-k] @ M.T - PE[k:]).abs().max()
print(f"all positions shifted by {k} with one matrix: difference {error:.0e}")

assert error < 1e-12

fig, axes = plt.subplots(1, 3, figsize=(7, 4), layout="constrained")
for ax, i in zip(axes, (0, 4, 8), strict=True):
    ax.plot(PE[:13, 2 * i + 1], PE[:13, 2 * i], "o-", linewidth=0.7, markersize=4)
    for p in (0, 1, 2, 3) if i < 8 else (0, 12):
        ax.annotate(str(p), (1.13 * PE[p, 2 * i + 1], 1.13 * PE[p, 2 * i]), ha="center")
    ax.set(title=f"pair {i}", xlabel="cosine", xlim=(-1.3, 1.3), ylim=(-1.3, 1.3))
    ax.set_aspect("equal")
axes[0].set_ylabel("sine")
fig.suptitle("Positions 0 to 12 on the circles of three pairs")
fig.set_label(
    "Positions 0 to 12 as points on the circles of three pairs. In each pair, a step "
    "to the next position is a rotation by one angle, which is smaller in later pairs."
)
plt.show()

# %%
# The dot product of two encodings
# --------------------------------
# Since rotations preserve inner products, the product of two encodings depends on their
# offset alone: it is the sum :math:`c(\Delta)` of the cosines of all angles between
# them, :eq:`eq-offset-product`. It is symmetric in the sign of the offset, and largest
# at :math:`c(0) = d/2`. For large :math:`d` the sum over the pairs :math:`i` is close
# to an integral. Since :math:`\omega = \theta^{-2i/d}`, we have
# :math:`\mathrm{d}i = -\frac{d}{2 \ln \theta} \frac{\mathrm{d}\omega}{\omega}`.
# (The upright :math:`\mathrm{d}` marks differentials; :math:`d` is the dimension.) The
# substitution :math:`u = \Delta\,\omega` leads to the cosine integral
# :math:`\operatorname{Ci}`. The Euler–Maclaurin formula adds half of the difference
# between the cosines at the two ends of the range:
#
# .. math::
#    :label: eq-offset-integral
#
#    c(\Delta) \approx \frac{d}{2 \ln \theta}
#    \Big[ \operatorname{Ci}(\Delta) - \operatorname{Ci}(\Delta/\theta) \Big]
#    + \tfrac12 \big( \cos \Delta - \cos (\Delta/\theta) \big), \qquad
#    \operatorname{Ci}(x) = -\int_x^\infty \frac{\cos u}{u}\, \mathrm{d}u .


def integral(x: int, d: int, base: float = 10_000) -> float:
    """Approximate the sum by an integral and its end-point terms."""
    inner = float(mpmath.ci(x) - mpmath.ci(x / base))
    return d / (2 * math.log(base)) * inner + (math.cos(x) - math.cos(x / base)) / 2


products = PE @ PE.T
offsets = torch.arange(128)
assert torch.allclose(products[0], offset_product(offsets, d), rtol=0, atol=1e-12)
assert torch.allclose(products[100, :101], products[0, :101].flip(0), atol=1e-12)

wide, far = 512, torch.arange(1, 2000)
exact = offset_product(far, wide)
smooth = np.array([integral(x, wide) for x in far.tolist()])

fig, (left, right) = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
image = left.imshow(products.numpy(), cmap="viridis")
left.set(title="All products, d = 64", xlabel="position $q$", ylabel="position $p$")
fig.colorbar(image, ax=left, shrink=0.7)
right.semilogx(far, exact, "-", label="sum")
right.semilogx(far, smooth, "--", label="integral")
right.set(title="d = 512", xlabel=r"offset $\Delta$", ylabel=r"product $c(\Delta)$")
right.legend()
fig.set_label(
    "The dot product of two encodings. Left: it is constant along diagonals, since it "
    "depends on the offset alone. Right: it decreases on the whole, but not "
    "monotonically; the integral is close to it up to an offset of about 100."
)
plt.show()

error = np.abs(smooth / exact.numpy() - 1)
rises = (offset_product(torch.arange(64), d).diff() > 0).nonzero().flatten()
print(
    f"largest relative error of the integral up to offset 100: {error[:100].max():.1%}"
)
print(f"d = 64: first increase from offset {rises[0]} to {rises[0] + 1}")

assert error[:100].max() < 0.01
assert error.max() > 0.5
assert 0 < rises[0] < 63

# %%
# Three conclusions that do not hold
# ----------------------------------
# **"The product decreases with the distance."** It does so on the whole, but not at
# every step: the first increase is printed above.
#
# **"Therefore attention sees relative positions."** It would, if the scores were the
# products of the encodings. But they are products of queries and keys, and the
# projections come between the two encodings. In :eq:`eq-absolute-logits` even the last
# of four terms depends on the absolute positions, except for special matrices
# :math:`A = W_Q W_K^\top`, such as the identity. The figure shows this term for pairs
# of positions at offset 5:

W_Q, W_K = (
    torch.randn(d, 11, generator=generator, dtype=torch.float64) / d**0.5
    for _ in range(2)
)
starts = torch.arange(100)
with_matrices = ((PE[starts] @ W_Q) * (PE[starts + 5] @ W_K)).sum(1)
without = (PE[starts] * PE[starts + 5]).sum(1)

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for values, style, label in [
    (without, "--", "A = I"),
    (with_matrices, "-", "random A"),
]:
    ax.plot(starts, values - values.mean(), style, label=label)
ax.set(xlabel="position $p$", ylabel="term minus its mean")
ax.set_title(r"$PE_p\, A\, PE_{p+5}^\top$ along a sequence")
ax.legend()
fig.set_label(
    "The part of an attention score in which no token occurs, at offset 5. Without "
    "projections it is the same at every position; with random projections it is not."
)
plt.show()

assert without.std() < 1e-12
assert with_matrices.std() > 0.1

# %%
# A network can learn a matrix :math:`A` for which this term depends on the offset
# alone, but has to do so in each head. With rotary embedding, scores are relative for
# all matrices.
#
# **"The wavelengths extend to** :math:`10\,000 \cdot 2\pi` **."** The paper says so. By
# :eq:`eq-wavelengths` the last one is :math:`2\pi\,\theta^{1 - 2/d}`, which approaches
# :math:`2\pi\,\theta` only for large :math:`d`.

printed = []
for width in (64, 512):
    last = 1 / frequencies(width)[-1].item()
    printed.append((width, f"{last:.0f}"))
    assert last < 9999
print(markdown_table(("dimension d", "longest wavelength / 2π (positions)"), printed))

# %%
# No two positions have the same encoding
# ---------------------------------------
# The first frequency is 1. If two encodings were equal, then their first pairs would be
# equal, and :math:`p - q` would be a multiple of :math:`2\pi`. The only integer
# multiple is 0:
#
# .. math::
#    :label: eq-injective
#
#    PE(p) = PE(q), \quad p, q \in \mathbb Z
#    \quad \Rightarrow \quad p - q \in 2\pi \mathbb Z
#    \quad \Rightarrow \quad p = q .
#
# Integers can be close to a multiple of :math:`2\pi`, though. The other pairs keep the
# encodings apart in this case.

far = torch.arange(1, 4096)
distances = (d - 2 * offset_product(far, d)).sqrt()
first_pair = (2 - 2 * offset_product(far, 2)).sqrt()
printed = [
    (f"all pairs, d = {d}", f"{distances.min():.2f}"),
    ("the first pair alone", f"{first_pair.min():.0e}"),
]
print(markdown_table(("encoding", "minimum distance within 4096 positions"), printed))

assert distances.min() > 1
assert 0 < first_pair.min() < 1e-3

# %%
# Limits
# ------
# These are properties of the encoding alone. Embeddings are added to it, and
# projections and a softmax follow. How a network uses the encoding beyond its training
# length is a question for an experiment: :doc:`/positions_results`.
