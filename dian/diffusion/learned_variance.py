r"""A learned variance of the reverse transitions, and the loss that trains it.

Nichol and Dhariwal, *Improved Denoising Diffusion Probabilistic Models*, 2021,
arXiv:2102.09672. Besides the predicted noise, the network returns a number :math:`u`
for each entry of the image. It interpolates between the two fixed variances on a
logarithmic scale:

.. math::

    \sigma_t^2 = \exp\big( u \ln \beta_t + (1 - u) \ln \tilde\beta_t \big)

(the paper calls it :math:`v`, which in this library is the velocity). The conventions
for ``t`` are those of :mod:`dian.diffusion.process`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dian.diffusion.likelihood import Decoder, discrete_log_probability, gaussian_kl
from dian.diffusion.process import (
    check_images,
    check_shape,
    draw_training_noise,
    q_sample,
)
from dian.diffusion.sampling import reverse_mean, reverse_variance
from dian.diffusion.schedule import Images, NoiseSchedule, Steps, at_step
from dian.numerics import at_least_float32, widened

VarianceModel = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
r"""Takes :math:`x_t` and a timestep for each image, and returns the predicted noise and
:math:`u`, both like :math:`x_t`."""


@widened
def interpolate_variance(schedule: NoiseSchedule, t: Steps, u: Images) -> Images:
    r"""Return :math:`\sigma_t^2` from the output :math:`u` of a network.

    :math:`u = 1` gives :math:`\beta_t`, :math:`u = 0` gives :math:`\tilde\beta_t`;
    other numbers are possible, and the variance is positive for all of them. At
    :math:`t = 1`, :math:`\tilde\beta_1 = 0` is replaced as in
    :func:`dian.diffusion.sampling.reverse_variance`.

    Notes
    -----
    Equation 15 of Nichol and Dhariwal, 2021, arXiv:2102.09672.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> u = torch.tensor([[0.0, 0.5, 1.0]])
    >>> interpolate_variance(linear_schedule(3, 0.5, 0.5), 3, u)
    tensor([[0.4286, 0.4629, 0.5000]])
    """
    beta, beta_tilde = (
        at_step(reverse_variance(schedule, name).log(), t, u, first=1)
        for name in ("beta", "beta_tilde")
    )
    return (u * beta + (1 - u) * beta_tilde).exp()


def hybrid_loss(
    schedule: NoiseSchedule,
    model: VarianceModel,
    x_0: Images,
    *,
    bound_weight: float = 0.001,
    decoder: Decoder = discrete_log_probability,
    generator: torch.Generator | None = None,
    draws: tuple[Tensor, Tensor] | None = None,
) -> Float[Tensor, "batch"]:
    r"""Return the loss that trains the noise and the variance together.

    .. math::

        L_{hybrid} = L_{simple} + \lambda\, L_{vlb}

    The variational bound :math:`L_{vlb}` is estimated by :math:`T` times its term at
    the timestep that is drawn, in nats per dimension. It trains :math:`u` alone: in
    this term the predicted noise is treated as a constant, so that only
    :math:`L_{simple}` trains it.

    Parameters
    ----------
    schedule
        The noise schedule.
    model
        Returns the predicted noise and :math:`u`.
    x_0
        Clean images in [-1, 1].
    bound_weight
        :math:`\lambda`.
    decoder
        As in :func:`dian.diffusion.likelihood.bound_term`.
    generator, draws
        As in :func:`dian.diffusion.process.training_loss`.

    Returns
    -------
    loss
        For each image, a mean over its entries.

    Notes
    -----
    Section 3.1 of Nichol and Dhariwal, 2021, arXiv:2102.09672, with
    :math:`\lambda = 0.001`.

    Examples
    --------
    A perfect prediction of the noise, and the variance :math:`\tilde\beta_t`:

    >>> from dian.diffusion.schedule import linear_schedule
    >>> schedule, x_0 = linear_schedule(), torch.zeros(1, 1)
    >>> t, epsilon = torch.tensor([500]), torch.ones(1, 1)
    >>> def perfect(x_t, t):
    ...     return epsilon, torch.zeros_like(x_t)
    >>> hybrid_loss(schedule, perfect, x_0, draws=(t, epsilon)).round(decimals=4)
    tensor([0.])
    """
    check_images(x_0)
    t, epsilon = draws or draw_training_noise(schedule, x_0, generator)
    predicted, u = model(q_sample(schedule, x_0, t, epsilon), t)
    check_shape("the model must return noise", predicted, x_0)
    check_shape("the model must return u", u, x_0)
    dtype, (x_0, epsilon) = x_0.dtype, map(at_least_float32, (x_0, epsilon))
    simple = (epsilon - predicted).square()
    x_t = q_sample(schedule, x_0, t, epsilon)
    mean = reverse_mean(schedule, x_t, t, predicted.detach().to(x_t.dtype))
    variance = interpolate_variance(schedule, t, u.to(x_t.dtype))
    true_mean = reverse_mean(schedule, x_t, t, epsilon)
    beta_tilde = at_step(reverse_variance(schedule, "beta_tilde"), t, x_t)
    term = gaussian_kl(true_mean, beta_tilde, mean, variance)
    first = (t == 1).view(-1, *[1] * (x_0.ndim - 1))
    term = torch.where(first, -decoder(x_0, mean, variance).to(term), term)
    loss = simple + bound_weight * schedule.T * term
    return loss.flatten(1).mean(1).to(dtype)
