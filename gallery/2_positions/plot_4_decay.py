r"""
"Long-term decay" is the decay of a bound
=========================================

**Question.** The paper on rotary embedding describes a long-term decay of the score of
a query and a key with their distance. Do scores decay?

**Answer.** No. An upper bound on the magnitude of all scores decreases on the whole,
but not monotonically: for 128 features it increases for the first time from distance
18 to 19. The scores below it need not decrease: a query and a key that use only the
slowest pair of features keep 99 % of their score at distance 1000, and some scores
increase with the distance at first.

**Source.** Su et al., *RoFormer*, 2021 (arXiv:2104.09864), section 3.4.3, equations 35
to 37. **Cost.** Seconds on a CPU, no download.
"""

# %%
# The bound
# ---------
# The score of a query and a key at distance :math:`\Delta = m - n` is the real part of
# :math:`\sum_i h_i\, e^{j\Delta\omega_i}`, where
# :math:`h_i = \tilde q_i\, \tilde k_i^*` is the product of their pairs, read as complex
# numbers. Summation by parts, :eq:`eq-decay-abel`, separates query and key from the
# distance, and gives the bound :eq:`eq-decay-bound`. One of its factors,
# :math:`B(\Delta)`, depends only on the distance and the frequencies.

from functools import partial

import matplotlib.pyplot as plt
import torch

from dian.positions.rotary import decay_bound, rotate
from dian.positions.sinusoidal import frequencies

d = 128
omega = frequencies(d)
distances = torch.arange(0, 5001)
B = decay_bound(distances, omega)

fig, axes = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
axes[0].plot(distances, B)
axes[0].set(title="up to distance 5000", ylabel=r"bound $B(\Delta)$")
axes[1].plot(distances[:61], B[:61], "o-", markersize=3)
axes[1].set(title="up to distance 60", ylabel=r"bound $B(\Delta)$")
for ax in axes:
    ax.set(xlabel=r"distance $\Delta$ (positions)", ylim=(0, None))
fig.suptitle("The distance-dependent factor of the bound, d = 128")
fig.set_label(
    "The factor $B(\\Delta)$ of the bound. It decreases on the whole, but not "
    "monotonically."
)
plt.show()

rises = (B.diff() > 0).nonzero().flatten()
print(f"first increase from distance {rises[0]} to {rises[0] + 1}")

assert rises[0] == 18
assert B[5000] > B[1000]
assert B[0] == (d / 2 + 1) / 2

# %%
# Scores below the bound
# ----------------------
# We compare four examples of a query and a key, each with a score of 1 at distance 0.
# In the first case, all features are equal. In the next two, the query is random and
# the key is the query plus noise. The last uses the slowest pair of features alone.

generator = torch.Generator().manual_seed(0)
normal = partial(torch.randn, generator=generator, dtype=torch.float64)


def score(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Return the score at each distance; the key is at position 0."""
    far = rotate(q.expand(len(distances), d), omega)
    return far @ k


def largest_step(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Return the largest difference of the products of neighboring pairs."""
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
    "all features equal": (alike, alike),
    "random, first sample": (random[0], random[0] + normal(d) / 2),
    "random, second sample": (random[1], random[1] + normal(d) / 2),
    "slowest pair alone": (slowest, slowest),
}
fig, axes = plt.subplots(2, 2, figsize=(7, 5.5), layout="constrained", sharex=True)
curves = {}
for ax, (name, (q, k)) in zip(axes.flat, cases.items(), strict=True):
    k = k / (q @ k)
    curves[name] = score(q, k)
    bound = largest_step(q, k) * d / 2 * B
    ax.plot(distances, curves[name].abs(), linewidth=0.8, label="score")
    ax.plot(distances, bound, "--", label="bound")
    ax.set(title=name, xscale="symlog", yscale="log", xlim=(0, 5000), ylim=(1e-3, 1e4))
    assert bound.min() > 1  # never below the score at distance 0
    assert (curves[name].abs() <= bound * (1 + 1e-12)).all()
for ax in axes[1]:
    ax.set_xlabel(r"distance $\Delta$ (positions)")
for ax in axes[:, 0]:
    ax.set_ylabel("magnitude / score at 0")
axes[0, 0].legend(loc="lower left")
fig.suptitle("Scores and their bounds")
fig.set_label(
    "Magnitude of the score of four queries and keys, relative to distance 0, "
    "and the bound of each. All bounds decrease on the whole, but stay above 1, and "
    "the score on the slowest pair hardly changes up to distance 1000."
)
plt.show()

stays = curves["slowest pair alone"][1000].item()
print(f"slowest pair alone, distance 1000: {stays:.3f} of the score at distance 0")

assert stays > 0.99
assert curves["all features equal"][1000] < 0.5

# %%
# If all features are equal, the score decreases on the whole. The bound does not imply
# this decrease: at all distances the bound is larger than the score at distance 0.
#
# A score may even increase with the distance. If the key is first rotated by a few
# positions, the score is largest for a query the same number of positions later. In
# this way a head can attend to a fixed distance, for example to the previous token.

k = rotate(alike[None], omega, offset=5)[0]
ahead = score(alike, k / (alike @ alike))
best = ahead.argmax().item()
print(f"maximum at distance {best}: {ahead[best]:.2f}; at distance 0: {ahead[0]:.2f}")

assert best == 5
assert ahead[0] < 0.9 * ahead[5]

# %%
# Limits
# ------
# The bound holds for each query and key. How the scores of a trained network change
# with the distance is not measured here.
