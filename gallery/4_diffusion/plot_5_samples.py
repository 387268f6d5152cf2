r"""
A small diffusion model generates plausible clothes, less varied than real ones
===============================================================================

**Question.** Does the paper's recipe, with a U-Net small enough for these images,
generate clothes that are not in the training set? How far are the samples from real
images, and how far would those of a perfect model be?

**Answer.** The samples show all ten classes and look plausible: as many of them lie on
the manifold of the test images as real images do, within the errors. They are less
varied. Most of their Fréchet distance from the test images is no error of the model: it
was trained on randomly mirrored images, and real images mirrored in this way are as far
away, within the errors. The model codes test images in less than half of their eight
bits per pixel.

**Source.** Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models*, 2020
(arXiv:2006.11239), on the data of Xiao, Rasul and Vollgraf, *Fashion-MNIST*, 2017
(arXiv:1708.07747). **Cost.** Seconds: training, sampling and evaluation are recorded
runs.
"""

# %%
# Training
# --------
# The network predicts the noise in :math:`x_t` (:math:`L_{simple}`, Algorithm 1). An
# exponential moving average (EMA) of its weights is kept beside the raw weights. With
# both, the loss on the first :result:`ddpm-fashion-mnist-small/settings/chunk` test
# images is measured after each epoch, with the same noise each time.

import matplotlib.pyplot as plt
import numpy as np

from dian import data
from dian.figures import plots
from dian.runs.record import load

record = load("ddpm-fashion-mnist-small")
evaluation = load("ddpm-fashion-mnist-small-evaluation")
settings, arrays = record.settings, record.arrays
series = {key: rows[0] for key, rows in record.series.items()}
epochs = np.arange(1, settings["epochs"] + 1)

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for key, label, style in [
    ("train/loss", "training", "-"),
    ("test/loss_raw", "test, raw weights", "--"),
    ("test/loss", "test, EMA weights", ":"),
]:
    ax.plot(epochs, series[key], style, marker=".", label=label)
ax.set(xlabel="epoch", ylabel="loss per pixel")
ax.legend()
fig.set_label(
    "Loss of the recorded training run after each epoch, on training and "
    "test images, with raw and EMA weights. The prediction zero has a loss "
    "of 1."
)
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# A network that always returns 0 has a loss of 1. The next figure shows samples of the
# EMA weights after more and more epochs, one row each. A column starts from the same
# noise in all rows; the sampler is DDIM with 50 steps, :math:`\eta = 0` and clipping of
# the predicted image.

assert series["test/loss"][-1] < 0.1
assert (series["train/loss"][1:] < series["train/loss"][0]).all()

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
plots.image_grid(ax, arrays["progress"][0])
ax.set(title="Ten samples during training", ylabel="later epochs, downwards")
fig.set_label(
    "Samples during training. Each column starts from the same noise; later "
    "epochs are further down."
)
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# Samples
# -------
# Algorithm 2 with all steps, variance :math:`\beta_t`, and the predicted image clipped
# to the range of the data. These are the first hundred samples; none was selected.

samples = arrays["samples"][0]
fig, ax = plt.subplots(figsize=(7, 5.5), layout="constrained")
plots.image_grid(ax, samples[:100].reshape(-1, 10, 28, 28))
ax.set(title="The first hundred samples")
fig.set_label(
    "The first hundred samples of Algorithm 2 with EMA weights; none was selected."
)
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# From noise to image
# -------------------
# Ten of these samples during sampling: :math:`x_t` on the left, and the image
# :math:`\hat x_0` that the network predicts at the same timesteps on the right.

fig, axes = plt.subplots(1, 2, figsize=(7, 5.5), layout="constrained")
for ax, key, title in zip(
    axes,
    ("path/x", "path/x_0"),
    (r"$x_t$", r"Predicted image $\hat x_0$"),
    strict=True,
):
    plots.image_grid(ax, arrays[key][0])
    ax.set(title=title)
ticks = 28 * np.arange(len(arrays["path/t"][0])) + 14
axes[0].set_yticks(ticks, [f"t = {t}" for t in arrays["path/t"][0]])
axes[0].tick_params(length=0)
fig.set_label(
    r"Ten samples from noise (top) to image (bottom): the noisy image $x_t$ "
    r"and the predicted image $\hat x_0$ at the same timesteps."
)
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# The mean absolute difference between the predicted image and the final sample, in gray
# values from 0 to 255, at each of these timesteps:

predicted = arrays["path/x_0"][0].astype(float)
away = np.abs(predicted - predicted[-1]).mean(axis=(1, 2, 3))
for t, grey in zip(arrays["path/t"][0], away, strict=True):
    print(f"t = {t:4}: {grey:5.1f}")
assert away[0] == away.max()
assert away[-2] == away[:-1].min()

# %%
# Distance from real images
# -------------------------
# All distances are computed in the features of a classifier, as
# :doc:`/diffusion_evaluation` explains. The model was trained with random horizontal
# flips, so half of its samples are mirrored, and real photographs of clothes are not:
# the tips of shoes point to the left. A perfect model of the training data
# would therefore not be at distance 0 from the test images, see
# :eq:`eq-diffusion-mirrored`. The table shows two ways to take this into account.
# Either a set of real training images with every second one mirrored is the reference;
# or the samples are compared with the test images and their mirror images together.
#
# Each set has :result:`ddpm-fashion-mnist-small-evaluation/settings/n` images. For the
# samples, ± is the standard error :eq:`eq-diffusion-half-samples`. For real images it
# is the standard deviation over
# :result:`ddpm-fashion-mnist-small-evaluation/settings/references` disjoint sets: it
# shows how far the values of a perfect model would vary.

names = ("frechet", "kernel", "precision", "recall")
LONG = dict(zip(names, ("Fréchet distance", "KID", "precision", "recall"), strict=True))
labels = {"small": "samples", "real_mirrored": "real, half mirrored", "real": "real"}
TARGETS = {"test": "test images", "both": "test images and their mirror images"}


def value(path: str) -> float:
    """Return a number of the evaluation."""
    return evaluation.value(path)


for target, name in TARGETS.items():
    print(f"distance from the {name}")
    print(f"{'':22}" + "".join(f"{n:>16}" for n in names))
    for key, label in labels.items():
        spread = "error" if key == "small" else "sd"
        paths = [f"{key}/{target}/{metric}" for metric in names]
        cells = [f"{value(p):.2f} ± {value(f'{p}_{spread}'):.2f}" for p in paths]
        print(f"{label:22}" + "".join(f"{cell:>16}" for cell in cells))

fig, axes = plt.subplots(2, 2, figsize=(7, 5.5), layout="constrained")
for ax, metric in zip(axes.flat, names, strict=True):
    for shift, (target, color) in zip(
        (-0.12, 0.12), (("test", "C0"), ("both", "C1")), strict=True
    ):
        for place, key in enumerate(labels):
            spread = "error" if key == "small" else "sd"
            at = value(f"{key}/{target}/{metric}")
            bar = value(f"{key}/{target}/{metric}_{spread}")
            name = TARGETS[target] if place == 0 else None
            ax.errorbar(
                place + shift, at, bar, fmt="o", color=color, capsize=3, label=name
            )
    ax.set(xlim=(-0.5, 2.5), ylabel=LONG[metric])
    ax.set_xticks(range(3), ["samples", "real,\nhalf mirrored", "real"])
fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
fig.set_label(
    "Four metrics of the samples and of real images, compared with the test "
    "images, and with these and their mirror images. Bars: standard errors, "
    "for real images standard deviations over sets. Lower is better for the "
    "upper two, higher for the lower two."
)
plt.show()


def excess(target: str, metric: str) -> tuple[float, float]:
    """Return how far the samples are behind a perfect model, and the standard error."""
    reference = f"real_mirrored/{target}/{metric}"
    apart = value(f"small/{target}/{metric}") - value(reference)
    sampling = value(f"small/{target}/{metric}_error"), value(f"{reference}_sd")
    return apart, float(np.hypot(*sampling))


for target, name in TARGETS.items():
    print(f"{name}: samples minus real images, half of them mirrored")
    for metric in names:
        apart, error = excess(target, metric)
        print(f"{metric:10} {apart:+7.2f} ± {error:5.2f}")

# %%
# .. provenance:: ddpm-fashion-mnist-small-evaluation
#
# Against the test images, the distances of the samples are not significantly larger
# than those of real images of which half are mirrored: this comparison mostly measures
# the flips. Against the test images and their mirror images, the distance of a perfect
# model comes from the finite number of images alone. The samples are farther away than
# that, by about two standard errors. The difference in recall is clearer: fewer test
# images lie on the manifold of the samples than on that of as many real images.
# Precision is that of real images, within the errors. We conclude that the samples are
# plausible, and less varied than photographs.

for metric in ("frechet", "kernel"):
    apart, error = excess("test", metric)
    assert abs(apart) < 2 * error
    apart, error = excess("both", metric)
    assert apart > 1.5 * error
for target in TARGETS:
    apart, error = excess(target, "recall")
    assert apart < -2 * error
    apart, error = excess(target, "precision")
    assert abs(apart) < 2 * error
assert value("real_mirrored/test/frechet") > 4 * value("real/test/frechet")

# %%
# The two parts of the table can be checked against each other. A set of real images,
# not mirrored, is at the same distance from the test images and their mirror images as
# a half mirrored set is from the test images. Both are distances between the
# distribution :math:`P` of the images and the mixture :math:`\tfrac12 (P + P')` with
# their mirror images, as in :eq:`eq-diffusion-mirrored`.

half, back = value("real_mirrored/test/kernel"), value("real/both/kernel")
error = value("real_mirrored/test/kernel_sd") / np.sqrt(
    evaluation.settings["references"]
)
print(f"KID of half mirrored sets from the test images: {half:.1f} ± {error:.1f}")
print(f"KID of real sets from both: {back:.1f}")
assert abs(half - back) < 4 * error

# %%
# Classes
# -------
# Are all classes among the samples? The recurrent network of the chapter :doc:`/rnn`
# classifies all samples that were made.

count = arrays["classes"][0]
print(dict(zip(data.CLASSES, count.tolist(), strict=True)))
assert (count > 0).all()

# %%
# Are they copies?
# ----------------
# Below each sample is the training image that is nearest to it, pixel by pixel.

both = np.stack([samples[:10], arrays["nearest/images"][0]])
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
plots.image_grid(ax, both)
ax.set(title="Samples, and the training images nearest to them")
fig.set_label(
    "Samples (top), and below each the training image that is nearest to "
    "it, pixel by pixel."
)
plt.show()

of_samples, of_test = (arrays[f"nearest/distance{k}"][0] for k in ("", "_test"))
print(f"median distance to the nearest training image: {np.median(of_samples):.2f}")
print(f"the same for test images: {np.median(of_test):.2f}")
print(f"smallest: {of_samples.min():.2f}, for test images {of_test.min():.2f}")
assert of_samples.min() > of_test.min()
assert np.median(of_samples) > np.median(of_test)

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# Samples are farther from the training set than test images are, so nothing suggests
# that they are copies.
#
# Bits per dimension
# ------------------
# The variational bound on the negative log-likelihood of
# :result:`ddpm-fashion-mnist-small-evaluation/settings/bound_images` test images, in
# bits per pixel, with :math:`\sigma_t^2 = \beta_t` and the predicted image clipped. The
# standard error is that over images. How the bits are distributed over the timesteps is
# shown on :ref:`sphx_glr_gallery_4_diffusion_plot_8_coding_interpolation.py`.

bits, error = value("small/bits"), value("small/bits_error")
print(f"at most {bits:.3f} ± {error:.3f} bits per pixel")
assert bits + 3 * error < 4
assert record.value("bits/prior") < 0.01

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.hist(evaluation.arrays["bits"][0, 0], bins=20)
ax.set(xlabel="bits per pixel", ylabel="test images")
fig.set_label(
    "Bits per pixel of the test images: the variational bound for each image."
)
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small-evaluation
#
# Limits
# ------
# One training run with one seed, of
# :result:`ddpm-fashion-mnist-small/settings/epochs` epochs with a batch size of
# :result:`ddpm-fashion-mnist-small/settings/batch_size`; the paper trains for eight
# hundred thousand steps. The standard errors are those of sampling: they do not show
# how much another training run would differ. The distances hold for
# :result:`ddpm-fashion-mnist-small-evaluation/settings/n` images and for these features
# alone. Copies were searched for pixel by pixel, among the training images and not
# among their mirror images.
