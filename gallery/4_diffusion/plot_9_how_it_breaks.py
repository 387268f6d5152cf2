r"""
Only two of nine bugs are obvious in the samples of a diffusion model
=====================================================================

**Question.** One line of a diffusion model is wrong. Do the samples show it? And if
they do not, what does?

**Answer.** Of nine samplers with one injected bug each, only two generate samples that
are obviously wrong. Four make the samples slightly noisy, one cannot be told apart from
the correct sampler by these samples, and two look *better* than it, because they add
too little noise. Checks against an independent computation detect every bug.

**Source.** Mutation testing, the injection of bugs to test the tests, is due to
DeMillo, Lipton and Sayward, *Hints on test data selection*, 1978. **Cost.** Seconds on
a CPU, no download.
"""

# %%
# The list
# --------
# Each check of this chapter has a list of mutants, changes of one expression in the
# source, which it must reject (:doc:`/verification` has all of them). This is a
# selection. The table names the check that detects each bug, and gives its residual,
# the difference from an independent computation, and its tolerance. A bug is detected
# if the residual exceeds the tolerance or is not a number (``nan``), or if the check
# stops with the expected error (``error``).

import matplotlib.pyplot as plt
import numpy as np
import torch

from dian import data
from dian.claims import Mutant
from dian.claims import verify as verifier
from dian.claims.diffusion import likelihood, pixels, process, sampling
from dian.diffusion.gaussian_mixture import draw, optimal_denoiser, ring
from dian.diffusion.pixels import signed, to_bytes
from dian.diffusion.process import training_loss
from dian.diffusion.sampling import Denoiser, ddpm_sample
from dian.diffusion.schedule import linear_schedule
from dian.figures.tables import markdown_table
from dian.training.clipping import clip_by_norm
from dian.training.loss import cross_entropy


def planted(check, what: str) -> Mutant:
    """Find a mutant of a check by its description."""
    return next(mutant for mutant in check.claim.mutants if mutant.what == what)


in_the_sampler = [
    "the root of 1 - alpha-bar is missing",
    "no timestep embedding",
    "the variance of the whole noise",
    "the model is called with the timestep before",
    "stops one step early",
    "noise at the last step too",
    "the root of alpha is missing",
    "alpha-bar of the step before",
    "variance in place of deviation",
]
bugs = [(sampling.gaussian_oracle, what) for what in in_the_sampler]
bugs += [
    (process.forward, "a sum in place of a product"),
    (process.forward, "the schedule starts one step late"),
    (process.algorithm_1, "timestep 0 is drawn, and T is not"),
    (process.algorithm_1, "the model is called with the clean image"),
    (pixels.scaling, "scaled twice"),
    (pixels.scaling, "wraps around in place of being clamped"),
    (sampling.ddpm_sample, "clips from below only"),
    (sampling.ddim, "the noise of the prediction before it was clipped"),
    (likelihood.bound, "the divergence with its arguments exchanged"),
    (likelihood.decoder, "the upper end is closed"),
]
printed = []
for check, what in bugs:
    mutant = planted(check, what)
    result = verifier.run_mutant(check.claim, mutant)
    found = "error" if result.error else f"{result.residual:.0e}"
    printed.append((what, check.claim.id, found, f"{check.claim.tolerance:.0e}"))
    assert verifier.killed(mutant, result)
print(markdown_table(("bug", "check", "residual", "tolerance"), printed))

# %%
# On the unchanged code, the residuals of the same checks are of the size of rounding
# errors.

printed = []
for check in dict.fromkeys(check for check, _ in bugs):
    result = verifier.verify(check.claim)
    printed.append((check.claim.id, check.claim.title, f"{result.residual:.0e}"))
    assert result.passed
print(markdown_table(("check", "title", "residual"), printed))

# %%
# What the samples show
# ---------------------
# The data are a ring of eight Gaussians, for which the optimal denoiser is known, so
# that no error comes from a network. Each sampler with a bug starts from the same noise
# and uses the same draws, without clipping and with :math:`\sigma_t^2 = \beta_t`. The
# title of each panel has the fraction of samples within three standard deviations of a
# center.

T, n = 100, 2000
schedule = linear_schedule(T, 0.1 / T, 20 / T)
eight = ring(8, radius=0.8, variance=0.005)
denoiser = Denoiser(optimal_denoiser(eight, schedule.alpha_bar), clip=None)
x_T = torch.randn(n, 2, generator=torch.Generator().manual_seed(1)).double()


def drawn() -> torch.Tensor:
    """Sample from the start that all share."""
    state = torch.Generator().manual_seed(2)
    return ddpm_sample(schedule, denoiser, x_T, generator=state)


def within(points: torch.Tensor) -> float:
    """Return the fraction of points near one of the eight centers."""
    nearest = torch.cdist(points, eight.mean).min(1).values
    return (nearest < 3 * eight.variance[0].sqrt()).double().mean().item()


def spread(points: torch.Tensor) -> float:
    """Return the standard deviation around the nearest center, of points near one."""
    nearest = torch.cdist(points, eight.mean).min(1).values
    near = nearest[nearest < 4 * eight.variance[0].sqrt()]
    return (near.square().mean() / 2).sqrt().item()


points = {"the data": draw(eight, n, torch.Generator().manual_seed(0))}
points["no bug"] = drawn()
for what in in_the_sampler:
    mutant = planted(sampling.gaussian_oracle, what)
    with verifier.installed(verifier.load_mutant("dian.diffusion.sampling", mutant)):
        points[what] = drawn()
share = {what: within(cloud) for what, cloud in points.items()}

fig, axes = plt.subplots(3, 4, figsize=(7, 5.5), layout="constrained")
for ax, (what, cloud) in zip(axes.flat, points.items(), strict=False):
    ax.plot(*cloud.T.numpy(), ".", markersize=1.5, alpha=0.5)
    words = what.split()
    half = len(words) // 2 + 1
    title = " ".join(words[:half]) + "\n" + " ".join(words[half:])
    ax.set_title(f"{title} ({share[what]:.0%})", fontsize=8)
    ax.set(aspect="equal", xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), xticks=[], yticks=[])
axes.flat[-1].axis("off")
fig.suptitle("2,000 samples of each, and the fraction of them near a center")
fig.set_label(
    "Data, samples of the correct sampler, and of nine samplers with one "
    "bug each. The title gives the bug, and the fraction of samples near a "
    "center. Only the first two bugs are obvious."
)
plt.show()

printed = [
    (what, f"{share[what]:.3f}", f"{spread(cloud):.4f}")
    for what, cloud in points.items()
]
header = ("samples of", "fraction near a center", "standard deviation")
print(markdown_table(header, printed))

shows = in_the_sampler[:2]
assert max(share[what] for what in shows) < 0.25
assert all(share[what] > 0.8 for what in in_the_sampler if what not in shows)
better = [what for what in in_the_sampler if share[what] > share["no bug"] + 0.02]
assert better == ["alpha-bar of the step before", "variance in place of deviation"]
assert abs(share["the root of alpha is missing"] - share["no bug"]) < 0.01

# %%
# Only the first two are obvious. The next four look slightly noisy, as if a correct
# model had not been trained for long enough, and those with *the root of alpha is
# missing* look like samples of the correct sampler. The samples of the last two bugs
# look better than those of the correct sampler: they contain too little noise and stay
# closer to the centers. Anyone who tunes by eye would prefer them. On standard normal
# data their variance is wrong by a sixth and by nine tenths, which the oracle of
# :doc:`/gallery/4_diffusion/plot_4_sampler_oracles` detects to floating-point accuracy.
#
# Bytes that wrap around
# ----------------------
# :func:`dian.diffusion.pixels.to_bytes` converts images in [-1, 1] to bytes, and clamps
# values outside this range, which samples do have. Without clamping, a pixel that is
# slightly too bright becomes black. And if an image that already consists of bytes is
# scaled to 0 to 255 again, each value is multiplied by 255 and reduced to 8 bits: it
# becomes its own negative.

images = to_bytes(data.sample("test").signed()[:6])
state = torch.Generator().manual_seed(0)
noisy = signed(images) + 0.05 * torch.randn(images.shape, generator=state)
right = to_bytes(noisy)
wrapped = ((noisy + 1) * 127.5).round().to(torch.int64).remainder(256).byte()
twice = (images * 255).byte()  # 8 bits: 255 x is -x, modulo 256
rows = {"clamped": right, "wrapped around": wrapped, "scaled twice": twice}

fig, axes = plt.subplots(3, 6, figsize=(7, 5.5), layout="constrained")
for row, (name, shown) in zip(axes, rows.items(), strict=True):
    for ax, image in zip(row, shown, strict=True):
        ax.imshow(image.numpy(), cmap="gray_r", vmin=0, vmax=255)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
fig.suptitle("The same six images as bytes")
fig.set_label(
    "Six images as bytes: with a little noise and clamped; with the same noise "
    "and values that wrap around; without noise and scaled twice."
)
plt.show()

off = {
    name: (x.int() - images.int()).abs().double().mean().item()
    for name, x in rows.items()
}
printed = [(name, f"{value:.1f}") for name, value in off.items()]
print(markdown_table(("bytes", "mean error (gray values)"), printed))
assert torch.equal(twice, (256 - images.int()).remainder(256).byte())
assert off["clamped"] < 10
assert off["wrapped around"] > 3 * off["clamped"]
assert off["scaled twice"] > 3 * off["clamped"]

# %%
# A sum in place of a product
# ---------------------------
# For small :math:`\beta_s`, the product of all :math:`1 - \beta_s` is nearly 1 minus
# the sum of the :math:`\beta_s`, so both agree for the first dozens of timesteps. Later
# 1 minus the sum becomes negative, and its root is not a number. If it is clamped at 0
# instead, the schedule ends too early.

steps = linear_schedule()
by_sum = 1 - steps.beta.cumsum(0)
below = int((by_sum < 0).nonzero()[0])
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(steps.alpha_bar.numpy(), label="product")
ax.plot(by_sum.clamp(min=0).numpy(), "--", label="1 - sum, clamped at 0")
ax.set(xlabel="timestep t", ylabel=r"$\bar\alpha_t$")
ax.legend()
fig.set_label(
    r"$\bar\alpha_t$ as a product of $1 - \beta_s$, and the wrong version "
    r"with a sum, clamped at 0. They agree for the first timesteps only."
)
plt.show()

print(
    f"negative from timestep {below} on; difference at timestep 30: "
    f"{(by_sum - steps.alpha_bar)[30].abs():.4f}"
)
assert 250 < below < 400
assert (by_sum - steps.alpha_bar)[30].abs() < 1e-4
assert np.isnan(by_sum.sqrt()[below:].numpy()).all()

# %%
# A bug that no formula shows
# ---------------------------
# A denoiser and a classifier that are unrelated share one optimizer "to train
# everything". Each loss is right, and so is each gradient. But the gradient is clipped
# to norm 1 over all parameters together, so the gradient norm of one network decides by
# how much the gradient of the other is scaled. With gradient descent this scales the
# step. Adam cancels a constant factor, but not one that changes from step to step. The
# table has the norm of the denoiser's gradient after clipping.

d, n_class = 2, 8
state = torch.Generator().manual_seed(0)
denoiser, classifier = torch.nn.Linear(d, d), torch.nn.Linear(d, n_class)
for parameter in [*denoiser.parameters(), *classifier.parameters()]:
    torch.nn.init.normal_(parameter, generator=state)
x_0 = draw(eight, 500, state).float()
labels = torch.cdist(x_0.double(), eight.mean).argmin(1)


def clipped_norm(together: bool, scale: float) -> float:
    """Return the norm of the denoiser's gradient after clipping."""
    same = torch.Generator().manual_seed(1)
    loss = training_loss(schedule, lambda x, t: denoiser(x), x_0, generator=same).mean()
    if together:
        loss = loss + cross_entropy(scale * classifier(x_0), labels)
    parameters = [
        *denoiser.parameters(),
        *(classifier.parameters() if together else ()),
    ]
    for parameter in parameters:
        parameter.grad = None
    loss.backward()
    clip_by_norm(parameters, max_norm=1.0)
    return sum(p.grad.square().sum() for p in denoiser.parameters()).sqrt().item()


alone = clipped_norm(together=False, scale=1.0)
printed = [("alone", f"{alone:.3f}")]
for scale in (1.0, 5.0, 25.0):
    name = f"with a classifier whose logits are scaled by {scale:g}"
    printed.append((name, f"{clipped_norm(together=True, scale=scale):.3f}"))
print(markdown_table(("network", "norm of the clipped gradient"), printed))

assert abs(alone - 1) < 1e-6  # clipped
assert clipped_norm(together=True, scale=1.0) < alone
assert clipped_norm(together=True, scale=25.0) < 0.5 * alone

# %%
# If the two gradients are clipped separately, each is as large as if its network were
# trained alone.
#
# Limits
# ------
# The fractions are those of one set of 2,000 samples, from the same noise for all
# samplers, so each has a binomial standard error of about a hundredth or less.
# The data here are two-dimensional and the prediction is perfect. In a trained network
# the errors of the network can hide bugs as well. And a check that detects all bugs
# of a list may still miss a bug that nobody thought of.
