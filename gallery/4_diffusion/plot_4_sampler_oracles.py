r"""
Gaussian data check a sampler to floating-point accuracy
========================================================

**Question.** A wrong sampler still generates pictures. How can we know that a sampler
is right, to floating-point accuracy and without looking at samples?

**Answer.** Use Gaussian data and their optimal denoiser. A complete sampling run is
then an affine map of its start and of each draw of noise, whose coefficients can be
computed. For standard normal data the variance of the samples must be exactly
:math:`1 - \beta_1`; if all data are a single point, every run must end there. All eight
mutants of the sampler are detected. The smallest error, 0.0001, would take five billion
random samples to see.

**Source.** Calculated here for the samplers of Ho, Jain and Abbeel, *Denoising
Diffusion Probabilistic Models*, 2020 (arXiv:2006.11239), and of Song, Meng and Ermon,
*Denoising Diffusion Implicit Models*, 2021 (arXiv:2010.02502). **Cost.** Seconds on a
CPU, no download.
"""

# %%
# The affine oracle
# -----------------
# For data :math:`\mathcal N(m, s^2)` the optimal denoiser is linear in :math:`x_t`.
# Each step of Algorithm 2 is therefore a multiple of :math:`x_t` plus a constant plus
# :math:`\sigma_t z_t`, and all steps together are
# :math:`x_0 = b + a\, x_T + \sum_t c_t\, z_t`. One batch of :math:`T + 2` trajectories
# yields all coefficients: the first gets zeros everywhere, the second starts from 1,
# and each of the others gets a single 1 as the noise of one step.

from collections.abc import Callable
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch

from dian.claims import verify as verifier
from dian.claims.diffusion import sampling as checks
from dian.diffusion import sampling
from dian.diffusion.gaussian_mixture import Mixture, gaussian, moments, optimal_denoiser
from dian.diffusion.sampling import (
    Denoiser,
    ddim_sample,
    ddpm_sample,
    evenly_spaced_timesteps,
)
from dian.diffusion.schedule import linear_schedule, signal_to_noise
from dian.figures.tables import markdown_table

T, beta_1 = 50, 1e-4  # short: on a long chain an index that is off by one changes 1 %
schedule = linear_schedule(T, beta_1, 0.2)


def affine(sample: Callable) -> tuple[float, float, torch.Tensor]:
    """Return b, a and all c_t of a sampler."""
    x_T = torch.zeros(T + 2, 1, dtype=torch.float64)
    x_T[1] = 1

    def noise(t: int) -> torch.Tensor:
        z = torch.zeros_like(x_T)
        z[t + 1] = 1
        return z

    b, a, *c = sample(x_T, noise)[:, 0]
    return b.item(), (a - b).item(), torch.stack(c) - b


def sampler(data: Mixture, variance: str = "beta") -> Callable:
    """Return Algorithm 2 with the optimal denoiser of some data."""
    denoiser = Denoiser(optimal_denoiser(data, schedule.alpha_bar), clip=None)

    def sample(x_T, noise):
        return ddpm_sample(schedule, denoiser, x_T, variance=variance, noise=noise)

    return sample


# %%
# **Standard normal data.** For :math:`\mathcal N(0, 1)` the optimal prediction is
# :math:`\sqrt{1 - \bar\alpha_t}\, x_t`, and the mean of a step is
# :math:`\sqrt{\alpha_t}\, x_t`. With :math:`\sigma_t^2 = \beta_t` the variance stays 1
# at every step except the last, which adds no noise, so that the samples have the
# variance :math:`1 - \beta_1`, equation :eq:`eq-diffusion-unit-oracle`.
#
# **A point.** If all data are one point :math:`m`, the predicted image is :math:`m` for
# every input, and the last step returns it.
#
# **Other Gaussians.** Sampling starts from :math:`\mathcal N(0, 1)`, while the mean of
# the noisy data at :math:`T` is :math:`\sqrt{\bar\alpha_T}\, m`. With
# :math:`v_t = \bar\alpha_t s^2 + 1 - \bar\alpha_t`, each step multiplies the error of
# the mean by :math:`\sqrt{\alpha_t}\, v_{t-1} / v_t`, the slope of
# :math:`\mathbb E[x_{t-1} \mid x_t]` as a function of :math:`x_t`. The product of these
# factors is :math:`\sqrt{\bar\alpha_T}\, s^2 / v_T`, so the error that remains at the
# end is
#
# .. math::
#    :label: eq-diffusion-mean-oracle
#
#    \mathbb E[x_0] - m = - m\, \frac{s^2 \operatorname{SNR}(T)}
#    {1 + s^2 \operatorname{SNR}(T)} .

b, a, c = affine(sampler(gaussian(0.0, 1.0)))
print(f"standard normal: mean {b:.1e}, variance {a**2 + (c**2).sum():.15f}")
assert abs(b) < 1e-14
assert abs(a**2 + (c**2).sum() - (1 - beta_1)) < 1e-13

printed = []
for variance in ("beta", "beta_tilde"):
    b, a, c = affine(sampler(gaussian(0.3, 0.0), variance=variance))
    printed.append((variance, f"{b:.15f}", f"{a:.0e}", f"{c.max():.0e}"))
    assert max(abs(b - 0.3), abs(a), c.abs().max()) < 1e-13
header = ("a point at 0.3, variance", "samples at", "factor of the start")
print(markdown_table((*header, "largest factor of the noise"), printed), "\n")

snr = signal_to_noise(schedule)[-1].item()
printed = []
for m, s2 in [(0.4, 0.09), (-0.7, 0.5)]:
    b, _, _ = affine(sampler(gaussian(m, s2)))
    formula = -m * s2 * snr / (1 + s2 * snr)
    printed.append((f"N({m}, {s2})", f"{b - m:+.12f}", f"{formula:+.12f}"))
    assert abs(b - m - formula) < 1e-13
print(markdown_table(("data", "error of the mean", "formula"), printed))

# %%
# The coefficients also show which noise a sample depends on. On standard normal data
# almost nothing of the start is left at the end, and little of the early noise; three
# quarters of the variance of a sample are noise of the second half of the steps.

_, a, c = affine(sampler(gaussian(0.0, 1.0)))
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.bar(range(1, T + 1), (c**2).numpy(), label="noise of step t")
ax.plot(T + 1, a**2, "ko", label="$x_T$")
ax.set(xlabel="timestep t", ylabel="fraction of the variance of $x_0$")
ax.set_title("Where the variance of a sample comes from")
ax.legend()
fig.set_label(
    r"The fraction of the variance of a sample that comes from the noise of "
    r"each step, and from the start $x_T$, for standard normal data. The second "
    r"half of the run, $t \le 25$, contributes three quarters."
)
plt.show()

assert c[0] == 0  # step 1 adds none
assert a**2 < 0.01
assert 0.7 < (c[:25] ** 2).sum() < 0.8

# %%
# Mutants
# -------
# Each mutant replaces one expression in the source of the sampler. The table shows the
# error of the variance on standard normal data; for a point, the error of the mean and
# the variance of the samples, which are both 0 for a correct sampler; and the number of
# random samples that would be needed to detect the error of the variance by five
# standard errors.

planted = {mutant.what: mutant for mutant in checks.gaussian_oracle.claim.mutants}
listed = [
    "the model is called with the timestep before",
    "alpha-bar of the step before",
    "no timestep embedding",
    "the root of 1 - alpha-bar is missing",
    "the root of alpha is missing",
    "variance in place of deviation",
    "the variance of the whole noise",
    "noise at the last step too",
]
off, blind, nothing, printed = {}, [], [], []
for what in listed:
    wrong = verifier.load_mutant("dian.diffusion.sampling", planted[what])
    with verifier.installed(wrong):
        _, a, c = affine(sampler(gaussian(0.0, 1.0)))
        off[what] = (a**2 + (c**2).sum() - (1 - beta_1)).item()
        b, a, c = affine(sampler(gaussian(0.3, 0.0)))
    point = b - 0.3, (a**2 + (c**2).sum()).item()
    needed = 2 * (5 / off[what]) ** 2
    if abs(point[0]) < 1e-12 and point[1] < 1e-20:
        blind.append(what)
    if np.isnan(point[0]):
        nothing.append(what)
    of_point = f"{point[0]:+.1e}", f"{point[1]:.1e}"
    printed.append((what, f"{off[what]:+.4f}", *of_point, f"{needed:.0e}"))
    assert not abs(off[what]) < 0.9 * beta_1
header = ("mutant", "error of the variance", "error of the mean, a point")
header += ("variance, a point", "samples needed")
print(markdown_table(header, printed))

smallest = min(off, key=lambda what: abs(off[what]))
assert len(blind) == 3
assert nothing == listed[:1]
assert abs(off["alpha-bar of the step before"] + 1 / 6) < 0.01
assert abs(off["variance in place of deviation"] + 0.9) < 0.02
assert smallest == "noise at the last step too"
assert abs(off[smallest] - beta_1) < 1e-12
assert abs(2 * (5 / off[smallest]) ** 2 / 5e9 - 1) < 1e-6

# %%
# If all data are a point, three of the eight mutants are not detected, and the result
# of the first is not a number: in the last step the denoiser is evaluated at
# :math:`t = 0`, where the score of a point is 0/0. Therefore both kinds of data are
# needed. The length of the chain matters, too: the error of an index that is off by one
# decreases as :math:`1/T`, to about a hundredth on the chain of the paper. Mutants
# should run on short chains.


def variance_on(chain) -> float:
    """Return the error of the variance for standard normal data."""
    model = optimal_denoiser(gaussian(0.0, 1.0), chain.alpha_bar)
    n = chain.T + 2
    x_T = torch.eye(n, 1, dtype=torch.float64)  # a 1 at the start, and 0

    def noise(t: int) -> torch.Tensor:
        return torch.eye(n, dtype=torch.float64)[:, t : t + 1]

    x_0 = ddpm_sample(chain, Denoiser(model, clip=None), x_T, noise=noise)
    return (x_0**2).sum().item() - (1 - chain.beta[1].item())


neighbour = "the model is called with the timestep before"
wrong = verifier.load_mutant("dian.diffusion.sampling", planted[neighbour])
lengths = [25, 50, 100, 200, 400]
errors, printed = [], []
for n in lengths:
    with verifier.installed(wrong):
        errors.append(variance_on(linear_schedule(n, 0.1 / n, 20 / n)))
    printed.append((n, f"{errors[-1]:+.4f}"))
print(markdown_table(("timesteps T", "error of the variance"), printed))
assert all(1.8 < early / late < 2.2 for early, late in pairwise(errors))
assert errors[-1] * 400 / 1000 < 0.012

# %%
# The error of correct samplers
# -----------------------------
# Even a correct sampler is not exact. For a mixture, the exact reverse process is not
# Gaussian, and the distribution of the start, :math:`\mathcal N(0, 1)`, is not that of
# :math:`x_T`. The resulting error can be computed without random draws, by propagating
# the density of :math:`x_t` through all steps on a grid:
#
# .. math::
#    :label: eq-diffusion-grid
#
#    p_{t-1}(y) = \int p_t(x)\, \mathcal N\big(y; \mu_t(x), \sigma_t^2\big)\, dx, \qquad
#    p_T = \mathcal N(0, 1), \qquad x_0 = \mu_1(x_1) .
#
# The table has the mean and the variance of the samples for two lengths of the chain.
# Those of the longer chain are closer to those of the data.

tensors = ([0.3, 0.7], [[-0.6], [0.5]], [0.02, 0.04])
data = Mixture(*(torch.tensor(x, dtype=torch.float64) for x in tensors))
true_mean, true_variance = (x.item() for x in moments(data))
printed = [("data", f"{true_mean:.5f}", f"{true_variance:.5f}")]

found = {}
for chain_T, last in [(100, 0.2), (500, 0.04)]:
    chain = linear_schedule(chain_T, 1e-4, last)
    found[chain_T] = checks.grid_moments(sampling, chain, data, "beta")
    mean, variance = found[chain_T]
    name = f"T = {chain_T}, to {last}, beta"
    printed.append((name, f"{mean:.5f}", f"{variance:.5f}"))
print(markdown_table(("distribution", "mean", "variance"), printed))

assert abs(true_mean - 0.17) < 1e-12
assert abs(found[100][0] - 0.16755) < 5e-6
assert abs(found[100][1] - 0.29012) < 5e-6
assert abs(found[500][1] - true_variance) < abs(found[100][1] - true_variance) / 5

# %%
# Few steps
# ---------
# For standard normal data, a step of DDIM without noise multiplies :math:`x_t` by the
# cosine of an angle, and the variance of the samples is a product of squared cosines,
# equation :eq:`eq-diffusion-ddim-oracle`.
#
# Ten steps lose almost a third of the variance: the samples have too little variety.

long = linear_schedule()
angle = long.alpha_bar.sqrt().acos()
unit = Denoiser(optimal_denoiser(gaussian(0.0, 1.0), long.alpha_bar), clip=None)
one = torch.ones(1, 1, dtype=torch.float64)
counts = [5, 10, 20, 50, 100, 200, 500, 1000]
measured, formula = [], []
for n in counts:
    steps = evenly_spaced_timesteps(1000, n)
    out = ddim_sample(long, unit, one, steps=steps)
    measured.append(out.item() ** 2)
    formula.append(angle[[0, *steps]].diff().cos().prod().item() ** 2)

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(counts, measured, "o", label="the sampler")
ax.plot(counts, formula, "-", label="product of squared cosines")
ax.axhline(1, color="gray", linestyle=":", label="the data")
ax.set(xlabel="steps of DDIM", ylabel="variance of the samples", xscale="log")
ax.legend()
fig.set_label(
    "The variance of DDIM samples of standard normal data, whose variance "
    "is 1, against the number of steps: the sampler (points) and the "
    "formula (line)."
)
plt.show()

printed = [(n, f"{v:.5f}") for n, v in zip(counts, measured, strict=True)]
print(markdown_table(("steps of DDIM", "variance of the samples"), printed))
assert np.allclose(measured, formula, rtol=0, atol=1e-12)
assert abs(measured[counts.index(10)] - 0.68785) < 5e-6
assert abs(measured[-1] - 0.99625) < 5e-6

# %%
# Limits
# ------
# An oracle on Gaussian data tests the sampler and the schedule. It tests neither the
# network nor the clipping of the predicted image, which is not affine: for the
# clipping, claim D8b of :doc:`/verification` compares all predictions with a loop over
# plain numbers.
