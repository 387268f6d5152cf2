r"""
The first bits of the code describe the image, the rest fine details
====================================================================

**Question.** The variational bound is the ideal length of a code that sends an image
timestep by timestep. How much is known after each timestep, and for how many bits? And
what does the reverse process generate from a mixture of two noisy images?

**Answer.** With the exact reverse process, the bits sent up to :math:`x_t` are the
information that :math:`x_t` has about the image, plus a divergence at the start. For
Gaussian data they lie on Shannon's curve, apart from this divergence. With a trained
network, less than a hundredth of the bits suffices for half the error of the mean
image. With too little noise, an interpolation stays in the gap between two images; too
much noise erases both.

**Source.** Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models*, 2020
(arXiv:2006.11239), sections 4.3 and 4.4; Guo, Shamai and Verdú, *Mutual information
and minimum mean-square error in Gaussian channels*, 2005 (arXiv:cs/0412108). **Cost.**
Seconds on a CPU, no download.
"""

# %%
# Progressive coding
# ------------------
# Sender and receiver share the model. The sender transmits :math:`x_T`, then
# :math:`x_{T-1}` and so on. The ideal length of the code for each of them is the
# divergence of the distribution that the sender knows from the one that the receiver
# expects: :math:`L_T`, and then :math:`L_{t-1}` for each timestep. Ho et al. assume a
# procedure that reaches this length, such as minimal random coding. Neither they nor we
# build such a code. Known procedures need a few more bits at every step, so the lengths
# below are lower limits. After :math:`x_t` has arrived, the best estimate of the
# receiver is :math:`\hat x_0`. With the exact reverse process, the total length of all
# messages up to :math:`x_t` is the mutual information :math:`I(x_0; x_t)` plus a
# divergence at the start, equation :eq:`eq-diffusion-rate` of the chapter. For Gaussian
# data the information and the error lie on Shannon's curve, equation
# :eq:`eq-diffusion-shannon`. This is the rate-distortion function of a Gaussian: no
# code reaches this error with fewer bits. The following compares the library's estimate
# of the bound, on random draws, with that curve.

import math

import matplotlib.pyplot as plt
import numpy as np
import torch

from dian.data import sample
from dian.diffusion.gaussian_mixture import (
    Mixture,
    draw,
    gaussian,
    log_parts,
    moments,
    optimal_denoiser,
    posterior_x0,
    ring,
)
from dian.diffusion.likelihood import log_density, rate_distortion, variational_bound
from dian.diffusion.posterior import optimal_variance
from dian.diffusion.process import q_sample, standard_normal
from dian.diffusion.sampling import Denoiser, ddpm_sample, interpolate
from dian.diffusion.schedule import linear_schedule, signal_to_noise
from dian.figures import plots
from dian.figures.tables import markdown_table
from dian.runs.record import load

T, s2 = 100, 0.25
schedule = linear_schedule(T, 0.1 / T, 20 / T)
data = gaussian(0.0, s2)
generator = torch.Generator().manual_seed(0)
unknown = posterior_x0(
    data, torch.zeros(T + 1, 1).double(), schedule.alpha_bar
).variance
bound = variational_bound(
    schedule,
    Denoiser(optimal_denoiser(data, schedule.alpha_bar), clip=None),
    draw(data, 20_000, generator),
    variance=optimal_variance(schedule, unknown),
    decoder=log_density,
    generator=generator,
)
rate, distortion = rate_distortion(bound, d=1)

snr = signal_to_noise(schedule)[1:]
shannon = 0.5 * torch.log2(s2 / distortion[1:] ** 2)
information = 0.5 * torch.log2(1 + s2 * snr)
sent = rate[1:]

error = np.linspace(0.02, math.sqrt(s2), 100)
fig, (left, right) = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
left.plot(
    0.5 * np.log2(s2 / error**2), error, "k-", linewidth=1, label="Shannon's curve"
)
left.plot(sent, distortion[1:], "o", fillstyle="none", label="after each timestep")
left.set(xlabel="bits sent", ylabel="RMSE of the best estimate", ylim=(0, None))
left.legend()
right.plot(range(1, T + 1), sent, label="bits sent")
right.plot(range(1, T + 1), distortion[1:], "--", label="RMSE of the best estimate")
right.set(xlabel="timestep t of the last message", ylabel="bits, or RMSE")
right.invert_xaxis()
right.legend()
fig.set_label(
    "Gaussian data. Left: error of the best estimate against the bits sent, "
    "and Shannon's curve. Right: both against the timestep of the last "
    "message."
)
plt.show()

# %%
# .. live::

print(f"bits at t = 1: sent {sent[0]:.3f}, information {information[0]:.3f}")
print(f"from Shannon's curve: {(sent - shannon).abs().max():.3f} bits at most")
assert (sent - information).abs().max() < 0.03
assert (sent - shannon).abs().max() < 0.05
mmse = s2 / (1 + s2 * snr)
assert (distortion[1:] ** 2 / mmse - 1).abs().max() < 0.05

# %%
# Any data
# --------
# For other data there is no such formula, but one law holds for all (I-MMSE): the
# derivative of the information with respect to the signal-to-noise ratio is half the
# mean squared error,
#
# .. math::
#    :label: eq-diffusion-immse
#
#    \frac{\mathrm d I(x_0; x_t)}{\mathrm d \operatorname{SNR}}
#    = \tfrac12\, \mathrm{MMSE} .
#
# For a mixture of two Gaussians on a line both sides are integrals over one dimension,
# which are computed here as sums over a fine grid.

tensors = ([0.3, 0.7], [[-0.6], [0.5]], [0.005, 0.01])
two = Mixture(*(torch.tensor(x, dtype=torch.float64) for x in tensors))
h = 0.004
grid = torch.arange(-7, 7, h, dtype=torch.float64)[:, None]


def information(snr: float) -> float:
    """Return I(x_0; x_t) in nats: the entropy of x_t minus that of its noise."""
    a = torch.tensor(snr / (1 + snr)).double()
    log_q = log_parts(two, grid, a.expand(len(grid))).logsumexp(-1)
    noise = 0.5 * math.log(2 * math.pi * math.e / (1 + snr))
    return -(log_q.exp() * log_q).sum().item() * h - noise


def least_error(snr: float) -> float:
    """Return the mean squared error of the best estimate."""
    a = torch.full((len(grid),), snr / (1 + snr)).double()
    q = log_parts(two, grid, a).logsumexp(-1).exp()
    return (q * posterior_x0(two, grid, a).variance).sum().item() * h


ratios = np.geomspace(0.05, 300, 40)
nats = np.array([information(ratio) for ratio in ratios])
errors = np.array([least_error(ratio) for ratio in ratios])
step = 1e-3 * ratios
slopes = [
    (information(ratio + d) - information(ratio - d)) / (2 * d)
    for ratio, d in zip(ratios, step, strict=True)
]
variance = moments(two)[1].item()
gauss = 0.5 * np.log(1 + variance * ratios)

fig, (left, right) = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
left.plot(ratios, slopes, "o", fillstyle="none", label="derivative of the information")
left.plot(ratios, errors / 2, label="half the MMSE")
left.set(xlabel="signal-to-noise ratio", xscale="log", yscale="log")
left.set(ylabel="nats per unit of SNR", ylim=(2e-4, None))
left.legend(fontsize=8)
right.plot(nats / math.log(2), np.sqrt(errors), label="two Gaussians")
right.plot(
    gauss / math.log(2),
    np.sqrt(variance / (1 + variance * ratios)),
    "--",
    label="one of the same variance",
)
right.axvline(0.8813, color="gray", linestyle=":", label="entropy of the component")
right.set(xlabel="bits", ylabel="RMSE of the best estimate", ylim=(0, None))
right.legend()
fig.set_label(
    "Two Gaussians. Left: the derivative of the information is half the "
    "mean squared error. Right: error against bits; the dotted line is the "
    "entropy of the component that a point is from."
)
plt.show()

# %%
# .. live::

which = -(0.3 * math.log2(0.3) + 0.7 * math.log2(0.7))
at_once = np.interp(which, nats / math.log(2), np.sqrt(errors))
print(
    f"component: {which:.4f} bits; RMSE {at_once:.3f}, at the start {variance**0.5:.3f}"
)
assert np.allclose(slopes, errors / 2, rtol=1e-4)
assert abs(which - 0.8813) < 5e-5
assert np.all(np.diff(errors) < 0)
assert math.sqrt(max(tensors[2])) < at_once < math.sqrt(variance) / 3
assert np.all(nats < gauss)

# %%
# It takes slightly less than one bit to say which of the two components a point is
# from: this is the entropy of the choice. When as many bits are sent, more than two
# thirds of the error (RMSE) is removed. But the component is not yet certain, since the
# error is still larger than the standard deviation within a component: the messages do
# not separate coarse from fine information exactly.
#
# Between two images
# ------------------
# To interpolate, add the noise of timestep :math:`t` to both images, mix them, and run
# the reverse process from there. If both get the same noise
# :math:`\epsilon`, the mixture is again an image with the noise of timestep :math:`t`,
#
# .. math::
#    :label: eq-diffusion-interpolation
#
#    (1 - \lambda)\, x_t + \lambda\, y_t
#    = \sqrt{\bar\alpha_t}\, \big( (1 - \lambda)\, x_0 + \lambda\, y_0 \big)
#    + \sqrt{1 - \bar\alpha_t}\; \epsilon .
#
# :func:`dian.diffusion.sampling.interpolate` does that. With independent noises the
# mixture would have noise of variance :math:`\big((1-\lambda)^2 + \lambda^2\big)
# (1 - \bar\alpha_t)`: for :math:`\lambda = 1/2` half of the variance that the model
# expects. Below, the images are two points of different Gaussians on a ring, without
# clipping and with :math:`\sigma_t^2 = \beta_t`.

eight = ring(8, radius=0.8, variance=0.005)
denoiser = Denoiser(optimal_denoiser(eight, schedule.alpha_bar), clip=None)
n = 1000
one, other = (eight.mean[k].expand(n, 2) for k in (0, 2))  # a quarter apart
epsilon = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)


def halfway(t: int, shared: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix two noisy points, and return the mixture and the sample from it."""
    x = q_sample(schedule, one, t, epsilon[0])
    y = q_sample(schedule, other, t, epsilon[0 if shared else 1])
    mixed = 0.5 * x + 0.5 * y
    state = torch.Generator().manual_seed(1)
    return mixed, ddpm_sample(schedule, denoiser, mixed, start=t, generator=state)


def landed(points: torch.Tensor) -> tuple[float, float]:
    """Return the fractions near the data, and on the Gaussian between the two."""
    distance, nearest = torch.cdist(points, eight.mean).min(1)
    inside = distance < 3 * eight.variance[0].sqrt()
    return inside.double().mean().item(), (nearest == 1).double().mean().item()


shown = (1, 5, 10, 100)
fig, axes = plt.subplots(1, 4, figsize=(7, 4), layout="constrained", sharey=True)
ends, spread, printed = {}, {}, []
for ax, t in zip(axes, shown, strict=True):
    for shared in (False, True):
        mixed, points = halfway(t, shared)
        spread[t, shared] = (mixed.var(0).mean() / (1 - schedule.alpha_bar[t])).item()
        ends[t, shared] = landed(points)
        inside, between = ends[t, shared]
        numbers = spread[t, shared], inside, between
        printed.append((t, 1 if shared else 2, *(f"{x:.2f}" for x in numbers)))
    ax.plot(*points.T.numpy(), ".", markersize=2)
    ax.plot(*eight.mean[[0, 2]].T.numpy(), "kx")
    ax.set(title=f"from t = {t}", aspect="equal", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
fig.suptitle("Halfway between the crosses, with the same noise for both")
fig.set_label(
    "Samples halfway between two points (crosses) of a ring, started from "
    "the noise of four timesteps. With little noise the samples stay near the "
    "midpoint; with much noise they no longer depend on the two points."
)
plt.show()
header = ("timestep t", "noises", "variance / that of the noise")
header += ("fraction near the data", "fraction between the points")
print(markdown_table(header, printed))

# %%
# .. live::

first, again = (torch.Generator().manual_seed(1) for _ in range(2))
by_library = interpolate(schedule, denoiser, one, other, t=5, generator=first)
same = standard_normal(one, again)
mixed = sum(0.5 * q_sample(schedule, x, 5, same) for x in (one, other))
by_hand = ddpm_sample(schedule, denoiser, mixed, start=5, generator=again)
assert torch.allclose(by_library, by_hand)
for t in shown:
    assert abs(spread[t, False] - 0.5) < 0.06
    assert abs(spread[t, True] - 1) < 0.12
    assert ends[t, False][1] > ends[t, True][1] or t in (1, 100)
assert ends[1, True][0] < 0.8 < 0.9 < ends[5, True][0]
assert ends[5, True][1] > 0.6 > ends[10, True][1] > 0.3
assert abs(ends[100, True][1] - 1 / 8) < 5 * (7 / 64 / n) ** 0.5

# %%
# If the reverse process starts at :math:`t = 1`, the samples stay near the midpoint of
# the two crosses, and more than a fifth of them are farther than three standard
# deviations from the center of every Gaussian. At a start of :math:`t = 5`, most
# samples end on the Gaussian between the two; at :math:`t = 10`, they spread over its
# neighbors as well; and at :math:`T`, they end anywhere, since nothing is left of
# either point. With two independent noises the mixture has too little noise, as if the
# reverse process had started at a smaller :math:`t`.
#
# A trained network
# -----------------
# The network of :ref:`sphx_glr_gallery_4_diffusion_plot_5_samples.py` on
# :result:`ddpm-fashion-mnist-small/settings/bound_images` test images, with clipping
# and :math:`\sigma_t^2 = \beta_t`. The rate is the ideal length of all messages up to
# :math:`x_t`, in bits per pixel. The distortion is the root mean squared error of the
# predicted image :math:`\hat x_0`, in gray values from 0 to 255.

record = load("ddpm-fashion-mnist-small")
rate = record.arrays["rate"][0]
distortion = 127.5 * record.arrays["distortion"][0]

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(rate, distortion)
ax.set(xlabel="rate (bits per pixel)", ylabel="distortion, RMSE (gray values)")
fig.set_label(
    "Error of the predicted image against the bits that were sent, for a "
    "trained network. Most bits remove an error of a few gray values."
)
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small

train, test = (sample(part).images.float() for part in ("train", "test"))
of_mean = (test - train.mean(0)).square().mean().sqrt().item()
halved = rate[distortion < of_mean / 2].min()
close = rate[distortion < 5].min()
print(f"all: {rate[0]:.2f} bits per pixel; error at the start: {distortion[-1]:.0f}")
print(f"half the error of the mean image, {of_mean:.0f}, is reached at {halved:.4f}")
print(f"an error of 5 gray values is reached at {close:.2f}")
assert (np.diff(rate) <= 0).all()
assert distortion[-1] > of_mean
assert halved < rate[0] / 100
assert close < rate[0] / 4

# %%
# At first the network knows nothing about the image, and its prediction has a larger
# error than the mean image, which needs no bits. Less than a hundredth of the bits
# suffices for half the error of the mean image, and less than a quarter of them leaves
# an error of five gray values of 255: most bits describe details that are hardly
# visible.
#
# Two test images, at the left and at the right, get the same noise of timestep 500,
# half of the chain, and are mixed in nine proportions. The reverse process generates an
# image from each mixture, with the same draws of noise for all nine, with clipping and
# :math:`\sigma_t^2 = \beta_t`.

between, ends = (record.arrays[key][0] for key in ("between", "between/ends"))
rows = [
    np.concatenate([left[None], row, right[None]])
    for left, row, right in zip(ends[:5], between, ends[5:], strict=True)
]
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
plots.image_grid(ax, np.stack(rows))
ax.set(title="From the image on the left to the one on the right")
fig.set_label(
    "Interpolations between pairs of test images (left and right), from the "
    "noise of timestep 500. With this much noise the generated images keep only "
    "a part of the content of the pair."
)
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# Limits
# ------
# The reverse process of a trained network is not exact, so its code is longer than the
# information, and its estimates are worse than the best ones. And the lengths are
# ideal: an actual code needs more.
