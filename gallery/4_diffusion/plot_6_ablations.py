r"""
What each part of the recipe is worth
=====================================

**Question.** The paper predicts the noise, weights all steps alike, and does things in
its code that its text does not say. What does each of these choices change, here?

**Answer.** ANSWER

**Source.** Table 2 of Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models*,
2020 (arXiv:2006.11239). **Cost.** Seconds: the trainings are recorded runs.
"""

# %%
# One change at a time
# --------------------
# Each row is a training of its own, from the same seed. In Table 2 of the paper the
# network predicts the noise or the mean of the step back, and its loss is weighted as
# in the bound or not at all. Two more rows leave out the warm-up and the flips. The
# trainings are short, a single pass over the data, and the chain has a quarter of the
# paper's steps: what is compared is how fast each learns, on one core.

import matplotlib.pyplot as plt
import numpy as np

from dian import plots, records

RUNS = {
    "reference": "noise, unweighted",
    "epsilon-bound": "noise, bound",
    "mu-bound": "mean, bound",
    "mu-simple": "mean, unweighted",
    "no-warm-up": "no warm-up",
    "no-flips": "no flips",
}
CHANGED = {
    "reference": {"variants"},  # it is sampled in more ways, and trained like the rest
    "epsilon-bound": {"weighting"},
    "mu-bound": {"target", "weighting"},
    "mu-simple": {"target"},
    "no-warm-up": {"warm_up"},
    "no-flips": {"flips"},
}
runs = {key: records.load(f"ddpm-ablation-small-{key}") for key in RUNS}
recipe = runs["no-flips"].settings | {"flips": True}
for key, record in runs.items():
    assert {k for k, v in record.settings.items() if v != recipe[k]} == CHANGED[key]

reference = runs["reference"]
names = ("frechet", "kernel", "precision", "recall")
found = {key: [r.value(f"all/{n}") for n in names] for key, r in runs.items()}
bits = {key: record.value("bits/beta") for key, record in runs.items()}
error = {key: record.value("bits/beta_error") for key, record in runs.items()}
floor = [reference.value(f"all-floor/{n}") for n in names]
print(f"{'':20}" + "".join(f"{n:>11}" for n in names) + f"{'bits':>9}")
for key, values in found.items():
    row = "".join(f"{v:11.4f}" for v in values)
    print(f"{RUNS[key]:20}{row}{bits[key]:9.3f} ± {error[key]:.3f}")
print(f"{'real images':20}" + "".join(f"{v:11.4f}" for v in floor))

# %%
# Ten samples of each, the rows in the order of the table:

fig, ax = plt.subplots(figsize=(7, 4.4), layout="constrained")
rows = np.stack([record.arrays["samples"][0, :10] for record in runs.values()])
plots.image_grid(ax, rows)
ax.set(title="Ten samples of each training")
middle = 28 * np.arange(len(RUNS)) + 14
ax.set_yticks(middle, RUNS.values())
ax.tick_params(length=0)
plt.show()

# %%
# .. provenance:: ddpm-ablation-small-reference
# .. provenance:: ddpm-ablation-small-epsilon-bound
# .. provenance:: ddpm-ablation-small-mu-bound
# .. provenance:: ddpm-ablation-small-mu-simple
# .. provenance:: ddpm-ablation-small-no-warm-up
# .. provenance:: ddpm-ablation-small-no-flips
