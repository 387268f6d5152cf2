r"""
Fewer steps
===========

**Question.** The network was trained at a thousand steps. How many of them does it take
to make an image, if no noise is added on the way (DDIM)?

**Answer.** Few. Time falls in proportion to the steps, and the distance from real
images hardly: with 50 steps it is that of 100, and of Algorithm 2 with all thousand,
within a few parts of a hundred; with 10 steps it is a tenth larger or a little more.
The start decides what the image shows, whatever the number of steps.

**Source.** Song, Meng and Ermon, *Denoising Diffusion Implicit Models*, 2021
(arXiv:2010.02502). **Cost.** Seconds: training and sampling are a recorded run.
"""

# %%
# Quality against time
# --------------------
# Each number of steps starts from the same noise. Dotted is Algorithm 2 with all steps,
# and dashed the floor: as many real images. Beside each point stands the number of
# steps.

import matplotlib.pyplot as plt
import numpy as np

from dian import plots, records

record = records.load("ddpm-fashion-mnist-small")
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
    ax.legend()
plt.show()

# %%
# .. provenance:: ddpm-fashion-mnist-small

for n, s in zip(steps, seconds, strict=True):
    row = [record.value(f"ddim-{n}/{k}") for k in ("frechet", "kernel", "precision")]
    print(f"{n:5} steps, {s:8.1f} s:", "  ".join(f"{v:.4f}" for v in row))
per_step = seconds / steps
assert per_step.max() < 1.5 * per_step.min()
distance = {n: record.value(f"ddim-{n}/frechet") for n in steps}
assert abs(distance[50] / distance[100] - 1) < 0.03
assert abs(distance[50] / record.value("averaged/frechet") - 1) < 0.03
assert 1.05 < distance[10] / distance[100] < 1.2

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
