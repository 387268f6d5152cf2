r"""Classification metrics from a confusion matrix or from predicted probabilities.

The entry :math:`C_{ij}` of a confusion matrix counts items of target class :math:`i`
that were predicted as class :math:`j`. Confusion matrices of several batches add up;
the ratios computed from them do not, so compute them once, from the sum. A ratio 0/0 (a
class that is neither present nor predicted) is 0, as in scikit-learn with
``zero_division=0``.

All functions take tensors, NumPy arrays or lists. In the formulas :math:`p_{n, i}` is
the predicted probability of class :math:`i` for item :math:`n`, and :math:`y_n` its
target.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from dian.errors import kind, require, require_whole

Classes = Integer[Tensor, "n"] | Integer[np.ndarray, "n"] | Sequence[int]
"""Class indices, one per item."""
Counts = Integer[Tensor, "c c"] | Integer[np.ndarray, "c c"] | Sequence[Sequence[int]]
"""A confusion matrix."""
Probabilities = Float[Tensor, "n c"] | Float[np.ndarray, "n c"] | Sequence[Sequence]
"""Predicted probabilities, one row per item."""
MAX_CLASSES = 10_000
"""The matrix of more classes would need gigabytes."""


def confusion_matrix(
    *, target: Classes, preds: Classes, num_classes: int | None = None
) -> Int[Tensor, "c c"]:
    """Count how often each target class (row) was predicted as each class (column).

    Parameters
    ----------
    target, preds
        Target and predicted classes.
    num_classes
        Number of classes. Default: the largest class that occurs, plus one.

    Examples
    --------
    >>> confusion_matrix(target=[0, 0, 1], preds=[0, 1, 1])
    tensor([[1, 1],
            [0, 1]])
    """
    target, preds = _tensor(target), _tensor(preds)
    if num_classes is None:
        require(len(target) and len(preds), "target and preds must not be empty")
        num_classes = 1 + int(max(target.max(), preds.max()))
    require_whole("num_classes", num_classes, 1, MAX_CLASSES)
    target = _classes("target", target, num_classes)
    preds = _classes("preds", preds, num_classes)
    lengths = f"{len(target)} and {len(preds)}"
    require(len(target) == len(preds), f"target and preds differ in length: {lengths}")
    pairs = target * num_classes + preds
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


class ConfusionMatrix:
    """A confusion matrix accumulated over batches.

    Examples
    --------
    >>> total = ConfusionMatrix(2)
    >>> total.update(target=[0, 0], preds=[0, 1])
    >>> total.update(target=[1], preds=[1])
    >>> total.counts
    tensor([[1, 1],
            [0, 1]])
    >>> f1(total.counts, average="macro").item()
    0.667
    """

    def __init__(self, num_classes: int):
        require_whole("num_classes", num_classes, 1, MAX_CLASSES)
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.long)

    def update(self, *, target: Classes, preds: Classes) -> None:
        """Add the counts of a batch."""
        n = len(self.counts)
        batch = confusion_matrix(target=target, preds=preds, num_classes=n)
        self.counts += batch.to(self.counts.device)


def accuracy(C: Counts) -> Float[Tensor, ""]:
    r"""Return the fraction of items that were predicted correctly.

    .. math::

        \frac{\operatorname{tr} C}{\sum_{ij} C_{ij}}

    >>> accuracy([[3, 1], [0, 4]]).item()
    0.875
    """
    C = _counts(C)
    return _ratio(C.trace(), C.sum())


def precision(C: Counts, average: str | None = None) -> Float[Tensor, "*c"]:
    r"""Return the fraction of correct predictions among those of each class.

    .. math::

        P_c = \frac{C_{cc}}{\sum_i C_{ic}}

    With ``average="macro"``, return the mean over all classes.

    >>> precision([[3, 1], [0, 4]]).tolist()
    [1.0, 0.8]
    """
    C = _counts(C)
    return _averaged(_ratio(C.diagonal(), C.sum(0)), average)


def recall(C: Counts, average: str | None = None) -> Float[Tensor, "*c"]:
    r"""Return the fraction of correct predictions among the items of each class.

    .. math::

        R_c = \frac{C_{cc}}{\sum_j C_{cj}}

    With ``average="macro"``, return the mean over all classes.

    >>> recall([[3, 1], [0, 4]]).tolist()
    [0.75, 1.0]
    """
    C = _counts(C)
    return _averaged(_ratio(C.diagonal(), C.sum(1)), average)


def f1(C: Counts, average: str | None = None) -> Float[Tensor, "*c"]:
    r"""Return the harmonic mean of precision and recall of each class.

    .. math::

        F_c = \frac{2 C_{cc}}{\sum_j C_{cj} + \sum_i C_{ic}}

    With ``average="macro"``, return the mean over all classes, which is not the F1 of
    macro precision and macro recall.

    >>> f1([[3, 1], [0, 4]]).tolist()
    [0.857, 0.889]
    >>> f1([[3, 1], [0, 4]], average="macro").item()
    0.873
    """
    C = _counts(C)
    return _averaged(_ratio(2 * C.diagonal(), C.sum(0) + C.sum(1)), average)


def balanced_accuracy(C: Counts) -> Float[Tensor, ""]:
    """Return the mean recall of the classes that are present.

    The macro recall, in contrast, counts the recall of an absent class as 0.

    >>> balanced_accuracy([[3, 1, 0], [0, 4, 0], [0, 0, 0]]).item()
    0.875
    """
    C = _counts(C)
    return _ratio(recall(C).sum(), (C.sum(1) > 0).sum())


def summary(C: Counts) -> dict[str, float]:
    """Return accuracy, and macro precision, recall and F1.

    >>> summary([[3, 1], [0, 4]])
    {'accuracy': 0.875, 'precision': 0.9, 'recall': 0.875, 'f1': 0.873}
    """
    return {
        "accuracy": accuracy(C).item(),
        "precision": precision(C, "macro").item(),
        "recall": recall(C, "macro").item(),
        "f1": f1(C, "macro").item(),
    }


def top_k_accuracy(probs: Probabilities, target: Classes, k: int) -> Float[Tensor, ""]:
    """Return the fraction of items whose class is among the ``k`` most probable ones.

    Ties count as errors: at most ``k - 1`` other classes may be as probable.

    >>> probs = [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]
    >>> top_k_accuracy(probs, [1, 2], k=2).item()
    0.5
    """
    probs, target = _predictions(probs, target)
    require_whole("k", k, 1, probs.shape[1])
    of_target = probs.gather(1, target.unsqueeze(1))
    return ((probs >= of_target).sum(1) <= k).double().mean()


def negative_log_likelihood(probs: Probabilities, target: Classes) -> Float[Tensor, ""]:
    r"""Return the mean negative log-likelihood of the targets, in nats.

    .. math::

        -\frac{1}{N} \sum_n \ln p_{n, y_n}

    >>> negative_log_likelihood([[0.5, 0.5]], [1]).item()
    0.693
    """
    probs, target = _predictions(probs, target)
    return -probs.gather(1, target.unsqueeze(1)).log().mean()


def calibration_error(
    probs: Probabilities, target: Classes, n_bins: int = 15
) -> Float[Tensor, ""]:
    r"""Return the expected calibration error (ECE).

    The confidence :math:`\hat p` is the probability of the predicted class. Bin
    :math:`b` of :math:`B` holds the items with :math:`(b-1)/B < \hat p \le b/B`.

    .. math::

        \text{ECE} = \sum_b \frac{n_b}{N}\, \lvert \text{accuracy}_b -
        \text{mean confidence}_b \rvert

    Notes
    -----
    Guo et al., *On calibration of modern neural networks*, 2017, arXiv:1706.04599,
    equation 3. The result depends on the bins, so report their number with it.

    Examples
    --------
    A confidence of 1, and three of four correct:

    >>> calibration_error([[1.0, 0.0]] * 4, [0, 0, 0, 1]).item()
    0.25
    """
    given = _tensor(probs)
    probs, target = _predictions(given, target)
    require_whole("n_bins", n_bins, 1)
    confidence, preds = probs.max(1)
    edges = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)[1:-1]
    # In the dtype of the probabilities: 0.6 in float32 is above 0.6 in float64.
    bins = torch.bucketize(confidence, edges.to(given).double())
    # n_b times the difference of two means is the difference of two sums.
    gap = confidence - (preds == target).double()
    by_bin = torch.nn.functional.one_hot(bins, n_bins).double().T @ gap
    return by_bin.abs().sum() / len(probs)


def _tensor(values) -> Tensor:
    return values if isinstance(values, Tensor) else torch.tensor(np.asarray(values))


def _classes(name: str, values, num_classes: int) -> Tensor:
    classes = _tensor(values)
    # NumPy reads an empty list as float64.
    whole = not classes.is_floating_point() or not classes.numel()
    fits = classes.ndim == 1 and whole
    require(fits, f"{name} must be one row of integers, got {kind(classes)}")
    low, high = (int(x) for x in classes.aminmax()) if len(classes) else (0, 0)
    fits = low >= 0 and high < num_classes
    require(fits, f"{name} must be in 0..{num_classes - 1}, got {low}..{high}")
    return classes.long()


def _predictions(probs, target) -> tuple[Tensor, Tensor]:
    """Return float64 probabilities and their targets, or raise on logits."""
    given = _tensor(probs)
    probs = given.double()
    fits = probs.ndim == 2 and len(probs) == len(target) > 0
    require(fits, f"probs must be ({len(target)}, num_classes), got {kind(probs)}")
    # Rounding makes each row be off by half a unit in the last place.
    limit = torch.finfo(given.dtype).eps if given.is_floating_point() else 0
    error, low = (probs.sum(1) - 1).abs().max().item(), probs.min().item()
    require(
        error < max(1e-3, limit) and low >= 0,
        "probs must be non-negative with rows that sum to 1 (apply a softmax to "
        f"logits), got a minimum of {low:.3g} and a sum that is off by {error:.3g}",
    )
    return probs, _classes("target", target, probs.shape[1])


def _counts(C) -> Tensor:
    C = _tensor(C)
    fits = C.ndim == 2 and len(C) == C.shape[1] and not C.is_floating_point()
    require(fits, f"C must be a square matrix of counts, got {kind(C)}")
    return C.long()  # sums of small integers would wrap around


def _averaged(values: Tensor, average: str | None) -> Tensor:
    known = average in (None, "macro")
    require(known, f"average must be None or 'macro', got {average!r}")
    return values if average is None else values.mean()


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Divide counts; 0/0 is 0."""
    return part.double() / whole.clamp(min=1)
