r"""Diffusion in continuous time: the forward SDE and the probability-flow ODE.

Song et al., *Score-Based Generative Modeling through Stochastic Differential
Equations*, 2021, arXiv:2011.13456. Time :math:`\tau` runs from 0 to 1, and a chain of
:math:`T` steps with variances :math:`\beta_t = \beta(t / T) / T` becomes, as :math:`T`
grows, the stochastic differential equation

.. math::

    dx = -\tfrac12 \beta(\tau)\, x\, d\tau + \sqrt{\beta(\tau)}\, dw .

The *score* is :math:`\nabla \ln q_\tau(x)`, the gradient of the log-density of
:math:`x_\tau`. It determines the two processes that lead from noise back to data: the
reverse SDE, and an ordinary differential equation with the same marginals.
"""

from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral

import torch
from jaxtyping import Float
from torch import Tensor

from dian.diffusion.process import Model
from dian.diffusion.sampling import Denoiser, evenly_spaced_timesteps, in_float32
from dian.diffusion.schedule import Images, NoiseSchedule
from dian.errors import require, require_one_of
from dian.numerics import widened

Times = Float[Tensor, "*n"]
r"""Times :math:`\tau` from 0 (data) to 1 (noise)."""


@widened
def beta_at(time: Times, beta_min: float = 0.1, beta_max: float = 20.0) -> Times:
    r"""Return :math:`\beta(\tau) = \beta_{min} + \tau (\beta_{max} - \beta_{min})`.

    The defaults are the limit of :func:`dian.diffusion.schedule.linear_schedule` with
    its defaults.

    >>> beta_at(torch.tensor([0.0, 0.5, 1.0]))
    tensor([ 0.1000, 10.0500, 20.0000])
    """
    return beta_min + time * (beta_max - beta_min)


@widened
def alpha_bar_at(time: Times, beta_min: float = 0.1, beta_max: float = 20.0) -> Times:
    r"""Return the fraction of the variance of :math:`x_\tau` that comes from the data.

    .. math::

        \bar\alpha(\tau) = \exp\Big( -\int_0^\tau \beta(s)\, ds \Big)
        = \exp\Big( -\tau \beta_{min} - \frac{\tau^2}{2} (\beta_{max} - \beta_{min})
        \Big)

    Notes
    -----
    Appendix B of Song et al., 2021, arXiv:2011.13456 ("VP SDE").

    Examples
    --------
    At the end, a chain of a thousand steps has nearly the same value:

    >>> from dian.diffusion.schedule import linear_schedule
    >>> alpha_bar_at(torch.tensor(1.0)), linear_schedule().alpha_bar[-1].item()
    (tensor(4.3186e-05), 4.04e-05)
    """
    return (-time * beta_min - time**2 / 2 * (beta_max - beta_min)).exp()


@widened
def flow_velocity(beta: Times, x: Images, score: Images) -> Images:
    r"""Return the right-hand side of the probability-flow ODE.

    .. math::

        \frac{dx}{d\tau} = -\tfrac12 \beta(\tau)
        \big( x + \nabla \ln q_\tau(x) \big)

    Parameters
    ----------
    beta
        :math:`\beta(\tau)`, a number or a tensor that broadcasts against ``x``.
    x, score
        Points, and the score at them.

    Notes
    -----
    Equation 13 of Song et al., 2021, arXiv:2011.13456, for this SDE.

    Examples
    --------
    For standard normal data the velocity is zero:

    >>> x = torch.tensor([[3.0]])
    >>> flow_velocity(torch.tensor(10.0), x, -x)
    tensor([[-0.]])
    """
    return -beta / 2 * (x + score)


@torch.no_grad()
def ode_sample(
    schedule: NoiseSchedule,
    model: Model | Denoiser,
    x_T: Images,
    *,
    steps: int | Sequence[int] = 25,
    method: str = "heun",
) -> Images:
    r"""Sample images from noise by solving the probability-flow ODE.

    In the coordinates :math:`\bar x = x / \sqrt{\bar\alpha}` and
    :math:`\bar\sigma = \sqrt{(1 - \bar\alpha) / \bar\alpha}` the ODE is

    .. math::

        \frac{d \bar x}{d \bar\sigma} = \epsilon_\theta(x_t, t) .

    Parameters
    ----------
    schedule
        The noise schedule the model was trained with.
    model
        A network that predicts the noise in images, or a
        :class:`dian.diffusion.sampling.Denoiser`.
    x_T
        Standard normal noise.
    steps
        The number of steps, for
        :func:`dian.diffusion.sampling.evenly_spaced_timesteps`, or the timesteps
        themselves, increasing; 0 is added. ``x_T`` is at the last of them.
    method
        ``"euler"``, with one model call per step, which is DDIM without noise; or
        ``"heun"``, with two model calls per step (one in the last step) and an error of
        second order.

    Returns
    -------
    x_0
        The samples, see :func:`dian.diffusion.pixels.to_bytes`.

    Notes
    -----
    Algorithm 1 of Karras et al., *Elucidating the Design Space of Diffusion-Based
    Generative Models*, 2022, arXiv:2206.00364, at other timesteps.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> denoiser = Denoiser(lambda x_t, t: 0 * x_t + 0.5, "x_0")
    >>> ode_sample(linear_schedule(), denoiser, torch.randn(1, 1), steps=2)
    tensor([[0.5000]])
    """
    require_one_of("method", method, ("euler", "heun"))
    T = schedule.T
    if isinstance(steps, Integral):
        steps = evenly_spaced_timesteps(T, steps)
    whole = len(steps) and all(isinstance(t, Integral) for t in steps)
    fits = whole and all(s < t for s, t in pairwise([0, *steps, T + 1]))
    require(fits, f"steps must be integers increasing from 1 to {T}, got {steps}")
    schedule, (denoiser, x) = schedule.to("cpu"), in_float32(model, x_T)
    signal = schedule.alpha_bar.sqrt().tolist()
    sigma = (1 / schedule.alpha_bar - 1).sqrt().tolist()

    def slope(x_bar: Tensor, t: int) -> Tensor:
        return denoiser(schedule, signal[t] * x_bar, t).epsilon

    x_bar = x / signal[steps[-1]]
    for s, t in reversed([*pairwise([0, *steps])]):
        step, first = sigma[s] - sigma[t], slope(x_bar, t)
        after = x_bar + step * first
        if method == "heun" and s > 0:  # a model is not defined at timestep 0
            after = x_bar + step * (first + slope(after, s)) / 2
        x_bar = after
    return x_bar.to(x_T.dtype)
