r"""One pre-norm encoder layer as a function, with its whole backward pass.

:class:`dian.attention.transformer.EncoderLayer` is the module that trains; it computes
the same, and autograd differentiates it.

Axis names: ``batch``; ``n``, number of positions; ``D``, model dimension; ``hidden``,
dimension of the hidden layer of the feed-forward network.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dian.attention.layer_norm import Normalized, layer_norm, layer_norm_backward
from dian.attention.multi_head import (
    Intermediates,
    Projections,
    Rotate,
    multi_head_attention,
    multi_head_backward,
)
from dian.numerics import widened


class EncoderLayerWeights(NamedTuple):
    r"""The parameters of an encoder layer, or their gradients."""

    attention: Projections
    gamma_1: Float[Tensor, "D"]
    beta_1: Float[Tensor, "D"]
    gamma_2: Float[Tensor, "D"]
    beta_2: Float[Tensor, "D"]
    W_1: Float[Tensor, "D hidden"]
    b_1: Float[Tensor, "hidden"]
    W_2: Float[Tensor, "hidden D"]
    b_2: Float[Tensor, "D"]


class EncoderIntermediates(NamedTuple):
    r"""What :func:`encoder_layer_backward` needs of the forward pass."""

    norm_1: Normalized
    U_1: Float[Tensor, "batch n D"]
    """The input of the attention."""
    attention: Intermediates
    norm_2: Normalized
    U_2: Float[Tensor, "batch n D"]
    """The input of the feed-forward network."""
    F: Float[Tensor, "batch n hidden"]
    """The hidden layer of the feed-forward network, after the ReLU."""


@widened
def encoder_layer(
    X: Float[Tensor, "batch n D"],
    weights: EncoderLayerWeights,
    n_head: int,
    n_kv_head: int | None = None,
    *,
    mask: Bool[Tensor, "*#shape #n #n"] | None = None,
    bias: Float[Tensor, "*#shape #n #n"] | None = None,
    rotate: Rotate | None = None,
) -> tuple[Float[Tensor, "batch n D"], EncoderIntermediates]:
    r"""Add to each position what attention and a feed-forward network compute.

    .. math::

        U_1 = \operatorname{LN}_1(X), \qquad Y = X + \operatorname{MHA}(U_1), \qquad
        U_2 = \operatorname{LN}_2(Y), \qquad F = \max(0, U_2 W_1 + b_1), \qquad
        Z = Y + F W_2 + b_2

    Parameters
    ----------
    X
        The input.
    weights
        The parameters.
    n_head, n_kv_head, mask, bias, rotate
        As in :func:`dian.attention.multi_head.multi_head_attention`.

    Returns
    -------
    output
        The output :math:`Z`.
    inner
        Intermediate results, for the backward pass.

    Notes
    -----
    The residual connections are those of Vaswani et al., 2017, arXiv:1706.03762, with
    layer normalization before each sublayer (pre-norm) as in Xiong et al., 2020,
    arXiv:2002.04745.

    Examples
    --------
    >>> from dian.attention.transformer import EncoderLayer
    >>> layer, X = EncoderLayer(8, 2, 16), torch.rand(1, 5, 8)
    >>> output, _ = encoder_layer(X, layer.weights, 2)
    >>> torch.allclose(output, layer(X), atol=1e-5)
    True
    """
    w = weights
    U_1, norm_1 = layer_norm(X, w.gamma_1, w.beta_1)
    attended, attention = multi_head_attention(
        U_1, U_1, w.attention, n_head, n_kv_head, mask=mask, bias=bias, rotate=rotate
    )
    Y = X + attended
    U_2, norm_2 = layer_norm(Y, w.gamma_2, w.beta_2)
    F = torch.relu(U_2 @ w.W_1 + w.b_1)
    Z = Y + F @ w.W_2 + w.b_2
    return Z, EncoderIntermediates(norm_1, U_1, attention, norm_2, U_2, F)


class EncoderLayerGradients(NamedTuple):
    r"""Gradients with respect to the inputs of :func:`encoder_layer`."""

    X: Float[Tensor, "batch n D"]
    weights: EncoderLayerWeights


@widened
def encoder_layer_backward(
    Z_bar: Float[Tensor, "batch n D"],
    weights: EncoderLayerWeights,
    inner: EncoderIntermediates,
    *,
    rotate_back: Rotate | None = None,
) -> EncoderLayerGradients:
    r"""Compute the gradients with respect to the input and every parameter.

    Through the feed-forward network, with :math:`A = U_2 W_1 + b_1`:

    .. math::

        \bar W_2 = F^\top \bar Z, \qquad \bar b_2 = \mathbf 1^\top \bar Z, \qquad
        \bar A = (\bar Z W_2^\top) \odot [F > 0],

    .. math::

        \bar W_1 = U_2^\top \bar A, \qquad \bar b_1 = \mathbf 1^\top \bar A, \qquad
        \bar U_2 = \bar A\, W_1^\top,

    and around both sublayers, where each residual connection adds the gradient that
    passed it by:

    .. math::

        \bar Y = \bar Z + \operatorname{LN}_2'^\top \bar U_2, \qquad
        \bar X = \bar Y + \operatorname{LN}_1'^\top \operatorname{MHA}'^\top \bar Y .

    Parameters
    ----------
    Z_bar
        The gradient of the loss with respect to the output.
    weights
        As in :func:`encoder_layer`.
    inner
        The intermediate results that it returned.
    rotate_back
        As in :func:`dian.attention.multi_head.multi_head_backward`.

    Examples
    --------
    The last bias is added to every position, here five:

    >>> from dian.attention.transformer import EncoderLayer
    >>> weights = EncoderLayer(8, 2, 16).weights
    >>> Z, inner = encoder_layer(torch.rand(1, 5, 8), weights, 2)
    >>> encoder_layer_backward(torch.ones_like(Z), weights, inner).weights.b_2
    tensor([5., 5., 5., 5., 5., 5., 5., 5.])
    """
    w = weights

    def rows(x: Tensor) -> Tensor:
        return x.flatten(0, 1)  # the sums below run over sequences and positions

    # A_bar = (Z_bar W_2^T) [F > 0]
    A_bar = (Z_bar @ w.W_2.T) * (inner.F > 0)
    # U_2_bar = A_bar W_1^T, then through the second layer normalization
    norm_2 = layer_norm_backward(A_bar @ w.W_1.T, w.gamma_2, inner.norm_2)
    # Y_bar = Z_bar (residual connection) + the gradient through the network
    Y_bar = Z_bar + norm_2.X
    attention = multi_head_backward(
        Y_bar, inner.U_1, inner.U_1, w.attention, inner.attention,
        rotate_back=rotate_back,
    )  # fmt: skip
    # U_1 has two uses, as queries and as keys and values
    U_1_bar = attention.X_q + attention.X_kv
    norm_1 = layer_norm_backward(U_1_bar, w.gamma_1, inner.norm_1)
    gradients = EncoderLayerWeights(
        attention=attention.weights,
        gamma_1=norm_1.gamma,
        beta_1=norm_1.beta,
        gamma_2=norm_2.gamma,
        beta_2=norm_2.beta,
        # W_1_bar = U_2^T A_bar, and so on
        W_1=rows(inner.U_2).T @ rows(A_bar),
        b_1=rows(A_bar).sum(0),
        W_2=rows(inner.F).T @ rows(Z_bar),
        b_2=rows(Z_bar).sum(0),
    )
    # X_bar = Y_bar (residual connection) + the gradient through the attention
    return EncoderLayerGradients(X=Y_bar + norm_1.X, weights=gradients)
