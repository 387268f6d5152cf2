r"""Several attentions side by side, each with projections of its own.

Axis names: ``batch``; ``n`` and ``m``, positions that ask and that are asked;
``D``, features of a position; ``head``, and ``d_head`` of one of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dian.attention.dot_product import (
    attention_backward,
    attention_with_weights,
    fused_attention,
    scaled_dot_product_attention,
)
from dian.attention.masks import causal_mask
from dian.training.dropout import dropout_mask


class Projections(NamedTuple):
    r"""What is learnt: four matrices and four biases; or the gradients by them."""

    W_Q: Float[Tensor, "D width"]
    W_K: Float[Tensor, "D width_kv"]
    W_V: Float[Tensor, "D width_kv"]
    W_O: Float[Tensor, "width D"]
    b_Q: Float[Tensor, "width"]
    b_K: Float[Tensor, "width_kv"]
    b_V: Float[Tensor, "width_kv"]
    b_O: Float[Tensor, "D"]


class Intermediates(NamedTuple):
    r"""What :func:`multi_head_attention` computed on its way, for the way back."""

    Q: Float[Tensor, "batch head n d_head"]
    K: Float[Tensor, "batch head_kv m d_head"]
    V: Float[Tensor, "batch head_kv m d_head"]
    P: Float[Tensor, "batch head n m"]
    C: Float[Tensor, "batch n width"]
    """The outputs of all heads, side by side."""


def split_heads(
    X: Float[Tensor, "batch n width"], n_head: int
) -> Float[Tensor, "batch head n d_head"]:
    """Cut the features into heads, and bring the heads before the positions.

    Examples
    --------
    Two positions of four features, for two heads:

    >>> split_heads(torch.arange(8.0).view(1, 2, 4), 2)
    tensor([[[[0., 1.],
              [4., 5.]],
    <BLANKLINE>
             [[2., 3.],
              [6., 7.]]]])
    """
    if X.ndim != 3:  # one axis less, and the positions would be taken for the batch
        raise ValueError(f"X must be (batch, n, width), got {tuple(X.shape)}")
    return X.unflatten(-1, (n_head, -1)).transpose(1, 2)


def merge_heads(
    X: Float[Tensor, "batch head n d_head"],
) -> Float[Tensor, "batch n width"]:
    """Undo :func:`split_heads`.

    >>> X = torch.rand(1, 3, 4)
    >>> torch.equal(merge_heads(split_heads(X, 2)), X)
    True
    """
    return X.transpose(1, 2).flatten(-2)


def repeat_kv(
    X: Float[Tensor, "batch head_kv m d_head"], n_head: int
) -> Float[Tensor, "batch head m d_head"]:
    """Let each head of keys or values serve as many heads of queries, in order."""
    if X.shape[1] == n_head:
        return X
    return X.repeat_interleave(n_head // X.shape[1], 1)


def multi_head_attention(
    X_q: Float[Tensor, "batch n D"],
    X_kv: Float[Tensor, "batch m D"],
    weights: Projections,
    n_head: int,
    n_kv_head: int | None = None,
    mask: Bool[Tensor, "*#shape #n #m"] | None = None,
    bias: Float[Tensor, "*#shape #n #m"] | None = None,
) -> tuple[Float[Tensor, "batch n D"], Intermediates]:
    r"""Attend with every head, and add up what they found.

    .. math::

        Q = X_q W_Q + b_Q, \quad K = X_{kv} W_K + b_K, \quad V = X_{kv} W_V + b_V,
        \qquad Y = \operatorname{concat}_h(O_h)\, W_O + b_O

    with :math:`O_h` the attention of head :math:`h` alone.

    Parameters
    ----------
    X_q, X_kv
        What asks and what is asked; the same in self-attention.
    weights
        The projections.
    n_head, n_kv_head
        Heads of the queries, and of the keys and values if there are fewer.
    mask, bias
        As in :func:`dian.attention.dot_product.scaled_dot_product_attention`, for
        ``(batch, head, n, m)``.

    Returns
    -------
    output
        :math:`Y`.
    inner
        Queries, keys, values and weights of each head, and the outputs side by side.

    Notes
    -----
    Section 3.2.2 of Vaswani et al., *Attention Is All You Need*, 2017,
    arXiv:1706.03762, which has no biases.
    """
    _check_mask(mask)
    n_kv_head = n_head if n_kv_head is None else n_kv_head
    Q = split_heads(X_q @ weights.W_Q + weights.b_Q, n_head)
    K = split_heads(X_kv @ weights.W_K + weights.b_K, n_kv_head)
    V = split_heads(X_kv @ weights.W_V + weights.b_V, n_kv_head)
    heads, P = scaled_dot_product_attention(
        Q, repeat_kv(K, n_head), repeat_kv(V, n_head), mask, bias
    )
    C = merge_heads(heads)
    return C @ weights.W_O + weights.b_O, Intermediates(Q, K, V, P, C)


class MultiHeadGradients(NamedTuple):
    r"""The gradients by what asks, by what is asked, and by the projections."""

    X_q: Float[Tensor, "batch n D"]
    X_kv: Float[Tensor, "batch m D"]
    weights: Projections


def multi_head_backward(
    Y_bar: Float[Tensor, "batch n D"],
    X_q: Float[Tensor, "batch n D"],
    X_kv: Float[Tensor, "batch m D"],
    weights: Projections,
    inner: Intermediates,
) -> MultiHeadGradients:
    r"""Go back through the output, the heads, and the projections.

    .. math::

        \bar W_O = C^\top \bar Y, \qquad \bar b_O = \mathbf 1^\top \bar Y, \qquad
        \bar C = \bar Y W_O^\top,

    then each head as in :func:`dian.attention.dot_product.attention_backward`, and

    .. math::

        \bar W_Q = X_q^\top \bar Q, \qquad \bar b_Q = \mathbf 1^\top \bar Q, \qquad
        \bar X_q = \bar Q W_Q^\top, \qquad
        \bar X_{kv} = \bar K W_K^\top + \bar V W_V^\top,

    with :math:`\bar W_K, \bar b_K, \bar W_V, \bar b_V` like those of :math:`Q`. In
    self-attention the gradient by :math:`X` is the sum of the last two.

    Parameters
    ----------
    Y_bar
        The gradient of the loss by the output.
    X_q, X_kv, weights
        As given to :func:`multi_head_attention`.
    inner
        What it returned besides.
    """
    Q, K, V, P, C = inner
    n_head, n_kv_head = Q.shape[1], K.shape[1]
    rows = Y_bar.flatten(0, 1)
    # C_bar = Y_bar W_O^T
    C_bar = split_heads(Y_bar @ weights.W_O.T, n_head)
    shared = repeat_kv(K, n_head), repeat_kv(V, n_head)
    back = attention_backward(C_bar, Q, *shared, P)
    # a head of keys that serves several heads of queries gets the sum
    of_kv = (x.unflatten(1, (n_kv_head, -1)).sum(2) for x in (back.K, back.V))
    Q_bar, K_bar, V_bar = map(merge_heads, (back.Q, *of_kv))
    by_q, by_k, by_v = (x.flatten(0, 1) for x in (Q_bar, K_bar, V_bar))
    in_q, in_kv = X_q.flatten(0, 1), X_kv.flatten(0, 1)
    return MultiHeadGradients(
        # X_q_bar = Q_bar W_Q^T
        X_q=Q_bar @ weights.W_Q.T,
        # X_kv_bar = K_bar W_K^T + V_bar W_V^T
        X_kv=K_bar @ weights.W_K.T + V_bar @ weights.W_V.T,
        weights=Projections(
            # W_Q_bar = X_q^T Q_bar, and so on
            W_Q=in_q.T @ by_q,
            W_K=in_kv.T @ by_k,
            W_V=in_kv.T @ by_v,
            # W_O_bar = C^T Y_bar
            W_O=C.flatten(0, 1).T @ rows,
            # b_Q_bar = 1^T Q_bar, and so on
            b_Q=by_q.sum(0),
            b_K=by_k.sum(0),
            b_V=by_v.sum(0),
            b_O=rows.sum(0),
        ),
    )


class Cache(NamedTuple):
    """The keys and values of the positions that were read before, keys rotated."""

    K: Float[Tensor, "batch head_kv m d_head"]
    V: Float[Tensor, "batch head_kv m d_head"]


Rotate = Callable[[Tensor, int], Tensor]
"""``rotate(x, offset)`` turns queries or keys, of shape ``(batch, head, n, d_head)``;
the first of them stands at position ``offset``."""

Attend = Callable[..., Tensor]
"""``attend(Q, K, V, mask, bias)`` returns the output of each head."""


class MultiHeadAttention(nn.Module):
    r"""The projections of :func:`multi_head_attention`, learnt.

    Parameters
    ----------
    d_model
        Features of a position, :math:`D`.
    n_head
        Heads; each has :math:`D / H` features.
    n_kv_head
        Heads of keys and values. Fewer than ``n_head`` means that several heads of
        queries share them (grouped queries; with 1, multi-query). Default: no sharing.
    rotate
        Called as ``rotate(x, offset)`` on queries and on keys of shape ``(batch, head,
        n, d_head)``; position :math:`i` of them stands at ``offset + i``. That is how a
        rotary encoding enters.
    attend
        What computes the heads when nobody asks for the weights:
        :func:`dian.attention.dot_product.fused_attention`, or
        :func:`dian.attention.dot_product.attention` with our own backward pass.
    dropout
        Rate at which weights are dropped, in training alone.
    generator
        The source of the start weights (Xavier-uniform; biases are zero), and of what
        is dropped.

    Raises
    ------
    ValueError
        If ``d_model`` is no multiple of ``n_head``, or that none of ``n_kv_head``.

    Notes
    -----
    Vaswani et al., 2017, arXiv:1706.03762, section 3.2.2; shared keys and values:
    Shazeer, 2019, arXiv:1911.02150, and Ainslie et al., 2023, arXiv:2305.13245.
    :class:`torch.nn.MultiheadAttention` is the same with transposed matrices, of which
    the first three are stacked; :func:`from_torch` turns it into ours.

    Examples
    --------
    >>> layer = MultiHeadAttention(12, 3, generator=torch.Generator().manual_seed(0))
    >>> output, weights = layer(torch.ones(2, 5, 12), need_weights=True)
    >>> output.shape, weights.shape
    (torch.Size([2, 5, 12]), torch.Size([2, 3, 5, 5]))
    >>> sum(p.numel() for p in layer.parameters())  # 4 D^2 + 4 D
    624
    """

    def __init__(
        self,
        d_model: int,
        n_head: int,
        *,
        n_kv_head: int | None = None,
        rotate: Rotate | None = None,
        attend: Attend = fused_attention,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        n_kv_head = n_head if n_kv_head is None else n_kv_head
        if n_head < 1 or d_model % n_head:
            raise ValueError(
                f"d_model must be a multiple of n_head, got {d_model} and {n_head}"
            )
        if n_kv_head < 1 or n_head % n_kv_head:
            raise ValueError(
                f"n_head must be a multiple of n_kv_head, got {n_head} and {n_kv_head}"
            )
        self.n_head, self.n_kv_head = n_head, n_kv_head
        self.rotate, self.attend = rotate, attend
        self.dropout, self.generator = dropout, generator
        width_kv = d_model // n_head * n_kv_head
        for name, width in (
            ("Q", d_model),
            ("K", width_kv),
            ("V", width_kv),
            ("O", d_model),
        ):
            W = nn.init.xavier_uniform_(
                torch.empty(d_model, width), generator=generator
            )
            setattr(self, f"W_{name}", nn.Parameter(W))
            setattr(self, f"b_{name}", nn.Parameter(torch.zeros(width)))

    @property
    def weights(self) -> Projections:
        """The parameters, as the functions take them."""
        return Projections(*(getattr(self, name) for name in Projections._fields))

    def forward(
        self,
        X: Float[Tensor, "batch n D"],
        memory: Float[Tensor, "batch m D"] | None = None,
        mask: Bool[Tensor, "*#shape #n #m"] | None = None,
        bias: Float[Tensor, "*#shape #n #m"] | None = None,
        *,
        need_weights: bool = False,
    ):
        """Attend from each position of ``X`` to ``memory``, or to ``X`` itself.

        Parameters
        ----------
        X
            What asks.
        memory
            What is asked, in cross-attention.
        mask
            ``True`` where a query **may** read a key: ``(n, m)`` for all sequences, or
            ``(batch, head, n, m)``, of which ``batch`` and ``head`` may be 1.
        bias
            Added to the scores; has to broadcast to ``(batch, head, n, m)``.
        need_weights
            Whether to return the weights ``(batch, head, n, m)``, too. They come from
            :func:`dian.attention.dot_product.attention_with_weights`, and are those
            before dropout.

        Returns
        -------
        output
            ``(batch, n, D)``; with ``need_weights``, a tuple of it and the weights.

        Raises
        ------
        TypeError, ValueError
            As :func:`dian.attention.dot_product.scaled_dot_product_attention`; and if a
            mask has three axes, since the first could be taken for the heads.
        """
        source = X if memory is None else memory
        return self._attend(*self._project(X, source, 0), mask, bias, need_weights)

    def decode(
        self,
        X: Float[Tensor, "batch n D"],
        cache: Cache | None = None,
        bias: Float[Tensor, "*#shape #n #m"] | None = None,
    ) -> tuple[Float[Tensor, "batch n D"], Cache]:
        """Read some more positions of a causal sequence, after those in the cache.

        Parameters
        ----------
        X
            The new positions, often one.
        cache
            What this function returned for the positions before; ``None`` at first.
        bias
            For the new positions as queries and all positions as keys.

        Returns
        -------
        output
            What the whole sequence would have given at the new positions.
        cache
            For the positions that follow; the old one is left as it was.
        """
        offset = 0 if cache is None else cache.K.shape[2]
        Q, K, V = self._project(X, X, offset)
        if cache is not None:
            K, V = torch.cat([cache.K, K], 2), torch.cat([cache.V, V], 2)
        mask = causal_mask(Q.shape[2], K.shape[2], X.device)
        return self._attend(Q, K, V, mask, bias), Cache(K, V)

    def _project(
        self, X: Tensor, source: Tensor, offset: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values by head, queries and keys rotated."""
        Q = split_heads(_affine(X, self.W_Q, self.b_Q), self.n_head)
        K = split_heads(_affine(source, self.W_K, self.b_K), self.n_kv_head)
        V = split_heads(_affine(source, self.W_V, self.b_V), self.n_kv_head)
        if self.rotate is not None:
            Q, K = self.rotate(Q, offset), self.rotate(K, offset)
        return Q, K, V

    def _attend(self, Q, K, V, mask, bias, need_weights=False):
        """Attend with every head, and project what they found."""
        _check_mask(mask)
        K, V = repeat_kv(K, self.n_head), repeat_kv(V, self.n_head)
        if self.training and self.dropout > 0:
            like = Q.new_empty(*Q.shape[:-1], K.shape[-2])
            Z = dropout_mask(like, self.dropout, self.generator)
            heads, P = scaled_dot_product_attention(Q, K, V, mask, bias, Z)
        elif need_weights:
            heads, P = attention_with_weights(Q, K, V, mask, bias)
        else:
            heads = self.attend(Q, K, V, mask, bias)
        output = _affine(merge_heads(heads), self.W_O, self.b_O)
        return (output, P) if need_weights else output


def from_torch(peer: nn.MultiheadAttention) -> MultiHeadAttention:
    """Make ours with the weights of torch's, which it keeps transposed and stacked.

    Raises
    ------
    ValueError
        If it has no biases, or keys or values of another width, or adds keys of its
        own: ours has no such options.

    Examples
    --------
    >>> peer = torch.nn.MultiheadAttention(6, 2, batch_first=True)
    >>> X = torch.rand(1, 5, 6)
    >>> torch.allclose(from_torch(peer)(X), peer(X, X, X)[0], atol=1e-6)
    True
    """
    if peer.in_proj_weight is None or peer.in_proj_bias is None:
        raise ValueError("peer must have biases, and keys and values of its own width")
    if peer.bias_k is not None or peer.add_zero_attn:
        raise ValueError("peer must not add keys (add_bias_kv, add_zero_attn)")
    W, b = peer.in_proj_weight.chunk(3), peer.in_proj_bias.chunk(3)
    values = Projections(
        *(x.T for x in (*W, peer.out_proj.weight)), *b, peer.out_proj.bias
    )
    ours = MultiHeadAttention(peer.embed_dim, peer.num_heads, dropout=peer.dropout)
    ours = ours.to(peer.in_proj_weight)
    with torch.no_grad():
        for parameter, value in zip(ours.weights, values, strict=True):
            parameter.copy_(value)
    return ours.train(peer.training)


def _check_mask(mask: Tensor | None) -> None:
    """Refuse three axes: the first of them could be meant for the batch."""
    if mask is not None and mask.ndim not in (2, 4):
        raise ValueError(
            "mask must be (n, m), or (batch, head, n, m) where batch and head may "
            f"be 1, got {tuple(mask.shape)}"
        )


def _affine(X: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """Return X W + b as one product of matrices."""
    return torch.addmm(b, X.reshape(-1, X.shape[-1]), W).view(*X.shape[:-1], -1)
