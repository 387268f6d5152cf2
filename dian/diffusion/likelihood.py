r"""What a diffusion model pays for an image: the variational bound, term by term.

.. math::

    -\log p_\theta(x_0) \le L_T + \sum_{t=2}^{T} L_{t-1} + L_0

All terms are in nats for a whole image. Index ``t`` is step :math:`t`, and ``n`` is
:math:`T + 1`, as in :mod:`dian.diffusion`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from dian.diffusion.process import (
    TARGETS,
    Model,
    check_images,
    posterior,
    predict_x0,
    q_sample,
    standard_normal,
)
from dian.diffusion.sampling import clipped, reverse_mean, reverse_variance
from dian.diffusion.schedule import NoiseSchedule, at_step, check_steps

Decoder = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes images, means and variances, and returns the log-probability of each entry."""


def gaussian_kl(
    mean_1: Float[Tensor, "*n"],
    variance_1: Float[Tensor, "#*n"],
    mean_2: Float[Tensor, "*n"],
    variance_2: Float[Tensor, "#*n"],
) -> Float[Tensor, "*n"]:
    r"""Return the divergence of one Gaussian from another, entry by entry, in nats.

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
    x_0: Float[Tensor, "*n"],
    mean: Float[Tensor, "*n"],
    variance: Float[Tensor, "#*n"],
) -> Float64[Tensor, "*n"]:
    r"""Return the log-probability of each byte, scaled to [-1, 1], under a Gaussian.

    The Gaussian is cut into 256 bins, one for each byte, of which the first and the
    last are open to the outside:

    .. math::

        p(x) = \int_{\delta_-(x)}^{\delta_+(x)} \mathcal N(y; \mu, \sigma^2)\, dy,
        \qquad
        \delta_\pm(x) = x \pm \tfrac{1}{255}, \qquad
        \delta_-(-1) = -\infty, \quad \delta_+(1) = \infty .

    Parameters
    ----------
    x_0
        Bytes on the scale of :func:`dian.diffusion.pixels.from_bytes`.
    mean, variance
        Those of the Gaussian.

    Raises
    ------
    TypeError
        If they are the bytes themselves.

    Notes
    -----
    Equation 13 of Ho et al., 2020, arXiv:2006.11239. The difference of two values of
    the distribution function is taken between their logarithms and on the lower side,
    where neither is rounded to 1; so a byte far out has a log-probability that is large
    and finite. The authors' code puts a floor under the probability instead.

    Examples
    --------
    A Gaussian much wider than the range puts half of itself into each open end:

    >>> x = torch.tensor([-1.0, 1.0])
    >>> discrete_log_probability(x, 0 * x, torch.tensor(1e8)).exp()
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    check_images(x_0)
    x, mu, sigma = x_0.double(), mean.double(), variance.double().sqrt()
    lower = torch.where(x < -1 + 1 / 255, -torch.inf, (x - 1 / 255 - mu) / sigma)
    upper = torch.where(x > 1 - 1 / 255, torch.inf, (x + 1 / 255 - mu) / sigma)
    # P(a < z < b) = P(-b < z < -a): turn the bin over if it lies on the upper side
    over = lower + upper > 0
    a, b = torch.where(over, -upper, lower), torch.where(over, -lower, upper)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    # log(e^b - e^a) = b + log(1 - e^(a - b))
    return log_b + torch.log(-torch.expm1(log_a - log_b))


def log_density(
    x_0: Float[Tensor, "*n"],
    mean: Float[Tensor, "*n"],
    variance: Float[Tensor, "#*n"],
) -> Float[Tensor, "*n"]:
    r"""Return :math:`\ln \mathcal N(x_0; \mu, \sigma^2)`, for data with no bins.

    >>> one = torch.ones(1)
    >>> log_density(one, one, one)
    tensor([-0.9189])
    """
    return -0.5 * ((x_0 - mean) ** 2 / variance + (2 * math.pi * variance).log())


def bits_per_dimension(nats: Float[Tensor, "*n"], d: int) -> Float[Tensor, "*n"]:
    r"""Turn nats for ``d`` entries into bits for each: :math:`L / (d \ln 2)`.

    >>> bits_per_dimension(torch.tensor(784 * math.log(256)), 784)
    tensor(8.)
    """
    return nats / (d * math.log(2))


def prior_term(
    schedule: NoiseSchedule, x_0: Float[Tensor, "batch *x"]
) -> Float[Tensor, "batch"]:
    r"""Return :math:`L_T = D(q(x_T \mid x_0) \,\Vert\, \mathcal N(0, I))`.

    Nothing in it can be learnt: it is what the last step leaves of the image.
    Equation 5 of Ho et al., 2020, arXiv:2006.11239.

    Raises
    ------
    TypeError
        If the images are bytes.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> prior_term(linear_schedule(), torch.ones(1, 100)).item()  # of 100 entries
    0.00202
    """
    check_images(x_0)
    a = schedule.alpha_bar[-1].to(x_0)
    one = torch.ones_like(a)
    terms = gaussian_kl(a.sqrt() * x_0, 1 - a, torch.zeros_like(x_0), one)
    return terms.flatten(1).sum(1)


class BoundTerm(NamedTuple):
    """One term of the bound for each image, and the squared error on the way."""

    nats: Float[Tensor, "batch"]
    r""":math:`L_{t-1}`, of the whole image."""
    square: Float[Tensor, "batch"]
    r"""The mean over the entries of :math:`(x_0 - \hat x_0)^2`."""


@torch.no_grad()
def bound_term(
    schedule: NoiseSchedule,
    model: Model,
    x_0: Float[Tensor, "batch *x"],
    t: Int[Tensor, "batch"],
    epsilon: Float[Tensor, "batch *x"],
    *,
    variance: str | Float64[Tensor, "n"],
    clip: float | None,
    target: str = "epsilon",
    decoder: Decoder = discrete_log_probability,
) -> BoundTerm:
    r"""Return :math:`L_{t-1}` at one noisy version of each image.

    .. math::

        L_{t-1} = D\big( q(x_{t-1} \mid x_t, x_0) \,\Vert\, p_\theta(x_{t-1} \mid x_t)
        \big) \quad (t \ge 2), \qquad L_0 = -\ln p_\theta(x_0 \mid x_1)

    Parameters
    ----------
    schedule, x_0, t, epsilon
        As in :func:`dian.diffusion.process.q_sample`; each step is from 1 to T.
    model, variance, clip, target
        As in :func:`dian.diffusion.sampling.ddpm_sample`: what is measured is what
        samples.
    decoder
        The last step: :func:`discrete_log_probability` for bytes,
        :func:`log_density` for data of any value.

    Raises
    ------
    TypeError, ValueError
        As :func:`dian.diffusion.process.q_sample`, for steps from 1 on;
        :func:`dian.diffusion.process.predict_x0`;
        :func:`dian.diffusion.sampling.reverse_variance`; and
        :func:`dian.diffusion.sampling.clipped`.

    Notes
    -----
    Equation 5 of Ho et al., 2020, arXiv:2006.11239.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> def knows(x_t, t):
    ...     return torch.full_like(x_t, 0.2)
    >>> x_0, t = torch.full((1, 7), 0.2), torch.tensor([500])
    >>> bound_term(linear_schedule(), knows, x_0, t, torch.randn(1, 7), clip=1.0,
    ...            variance="beta_tilde", target="x_0").nats
    tensor([0.])
    """
    check_steps(t, x_0, first=1, last=len(schedule.beta) - 1)
    x_t = q_sample(schedule, x_0, t, epsilon)
    prediction = model(x_t, t)
    x_0_hat = clipped(predict_x0(schedule, x_t, t, prediction, target), clip)
    mean = reverse_mean(schedule, x_t, t, prediction, clip=clip, target=target)
    sigma2 = at_step(reverse_variance(schedule, variance), t, x_t)
    c_0, c_1, beta_tilde = posterior(schedule)
    true_mean = at_step(c_0, t, x_t) * x_0 + at_step(c_1, t, x_t) * x_t
    divergence = gaussian_kl(true_mean, at_step(beta_tilde, t, x_t), mean, sigma2)
    first = (t == 1).view(-1, *[1] * (x_t.ndim - 1))
    terms = torch.where(first, -decoder(x_0, mean, sigma2).to(x_t), divergence)
    square = (x_0 - x_0_hat) ** 2
    return BoundTerm(terms.flatten(1).sum(1), square.flatten(1).mean(1))


class Bound(NamedTuple):
    """All terms of the bound for each image; rows are steps, index 0 is empty."""

    prior: Float[Tensor, "batch"]
    """:math:`L_T`."""
    terms: Float[Tensor, "n batch"]
    r"""Row ``t`` is :math:`L_{t-1}`; row 0 is zero."""
    square: Float[Tensor, "n batch"]
    r"""Mean squared error of :math:`\hat x_0` at step :math:`t`; row 0 is zero."""


def variational_bound(
    schedule: NoiseSchedule,
    model: Model,
    x_0: Float[Tensor, "batch *x"],
    *,
    variance: str | Float64[Tensor, "n"],
    clip: float | None,
    target: str = "epsilon",
    decoder: Decoder = discrete_log_probability,
    generator: torch.Generator | None = None,
) -> Bound:
    """Estimate every term of the bound, with one draw of noise for each step.

    Parameters
    ----------
    schedule, model, x_0, variance, clip, target, decoder
        As in :func:`bound_term`.
    generator
        The source of the noise.

    Raises
    ------
    TypeError, ValueError
        As :func:`bound_term`.

    Notes
    -----
    It calls the model T times for each batch.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> def knows(x_t, t):
    ...     return torch.full_like(x_t, 0.2)
    >>> bound = variational_bound(
    ...     linear_schedule(7, 0.1, 0.6), knows, torch.full((2, 3), 0.2),
    ...     variance="beta_tilde", clip=None, target="x_0")
    >>> bound.terms.shape
    torch.Size([8, 2])
    """
    check_images(x_0)
    schedule = schedule.to(x_0.device)
    rows = [BoundTerm(x_0.new_zeros(len(x_0)), x_0.new_zeros(len(x_0)))]
    for step in range(1, len(schedule.beta)):
        t = torch.full(x_0.shape[:1], step, device=x_0.device)
        epsilon = standard_normal(x_0, generator)
        rows.append(
            bound_term(
                schedule,
                model,
                x_0,
                t,
                epsilon,
                variance=variance,
                clip=clip,
                target=target,
                decoder=decoder,
            )
        )
    terms, square = (torch.stack(column) for column in zip(*rows, strict=True))
    return Bound(prior_term(schedule, x_0), terms, square)


def total_bits(bound: Bound, d: int) -> Float[Tensor, "batch"]:
    """Add the terms up, in bits for each of the ``d`` entries of an image.

    >>> terms, square = torch.full((3, 1), math.log(2)), torch.zeros(3, 1)
    >>> bound = Bound(torch.zeros(1), terms, square)
    >>> total_bits(bound, d=3)
    tensor([1.])
    """
    return bits_per_dimension(bound.prior + bound.terms.sum(0), d)


class RateDistortion(NamedTuple):
    """Progressive coding: what was paid until a step is known, and what it is worth."""

    rate: Float[Tensor, "n"]
    r"""Bits per dimension sent when :math:`x_t` has arrived: :math:`L_T`, and
    :math:`L_{s-1}` of all steps :math:`s > t`. At index 0 it is the whole bound."""
    distortion: Float[Tensor, "n"]
    r"""Root mean squared error of :math:`\hat x_0` from :math:`x_t`; 0 at index 0."""


def rate_distortion(bound: Bound, d: int) -> RateDistortion:
    r"""Average a bound over images, as one who receives :math:`x_T, x_{T-1}, \dots`.

    Parameters
    ----------
    bound
        Of the images.
    d
        Entries of an image.

    Notes
    -----
    Section 4.3 of Ho et al., 2020. They show the distortion for pixels of 0 to 255:
    127.5 times this one.

    Examples
    --------
    >>> bound = Bound(torch.zeros(1), torch.tensor([[0.0], [3.0], [1.0]]) * math.log(2),
    ...               torch.tensor([[0.0], [0.01], [0.25]]))
    >>> rate, distortion = rate_distortion(bound, d=1)
    >>> rate, distortion
    (tensor([4., 1., 0.]), tensor([0.0000, 0.1000, 0.5000]))
    """
    terms = bound.terms.mean(1)
    after = terms.sum() - terms.cumsum(0)  # of all steps s > t
    rate = bits_per_dimension(bound.prior.mean() + after, d)
    return RateDistortion(rate, bound.square.mean(1).sqrt())


def bound_weight(
    schedule: NoiseSchedule,
    target: str = "epsilon",
    variance: str | Float64[Tensor, "n"] = "beta",
) -> Float64[Tensor, "n"]:
    r"""Return the weight of the squared error of a prediction in the bound.

    For a model of :math:`\epsilon` it is
    :math:`\beta_t^2 / (2 \sigma_t^2 \alpha_t (1 - \bar\alpha_t))`, for one of
    :math:`\tilde\mu` :math:`1 / (2 \sigma_t^2)`.

    Parameters
    ----------
    schedule, variance
        As in :func:`dian.diffusion.sampling.reverse_variance`.
    target
        A name in :data:`dian.diffusion.process.TARGETS`.

    Raises
    ------
    ValueError
        If the target has another name; and as
        :func:`dian.diffusion.sampling.reverse_variance`.

    Notes
    -----
    Equations 8 and 12 of Ho et al., 2020; index 0 holds no weight but 0.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> weight = bound_weight(linear_schedule())
    >>> weight[1].item(), weight[1:].min().item(), weight[-1].item()
    (0.500, 0.00497, 0.0102)
    """
    beta, alpha, alpha_bar = schedule
    # the error of the mean by the error of the prediction, squared
    scale = {
        "epsilon": beta**2 / (alpha * (1 - alpha_bar)),
        "x_0": posterior(schedule).c_0 ** 2,
        "v": posterior(schedule).c_0 ** 2 * (1 - alpha_bar),
        "mu": torch.ones_like(beta),
        "score": beta**2 / alpha,
    }
    if target not in scale:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
    weight = scale[target] / (2 * reverse_variance(schedule, variance))
    return torch.cat([weight.new_zeros(1), weight[1:]])
