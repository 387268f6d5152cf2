r"""
From 20 to 100 DDIM steps, no difference in Fréchet distance can be shown
=========================================================================

**Question.** The network was trained with a thousand timesteps. How many of them does
it take to generate an image if no noise is added during sampling (DDIM)?

**Answer.** Few, as far as these samples show. The time is proportional to the number of
steps. From the same initial noise, no difference in Fréchet distance between 20, 50 and
100 steps exceeds two standard errors, which does not exclude a difference of a tenth;
with 10 steps the distance is larger. No imbalance of the classes can be shown. The
initial noise decides what an image shows, whatever the number of steps.

**Source.** Song, Meng and Ermon, *Denoising Diffusion Implicit Models*, 2021
(arXiv:2010.02502). **Cost.** Seconds: training, sampling and evaluation are recorded
runs.
"""

# %%
# Quality against time
# --------------------
# All numbers of steps start from the same noise. No noise is added
# (:math:`\eta = 0`), and the predicted image is clipped. Since the model was trained
# with flips, all samples are compared with the test images and their mirror images; see
# :ref:`sphx_glr_gallery_4_diffusion_plot_5_samples.py`. Error bars are standard errors
# :eq:`eq-diffusion-half-samples`. The dotted line is Algorithm 2 with all steps,
# :math:`\sigma_t^2 = \beta_t`, clipped as well. The dashed line is the mean value of
# sets of real images, each as large as a set of samples, with every second image
# mirrored. The times were measured in the run that trained the network.

import matplotlib.pyplot as plt
import numpy as np

from dian.figures import plots
from dian.figures.tables import markdown_table
from dian.runs.record import load

record = load("ddpm-fashion-mnist-small")
evaluation = load("ddpm-fashion-mnist-small-evaluation")
settings, arrays = record.settings, record.arrays
steps = sorted(int(way.split("-")[1]) for way in evaluation.settings["ways"].split())
seconds = np.array([arrays[f"ddim-{n}/seconds"][0] for n in steps])
value = evaluation.value

fig, axes = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
for ax, (key, label) in zip(
    axes, {"frechet": "Fréchet distance", "recall": "recall"}.items(), strict=True
):
    paths = [f"ddim-{n}/both/{key}" for n in steps]
    values = [value(path) for path in paths]
    errors = [value(f"{path}_error") for path in paths]
    ax.errorbar(seconds, values, errors, fmt="o-", capsize=3, label="DDIM")
    for n, x, y in zip(steps, seconds, values, strict=True):
        ax.annotate(str(n), (x, y), xytext=(5, 5), textcoords="offset points")
    full, real = (value(f"{k}/both/{key}") for k in ("small", "real_mirrored"))
    ax.axhline(full, color="black", linestyle=":", label="Algorithm 2")
    ax.axhline(real, color="gray", linestyle="--", label="real images")
    ax.set(xlabel=f"seconds for {settings['others']} images", ylabel=label)
    ax.set(xscale="log")
    ax.set_xticks(seconds, [f"{s:.0f}" for s in seconds])
    ax.minorticks_off()
handles, labels = axes[0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside upper center", ncols=3)
fig.set_label(
    "Fréchet distance and recall of DDIM samples against the time for "
    "sampling; the numbers are DDIM steps. Bars are standard errors; "
    "dotted: Algorithm 2 with all steps; dashed: real images of which half "
    "are mirrored."
)
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small-evaluation
# .. provenance:: ddpm-fashion-mnist-small
#
# The table has the numbers, and the differences from the largest number of steps.
# Because all numbers of steps share their initial noise, the standard errors of the
# differences are those of paired differences.

METRICS = ("frechet", "kernel", "precision", "recall")
rows = {f"DDIM, {n} steps": f"ddim-{n}" for n in steps}
rows |= {"Algorithm 2": "small", "real, half mirrored": "real_mirrored"}
printed = []
for label, key in rows.items():
    spread = "sd" if key.startswith("real") else "error"
    paths = [f"{key}/both/{metric}" for metric in METRICS]
    cells = [f"{value(p):.2f} ± {value(f'{p}_{spread}'):.2f}" for p in paths]
    printed.append((label, *cells))
print(f"{evaluation.settings['n']} images:")
header = ("images of", "Fréchet distance", "KID", "precision", "recall")
print(markdown_table(header, printed))

apart, printed = {}, []
for n in steps[:-1]:
    paths = [f"ddim-{n}/both/{metric}_difference" for metric in METRICS]
    apart[n] = [(value(p), value(f"{p}_error")) for p in paths]
    cells = [f"{a:+.2f} ± {e:.2f}" for a, e in apart[n]]
    printed.append((f"{n} steps", *cells))
print(f"differences from {steps[-1]} steps:")
print(markdown_table(header, printed))

# %%
# The time per step is nearly constant. Compare the Fréchet distance of each number of
# steps with that of the largest number: from 20 steps on, the two differ by less than
# two standard errors of their difference; with 10 steps the distance is larger by more
# than that. Since the pairs share their noise, the differences have smaller standard
# errors than the distances themselves.

per_step = seconds / steps
assert per_step.max() < 1.5 * per_step.min()
frechet = {n: row[0] for n, row in apart.items()}
assert all(abs(a) < 2 * e for n, (a, e) in frechet.items() if n >= 20)
assert frechet[10][0] > 2 * frechet[10][1]
assert all(e < value(f"ddim-{n}/both/frechet_error") for n, (_, e) in frechet.items())

# %%
# Classes
# -------
# The recurrent network of the chapter :doc:`/rnn` classifies the samples. *Imbalance*
# is the total variation distance of the classes from equal frequencies: the fraction of
# images that would have to change class. For a random finite set it is larger than 0 on
# average, and the network makes mistakes, in particular on mirrored images. Therefore
# we compare with sets of real images, every second one mirrored, and state the mean and
# the standard deviation over the sets.

printed = []
for label, key in rows.items():
    spread = value(f"{key}/imbalance_sd") if key.startswith("real") else None
    more = f" ± {spread:.3f}" if spread else ""
    printed.append((label, f"{value(f'{key}/imbalance'):.3f}{more}"))
print(markdown_table(("images of", "imbalance of the classes"), printed))
balanced = value("real_mirrored/imbalance")
deviation = value("real_mirrored/imbalance_sd")
for key in rows.values():
    assert abs(value(f"{key}/imbalance") - balanced) < 2 * deviation

# %%
# All values are within two standard deviations of the mean for real images, so there is
# no sign that one of the samplers prefers some classes.
#
# The same initial noise
# ----------------------
# Without additional noise the initial noise determines the image, whatever the number
# of steps.

shown = np.stack([arrays[f"ddim-{n}/samples"][0] for n in steps])
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
plots.image_grid(ax, shown)
ax.set(title="Ten initial noises")
ax.set_yticks(28 * np.arange(len(steps)) + 14, [f"{n} steps" for n in steps])
ax.tick_params(length=0)
fig.set_label(
    "Ten initial noises (columns), each with different numbers of DDIM "
    "steps (rows). The initial noise decides what the image shows."
)
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small

grey = shown.astype(float).reshape(len(steps), len(shown[0]), -1)
other = np.abs(grey[-1] - np.roll(grey[-1], 1, axis=0)).mean()
print(f"mean difference between images of different noise: {other:.1f} grey values")
printed = []
for n, images in zip(steps[:-1], grey[:-1], strict=True):
    alike = np.abs(images - grey[-1]).mean()
    printed.append((n, f"{alike:.1f}"))
    assert alike < other / 2
header = ("steps", f"mean difference from {steps[-1]} steps (gray values)")
print(markdown_table(header, printed))

# %%
# Limits
# ------
# One training run, and :result:`ddpm-fashion-mnist-small-evaluation/settings/n` images
# for each number of steps. The samples of Algorithm 2 come from other initial noise, so
# their difference from those of DDIM is not paired. DDIM with more than a hundred steps
# was not recorded for this network; the settings of ``ddpm-fashion-mnist-base``, for a
# GPU, include it.
