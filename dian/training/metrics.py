r"""How good a classifier is: from one confusion matrix, or from its probabilities.

:math:`C_{ij}` counts the items of true class :math:`i` that were predicted as class
:math:`j`. It adds up over batches; the ratios made of it do not, so they are taken
once, from the whole matrix. A ratio 0/0 (a class that is neither present nor
predicted) counts as 0, as in scikit-learn with ``zero_division=0``.

What a matrix of counts cannot tell, how sure the classifier was, is told by the numbers
at the end: :math:`p_{n, i}` is the probability that it gave to class :math:`i` of item
:math:`n`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def confusion_matrix(
    true: Int[Tensor, "n"], predicted: Int[Tensor, "n"], n_class: int
) -> Int[Tensor, "n_class n_class"]:
    """Count how often each true class (row) was predicted as each class (column).

    Raises
    ------
    ValueError
        If they are not two rows of whole numbers of one length, or hold something that
        is not a class.

    Examples
    --------
    >>> true, predicted = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    >>> confusion_matrix(true, predicted, n_class=2)
    tensor([[1, 1],
            [0, 1]])

    Of many batches: the sum, and no mean of anything.

    >>> C = torch.zeros(2, 2, dtype=torch.long)
    >>> for t, p in zip(true.split(2), predicted.split(2)):
    ...     C += confusion_matrix(t, p, n_class=2)
    >>> C
    tensor([[1, 1],
            [0, 1]])
    """
    for name, classes in (("true", true), ("predicted", predicted)):
        _check_classes(name, classes)
    if true.shape != predicted.shape:
        raise ValueError(
            f"true and predicted must have one length, got {len(true)} and "
            f"{len(predicted)}"
        )
    for name, classes in (("true", true), ("predicted", predicted)):
        if classes.numel() and not (classes.min() >= 0 and classes.max() < n_class):
            raise ValueError(
                f"{name} must lie in 0..{n_class - 1}, "
                f"got {int(classes.min())}..{int(classes.max())}"
            )
    pairs = true.long() * n_class + predicted.long()
    return pairs.bincount(minlength=n_class**2).view(n_class, n_class)


def accuracy(C: Int[Tensor, "n_class n_class"]) -> Float[Tensor, ""]:
    r"""Return the share of all items that were predicted right.

    .. math::

        \frac{\operatorname{tr} C}{\sum_{ij} C_{ij}}

    >>> accuracy(torch.tensor([[3, 1], [0, 4]])).item()
    0.875
    """
    return _ratio(C.trace(), C.sum())


def precision(C: Int[Tensor, "n_class n_class"]) -> Float[Tensor, "n_class"]:
    r"""Return, of those predicted as each class, the share that are of it.

    .. math::

        P_c = \frac{C_{cc}}{\sum_i C_{ic}}

    >>> precision(torch.tensor([[3, 1], [0, 4]])).tolist()
    [1.0, 0.8]
    """
    return _ratio(C.diagonal(), C.sum(0))


def recall(C: Int[Tensor, "n_class n_class"]) -> Float[Tensor, "n_class"]:
    r"""Return, of those of each class, the share that was predicted as it.

    .. math::

        R_c = \frac{C_{cc}}{\sum_j C_{cj}}

    >>> recall(torch.tensor([[3, 1], [0, 4]])).tolist()
    [0.75, 1.0]
    """
    return _ratio(C.diagonal(), C.sum(1))


def f1(C: Int[Tensor, "n_class n_class"]) -> Float[Tensor, "n_class"]:
    r"""Return the harmonic mean of precision and recall of each class.

    .. math::

        F_c = \frac{2 C_{cc}}{\sum_j C_{cj} + \sum_i C_{ic}}

    The macro-F1 of the report is the mean of these over all classes; the F1 of the
    mean precision and the mean recall is another number.

    >>> f1(torch.tensor([[3, 1], [0, 4]])).tolist()
    [0.857, 0.889]
    """
    return _ratio(2 * C.diagonal(), C.sum(0) + C.sum(1))


def balanced_accuracy(C: Int[Tensor, "n_class n_class"]) -> Float[Tensor, ""]:
    """Return the mean recall of the classes that are present.

    Where one is missing it is not the macro recall of :func:`summary`, which counts
    it as 0: what nobody asked for cannot be missed.

    >>> balanced_accuracy(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])).item()
    0.875
    """
    return _ratio(recall(C).sum(), (C.sum(1) > 0).sum())


def summary(C: Int[Tensor, "n_class n_class"]) -> dict[str, float]:
    """Accuracy, and the unweighted means over all classes (macro) of the other three.

    >>> summary(torch.tensor([[3, 1], [0, 4]]))
    {'accuracy': 0.875, 'precision': 0.9, 'recall': 0.875, 'f1': 0.873}
    """
    return {
        "accuracy": accuracy(C).item(),
        "precision": precision(C).mean().item(),
        "recall": recall(C).mean().item(),
        "f1": f1(C).mean().item(),
    }


def top_k_accuracy(
    p: Float[Tensor, "n n_class"], true: Int[Tensor, "n"], k: int
) -> Float[Tensor, ""]:
    """Return the share of items whose class is among the ``k`` most probable ones.

    A tie counts as not known: the class must be ahead of all but ``k - 1`` others.

    >>> p = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    >>> top_k_accuracy(p, torch.tensor([1, 2]), k=2).item()
    0.5
    """
    _check_probabilities(p, true)
    if not 1 <= k <= p.shape[1]:
        raise ValueError(f"k must lie in 1..{p.shape[1]}, got {k}")
    own = p.gather(1, true.unsqueeze(1).long())
    return ((p >= own).sum(1) <= k).double().mean()


def negative_log_likelihood(
    p: Float[Tensor, "n n_class"], true: Int[Tensor, "n"]
) -> Float[Tensor, ""]:
    r"""Return the mean surprise at the true classes, in nats.

    .. math::

        -\frac{1}{N} \sum_n \ln p_{n, y_n}

    It is infinite if one of them was held to be impossible.

    >>> negative_log_likelihood(torch.tensor([[0.5, 0.5]]), torch.tensor([1])).item()
    0.693
    """
    _check_probabilities(p, true)
    return -p.gather(1, true.unsqueeze(1).long()).double().log().mean()


def calibration_error(
    p: Float[Tensor, "n n_class"], true: Int[Tensor, "n"], n_bin: int = 15
) -> Float[Tensor, ""]:
    r"""Return the expected calibration error: how far confidence is from accuracy.

    Items are put into bins by the probability :math:`\hat p` of the predicted class;
    bin :math:`b` holds those with :math:`(b-1)/B < \hat p \le b/B`. Then

    .. math::

        \sum_b \frac{n_b}{N}\, \lvert \text{accuracy}_b -
        \text{mean confidence}_b \rvert .

    Notes
    -----
    Guo et al., *On calibration of modern neural networks*, 2017, arXiv:1706.04599,
    equation 3. The number depends on the bins: state them with it.

    Examples
    --------
    Sure of everything, and right in three of four:

    >>> p = torch.tensor([[1.0, 0.0]] * 4)
    >>> calibration_error(p, torch.tensor([0, 0, 0, 1])).item()
    0.25
    """
    _check_probabilities(p, true)
    if n_bin < 1:
        raise ValueError(f"n_bin must be 1 or more, got {n_bin}")
    confidence, predicted = p.double().max(1)
    edges = torch.linspace(0, 1, n_bin + 1, dtype=torch.float64)[1:-1]
    bins = torch.bucketize(confidence, edges.to(p.device))
    # n_b times the difference of two means is the difference of two sums.
    gap = confidence - (predicted == true).double()
    by_bin = torch.nn.functional.one_hot(bins, n_bin).double().T @ gap
    return by_bin.abs().sum() / len(p)


def _check_probabilities(p: Tensor, true: Tensor) -> None:
    """Refuse logits, labels that are not classes, and what does not fit together."""
    _check_classes("true", true)
    if p.ndim != 2:
        raise ValueError(f"p must be (n, n_class), got {tuple(p.shape)}")
    if len(p) != len(true) or not len(p):
        raise ValueError(
            f"p and true must have one length above 0, got {len(p)} and {len(true)}"
        )
    if not (true.min() >= 0 and true.max() < p.shape[1]):
        raise ValueError(
            f"true must lie in 0..{p.shape[1] - 1}, "
            f"got {int(true.min())}..{int(true.max())}"
        )
    off = (p.double().sum(1) - 1).abs().max().item()
    if not (off < 1e-3 and p.min() >= 0):
        raise ValueError(
            "p must hold probabilities: rows of numbers from 0 that add up to 1; got "
            f"a row that is off by {off:.3g}, and a smallest number of {p.min():.3g}"
        )


def _check_classes(name: str, classes: Tensor) -> None:
    """Refuse what is not a row of whole numbers."""
    if classes.ndim != 1 or classes.is_floating_point() or classes.is_complex():
        raise ValueError(
            f"{name} must be one row of whole numbers, got {classes.dtype} of shape "
            f"{tuple(classes.shape)}"
        )


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Divide counts; 0/0 is 0."""
    if whole.is_floating_point():
        raise ValueError(f"C must hold counts, whole numbers, got {whole.dtype}")
    return part.double() / whole.clamp(min=1)
