r"""
Rotary embedding: positions as angles
=====================================

**Question.** How can the score of a query and a key depend on their distance alone? And
why do two libraries that both do it right give different results?

**Answer.** Each pair of features is turned by an angle in proportion to its position,
and the product of two turned pairs knows nothing but the difference of the angles. It
can be written as a complex product, as a matrix of blocks, or with two halves, and all
agree to rounding. Libraries differ in which two features they call a pair. Both choices
are right, one permutation leads from one to the other, and to mix them is an error that
no shape tells.

**Source.** Su et al., *RoFormer: Enhanced transformer with rotary position embedding*,
2021 (arXiv:2104.09864), sections 3.2 and 3.4.2. **Cost.** Seconds on a CPU, no
download.
"""

# %%
# Two dimensions
# --------------
# Take a query and a key of two features each, and read them as complex numbers:
# :math:`\tilde q = q_0 + j q_1`, :math:`\tilde k = k_0 + j k_1`. Their product as
# vectors is the real part of :math:`\tilde q\, \tilde k^*`, with the complex conjugate.
# Now turn the query, which stands at position :math:`m`, by the angle :math:`m\omega`,
# and the key at :math:`n` by :math:`n\omega`:
#
# .. math::
#
#    \operatorname{Re} \Big[ \tilde q\, e^{jm\omega} \,
#    \big( \tilde k\, e^{jn\omega} \big)^* \Big]
#    = \operatorname{Re} \Big[ \tilde q\, \tilde k^*\, e^{j(m - n)\omega} \Big] .
#
# The conjugate reverses the angle of the key, so that only the difference of the two
# angles remains. In two dimensions rotations are the only maps with this property: see
# :eq:`eq-rotary-solution` of the chapter, where the assumptions are listed.

import cmath
import math

import matplotlib.pyplot as plt
import torch

from dian.figures.interactive import Interactive
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

fig, axes = plt.subplots(1, 3, figsize=(8.4, 3.1), layout="constrained", sharey=True)
scores = []
for ax, (m, n) in zip(axes, [(0, 0), (3, 1), (7, 5)], strict=True):
    turned = rotate(q, omega, offset=m)[0], rotate(k, omega, offset=n)[0]
    for (x, y), color, name in zip(turned, ("C0", "C1"), ("query", "key"), strict=True):
        ax.annotate(
            "", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": color}
        )
        ax.plot([], [], color=color, label=name)
    scores.append((turned[0] @ turned[1]).item())
    ax.set(title=f"m = {m}, n = {n}", xlabel="feature 0", xlim=(-1.2, 1.2))
    ax.set(ylim=(-1.2, 1.2), aspect="equal")
axes[0].set_ylabel("feature 1")
axes[0].legend(loc="lower left")
fig.suptitle("A query at position m, a key at position n")
plt.show()

print("scores:", [round(score, 4) for score in scores])
assert math.isclose(scores[1], scores[2])
assert not math.isclose(scores[0], scores[1], rel_tol=0.01)

# %%
# Both pictures on the right have the same angle between the arrows.
#
# Many dimensions
# ---------------
# A head has :math:`d` features, an even number. Take them in pairs, neighbours first,
# and give each pair the frequency that it has in the sinusoidal encoding:
#
# .. math::
#    :label: eq-rotary-complex
#
#    \tilde x_i = x_{2i} + j\, x_{2i+1}, \qquad
#    (R_m \tilde x)_i = \tilde x_i\, e^{j m \omega_i}, \qquad
#    \omega_i = \theta^{-2i/d}, \quad i = 0, \dots, d/2 - 1 .
#
# Here :math:`d` is the width of *one head*. With real numbers each pair is multiplied
# by a matrix of two rows, and these are blocks of one large matrix:
#
# .. math::
#    :label: eq-rotary-blocks
#
#    R_m = \operatorname{blockdiag}_i \begin{pmatrix}
#    \cos m\omega_i & -\sin m\omega_i \\ \sin m\omega_i & \cos m\omega_i
#    \end{pmatrix} .
#
# The matrix is for the eye; it would multiply zeros most of the time.

d, n = 8, 6
omega = frequencies(d)
R = rotation_matrix(torch.tensor(3), omega)

fig, ax = plt.subplots(figsize=(4.4, 3.6), layout="constrained")
image = ax.imshow(R.numpy(), cmap="RdBu", vmin=-1, vmax=1)
ax.set(title="$R_3$ for d = 8", xlabel="feature of $x$", ylabel="feature of $R_3 x$")
fig.colorbar(image, label="entry")
plt.show()

# %%
# Below, four of the pairs are hands of clocks, with query and key at 0 in the same
# direction. Move one of them, then both: the product changes, and then it does not.

hands = torch.tensor([[1.0, 0.0] * (d // 2)], dtype=torch.float64)
at_7, at_4 = (rotate(hands, omega, torch.tensor([place])) for place in (7, 4))
assert torch.allclose(at_7 @ at_4.T, torch.cos(3 * omega).sum())

Interactive(
    "rotary",
    "Pairs of features of a query and a key, turned by their positions.",
    omega=omega.tolist(),
)

# %%
# A test case
# -----------
# A random matrix, six vectors of eight features. It is rotated by the library, by the
# blocks, and one pair at a time with the complex numbers of Python.

x = torch.randn(n, d, generator=generator, dtype=torch.float64)
by_library = rotate(x, omega)
by_blocks = (rotation_matrix(torch.arange(n), omega) @ x[..., None])[..., 0]
by_hand = torch.empty(n, d, dtype=torch.float64)
for m in range(n):
    for i in range(d // 2):
        z = complex(x[m, 2 * i], x[m, 2 * i + 1])
        z *= cmath.exp(1j * m * 10_000 ** (-2 * i / d))
        by_hand[m, 2 * i], by_hand[m, 2 * i + 1] = z.real, z.imag

print(by_library.numpy().round(3))
for name, other in [("blocks", by_blocks), ("hand", by_hand)]:
    print(f"by {name:6} apart by {(by_library - other).abs().max():.0e}")
    assert torch.allclose(by_library, other, rtol=0, atol=1e-14)

# %%
# What follows
# ------------
# **Norms stay.** A number of size 1 does not change a size:
#
# .. math::
#    :label: eq-rotary-norm
#
#    \lVert R_m x \rVert = \lVert x \rVert .
#
# **Rotations add up.** Two turns are one, by the sum of the angles; position 0 is no
# turn, and a negative one turns back:
#
# .. math::
#    :label: eq-rotary-group
#
#    R_m R_n = R_{m+n}, \quad R_0 = I, \quad R_{-m} = R_m^\top, \quad
#    R_m = e^{mA}, \quad A = \operatorname{blockdiag}_i\,
#    \omega_i \begin{pmatrix} 0 & -1 \\ 1 & 0 \end{pmatrix} .
#
# **Scores are relative.** From these two,
#
# .. math::
#    :label: eq-rotary-relative
#
#    \langle R_m q, R_n k \rangle = q^\top R_m^\top R_n\, k = q^\top R_{n - m}\, k ,
#
# or, with the pairs :math:`(a_i, b_i)` of :math:`q` and :math:`(c_i, e_i)` of
# :math:`k`,
#
# .. math::
#    :label: eq-rotary-score
#
#    \langle R_m q, R_n k \rangle = \sum_i \Big[
#    (a_i c_i + b_i e_i) \cos (m - n)\omega_i
#    + (a_i e_i - b_i c_i) \sin (m - n)\omega_i \Big] .
#
# The sine makes it differ by the side on which the key stands; the product of two
# sinusoidal encodings does not.

q, k = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
here = rotate(q, omega) @ rotate(k, omega).T
there = rotate(q, omega, offset=1000) @ rotate(k, omega, offset=1000).T
m, p = 1, 4
difference = rotation_matrix(torch.tensor(p - m), omega)
R_2, R_3, R_5 = rotation_matrix(torch.tensor([2, 3, 5]), omega)
print(f"norms:        {(rotate(x, omega).norm(dim=1) - x.norm(dim=1)).abs().max():.0e}")
print(f"R_2 R_3, R_5: {(R_2 @ R_3 - R_5).abs().max():.0e}")
print(f"1000 further: {(here - there).abs().max():.0e}")
print(f"one score:    {abs(here[m, p] - q[m] @ difference @ k[p]):.0e}")

assert torch.allclose(rotate(x, omega).norm(dim=1), x.norm(dim=1))
assert torch.allclose(R_2 @ R_3, R_5, rtol=0, atol=1e-14)
assert torch.allclose(here, there, rtol=0, atol=1e-12)
assert torch.isclose(here[m, p], q[m] @ difference @ k[p])

# %%
# All this is said of scores. Values are not rotated, and so the output does not depend
# on where a text begins.
#
# Two layouts
# -----------
# Which features are a pair is a matter of taste: a network learns its queries and keys
# either way. The paper takes neighbours. The code of Llama in transformers, and of many
# others, takes feature :math:`i` with feature :math:`i + d/2`, one of each half,
# because that is easily written without complex numbers:
#
# .. math::
#    :label: eq-rotary-halves
#
#    x \odot \cos [a; a] + \operatorname{rot}(x) \odot \sin [a; a], \qquad
#    a_i = m\,\omega_i, \qquad
#    \operatorname{rot}(x) = [-x_{d/2:}\,;\, x_{:d/2}] .
#
# With the order :math:`\pi = (0, 2, 4, \dots, 1, 3, 5, \dots)`,
#
# .. math::
#    :label: eq-rotary-layouts
#
#    \operatorname{halves}(x_\pi) = \operatorname{pairs}(x)_\pi .
#
# Scores are sums over features, and do not change when the features of *both* query and
# key are put into another order. So weights that were trained in one layout serve in
# the other, if the rows of :math:`W_Q` and :math:`W_K` that make the features of a head
# are put into that order.

pi = half_split_order(d)
print("order:", pi.tolist())
halves = rotate_half_split(x[:, pi], omega)
print(f"halves of the permuted: {(halves - rotate(x, omega)[:, pi]).abs().max():.0e}")
assert torch.allclose(halves, rotate(x, omega)[:, pi], rtol=0, atol=1e-14)
assert torch.allclose(rotate(x[:, pi], omega, layout="half"), halves)

scores = {
    "both in pairs": rotate(q, omega) @ rotate(k, omega).T,
    "both in halves": rotate_half_split(q[:, pi], omega)
    @ rotate_half_split(k[:, pi], omega).T,
    "mixed": rotate(q, omega) @ rotate_half_split(k, omega).T,
}
for name, score in scores.items():
    print(f"{name:15} apart by {(score - here).abs().max():.0e}")

assert torch.allclose(scores["both in halves"], here, rtol=0, atol=1e-13)
assert (scores["mixed"] - here).abs().max() > 1

# %%
# Decoding with a cache
# ---------------------
# A text is written word by word, and the keys of the past are kept, as they were turned
# at their places. The new query needs to know how many there are: the offset.


def attend(q, k, v):
    """Average the values of all keys that are there."""
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
print(f"one by one, or all at once: apart by {error:.0e}")

assert error < 1e-14

# %%
# What it costs
# -------------
# The complex product reads every feature once and writes it once. The form with halves
# makes a copy with the halves exchanged and several products on the way. Here are both
# for queries of 4 texts, 8 heads, 1024 positions and 64 features; each makes its table
# of angles.

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
# That a score depends on the distance alone says nothing about how: see
# :doc:`/gallery/2_positions/plot_4_decay`.
