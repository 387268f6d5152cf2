r"""
The variational bound, term by term
===================================

**Question.** A diffusion model is trained on a bound on its negative log-likelihood.
How does the squared error of a predicted noise follow from this bound, and how do we
know that every term of it is right?

**Answer.** The bound is a sum of KL divergences between Gaussians. Each is a squared
error times a weight that depends on the timestep alone, plus a constant. For Gaussian
data and the exact reverse process, the bound equals the entropy of the data plus the
divergence at the start; the library agrees to 13 digits, and two mutants and a variance
that is not the exact one break the equality. The simple loss drops the weights. The
largest, at the first timestep, is more than a hundred times the smallest, which is that
of a timestep in the first half of the chain; after it the weights increase again.

**Source.** Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models*, 2020
(arXiv:2006.11239), equations 3 to 14; Sohl-Dickstein et al., *Deep Unsupervised
Learning using Nonequilibrium Thermodynamics*, 2015 (arXiv:1503.03585). **Cost.**
Seconds on a CPU, no download.
"""

# %%
# From the likelihood to a sum
# ----------------------------
# The model starts from :math:`p(x_T) = \mathcal N(0, I)` and applies the reverse
# transitions :math:`p_\theta(x_{t-1} \mid x_t)`. Its likelihood integrates over all
# trajectories that end at :math:`x_0`. Write the integral as an expectation over
# trajectories of the forward process :math:`q`, and move the logarithm inside the
# expectation, which can only lower it (Jensen's inequality):
#
# .. math::
#
#    -\ln p_\theta(x_0)
#    = -\ln \mathbb E_q \frac{p_\theta(x_{0:T})}{q(x_{1:T} \mid x_0)}
#    \le \mathbb E_q \Big[ -\ln p(x_T) - \sum_{t=1}^{T}
#    \ln \frac{p_\theta(x_{t-1} \mid x_t)}{q(x_t \mid x_{t-1})} \Big] .
#
# The two densities in the fraction run in opposite directions. Because the forward
# process is a Markov chain, :math:`q(x_t \mid x_{t-1}) = q(x_t \mid x_{t-1}, x_0)`, and
# by Bayes' rule for :math:`t \ge 2`
#
# .. math::
#
#    q(x_t \mid x_{t-1}) = q(x_{t-1} \mid x_t, x_0)\,
#    \frac{q(x_t \mid x_0)}{q(x_{t-1} \mid x_0)} .
#
# The last fractions cancel between neighboring timesteps, except at the two ends. This
# leaves equation :eq:`eq-diffusion-bound` of the chapter: a term :math:`L_T` for the
# start, one divergence :math:`L_{t-1}` for each timestep, and the decoder :math:`L_0`.
#
# One divergence
# --------------
# All of them compare two Gaussians. For each coordinate
#
# .. math::
#    :label: eq-diffusion-kl
#
#    D\big(\mathcal N(\mu_1, s_1^2) \,\Vert\, \mathcal N(\mu_2, s_2^2)\big) = \frac12
#    \Big[ \ln\frac{s_2^2}{s_1^2} - 1 + \frac{s_1^2 + (\mu_1 - \mu_2)^2}{s_2^2} \Big] .
#
# Here :math:`s_1^2 = \tilde\beta_t` and :math:`s_2^2 = \sigma_t^2` are known numbers,
# so that only the mean is learned. Both means are linear in the noise, so the squared
# difference of the means is a squared error of the noise times a weight, equation
# :eq:`eq-diffusion-weight`. For :math:`\sigma_t^2 = \tilde\beta_t` the definition of
# :math:`\tilde\beta_t` gives
#
# .. math::
#    :label: eq-diffusion-weight-snr
#
#    \frac{\beta_t^2}{2 \tilde\beta_t\, \alpha_t (1 - \bar\alpha_t)}
#    = \frac12 \Big( \frac{\operatorname{SNR}(t-1)}{\operatorname{SNR}(t)} - 1 \Big) .

import math
from functools import partial

import matplotlib.pyplot as plt
import torch

from dian.diffusion.gaussian_mixture import gaussian, optimal_denoiser, posterior_x0
from dian.diffusion.likelihood import bound_term, bound_weight, log_density, prior_term
from dian.diffusion.posterior import optimal_variance
from dian.diffusion.sampling import Denoiser
from dian.diffusion.schedule import NoiseSchedule, linear_schedule, signal_to_noise

schedule = linear_schedule()
steps = torch.arange(1, 1001)
weights = {
    name: bound_weight(schedule, variance=name) for name in ("beta", "beta_tilde")
}

snr = signal_to_noise(schedule)
ratio = 0.5 * (snr[1:-1] / snr[2:] - 1)
assert torch.allclose(ratio, weights["beta_tilde"][2:])

fig, ax = plt.subplots(figsize=(6.6, 3.6), layout="constrained")
ax.plot(steps, weights["beta"][1:], label=r"$\sigma_t^2 = \beta_t$")
ax.plot(
    steps[1:], weights["beta_tilde"][2:], "--", label=r"$\sigma_t^2 = \tilde\beta_t$"
)
ax.axhline(1, color="gray", linestyle=":", label="$L_{simple}$")
ax.set(
    xlabel="timestep t",
    ylabel="weight of the squared error",
    xscale="log",
    yscale="log",
)
ax.set_title("Weights of the bound and of the simple loss")
ax.legend()
plt.show()

weight = weights["beta"]
lowest = weight[1:].argmin().item() + 1
print({t: round(weight[t].item(), 5) for t in (1, 100, lowest, 1000)})

assert abs(weight[1] - 0.5) < 1e-3
assert lowest == 349
assert abs(weight[lowest] - 0.00497) < 5e-6
assert 2 < weight[1000] / weight[lowest] < 2.1
assert weight[1] / weight[lowest:].max() > 45
assert weight[1] / weight[lowest] > 100

# %%
# The weight falls from 0.5 to a hundredth of that at :math:`t = 349`, and then rises
# again to twice as much, so it is not a decreasing function of :math:`t`. The loss
# :math:`L_{simple}` has a weight of 1 at every timestep. Compared with the bound, it
# reduces the influence of the first timesteps, where the image is almost clean. The
# chapter explains by equation :eq:`eq-diffusion-elbo-view` what a change of the weights
# means for the likelihood.
#
# An oracle
# ---------
# How could we find a wrong term? The bound is an inequality, which a wrong term may
# satisfy as well. But if the data are :math:`\mathcal N(m, s^2)`, the reverse process
# is known exactly: each :math:`q(x_{t-1} \mid x_t)` is a Gaussian, its mean is that of
# the optimal denoiser, and its variance is
# :math:`\sigma_t^{*2} = \tilde\beta_t + c_0^2 \operatorname{Var}(x_0 \mid x_t)`, where
# :math:`c_0` is the factor of :math:`x_0` in :eq:`eq-diffusion-posterior`. Then
# Jensen's inequality loses nothing but the mismatch at the start, and all terms
# together are
#
# .. math::
#    :label: eq-diffusion-bound-exact
#
#    \mathbb E \Big[ L_T + \sum_{t=2}^{T} L_{t-1} + L_0 \Big]
#    = \tfrac12 \ln(2 \pi e\, s^2)
#    + D\big(q(x_T) \,\Vert\, \mathcal N(0, 1)\big) .
#
# The expectation is over the image and the noise. Every term is a polynomial of degree
# two in both, so Gauss–Hermite quadrature with four nodes computes it exactly.


def gauss_hermite(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and weights for the mean over N(0, 1)."""
    off = torch.arange(1, n).double().sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, vectors[0] ** 2


def exact_variance(schedule: NoiseSchedule, m: float, s2: float) -> torch.Tensor:
    """Return the variance of x_{t-1} given x_t; that of x_0 depends on t alone."""
    nothing = torch.zeros(schedule.T + 1, 1).double()
    left = posterior_x0(gaussian(m, s2), nothing, schedule.alpha_bar).variance
    return optimal_variance(schedule, left)


def terms(schedule, m, s2, variance, model=None, t_shown=lambda t: t) -> torch.Tensor:
    """Entries 1 to T are L_0 to L_(T-1), the last is L_T, in nats."""
    T = schedule.T
    best = model or optimal_denoiser(gaussian(m, s2), schedule.alpha_bar)
    nodes, weights = gauss_hermite(4)
    x_0 = (m + math.sqrt(s2) * nodes).repeat_interleave(4).repeat(T)[:, None]
    epsilon = nodes.repeat(4).repeat(T)[:, None]
    t = torch.arange(1, T + 1).repeat_interleave(16)
    denoiser = Denoiser(lambda x, t: best(x, t_shown(t)), clip=None)
    options = {"variance": variance, "decoder": log_density}
    found = bound_term(schedule, denoiser, x_0, t, epsilon, **options)
    both = torch.outer(weights, weights).flatten()
    prior = prior_term(schedule, x_0[:16]) @ both
    return torch.cat([torch.zeros(1), found.nats.view(T, 16) @ both, prior[None]])


def expected(schedule: NoiseSchedule, m: float, s2: float) -> float:
    """Return the entropy of the data plus the divergence at the start."""
    v = schedule.alpha_bar[-1].item() * (s2 - 1) + 1
    start = 0.5 * (v + schedule.alpha_bar[-1].item() * m**2 - 1 - math.log(v))
    return 0.5 * math.log(2 * math.pi * math.e * s2) + start


short = linear_schedule(50, 1e-4, 0.2)
print("data             entropy + start   all terms        difference")
for m, s2 in [(0.0, 1.0), (0.4, 0.09), (-0.7, 0.5)]:
    found = terms(short, m, s2, exact_variance(short, m, s2)).sum().item()
    sought = expected(short, m, s2)
    off = abs(found - sought)
    print(f"N({m:4}, {s2:4})    {sought:.12f}   {found:.12f}   {off:.0e}")
    assert off < 1e-13

# %%
# Does it detect mistakes?
# ------------------------
# Two mutants, each with one mistake, and a different choice. The first calls the
# network with the timestep before; the second omits the last term. The third is not a
# mistake: it is the variance that the authors use. But the oracle requires the exact
# one.

m, s2 = 0.4, 0.09
exact = partial(terms, short, m, s2)
variance = exact_variance(short, m, s2)
wrong = {
    "the step before": exact(variance, t_shown=lambda t: (t - 1).clamp(1)).sum(),
    "no term for the start": exact(variance)[:-1].sum(),
    "beta in place of the exact variance": exact("beta").sum(),
}
for what, total in wrong.items():
    print(f"{what:36} off by {total.item() - expected(short, m, s2):+.4f} nats")
    assert abs(total.item() - expected(short, m, s2)) > 1e-4
assert wrong["beta in place of the exact variance"] > expected(short, m, s2)

# %%
# The size of the terms
# ---------------------
# The chain with :math:`T = 1000`, on data with a standard deviation of 0.3. With the
# exact variance the terms add up to the entropy and the divergence at the start; with a
# fixed one the sum is larger. The choice :math:`\beta_t` is exact for data of variance
# 1, and :math:`\tilde\beta_t` for a single point.

choices = {
    "exact": exact_variance(schedule, m, s2),
    r"$\beta_t$": "beta",
    r"$\tilde\beta_t$": "beta_tilde",
}
fig, ax = plt.subplots(figsize=(6.6, 3.6), layout="constrained")
totals = {}
for (name, choice), style in zip(choices.items(), ("-", "--", ":"), strict=True):
    found = terms(schedule, m, s2, choice)
    totals[name] = found.sum().item()
    ax.plot(steps[1:], found[2:-1], style, label=f"variance {name}")
ax.set(xlabel="timestep t", ylabel="$L_{t-1}$ (nats)", xscale="log", yscale="log")
ax.set_title("The terms of the bound on Gaussian data")
ax.legend()
plt.show()

print(
    {
        name: f"{total - expected(schedule, m, s2):+.4f}"
        for name, total in totals.items()
    }
)
assert abs(totals["exact"] - expected(schedule, m, s2)) < 1e-12
assert min(totals[r"$\beta_t$"], totals[r"$\tilde\beta_t$"]) > totals["exact"] + 1e-3
unit = terms(schedule, 0.0, 1.0, "beta").sum().item()
assert abs(unit - expected(schedule, 0.0, 1.0)) < 1e-12

# %%
# Limits
# ------
# The equality holds for data whose exact reverse process is Gaussian. For any other
# data the bound is above the entropy even with the optimal denoiser, because a reverse
# step of finite size is not Gaussian then; the difference decreases with the number of
# steps.
