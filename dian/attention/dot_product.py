r"""Scaled dot-product attention and its backward pass.

Axis names used in this module (the tests check them at run time):

``*batch``
    any leading axes, often ``(batch, head)``;
``n_query``, ``n_key``
    number of queries and of keys (target and source sequence length);
``d_key``, ``d_value``
    dimension of a query or key, and of a value.

Each row is one position: :math:`Q K^\top`, not :math:`Q^\top K`. A bar denotes the
gradient of the loss, :math:`\bar Q = \partial L / \partial Q`.

A ``mask`` is boolean, and ``True`` means that a query **may attend** to a key. It is
not called ``attn_mask``: torch's argument of that name may also be a float tensor that
is added to the scores, which is the ``bias`` here.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dian.attention.softmax import softmax_backward
from dian.errors import require
from dian.numerics import all_finite, apply, backward_of, is_traced, summed_to, widened


@widened
def scaled_dot_product_attention(
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    *,
    mask: Bool[Tensor, "*#batch #n_query #n_key"] | None = None,
    bias: Float[Tensor, "*#batch #n_query #n_key"] | None = None,
    dropout_mask: Float[Tensor, "*#batch n_query n_key"] | None = None,
) -> tuple[
    Float[Tensor, "*batch n_query d_value"], Float[Tensor, "*batch n_query n_key"]
]:
    r"""Compute attention weights and the weighted averages of the values.

    .. math::

        S = \frac{Q K^\top}{\sqrt{d_k}} + B, \qquad
        P = \operatorname{softmax}_\text{row} S, \qquad
        O = (P \odot Z)\, V .

    Parameters
    ----------
    Q, K, V
        Queries, keys and values.
    mask
        ``True`` where query *i* may attend to key *j*. Default: no masking. It is
        ``(n_query, n_key)`` or has as many axes as ``Q``; axes of size 1 are broadcast.
    bias
        The bias :math:`B` of the scores, finite: use ``mask`` to mask out keys. Any
        shape that broadcasts to ``(..., n_query, n_key)``.
    dropout_mask
        The factors :math:`Z` of :func:`dian.training.dropout.dropout_mask`. Default: no
        dropout.

    Returns
    -------
    output
        The weighted averages :math:`O`.
    weights
        The weights :math:`P`, before dropout. Each row sums to one and is exactly zero
        where masked. For a fully masked query weights, output and gradients are zero.

    Raises
    ------
    ValueError
        If a mask is given and ``Q``, ``K`` or ``V`` are not finite: a NaN at a masked
        key would still reach the output, since :math:`0 \cdot \text{NaN}` is NaN.

    Notes
    -----
    Equation 1 of Vaswani et al., *Attention Is All You Need*, 2017, arXiv:1706.03762.
    The paper leaves fully masked queries undefined. The zeros agree with
    :func:`torch.nn.functional.scaled_dot_product_attention`.

    Examples
    --------
    Identical keys receive equal weights:

    >>> import torch
    >>> Q, K, V = torch.ones(1, 4), torch.ones(2, 4), torch.eye(2)
    >>> output, weights = scaled_dot_product_attention(Q, K, V)
    >>> weights
    tensor([[0.5000, 0.5000]])
    """
    Q, K, V = check_inputs(Q, K, V, mask, bias)
    # S = Q K^T / sqrt(d_k) + B; Q is divided, since it is smaller than S
    S = (Q / math.sqrt(Q.shape[-1])) @ K.mT
    if bias is not None:
        S = S + bias
    # Unless autograd needs the scores, the weights overwrite them.
    out = None if S.requires_grad or is_traced() else S
    if mask is None:
        P = torch.softmax(S, -1, out=out)
    else:
        # The lowest finite number instead of -inf: a fully masked row then produces no
        # NaN in the forward or backward pass. The second fill sets it to zero.
        S = S.masked_fill(~mask, torch.finfo(S.dtype).min)
        P = S.softmax(-1).masked_fill(~mask, 0.0)
    return (P if dropout_mask is None else P * dropout_mask) @ V, P


class AttentionGradients(NamedTuple):
    r"""Gradients with respect to the inputs of :func:`scaled_dot_product_attention`."""

    Q: Float[Tensor, "*batch n_query d_key"]
    K: Float[Tensor, "*batch n_key d_key"]
    V: Float[Tensor, "*batch n_key d_value"]
    S: Float[Tensor, "*batch n_query n_key"]
    """Of the scores. Summed over broadcast axes, it is the gradient of the bias."""


@widened
def attention_backward(
    O_bar: Float[Tensor, "*batch n_query d_value"],
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    P: Float[Tensor, "*batch n_query n_key"],
    *,
    dropout_mask: Float[Tensor, "*#batch n_query n_key"] | None = None,
    G: Float[Tensor, "*batch n_query n_key"] | None = None,
) -> AttentionGradients:
    r"""Compute the gradients with respect to queries, keys, values and scores.

    .. math::

        \bar V = (P \odot Z)^\top \bar O, \qquad
        \bar P = (\bar O V^\top) \odot Z + G, \qquad
        \bar S = P \odot (\bar P - D \mathbf 1^\top), \qquad
        D_i = \sum_j \bar P_{ij} P_{ij},

    .. math::

        \bar Q = \frac{\bar S K}{\sqrt{d_k}}, \qquad
        \bar K = \frac{\bar S^\top Q}{\sqrt{d_k}} .

    No mask is needed: the weight of a masked key is zero, and so is its :math:`\bar S`.

    Parameters
    ----------
    O_bar
        The gradient of the loss with respect to the output.
    Q, K, V, dropout_mask
        As in :func:`scaled_dot_product_attention`.
    P
        The weights that it returned.
    G
        The gradient with respect to the weights of a loss that depends on them
        directly, and not only through the output. Default: zero.

    Examples
    --------
    Two identical keys, and a loss that increases with the value of the first:

    >>> Q, K, V = torch.ones(1, 1), torch.ones(2, 1), torch.tensor([[1.0], [0.0]])
    >>> _, P = scaled_dot_product_attention(Q, K, V)
    >>> attention_backward(torch.ones(1, 1), Q, K, V, P).K
    tensor([[ 0.2500],
            [-0.2500]])
    """
    scale = 1 / math.sqrt(Q.shape[-1])
    dropped = P if dropout_mask is None else P * dropout_mask
    # V_bar = (P Z)^T O_bar
    V_bar = dropped.mT @ O_bar
    # P_bar = (O_bar V^T) Z + G
    P_bar = O_bar @ V.mT if dropout_mask is None else (O_bar @ V.mT) * dropout_mask
    if G is not None:
        P_bar = P_bar + G
    # S_bar = P (P_bar - D), D = rowsum(P_bar P)
    S_bar = softmax_backward(P, P_bar)
    # summed over the axes along which an input was broadcast
    return AttentionGradients(
        # Q_bar = S_bar K / sqrt(d_k)
        Q=summed_to(S_bar @ (scale * K), Q.shape),
        # K_bar = S_bar^T Q / sqrt(d_k)
        K=summed_to(S_bar.mT @ (scale * Q), K.shape),
        V=summed_to(V_bar, V.shape),
        S=S_bar,
    )


SCORES_PER_CHUNK = 2**19
"""Number of scores that one step of the backward pass computes on a CPU: few enough to
stay in the cache. Writing all of them to memory takes longer than the products."""


def _plain(Q, K, V, mask, bias) -> tuple[Tensor, Tensor]:
    return scaled_dot_product_attention(Q, K, V, mask=mask, bias=bias)


class _Attention(torch.autograd.Function):
    """The two functions above as one operation of autograd."""

    @staticmethod
    def forward(ctx, Q, K, V, mask, bias):
        O, P = _plain(Q, K, V, mask, bias)  # noqa: E741
        ctx.save_for_backward(Q, K, V, mask, bias, P)
        ctx.options = ()
        ctx.set_materialize_grads(False)
        return O, P

    @staticmethod
    @backward_of(_plain)
    def backward(ctx, O_bar, G):
        Q, K, V, _, bias, P = ctx.saved_tensors
        if O_bar is None:  # the loss depends on the weights alone
            O_bar = V.new_zeros(*Q.shape[:-1], V.shape[-1])
        if ctx.needs_input_grad[4]:  # the gradient of the bias needs all scores
            Q_bar, K_bar, V_bar, S_bar = attention_backward(O_bar, Q, K, V, P, G=G)
            return Q_bar, K_bar, V_bar, None, S_bar.sum_to_size(bias.shape)
        batch = Q.shape[:-2]
        O_bar, Q, K, V, P = map(_one_batch_axis, (O_bar, Q, K, V, P))
        gradients = [torch.empty_like(x) for x in (Q, K, V)]
        for chunk in _chunks(P):
            direct = None if G is None else _one_batch_axis(G)[chunk]
            inputs = (x[chunk] for x in (O_bar, Q, K, V, P))
            of_chunk = attention_backward(*inputs, G=direct)
            for whole, part in zip(gradients, of_chunk[:3], strict=True):
                whole[chunk] = part
        return *(x.view(*batch, *x.shape[1:]) for x in gradients), None, None


@widened
def attention(
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    *,
    mask: Bool[Tensor, "*#batch #n_query #n_key"] | None = None,
    bias: Float[Tensor, "*#batch #n_query #n_key"] | None = None,
    need_weights: bool = False,
):
    r"""Compute attention whose gradients come from :func:`attention_backward`.

    Parameters
    ----------
    Q, K, V, mask, bias
        As in :func:`scaled_dot_product_attention`.
    need_weights
        Whether to return the weights as well. Both are differentiable.

    Returns
    -------
    output
        The weighted averages ``(..., n_query, d_value)``, or a tuple of these and the
        weights ``(..., n_query, n_key)``.

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
    Q, K, V = share_axes(Q, K, V)
    output, weights = apply(_Attention, _plain, Q, K, V, mask, bias)
    return (output, weights) if need_weights else output


def fused_attention(
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    *,
    mask: Bool[Tensor, "*#batch #n_query #n_key"] | None = None,
    bias: Float[Tensor, "*#batch #n_query #n_key"] | None = None,
) -> Float[Tensor, "*batch n_query d_value"]:
    r"""Compute attention with torch's fused kernels, which do not store the weights.

    Parameters
    ----------
    Q, K, V, mask, bias
        As in :func:`scaled_dot_product_attention`.

    Notes
    -----
    Equal to :func:`attention` up to rounding. On a GPU its gradients are not
    deterministic in the last digits, so no recorded run uses it there.

    Examples
    --------
    >>> fused_attention(torch.ones(1, 2), torch.eye(2), torch.eye(2))
    tensor([[0.5000, 0.5000]])
    """
    Q, K, V = check_inputs(Q, K, V, mask, bias)
    added = mask
    if bias is not None:
        added = bias if mask is None else torch.where(mask, bias, -torch.inf)
    return F.scaled_dot_product_attention(Q, K, V, attn_mask=added)


def share_axes(Q: Tensor, K: Tensor, V: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Broadcast the leading axes, or raise an error that names the wrong input."""
    d_query, d_key, n_key, n_value = Q.shape[-1], K.shape[-1], K.shape[-2], V.shape[-2]
    require(d_query == d_key, f"Q and K must share d_key, got {d_query} and {d_key}")
    require(d_key, "d_key must be positive, got 0")
    require(n_key == n_value, f"K and V must share n_key, got {n_key} and {n_value}")
    axes = Q.shape[:-2], K.shape[:-2], V.shape[:-2]
    if axes[0] == axes[1] == axes[2]:
        return Q, K, V
    try:
        batch = torch.broadcast_shapes(*axes)
    except RuntimeError:
        got = ", ".join(str(tuple(x)) for x in axes)
        message = f"Q, K and V must share their leading axes, got {got}"
        raise ValueError(message) from None
    return tuple(x.expand(*batch, *x.shape[-2:]) for x in (Q, K, V))


def check_inputs(
    Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Check the inputs of an attention function; return Q, K and V broadcast."""
    Q, K, V = share_axes(Q, K, V)
    scores = (*Q.shape[:-1], K.shape[-2])
    if bias is not None:
        got = f"got {tuple(bias.shape)}"
        require(_broadcasts(bias, scores), f"bias must broadcast to {scores}, {got}")
        require(all_finite(bias), "bias must be finite (use mask to mask out keys)")
    if mask is None:
        return Q, K, V
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean (True = may attend), got {mask.dtype}")
    got = f"got {tuple(mask.shape)}"
    require(_broadcasts(mask, scores), f"mask must broadcast to {scores}, {got}")
    # With three axes for four of Q, is the first that of the batch or of the heads?
    require(mask.ndim in (2, Q.ndim), f"mask must have 2 or {Q.ndim} axes, as Q, {got}")
    for name, given in zip("QKV", (Q, K, V), strict=True):
        message = f"{name} must be finite if a mask is given: 0 * NaN is NaN"
        require(all_finite(given), message)
    return Q, K, V


def _broadcasts(x: Tensor, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor broadcasts to this shape, and not beyond it."""
    try:
        return torch.broadcast_shapes(x.shape, shape) == shape
    except RuntimeError:
        return False


def _one_batch_axis(x: Tensor) -> Tensor:
    """Flatten all leading axes into one."""
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


def _chunks(P: Tensor) -> list[slice]:
    """Split the first axis into chunks of about :data:`SCORES_PER_CHUNK` scores."""
    n = len(P) if P.is_cuda else SCORES_PER_CHUNK // max(1, P.shape[-2] * P.shape[-1])
    return [slice(i, i + max(1, n)) for i in range(0, len(P), max(1, n))]
