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
    smoothing: float = 0.0,
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
    smoothing
        The share :math:`\varepsilon` of each target that is spread evenly over all
        classes: :math:`\ell_n = -\sum_i [(1 - \varepsilon)\, y_{n, i} +
        \varepsilon / C] \log p_{n, i}`.

    Returns
    -------
    loss
        In nats. A guess that knows nothing scores the logarithm of ``n_class``.

    Raises
    ------
    ValueError
        If no position counts, a label that counts is not a class, labels are not whole
        numbers, or ``smoothing`` is not in [0, 1].

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
    _check(logits, labels, mask, smoothing)
    if mask is not None:
        # Chosen first: what is masked may hold any label, and even NaN.
        logits, labels = logits[mask], labels[mask]
    shift = logits.real.amax(-1, keepdim=True)
    normaliser = torch.log(torch.exp(logits - shift).sum(-1)) + shift[..., 0]
    nll = normaliser - _of_target(logits, labels, smoothing)
    return nll.mean()


def cross_entropy_backward(
    logits: Float[Tensor, "*batch n_class"],
    labels: Int[Tensor, "*batch"],
    mask: Bool[Tensor, "*batch"] | None = None,
    smoothing: float = 0.0,
) -> Float[Tensor, "*batch n_class"]:
    r"""Return the gradient of :func:`cross_entropy` by the logits.

    .. math::

        G_n = \frac{\partial L}{\partial o_n} = \frac{m_n}{Z}\,(p_n - y_n),

    with :math:`y_n` the one-hot row of the label, or what smoothing makes of it,
    :math:`(1 - \varepsilon)\, y_n + \varepsilon / C`. Each row sums to zero.

    Examples
    --------
    >>> cross_entropy_backward(torch.zeros(1, 4), torch.tensor([2]))
    tensor([[ 0.2500,  0.2500, -0.7500,  0.2500]])
    """
    _check(logits, labels, mask, smoothing)
    if mask is None:
        mask = torch.ones_like(labels, dtype=torch.bool)
    even = smoothing / logits.shape[-1]
    target = torch.full_like(logits, even)
    index = labels.where(mask, 0).unsqueeze(-1).long()
    target.scatter_(-1, index, 1 - smoothing + even)
    # Chosen, not multiplied by 0: what is masked may be NaN, and has gradient 0.
    gradient = torch.where(mask.unsqueeze(-1), softmax(logits) - target, 0.0)
    return gradient / mask.sum()


def _of_target(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Average each row over its target: the entry of the label, without smoothing."""
    of_label = logits.gather(-1, labels.unsqueeze(-1).long())[..., 0]
    if not smoothing:
        return of_label
    return (1 - smoothing) * of_label + smoothing * logits.mean(-1)


def _check(
    logits: Tensor, labels: Tensor, mask: Tensor | None, smoothing: float
) -> None:
    """Refuse what would otherwise be broadcast, or read out of bounds."""
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must be in [0, 1], got {smoothing}")
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
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be boolean, True where a label counts, got {mask.dtype}"
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels must be whole numbers, got {labels.dtype}")
    counted = labels if mask is None else labels[mask]
    if not counted.numel():
        raise ValueError("no position counts: the batch is empty or all masked")
    low, high = int(counted.min()), int(counted.max())
    if low < 0 or high >= logits.shape[-1]:
        raise ValueError(
            f"labels must lie in 0..{logits.shape[-1] - 1}, got {low}..{high}"
        )
