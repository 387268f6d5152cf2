r"""A small pre-norm transformer encoder, for image rows and for sequences of tokens.

Positions enter by up to three functions or modules: ``encode`` adds a positional
encoding to the input, ``rotate`` rotates queries and keys, ``bias`` is added to the
scores. :func:`dian.positions.registry.encoding` returns them by name. Without any of
them, the encoder is equivariant to permutations of its input.

Axis names: ``batch``; ``n``, number of positions; ``D``, model dimension.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dian.attention.dot_product import attention
from dian.attention.encoder_layer import EncoderLayerWeights
from dian.attention.multi_head import AttentionFn, Cache, MultiHeadAttention
from dian.errors import require
from dian.numerics import at_least_float32
from dian.rnn.initialization import xavier_

Encode = Callable[[Tensor], Tensor]
"""``encode(X)`` returns ``X`` of shape ``(batch, n, D)`` plus a positional encoding."""

Bias = Callable[[int, int], Tensor]
"""``bias(n, m)`` returns the bias of the scores, ``(head, n, m)``, where the last query
is at the position of the last key."""


class EncoderLayer(nn.Module):
    r"""Multi-head attention and a position-wise feed-forward network.

    .. math::

        Y = X + \operatorname{MHA}(\operatorname{LN}(X)), \qquad
        Z = Y + \max(0, \operatorname{LN}(Y)\, W_1 + b_1)\, W_2 + b_2

    Parameters
    ----------
    d_model, n_head
        Model dimension, and number of heads.
    d_hidden
        Dimension of the hidden layer of the feed-forward network.
    generator
        The source of the initial weights.
    options
        More arguments of :class:`dian.attention.multi_head.MultiHeadAttention`.

    Notes
    -----
    Vaswani et al., 2017, arXiv:1706.03762, normalize after each residual connection
    (post-norm). Pre-norm trains without warm-up: Xiong et al., *On layer normalization
    in the transformer architecture*, 2020, arXiv:2002.04745.
    :func:`dian.attention.encoder_layer.encoder_layer_backward` has the gradients by
    hand.
    """

    def __init__(
        self,
        d_model: int,
        n_head: int,
        d_hidden: int,
        *,
        generator: torch.Generator | None = None,
        **options,
    ):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = MultiHeadAttention(
            d_model, n_head, generator=generator, **options
        )
        self.inner = linear(d_model, d_hidden, generator)
        self.outer = linear(d_hidden, d_model, generator)

    @property
    def weights(self) -> EncoderLayerWeights:
        """The parameters in the form that :func:`.encoder_layer` takes."""
        return EncoderLayerWeights(
            self.attention.projections,
            *(self.norm_1.weight, self.norm_1.bias),
            *(self.norm_2.weight, self.norm_2.bias),
            *(self.inner.weight.T, self.inner.bias),
            *(self.outer.weight.T, self.outer.bias),
        )

    def forward(
        self, X: Float[Tensor, "batch n D"], *, need_weights: bool = False, **options
    ):
        """Return the new features, and with ``need_weights`` the attention weights.

        ``options`` are ``mask``, ``bias`` and ``is_causal`` of
        :meth:`.MultiHeadAttention.forward`.
        """
        found = self.attention(self.norm_1(X), need_weights=need_weights, **options)
        attended, weights = found if need_weights else (found, None)
        Z = self._feed_forward(X + attended)
        return (Z, weights) if need_weights else Z

    def decode(
        self,
        X: Float[Tensor, "batch n D"],
        cache: Cache | None = None,
        *,
        bias: Float[Tensor, "*#shape #n #m"] | None = None,
    ) -> tuple[Float[Tensor, "batch n D"], Cache]:
        """Compute the next positions of a causal sequence.

        The arguments and the cache are those of :meth:`.MultiHeadAttention.decode`.
        """
        attended, cache = self.attention.decode(self.norm_1(X), cache, bias=bias)
        return self._feed_forward(X + attended), cache

    def _feed_forward(self, Y: Tensor) -> Tensor:
        """Add to each position what the feed-forward network computes."""
        return Y + self.outer(torch.relu(self.inner(self.norm_2(Y))))


class Encoder(nn.Module):
    r"""Layers of :class:`EncoderLayer` and a final layer normalization.

    Parameters
    ----------
    d_model, n_head, n_layer
        Model dimension, number of heads of a layer, and number of layers.
    d_hidden
        As of :class:`EncoderLayer`. Default: ``4 * d_model``.
    encode, bias
        How positions enter, see above (``rotate`` is one of the options). A module is
        registered, so its parameters are trained and saved.
    causal
        Whether each position attends only to itself and to those before it.
    attention_fn
        As in :class:`dian.attention.multi_head.MultiHeadAttention`. The default has our
        own backward pass, which is deterministic.
    options
        More arguments of :class:`dian.attention.multi_head.MultiHeadAttention`, such as
        ``rotate`` or ``generator``.

    Examples
    --------
    Without positions, a permuted input gives the permuted output:

    >>> encoder = Encoder(8, 2, 1, generator=torch.Generator().manual_seed(0))
    >>> X = torch.rand(1, 5, 8)
    >>> torch.allclose(encoder(X.flip(1)), encoder(X).flip(1), atol=1e-5)
    True
    """

    def __init__(
        self,
        d_model: int,
        n_head: int,
        n_layer: int,
        *,
        d_hidden: int | None = None,
        encode: Encode | None = None,
        bias: Bias | None = None,
        causal: bool = False,
        attention_fn: AttentionFn = attention,
        **options,
    ):
        super().__init__()
        self.encode, self.bias, self.causal = encode, bias, causal
        options["attention_fn"] = attention_fn
        self.layers = nn.ModuleList(
            EncoderLayer(d_model, n_head, d_hidden or 4 * d_model, **options)
            for _ in range(n_layer)
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(
        self, X: Float[Tensor, "batch n D"], *, mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "batch n D"]:
        """Return the features of each position.

        Parameters
        ----------
        X
            The input.
        mask
            ``True`` where a query may attend to a key, such as
            :func:`dian.attention.masks.padding_mask`; combined with the causal mask if
            the encoder is causal.
        """
        return self.norm(self._layers(X, mask)[0])

    def attention_weights(
        self, X: Float[Tensor, "batch n D"], *, mask: Bool[Tensor, "..."] | None = None
    ) -> list[Float[Tensor, "batch head n n"]]:
        """Return the attention weights of each layer."""
        return self._layers(X, mask, need_weights=True)[1]

    def decode(
        self, X: Float[Tensor, "batch n D"], caches: list[Cache] | None = None
    ) -> tuple[Float[Tensor, "batch n D"], list[Cache]]:
        """Compute the next positions of a causal sequence from the cached ones.

        Parameters
        ----------
        X
            The new positions, often one.
        caches
            What this method returned for the positions before. Default: none.

        Returns
        -------
        output
            Equal to the new positions of the output for the whole sequence.
        caches
            For the next call; those that were given are not modified.
        """
        require(self.causal, "only a causal encoder can decode, got causal=False")
        n_past, n = 0 if caches is None else caches[0].K.shape[2], X.shape[1]
        if self.encode is not None:
            # An encoding counts positions from 0, so zeros stand for those before.
            past = X.new_zeros(len(X), n_past, X.shape[2])
            X = self.encode(torch.cat([past, X], 1))[:, n_past:]
        bias = self._bias(n, n_past + n, X)
        new = []
        for layer, cache in zip(
            self.layers, caches or [None] * len(self.layers), strict=True
        ):
            X, cache = layer.decode(X, cache, bias=bias)
            new.append(cache)
        return self.norm(X), new

    def _bias(self, n: int, m: int, X: Tensor) -> Tensor | None:
        """Return the bias of the scores for the last n of m positions."""
        if self.bias is None:
            return None
        return at_least_float32(self.bias(n, m).to(X.device))

    def _layers(self, X, mask, need_weights=False):
        """Return the features after all layers, and the attention weights of each."""
        if self.encode is not None:
            X = self.encode(X)
        n, weights = X.shape[1], []
        options = {"mask": mask, "bias": self._bias(n, n, X), "is_causal": self.causal}
        for layer in self.layers:
            found = layer(X, need_weights=need_weights, **options)
            X, P = found if need_weights else (found, None)
            weights.append(P)
        return X, weights


class RowTransformer(nn.Module):
    r"""Classify an image, read as a sequence of rows, by the mean of the features.

    Parameters
    ----------
    input_size, num_classes
        Pixels of a row, and number of classes.
    d_model, n_head, n_layer
        As in :class:`Encoder`.
    generator
        The source of the initial weights.
    options
        More arguments of :class:`Encoder`.

    Examples
    --------
    >>> model = RowTransformer(generator=torch.Generator().manual_seed(0))
    >>> model(torch.zeros(3, 28, 28)).shape
    torch.Size([3, 10])
    >>> sum(p.numel() for p in model.parameters())
    102602
    """

    def __init__(
        self,
        input_size: int = 28,
        num_classes: int = 10,
        *,
        d_model: int = 64,
        n_head: int = 4,
        n_layer: int = 2,
        generator: torch.Generator | None = None,
        **options,
    ):
        super().__init__()
        self.enter = linear(input_size, d_model, generator)
        self.encoder = Encoder(d_model, n_head, n_layer, generator=generator, **options)
        self.leave = linear(d_model, num_classes, generator)

    def forward(
        self, images: Float[Tensor, "batch row column"]
    ) -> Float[Tensor, "batch num_classes"]:
        """Return the logits of each image."""
        return self.leave(self.encoder(self.enter(images)).mean(1))

    def attention_weights(
        self, images: Float[Tensor, "batch row column"]
    ) -> list[Float[Tensor, "batch head row row"]]:
        """Return the attention weights of each layer, from row (query) to row (key)."""
        return self.encoder.attention_weights(self.enter(images))


class TokenTransformer(nn.Module):
    r"""Compute logits at every position of a sequence of tokens.

    Parameters
    ----------
    vocab_size, num_classes
        Number of tokens, and of classes.
    d_model, n_head, n_layer
        As in :class:`Encoder`.
    generator
        The source of the initial weights; token embeddings have unit variance.
    options
        More arguments of :class:`Encoder`, such as ``causal=True``.

    Examples
    --------
    >>> model = TokenTransformer(11, 7, d_model=8, n_head=2, n_layer=1, causal=True)
    >>> model(torch.zeros(3, 5, dtype=torch.long)).shape
    torch.Size([3, 5, 7])
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int,
        *,
        d_model: int = 64,
        n_head: int = 4,
        n_layer: int = 2,
        generator: torch.Generator | None = None,
        **options,
    ):
        super().__init__()
        vectors = torch.randn(vocab_size, d_model, generator=generator)
        self.vectors = nn.Parameter(vectors)
        self.encoder = Encoder(d_model, n_head, n_layer, generator=generator, **options)
        self.leave = linear(d_model, num_classes, generator)

    def forward(
        self, tokens: Int[Tensor, "batch n"], *, mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "batch n num_classes"]:
        """Return the logits at each position."""
        return self.leave(self.encoder(self._embed(tokens), mask=mask))

    def attention_weights(
        self, tokens: Int[Tensor, "batch n"], *, mask: Bool[Tensor, "..."] | None = None
    ) -> list[Float[Tensor, "batch head n n"]]:
        """Return the attention weights of each layer."""
        return self.encoder.attention_weights(self._embed(tokens), mask=mask)

    def decode(
        self, tokens: Int[Tensor, "batch n"], caches: list[Cache] | None = None
    ) -> tuple[Float[Tensor, "batch n num_classes"], list[Cache]]:
        """Return the logits at the next positions; see :meth:`.Encoder.decode`.

        Examples
        --------
        One token at a time gives the same logits as all at once:

        >>> model = TokenTransformer(5, 5, d_model=8, n_head=2, causal=True)
        >>> tokens, caches, parts = torch.tensor([[1, 4, 2]]), None, []
        >>> for token in tokens.split(1, 1):
        ...     logits, caches = model.decode(token, caches)
        ...     parts.append(logits)
        >>> torch.allclose(torch.cat(parts, 1), model(tokens), atol=1e-5)
        True
        """
        output, caches = self.encoder.decode(self._embed(tokens), caches)
        return self.leave(output), caches

    def _embed(self, tokens: Tensor) -> Tensor:
        # A negative index counts from the end. (On a GPU the check would synchronize.)
        if not tokens.is_cuda and tokens.numel():
            least = tokens.min()
            require(least >= 0, f"tokens must not be negative, got {least}")
        return self.vectors[tokens.long()]


def linear(
    n_in: int, n_out: int, generator: torch.Generator | None = None
) -> nn.Linear:
    """Return a linear layer with Xavier-uniform weights from a generator, zero bias."""
    # nn.Linear would draw its initial weights from the global generator.
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out)
    xavier_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
