r"""Denoising diffusion: add noise step by step, and learn to take it away.

The papers count steps from :math:`t = 1` to :math:`T`. Arrays here have length
:math:`T + 1`, so that index ``t`` *is* step :math:`t`; index 0 is the clean image,
:math:`\bar\alpha_0 = 1`. The axis ``n`` is :math:`T + 1` long.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


class Schedule(NamedTuple):
    r"""How much noise each step adds, and what has come together until then.

    Everything is float64: in float32 the variance :math:`1 - \bar\alpha_1` of the
    linear schedule has a relative error of 1.7e-4.
    """

    beta: Float64[Tensor, "n"]
    r""":math:`\beta_t`, the variance that step :math:`t` adds; 0 at index 0."""
    alpha: Float64[Tensor, "n"]
    r""":math:`\alpha_t = 1 - \beta_t`."""
    alpha_bar: Float64[Tensor, "n"]
    r""":math:`\bar\alpha_t = \prod_{s \le t} \alpha_s`, the share of variance left."""


def make_schedule(beta: Float64[Tensor, "T"]) -> Schedule:
    r"""Build a schedule from :math:`\beta_1, \dots, \beta_T`.

    Raises
    ------
    ValueError
        If one of them is not above 0 and below 1.

    Examples
    --------
    >>> import torch
    >>> make_schedule(torch.tensor([0.5, 0.5], dtype=torch.float64)).alpha_bar
    tensor([1.0000, 0.5000, 0.2500], dtype=torch.float64)
    """
    if not ((beta > 0) & (beta < 1)).all():
        raise ValueError(
            f"every beta must be above 0 and below 1, got {beta.min()} to {beta.max()}"
        )
    beta = torch.cat([beta.new_zeros(1), beta])
    alpha = 1 - beta
    return Schedule(beta, alpha, alpha.cumprod(0))


def linear_schedule(T: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    r"""Let :math:`\beta_t` grow evenly from :math:`\beta_1` to :math:`\beta_T`.

    Parameters
    ----------
    T
        Number of steps. A shorter chain wants larger steps: with fewer than 1000,
        scale both ends by 1000 / T, or a part of the image is left at the end.
    first, last
        :math:`\beta_1` and :math:`\beta_T`.

    Notes
    -----
    Section 4 of Ho et al., *Denoising Diffusion Probabilistic Models*, 2020,
    arXiv:2006.11239.

    Examples
    --------
    What is left of the variance of an image after all steps:

    >>> linear_schedule().alpha_bar[-1].item()
    4.04e-05
    """
    return make_schedule(torch.linspace(first, last, T, dtype=torch.float64))


def signal_to_noise(schedule: Schedule) -> Float64[Tensor, "n"]:
    r"""Return :math:`\operatorname{SNR}(t) = \bar\alpha_t / (1 - \bar\alpha_t)`.

    It is infinite at index 0, where there is no noise.

    >>> signal_to_noise(linear_schedule(T=2, first=0.5, last=0.5))
    tensor([   inf, 1.0000, 0.3333], dtype=torch.float64)
    """
    return schedule.alpha_bar / (1 - schedule.alpha_bar)


def diffuse(
    schedule: Schedule,
    x_0: Float[Tensor, "batch *x"],
    t: Int[Tensor, "batch"],
    epsilon: Float[Tensor, "batch *x"],
) -> Float[Tensor, "batch *x"]:
    r"""Go from the clean image to step :math:`t` at once.

    .. math::

        x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon

    Parameters
    ----------
    schedule
        The noise.
    x_0
        Clean images, scaled to [-1, 1].
    t
        A step for each, from 0 (clean) to T.
    epsilon
        Standard normal noise.

    Notes
    -----
    Equation 4 of Ho et al., 2020, arXiv:2006.11239.

    Examples
    --------
    >>> import torch
    >>> schedule = linear_schedule(T=2, first=0.5, last=0.5)
    >>> diffuse(schedule, torch.ones(1, 1), torch.tensor([2]), torch.zeros(1, 1))
    tensor([[0.5000]])
    """
    alpha_bar = schedule.alpha_bar[t].view(-1, *[1] * (x_0.ndim - 1))
    return alpha_bar.sqrt().to(x_0) * x_0 + (1 - alpha_bar).sqrt().to(x_0) * epsilon


class Posterior(NamedTuple):
    r"""The distribution of :math:`x_{t-1}` when both its neighbours in time are known.

    :math:`q(x_{t-1} \mid x_t, x_0) = \mathcal N(c_0 x_0 + c_1 x_t, \tilde\beta_t I)`.
    Index 0 has no step before it, and holds NaN.
    """

    c_0: Float64[Tensor, "n"]
    c_1: Float64[Tensor, "n"]
    beta_tilde: Float64[Tensor, "n"]


def posterior(schedule: Schedule) -> Posterior:
    r"""Return mean and variance of a step back, when the clean image is known.

    .. math::

        \tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0
        + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t, \qquad
        \tilde\beta_t = \frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t .

    Notes
    -----
    Equations 6 and 7 of Ho et al., 2020, arXiv:2006.11239.

    Examples
    --------
    The first step back is certain, since the clean image is known:

    >>> posterior(linear_schedule()).beta_tilde[1].item()
    0.0
    """
    beta, alpha, alpha_bar = schedule
    before = alpha_bar.roll(1)
    before[0] = torch.nan
    noise = 1 - alpha_bar
    return Posterior(
        c_0=before.sqrt() * beta / noise,
        c_1=alpha.sqrt() * (1 - before) / noise,
        beta_tilde=(1 - before) / noise * beta,
    )
