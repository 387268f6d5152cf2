r"""Memory-efficient attention: an online softmax over blocks of keys.

The softmax of a row of scores needs the maximum and a sum over all keys. The online
softmax updates both, and the weighted sum of the values, one block of keys at a time
(:class:`SoftmaxState`), so that no tensor has ``n_query * n_key`` entries.

Axis names as in :mod:`dian.attention.dot_product`; ``block`` is a number of keys.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dian.attention.dot_product import (
    check_inputs,
    scaled_dot_product_attention,
    share_axes,
)
from dian.errors import require_whole
from dian.numerics import apply, backward_of, summed_to, widened


class SoftmaxState(NamedTuple):
    r"""The running maximum and sums of the online softmax, for each query."""

    m: Float[Tensor, "*batch n_query"]
    """The maximum of the scores so far."""
    l: Float[Tensor, "*batch n_query"]  # noqa: E741
    r"""The normalizer so far, :math:`\sum_j e^{s_j - m}`."""
    o: Float[Tensor, "*batch n_query d_value"]
    r"""The unnormalized output so far, :math:`\sum_j e^{s_j - m} v_j`."""


def empty_state(
    Q: Float[Tensor, "*batch n_query d_key"], V: Float[Tensor, "*batch n_key d_value"]
) -> SoftmaxState:
    r"""Return the state before the first key, :math:`(-\infty, 0, 0)`."""
    m = Q.new_full(Q.shape[:-1], -torch.inf)
    return SoftmaxState(m, torch.zeros_like(m), Q.new_zeros(*m.shape, V.shape[-1]))


@widened
def block_state(
    S: Float[Tensor, "*batch n_query block"], V: Float[Tensor, "*batch block d_value"]
) -> SoftmaxState:
    r"""Return the state after a single block of keys.

    .. math::

        m = \max_j s_j, \qquad l = \sum_j e^{s_j - m}, \qquad
        o = \sum_j e^{s_j - m}\, v_j

    Parameters
    ----------
    S
        The scores of the block; :math:`-\infty` where masked.
    V
        The values of the block.

    Examples
    --------
    >>> block_state(torch.tensor([[5.0, 5.0]]), torch.tensor([[1.0], [3.0]]))
    SoftmaxState(m=tensor([5.]), l=tensor([2.]), o=tensor([[4.]]))
    """
    m = S.amax(-1)
    E = torch.exp(S - _zero_if_infinite(m).unsqueeze(-1))
    return SoftmaxState(m, E.sum(-1), E @ V)


@widened
def merge_states(a: SoftmaxState, b: SoftmaxState) -> SoftmaxState:
    r"""Return the state after the keys of both, by rescaling to a common maximum.

    .. math::

        m = \max(m_a, m_b), \qquad
        l = l_a e^{m_a - m} + l_b e^{m_b - m}, \qquad
        o = o_a e^{m_a - m} + o_b e^{m_b - m} .

    The operation is associative and commutative, and :func:`empty_state` is its
    identity element.

    Examples
    --------
    >>> V = torch.tensor([[1.0], [3.0]])
    >>> a, b = (block_state(torch.tensor([[5.0]]), V[j : j + 1]) for j in (0, 1))
    >>> merge_states(a, b)
    SoftmaxState(m=tensor([5.]), l=tensor([2.]), o=tensor([[4.]]))
    """
    m = torch.maximum(a.m, b.m)
    # If both are empty, -inf - (-inf) would be NaN.
    scale_a, scale_b = (torch.exp(x.m - _zero_if_infinite(m)) for x in (a, b))
    return SoftmaxState(
        m,
        a.l * scale_a + b.l * scale_b,
        a.o * scale_a.unsqueeze(-1) + b.o * scale_b.unsqueeze(-1),
    )


class BlockwiseOutput(NamedTuple):
    r"""The result of :func:`blockwise_attention`."""

    output: Float[Tensor, "*batch n_query d_value"]
    """Equal to that of :func:`.scaled_dot_product_attention` up to rounding."""
    log_sum: Float[Tensor, "*batch n_query"]
    r"""The logarithm of the sum of exponentials of the scores, :math:`m + \ln l`, from
    which the backward pass recomputes the weights. For a fully masked query it is
    :math:`-\infty`."""


@widened
def blockwise_attention(
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    *,
    mask: Bool[Tensor, "*#batch #n_query #n_key"] | None = None,
    bias: Float[Tensor, "*#batch #n_query #n_key"] | None = None,
    block: int = 64,
) -> BlockwiseOutput:
    r"""Compute attention one block of keys at a time, without storing all weights.

    Parameters
    ----------
    Q, K, V, mask, bias
        As in :func:`dian.attention.dot_product.scaled_dot_product_attention`.
    block
        Number of keys in a block.

    Notes
    -----
    Milakov and Gimelshein, *Online normalizer calculation for softmax*, 2018,
    arXiv:1805.02867, algorithm 3, with the values of Rabe and Staats, *Self-attention
    does not need O(n²) memory*, 2021, arXiv:2112.05682. Autograd would store every
    block: differentiate :func:`online_attention` instead.

    Examples
    --------
    >>> Q, K, V = torch.zeros(1, 1), torch.ones(4, 1), torch.arange(4.0).view(4, 1)
    >>> output, log_sum = blockwise_attention(Q, K, V, block=3)
    >>> output, log_sum.exp()
    (tensor([[1.5000]]), tensor([4.]))
    """
    require_whole("block", block, 1)
    Q, K, V = check_inputs(Q, K, V, mask, bias)
    state = empty_state(Q, V)
    for keys in _blocks(K.shape[-2], block):
        S = _scores(Q, K, mask, bias, keys)
        state = merge_states(state, block_state(S, V[..., keys, :]))
    fully_masked = state.l == 0
    output = state.o / state.l.masked_fill(fully_masked, 1.0).unsqueeze(-1)
    return BlockwiseOutput(output, state.m + state.l.log())


class BlockwiseGradients(NamedTuple):
    r"""Gradients with respect to the inputs of :func:`blockwise_attention`."""

    Q: Float[Tensor, "*batch n_query d_key"]
    K: Float[Tensor, "*batch n_key d_key"]
    V: Float[Tensor, "*batch n_key d_value"]
    B: Tensor | None
    """Of the bias, in its shape: summed over the axes along which it was broadcast."""


@widened
def blockwise_backward(
    O_bar: Float[Tensor, "*batch n_query d_value"],
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    forward: BlockwiseOutput,
    *,
    mask: Bool[Tensor, "*#batch #n_query #n_key"] | None = None,
    bias: Float[Tensor, "*#batch #n_query #n_key"] | None = None,
    block: int = 64,
) -> BlockwiseGradients:
    r"""Compute the gradients block by block, recomputing the weights of each block.

    .. math::

        P_{ij} = e^{s_{ij} - \text{lse}_i}, \qquad
        D_i = \sum_c \bar O_{ic} O_{ic}, \qquad
        \bar S = P \odot (\bar O V^\top - D \mathbf 1^\top) .

    This form of :math:`D` needs no weights, so it is known before the first block.

    Parameters
    ----------
    O_bar
        The gradient of the loss with respect to the output.
    Q, K, V, mask, bias
        As in :func:`blockwise_attention`.
    forward
        What it returned; :math:`\text{lse}` is its ``log_sum``.
    block
        Number of keys in a block; may differ from that of the forward pass.

    Notes
    -----
    Algorithm 4 (appendix B) of Dao et al., *FlashAttention*, 2022, arXiv:2205.14135.
    """
    shapes = Q.shape, K.shape, V.shape
    Q, K, V = share_axes(Q, K, V)
    scale = 1 / math.sqrt(Q.shape[-1])
    # D = rowsum(O_bar O)
    D = (O_bar * forward.output).sum(-1, keepdim=True)
    log_sum = _zero_if_infinite(forward.log_sum).unsqueeze(-1)
    Q_bar, K_bar, V_bar = map(torch.zeros_like, (Q, K, V))
    B_bar = None if bias is None else torch.zeros_like(bias)
    for keys in _blocks(K.shape[-2], block):
        K_b, V_b = K[..., keys, :], V[..., keys, :]
        # P = exp(S - lse)
        P = torch.exp(_scores(Q, K, mask, bias, keys) - log_sum)
        # S_bar = P (O_bar V^T - D)
        S_bar = P * (O_bar @ V_b.mT - D)
        # Q_bar = sum over the blocks of S_bar K / sqrt(d_k)
        Q_bar += S_bar @ (scale * K_b)
        # K_bar = S_bar^T Q / sqrt(d_k), V_bar = P^T O_bar: one block of rows
        K_bar[..., keys, :] = S_bar.mT @ (scale * Q)
        V_bar[..., keys, :] = P.mT @ O_bar
        # B_bar = S_bar, summed over the axes along which the bias was broadcast
        if bias is not None:
            own = B_bar if bias.shape[-1] == 1 else B_bar[..., keys]
            own += S_bar.sum_to_size(own.shape)
    sums = map(summed_to, (Q_bar, K_bar, V_bar), shapes)
    return BlockwiseGradients(*sums, B_bar)


def _plain(Q, K, V, mask, bias, block) -> Tensor:
    return scaled_dot_product_attention(Q, K, V, mask=mask, bias=bias)[0]


class _BlockwiseAttention(torch.autograd.Function):
    """The two functions above as one operation of autograd."""

    @staticmethod
    def forward(ctx, Q, K, V, mask, bias, block):
        found = blockwise_attention(Q, K, V, mask=mask, bias=bias, block=block)
        ctx.save_for_backward(Q, K, V, mask, bias, *found)
        ctx.options = (block,)
        return found.output

    @staticmethod
    @backward_of(_plain)
    def backward(ctx, O_bar):
        Q, K, V, mask, bias, *found = ctx.saved_tensors
        options = {"mask": mask, "bias": bias, "block": ctx.options[0]}
        forward = BlockwiseOutput(*found)
        back = blockwise_backward(O_bar, Q, K, V, forward, **options)
        return back.Q, back.K, back.V, None, back.B, None


@widened
def online_attention(
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    *,
    mask: Bool[Tensor, "*#batch #n_query #n_key"] | None = None,
    bias: Float[Tensor, "*#batch #n_query #n_key"] | None = None,
    block: int = 64,
) -> Float[Tensor, "*batch n_query d_value"]:
    r"""Compute attention in blocks; gradients come from :func:`blockwise_backward`.

    Parameters
    ----------
    Q, K, V, mask, bias, block
        As in :func:`blockwise_attention`.

    Notes
    -----
    Gradients of gradients, ``torch.compile`` and ``torch.func`` store all weights.

    Examples
    --------
    >>> Q = torch.zeros(1, 2, requires_grad=True)
    >>> online_attention(Q, torch.eye(2), torch.tensor([[0.0], [4.0]])).backward()
    >>> Q.grad
    tensor([[-0.7071,  0.7071]])
    """
    Q, K, V = share_axes(Q, K, V)
    return apply(_BlockwiseAttention, _plain, Q, K, V, mask, bias, block)


def _blocks(n_key: int, block: int) -> list[slice]:
    """Split the keys into blocks; the last may be smaller."""
    return [slice(j, min(j + block, n_key)) for j in range(0, n_key, block)]


def _scores(
    Q: Tensor, K: Tensor, mask: Tensor | None, bias: Tensor | None, keys: slice
) -> Tensor:
    """Return the scores of one block of keys, minus infinity where masked."""
    S = (Q / math.sqrt(Q.shape[-1])) @ K[..., keys, :].mT
    whole = (*Q.shape[:-1], K.shape[-2])
    if bias is not None:
        S = S + bias.expand(whole)[..., keys]
    if mask is not None:
        S = S.masked_fill(~mask.expand(whole)[..., keys], -torch.inf)
    return S


def _zero_if_infinite(m: Tensor) -> Tensor:
    """Replace minus infinity by 0, so that a difference from it is not NaN."""
    return m.masked_fill(m.isneginf(), 0.0)
