r"""Attention: a soft, differentiable look-up of values by key, and its way back.

Axis names used in this module (the tests check them at run time):

``*batch``
    any leading axes, often ``(batch, head)``;
``n_query``, ``n_key``
    positions that ask, and positions that are asked;
``d_key``, ``d_value``
    features of one query or key, and of one value.

Every row is one position: :math:`Q K^\top` and not :math:`Q^\top K`. A bar marks the
gradient of the loss, :math:`\bar Q = \partial L / \partial Q`.

In every mask, ``True`` means that a query **may** read a key.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dian.attention.softmax import softmax_backward


def scaled_dot_product_attention(
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    mask: Bool[Tensor, "*#batch #n_query #n_key"] | None = None,
    bias: Float[Tensor, "*#batch #n_query #n_key"] | None = None,
    Z: Float[Tensor, "*#batch n_query n_key"] | None = None,
) -> tuple[
    Float[Tensor, "*batch n_query d_value"], Float[Tensor, "*batch n_query n_key"]
]:
    r"""Average the values, weighting each by how well its key matches the query.

    .. math::

        S = \frac{Q K^\top}{\sqrt{d_k}} + B, \qquad
        P = \operatorname{softmax}_\text{row} S, \qquad
        O = P V .

    Parameters
    ----------
    Q, K, V
        What each position looks for, what it offers to be found by, and what is read
        when it is found.
    mask
        ``True`` where query *i* **may** read key *j*. Default: every pair may. Anything
        that broadcasts to ``(..., n_query, n_key)``.
    bias
        The :math:`B` that is added to the scores, finite. What must not be read is a
        matter of the mask.
    Z
        What dropout leaves of each weight, :math:`O = (P \odot Z) V`; drawn by
        :func:`~dian.training.dropout.dropout_mask`.

    Returns
    -------
    output
        The weighted averages :math:`O`.
    weights
        The weights :math:`P`, before dropout. Each row sums to one, and is exactly zero
        where masked. A query that may read nothing has a row of zeros, an output of
        zeros, and gradients of zero.

    Raises
    ------
    TypeError
        If ``mask`` is not boolean.
    ValueError
        If shapes do not fit, ``bias`` is not finite, or a mask is given and ``Q``,
        ``K`` or ``V`` are not finite: a weight of zero does not hide a NaN.

    Notes
    -----
    Equation 1 of Vaswani et al., *Attention Is All You Need*, 2017, arXiv:1706.03762.
    The paper does not say what a query returns that may read nothing. The zeros are our
    choice, and that of :func:`torch.nn.functional.scaled_dot_product_attention`.

    Examples
    --------
    Two equal keys share the attention, whatever their values:

    >>> import torch
    >>> Q, K, V = torch.ones(1, 4), torch.ones(2, 4), torch.eye(2)
    >>> output, weights = scaled_dot_product_attention(Q, K, V)
    >>> weights
    tensor([[0.5000, 0.5000]])
    """
    _check(Q, K, V, mask, bias)
    # S = Q K^T / sqrt(d_k) + B: divided where there is less to divide
    S = (Q / math.sqrt(Q.shape[-1])) @ K.mT
    if bias is not None:
        S = S + bias
    # The scores are not needed any more, unless autograd goes back through them.
    place = None if S.requires_grad else S
    if mask is None:
        P = torch.softmax(S, -1, out=place)
    else:
        # The lowest finite number and not -inf: a row that is masked as a whole stays
        # free of NaN, forward and back. The second fill makes it zero.
        S = S.masked_fill(~mask, torch.finfo(S.dtype).min)
        P = S.softmax(-1).masked_fill(~mask, 0.0)
    return (P if Z is None else P * Z) @ V, P


class AttentionGradients(NamedTuple):
    r"""The gradients by what :func:`scaled_dot_product_attention` was given."""

    Q: Float[Tensor, "*batch n_query d_key"]
    K: Float[Tensor, "*batch n_key d_key"]
    V: Float[Tensor, "*batch n_key d_value"]
    S: Float[Tensor, "*batch n_query n_key"]
    """By the scores. A bias gets it, summed over the axes along which it was spread."""


def attention_backward(
    O_bar: Float[Tensor, "*batch n_query d_value"],
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    P: Float[Tensor, "*batch n_query n_key"],
    Z: Float[Tensor, "*#batch n_query n_key"] | None = None,
    G: Float[Tensor, "*batch n_query n_key"] | None = None,
) -> AttentionGradients:
    r"""Go back from the gradient by the output to those by queries, keys and values.

    .. math::

        \bar V = (P \odot Z)^\top \bar O, \qquad
        \bar P = (\bar O V^\top) \odot Z + G, \qquad
        \bar S = P \odot (\bar P - D \mathbf 1^\top), \qquad
        D_i = \sum_j \bar P_{ij} P_{ij},

    .. math::

        \bar Q = \frac{\bar S K}{\sqrt{d_k}}, \qquad
        \bar K = \frac{\bar S^\top Q}{\sqrt{d_k}} .

    No mask is needed: where it hides a key the weight is zero, and with it
    :math:`\bar S`.

    Parameters
    ----------
    O_bar
        The gradient of the loss by the output.
    Q, K, V, Z
        As given to :func:`scaled_dot_product_attention`.
    P
        The weights that it returned.
    G
        What reaches the weights :math:`P` directly, when a loss reads them. ``None``
        means zero.

    Examples
    --------
    Of two equal keys, the one whose value is wanted more has to be found more often:

    >>> Q, K, V = torch.ones(1, 1), torch.ones(2, 1), torch.tensor([[1.0], [0.0]])
    >>> _, P = scaled_dot_product_attention(Q, K, V)
    >>> attention_backward(torch.ones(1, 1), Q, K, V, P).K
    tensor([[ 0.2500],
            [-0.2500]])
    """
    scale = 1 / math.sqrt(Q.shape[-1])
    dropped = P if Z is None else P * Z
    # V_bar = (P Z)^T O_bar
    V_bar = dropped.mT @ O_bar
    # P_bar = (O_bar V^T) Z + G
    P_bar = O_bar @ V.mT if Z is None else (O_bar @ V.mT) * Z
    if G is not None:
        P_bar = P_bar + G
    # S_bar = P (P_bar - D), D = rowsum(P_bar P)
    S_bar = softmax_backward(P, P_bar)
    return AttentionGradients(
        # Q_bar = S_bar K / sqrt(d_k)
        Q=S_bar @ (scale * K),
        # K_bar = S_bar^T Q / sqrt(d_k)
        K=S_bar.mT @ (scale * Q),
        V=V_bar,
        S=S_bar,
    )


SCORES = 2**19
"""Scores that go back together on a CPU: few enough to stay near the processor until
all is done with them. Written to memory as a whole, they would take longer than the
products of matrices."""


class _Attention(torch.autograd.Function):
    """The two functions above, where autograd can see them."""

    @staticmethod
    def forward(ctx, Q, K, V, mask, bias):
        O, P = scaled_dot_product_attention(Q, K, V, mask, bias)  # noqa: E741
        ctx.save_for_backward(Q, K, V, P)
        ctx.of_bias = None if bias is None else bias.shape
        ctx.set_materialize_grads(False)
        return O, P

    @staticmethod
    @once_differentiable
    def backward(ctx, O_bar, G):
        Q, K, V, P = ctx.saved_tensors
        if O_bar is None:  # the loss reads the weights alone
            O_bar = V.new_zeros(*Q.shape[:-1], V.shape[-1])
        if ctx.needs_input_grad[4]:  # the bias takes all scores
            Q_bar, K_bar, V_bar, S_bar = attention_backward(O_bar, Q, K, V, P, G=G)
            return Q_bar, K_bar, V_bar, None, S_bar.sum_to_size(ctx.of_bias)
        O_bar, Q, K, V, P = map(_heads, (O_bar, Q, K, V, P))
        found = [torch.empty_like(x) for x in (Q, K, V)]
        for part in _parts(P):
            direct = None if G is None else _heads(G)[part]
            inputs = (x[part] for x in (O_bar, Q, K, V, P))
            back = attention_backward(*inputs, G=direct)
            for whole, x in zip(found, back[:3], strict=True):
                whole[part] = x
        batch = ctx.saved_tensors[0].shape[:-2]
        return *(x.view(*batch, *x.shape[1:]) for x in found), None, None


def attention_with_weights(
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    mask: Bool[Tensor, "*#batch #n_query #n_key"] | None = None,
    bias: Float[Tensor, "*#batch #n_query #n_key"] | None = None,
) -> tuple[
    Float[Tensor, "*batch n_query d_value"], Float[Tensor, "*batch n_query n_key"]
]:
    r"""Attend, and return the weights, too; both send back gradients.

    Parameters
    ----------
    Q, K, V, mask, bias
        As in :func:`scaled_dot_product_attention`.

    Returns
    -------
    output, weights
        As of :func:`scaled_dot_product_attention`; the gradients come from
        :func:`attention_backward`.

    Examples
    --------
    A loss that reads a weight:

    >>> Q = torch.zeros(1, 1, requires_grad=True)
    >>> K = V = torch.tensor([[0.0], [1.0]])
    >>> _, P = attention_with_weights(Q, K, V)
    >>> P[0, 1].backward()
    >>> Q.grad
    tensor([[0.2500]])
    """
    return _Attention.apply(Q, K, V, mask, bias)


def attention(
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    mask: Bool[Tensor, "*#batch #n_query #n_key"] | None = None,
    bias: Float[Tensor, "*#batch #n_query #n_key"] | None = None,
) -> Float[Tensor, "*batch n_query d_value"]:
    r"""Attend; gradients come from :func:`attention_backward`.

    Parameters
    ----------
    Q, K, V, mask, bias
        As in :func:`scaled_dot_product_attention`.

    Returns
    -------
    output
        The weighted averages. The weights are not returned.

    Examples
    --------
    >>> Q, V = torch.zeros(1, 2, requires_grad=True), torch.tensor([[0.0], [4.0]])
    >>> output = attention(Q, torch.eye(2), V)
    >>> output.item()
    2.0
    >>> output.backward()
    >>> Q.grad
    tensor([[-0.7071,  0.7071]])
    """
    return attention_with_weights(Q, K, V, mask, bias)[0]


def fused_attention(
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    mask: Bool[Tensor, "*#batch #n_query #n_key"] | None = None,
    bias: Float[Tensor, "*#batch #n_query #n_key"] | None = None,
) -> Float[Tensor, "*batch n_query d_value"]:
    r"""Attend with torch's fused kernel, which never writes the weights down.

    Parameters
    ----------
    Q, K, V, mask, bias
        As in :func:`scaled_dot_product_attention`.

    Notes
    -----
    The same numbers as :func:`attention`, but for rounding. On a GPU its gradients
    differ from run to run in the last digit, so no recorded run takes it there.

    Examples
    --------
    >>> fused_attention(torch.ones(1, 2), torch.eye(2), torch.eye(2))
    tensor([[0.5000, 0.5000]])
    """
    _check(Q, K, V, mask, bias)
    added = mask
    if bias is not None:
        added = bias if mask is None else torch.where(mask, bias, -torch.inf)
    return F.scaled_dot_product_attention(Q, K, V, attn_mask=added)


def _heads(x: Tensor) -> Tensor:
    """Make all leading axes one."""
    return x.reshape(-1, *x.shape[-2:])


def _parts(P: Tensor) -> list[slice]:
    """Cut the heads into parts of some :data:`SCORES` scores."""
    n = len(P) if P.is_cuda else SCORES // max(1, P.shape[-2] * P.shape[-1])
    return [slice(i, i + max(1, n)) for i in range(0, len(P), max(1, n))]


def _check(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None, bias: Tensor | None):
    """Name what does not fit."""
    if Q.shape[-1] != K.shape[-1]:
        raise ValueError(
            f"Q and K must share d_key, got {Q.shape[-1]} and {K.shape[-1]}"
        )
    if K.shape[-2] != V.shape[-2]:
        raise ValueError(
            f"K and V must share n_key, got {K.shape[-2]} and {V.shape[-2]}"
        )
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(
            f"mask must be boolean, True where a query may read a key, got {mask.dtype}"
        )
    scores = (*Q.shape[:-1], K.shape[-2])
    for name, given in (("mask", mask), ("bias", bias)):
        if given is not None and not _spreads(given.shape, scores):
            raise ValueError(
                f"{name} must broadcast to (..., n_query, n_key), here {scores}, got "
                f"{tuple(given.shape)}"
            )
    if bias is not None and not _finite(bias):
        raise ValueError(
            "bias must be finite, got NaN or infinity; hide keys by the mask"
        )
    for name, given in zip("QKV", (Q, K, V), strict=True):
        if mask is not None and not _finite(given):
            raise ValueError(
                f"{name} must be finite where a mask is given, got NaN or infinity; a "
                "weight of 0 does not hide it"
            )


def _spreads(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Tell whether a shape broadcasts to another, and to no larger one."""
    try:
        return torch.broadcast_shapes(shape, to) == to
    except RuntimeError:
        return False


def _finite(x: Tensor) -> bool:
    """Tell whether all entries are finite; a sum that is has no part that is not."""
    return bool(x.detach().sum().isfinite()) or bool(x.isfinite().all())
