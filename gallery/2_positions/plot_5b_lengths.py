r"""
ALiBi has a fixed window, and RoPE scaling slows the slow pairs
===============================================================

**Question.** How far does a head of ALiBi attend, and which frequencies of a rotary
embedding do the methods for longer contexts change?

**Answer.** A head of ALiBi with slope :math:`m_h` and constant scores has 99 % of its
weight within :math:`\ln(100) / m_h` positions, 19 to 1179 for four heads, whatever the
length of the sequence. Position interpolation divides all frequencies of a rotary
embedding by one factor. NTK-aware scaling and, with a suitable threshold, YaRN keep the
frequency of the fastest pair, and divide that of the slowest by the full factor.

**Source.** Press, Smith and Lewis, *Train short, test long*, 2021 (arXiv:2108.12409);
Chen et al., 2023 (arXiv:2306.15595); Peng et al., *YaRN*, 2023 (arXiv:2309.00071).
**Cost.** Seconds on a CPU, no download.
"""

# %%
# The window of a head
# --------------------
# ALiBi subtracts from each score a penalty that is proportional to the distance,
# :eq:`eq-alibi`. If the scores before the penalty are constant, the attention weights
# decrease exponentially with the distance, at a rate given by the slope of the head.

import math

import matplotlib.pyplot as plt
import torch

from dian.figures.interactive import Interactive
from dian.positions.alibi import alibi_bias, alibi_slopes
from dian.positions.rotary_scaling import ntk_aware, position_interpolation, yarn
from dian.positions.sinusoidal import frequencies

n, n_head = 4000, 4
bias = alibi_bias(torch.tensor([n - 1]), torch.arange(n), n_head, torch.float64)
weights = bias[:, 0].flip(-1).softmax(-1)  # head, distance
beyond = 1 - weights.cumsum(-1)

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
styles = ("-", "--", "-.", ":")
for h, (slope, style) in enumerate(zip(alibi_slopes(n_head), styles, strict=True)):
    distances = torch.arange(1, n + 1)
    label = f"head {h + 1}, slope 1/{1 / slope:.0f}"
    ax.semilogx(distances, beyond[h].clamp(min=0), style, label=label)
ax.axhline(0.01, color="gray", linewidth=0.8)
ax.text(1, 0.02, "1 %", color="gray")
ax.set(xlabel=r"distance $N$ (positions)", ylabel=r"fraction of the weight beyond $N$")
ax.set_title("How far four heads of ALiBi attend, for constant scores")
ax.legend()
fig.set_label(
    "Fraction of the attention weight of each head at distance $N$ and beyond, for "
    "constant scores. The window of a head is of the order of 1 / slope."
)
plt.show()

# %%
# The equation :eq:`eq-alibi-window` bounds the window from above. For constant scores
# it gives the smallest distance beyond which there is at most 1 % of the weight, and we
# check that longer sequences have the same window.

windows = [math.ceil(math.log(100) / slope) for slope in alibi_slopes(n_head)]
print("99 % of the weight within", windows, "positions")
assert windows == [19, 74, 295, 1179]
for length in (n, 2 * n, 4 * n):
    keys = torch.arange(length)
    bias = alibi_bias(keys[-1:], keys, n_head, torch.float64)
    by_distance = bias[:, 0].flip(-1).softmax(-1)
    for head, window in zip(by_distance, windows, strict=True):
        assert head[window:].sum() < 0.01 < head[window - 1 :].sum()

# %%
# Frequencies for longer contexts
# -------------------------------
# Let a rotary embedding with 16 features per head be trained on 64 positions, and used
# on 256, so that :math:`s = 4`. The three methods :eq:`eq-interpolation`, :eq:`eq-ntk`
# and :eq:`eq-yarn` multiply each frequency by a factor between :math:`1/s` and 1. They
# agree in the slowest pair, and differ most in the fast pairs, which distinguish
# neighboring positions.

omega, factor = frequencies(16), 4.0
methods = {
    "position interpolation": position_interpolation(omega, factor),
    "NTK-aware": ntk_aware(omega, factor),
    "YaRN": yarn(omega, factor, original_max_positions=64, beta_fast=8.0),
}

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, scaled), style in zip(methods.items(), ("o--", "s-", "^-."), strict=True):
    ax.plot(scaled / omega, style, label=name)
ax.set(xlabel="pair $i$", ylabel=r"$\omega'_i / \omega_i$", ylim=(0, 1.05))
ax.set_title("Scaled frequencies, d = 16, L = 64, s = 4")
ax.legend()
fig.set_label(
    "Factor by which each method multiplies the frequency of each pair, for four times "
    "the training length. Pair 0 is the fastest."
)
plt.show()

assert torch.allclose(methods["position interpolation"], omega / factor)
for name in ("NTK-aware", "YaRN"):
    assert methods[name][0] == omega[0]
    assert math.isclose(methods[name][-1], omega[-1] / factor)

# %%
# YaRN depends on the training length :math:`L` as well, because it counts the rotations
# of a pair within :math:`L` positions. In the interactive figure, a threshold of
# :math:`\beta = 32` at :math:`L = 64` slows every pair, and at :math:`L = 4096` keeps
# the fast ones.

factors, lengths, betas = (2.0, 4.0, 8.0, 16.0), (64, 256, 1024, 4096), (8.0, 32.0)


def ratios(scaled: torch.Tensor) -> list[float]:
    """Return by which factor each frequency is multiplied."""
    return (scaled / omega).round(decimals=4).tolist()


Interactive(
    "scaling",
    "Factor by which three methods multiply the frequency of each pair, for 16 "
    "features per head.",
    factors=list(map(int, factors)),
    lengths=list(lengths),
    betas=list(map(int, betas)),
    ntk=[ratios(ntk_aware(omega, s)) for s in factors],
    yarn=[
        [[ratios(yarn(omega, s, L, beta_fast=beta)) for beta in betas] for L in lengths]
        for s in factors
    ],
)

# %%
# Limits
# ------
# A window of attention weights is not a limit of the network: with several layers,
# information can travel farther than one window. Whether scaled frequencies preserve
# what a network has learned is measured in
# :doc:`/gallery/2_positions/plot_6_extrapolation`.
