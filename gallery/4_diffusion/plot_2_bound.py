r"""
The terms of the variational bound add up to the entropy of the data
====================================================================

**Question.** A diffusion model is trained on a bound on its negative log-likelihood.
How does the squared error of a predicted noise follow from this bound, and how do we
know that every term of it is right?

**Answer.** The bound is a sum of KL divergences between Gaussians and a reconstruction
term. The divergence of each reverse step is a squared error of the noise times a weight
that depends on the timestep alone, plus a constant. For Gaussian data and the exact
reverse process, the bound equals the entropy of the data plus the divergence at the
start. The library agrees to 13 digits; with a wrong term or another variance the
equality does not hold.

**Source.** Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models*, 2020
(arXiv:2006.11239), equations 3 to 14; Sohl-Dickstein et al., *Deep Unsupervised
Learning using Nonequilibrium Thermodynamics*, 2015 (arXiv:1503.03585). **Cost.**
Seconds on a CPU, no download.
"""

# %%
# Two chains
# ----------
# The forward process adds noise, and the model removes it. The chapter
# :doc:`/diffusion` derives the variational bound :eq:`eq-diffusion-bound`: a term
# :math:`L_T` for the start, one KL divergence :math:`L_{t-1}` for each timestep, and
# the decoder :math:`L_0`. Each divergence compares the reverse transition of the model
# (lower arrows of the figure) with the posterior of the forward process.

import math
from functools import partial

import matplotlib.pyplot as plt
import torch

from dian import data
from dian.diffusion.gaussian_mixture import gaussian, optimal_denoiser, posterior_x0
from dian.diffusion.likelihood import bound_term, bound_weight, log_density, prior_term
from dian.diffusion.posterior import optimal_variance
from dian.diffusion.process import q_sample
from dian.diffusion.sampling import Denoiser
from dian.diffusion.schedule import (
    NoiseSchedule,
    cosine_schedule,
    linear_schedule,
    signal_to_noise,
)
from dian.figures import diffusion_diagrams
from dian.figures.interactive import Interactive
from dian.figures.tables import markdown_table

schedule = linear_schedule()
image = data.sample("test").signed()[:1].double()
state = torch.Generator().manual_seed(0)
epsilon = torch.randn(image.shape, generator=state, dtype=torch.float64)
names = {0: "x_0", 1: "", 240: "x_{t-1}", 300: "x_t", 301: "", 1000: "x_T"}
shown = [q_sample(schedule, image, t, epsilon)[0] if t else image[0] for t in names]

fig, ax = plt.subplots(layout="constrained")
diffusion_diagrams.chain(ax, [x.numpy() for x in shown], list(names.values()))
ax.set_title("A diffusion model")
fig.set_label(
    r"The forward process $q$ adds noise in $T$ steps. The reverse process "
    r"$p_\theta$ starts from pure noise and removes it step by step. The images "
    r"$x_{t-1}$ and $x_t$ are shown with the noise of timesteps 240 and 300, "
    r"because those of neighboring timesteps would look the same."
)
plt.show()

# %%
# The weight of each timestep
# ---------------------------
# All divergences compare two Gaussians, equation :eq:`eq-diffusion-kl`. Since
# :math:`\tilde\beta_t` and :math:`\sigma_t^2` are known numbers, only the mean is
# learned. Both means are linear in the noise, so their squared difference is a squared
# error of the noise times a weight, equation :eq:`eq-diffusion-weight`. For
# :math:`\sigma_t^2 = \tilde\beta_t` the weight depends only on the ratio of two
# signal-to-noise ratios, equation :eq:`eq-diffusion-weight-snr`.

steps = torch.arange(1, 1001)
weights = {
    name: bound_weight(schedule, variance=name) for name in ("beta", "beta_tilde")
}

snr = signal_to_noise(schedule)
ratio = 0.5 * (snr[1:-1] / snr[2:] - 1)
assert torch.allclose(ratio, weights["beta_tilde"][2:])

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
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
fig.set_label(
    "The weight that the variational bound gives to the squared error of "
    "each timestep, for both variances, and the weight 1 of the simple "
    "loss. The bound gives most weight to the first timesteps."
)
plt.show()

weight = weights["beta"]
lowest = weight[1:].argmin().item() + 1
printed = [(t, f"{weight[t]:.5f}") for t in (1, 100, lowest, 1000)]
print(markdown_table(("timestep", "weight"), printed))

assert abs(weight[1] - 0.5) < 1e-3
assert lowest == 349
assert abs(weight[lowest] - 0.00497) < 5e-6
assert 2 < weight[1000] / weight[lowest] < 2.1
assert weight[1] / weight[lowest:].max() > 45
assert weight[1] / weight[lowest] > 100

# %%
# The weight falls from 0.5 to its minimum, a hundredth of that, at :math:`t = 349`, and
# then rises again to twice the minimum, so it is not a decreasing function of
# :math:`t`. The loss :math:`L_{simple}` has a weight of 1 at every timestep. Compared
# with the bound, it reduces the influence of the first timesteps, where the image is
# almost clean. The chapter explains by equation :eq:`eq-diffusion-elbo-view` what a
# change of the weights means for the likelihood.
#
# The prediction target of the network is a choice of weights, too: by equation
# :eq:`eq-diffusion-losses`, an unweighted loss of :math:`x_0` or of :math:`v` counts an
# error of the noise with a weight that depends on the timestep. Only the shape of a
# curve matters, since a constant factor does not change the minimum. Compare the
# schedules: the weights of the bound change, whereas those of :math:`L_{simple}` do
# not.

shown_at = sorted({round(10 ** (3 * k / 60)) for k in range(61)} - {1})
shown_weights = {}
for name, tables in {"linear": schedule, "cosine": cosine_schedule()}.items():
    snr_t, one = signal_to_noise(tables), torch.ones(1001, dtype=torch.float64)
    of_loss = {
        "variational bound": bound_weight(tables, variance="beta_tilde"),
        "L_simple": one,
        "unweighted loss of x₀": 1 / snr_t,
        "unweighted loss of v": 1 / tables.alpha_bar,
    }
    shown_weights[name] = {
        loss: [float(f"{weight[t]:.4g}") for t in shown_at]
        for loss, weight in of_loss.items()
    }
    # Checked against the weights that the library has for the other targets.
    for target, loss in (
        ("x_0", "unweighted loss of x₀"),
        ("v", "unweighted loss of v"),
    ):
        own = bound_weight(tables, target, variance="beta_tilde")[2:]
        both = own * of_loss[loss][2:]
        assert torch.allclose(both, of_loss["variational bound"][2:])

Interactive(
    "weights",
    "The weight that each loss gives to the squared error of the predicted noise, from "
    "timestep 2 on, on logarithmic axes. Choose a timestep and a schedule.",
    steps=shown_at,
    curves=shown_weights,
)

# %%
# An oracle
# ---------
# How could we find a wrong term? The bound is an inequality, which may hold with a
# wrong term as well. But if the data are :math:`\mathcal N(m, s^2)`, the reverse
# process is known exactly: each :math:`q(x_{t-1} \mid x_t)` is a Gaussian, its mean is
# that of the optimal denoiser, and its variance is
# :math:`\sigma_t^{*2} = \tilde\beta_t + c_0^2 \operatorname{Var}(x_0 \mid x_t)`, where
# :math:`c_0` is the factor of :math:`x_0` in :eq:`eq-diffusion-posterior`. A model with
# these reverse transitions differs from the forward process only at the start, and all
# terms together are the entropy of the data plus the divergence at the start, equation
# :eq:`eq-diffusion-bound-exact`.
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
printed = []
for m, s2 in [(0.0, 1.0), (0.4, 0.09), (-0.7, 0.5)]:
    found = terms(short, m, s2, exact_variance(short, m, s2)).sum().item()
    sought = expected(short, m, s2)
    off = abs(found - sought)
    printed.append((f"N({m}, {s2})", f"{sought:.12f}", f"{found:.12f}", f"{off:.0e}"))
    assert off < 1e-13
header = ("data", "entropy + start (nats)", "all terms (nats)", "difference (nats)")
print(markdown_table(header, printed))

# %%
# Does it detect mistakes?
# ------------------------
# We make three changes, one at a time. Two are mistakes (mutants): the first calls the
# network with the timestep before, and the second omits :math:`L_T`, the term for the
# start. The third uses :math:`\sigma_t^2 = \beta_t`, a variance that the authors use.
# This is no mistake, but the equality requires the exact variance.

m, s2 = 0.4, 0.09
exact = partial(terms, short, m, s2)
variance = exact_variance(short, m, s2)
wrong = {
    "the step before": exact(variance, t_shown=lambda t: (t - 1).clamp(1)).sum(),
    "no term for the start": exact(variance)[:-1].sum(),
    "beta in place of the exact variance": exact("beta").sum(),
}
printed = []
for what, total in wrong.items():
    off = total.item() - expected(short, m, s2)
    printed.append((what, f"{off:+.4f}"))
    assert abs(off) > 1e-4
print(markdown_table(("mistake", "error of the bound (nats)"), printed))
assert wrong["beta in place of the exact variance"] > expected(short, m, s2)

# %%
# The size of the terms
# ---------------------
# The figure shows the terms of the chain with :math:`T = 1000`, on data with a standard
# deviation of 0.3. With the exact variance the terms add up to the entropy and the
# divergence at the start; with a fixed one the sum is larger. The choice
# :math:`\beta_t` is exact for data of variance 1, and :math:`\tilde\beta_t` for a
# single point.

choices = {
    "exact": exact_variance(schedule, m, s2),
    r"$\beta_t$": "beta",
    r"$\tilde\beta_t$": "beta_tilde",
}
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
totals = {}
for (name, choice), style in zip(choices.items(), ("-", "--", ":"), strict=True):
    found = terms(schedule, m, s2, choice)
    totals[name] = found.sum().item()
    ax.plot(steps[1:], found[2:-1], style, label=f"variance {name}")
ax.set(xlabel="timestep t", ylabel="$L_{t-1}$ (nats)", xscale="log", yscale="log")
ax.set_title("The terms of the bound on Gaussian data")
ax.legend()
fig.set_label(
    "The terms of the bound on data with a standard deviation of 0.3, for "
    "three variances of the reverse steps. Only the exact variance makes "
    r"the sum as small as possible. The terms of $\tilde\beta_t$ are larger at "
    r"the first timesteps; those of $\beta_t$ are too close to the exact ones to "
    "see the difference."
)
plt.show()

best = expected(schedule, m, s2)
printed = [(name, f"{total - best:+.4f}") for name, total in totals.items()]
print(markdown_table(("variance", "sum of the terms - the smallest (nats)"), printed))
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
