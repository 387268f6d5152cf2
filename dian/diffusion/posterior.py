r"""The posterior :math:`q(x_{t-1} \mid x_t, x_0)` of the forward process.

It is the reverse step if the clean image is known. The reverse transition
:math:`p_\theta(x_{t-1} \mid x_t)` of a model does not depend on :math:`x_0`; its
optimal variance is :func:`optimal_variance`. Index ``t`` of a table is timestep
:math:`t`; the axis ``n`` has length :math:`T + 1`, as in
:mod:`dian.diffusion.schedule`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from dian.diffusion.schedule import NoiseSchedule
from dian.errors import require


class Posterior(NamedTuple):
    r"""The distribution of :math:`x_{t-1}` given :math:`x_t` and :math:`x_0`.

    :math:`q(x_{t-1} \mid x_t, x_0) = \mathcal N(c_0 x_0 + c_1 x_t, \tilde\beta_t I)`.
    Index 0 holds NaN.
    """

    c_0: Float64[Tensor, "n"]
    c_1: Float64[Tensor, "n"]
    beta_tilde: Float64[Tensor, "n"]


def posterior(schedule: NoiseSchedule) -> Posterior:
    r"""Return the coefficients of the mean and the variance of the posterior.

    .. math::

        \tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0
        + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t, \qquad
        \tilde\beta_t = \frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t .

    Notes
    -----
    Equations 6 and 7 of Ho et al., *Denoising Diffusion Probabilistic Models*, 2020,
    arXiv:2006.11239.

    Examples
    --------
    Given the clean image, the last reverse step is deterministic:

    >>> from dian.diffusion.schedule import linear_schedule
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


def optimal_variance(
    schedule: NoiseSchedule, mmse: Float64[Tensor, "n"]
) -> Float64[Tensor, "n"]:
    r"""Return the variance of :math:`x_{t-1}` given :math:`x_t` alone.

    .. math::

        \sigma_t^{*2} = \tilde\beta_t + c_0^2\, \frac1d\, \mathbb E
        \operatorname{tr} \operatorname{Cov}(x_0 \mid x_t)

    If the mean of the reverse transition is optimal, this variance minimizes the
    variational bound.

    Parameters
    ----------
    schedule
        The noise schedule.
    mmse
        :math:`\frac1d\, \mathbb E \operatorname{tr} \operatorname{Cov}(x_0 \mid x_t)`,
        the mean squared error per dimension of the optimal :math:`\hat x_0` at each
        timestep. Index 0 is not used.

    Returns
    -------
    variance
        A table for the ``variance`` of :func:`dian.diffusion.sampling.ddpm_sample` and
        of :func:`dian.diffusion.likelihood.variational_bound`; NaN at index 0.

    Notes
    -----
    Bao et al., *Analytic-DPM*, 2022, arXiv:2201.06503.

    Examples
    --------
    For standard normal data the mean squared error is :math:`1 - \bar\alpha_t`, and the
    optimal variance is :math:`\beta_t`:

    >>> from dian.diffusion.schedule import linear_schedule
    >>> schedule = linear_schedule(2, 0.25, 0.5)
    >>> optimal_variance(schedule, 1 - schedule.alpha_bar)
    tensor([   nan, 0.2500, 0.5000], dtype=torch.float64)
    """
    fits = mmse.shape == schedule.beta.shape
    shapes = f"{tuple(schedule.beta.shape)}, got {tuple(mmse.shape)}"
    require(fits, f"mmse, from index 0 to T, must be {shapes}")
    c_0, _, beta_tilde = posterior(schedule)
    return beta_tilde + c_0**2 * mmse
