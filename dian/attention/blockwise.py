r"""Attention that never holds all weights: the softmax taken block by block.

The axes are named as in :mod:`dian.attention`; ``block`` are some of the keys.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable


class State(NamedTuple):
    r"""What is known of each query after some of the keys."""

    m: Float[Tensor, "*batch n_query"]
    """The largest score so far."""
    l: Float[Tensor, "*batch n_query"]  # noqa: E741
    r"""The sum :math:`\sum_j e^{s_j - m}`."""
    o: Float[Tensor, "*batch n_query d_value"]
    r"""The sum :math:`\sum_j e^{s_j - m} v_j`."""


def empty_state(
    shape: tuple[int, ...], d_value: int, like: Float[Tensor, "..."]
) -> State:
    r"""Return the state before any key, :math:`(-\infty, 0, 0)`.

    Parameters
    ----------
    shape
        Of the queries, ``(*batch, n_query)``.
    d_value
        Features of one value.
    like
        A tensor of the type and the device that are wanted.
    """
    return State(
        like.new_full(shape, -torch.inf),
        like.new_zeros(shape),
        like.new_zeros(*shape, d_value),
    )


def block_state(
    S: Float[Tensor, "*batch n_query block"], V: Float[Tensor, "*batch block d_value"]
) -> State:
    r"""Return the state of one block of keys alone.

    .. math::

        m = \max_j s_j, \qquad l = \sum_j e^{s_j - m}, \qquad
        o = \sum_j e^{s_j - m}\, v_j

    Parameters
    ----------
    S
        The scores; :math:`-\infty` where a query may not read a key.
    V
        The values.

    Examples
    --------
    >>> block_state(torch.tensor([[5.0, 5.0]]), torch.tensor([[1.0], [3.0]]))
    State(m=tensor([5.]), l=tensor([2.]), o=tensor([[4.]]))
    """
    m = S.amax(-1)
    E = torch.exp(S - _finite(m).unsqueeze(-1))
    return State(m, E.sum(-1), E @ V)


def merge(a: State, b: State) -> State:
    r"""Put two states together, as if their keys had come in one block.

    .. math::

        m = \max(m_a, m_b), \qquad
        l = l_a e^{m_a - m} + l_b e^{m_b - m}, \qquad
        o = o_a e^{m_a - m} + o_b e^{m_b - m} .

    It is associative and commutative, and :func:`empty_state` changes nothing.

    Examples
    --------
    >>> V = torch.tensor([[1.0], [3.0]])
    >>> a, b = (block_state(torch.tensor([[5.0]]), V[j : j + 1]) for j in (0, 1))
    >>> merge(a, b)
    State(m=tensor([5.]), l=tensor([2.]), o=tensor([[4.]]))
    """
    m = torch.maximum(a.m, b.m)
    # Nothing to nothing: -inf - (-inf) would be NaN.
    of_a, of_b = torch.exp(a.m - _finite(m)), torch.exp(b.m - _finite(m))
    return State(
        m,
        a.l * of_a + b.l * of_b,
        a.o * of_a.unsqueeze(-1) + b.o * of_b.unsqueeze(-1),
    )


def blockwise_attention(
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    mask: Bool[Tensor, "*#batch #n_query #n_key"] | None = None,
    bias: Float[Tensor, "*#batch #n_query #n_key"] | None = None,
    *,
    block: int = 64,
) -> tuple[Float[Tensor, "*batch n_query d_value"], Float[Tensor, "*batch n_query"]]:
    r"""Attend to some keys at a time, and never hold the weights of all.

    Parameters
    ----------
    Q, K, V, mask, bias
        As in :func:`dian.attention.dot_product.scaled_dot_product_attention`.
    block
        How many keys at a time.

    Returns
    -------
    output
        The same as that of the plain formula, but for rounding.
    log_sum
        :math:`m + \ln l`, the logarithm of the sum of the exponentials of all scores:
        what the backward pass needs to compute any weight anew. It is :math:`-\infty`
        for a query that may read nothing.

    Raises
    ------
    TypeError
        If ``mask`` is not boolean.
    ValueError
        If ``block`` is not positive, keys and values are not as many, or a mask is
        given and ``Q``, ``K`` or ``V`` are not finite.

    Notes
    -----
    Milakov and Gimelshein, *Online normalizer calculation for softmax*, 2018,
    arXiv:1805.02867, algorithm 3, with the values of Rabe and Staats, *Self-attention
    does not need O(n²) memory*, 2021, arXiv:2112.05682. Autograd would keep every
    block: :func:`online_attention` is the differentiable one.

    Examples
    --------
    >>> Q, K, V = torch.zeros(1, 1), torch.ones(4, 1), torch.arange(4.0).view(4, 1)
    >>> blockwise_attention(Q, K, V, block=3)
    (tensor([[1.5000]]), tensor([1.3863]))
    """
    if block < 1:
        raise ValueError(f"block must be positive, got {block}")
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(
            f"mask must be boolean, True where a query may read a key, got {mask.dtype}"
        )
    if K.shape[-2] != V.shape[-2]:
        raise ValueError(
            f"K and V must share n_key, got {K.shape[-2]} and {V.shape[-2]}"
        )
    for name, given in zip("QKV", (Q, K, V), strict=True):
        if mask is not None and not given.isfinite().all():
            raise ValueError(
                f"{name} must be finite where a mask is given, got NaN or infinity; a "
                "weight of 0 does not hide it"
            )
    state = empty_state(tuple(Q.shape[:-1]), V.shape[-1], Q)
    for part in _blocks(K.shape[-2], block):
        S = _scores(Q, K, mask, bias, part)
        state = merge(state, block_state(S, V[..., part, :]))
    dead = state.l == 0  # may read nothing
    output = state.o / state.l.masked_fill(dead, 1.0).unsqueeze(-1)
    return output, state.m + state.l.log()


class BlockwiseGradients(NamedTuple):
    r"""The gradients by queries, keys and values, and by a bias that was given."""

    Q: Float[Tensor, "*batch n_query d_key"]
    K: Float[Tensor, "*batch n_key d_key"]
    V: Float[Tensor, "*batch n_key d_value"]
    B: Tensor | None
    """Of the shape of the bias, summed over the axes along which it was spread."""


def blockwise_backward(
    O_bar: Float[Tensor, "*batch n_query d_value"],
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    output: Float[Tensor, "*batch n_query d_value"],
    log_sum: Float[Tensor, "*batch n_query"],
    mask: Bool[Tensor, "*#batch #n_query #n_key"] | None = None,
    bias: Float[Tensor, "*#batch #n_query #n_key"] | None = None,
    *,
    block: int = 64,
) -> BlockwiseGradients:
    r"""Go back block by block; the weights are computed anew, and forgotten again.

    .. math::

        P_{ij} = e^{s_{ij} - \text{lse}_i}, \qquad
        D_i = \sum_c \bar O_{ic} O_{ic}, \qquad
        \bar S = P \odot (\bar O V^\top - D \mathbf 1^\top) .

    The second form of :math:`D` needs no weights at all, so that it is known before the
    first block.

    Parameters
    ----------
    O_bar
        The gradient of the loss by the output.
    Q, K, V, mask, bias
        As given to :func:`blockwise_attention`.
    output, log_sum
        What it returned.
    block
        How many keys at a time; it need not be the same as on the way forward.

    Notes
    -----
    Algorithm 4 (appendix B) of Dao et al., *FlashAttention*, 2022, arXiv:2205.14135.
    """
    scale = 1 / math.sqrt(Q.shape[-1])
    # D = rowsum(O_bar O)
    D = (O_bar * output).sum(-1, keepdim=True)
    Q_bar, K_bar, V_bar = map(torch.zeros_like, (Q, K, V))
    B_bar = None if bias is None else torch.zeros_like(bias)
    for part in _blocks(K.shape[-2], block):
        K_b, V_b = K[..., part, :], V[..., part, :]
        # P = exp(S - lse)
        S = _scores(Q, K, mask, bias, part)
        P = torch.exp(S - _finite(log_sum).unsqueeze(-1))
        # S_bar = P (O_bar V^T - D)
        S_bar = P * (O_bar @ V_b.mT - D)
        # Q_bar = sum over the blocks of S_bar K / sqrt(d_k)
        Q_bar += S_bar @ (scale * K_b)
        # K_bar = S_bar^T Q / sqrt(d_k), V_bar = P^T O_bar: each block has its own
        K_bar[..., part, :] = S_bar.mT @ (scale * Q)
        V_bar[..., part, :] = P.mT @ O_bar
        # B_bar = S_bar, summed where one number of the bias served several scores
        if bias is not None:
            own = B_bar if bias.shape[-1] == 1 else B_bar[..., part]
            own += S_bar.sum_to_size(own.shape)
    return BlockwiseGradients(Q_bar, K_bar, V_bar, B_bar)


class _OnlineAttention(torch.autograd.Function):
    """The two functions above, where autograd can see them."""

    @staticmethod
    def forward(ctx, Q, K, V, mask, bias, block):
        output, log_sum = blockwise_attention(Q, K, V, mask, bias, block=block)
        ctx.save_for_backward(Q, K, V, output, log_sum, mask, bias)
        ctx.block = block
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, O_bar):
        found = blockwise_backward(O_bar, *ctx.saved_tensors, block=ctx.block)
        return found.Q, found.K, found.V, None, found.B, None


def online_attention(
    Q: Float[Tensor, "*batch n_query d_key"],
    K: Float[Tensor, "*batch n_key d_key"],
    V: Float[Tensor, "*batch n_key d_value"],
    mask: Bool[Tensor, "*#batch #n_query #n_key"] | None = None,
    bias: Float[Tensor, "*#batch #n_query #n_key"] | None = None,
    *,
    block: int = 64,
) -> Float[Tensor, "*batch n_query d_value"]:
    r"""Attend block by block; gradients come from :func:`blockwise_backward`.

    Parameters
    ----------
    Q, K, V, mask, bias, block
        As in :func:`blockwise_attention`.

    Examples
    --------
    >>> Q = torch.zeros(1, 2, requires_grad=True)
    >>> online_attention(Q, torch.eye(2), torch.tensor([[0.0], [4.0]])).backward()
    >>> Q.grad
    tensor([[-0.7071,  0.7071]])
    """
    return _OnlineAttention.apply(Q, K, V, mask, bias, block)


def _blocks(n_key: int, block: int) -> list[slice]:
    """Cut the keys into blocks; the last may be smaller."""
    return [slice(j, min(j + block, n_key)) for j in range(0, n_key, block)]


def _scores(
    Q: Tensor, K: Tensor, mask: Tensor | None, bias: Tensor | None, part: slice
) -> Tensor:
    """Return the scores of one block, minus infinity where the mask hides a key."""
    S = (Q / math.sqrt(Q.shape[-1])) @ K[..., part, :].mT
    whole = (*Q.shape[:-1], K.shape[-2])
    if bias is not None:
        S = S + bias.expand(whole)[..., part]
    if mask is not None:
        S = S.masked_fill(~mask.expand(whole)[..., part], -torch.inf)
    return S


def _finite(m: Tensor) -> Tensor:
    """Put 0 for minus infinity, so that a difference from it is not NaN."""
    return m.masked_fill(m.isneginf(), 0.0)
