r"""
Half as many steps with the same end points leave 8 % of the amplitude
======================================================================

**Question.** A diffusion model destroys an image in many small steps, and samples start
from pure noise. Is nothing of the image left after the last step?

**Answer.** It depends on the schedule. A thousand steps from :math:`\beta_1 = 10^{-4}`
to :math:`\beta_T = 0.02` leave 0.6 % of the amplitude. Half as many steps *with the
same end points* :math:`\beta_1` and :math:`\beta_T` leave 8 %: for an image whose mean
square is 1, the mean of :math:`x_T` is then more than two standard deviations away from
that of noise, and :math:`x_T` still predicts the mean brightness of the image. With
both ends doubled, 500 steps leave as little as 1,000.

**Source.** Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models*, 2020
(arXiv:2006.11239); the cosine schedule is that of Nichol and Dhariwal, *Improved
Denoising Diffusion Probabilistic Models*, 2021 (arXiv:2102.09672). **Cost.** Seconds
on a CPU, no download.
"""

# %%
# Step by step, and directly
# --------------------------
# Pixels are scaled from bytes to :math:`[-1, 1]`, so that an image is about as large as
# the noise. A step, equation :eq:`eq-diffusion-step` of the chapter, shrinks the image
# slightly and adds noise that restores its variance. By equation
# :eq:`eq-diffusion-marginal`, :math:`t` steps are equivalent to a single one.

import math

import matplotlib.pyplot as plt
import torch

from dian import data
from dian.diffusion.likelihood import prior_term
from dian.diffusion.pixels import to_bytes
from dian.diffusion.process import q_sample
from dian.diffusion.schedule import cosine_schedule, linear_schedule, signal_to_noise
from dian.figures.interactive import Interactive
from dian.figures.tables import markdown_table

generator = torch.Generator().manual_seed(0)
test = data.sample("test")
images = test.signed().double()
schedule = linear_schedule()
x_0 = images[0]

# A thousand steps, each with its own noise, as in the definition. Signal and noise are
# also accumulated separately.
signal, noise = x_0, torch.zeros_like(x_0)
for t in range(1, 1001):
    z = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    signal = schedule.alpha[t].sqrt() * signal
    noise = schedule.alpha[t].sqrt() * noise + schedule.beta[t].sqrt() * z

all_at_once = schedule.alpha_bar[-1].sqrt() * x_0
print(f"signal after 1000 steps: {(signal - all_at_once).abs().max():.1e} apart")
print(
    f"variance of the noise: {noise.var():.3f}, "
    f"formula {1 - schedule.alpha_bar[-1]:.3f}"
)

assert (signal - all_at_once).abs().max() < 1e-14
assert abs(noise.var() - 1) < 5 * math.sqrt(2 / 784)

# %%
# We apply the linear schedule and the cosine schedule :eq:`eq-diffusion-cosine` to the
# same image with the same noise. The linear schedule destroys the image early: the
# cosine schedule reaches the same noise level many timesteps later.

shown = [0, 100, 250, 500, 750, 1000]
epsilon = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
schedules = {"linear": schedule, "cosine": cosine_schedule()}
fig, axes = plt.subplots(2, 6, figsize=(7, 4), layout="constrained")
for row, (name, tables) in zip(axes, schedules.items(), strict=True):
    for ax, t in zip(row, shown, strict=True):
        x_t = q_sample(tables, x_0[None], t, epsilon[None])[0]
        ax.imshow(x_t.numpy(), cmap="gray_r", vmin=-2, vmax=2)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{name}, t = {t}", fontsize=9)
fig.suptitle("The same image and the same noise under two schedules")
fig.set_label(
    "One image with the same noise at six timesteps. The linear schedule "
    "has destroyed it at $t = 500$, the cosine schedule much later."
)
plt.show()

assert schedule.alpha_bar[500] < 0.1 < 0.4 < cosine_schedule().alpha_bar[500]

# %%
# Move through the timesteps of both schedules yourself, with five images. Values
# outside :math:`[-1, 1]` are clamped for display. The curves show the signal-to-noise
# ratio :eq:`eq-diffusion-snr`. For images of variance 1, it is the variance of the
# remaining image divided by the variance of the noise.

Interactive(
    "noising",
    "Test images at one timestep, with the same noise at every timestep, and the "
    "signal-to-noise ratio of the two schedules. Choose a timestep and a schedule.",
    images=to_bytes(images[:5]).flatten(1).tolist(),
    side=28,
    alphaBar={
        name: [float(f"{x:.6g}") for x in tables.alpha_bar.tolist()]
        for name, tables in schedules.items()
    },
)

# %%
# The signal-to-noise ratio
# -------------------------
# A schedule is determined by its signal-to-noise ratio :eq:`eq-diffusion-snr` as a
# function of the timestep. We compare three chains with the linear schedule: that of
# the paper, one with half of the steps and the same ends, and one with half of the
# steps and both ends doubled; and the cosine schedule.

chains = {
    "T = 1000, to 0.02": linear_schedule(1000, 1e-4, 0.02),
    "T = 500, to 0.02": linear_schedule(500, 1e-4, 0.02),
    "T = 500, both ends doubled": linear_schedule(500, 2e-4, 0.04),
    "T = 1000, cosine": cosine_schedule(1000),
}
fig, (left, right) = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
for (name, tables), style in zip(chains.items(), ("-", "--", ":", "-."), strict=True):
    time = torch.arange(tables.T + 1) / tables.T
    left.plot(time[1:], signal_to_noise(tables)[1:], style, label=name)
    right.plot(time, tables.alpha_bar.sqrt(), style, label=name)
left.set(xlabel="t / T", ylabel="signal-to-noise ratio", yscale="log", ylim=(1e-9, 1e5))
right.set(xlabel="t / T", ylabel="remaining amplitude", ylim=(0, 1))
left.legend(fontsize=8)
fig.set_label(
    r"The signal-to-noise ratio and the remaining amplitude "
    r"$\sqrt{\bar\alpha_t}$ under four schedules. With half of the steps and "
    r"the same two ends (dashed), part of the image is left at the end."
)
plt.show()

for tables in chains.values():
    assert (signal_to_noise(tables).diff()[1:] < 0).all()
long, short, doubled, _ = chains.values()
assert abs(long.alpha_bar[-1].sqrt() - 0.0064) < 5e-5
assert abs(short.alpha_bar[-1].sqrt() - 0.08) < 5e-4
assert doubled.alpha_bar[-1] < long.alpha_bar[-1]

# %%
# The remaining signal
# --------------------
# Samples start from :math:`\mathcal N(0, I)`, while noisy images at :math:`T` follow
# :math:`\mathcal N(\sqrt{\bar\alpha_T}\, x_0, (1 - \bar\alpha_T) I)`. The KL divergence
# between the two is the first term of the variational bound, :math:`L_T`, equation
# :eq:`eq-diffusion-left` of the chapter. In the direction of the image itself, the mean
# of :math:`x_T` is
# :math:`\sqrt{\bar\alpha_T}\, \lVert x_0 \rVert / \sqrt{1 - \bar\alpha_T}` standard
# deviations away from zero.

table = [(1000, 1e-4, 0.02), (500, 1e-4, 0.02), (500, 2e-4, 0.04)]
table += [(300, 1e-4, 0.02), (100, 1e-4, 0.02)]
one = torch.ones(1, 784, dtype=torch.float64)  # an image whose mean square is 1
out, printed = {}, []
for T, first, last in table:
    tables = linear_schedule(T, first, last)
    a = tables.alpha_bar[-1]
    nats = prior_term(tables, one).item()
    deviations = math.sqrt(784 * a / (1 - a))
    out[T, last] = nats, deviations
    cells = f"{a.sqrt():.4f}", f"{nats / 784:.2e}", f"{nats:.2f}", f"{deviations:.2f}"
    printed.append((T, first, last, *cells))
header = ("T", "beta_1", "beta_T", "amplitude", "nats / pixel", "nats")
print(markdown_table((*header, "standard deviations"), printed))

assert abs(out[500, 0.02][0] - 2.50) < 0.005
assert abs(out[500, 0.02][1] - 2.24) < 0.005
assert abs(out[1000, 0.02][0] - 0.016) < 5e-4
assert abs(out[1000, 0.02][1] - 0.18) < 5e-3

# %%
# Does it matter? In a single pixel of :math:`x_T`, the noise hides what is left of the
# image. But the mean over all 784 pixels is the *mean brightness* of :math:`x_T`, in
# which the noise of the pixels mostly cancels: the mean of 784 independent draws has a
# standard deviation of only :math:`1/\sqrt{784} = 1/28`. For each of the 500 test
# images of the bundled sample, the figure shows the mean brightness of :math:`x_T`
# against that of the clean image.

measured = {}
fig, axes = plt.subplots(1, 3, figsize=(7, 4), layout="constrained", sharey=True)
for ax, (name, tables) in zip(axes, chains.items(), strict=False):
    epsilon = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    x_T = q_sample(tables, images, tables.T, epsilon)
    clean, noisy = images.mean((1, 2)), x_T.mean((1, 2))
    measured[name] = torch.corrcoef(torch.stack([clean, noisy]))[0, 1].item()
    ax.plot(clean, noisy, ".", markersize=3)
    ax.set_title(f"{name}\ncorrelation {measured[name]:.2f}", fontsize=9)
    ax.set(
        xlabel="mean of the clean image",
        ylabel="mean of $x_T$" if ax is axes[0] else "",
    )
fig.set_label(
    "The mean brightness of $x_T$ against that of the clean image, for 500 "
    "test images. Only in the middle is a correlation visible."
)
plt.show()

printed = [(name, f"{value:.2f}") for name, value in measured.items()]
print(markdown_table(("chain", "correlation of the mean brightness"), printed))
assert measured["T = 500, to 0.02"] > 0.4
assert abs(measured["T = 1000, to 0.02"]) < 5 / math.sqrt(500)
assert abs(measured["T = 500, both ends doubled"]) < 5 / math.sqrt(500)

# %%
# In the middle panel, a brighter clean image has a brighter :math:`x_T` on average. So
# a network trained on this chain can learn to read the brightness of the image from
# :math:`x_T`. But samples start from pure noise, whose mean brightness is nearly zero,
# and this can mislead the network. The effect on the samples of an optimal denoiser can
# be computed exactly: see :doc:`/gallery/4_diffusion/plot_4_sampler_oracles`.
#
# Limits
# ------
# A remaining signal is not harmful in itself; it is harmful because samples start as if
# there were none. And a small signal-to-noise ratio at the end says nothing about how
# well the steps in between are spaced: that can only be measured on trained networks.
