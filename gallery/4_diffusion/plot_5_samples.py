r"""
Samples of a small diffusion model
==================================

**Question.** Does the paper's recipe, with a U-Net small enough for these images,
generate clothes that are not in the training set? How far are the samples from real
images, and how far would those of a perfect model be?

**Answer.** The samples show all ten classes, and about as many of them lie on the
manifold of the test images as real images do (precision). They are less varied
(recall). Most of their Fréchet distance from the test images is not an error of the
model: it was trained on randomly mirrored images, and real images mirrored in this way
are as far away. The model codes test images in less than half of their eight bits per
pixel.

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

fig, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for key, label, style in [
    ("train/loss", "training", "-"),
    ("test/loss_raw", "test, raw weights", "--"),
    ("test/loss", "test, EMA weights", ":"),
]:
    ax.plot(epochs, series[key], style, marker=".", label=label)
ax.set(xlabel="epoch", ylabel="loss per pixel")
ax.legend()
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

fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
plots.image_grid(ax, arrays["progress"][0])
ax.set(title="Ten samples during training", ylabel="later epochs, downwards")
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# Samples
# -------
# Algorithm 2 with all steps, variance :math:`\beta_t`, and the predicted image clipped
# to the range of the data. These are the first hundred samples; none was selected.

samples = arrays["samples"][0]
fig, ax = plt.subplots(figsize=(7, 7), layout="constrained")
plots.image_grid(ax, samples[:100].reshape(-1, 10, 28, 28))
ax.set(title="The first hundred samples")
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# From noise to image
# -------------------
# Ten of these samples during sampling: :math:`x_t` on the left, and the image
# :math:`\hat x_0` that the network predicts at the same timesteps on the right.

fig, axes = plt.subplots(1, 2, figsize=(8.4, 4.6), layout="constrained")
for ax, key, title in zip(
    axes,
    ("path/x", "path/x_0"),
    (r"$x_t$", r"Predicted image $\hat x_0$"),
    strict=True,
):
    plots.image_grid(ax, arrays[key][0])
    ax.set(title=title, ylabel=f"t = {', '.join(map(str, arrays['path/t'][0]))}")
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small
#
# The mean absolute difference between the predicted image and the final sample, in grey
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
# All distances are computed in the features of a classifier, as the section *Comparing
# samples with data* of :doc:`/diffusion` explains. The model was trained with random
# horizontal flips, so half of its samples are mirrored, and real photographs of clothes
# are not: the tips of shoes point to the left. A perfect model of the training data
# would therefore not be at distance 0 from the test images, see
# :eq:`eq-diffusion-mirrored`. The table shows two ways to take this into account.
# Either a set of real training images with every second one mirrored is the reference;
# or the samples are compared with the test images and their mirror images together.
#
# Each set has :result:`ddpm-fashion-mnist-small-evaluation/settings/n` images. For the
# samples, ± is the standard error :eq:`eq-diffusion-half-samples`. For real images it is
# the standard deviation over
# :result:`ddpm-fashion-mnist-small-evaluation/settings/references` disjoint sets, that
# is, the range in which the values of a perfect model would lie.

names = ("frechet", "kernel", "precision", "recall")
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
        cells = (
            f"{value(f'{key}/{target}/{n}'):8.2f} ± {value(f'{key}/{target}/{n}_{spread}'):5.2f}"
            for n in names
        )
        print(f"{label:22}" + "".join(f"{cell:>16}" for cell in cells))


def excess(target: str, metric: str) -> tuple[float, float]:
    """Return how far the samples are behind a perfect model, and the standard error."""
    reference = f"real_mirrored/{target}/{metric}"
    apart = value(f"small/{target}/{metric}") - value(reference)
    sampling = value(f"small/{target}/{metric}_error"), value(f"{reference}_sd")
    return apart, float(np.hypot(*sampling))


for target, name in TARGETS.items():
    for metric in names:
        apart, error = excess(target, metric)
        print(f"{metric:10} {apart:+7.2f} ± {error:5.2f} beside real, half mirrored")

# %%
# .. provenance:: ddpm-fashion-mnist-small-evaluation
