r"""
Fewer steps
===========

**Question.** The network was trained at a thousand steps. How many of them does it take
to make an image, if no noise is added on the way (DDIM)?

**Answer.** Few, as far as 150 images can tell. Time falls in proportion to the steps.
From the same starts, 50 and 100 steps end at the same distance from real images, and 10
steps about a tenth further away. But the classes come out less evenly than by Algorithm
2 with all thousand. The start decides what the image shows, whatever the number of
steps.

**Source.** Song, Meng and Ermon, *Denoising Diffusion Implicit Models*, 2021
(arXiv:2010.02502). **Cost.** Seconds: training and sampling are a recorded run.
"""

# %%
# Quality against time
# --------------------
# Each number of steps starts from the same noise. No noise is added on the way
# (:math:`\eta = 0`), and the predicted image is clipped. Dotted is Algorithm 2 with all
# steps and :math:`\sigma_t^2 = \beta_t`, clipped as well, and dashed the floor: as many
# real images. Beside each point stands the number of steps.

import matplotlib.pyplot as plt
import numpy as np

from dian.figures import plots
from dian.runs.record import load

record = load("ddpm-fashion-mnist-small")
settings, arrays = record.settings, record.arrays
steps = [int(n) for n in settings["ddim"].split()]
seconds = np.array([arrays[f"ddim-{n}/seconds"][0] for n in steps])

fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
for ax, key in zip(axes, ("frechet", "precision"), strict=True):
    values = [record.value(f"ddim-{n}/{key}") for n in steps]
    ax.plot(seconds, values, "o-", label="DDIM")
    for n, x, y in zip(steps, seconds, values, strict=True):
        ax.annotate(str(n), (x, y), xytext=(4, 4), textcoords="offset points")
    full, floor = (record.value(f"{way}/{key}") for way in ("averaged", "floor"))
    ax.axhline(full, color="black", linestyle=":", label="Algorithm 2")
    ax.axhline(floor, color="gray", linestyle="--", label="real images")
    ax.set(xlabel=f"seconds for {settings['others']} images", ylabel=key)
    ax.set(xscale="log")
    ax.set_xticks(seconds, [f"{s:.0f}" for s in seconds])
    ax.minorticks_off()
    ax.legend()
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small

names = ("frechet", "kernel", "precision", "recall", "imbalance")
print(f"{settings['others']} images {'':9}" + "".join(f"{k:>10}" for k in names))
rows = {
    f"{n} steps, {s:.1f} s": f"ddim-{n}" for n, s in zip(steps, seconds, strict=True)
}
for label, way in (rows | {"Algorithm 2": "averaged", "real images": "floor"}).items():
    values = "".join(f"{record.value(f'{way}/{k}'):10.3f}" for k in names)
    print(f"{label:20}{values}")
per_step = seconds / steps
assert per_step.max() < 1.5 * per_step.min()
distance = {n: record.value(f"ddim-{n}/frechet") for n in steps}
assert abs(distance[50] / distance[100] - 1) < 0.03
assert 1.05 < distance[10] / distance[100] < 1.2
uneven = [record.value(f"ddim-{n}/imbalance") for n in steps]
assert min(uneven) > 1.5 * record.value("averaged/imbalance")
assert settings["others"] == 150
assert settings["T"] == 1000

# %%
# The same starts
# ---------------
# Without new noise the start decides the image, whatever the number of steps.

shown = np.stack([arrays[f"ddim-{n}/samples"][0] for n in steps])
fig, ax = plt.subplots(figsize=(7, 0.75 * len(steps) + 0.6), layout="constrained")
plots.image_grid(ax, shown)
ax.set(title="Ten starts", ylabel=f"{', '.join(map(str, steps))} steps")
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small

grey = shown.astype(float).reshape(len(steps), len(shown[0]), -1)
other = np.abs(grey[-1] - np.roll(grey[-1], 1, axis=0)).mean()
print(f"mean difference to the image of another start: {other:.1f} grey values")
for n, images in zip(steps[:-1], grey[:-1], strict=True):
    alike = np.abs(images - grey[-1]).mean()
    print(f"{n:3} steps against {steps[-1]}: {alike:.1f}")
    assert alike < other / 2

# %%
# Limits
# ------
# One training, and :result:`ddpm-fashion-mnist-small/settings/others` images of each
# number of steps. The distance of Algorithm 2 is not compared with those of DDIM: what
# lies between them is no more than what changes from one set of so few images to
# another. Walks of more than a hundred steps without noise were not recorded for this
# network, so the page does not tell what all thousand would give; the settings of
# ``ddpm-fashion-mnist-base``, for a GPU, have them.
