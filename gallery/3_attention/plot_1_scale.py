r"""
Why attention divides by the square root
========================================

**Question.** Attention divides its scores by :math:`\sqrt{d_k}`. What happens without
it, when is that the right number, and when is it not?

**Answer.** A score is a sum of :math:`d_k` products. If query and key are independent
and their entries have mean 0 and variance 1, its variance is :math:`d_k`, and dividing
by the root makes it 1. Without that the softmax saturates: of 128 keys one takes more
than nine tenths of the weight at :math:`d_k = 1024`, and nearly no score moves a weight
any more. With it, neither changes with the width. If the entries are correlated, or the
key resembles the query, the variance is another one, up to :math:`d_k` times larger,
and the square root is not enough.

**Source.** Vaswani et al., *Attention Is All You Need*, 2017 (arXiv:1706.03762),
section 3.2.1 and its footnote 4. **Cost.** Seconds on a CPU, no download.
"""

# %%
# The spread of a score
# ---------------------
# Let the entries of :math:`q` and :math:`k` be independent, with mean 0 and variance 1.
# Then each product :math:`q_c k_c` has the mean 0 and the variance
# :math:`\mathbb E[q_c^2]\, \mathbb E[k_c^2] = 1`, and the variances of the :math:`d_k`
# products add up:
#
# .. math::
#    :label: eq-score-variance
#
#    \mathbb E[q \cdot k] = 0, \qquad \operatorname{Var}(q \cdot k) = d_k, \qquad
#    \operatorname{Var}\Big( \frac{q \cdot k}{\sqrt{d_k}} \Big) = 1 .
#
# Only two things are needed: that query and key are independent of *each other*, and
# how each of them is spread. With means :math:`\mu` and covariances :math:`\Sigma`,
#
# .. math::
#    :label: eq-score-moments
#
#    \mathbb E[q \cdot k] = \mu_q \cdot \mu_k, \qquad
#    \operatorname{Var}(q \cdot k) = \operatorname{tr}(\Sigma_q \Sigma_k)
#    + \mu_q^\top \Sigma_k\, \mu_q + \mu_k^\top \Sigma_q\, \mu_k .
#
# For Gaussian vectors the same can be said of three ways to be dependent. Entries may
# be correlated with each other, each pair of them by :math:`r`; the key may be the
# query itself; or each entry of the key may be correlated with that of the query by
# :math:`c`.
#
# .. math::
#    :label: eq-score-dependent
#
#    \text{entries alike:} \quad
#    \operatorname{Var} &= d_k (1 - r)^2 + 2\, r\, d_k (1 - r) + r^2 d_k^2, \\
#    k = q: \quad \mathbb E &= d_k, \quad \operatorname{Var} = 2 d_k, \\
#    \operatorname{corr}(q_c, k_c) = c: \quad
#    \mathbb E &= c\, d_k, \quad \operatorname{Var} = d_k (1 + c^2) .
#
# Here are all of them for :math:`d_k = 64`, from 20,000 draws each.

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch

from dian.attention.dot_product import scaled_dot_product_attention
from dian.attention.score_statistics import entropy, score_moments
from dian.attention.softmax import softmax_jacobian

d, n_draw, r, c = 64, 20_000, 0.5, 0.6
generator = torch.Generator().manual_seed(0)
normal = partial(torch.randn, generator=generator, dtype=torch.float64)
q, k = normal(n_draw, d), normal(n_draw, d)
eye, ones, zero = torch.eye(d).double(), torch.ones(d).double(), torch.zeros(d).double()
mu_q, mu_k = 0.5 * ones, 0.25 * ones
alike = [(1 - r) ** 0.5 * x + r**0.5 * normal(n_draw, 1) for x in (q, k)]
of_alike = (1 - r) * eye + r * torch.ones(d, d).double()

cases = {
    "independent, mean 0": (q, k, *score_moments(zero, zero, eye, eye)),
    "with means": (q + mu_q, k + mu_k, *score_moments(mu_q, mu_k, eye, eye)),
    "entries alike": (*alike, *score_moments(zero, zero, of_alike, of_alike)),
    "the key is the query": (q, q, d, 2 * d),
    "key like the query": (q, c * q + (1 - c**2) ** 0.5 * k, c * d, d * (1 + c**2)),
}
print(f"{'':22}     mean (formula)  variance (formula)")
for name, (left, right, mean, variance) in cases.items():
    s = (left * right).sum(1)
    errors = [s.std() / n_draw**0.5, (s - mean).square().std() / n_draw**0.5]
    print(f"{name:22} {s.mean():8.2f} ({mean:5.1f}) {s.var():10.1f} ({variance:6.1f})")
    assert abs(s.mean() - mean) < 5 * errors[0]
    assert abs((s - mean).square().mean() - variance) < 5 * errors[1]

closed = d * (1 - r) ** 2 + 2 * r * d * (1 - r) + r**2 * d**2
assert np.isclose(cases["entries alike"][3], closed)
assert closed > 16 * d
same = torch.ones(d, d).double()  # all entries of a vector are one number
assert score_moments(zero, zero, same, same)[1] == d * d

# %%
# Where entries are alike, the variance grows with the square of the width, and nothing
# that is fixed in advance makes up for it.
#
# What a wide spread does
# -----------------------
# A softmax of scores that are spread widely is close to one-hot. Two numbers tell how
# close: the largest weight, and the trace of the Jacobian :eq:`eq-softmax-jacobian`,
# :math:`1 - \sum_j p_j^2`, which says how much all weights together still move with
# their scores. Multiplying the query by :math:`\sqrt{d_k}` undoes the division inside
# the function, so that the same code gives both.

n_key, n_query, widths = 128, 200, [4, 16, 64, 256, 1024]


def saturation(d_key: int, *, scaled: bool) -> tuple[float, float]:
    """Return the mean of the largest weight, and of the trace of the Jacobian."""
    Q, K = normal(n_query, 1, d_key), normal(n_query, n_key, d_key)
    if not scaled:
        Q = Q * d_key**0.5
    _, P = scaled_dot_product_attention(Q, K, K[..., :1])
    trace = 1 - P.square().sum(-1)
    return P.amax(-1).mean().item(), trace.mean().item()


results = {
    scaled: np.array([saturation(width, scaled=scaled) for width in widths])
    for scaled in (True, False)
}

fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
for scaled, style in ((True, "o-"), (False, "s--")):
    label = "divided by $\\sqrt{d_k}$" if scaled else "not divided"
    for ax, curve in zip(axes, results[scaled].T, strict=True):
        ax.semilogx(widths, curve, style, label=label)
for ax, what in zip(axes, ("largest weight", "trace of the Jacobian"), strict=True):
    ax.set(xlabel="width $d_k$", ylabel=what, ylim=(0, 1.05))
    ax.set_title(f"Mean {what}, 128 keys")
axes[0].legend(loc="upper left", bbox_to_anchor=(0, 0.95))
plt.show()

print("d_k    not divided      divided     (largest weight, trace of the Jacobian)")
for i, width in enumerate(widths):
    cells = ("{:.3f}, {:.3f}".format(*results[scaled][i]) for scaled in (False, True))
    print(f"{width:4}  ", "   ".join(cells))

assert results[False][-1, 0] > 0.9
assert results[False][-1, 1] < 0.1
assert np.ptp(results[True], axis=0).max() < 0.02

# %%
# The weight of one key is a number between 0 and 1, and so is its slope; but a network
# that starts where all slopes are near zero hears nothing of what it does wrong.
#
# How wide is too wide?
# ---------------------
# For many keys whose scores are independent and Gaussian with variance :math:`s^2`, the
# sums in the softmax are close to their means, :math:`\mathbb E[e^s] = e^{s^2/2}` and
# :math:`\mathbb E[s\, e^s] = s^2 e^{s^2/2}`. So the entropy
# :math:`\ln \sum_j e^{s_j} - \sum_j p_j s_j` is
#
# .. math::
#    :label: eq-score-entropy
#
#    H(p) \approx \Big(\ln n + \frac{s^2}{2}\Big) - s^2 = \ln n - \frac{s^2}{2} .
#
# With :math:`s^2 = 1`, the entropy is only half a nat below its maximum. The formula
# reaches zero at :math:`s^2 = 2 \ln n`. As the number of keys grows, the entropy
# divided by :math:`\ln n` follows the formula up to that point (this is the
# random-energy model of Derrida, 1981). For a finite number of keys the formula fails
# before, because the entropy of finite scores is positive and cannot reach zero. At
# that point and beyond, a few scores near the largest one, :math:`s \sqrt{2 \ln n}`,
# dominate the sums, which are then no longer close to their means.

spreads = np.linspace(0, 6, 25)
fig, ax = plt.subplots(figsize=(6.6, 3.8), layout="constrained")
for n, marker in ((16, "o"), (128, "s"), (4096, "^")):
    s = normal(50, n)
    H = np.array([entropy((x * s).softmax(-1)).mean() for x in spreads])
    (line,) = ax.plot(spreads, H, marker, markersize=4, label=f"{n} keys")
    law = np.log(n) - spreads**2 / 2
    ax.plot(spreads[law > 0], law[law > 0], "-", color=line.get_color())
    limit = np.sqrt(2 * np.log(n))
    ax.axvline(limit, color=line.get_color(), linestyle=":", linewidth=1)
    i = np.argmin(abs(spreads - 1))
    print(f"{n:5} keys, s = 1: entropy {H[i]:.3f}, law {law[i]:.3f}")
    if n == 4096:
        assert abs(H[i] - law[i]) < 0.02
    assert H[spreads > limit].max() < 0.5 * np.log(n)
ax.set_title("Entropy: measured (marks), and the law for many keys (lines)")
ax.set(xlabel="standard deviation $s$ of the scores", ylabel="entropy (nats)")
ax.legend()
plt.show()

# %%
# The dotted lines stand at :math:`s = \sqrt{2 \ln n}`; to the right of them the entropy
# is less than half of what it is for even weights. Scores that are not divided have
# :math:`s = \sqrt{d_k}`: that is 8 for heads of the usual width of 64, to the right of
# all of them.

assert np.sqrt(2 * np.log(4096)) < 64**0.5
uniform = softmax_jacobian(torch.full((n_key,), 1 / n_key))
assert np.isclose(uniform.trace(), 1 - 1 / n_key)

# %%
# Limits
# ------
# The entries here are Gaussian and independent. In a trained network they are neither:
# the division makes a good *start*, and what becomes of the scores is up to the
# training. What those of a small trained network look at is on
# :doc:`/gallery/3_attention/plot_7_rows`.
