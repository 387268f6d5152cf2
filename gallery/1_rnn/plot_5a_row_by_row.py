r"""
The output layer reads only the last hidden state
=================================================

**Question.** A recurrent network reads an image row by row. After how many of the 28
rows does it know the class?

**Answer.** That depends on how the class is read out. The output layer, applied to the
state after 14 rows, is right for less than 15 % of the bundled test images, which is
close to chance level. If 14 empty rows follow, it is right for more than 45 %. The
state therefore contains information that the output layer, which was trained on the
last state only, cannot use earlier.

**Source.** The network is that of Elman, *Finding structure in time*, 1990. The weights
are those of a recorded run. **Cost.** Seconds on a CPU, no download.
"""

# %%
# One image
# ---------
# The recorded network with 128 units reads rows from top to bottom. Its output layer,
# equation :eq:`eq-rnn-forward`, is applied to the last hidden state, :math:`H_{28}`.
# Here we apply it to earlier states, too: the prediction after :math:`t` rows is the
# one that the network makes for an image that consists of these rows only.

import matplotlib.pyplot as plt
import numpy as np
import torch

from dian import data
from dian.figures.reading import row_by_row
from dian.runs.record import load

test = data.sample("test")
images, labels = test.unit(), test.labels
model = load("rnn-fashion-mnist").model()

with torch.no_grad():
    at_once = torch.stack([model(images[:, :t]) for t in range(1, 29)]).softmax(-1)

boot, steps = 0, (7, 14, 21, 28)
probs = at_once[[t - 1 for t in steps], boot].numpy()

fig = plt.figure(figsize=(7, 4), layout="constrained")
row_by_row(fig, images[boot].numpy(), probs, steps, data.CLASSES)
fig.set_label(
    "The recorded recurrent network reads an ankle boot. Below the image are the three "
    "most likely classes after 7, 14, 21 and 28 rows. The output layer was trained on "
    "the state after the last row only."
)
plt.show()

assert data.CLASSES[labels[boot]] == "Ankle boot"
predicted = [data.CLASSES[i] for i in probs.argmax(1)]
assert predicted == ["Sandal", "Coat", "Ankle boot", "Ankle boot"]

# %%
# .. provenance:: rnn-fashion-mnist
#
# All images
# ----------
# For the 500 bundled test images we count how often the most likely class is the right
# one. For the dashed curve, the output layer is applied to the state after row
# :math:`t`. For the solid curve, all rows after row :math:`t` are replaced by empty
# (black) rows, so that the network takes 28 steps for every image.


def with_empty_rows(t: int) -> torch.Tensor:
    """Replace the rows after row t by empty ones."""
    rows = torch.arange(1, 29)[:, None]
    return torch.where(rows <= t, images, torch.zeros(()))


with torch.no_grad():
    filled = torch.stack([model(with_empty_rows(t)) for t in range(1, 29)])

t = np.arange(1, 29)
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
accuracy = {}
for name, outputs, style in [
    ("28 steps, the remaining rows empty", filled, "-"),
    ("output layer applied to $H_t$", at_once, "--"),
]:
    p = (outputs.argmax(-1) == labels).double().mean(1).numpy()
    error = np.sqrt(p * (1 - p) / len(labels))
    (line,) = ax.plot(t, p, style, label=name)
    ax.fill_between(t, p - error, p + error, color=line.get_color(), alpha=0.25, lw=0)
    accuracy[name] = p
ax.axhline(0.1, color="gray", linestyle=":", label="chance level")
ax.set(xlabel="rows read, $t$", ylabel="accuracy on 500 images", ylim=(0, 1))
ax.legend()
fig.set_label(
    "Accuracy after $t$ rows. Between rows 12 and 24 it is more than 30 percentage "
    "points higher if empty rows follow. Bands are one standard error of the 500 "
    "images on each side."
)
plt.show()

empty, immediate = accuracy.values()
assert immediate[13] < 0.15
assert empty[13] > 0.45
assert (empty - immediate)[11:24].min() > 0.3
assert immediate[-1] == empty[-1] > 0.85

# %%
# .. provenance:: rnn-fashion-mnist
#
# The empty rows do not add information: they are the same for all images. Therefore the
# state after :math:`t` rows contains enough information for the accuracy of the solid
# curve. The output layer cannot use this information directly, because it was trained
# on last states only. The remaining steps transform the state into one that it can
# classify.
#
# Limits
# ------
# The weights are those of the first of five runs, and the images are 500 of the 10,000
# test images. A network that is trained with an output and a loss at every step can be
# read out at every step; this one was not.
