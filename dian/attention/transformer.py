r"""A small transformer encoder, for images read by rows and for sequences of tokens.

How positions enter is given by three functions: ``encode`` adds something to the input,
``rotate`` turns queries and keys, ``bias`` is added to the scores. Without any of them,
the network cannot tell one order of its input from another.

Axis names: ``batch``, ``n`` positions, ``D`` features of one of them.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dian.attention.dot_product import attention
from dian.attention.masks import causal_mask
from dian.attention.multi_head import Attend, MultiHeadAttention, Rotate

Encode = Callable[[Tensor], Tensor]
"""``encode(X)`` returns ``X`` of shape ``(batch, n, D)`` with positions added to it."""

Bias = Callable[[int, int], Tensor]
"""``bias(n, m)`` returns what is added to the scores, ``(head, n, m)``; the last query
stands at the last key."""


class EncoderLayer(nn.Module):
    r"""Attention, then two layers for each position alone; each is added to its input.

    .. math::

        Y = X + \operatorname{MHA}(\operatorname{LN}(X)), \qquad
        Z = Y + \max(0, \operatorname{LN}(Y)\, W_1 + b_1)\, W_2 + b_2

    Parameters
    ----------
    d_model, n_head, d_hidden
        Features of a position, heads, and width of the layer between.
    generator
        The source of the start weights.
    options
        For :class:`dian.attention.multi_head.MultiHeadAttention`.

    Notes
    -----
    Vaswani et al., 2017, arXiv:1706.03762, normalise after each addition (post-norm).
    Here it is before (pre-norm), which trains without a warm-up: Xiong et al., *On
    layer normalization in the transformer architecture*, 2020, arXiv:2002.04745.
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
        self,
        X: Float[Tensor, "batch n D"],
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        *,
        need_weights: bool = False,
    ):
        """Return the new features; with ``need_weights``, and the attention weights."""
        found = self.attention(
            self.norm_1(X), mask=mask, bias=bias, need_weights=need_weights
        )
        found, weights = found if need_weights else (found, None)
        Y = X + found
        Z = Y + self.outer(torch.relu(self.inner(self.norm_2(Y))))
        return (Z, weights) if need_weights else Z


class Encoder(nn.Module):
    r"""Some layers of :class:`EncoderLayer`, and a last normalisation.

    Parameters
    ----------
    d_model, n_head, n_layer
        Features of a position, heads of a layer, and layers.
    d_hidden
        Width of the layer between; four times ``d_model`` if nothing is said.
    encode, rotate, bias
        How positions enter, see above; ``encode`` may be a module with parameters.
    causal
        Whether each position reads itself and those before it only.
    attend
        As in :class:`dian.attention.multi_head.MultiHeadAttention`. The default has our
        own backward pass, and gives the same numbers every time.
    generator
        The source of the start weights.

    Examples
    --------
    Without positions, another order of the input is the same order of the output:

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
        rotate: Rotate | None = None,
        bias: Bias | None = None,
        causal: bool = False,
        attend: Attend = attention,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.encode, self.bias, self.causal = encode, bias, causal
        options = {"rotate": rotate, "attend": attend, "generator": generator}
        self.layers = nn.ModuleList(
            EncoderLayer(d_model, n_head, d_hidden or 4 * d_model, **options)
            for _ in range(n_layer)
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(
        self, X: Float[Tensor, "batch n D"], mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "batch n D"]:
        """Return new features of every position.

        Parameters
        ----------
        X
            The input.
        mask
            ``True`` where a query may read a key, such as
            :func:`dian.attention.masks.padding_mask`; the causal one is added by
            itself.
        """
        X, _ = self._through(X, mask, need_weights=False)
        return self.norm(X)

    def weights(
        self, X: Float[Tensor, "batch n D"], mask: Bool[Tensor, "..."] | None = None
    ) -> list[Float[Tensor, "batch head n n"]]:
        """Return the attention weights of each layer."""
        return self._through(X, mask, need_weights=True)[1]

    def _through(self, X, mask, *, need_weights):
        """Return the features after all layers, and the weights of each if wanted."""
        n, weights = X.shape[1], []
        if self.encode is not None:
            X = self.encode(X)
        bias = None if self.bias is None else self.bias(n, n).to(X)
        if self.causal:
            past = causal_mask(n, device=X.device)
            mask = past if mask is None else mask & past
        for layer in self.layers:
            found = layer(X, mask, bias, need_weights=need_weights)
            X, P = found if need_weights else (found, None)
            weights.append(P)
        return X, weights


class RowTransformer(nn.Module):
    r"""Read an image as a set of rows, and classify it from the mean of the features.

    Parameters
    ----------
    d, q
        Pixels of a row, and number of classes.
    d_model, n_head, n_layer
        As in :class:`Encoder`.
    generator
        The source of the start weights.
    options
        For :class:`Encoder`.

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
        d: int = 28,
        q: int = 10,
        *,
        d_model: int = 64,
        n_head: int = 4,
        n_layer: int = 2,
        generator: torch.Generator | None = None,
        **options,
    ):
        super().__init__()
        self.enter = linear(d, d_model, generator)
        self.encoder = Encoder(d_model, n_head, n_layer, generator=generator, **options)
        self.leave = linear(d_model, q, generator)

    def forward(
        self, images: Float[Tensor, "batch row column"]
    ) -> Float[Tensor, "batch q"]:
        """Return the logits of each image."""
        return self.leave(self.encoder(self.enter(images)).mean(1))

    def weights(
        self, images: Float[Tensor, "batch row column"]
    ) -> list[Float[Tensor, "batch head row row"]]:
        """Return what each head of each layer looks at: row reads column."""
        return self.encoder.weights(self.enter(images))


class TokenTransformer(nn.Module):
    r"""Read a sequence of tokens, and give logits at every position.

    Parameters
    ----------
    n_token, q
        How many tokens there are, and how many classes.
    d_model, n_head, n_layer
        As in :class:`Encoder`.
    generator
        The source of the start weights; the tokens start with unit variance.
    options
        For :class:`Encoder`, such as ``causal=True``.

    Examples
    --------
    >>> model = TokenTransformer(11, 7, d_model=8, n_head=2, n_layer=1, causal=True)
    >>> model(torch.zeros(3, 5, dtype=torch.long)).shape
    torch.Size([3, 5, 7])
    """

    def __init__(
        self,
        n_token: int,
        q: int,
        *,
        d_model: int = 64,
        n_head: int = 4,
        n_layer: int = 2,
        generator: torch.Generator | None = None,
        **options,
    ):
        super().__init__()
        vectors = torch.randn(n_token, d_model, generator=generator)
        self.vectors = nn.Parameter(vectors)
        self.encoder = Encoder(d_model, n_head, n_layer, generator=generator, **options)
        self.leave = linear(d_model, q, generator)

    def forward(
        self, tokens: Int[Tensor, "batch n"], mask: Bool[Tensor, "..."] | None = None
    ) -> Float[Tensor, "batch n q"]:
        """Return the logits at each position."""
        return self.leave(self.encoder(self._vectors_of(tokens), mask))

    def weights(
        self, tokens: Int[Tensor, "batch n"], mask: Bool[Tensor, "..."] | None = None
    ) -> list[Float[Tensor, "batch head n n"]]:
        """Return what each head of each layer looks at."""
        return self.encoder.weights(self._vectors_of(tokens), mask)

    def _vectors_of(self, tokens: Tensor) -> Tensor:
        # It would count from the end. (A GPU would be waited for.)
        if not tokens.is_cuda and tokens.numel() and tokens.min() < 0:
            raise ValueError(f"tokens must not be negative, got {tokens.min()}")
        return self.vectors[tokens]


def linear(
    n_in: int, n_out: int, generator: torch.Generator | None = None
) -> nn.Linear:
    """Make a layer with Xavier-uniform weights and no bias yet, from a generator."""
    # Made without values: torch would draw them from the global generator.
    layer = nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
