r"""The variational bound on the negative log-likelihood of a diffusion model.

.. math::

    -\log p_\theta(x_0) \le L_T + \sum_{t=2}^{T} L_{t-1} + L_0

All terms are in nats, summed over the entries of an image. The conventions for ``t``
and ``n`` are those of :mod:`dian.diffusion.process`; a ``model`` is anything that
:func:`dian.diffusion.sampling.ddpm_sample` takes.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from dian.diffusion.posterior import posterior
from dian.diffusion.process import (
    Model,
    check_images,
    check_prediction_type,
    q_sample,
    standard_normal,
)
from dian.diffusion.sampling import (
    Denoiser,
    in_float32,
    reverse_mean,
    reverse_variance,
)
from dian.diffusion.schedule import Images, NoiseSchedule, at_step
from dian.errors import require, require_whole
from dian.numerics import at_least_float32, widened

Entries = Float[Tensor, "*n"]
"""One number for each entry of some images."""
Variances = Float[Tensor, "#*n"]
"""One number for each entry, or for several of them."""

Decoder = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes images, means and variances, and returns the log-probability of each entry."""


@widened
def gaussian_kl(
    mean_1: Entries, variance_1: Variances, mean_2: Entries, variance_2: Variances
) -> Entries:
    r"""Return the Kullback-Leibler divergence of two Gaussians, entry by entry.

    .. math::

        D\big(\mathcal N(\mu_1, s_1^2) \,\Vert\, \mathcal N(\mu_2, s_2^2)\big) = \frac12
        \Big[ \ln\frac{s_2^2}{s_1^2} - 1 + \frac{s_1^2 + (\mu_1 - \mu_2)^2}{s_2^2} \Big]

    Against a standard normal distribution it is appendix B of Kingma and Welling,
    *Auto-Encoding Variational Bayes*, 2014, arXiv:1312.6114.

    >>> one = torch.ones(1)
    >>> gaussian_kl(one, one, 0 * one, one)
    tensor([0.5000])
    """
    ratio = variance_1 / variance_2
    return 0.5 * (ratio - 1 - ratio.log() + (mean_1 - mean_2) ** 2 / variance_2)


def discrete_log_probability(
    x_0: Entries, mean: Entries, variance: Variances
) -> Float64[Tensor, "*n"]:
    r"""Return the log-probability of each pixel under a discretized Gaussian.

    The Gaussian is integrated over 256 bins, one for each byte, of which the first and
    the last extend to infinity:

    .. math::

        p(x) = \int_{\delta_-(x)}^{\delta_+(x)} \mathcal N(y; \mu, \sigma^2)\, dy,
        \qquad
        \delta_\pm(x) = x \pm \tfrac{1}{255}, \qquad
        \delta_-(-1) = -\infty, \quad \delta_+(1) = \infty .

    Parameters
    ----------
    x_0
        Images on the scale of :func:`dian.diffusion.pixels.signed`.
    mean, variance
        Those of the Gaussian.

    Notes
    -----
    Equation 13 of Ho et al., 2020, arXiv:2006.11239. The difference of two values of
    the distribution function is computed from their logarithms, and in the lower tail,
    where neither is rounded to 1. Therefore the log-probability of a pixel far in a
    tail is finite. The authors' code clamps the probability instead.

    Examples
    --------
    A Gaussian much wider than the range puts half of its mass into each open bin:

    >>> x = torch.tensor([-1.0, 1.0])
    >>> discrete_log_probability(x, 0 * x, torch.tensor(1e8)).exp()
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    check_images(x_0)
    x, mu, sigma = x_0.double(), mean.double(), variance.double().sqrt()
    lower = torch.where(x < -1 + 1 / 255, -torch.inf, (x - 1 / 255 - mu) / sigma)
    upper = torch.where(x > 1 - 1 / 255, torch.inf, (x + 1 / 255 - mu) / sigma)
    # P(a < z < b) = P(-b < z < -a): reflect the bins that lie in the upper tail
    over = lower + upper > 0
    a, b = torch.where(over, -upper, lower), torch.where(over, -lower, upper)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    # log(e^b - e^a) = b + log(1 - e^(a - b))
    return log_b + torch.log(-torch.expm1(log_a - log_b))


@widened
def log_density(x_0: Entries, mean: Entries, variance: Variances) -> Entries:
    r"""Return :math:`\ln \mathcal N(x_0; \mu, \sigma^2)`, for continuous data.

    >>> one = torch.ones(1)
    >>> log_density(one, one, one)
    tensor([-0.9189])
    """
    return -0.5 * ((x_0 - mean) ** 2 / variance + (2 * math.pi * variance).log())


@widened
def bits_per_dimension(nats: Entries, d: int) -> Entries:
    r"""Convert nats for ``d`` entries to bits per entry: :math:`L / (d \ln 2)`.

    >>> bits_per_dimension(torch.tensor(784 * math.log(256)), 784)
    tensor(8.)
    """
    require_whole("d", d, 1)
    return nats / (d * math.log(2))


@widened
def prior_term(schedule: NoiseSchedule, x_0: Images) -> Float[Tensor, "batch"]:
    r"""Return :math:`L_T = D(q(x_T \mid x_0) \,\Vert\, \mathcal N(0, I))`.

    It has no parameters: it measures how much of the image is left in :math:`x_T`.
    Equation 5 of Ho et al., 2020, arXiv:2006.11239.

    >>> from dian.diffusion.schedule import linear_schedule
    >>> prior_term(linear_schedule(), torch.ones(1, 100)).item()
    0.00202
    """
    check_images(x_0)
    a = schedule.alpha_bar[-1].to(x_0)
    one = torch.ones_like(a)
    terms = gaussian_kl(a.sqrt() * x_0, 1 - a, torch.zeros_like(x_0), one)
    return terms.flatten(1).sum(1)


class BoundTerm(NamedTuple):
    """One term of the bound, and the error of the prediction, for each image."""

    nats: Float[Tensor, "batch"]
    r""":math:`L_{t-1}`, summed over the entries."""
    square: Float[Tensor, "batch"]
    r"""The mean over the entries of :math:`(x_0 - \hat x_0)^2`."""


@torch.no_grad()
def bound_term(
    schedule: NoiseSchedule,
    model: Model | Denoiser,
    x_0: Images,
    t: Int[Tensor, "batch"],
    epsilon: Images,
    *,
    variance: str | Float64[Tensor, "n"] = "beta",
    decoder: Decoder = discrete_log_probability,
) -> BoundTerm:
    r"""Estimate :math:`L_{t-1}` from one noisy version of each image.

    .. math::

        L_{t-1} = D\big( q(x_{t-1} \mid x_t, x_0) \,\Vert\, p_\theta(x_{t-1} \mid x_t)
        \big) \quad (t \ge 2), \qquad L_0 = -\ln p_\theta(x_0 \mid x_1)

    Parameters
    ----------
    schedule, x_0, t, epsilon
        As in :func:`dian.diffusion.process.q_sample`, with timesteps from 1 to T.
    model, variance
        As in :func:`dian.diffusion.sampling.ddpm_sample`.
    decoder
        The likelihood of the last step: :func:`discrete_log_probability` for bytes,
        :func:`log_density` for continuous data.

    Notes
    -----
    Equation 5 of Ho et al., 2020, arXiv:2006.11239.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> x_0, t = torch.full((1, 7), 0.2), torch.tensor([500])
    >>> denoiser = Denoiser(lambda x_t, t: x_0, "x_0")
    >>> bound_term(linear_schedule(), denoiser, x_0, t, torch.randn(1, 7),
    ...            variance="beta_tilde").nats.round(decimals=4)
    tensor([0.])
    """
    denoiser, x_0 = in_float32(model, x_0)
    epsilon = at_least_float32(epsilon)
    x_t = q_sample(schedule, x_0, t, epsilon)
    x_0_hat, epsilon_hat = denoiser(schedule, x_t, t)
    mean = reverse_mean(schedule, x_t, t, epsilon_hat)
    sigma2 = at_step(reverse_variance(schedule, variance), t, x_t)
    true_mean = reverse_mean(schedule, x_t, t, epsilon)
    beta_tilde = at_step(posterior(schedule).beta_tilde, t, x_t)
    nats = gaussian_kl(true_mean, beta_tilde, mean, sigma2).flatten(1).sum(1)
    first = t == 1
    if first.any():
        log_p = decoder(x_0[first], mean[first], sigma2[first])
        nats[first] = -log_p.flatten(1).sum(1).to(nats)
    return BoundTerm(nats, (x_0 - x_0_hat).square().flatten(1).mean(1))


class Bound(NamedTuple):
    """All terms of the bound for each image; row t is timestep t, row 0 is zero."""

    prior: Float[Tensor, "batch"]
    """:math:`L_T`."""
    terms: Float[Tensor, "n batch"]
    r"""Row t is :math:`L_{t-1}`."""
    square: Float[Tensor, "n batch"]
    r"""Row t is the mean squared error of :math:`\hat x_0` at timestep t."""


def variational_bound(
    schedule: NoiseSchedule,
    model: Model | Denoiser,
    x_0: Images,
    *,
    variance: str | Float64[Tensor, "n"] = "beta",
    decoder: Decoder = discrete_log_probability,
    generator: torch.Generator | None = None,
) -> Bound:
    """Estimate every term of the bound, from one noisy image for each timestep.

    Parameters
    ----------
    schedule, model, x_0, variance, decoder
        As in :func:`bound_term`. The model is called T times.
    generator
        The source of the noise.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> denoiser = Denoiser(lambda x_t, t: 0 * x_t + 0.2, "x_0")
    >>> variational_bound(linear_schedule(7, 0.1, 0.6), denoiser,
    ...                   torch.full((2, 3), 0.2)).terms.shape
    torch.Size([8, 2])
    """
    denoiser, x_0 = in_float32(model, x_0)
    prior = prior_term(schedule, x_0)
    options = {"variance": reverse_variance(schedule, variance), "decoder": decoder}
    rows = [BoundTerm(0 * prior, 0 * prior)]
    for step in range(1, schedule.T + 1):
        t = torch.full(x_0.shape[:1], step, device=x_0.device)
        epsilon = standard_normal(x_0, generator)
        rows.append(bound_term(schedule, denoiser, x_0, t, epsilon, **options))
    terms, square = (torch.stack(column) for column in zip(*rows, strict=True))
    return Bound(prior, terms, square)


@widened
def total_bits(bound: Bound, d: int) -> Float[Tensor, "batch"]:
    """Return the whole bound, in bits per dimension of images with ``d`` entries.

    >>> terms, square = torch.full((3, 1), math.log(2)), torch.zeros(3, 1)
    >>> total_bits(Bound(torch.zeros(1), terms, square), d=3)
    tensor([1.])
    """
    return bits_per_dimension(bound.prior + bound.terms.sum(0), d)


class RateDistortion(NamedTuple):
    """Rate and distortion of progressive coding, after each timestep."""

    rate: Float[Tensor, "n"]
    r"""Bits per dimension that are sent until :math:`x_t` is known: :math:`L_T`, and
    :math:`L_{s-1}` for all :math:`s > t`. Index 0 is the whole bound."""
    distortion: Float[Tensor, "n"]
    r"""Root mean squared error of :math:`\hat x_0` from :math:`x_t`; 0 at index 0."""


@widened
def rate_distortion(bound: Bound, d: int) -> RateDistortion:
    r"""Return rate and distortion of the code :math:`x_T, x_{T-1}, \dots`.

    Parameters
    ----------
    bound
        The terms of some images; the result is the mean over the images.
    d
        Number of entries of an image.

    Notes
    -----
    Section 4.3 of Ho et al., 2020. Their distortion is that of pixels from 0 to 255,
    and thus 127.5 times as large.

    Examples
    --------
    >>> bound = Bound(torch.zeros(1), torch.tensor([[0.0], [3.0], [1.0]]) * math.log(2),
    ...               torch.tensor([[0.0], [0.01], [0.25]]))
    >>> rate, distortion = rate_distortion(bound, d=1)
    >>> rate, distortion
    (tensor([4., 1., 0.]), tensor([0.0000, 0.1000, 0.5000]))
    """
    require(len(bound.prior), "bound must be that of one image or more")
    terms = bound.terms.mean(1)
    after = terms.sum() - terms.cumsum(0)  # of all timesteps s > t
    rate = bits_per_dimension(bound.prior.mean() + after, d)
    return RateDistortion(rate, bound.square.mean(1).sqrt())


def bound_weight(
    schedule: NoiseSchedule,
    prediction_type: str = "epsilon",
    variance: str | Float64[Tensor, "n"] = "beta",
) -> Float64[Tensor, "n"]:
    r"""Return the weight that the bound gives to the squared error of a prediction.

    For a model that predicts :math:`\epsilon`, the weight is
    :math:`\beta_t^2 / (2 \sigma_t^2 \alpha_t (1 - \bar\alpha_t))`, and for one that
    predicts :math:`\tilde\mu_t` it is :math:`1 / (2 \sigma_t^2)`. Index 0 is 0.

    Parameters
    ----------
    schedule, variance
        As in :func:`dian.diffusion.sampling.reverse_variance`.
    prediction_type
        One of :data:`dian.diffusion.process.PREDICTION_TYPES`.

    Notes
    -----
    Equations 8 and 12 of Ho et al., 2020.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> weight = bound_weight(linear_schedule())
    >>> weight[1].item(), weight[1:].min().item(), weight[-1].item()
    (0.500, 0.00497, 0.0102)
    """
    check_prediction_type(prediction_type)
    beta, alpha, alpha_bar = schedule
    # the squared error of the mean, divided by that of the prediction
    scale = {
        "epsilon": beta**2 / (alpha * (1 - alpha_bar)),
        "x_0": posterior(schedule).c_0 ** 2,
        "v": posterior(schedule).c_0 ** 2 * (1 - alpha_bar),
        "mu": torch.ones_like(beta),
        "score": beta**2 / alpha,
    }[prediction_type]
    weight = scale / (2 * reverse_variance(schedule, variance))
    weight[0] = 0
    return weight
