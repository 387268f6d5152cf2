r"""Gaussian mixtures: data whose optimal denoiser has a closed form.

The forward process turns a mixture of isotropic Gaussians into another such mixture.
Therefore everything that a network has to learn from samples is known exactly: the
density of :math:`x_t`, its score, the posterior of :math:`x_0` and the optimal (MMSE)
prediction of the noise. The chapter on diffusion compares networks and samplers with
these values.

Axis names: ``part`` counts the components :math:`k`, and ``d`` the entries of a point
:math:`x`. ``alpha_bar`` is :math:`\bar\alpha_t`, for each point or for all of them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from dian.diffusion.schedule import check_steps
from dian.errors import require, require_whole
from dian.numerics import all_finite, widened

Points = Float64[Tensor, "*batch d"]
"""Points with ``d`` entries each."""
AlphaBar = Float64[Tensor, "#*batch"]
r""":math:`\bar\alpha_t` of each point, or of all of them."""


class Mixture(NamedTuple):
    r"""The distribution :math:`\sum_k w_k\, \mathcal N(m_k, s_k^2 I)`."""

    weight: Float64[Tensor, "part"]
    """:math:`w_k`, which sum to 1."""
    mean: Float64[Tensor, "part d"]
    """:math:`m_k`."""
    variance: Float64[Tensor, "part"]
    """:math:`s_k^2`; 0 for a point mass."""


def ring(n: int = 8, radius: float = 0.8, variance: float = 0.005) -> Mixture:
    """Return ``n`` equal Gaussians in the plane, evenly spaced on a circle.

    >>> ring(4, radius=1.0).mean.round(decimals=3).abs().sum()
    tensor(4., dtype=torch.float64)
    """
    require_whole("n", n, 1)
    angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    mean = radius * torch.stack([angle.cos(), angle.sin()], 1)
    return Mixture(mean.new_full((n,), 1 / n), mean, mean.new_full((n,), variance))


def gaussian(mean: float, variance: float, d: int = 1) -> Mixture:
    """Return a single Gaussian with the same mean and variance in every entry.

    >>> gaussian(0.0, 1.0).mean
    tensor([[0.]], dtype=torch.float64)
    """
    require_whole("d", d, 1)
    one = torch.ones(1, dtype=torch.float64)
    return Mixture(one, mean * one.expand(1, d), variance * one)


@widened
def draw(
    mixture: Mixture, n: int, generator: torch.Generator | None = None
) -> Float64[Tensor, "{n} d"]:
    """Draw ``n`` independent samples.

    >>> draw(gaussian(3.0, 0.0), 2)
    tensor([[3.],
            [3.]], dtype=torch.float64)
    """
    require_whole("n", n, 0)
    finite = all(map(all_finite, mixture))
    require(finite, "mixture must be finite")
    part = torch.multinomial(mixture.weight, n, replacement=True, generator=generator)
    d = mixture.mean.shape[1]
    z = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return mixture.mean[part] + mixture.variance[part, None].sqrt() * z


@widened
def moments(mixture: Mixture) -> tuple[Float64[Tensor, "d"], Float64[Tensor, "d d"]]:
    """Return mean and covariance of the mixture.

    >>> mean, covariance = moments(ring(radius=1.0, variance=0.1))
    >>> covariance.round(decimals=6)  # half of the squared radius, and the variance
    tensor([[0.6000, 0.0000],
            [0.0000, 0.6000]], dtype=torch.float64)
    """
    w, m, s2 = mixture
    mean = w @ m
    spread = (w[:, None] * (m - mean)).T @ (m - mean)
    return mean, spread + (w @ s2) * torch.eye(len(mean)).to(m)


@widened
def noised(
    mixture: Mixture, alpha_bar: Float64[Tensor, "*batch"]
) -> tuple[Float64[Tensor, "*batch part d"], Float64[Tensor, "*batch part"]]:
    r"""Return means and variances of the mixture of :math:`x_t`.

    .. math::

        q_t(x) = \sum_k w_k\, \mathcal N(x; \sqrt{\bar\alpha_t}\, m_k, v_k I), \qquad
        v_k = \bar\alpha_t s_k^2 + 1 - \bar\alpha_t

    >>> noised(gaussian(2.0, 1.0), torch.tensor(0.25).double())
    (tensor([[1.]], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    a = alpha_bar[..., None]
    return a[..., None].sqrt() * mixture.mean, a * mixture.variance + 1 - a


@widened
def log_parts(
    mixture: Mixture, x: Points, alpha_bar: AlphaBar
) -> Float64[Tensor, "*batch part"]:
    r"""Return :math:`\ln w_k\, \mathcal N(x; \sqrt{\bar\alpha_t}\, m_k, v_k I)`.

    Their :func:`torch.logsumexp` is the log-density :math:`\ln q_t(x)`, their softmax
    the probability :math:`r_k(x)` that :math:`x` comes from component :math:`k`.

    >>> x = torch.zeros(1, 1).double()
    >>> log_parts(gaussian(0.0, 1.0), x, torch.tensor([1.0]).double())
    tensor([[-0.9189]], dtype=torch.float64)
    """
    m, v = noised(mixture, alpha_bar)
    square = (x[..., None, :] - m).square().sum(-1)
    normalised = x.shape[-1] * (2 * math.pi * v).log()
    return mixture.weight.log() - 0.5 * (square / v + normalised)


@widened
def score(mixture: Mixture, x: Points, alpha_bar: AlphaBar) -> Points:
    r"""Return the score :math:`\nabla \ln q_t(x)`, the gradient of the log-density.

    .. math::

        \nabla \ln q_t(x) = -\sum_k r_k(x)\, \frac{x - \sqrt{\bar\alpha_t}\, m_k}{v_k}

    >>> x = torch.tensor([[3.0]]).double()
    >>> score(gaussian(0.0, 1.0), x, torch.tensor([0.5]).double())
    tensor([[-3.]], dtype=torch.float64)
    """
    m, v = noised(mixture, alpha_bar)
    r = log_parts(mixture, x, alpha_bar).softmax(-1)
    return -((r / v)[..., None] * (x[..., None, :] - m)).sum(-2)


@widened
def optimal_epsilon(mixture: Mixture, x: Points, alpha_bar: AlphaBar) -> Points:
    r"""Return the optimal prediction of the noise, its conditional mean.

    .. math::

        \epsilon^*(x, t) = \mathbb E[\epsilon \mid x_t = x]
        = -\sqrt{1 - \bar\alpha_t}\, \nabla \ln q_t(x)

    >>> x = torch.tensor([[3.0]]).double()
    >>> optimal_epsilon(gaussian(0.0, 1.0), x, torch.tensor([0.75]).double())
    tensor([[1.5000]], dtype=torch.float64)
    """
    return -(1 - alpha_bar[..., None]).sqrt() * score(mixture, x, alpha_bar)


def optimal_denoiser(
    mixture: Mixture, alpha_bar: Float64[Tensor, "n"]
) -> Callable[[Tensor, Tensor], Tensor]:
    r"""Return :math:`\epsilon^*` as a model, to use in place of a network.

    Parameters
    ----------
    mixture
        The data.
    alpha_bar
        The table of a schedule; index ``t`` is timestep :math:`t`.

    Examples
    --------
    >>> model = optimal_denoiser(gaussian(0.0, 1.0), torch.tensor([1.0, 0.75]).double())
    >>> model(torch.tensor([[3.0]]), torch.tensor([1]))
    tensor([[1.5000]])
    """

    def model(x: Tensor, t: Tensor) -> Tensor:
        check_steps(t, x, last=len(alpha_bar) - 1)
        return optimal_epsilon(mixture, x.double(), alpha_bar[t].double()).to(x)

    return model


class PosteriorX0(NamedTuple):
    r"""Mean and variance of :math:`x_0` given :math:`x_t`."""

    mean: Points
    r""":math:`\mathbb E[x_0 \mid x_t]`."""
    variance: Float64[Tensor, "*batch"]
    r""":math:`\frac1d \operatorname{tr} \operatorname{Cov}(x_0 \mid x_t)`."""


@widened
def posterior_x0(mixture: Mixture, x: Points, alpha_bar: AlphaBar) -> PosteriorX0:
    r"""Return mean and variance of :math:`x_0` given :math:`x_t`.

    Given the component :math:`k`, both are those of a Gaussian,

    .. math::

        \mathbb E_k[x_0 \mid x] = m_k + \frac{\sqrt{\bar\alpha_t}\, s_k^2}{v_k}
        (x - \sqrt{\bar\alpha_t}\, m_k), \qquad
        \operatorname{Var}_k(x_0 \mid x) = \frac{s_k^2 (1 - \bar\alpha_t)}{v_k},

    and the components have the weights :math:`r_k(x)`.

    >>> x = torch.tensor([[2.0]]).double()
    >>> posterior_x0(gaussian(0.0, 1.0), x, torch.tensor([0.25]).double())
    PosteriorX0(mean=tensor([[1.]], dtype=...), variance=tensor([0.7500], dtype=...))
    """
    m, v = noised(mixture, alpha_bar)
    r = log_parts(mixture, x, alpha_bar).softmax(-1)
    gain = alpha_bar[..., None].sqrt() * mixture.variance / v
    mean_k = mixture.mean + gain[..., None] * (x[..., None, :] - m)
    variance_k = mixture.variance * (1 - alpha_bar[..., None]) / v
    mean = (r[..., None] * mean_k).sum(-2)
    between = (mean_k - mean[..., None, :]).square().mean(-1)
    return PosteriorX0(mean, (r * (variance_k + between)).sum(-1))
