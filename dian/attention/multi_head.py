r"""Multi-head attention, as a function with its backward pass and as a module.

Axis names: ``batch``; ``n`` and ``m``, number of queries and of keys; ``D``, model
dimension; ``head``, heads of the queries, ``head_kv``, heads of keys and values;
``d_head``, dimension of one head; ``width``, of all heads together.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dian.attention.dot_product import (
    attention,
    attention_backward,
    fused_attention,
    scaled_dot_product_attention,
)
from dian.attention.masks import causal_mask
from dian.errors import require
from dian.numerics import widened
from dian.rnn.initialization import xavier_
from dian.training.dropout import dropout_mask

Rotate = Callable[[Tensor, int], Tensor]
"""``rotate(x, offset)`` rotates queries or keys ``x`` of shape ``(batch, head, n,
d_head)``, the first of which is at position ``offset``. A function or a module."""


class Projections(NamedTuple):
    r"""The parameters of multi-head attention, or their gradients."""

    W_Q: Float[Tensor, "D width"]
    W_K: Float[Tensor, "D width_kv"]
    W_V: Float[Tensor, "D width_kv"]
    W_O: Float[Tensor, "width D"]
    b_Q: Float[Tensor, "width"]
    b_K: Float[Tensor, "width_kv"]
    b_V: Float[Tensor, "width_kv"]
    b_O: Float[Tensor, "D"]


class Intermediates(NamedTuple):
    r"""What :func:`multi_head_backward` needs of the forward pass."""

    Q: Float[Tensor, "batch head n d_head"]
    K: Float[Tensor, "batch head_kv m d_head"]
    V: Float[Tensor, "batch head_kv m d_head"]
    P: Float[Tensor, "batch head n m"]
    C: Float[Tensor, "batch n width"]
    """The concatenated outputs of the heads."""


def split_heads(
    X: Float[Tensor, "batch n width"], n_head: int
) -> Float[Tensor, "batch head n d_head"]:
    """Split the last axis into heads, and move the heads before the positions.

    Examples
    --------
    Two positions and four features, split into two heads:

    >>> split_heads(torch.arange(8.0).view(1, 2, 4), 2)
    tensor([[[[0., 1.],
              [4., 5.]],
    <BLANKLINE>
             [[2., 3.],
              [6., 7.]]]])
    """
    # Without a batch axis, the positions would be taken for the batch.
    require(X.ndim == 3, f"X must be (batch, n, width), got {tuple(X.shape)}")
    return X.unflatten(-1, (n_head, -1)).transpose(1, 2)


def merge_heads(
    X: Float[Tensor, "batch head n d_head"],
) -> Float[Tensor, "batch n width"]:
    """Concatenate the heads, the inverse of :func:`split_heads`.

    >>> X = torch.rand(1, 3, 4)
    >>> torch.equal(merge_heads(split_heads(X, 2)), X)
    True
    """
    return X.transpose(1, 2).flatten(-2)


def repeat_kv(
    X: Float[Tensor, "batch head_kv m d_head"], n_head: int
) -> Float[Tensor, "batch head m d_head"]:
    """Repeat each head of keys or values for consecutive heads of queries."""
    if X.shape[1] == n_head:
        return X
    return X.repeat_interleave(n_head // X.shape[1], 1)


@widened
def multi_head_attention(
    X_q: Float[Tensor, "batch n D"],
    X_kv: Float[Tensor, "batch m D"],
    weights: Projections,
    n_head: int,
    n_kv_head: int | None = None,
    *,
    mask: Bool[Tensor, "*#shape #n #m"] | None = None,
    bias: Float[Tensor, "*#shape #n #m"] | None = None,
    rotate: Rotate | None = None,
) -> tuple[Float[Tensor, "batch n D"], Intermediates]:
    r"""Attend with every head, then concatenate and project the results.

    .. math::

        Q = X_q W_Q + b_Q, \quad K = X_{kv} W_K + b_K, \quad V = X_{kv} W_V + b_V,
        \qquad Y = \operatorname{concat}_h(O_h)\, W_O + b_O

    where :math:`O_h` is the output of head :math:`h`.

    Parameters
    ----------
    X_q, X_kv
        Target and source sequence; the same in self-attention.
    weights
        The projections.
    n_head, n_kv_head
        Number of heads of the queries, and of keys and values (default: as many).
    mask, bias
        As in :meth:`MultiHeadAttention.forward`.
    rotate
        Rotates queries and keys, as in :class:`MultiHeadAttention`.

    Returns
    -------
    output
        The output :math:`Y`.
    inner
        Intermediate results, for the backward pass.

    Notes
    -----
    Section 3.2.2 of Vaswani et al., *Attention Is All You Need*, 2017,
    arXiv:1706.03762, which has no biases.
    """
    n_kv_head = n_head if n_kv_head is None else n_kv_head
    Q = split_heads(X_q @ weights.W_Q + weights.b_Q, n_head)
    K = split_heads(X_kv @ weights.W_K + weights.b_K, n_kv_head)
    V = split_heads(X_kv @ weights.W_V + weights.b_V, n_kv_head)
    if rotate is not None:
        Q, K = rotate(Q, 0), rotate(K, 0)
    heads, P = scaled_dot_product_attention(
        Q, repeat_kv(K, n_head), repeat_kv(V, n_head), mask=mask, bias=bias
    )
    C = merge_heads(heads)
    return C @ weights.W_O + weights.b_O, Intermediates(Q, K, V, P, C)


class MultiHeadGradients(NamedTuple):
    r"""Gradients with respect to the inputs of :func:`multi_head_attention`."""

    X_q: Float[Tensor, "batch n D"]
    X_kv: Float[Tensor, "batch m D"]
    weights: Projections


@widened
def multi_head_backward(
    Y_bar: Float[Tensor, "batch n D"],
    X_q: Float[Tensor, "batch n D"],
    X_kv: Float[Tensor, "batch m D"],
    weights: Projections,
    inner: Intermediates,
    *,
    rotate_back: Rotate | None = None,
) -> MultiHeadGradients:
    r"""Compute the gradients with respect to both sequences and the projections.

    .. math::

        \bar W_O = C^\top \bar Y, \qquad \bar b_O = \mathbf 1^\top \bar Y, \qquad
        \bar C = \bar Y W_O^\top,

    then each head as in :func:`dian.attention.dot_product.attention_backward`, and

    .. math::

        \bar W_Q = X_q^\top \bar Q, \qquad \bar b_Q = \mathbf 1^\top \bar Q, \qquad
        \bar X_q = \bar Q W_Q^\top, \qquad
        \bar X_{kv} = \bar K W_K^\top + \bar V W_V^\top,

    and :math:`\bar W_K, \bar b_K, \bar W_V, \bar b_V` like those of :math:`Q`. In
    self-attention the gradient of :math:`X` is :math:`\bar X_q + \bar X_{kv}`.

    Parameters
    ----------
    Y_bar
        The gradient of the loss with respect to the output.
    X_q, X_kv, weights
        As in :func:`multi_head_attention`.
    inner
        The intermediate results that it returned.
    rotate_back
        The transpose of its ``rotate``, which rotates by the negative angles: the
        ``rotate`` of ``RotaryEmbedding(d_head, omega=-omega)``.
    """
    Q, K, V, P, C = inner
    n_head, n_kv_head = Q.shape[1], K.shape[1]
    # C_bar = Y_bar W_O^T
    C_bar = split_heads(Y_bar @ weights.W_O.T, n_head)
    back = attention_backward(C_bar, Q, repeat_kv(K, n_head), repeat_kv(V, n_head), P)
    # a head of keys or values gets the sum over the heads of queries that share it
    of_kv = (x.unflatten(1, (n_kv_head, -1)).sum(2) for x in (back.K, back.V))
    of_heads = [back.Q, *of_kv]
    if rotate_back is not None:  # Q_bar = R^T Q_bar, K_bar = R^T K_bar
        of_heads[:2] = (rotate_back(x, 0) for x in of_heads[:2])
    Q_bar, K_bar, V_bar = map(merge_heads, of_heads)

    def rows(x: Tensor) -> Tensor:
        return x.flatten(0, 1)  # the sums below run over sequences and positions

    return MultiHeadGradients(
        # X_q_bar = Q_bar W_Q^T
        X_q=Q_bar @ weights.W_Q.T,
        # X_kv_bar = K_bar W_K^T + V_bar W_V^T
        X_kv=K_bar @ weights.W_K.T + V_bar @ weights.W_V.T,
        weights=Projections(
            # W_Q_bar = X_q^T Q_bar, and so on
            W_Q=rows(X_q).T @ rows(Q_bar),
            W_K=rows(X_kv).T @ rows(K_bar),
            W_V=rows(X_kv).T @ rows(V_bar),
            # W_O_bar = C^T Y_bar
            W_O=rows(C).T @ rows(Y_bar),
            # b_Q_bar = 1^T Q_bar, and so on
            b_Q=rows(Q_bar).sum(0),
            b_K=rows(K_bar).sum(0),
            b_V=rows(V_bar).sum(0),
            b_O=rows(Y_bar).sum(0),
        ),
    )


class Cache(NamedTuple):
    """The cached keys (after rotation) and values of earlier positions."""

    K: Float[Tensor, "batch head_kv m d_head"]
    V: Float[Tensor, "batch head_kv m d_head"]


AttentionFn = Callable[..., Tensor]
"""``attention_fn(Q, K, V, mask=mask, bias=bias)`` returns the output of each head."""


class MultiHeadAttention(nn.Module):
    r"""Multi-head attention with learned projections.

    Parameters
    ----------
    d_model
        Model dimension :math:`D`.
    n_head
        Number of heads, each of dimension :math:`D / H`.
    n_kv_head
        Number of heads of keys and values. Fewer than ``n_head`` is grouped-query
        attention, 1 is multi-query attention. Default: ``n_head``.
    rotate
        A :class:`dian.positions.rotary.RotaryEmbedding`, or a function or a module that
        is called as ``rotate(x, offset)`` on queries and on keys of shape ``(batch,
        head, n, d_head)``, of which the first is at position ``offset`` (with a lambda,
        the layer cannot be pickled).
    attention_fn
        Computes the heads unless ``need_weights`` is set:
        :func:`dian.attention.dot_product.fused_attention`, or
        :func:`dian.attention.dot_product.attention` with our own backward pass.
    dropout
        Dropout rate of the attention weights, in training mode.
    generator
        The source of the initial weights (Xavier-uniform, zero biases) and of dropout.

    Notes
    -----
    Vaswani et al., 2017, arXiv:1706.03762, section 3.2.2; shared keys and values:
    Shazeer, 2019, arXiv:1911.02150, and Ainslie et al., 2023, arXiv:2305.13245.
    :class:`torch.nn.MultiheadAttention` holds the transposed matrices, the first three
    of them stacked; :meth:`from_torch` converts it.

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
        attention_fn: AttentionFn = fused_attention,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        n_kv_head = n_head if n_kv_head is None else n_kv_head
        for what, total, part in (
            ("d_model must be a multiple of n_head", d_model, n_head),
            ("n_head must be a multiple of n_kv_head", n_head, n_kv_head),
        ):
            divides = part > 0 and total % part == 0
            require(divides, f"{what}, got {total} and {part}")
        self.n_head, self.n_kv_head = n_head, n_kv_head
        self.rotate, self.attention_fn = rotate, attention_fn
        self.dropout, self.generator = dropout, generator
        width_kv = d_model // n_head * n_kv_head
        widths = {"Q": d_model, "K": width_kv, "V": width_kv, "O": d_model}
        for name, width in widths.items():
            W = torch.empty(d_model, width)
            xavier_(W, generator=generator)
            setattr(self, f"W_{name}", nn.Parameter(W))
            setattr(self, f"b_{name}", nn.Parameter(torch.zeros(width)))

    @classmethod
    def from_torch(cls, layer: nn.MultiheadAttention) -> "MultiHeadAttention":
        """Convert a layer of torch, which must have biases and add no keys.

        It must be ``batch_first``, as this layer is: with the default of torch, the
        same input would be read along other axes.

        Examples
        --------
        >>> layer = torch.nn.MultiheadAttention(6, 2, batch_first=True)
        >>> X = torch.rand(1, 5, 6)
        >>> ours = MultiHeadAttention.from_torch(layer)
        >>> torch.allclose(ours(X), layer(X, X, X)[0], atol=1e-6)
        True
        """
        W, b = layer.in_proj_weight, layer.in_proj_bias
        plain = W is not None and layer.bias_k is None and not layer.add_zero_attn
        require(
            plain and b is not None,
            "layer must have biases, kdim and vdim equal to embed_dim, and neither "
            "add_bias_kv nor add_zero_attn",
        )
        require(
            layer.batch_first,
            "layer must be batch_first, got batch_first=False: set the attribute, and "
            "give inputs as (batch, n, D)",
        )
        W_all = (x.T for x in (*W.chunk(3), layer.out_proj.weight))
        weights = Projections(*W_all, *b.chunk(3), layer.out_proj.bias)
        ours = cls(layer.embed_dim, layer.num_heads, dropout=layer.dropout).to(W)
        ours.load_state_dict(weights._asdict())
        return ours.train(layer.training)

    @property
    def projections(self) -> Projections:
        """The parameters in the form that the functions of this module take."""
        return Projections(*(getattr(self, name) for name in Projections._fields))

    def forward(
        self,
        X: Float[Tensor, "batch n D"],
        memory: Float[Tensor, "batch m D"] | None = None,
        *,
        mask: Bool[Tensor, "*#shape #n #m"] | None = None,
        bias: Float[Tensor, "*#shape #n #m"] | None = None,
        is_causal: bool = False,
        need_weights: bool = False,
    ):
        """Attend from ``X`` to ``memory``, or to ``X`` itself.

        Parameters
        ----------
        X
            The target sequence, projected to queries.
        memory
            The source sequence, projected to keys and values (cross-attention).
            Default: ``X`` (self-attention). There is no third input: in contrast to
            :class:`torch.nn.MultiheadAttention`, keys and values have the same source.
        mask
            ``True`` where a query **may attend** to a key: ``(n, m)``, or ``(batch,
            head, n, m)``, of which ``batch`` and ``head`` may be 1.
        bias
            Added to the scores; broadcasts to ``(batch, head, n, m)``.
        is_causal
            Whether to apply :func:`dian.attention.masks.causal_mask`, besides ``mask``.
        need_weights
            Whether to return the weights ``(batch, head, n, m)`` before dropout.

        Returns
        -------
        output
            ``(batch, n, D)``, or a tuple of it and the weights.
        """
        heads = self._project(X, X if memory is None else memory, 0)
        return self._attend(*heads, mask, bias, is_causal, need_weights)

    def decode(
        self,
        X: Float[Tensor, "batch n D"],
        cache: Cache | None = None,
        *,
        bias: Float[Tensor, "*#shape #n #m"] | None = None,
    ) -> tuple[Float[Tensor, "batch n D"], Cache]:
        """Compute the next positions of a causal sequence from cached keys and values.

        Parameters
        ----------
        X
            The new positions, often one.
        cache
            What this method returned for the positions before. Default: none.
        bias
            For the new positions as queries and all positions as keys.

        Returns
        -------
        output
            Equal to the new positions of the output for the whole sequence.
        cache
            For the next call; the one that was given is not modified.
        """
        offset = 0 if cache is None else cache.K.shape[2]
        Q, K, V = self._project(X, X, offset)
        if cache is not None:
            K, V = torch.cat([cache.K, K], 2), torch.cat([cache.V, V], 2)
        return self._attend(Q, K, V, None, bias, is_causal=True), Cache(K, V)

    def _project(
        self, X: Tensor, source: Tensor, offset: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values by head, after rotation."""
        Q = split_heads(_affine(X, self.W_Q, self.b_Q), self.n_head)
        K = split_heads(_affine(source, self.W_K, self.b_K), self.n_kv_head)
        V = split_heads(_affine(source, self.W_V, self.b_V), self.n_kv_head)
        if self.rotate is not None:
            rotate = getattr(self.rotate, "rotate", self.rotate)
            Q, K = rotate(Q, offset), rotate(K, offset)
        return Q, K, V

    def _attend(self, Q, K, V, mask, bias, is_causal, need_weights=False):
        """Attend with every head, then concatenate and project the results."""
        if is_causal:
            past = causal_mask(Q.shape[2], K.shape[2], Q.device)
            mask = past if mask is None else mask & past
        K, V = repeat_kv(K, self.n_head), repeat_kv(V, self.n_head)
        options = {"mask": mask, "bias": bias}
        if self.training and self.dropout > 0:
            like = Q.new_empty(*Q.shape[:-1], K.shape[-2])
            Z = dropout_mask(like, self.dropout, self.generator)
            heads, P = scaled_dot_product_attention(Q, K, V, dropout_mask=Z, **options)
        elif need_weights:
            heads, P = attention(Q, K, V, need_weights=True, **options)
        else:
            heads = self.attention_fn(Q, K, V, **options)
        output = _affine(merge_heads(heads.to(Q.dtype)), self.W_O, self.b_O)
        return (output, P) if need_weights else output


def _affine(X: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """Return X W + b as one product of matrices."""
    return torch.addmm(b, X.flatten(0, -2), W).unflatten(0, X.shape[:-1])
