r"""Classifier-free guidance: one network, with and without a class.

Ho and Salimans, *Classifier-Free Diffusion Guidance*, 2022, arXiv:2207.12598. In
training the label of some images is replaced by the *null class*, so that the same
weights estimate the noise given the class, :math:`\epsilon_\theta(x_t, t, y)`, and
without it, :math:`\epsilon_\theta(x_t, t)`. In sampling the difference of the two is
extrapolated:

.. math::

    \hat\epsilon = (1 + w)\, \epsilon_\theta(x_t, t, y) - w\, \epsilon_\theta(x_t, t)

The guidance weight :math:`w` is that of the paper: 0 samples from the class without
guidance, and -1 ignores the class. Other authors and libraries state the *guidance
scale* :math:`s = 1 + w` instead, for which 1 is no guidance.

A *conditional model* is any callable ``model(x_t, t, y)``, such as a
:class:`dian.diffusion.unet.UNet` with classes. The functions here turn it into a model
``model(x_t, t)``, which all samplers take.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from dian.diffusion.process import Model
from dian.errors import require, require_whole
from dian.numerics import at_least_float32

Labels = Int[Tensor, "batch"]
"""The class of each image."""

ConditionalModel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes :math:`x_t`, a timestep and a class for each image."""


def drop_labels(
    y: Labels, rate: float, null_class: int, generator: torch.Generator | None = None
) -> Labels:
    """Replace each label by the null class with probability ``rate``.

    Parameters
    ----------
    y
        The labels.
    rate
        From 0 (none is dropped) to 1 (all are).
    null_class
        The label that means "no class".
    generator
        The random numbers are drawn on its device.

    Notes
    -----
    Algorithm 1 of Ho and Salimans, 2022, arXiv:2207.12598.

    Examples
    --------
    >>> y = torch.arange(10)
    >>> drop_labels(y, 0.5, 10, torch.Generator().manual_seed(0))
    tensor([10,  1, 10, 10, 10,  5, 10,  7, 10,  9])
    """
    require(0 <= rate <= 1, f"rate must be in [0, 1], got {rate}")
    require_whole("null_class", null_class, 0)
    device = y.device if generator is None else generator.device
    dropped = torch.rand(y.shape, generator=generator, device=device) < rate
    return y.masked_fill(dropped.to(y.device), null_class)


def condition(model: ConditionalModel, y: Labels) -> Model:
    """Return a model of images of the classes ``y``, one for each image of a batch.

    >>> double = condition(lambda x_t, t, y: y[:, None] * x_t, torch.tensor([1, 2]))
    >>> double(torch.ones(2, 1), torch.tensor([5, 5]))
    tensor([[1.],
            [2.]])
    """
    return lambda x_t, t: model(x_t, t, y)


def guide(model: ConditionalModel, y: Labels, null_class: int, w: float) -> Model:
    r"""Return a model with classifier-free guidance towards the classes ``y``.

    .. math::

        \hat\epsilon
        = (1 + w)\, \epsilon_\theta(x_t, t, y) - w\, \epsilon_\theta(x_t, t)

    Parameters
    ----------
    model
        A conditional model. It is called once per timestep, with a batch that contains
        each image twice: with its class, and with the null class.
    y
        The class of each image.
    null_class
        The label that means "no class".
    w
        The guidance weight: 0 for none. The guidance scale is :math:`1 + w`.

    Notes
    -----
    Equation 6 of Ho and Salimans, 2022, arXiv:2207.12598. Whatever the model predicts
    (:data:`dian.diffusion.process.PREDICTION_TYPES`), the result is the same guidance:
    given :math:`x_t`, each prediction is an affine function of any other, and the two
    weights sum to 1.

    Examples
    --------
    >>> def model(x_t, t, y):
    ...     return y.float()[:, None] * x_t
    >>> guided = guide(model, torch.tensor([3]), null_class=10, w=2.0)
    >>> guided(torch.ones(1, 1), torch.tensor([5]))  # 3 * 3 - 2 * 10
    tensor([[-11.]])
    """
    require_whole("null_class", null_class, 0)
    require(math.isfinite(w), f"w must be finite, got {w}")
    if w == 0:
        return condition(model, y)
    both = torch.cat([y, torch.full_like(y, null_class)])

    def guided(x_t: Tensor, t: Tensor) -> Tensor:
        x_twice = torch.cat([x_t, x_t])
        prediction = at_least_float32(model(x_twice, t.repeat(2), both))
        given, free = prediction.chunk(2)
        return ((1 + w) * given - w * free).to(x_t.dtype)

    return guided
