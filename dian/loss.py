r"""The loss of a classifier, and its gradient.

Axis names: ``*batch`` are any leading axes (``(time, batch)`` when there is a label
for every step, ``(batch,)`` when there is one for a whole sequence), ``n_class`` is
the number of classes.
"""

import torch
from jaxtyping import Bool, Float, Inexact, Int
from torch import Tensor


def softmax(
    logits: Inexact[Tensor, "*batch n_class"],
) -> Inexact[Tensor, "*batch n_class"]:
    r"""Turn logits into probabilities, :math:`p_i = e^{o_i} / \sum_j e^{o_j}`.

    The largest logit is subtracted first, which changes nothing and keeps the
    exponential from overflowing.

    >>> softmax(torch.tensor([1000.0, 1000.0]))
    tensor([0.5000, 0.5000])
    """
    shift = logits.real.amax(-1, keepdim=True)
    exponential = torch.exp(logits - shift)
    return exponential / exponential.sum(-1, keepdim=True)


def cross_entropy(
    logits: Inexact[Tensor, "*batch n_class"],
    labels: Int[Tensor, "*batch"],
    mask: Bool[Tensor, "*batch"] | None = None,
) -> Inexact[Tensor, ""]:
    r"""Mean over the unmasked positions of minus the log-probability of the label.

    .. math::

        L = \frac{1}{Z} \sum_n m_n\, \ell_n, \qquad
        \ell_n = -\log p_{n, y_n}, \qquad Z = \sum_n m_n .

    Parameters
    ----------
    logits
        Scores before the softmax, in nats.
    labels
        The right class of each position, from 0 to ``n_class - 1``.
    mask
        ``True`` where a position counts. Default: all do.

    Returns
    -------
    loss
        In nats. A guess that knows nothing scores the logarithm of ``n_class``.

    Raises
    ------
    ValueError
        If no position counts, or a label that counts is not a class.

    Notes
    -----
    The sum over time with the mean over the batch is another loss, larger by the
    number of steps; what is used here is the mean over everything that counts, as in
    :func:`torch.nn.functional.cross_entropy`.

    Examples
    --------
    >>> cross_entropy(torch.zeros(3, 10), torch.tensor([0, 7, 9]))  # log 10
    tensor(2.3026)
    """
    _check(logits, labels, mask)
    shift = logits.real.amax(-1, keepdim=True)
    normaliser = torch.log(torch.exp(logits - shift).sum(-1)) + shift[..., 0]
    if mask is None:
        return (normaliser - _of_label(logits, labels)).mean()
    # A masked position may hold any label: it is not looked up.
    nll = normaliser - _of_label(logits, labels.where(mask, 0))
    return nll[mask].sum() / mask.sum()


def cross_entropy_backward(
    logits: Float[Tensor, "*batch n_class"],
    labels: Int[Tensor, "*batch"],
    mask: Bool[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch n_class"]:
    r"""Return the gradient of :func:`cross_entropy` by the logits.

    .. math::

        G_n = \frac{\partial L}{\partial o_n} = \frac{m_n}{Z}\,(p_n - y_n),

    with :math:`y_n` the one-hot row of the label. Each row sums to zero.

    Examples
    --------
    >>> cross_entropy_backward(torch.zeros(1, 4), torch.tensor([2]))
    tensor([[ 0.2500,  0.2500, -0.7500,  0.2500]])
    """
    _check(logits, labels, mask)
    if mask is None:
        mask = torch.ones_like(labels, dtype=torch.bool)
    one_hot = torch.zeros_like(logits)
    one_hot.scatter_(-1, labels.where(mask, 0).unsqueeze(-1).long(), 1.0)
    return mask.unsqueeze(-1) * (softmax(logits) - one_hot) / mask.sum()


def _of_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Pick from each row the entry of its label."""
    return logits.gather(-1, labels.unsqueeze(-1).long())[..., 0]


def _check(logits: Tensor, labels: Tensor, mask: Tensor | None) -> None:
    """Refuse what would otherwise be broadcast, or read out of bounds."""
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels must have shape {tuple(logits.shape[:-1])}, one for each row of "
            f"logits, got {tuple(labels.shape)}"
        )
    if mask is not None and mask.shape != labels.shape:
        raise ValueError(
            f"mask must have the shape {tuple(labels.shape)} of labels, "
            f"got {tuple(mask.shape)}"
        )
    counted = labels if mask is None else labels[mask]
    if not counted.numel():
        raise ValueError("no position counts: the batch is empty or all masked")
    low, high = int(counted.min()), int(counted.max())
    if low < 0 or high >= logits.shape[-1]:
        raise ValueError(
            f"labels must lie in 0..{logits.shape[-1] - 1}, got {low}..{high}"
        )
