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
from dian.attention.multi_head import AttentionFn, MultiHeadAttention
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

    def forward(
        self, X: Float[Tensor, "batch n D"], *, need_weights: bool = False, **options
    ):
        """Return the new features, and with ``need_weights`` the attention weights.

        ``options`` are ``mask``, ``bias`` and ``is_causal`` of
        :meth:`.MultiHeadAttention.forward`.
        """
        found = self.attention(self.norm_1(X), need_weights=need_weights, **options)
        attended, weights = found if need_weights else (found, None)
        Y = X + attended
        Z = Y + self.outer(torch.relu(self.inner(self.norm_2(Y))))
        return (Z, weights) if need_weights else Z


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

    def _layers(self, X, mask, need_weights=False):
        """Return the features after all layers, and the attention weights of each."""
        if self.encode is not None:
            X = self.encode(X)
        n, weights = X.shape[1], []
        bias = (
            None
            if self.bias is None
            else at_least_float32(self.bias(n, n).to(X.device))
        )
        options = {"mask": mask, "bias": bias, "is_causal": self.causal}
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
