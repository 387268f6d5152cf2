r"""Softmax, cross-entropy and its gradient.

Axis names: ``*batch`` are any leading axes: ``(time, batch)`` with a target at every
step, ``(batch,)`` with one per sequence; ``num_classes`` is the number of classes.
"""

import torch
from jaxtyping import Bool, Float, Inexact, Int
from torch import Tensor

from dian.errors import kind, require
from dian.numerics import widened


@widened
def softmax(
    logits: Inexact[Tensor, "*batch num_classes"],
) -> Inexact[Tensor, "*batch num_classes"]:
    r"""Return probabilities, :math:`p_i = e^{o_i} / \sum_j e^{o_j}`.

    The largest logit is subtracted first, which does not change the result and avoids
    overflow.

    >>> softmax(torch.tensor([1000.0, 1000.0]))
    tensor([0.5000, 0.5000])
    """
    shift = logits.real.amax(-1, keepdim=True)
    exponential = torch.exp(logits - shift)
    return exponential / exponential.sum(-1, keepdim=True)


@widened
def cross_entropy(
    logits: Inexact[Tensor, "*batch num_classes"],
    target: Int[Tensor, "*batch"],
    mask: Bool[Tensor, "*batch"] | None = None,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> Inexact[Tensor, ""]:
    r"""Return the mean negative log-probability of the target classes, in nats.

    .. math::

        L = \frac{1}{Z} \sum_n m_n\, \ell_n, \qquad
        \ell_n = -\log p_{n, y_n}, \qquad Z = \sum_n m_n .

    Parameters
    ----------
    logits
        Unnormalized log-probabilities.
    target
        The class of each position, from 0 to ``num_classes - 1``.
    mask
        ``True`` where a position counts. Default: all positions count.
    label_smoothing
        The weight :math:`\varepsilon` of the uniform distribution in the target
        distribution: :math:`\ell_n = -\sum_i [(1 - \varepsilon)\, y_{n, i} +
        \varepsilon / C] \log p_{n, i}`.
    ignore_index
        A value of ``target`` that masks its position.

    Notes
    -----
    The mean is over all positions that count, as in
    :func:`torch.nn.functional.cross_entropy`, whose ``ignore_index`` is -100 by
    default. A uniform prediction has a loss of :math:`\ln` ``num_classes``.

    Examples
    --------
    >>> cross_entropy(torch.zeros(3, 10), torch.tensor([0, 7, 9]))  # log 10
    tensor(2.3026)
    """
    mask = _counted(logits, target, mask, label_smoothing, ignore_index)
    if mask is not None:
        # Selected first: masked positions may have any target, and even NaN as logits.
        logits, target = logits[mask], target[mask]
    shift = logits.real.amax(-1, keepdim=True)
    log_normalizer = torch.log(torch.exp(logits - shift).sum(-1)) + shift[..., 0]
    of_target = logits.gather(-1, target.unsqueeze(-1).long())[..., 0]
    if label_smoothing:
        uniform = logits.mean(-1)
        of_target = (1 - label_smoothing) * of_target + label_smoothing * uniform
    nll = log_normalizer - of_target
    return nll.mean()


@widened
def cross_entropy_backward(
    logits: Float[Tensor, "*batch num_classes"],
    target: Int[Tensor, "*batch"],
    mask: Bool[Tensor, "*batch"] | None = None,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> Float[Tensor, "*batch num_classes"]:
    r"""Return the gradient of :func:`cross_entropy` with respect to the logits.

    .. math::

        G_n = \frac{\partial L}{\partial o_n} = \frac{m_n}{Z}\,(p_n - y_n),

    where :math:`y_n` is the one-hot target or, with label smoothing,
    :math:`(1 - \varepsilon)\, y_n + \varepsilon / C`. Each row sums to zero.

    Examples
    --------
    >>> cross_entropy_backward(torch.zeros(1, 4), torch.tensor([2]))
    tensor([[ 0.2500,  0.2500, -0.7500,  0.2500]])
    """
    mask = _counted(logits, target, mask, label_smoothing, ignore_index)
    if mask is None:
        mask = torch.ones_like(target, dtype=torch.bool)
    even = label_smoothing / logits.shape[-1]
    y = torch.full_like(logits, even)
    index = target.where(mask, 0).unsqueeze(-1).long()
    y.scatter_(-1, index, 1 - label_smoothing + even)
    # Selected, not multiplied by 0: masked logits may be NaN.
    gradient = torch.where(mask.unsqueeze(-1), softmax(logits) - y, 0.0)
    return gradient / mask.sum()


def _counted(logits, target, mask, label_smoothing, ignore_index) -> Tensor | None:
    """Return the mask of the positions that count, or raise on wrong arguments."""
    fits = 0 <= label_smoothing <= 1
    require(fits, f"label_smoothing must be in [0, 1], got {label_smoothing}")
    shape, num_classes = tuple(logits.shape[:-1]), logits.shape[-1]
    fits = target.shape == shape and not target.is_floating_point()
    require(fits, f"target must be integers of shape {shape}, got {kind(target)}")
    if mask is not None:
        fits = mask.shape == shape and mask.dtype == torch.bool
        require(fits, f"mask must be booleans of shape {shape}, got {kind(mask)}")
    if ignore_index is not None:
        kept = target.long() != ignore_index
        mask = kept if mask is None else mask & kept
    counted = target if mask is None else target[mask]
    require(counted.numel(), "no position counts: the batch is empty or all masked")
    low, high = int(counted.min()), int(counted.max())
    fits = low >= 0 and high < num_classes
    require(fits, f"target must be in 0..{num_classes - 1}, got {low}..{high}")
    return mask
