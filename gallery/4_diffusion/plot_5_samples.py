r"""
Clothes out of noise
====================

**Question.** Does the paper's recipe, with a U-Net small enough for the images, produce
clothes that nobody photographed? How far are they from real ones, by numbers that say
what the best possible number is?

**Answer.** Yes. A network that classifies clothes finds every class among the samples.
Their distance from the test images is several times that of real training images, which
is the floor; but as large a share of them lies among the test images as of real ones,
more than four fifths. Of two hundred samples none is as near to a training image as
some test images are. And the model codes test images in less than half of their eight
bits per pixel.

**Source.** Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models*, 2020
(arXiv:2006.11239), on the data of Xiao, Rasul and Vollgraf, *Fashion-MNIST*, 2017
(arXiv:1708.07747). **Cost.** Seconds: training and sampling are a recorded run.
"""

# %%
# Training
# --------
# The network sees :math:`x_t` and :math:`t` and names the noise (:math:`L_{simple}`,
# Algorithm 1). Beside the weights that are trained their exponential average is kept;
# with both, the loss is measured after each epoch on the first
# :result:`ddpm-fashion-mnist-small/settings/chunk` test images, with the same noise
# each time.

import matplotlib.pyplot as plt
import numpy as np

from dian import data
from dian.figures import plots
from dian.runs.record import load

record = load("ddpm-fashion-mnist-small")
settings, arrays = record.settings, record.arrays
series = {key: rows[0] for key, rows in record.series.items()}
epochs = np.arange(1, settings["epochs"] + 1)

fig, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for key, label, style in [
    ("train/loss", "training", "-"),
    ("test/loss_raw", "test, the weights as trained", "--"),
    ("test/loss", "test, averaged weights", ":"),
]:
    ax.plot(epochs, series[key], style, marker=".", label=label)
ax.set(xlabel="epoch", ylabel="loss per pixel")
ax.legend()
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# A network that predicts nothing loses 1. The ten columns below are ten starts in
# noise, the rows come from the averaged weights after more and more epochs, by a fast
# walk of 50 steps without new noise, the predicted image clipped (DDIM,
# :math:`\eta = 0`).

assert series["test/loss"][-1] < 0.1
assert (series["train/loss"][1:] < series["train/loss"][0]).all()

fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
plots.image_grid(ax, arrays["progress"][0])
ax.set(title="Ten starts", ylabel="later epochs, downwards")
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# Samples
# -------
# Algorithm 2, a thousand steps, variance :math:`\beta_t`, the predicted image clipped
# to the range of the data. These are the first hundred that were made; nothing was
# chosen.

samples = arrays["samples"][0]
fig, ax = plt.subplots(figsize=(7, 7), layout="constrained")
plots.image_grid(ax, samples[:100].reshape(-1, 10, 28, 28))
ax.set(title="The first hundred samples")
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# The way there
# -------------
# Ten of them on their way from noise, and the image that the network has in mind at
# each of these steps, :math:`\hat x_0`.

fig, axes = plt.subplots(1, 2, figsize=(8.4, 4.6), layout="constrained")
for ax, key, title in zip(
    axes,
    ("path/x", "path/x_0"),
    ("What is there", "What the network has in mind"),
    strict=True,
):
    plots.image_grid(ax, arrays[key][0])
    ax.set(title=title, ylabel=f"steps {', '.join(map(str, arrays['path/t'][0]))}")
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# How far it is from what comes out in the end, at each of these steps:

mind = arrays["path/x_0"][0].astype(float)
away = np.abs(mind - mind[-1]).mean(axis=(1, 2, 3))
for t, grey in zip(arrays["path/t"][0], away, strict=True):
    print(f"step {t:4}: {grey:5.1f} grey values of 255 away")
assert away[0] == away.max()
assert away[-2] == away[:-1].min()

# %%
# How far from real
# -----------------
# A classifier turns images into features; the distances are between the features of the
# samples and those of all 10,000 test images. The floor is what as many real training
# images reach. Numbers of other features, or of another number of samples, are not
# comparable with these. *Imbalance* is the share of samples that would have to change
# class for all ten to be equally frequent, by the recurrent network of chapter 1.

rows = [
    ("averaged weights", "all"),
    ("real images", "all-floor"),
]
names = ("frechet", "kernel", "precision", "recall", "imbalance")
print(f"{settings['samples']} images {'':10}" + "".join(f"{n:>11}" for n in names))
for label, way in rows:
    values = (record.value(f"{way}/{n}") for n in names)
    print(f"{label:24}" + "".join(f"{v:11.4f}" for v in values))

assert record.value("all/frechet") > 3 * record.value("all-floor/frechet")
assert record.value("all/precision") > 0.8
assert abs(record.value("all/precision") - record.value("all-floor/precision")) < 0.05
assert record.value("all/recall") > 0.7
count = arrays["classes"][0]
print(dict(zip(data.CLASSES, count.tolist(), strict=True)))
assert (count > 0).all()

# %%
# Sampled in other ways
# ---------------------
# The same model with the weights as the last step left them, with the smaller variance
# :math:`\tilde\beta_t`, and without clipping.

rows = [
    ("as above", "averaged"),
    ("weights as trained", "raw"),
    ("variance beta tilde", "beta_tilde"),
    ("no clipping", "no_clip"),
    ("real images", "floor"),
]
print(f"{settings['others']} images {'':10}" + "".join(f"{n:>11}" for n in names))
for label, way in rows:
    values = (record.value(f"{way}/{n}") for n in names)
    print(f"{label:24}" + "".join(f"{v:11.4f}" for v in values))

kernel = [record.value(f"{way}/kernel") for _, way in rows[:4]]
all_samples = record.value("all/kernel")
print(f"kernel distance of all {settings['samples']} samples: {all_samples:.4f}")
assert max(kernel) - min(kernel) < abs(all_samples - kernel[0])

# %%
# The kernel distance has no bias: with more samples it should stay what it is. It moves
# more from these samples to all of the table before than from way to way. So nothing
# can be said here of averaging, variance or clipping, and the Fréchet distance, which
# is larger with the averaged weights, says no more.
#
# Are they copies?
# ----------------
# Below each sample stands the training image that is nearest to it, pixel by pixel.

both = np.stack([samples[:10], arrays["nearest/images"][0]])
fig, ax = plt.subplots(figsize=(8, 1.9), layout="constrained")
plots.image_grid(ax, both)
ax.set(title="Samples, and the training images nearest to them")
plt.show()

of_samples, of_test = (arrays[f"nearest/distance{k}"][0] for k in ("", "_test"))
print(f"nearest training image of a sample: {np.median(of_samples):.2f} away (median)")
print(f"nearest training image of a test image: {np.median(of_test):.2f}")
assert of_samples.min() > of_test.min()
assert np.median(of_samples) > np.median(of_test)

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# Bits
# ----
# The bound on the likelihood of the first
# :result:`ddpm-fashion-mnist-small/settings/bound_images` test images, in bits per
# pixel, with either variance of a step back. The predicted image is clipped. How the
# bits are spent is on the page
# :ref:`sphx_glr_gallery_4_diffusion_plot_8_coding_interpolation.py`.

for variance in ("beta", "beta_tilde"):
    bits, error = (record.value(f"bits/{variance}{k}") for k in ("", "_error"))
    print(f"{variance:11} at most {bits:.3f} ± {error:.3f} bits per pixel (s.e.)")
assert record.value("bits/beta") < 4
assert record.value("bits/prior") < 0.01

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# Limits
# ------
# One training, from one seed: :result:`ddpm-fashion-mnist-small/settings/epochs` epochs
# in batches of :result:`ddpm-fashion-mnist-small/settings/batch_size`; the paper's took
# eight hundred thousand steps. The distances are those of
# :result:`ddpm-fashion-mnist-small/settings/samples` samples, and of
# :result:`ddpm-fashion-mnist-small/settings/others` where they are compared among each
# other: too few to tell ways apart whose distances are close. Copies were looked for
# pixel by pixel, among the training images as they are and not mirrored.
