r"""Layer normalization and its backward pass.

Axis names: ``*batch``, any leading axes, such as batch and position; ``D``, features,
over which each vector is normalized by itself.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dian.errors import require
from dian.numerics import widened


class Normalized(NamedTuple):
    r"""What :func:`layer_norm_backward` needs of the forward pass."""

    X_hat: Float[Tensor, "*batch D"]
    """The normalized features, before scale and shift."""
    rstd: Float[Tensor, "*batch 1"]
    """The reciprocal of the standard deviation."""


@widened
def layer_norm(
    X: Float[Tensor, "*batch D"],
    gamma: Float[Tensor, "D"],
    beta: Float[Tensor, "D"],
    eps: float = 1e-5,
) -> tuple[Float[Tensor, "*batch D"], Normalized]:
    r"""Normalize each vector to mean 0 and variance 1, then scale and shift.

    .. math::

        \hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}}, \qquad
        y = \gamma \odot \hat x + \beta, \qquad
        \mu = \frac1D \sum_i x_i, \qquad
        \sigma^2 = \frac1D \sum_i (x_i - \mu)^2

    Parameters
    ----------
    X
        The vectors.
    gamma, beta
        Scale and shift of each feature; they are learned.
    eps
        Added to the variance, so that a constant vector can be normalized: it becomes
        zero.

    Returns
    -------
    output
        The output :math:`y`.
    inner
        Intermediate results, for the backward pass.

    Notes
    -----
    Ba, Kiros and Hinton, *Layer Normalization*, 2016, arXiv:1607.06450. The variance
    divides by :math:`D`, as in :class:`torch.nn.LayerNorm`, and not by :math:`D - 1`.

    Examples
    --------
    >>> X, one, zero = torch.tensor([[1.0, 3.0]]), torch.ones(2), torch.zeros(2)
    >>> layer_norm(X, one, zero)[0]
    tensor([[-1.0000,  1.0000]])
    """
    n_feature = X.shape[-1]
    require(n_feature, "X must have at least one feature, got 0")
    fits = gamma.shape == beta.shape == (n_feature,)
    got = f"got {tuple(gamma.shape)} and {tuple(beta.shape)}"
    require(fits, f"gamma and beta must have the shape ({n_feature},), {got}")
    centered = X - X.mean(-1, keepdim=True)
    variance = centered.square().mean(-1, keepdim=True)
    rstd = torch.rsqrt(variance + eps)
    X_hat = centered * rstd
    return gamma * X_hat + beta, Normalized(X_hat, rstd)


class LayerNormGradients(NamedTuple):
    r"""Gradients with respect to the inputs of :func:`layer_norm`."""

    X: Float[Tensor, "*batch D"]
    gamma: Float[Tensor, "D"]
    beta: Float[Tensor, "D"]


@widened
def layer_norm_backward(
    Y_bar: Float[Tensor, "*batch D"], gamma: Float[Tensor, "D"], inner: Normalized
) -> LayerNormGradients:
    r"""Compute the gradients with respect to the vectors, their scale and their shift.

    .. math::

        \bar\gamma = \sum \bar y \odot \hat x, \qquad \bar\beta = \sum \bar y, \qquad
        \bar x = \frac{1}{\sqrt{\sigma^2 + \varepsilon}} \Bigl(
        g - \langle g \rangle - \hat x\, \langle g \odot \hat x \rangle \Bigr), \qquad
        g = \gamma \odot \bar y,

    with sums over all vectors, and :math:`\langle \cdot \rangle` for the mean over the
    features of one.

    Parameters
    ----------
    Y_bar
        The gradient of the loss with respect to the output.
    gamma
        As in :func:`layer_norm`.
    inner
        The intermediate results that it returned.

    Examples
    --------
    Adding a constant to a vector does not change its output, so the gradient sums to
    zero:

    >>> X, one, zero = torch.tensor([[1.0, 3.0, 8.0]]), torch.ones(3), torch.zeros(3)
    >>> _, inner = layer_norm(X, one, zero)
    >>> layer_norm_backward(torch.eye(3)[:1], one, inner).X.round(decimals=3)
    tensor([[ 0.1090, -0.1520,  0.0440]])
    """
    X_hat, rstd = inner
    # g = gamma Y_bar
    g = gamma * Y_bar
    # X_bar = rstd (g - mean(g) - X_hat mean(g X_hat))
    along = (g * X_hat).mean(-1, keepdim=True)
    X_bar = rstd * (g - g.mean(-1, keepdim=True) - X_hat * along)
    # gamma and beta are shared by all vectors: their gradients are sums
    return LayerNormGradients(
        X=X_bar,
        gamma=(Y_bar * X_hat).reshape(-1, len(gamma)).sum(0),
        beta=Y_bar.reshape(-1, len(gamma)).sum(0),
    )
