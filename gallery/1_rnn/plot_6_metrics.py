r"""
F1 scores must not be averaged over batches
===========================================

**Question.** Accuracy, precision, recall and F1 score evaluate a classifier. How are
they related, and what happens if F1 is computed for each batch and then averaged, like
a loss?

**Answer.** All are ratios of sums of entries of one confusion matrix. The matrices of
batches can be added, but averaging the ratios gives a different result. In batches of 8
the averaged macro-F1 of our network is below 0.6 instead of above 0.8. If 0/0 counts as
0, even a classifier without errors gets less than 0.6, and if the test images are
sorted by class, ours gets less than 0.1.

**Source.** Opitz and Burst, *Macro F1 and Macro F1*, 2019 (arXiv:1911.03347), on the
two definitions; Forman and Scholz, *Apples-to-apples in cross-validation studies*,
2010, on averages of F1. The predictions are those of a recorded run. **Cost.** Seconds
on a CPU, no download.
"""

# %%
# The confusion matrix
# --------------------
# The entry :math:`C_{ij}` counts the images of class :math:`i` that were predicted as
# class :math:`j`. The package contains the predictions of the recorded run, and the
# labels of 500 of the test images:

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from dian import data
from dian.figures import plots
from dian.figures.tables import markdown_table
from dian.runs.record import load
from dian.training import metrics
from dian.training.loss import softmax

record = load("rnn-fashion-mnist")
test = data.sample("test")
preds = torch.from_numpy(record.arrays["predictions"][0]).long()
of_sample = metrics.confusion_matrix(target=test.labels, preds=preds[test.index])
print(f"{of_sample.trace()} of the {of_sample.sum()} are correct")

# %%
# The record also contains the matrix :math:`C` of all 10,000 images, from which the
# accuracy :math:`a` follows:
#
# .. math::
#    :label: eq-confusion
#
#    C_{ij} = \#\{n : y_n = i,\ \hat y_n = j\}, \qquad
#    a = \frac{\operatorname{tr} C}{\sum_{ij} C_{ij}} .
#
# The row of class :math:`c` sums to the number of images of that class, and the column
# to the number of images predicted as that class. The diagonal entry counts the images
# that belong to both groups. Precision divides it by the sum of the column, and recall
# by the sum of the row:
#
# .. math::
#    :label: eq-precision-recall
#
#    P_c = \frac{C_{cc}}{\sum_i C_{ic}}, \qquad R_c = \frac{C_{cc}}{\sum_j C_{cj}} .
#
# F1 is their harmonic mean, :math:`2 / (1 / P_c + 1 / R_c)`, and divides by both sums:
#
# .. math::
#    :label: eq-f1
#
#    F_c = \frac{2\, C_{cc}}{\sum_j C_{cj} + \sum_i C_{ic}} .
#
# This form does not contain precision and recall, which matters if one of them is 0/0.

C = torch.from_numpy(record.arrays["confusion"][0])
precision, recall, f1 = metrics.precision(C), metrics.recall(C), metrics.f1(C)
shirt = data.CLASSES.index("Shirt")

fig, (left, right) = plt.subplots(
    1, 2, figsize=(7, 5.5), layout="constrained", width_ratios=(1.6, 1)
)
plots.confusion(left, C.numpy(), data.CLASSES)
frame = {"fill": False, "edgecolor": "#d55e00", "linewidth": 2, "clip_on": False}
row = Rectangle((-0.5, shirt - 0.5), 10, 1, **frame)
column = Rectangle((shirt - 0.5, -0.5), 1, 10, linestyle="--", **frame)
left.add_patch(row)
left.add_patch(column)
left.set_title("Percent of each true class; framed: Shirt", fontsize=10)
position = np.arange(10)
for name, values, marker in [
    ("precision (column)", precision, "|"),
    ("recall (row)", recall, "x"),
    ("F1", f1, "o"),
]:
    right.plot(values, position, marker, label=name, fillstyle="none", markersize=9)
right.set_yticks(position, data.CLASSES)
right.invert_yaxis()
right.grid(axis="y", alpha=0.3)
right.set(xlabel="value of the metric")
right.set_title("Metrics of each class", fontsize=10)
fig.set_label(
    "Left: the confusion matrix of the recorded run, with the row and the column of "
    "the class Shirt. Right: precision, recall and F1 of each class from that matrix."
)
right.legend(loc="upper left", bbox_to_anchor=(0, -0.12))
plt.show()

# %%
# .. provenance:: rnn-fashion-mnist

of_shirt = {"precision": precision, "recall": recall, "F1": f1}
printed = [(name, f"{value[shirt]:.4f}") for name, value in of_shirt.items()]
print(markdown_table(("metric", "Shirt"), printed))

assert torch.allclose(f1, 2 / (1 / precision + 1 / recall))
assert f1.argmin() == shirt

# %%
# Micro averages equal the accuracy
# ---------------------------------
# A "micro" average sums the counts of all classes first and divides once. An image that
# is misclassified is a false positive of exactly one class and a false negative of
# exactly one other. Summed over all classes, there are as many false positives as false
# negatives. Therefore the two denominators are equal,
#
# .. math::
#
#    \frac{\sum_c C_{cc}}{\sum_c \sum_i C_{ic}}
#    = \frac{\sum_c C_{cc}}{\sum_c \sum_j C_{cj}}
#    = \frac{\operatorname{tr} C}{\sum_{ij} C_{ij}},
#
# and micro precision, micro recall and micro F1 all equal the accuracy. They contain no
# additional information.

micro_precision = C.trace() / C.sum(0).sum()
micro_recall = C.trace() / C.sum(1).sum()
micro_f1 = 2 * C.trace() / (C.sum(0) + C.sum(1)).sum()
print(f"accuracy {metrics.accuracy(C):.4f}, micro-F1 {micro_f1:.4f}")
assert micro_precision == micro_recall == micro_f1 == metrics.accuracy(C).float()

# %%
# Two definitions of macro-F1
# ---------------------------
# A "macro" average divides for each class, and then takes the mean over the classes.
# This can be the mean of the F1 scores, or the F1 of the mean precision and the mean
# recall. This report uses the former, like scikit-learn: for :math:`q` classes,
#
# .. math::
#    :label: eq-macro
#
#    F = \frac{1}{q} \sum_c F_c .
#
# On our balanced test set the two hardly differ. If one class is rare, they can differ
# much more:


def two_macros(C: Tensor) -> tuple[float, float]:
    """Mean of the F1, and F1 of the means."""
    P, R = metrics.precision(C).mean(), metrics.recall(C).mean()
    return metrics.f1(C).mean().item(), (2 * P * R / (P + R)).item()


rare = torch.tensor([[1, 0], [9, 90]])  # one image of the first class, 99 of the second
printed = [
    (name, *(f"{f1:.4f}" for f1 in two_macros(matrix)))
    for name, matrix in [("Fashion-MNIST", C), ("one image of 100", rare)]
]
print(markdown_table(("images", "mean of F1", "F1 of the means"), printed))

assert abs(np.subtract(*two_macros(C))) < 0.001
assert abs(np.subtract(*two_macros(rare))) > 0.1

# %%
# Averages over batches
# ---------------------
# A loss is a mean over images, so the mean over equal batches is the mean over all
# images. F1 is a ratio, and the mean of ratios is not the ratio of the sums. With the
# matrices :math:`C^{(b)}` of :math:`B` batches, in general
#
# .. math::
#    :label: eq-batch-average
#
#    F\Big(\sum_b C^{(b)}\Big) \ne \frac{1}{B} \sum_b F\big(C^{(b)}\big) .
#
# To average over batches, we need the pairs of true and predicted class in some order.
# The matrix determines how often each pair occurs, but not the order. Therefore we
# shuffle the pairs, in five different ways. (The order of the real test set is one more
# such order.)


def pairs(C: Tensor) -> tuple[Tensor, Tensor]:
    """List the true and the predicted class of every image, sorted by class."""
    target, preds = torch.cartesian_prod(torch.arange(10), torch.arange(10)).T
    return target.repeat_interleave(C.flatten()), preds.repeat_interleave(C.flatten())


def batch_average(
    target: Tensor, preds: Tensor, size: int, only_present: bool
) -> float:
    """Compute it wrongly: macro-F1 of each batch, then the mean."""
    found = []
    for t, p in zip(target.split(size), preds.split(size), strict=True):
        of_batch = metrics.confusion_matrix(target=t, preds=p, num_classes=10)
        f1 = metrics.f1(of_batch)
        found.append(f1[of_batch.sum(1) > 0].mean() if only_present else f1.mean())
    return torch.stack(found).mean().item()


true, guessed = pairs(C)
assert torch.equal(metrics.confusion_matrix(target=true, preds=guessed), C)
orders = [
    torch.randperm(len(true), generator=torch.Generator().manual_seed(seed))
    for seed in range(5)
]
sizes = [8, 16, 32, 64, 128, 256, 512, 1024]

# %%
# In a small batch some classes are missing. The F1 score of a class that is neither
# present nor predicted is 0/0. Our convention is 0, which is also the result of
# scikit-learn if all ten classes are passed as ``labels``. Without ``labels``,
# scikit-learn leaves such classes out. Neither convention makes the average correct.

averages = {
    (who, only_present): np.array(
        [
            [batch_average(true[o], guess[o], size, only_present) for size in sizes]
            for o in orders
        ]
    )
    for who, guess, only_present in [
        ("ours", guessed, False),
        ("ours", guessed, True),
        ("perfect", true, False),
    ]
}
whole = metrics.f1(C).mean().item()

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.axhline(whole, color="black", linewidth=0.8, label="ours, from the whole matrix")
for key, label, style in [
    (("ours", False), "ours, 0/0 is 0", "s--"),
    (("ours", True), "ours, without missing classes", "o-"),
    (("perfect", False), "perfect predictions, 0/0 is 0", "^:"),
]:
    plots.curve_with_spread(ax, np.array(sizes), averages[key], label, ls=style[1:],
                            marker=style[0], fillstyle="none")  # fmt: skip
ax.set(
    xscale="log", xlabel="batch size (images)", ylabel="macro-F1, averaged over batches"
)
ax.set_xticks(sizes, sizes)
ax.minorticks_off()
ax.set(ylim=(0.4, 1.02), title="One set of predictions, many values of F1")
fig.set_label(
    "Macro-F1 averaged over batches, against the batch size: means and ranges of five "
    "orders of the test images. The horizontal line is the correct value. Even perfect "
    "predictions get less than 1."
)
ax.legend()
plt.show()

# %%
# .. provenance:: rnn-fashion-mnist
#
# The value depends on the batch size, which is not a property of the classifier. (The
# small dip of the dotted curve at 256 is caused by the last batch: it contains 16
# images and counts as much as each of the others.) The value also depends on the order
# of the images, most of all if they are sorted:

in_order = {size: batch_average(true, guessed, size, False) for size in (8, 256)}
printed = []
for size in (8, 256):
    shuffled = averages["ours", False][:, sizes.index(size)]
    span = f"{shuffled.min():.3f} to {shuffled.max():.3f}"
    printed.append((size, span, f"{in_order[size]:.3f}", f"{whole:.3f}"))
print(markdown_table(("batch size", "shuffled", "sorted by class", "whole"), printed))
without_mistake = averages["perfect", False][:, 0]
print(f"perfect predictions, batches of 8: {without_mistake.mean():.3f}")

assert whole > 0.8
assert averages["ours", False][:, 0].max() < 0.6
assert without_mistake.max() < 0.6
assert in_order[8] < 0.1
for only_present in (False, True):
    assert (abs(averages["ours", only_present] - whole) > 1e-6).all()

# %%
# Even for the accuracy, which is a mean over images, the average over batches is wrong
# if the batches differ in size, as the last one usually does. An example with four
# correct images and one wrong, in batches of 4 and 1:

right = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
by_batch = torch.stack([part.mean() for part in right.split(4)]).mean()
print(f"mean over batches {by_batch:.1f}, accuracy {right.mean():.1f}")
assert by_batch != right.mean()

# %%
# The solution costs nothing: sum the matrices of the batches, and divide once at the
# end.

total = metrics.ConfusionMatrix(num_classes=10)
for t, p in zip(true.split(256), guessed.split(256), strict=True):
    total.update(target=t, preds=p)
assert torch.equal(total.counts, C)
summary = metrics.summary(total.counts)
printed = [(name, f"{value:.4f}") for name, value in summary.items()]
print(markdown_table(("metric", "value"), printed))

# %%
# Reset the matrix before each pass over the data. A matrix that is carried over from
# epoch to epoch mixes the predictions of different weights, and the curve lags behind
# the network. With the accuracies of the recorded epochs, this would give:

by_epoch = record.series["test/accuracy"][0, 1:]
carried_over = by_epoch.cumsum() / np.arange(1, len(by_epoch) + 1)
print(f"last epoch {by_epoch[-1]:.4f}, carried over {carried_over[-1]:.4f}")
assert carried_over[-1] < by_epoch[-1] - 0.01

# %%
# Metrics of the predicted probabilities
# --------------------------------------
# A confusion matrix counts decisions. If the classes differ in size, the accuracy
# mostly reflects the large ones; *balanced accuracy* is the mean recall of the classes
# that are present,
#
# .. math::
#    :label: eq-balanced-accuracy
#
#    \frac{1}{\lvert \mathcal P \rvert} \sum_{c \in \mathcal P} R_c, \qquad
#    \mathcal P = \Big\{ c : \sum_j C_{cj} > 0 \Big\} .
#
# The probabilities :math:`p_{n,c}` of :math:`N` items with the true classes :math:`y_n`
# contain more information. *Top-k accuracy* is the fraction of items whose true class
# is among the :math:`k` most probable ones. We count ties against the network, so that
# a uniform prediction has the value 0 for :math:`k` below the number of classes:
#
# .. math::
#    :label: eq-top-k
#
#    \frac1N\, \#\big\{ n : \#\{ c : p_{n,c} \ge p_{n,y_n} \} \le k \big\} .
#
# The *negative log-likelihood* is the cross-entropy of the labels, in nats,
#
# .. math::
#    :label: eq-negative-log-likelihood
#
#    -\frac1N \sum_{n} \ln p_{n,y_n} .
#
# It is infinite if the network gives probability 0 to a true class. Finally, let the
# *confidence* be the probability of the predicted class,
# :math:`\hat p_n = \max_c p_{n,c}`. A network is *calibrated* if, among all items with
# a confidence of :math:`p`, a fraction :math:`p` is classified correctly. The
# *expected calibration error* sorts the items into :math:`B` bins by their confidence,
# with :math:`n_b` items in bin :math:`b`, and averages the absolute difference between
# the accuracy and the mean confidence of each bin,
#
# .. math::
#    :label: eq-calibration-error
#
#    \text{ECE} = \sum_{b=1}^{B} \frac{n_b}{N}\, \Big\lvert
#    \frac{1}{n_b} \sum_{n \in b} [\hat y_n = y_n]
#    - \frac{1}{n_b} \sum_{n \in b} \hat p_n \Big\rvert, \qquad
#    n \in b \iff \tfrac{b-1}{B} < \hat p_n \le \tfrac{b}{B} .
#
# Its value depends on the number of bins. It also depends on rounding: 0.6 in 32 bits
# is larger than 0.6 in 64 bits, so the edges must have the dtype of the probabilities.
#
# We compute all of them for the 500 bundled test images. Every class has equally many,
# so balanced accuracy equals accuracy.

model = record.model()
with torch.no_grad():
    p = softmax(model(test.unit()))
of_these = metrics.confusion_matrix(target=test.labels, preds=p.argmax(1))
balanced = metrics.balanced_accuracy(of_these)
top = [metrics.top_k_accuracy(p, test.labels, k).item() for k in (1, 2, 3)]
nll = metrics.negative_log_likelihood(p, test.labels)

error = metrics.calibration_error(p, test.labels, n_bins=10)
values = {
    "accuracy": metrics.accuracy(of_these),
    "balanced accuracy": balanced,
    **{f"top-{k} accuracy": share for k, share in enumerate(top, start=1)},
    "NLL (nats)": nll,
    "NLL of the uniform prediction (nats)": np.log(10),
    "calibration error in 10 bins": error,
}
printed = [(name, f"{value:.3f}") for name, value in values.items()]
print(markdown_table(("metric", "value"), printed))

assert torch.equal(p.argmax(1), preds[test.index])
assert abs(metrics.balanced_accuracy(of_these) - metrics.accuracy(of_these)) < 1e-12
assert top[0] == metrics.accuracy(of_these).item() < top[1] < top[2]
assert top[2] > 0.97
se = (top[0] * (1 - top[0]) / len(test)) ** 0.5
assert 0.01 < se < 0.02
assert nll < 0.5
assert error < 0.1

# %%
# For nearly all of these images the true class is among the three most probable ones.
# When the network is wrong, the true class is usually its second or third choice.
#
# .. provenance:: rnn-fashion-mnist
#
# Limits
# ------
# The probabilities are those of one run on 500 images, for which an accuracy has a
# binomial standard error of one to two points. The data set has classes of equal size.
# With classes of different sizes, the errors of the batch averages have other values,
# and the two definitions of macro-F1 can differ more. However, averages over batches
# differ from the value of the whole set in that case, too.
