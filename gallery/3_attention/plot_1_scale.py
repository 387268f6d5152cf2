r"""
Without division by the square root, the softmax saturates
==========================================================

**Question.** Attention divides its scores by :math:`\sqrt{d_k}`. What happens without
the division, and for which queries and keys is this the right divisor?

**Answer.** For independent entries with mean 0 and variance 1, a score has the variance
:math:`d_k`. Without the division the softmax saturates: at :math:`d_k = 1024` one of
128 keys has more than nine tenths of the weight on average, and gradients nearly
vanish. If the entries within each vector are correlated, the variance of a score can be
up to :math:`d_k` times as large.

**Source.** Vaswani et al., *Attention Is All You Need*, 2017 (arXiv:1706.03762),
section 3.2.1 and its footnote 4. **Cost.** Seconds on a CPU, no download.
"""

# %%
# Saturation
# ----------
# The softmax of widely spread scores is close to one-hot. Two numbers measure how close
# it is: the largest weight, and the trace :math:`1 - \sum_j p_j^2` of the Jacobian
# :eq:`eq-softmax-jacobian`. The trace is zero if one key has all the weight, so that
# the weights hardly depend on the scores; it is largest, :math:`1 - 1/n` for :math:`n`
# keys, if all weights are equal. Multiplying the query by :math:`\sqrt{d_k}` cancels
# the division inside the function, so the same code computes both cases.

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch

from dian.attention.dot_product import scaled_dot_product_attention
from dian.attention.score_statistics import entropy, score_moments
from dian.attention.softmax import softmax_jacobian
from dian.figures.interactive import Interactive
from dian.figures.tables import markdown_table

generator = torch.Generator().manual_seed(0)
normal = partial(torch.randn, generator=generator, dtype=torch.float64)
d, n_draw, r, c = 64, 20_000, 0.5, 0.6  # of the section on the variance of a score
q, k = normal(n_draw, d), normal(n_draw, d)
correlated = [(1 - r) ** 0.5 * x + r**0.5 * normal(n_draw, 1) for x in (q, k)]

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

fig, axes = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
for scaled, style in ((True, "o-"), (False, "s--")):
    label = "divided by $\\sqrt{d_k}$" if scaled else "not divided"
    for ax, curve in zip(axes, results[scaled].T, strict=True):
        ax.semilogx(widths, curve, style, label=label)
for ax, what in zip(axes, ("largest weight", "trace of the Jacobian"), strict=True):
    ax.set(xlabel="dimension $d_k$ of a key", ylabel=what, ylim=(0, 1.05))
axes[0].legend(loc="upper left", bbox_to_anchor=(0, 0.95))
fig.suptitle("Saturation of the softmax, means over 200 queries with 128 keys")
fig.set_label(
    "Without the division, one key takes nearly all the weight as $d_k$ grows (left), "
    "and the weights stop depending on the scores (right)."
)
plt.show()

printed = []
for i, width in enumerate(widths):
    cells = (x for scaled in (False, True) for x in results[scaled][i])
    printed.append((width, *(f"{x:.3f}" for x in cells)))
header = ("d_k", "largest weight, not divided", "trace of the Jacobian, not divided")
header += ("largest weight, divided", "trace of the Jacobian, divided")
print(markdown_table(header, printed))

assert results[False][-1, 0] > 0.9
assert results[False][-1, 1] < 0.1
assert np.ptp(results[True], axis=0).max() < 0.02

# %%
# If the scores are divided, the attention weights are spread over all keys, for every
# dimension. If the scores are not divided and :math:`d_k` is large, the gradient of the
# loss with respect to queries and keys nearly vanishes, so an untrained network can
# hardly correct its scores.
#
# In the next figure you can choose the dimension and the divisor. It uses 16 scores of
# mean 0, which are scaled to the standard deviation :math:`s = \sqrt{d_k}`, and then
# divided. With the divisor :math:`d_k`, the weights become nearly equal as :math:`d_k`
# grows.

drawn = normal(16).sort(descending=True).values
standard = (drawn - drawn.mean()) / drawn.std(correction=0)
Interactive(
    "softmax",
    "The weights of 16 keys, and their entropy and the trace of the Jacobian of the "
    "softmax against the standard deviation of the scores.",
    scores=[round(s, 4) for s in standard.tolist()],
    dimensions=[1, 4, 16, 64, 256, 1024],
)

# %%
# The variance of a score
# -----------------------
# Equation :eq:`eq-score-variance` of the chapter assumes independent entries of mean 0
# and variance 1. More generally, let query and key be independent of *each other*, with
# any means :math:`\mu` and covariance matrices :math:`\Sigma` of their entries.
# Inserting :math:`\mathbb E[q q^\top] = \Sigma_q + \mu_q \mu_q^\top`, and the same for
# the key, into :math:`\mathbb E[(q \cdot k)^2] = \operatorname{tr}(\mathbb E[q
# q^\top]\, \mathbb E[k k^\top])` and subtracting the squared mean gives
#
# .. math::
#    :label: eq-score-moments
#
#    \mathbb E[q \cdot k] = \mu_q \cdot \mu_k, \qquad
#    \operatorname{Var}(q \cdot k) = \operatorname{tr}(\Sigma_q \Sigma_k)
#    + \mu_q^\top \Sigma_k\, \mu_q + \mu_k^\top \Sigma_q\, \mu_k .
#
# For Gaussian vectors with entries of mean 0 and variance 1, three cases of dependence
# are instructive. In the first, all pairs of entries within the query have the
# correlation :math:`r`, and those within the key as well. In the second, the key equals
# the query. In the third, each entry of the key has the correlation :math:`c` with the
# same entry of the query:
#
# .. math::
#    :label: eq-score-dependent
#
#    \operatorname{corr}(q_i, q_j) = r: \quad
#    \operatorname{Var} &= d_k (1 - r)^2 + 2\, r\, d_k (1 - r) + r^2 d_k^2, \\
#    k = q: \quad \mathbb E &= d_k, \quad \operatorname{Var} = 2 d_k, \\
#    \operatorname{corr}(q_i, k_i) = c: \quad
#    \mathbb E &= c\, d_k, \quad \operatorname{Var} = d_k (1 + c^2) .
#
# The following code compares all cases with 20,000 random draws, for :math:`d_k = 64`,
# :math:`r = 0.5` and :math:`c = 0.6`.

eye, ones, zero = torch.eye(d).double(), torch.ones(d).double(), torch.zeros(d).double()
mu_q, mu_k = 0.5 * ones, 0.25 * ones
of_correlated = (1 - r) * eye + r * torch.ones(d, d).double()

cases = {
    "independent, mean 0": (q, k, *score_moments(zero, zero, eye, eye)),
    "with means": (q + mu_q, k + mu_k, *score_moments(mu_q, mu_k, eye, eye)),
    "correlated entries": (
        *correlated,
        *score_moments(zero, zero, of_correlated, of_correlated),
    ),
    "key equal to query": (q, q, d, 2 * d),
    "correlated with query": (q, c * q + (1 - c**2) ** 0.5 * k, c * d, d * (1 + c**2)),
}
printed = []
for name, (left, right, mean, variance) in cases.items():
    s = (left * right).sum(1)
    errors = [s.std() / n_draw**0.5, (s - mean).square().std() / n_draw**0.5]
    pairs = f"{s.mean():.2f} ({mean:.1f})", f"{s.var():.1f} ({variance:.1f})"
    printed.append((name, *pairs))
    assert abs(s.mean() - mean) < 5 * errors[0]
    assert abs((s - mean).square().mean() - variance) < 5 * errors[1]
header = ("query and key", "mean (formula)", "variance (formula)")
print(markdown_table(header, printed))

closed = d * (1 - r) ** 2 + 2 * r * d * (1 - r) + r**2 * d**2
assert np.isclose(cases["correlated entries"][3], closed)
assert closed > 16 * d
same = torch.ones(d, d).double()  # all entries of a vector are one number
assert score_moments(zero, zero, same, same)[1] == d * d

# %%
# For entries with a fixed correlation :math:`r > 0`, the variance grows with the square
# of :math:`d_k`. The divisor :math:`\sqrt{d_k}` does not compensate for this, and the
# right divisor depends on the correlation, which is not known and changes during
# training.
#
# The entropy that is left
# ------------------------
# Let the scores :math:`s_j` of :math:`n` keys be independent and Gaussian with mean 0
# and variance :math:`s^2`. For many keys, the means of :math:`e^{s_j}` and
# :math:`s_j\, e^{s_j}` over the keys are close to their expectations, :math:`e^{s^2/2}`
# and :math:`s^2 e^{s^2/2}`. So the entropy :math:`\ln \sum_j e^{s_j} - \sum_j p_j s_j`
# is
#
# .. math::
#    :label: eq-score-entropy
#
#    H(p) \approx \Big(\ln n + \frac{s^2}{2}\Big) - s^2 = \ln n - \frac{s^2}{2} .
#
# With :math:`s^2 = 1`, the entropy is only half a nat below its maximum. The formula
# reaches zero at :math:`s^2 = 2 \ln n`. In the limit of many keys, the ratio of the
# entropy to its maximum :math:`\ln n` follows the formula up to this value of
# :math:`s^2` (this is the random-energy model of Derrida, 1981). For a finite number of
# keys the formula fails earlier, because the entropy of finite scores is positive and
# cannot reach zero. For :math:`s^2 \ge 2 \ln n`, a few scores near the largest one,
# which is about :math:`s \sqrt{2 \ln n}`, dominate the sums, and the means over the
# keys are no longer close to their expectations.

spreads = np.linspace(0, 6, 25)
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
printed = []
for n, marker in ((16, "o"), (128, "s"), (4096, "^")):
    s = normal(50, n)
    H = np.array([entropy((x * s).softmax(-1)).mean() for x in spreads])
    (line,) = ax.plot(spreads, H, marker, markersize=4, label=f"{n} keys")
    law = np.log(n) - spreads**2 / 2
    ax.plot(spreads[law > 0], law[law > 0], "-", color=line.get_color())
    limit = np.sqrt(2 * np.log(n))
    ax.axvline(limit, color=line.get_color(), linestyle=":", linewidth=1)
    i = np.argmin(abs(spreads - 1))
    printed.append((n, f"{H[i]:.3f}", f"{law[i]:.3f}"))
    if n == 4096:
        assert abs(H[i] - law[i]) < 0.02
    assert H[spreads > limit].max() < 0.5 * np.log(n)
ax.set_title("Entropy of attention: measured (marks) and formula (lines)")
ax.set(xlabel="standard deviation $s$ of the scores", ylabel="entropy (nats)")
ax.legend()
fig.set_label(
    "The entropy of the attention weights follows $\\ln n - s^2/2$ for small $s$; "
    "dotted lines mark $s = \\sqrt{2 \\ln n}$, where the formula reaches zero."
)
plt.show()

header = ("keys", "entropy at s = 1 (nats)", "formula (nats)")
print(markdown_table(header, printed))

# %%
# To the right of the dotted lines, the entropy is less than half of its maximum. Scores
# that are not divided have :math:`s = \sqrt{d_k}`, that is 8 for the usual 64 features
# of a head. This is to the right of all dotted lines.

assert np.sqrt(2 * np.log(4096)) < 64**0.5
# The largest trace of the first section:
uniform = softmax_jacobian(torch.full((n_key,), 1 / n_key))
assert np.isclose(uniform.trace(), 1 - 1 / n_key)

# %%
# Limits
# ------
# The figures on this page use independent Gaussian entries or scores. In a trained
# network they are neither independent nor Gaussian: the division sets the variance of
# the scores at initialization, and training changes it. The attention weights of a
# small trained network are shown in :doc:`/gallery/3_attention/plot_7_rows`.
