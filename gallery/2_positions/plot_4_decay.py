r"""
"Long-term decay" is the decay of a bound
=========================================

**Question.** It is said of rotary embedding that the score of a query and a key decays
as they move apart. Does it?

**Answer.** No. What falls is an upper bound of the size of all scores, and even that
not steadily: for 128 features it rises for the first time from distance 18 to 19. A
score stays below the bound, but need not fall with it. A query and a key that use only
the slowest pair of features still score 99 % at distance 1000; others rise at first.

**Source.** Su et al., *RoFormer*, 2021 (arXiv:2104.09864), section 3.4.3, equations 35
to 37. **Cost.** Seconds on a CPU, no download.
"""

# %%
# Where the bound comes from
# --------------------------
# Write :math:`\Delta = m - n` and :math:`h_i = \tilde q_i\, \tilde k_i^*` for the pairs
# of query and key. The score is the real part of
# :math:`\sum_i h_i\, e^{j\Delta\omega_i}`. Sum it by parts, as Abel did: with the sums
# :math:`S_i` of the turns alone, and :math:`h_{d/2} = 0`,
#
# .. math::
#    :label: eq-decay-abel
#
#    \sum_{i=0}^{d/2-1} h_i\, e^{j\Delta\omega_i}
#    = -\sum_{i=0}^{d/2-1} S_{i+1}\, (h_{i+1} - h_i), \qquad
#    S_i = \sum_{l=0}^{i-1} e^{j\Delta\omega_l} .
#
# Now query and key stand in one factor, and the distance in the other. The size of the
# sum is at most
#
# .. math::
#    :label: eq-decay-bound
#
#    \Big| \sum_i h_i\, e^{j\Delta\omega_i} \Big|
#    \le \max_i |h_{i+1} - h_i| \; \frac d2\, B(\Delta), \qquad
#    B(\Delta) = \frac 2d \sum_{i=1}^{d/2} |S_i| ,
#
# and :math:`B` depends on nothing but the distance and the frequencies.

from functools import partial

import matplotlib.pyplot as plt
import torch

from dian.positions.rotary import decay_bound, rotate
from dian.positions.sinusoidal import frequencies

d = 128
omega = frequencies(d)
distances = torch.arange(0, 5001)
B = decay_bound(distances, omega)

fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.3), layout="constrained")
axes[0].plot(distances, B)
axes[0].set(title="To 5000", ylabel=r"bound $B(\Delta)$")
axes[1].plot(distances[:61], B[:61], "o-", markersize=3)
axes[1].set(title="The first 60", ylabel=r"bound $B(\Delta)$")
for ax in axes:
    ax.set(xlabel=r"distance $\Delta$", ylim=(0, None))
fig.suptitle("The bound for d = 128")
plt.show()

for distance in (0, 10, 100, 1000, 5000):
    print(f"distance {distance:4}: {B[distance]:6.3g}")
rises = (B.diff() > 0).nonzero().flatten()
print(f"rises first from {rises[0]} to {rises[0] + 1}")

assert rises[0] == 18
assert B[5000] > B[1000]
assert B[0] == (d / 2 + 1) / 2

# %%
# Scores below the bound
# ----------------------
# Four pairs of a query and a key, all with a score of 1 at distance 0: in one both are
# the same in all features; in two they are random and similar; in one they are on the
# slowest pair alone. Beside them stands their bound.

generator = torch.Generator().manual_seed(0)
normal = partial(torch.randn, generator=generator, dtype=torch.float64)


def score(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Return the score at each distance; the key stays at position 0."""
    far = rotate(q.expand(len(distances), d), omega)
    return far @ k


def largest_step(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Return by how much two neighbouring products of pairs differ, at most."""
    h = (
        torch.view_as_complex(q.view(-1, 2))
        * torch.view_as_complex(k.view(-1, 2)).conj()
    )
    return torch.cat([h, h.new_zeros(1)]).diff().abs().max()


alike = torch.ones(d).double()
slowest = torch.zeros(d).double()
slowest[-2] = 1
random = [normal(d) for _ in range(2)]
cases = {
    "all features alike": (alike, alike),
    "random, the first": (random[0], random[0] + normal(d) / 2),
    "random, the second": (random[1], random[1] + normal(d) / 2),
    "the slowest pair alone": (slowest, slowest),
}
fig, axes = plt.subplots(2, 2, figsize=(8.4, 5.6), layout="constrained", sharex=True)
curves = {}
for ax, (name, (q, k)) in zip(axes.flat, cases.items(), strict=True):
    k = k / (q @ k)
    curves[name] = score(q, k)
    bound = largest_step(q, k) * d / 2 * B
    ax.plot(distances, curves[name].abs(), linewidth=0.8, label="size of the score")
    ax.plot(distances, bound, "--", label="bound")
    ax.set(title=name, xscale="symlog", yscale="log", xlim=(0, 5000), ylim=(1e-3, 1e3))
    assert bound.min() > 1  # never below the score at distance 0
    assert (curves[name].abs() <= bound * (1 + 1e-12)).all()
for ax in axes[1]:
    ax.set_xlabel(r"distance $\Delta$")
for ax in axes[:, 0]:
    ax.set_ylabel("size / score at distance 0")
axes[0, 0].legend()
fig.suptitle("Scores and their bounds")
plt.show()

stays = curves["the slowest pair alone"][1000].item()
print(f"the slowest pair alone, at distance 1000: {stays:.3f}")

assert stays > 0.99
assert curves["all features alike"][1000] < 0.5

# %%
# For vectors whose features are all alike the score falls, and that is what pictures of
# the decay show. The bound tells nothing of it: at all distances it is above the score
# at distance 0.
#
# A score may even grow with the distance: turn the key by a few positions to begin
# with, and the best place for the query is as many positions away. That is how a head
# looks at the word before, and it would be a pity if rotary embedding forbade it.

k = rotate(alike[None], omega, offset=5)[0]
ahead = score(alike, k / (alike @ alike))
best = ahead.argmax().item()
print(f"best distance: {best}, score {ahead[best]:.2f}; at distance 0: {ahead[0]:.2f}")

assert best == 5
assert ahead[0] < 0.9 * ahead[5]

# %%
# Limits
# ------
# The bound holds for each query and key. What scores a trained network has is not known
# from it.
