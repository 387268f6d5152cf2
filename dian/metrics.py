r"""How good a classifier is: everything from one confusion matrix.

:math:`C_{ij}` counts the items of true class :math:`i` that were predicted as class
:math:`j`. It adds up over batches; the ratios made of it do not, so they are taken
once, from the whole matrix. A ratio 0/0 (a class that is neither present nor
predicted) counts as 0, as in scikit-learn with ``zero_division=0``.
"""

from jaxtyping import Float, Int
from torch import Tensor


def confusion_matrix(
    true: Int[Tensor, "n"], predicted: Int[Tensor, "n"], n_class: int
) -> Int[Tensor, "n_class n_class"]:
    """Count how often each true class (row) was predicted as each class (column).

    Raises
    ------
    ValueError
        If the two differ in length, or hold something that is not a class.

    Examples
    --------
    >>> import torch
    >>> true, predicted = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    >>> confusion_matrix(true, predicted, n_class=2)
    tensor([[1, 1],
            [0, 1]])
    """
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

    >>> import torch
    >>> accuracy(torch.tensor([[3, 1], [0, 4]])).item()
    0.875
    """
    return _ratio(C.trace(), C.sum())


def precision(C: Int[Tensor, "n_class n_class"]) -> Float[Tensor, "n_class"]:
    r"""Return, of those predicted as each class, the share that are of it.

    .. math::

        P_c = \frac{C_{cc}}{\sum_i C_{ic}}

    >>> import torch
    >>> precision(torch.tensor([[3, 1], [0, 4]])).tolist()
    [1.0, 0.8]
    """
    return _ratio(C.diagonal(), C.sum(0))


def recall(C: Int[Tensor, "n_class n_class"]) -> Float[Tensor, "n_class"]:
    r"""Return, of those of each class, the share that was predicted as it.

    .. math::

        R_c = \frac{C_{cc}}{\sum_j C_{cj}}

    >>> import torch
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

    >>> import torch
    >>> f1(torch.tensor([[3, 1], [0, 4]])).tolist()
    [0.857, 0.889]
    """
    return _ratio(2 * C.diagonal(), C.sum(0) + C.sum(1))


def summary(C: Int[Tensor, "n_class n_class"]) -> dict[str, float]:
    """Accuracy, and the unweighted means over all classes (macro) of the other three.

    >>> import torch
    >>> summary(torch.tensor([[3, 1], [0, 4]]))
    {'accuracy': 0.875, 'precision': 0.9, 'recall': 0.875, 'f1': 0.873}
    """
    return {
        "accuracy": accuracy(C).item(),
        "precision": precision(C).mean().item(),
        "recall": recall(C).mean().item(),
        "f1": f1(C).mean().item(),
    }


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Divide counts; 0/0 is 0."""
    return part.double() / whole.clamp(min=1)
