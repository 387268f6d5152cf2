r"""The forward process, and what a network predicts about it.

A *model* is any callable ``model(x_t, t)`` that returns a tensor of the shape of
``x_t``. Its prediction type, one of :data:`PREDICTION_TYPES`, says what it estimates:

``"epsilon"``
    the noise :math:`\epsilon` in :math:`x_t`;
``"x_0"``
    the clean image;
``"v"``
    the velocity :math:`v = \sqrt{\bar\alpha_t}\, \epsilon - \sqrt{1 - \bar\alpha_t}\,
    x_0`;
``"mu"``
    the mean :math:`\tilde\mu_t` of the posterior, see :mod:`dian.diffusion.posterior`;
``"score"``
    :math:`\nabla \log q(x_t \mid x_0) = -\epsilon / \sqrt{1 - \bar\alpha_t}`.

Given :math:`x_t`, each of them determines the others. Samplers call a network through
:class:`dian.diffusion.sampling.Denoiser`, which converts any prediction to
:math:`\hat x_0` and :math:`\hat\epsilon`.

Index ``t`` of a table is timestep :math:`t`; the axis ``n`` has length :math:`T + 1`,
as in :mod:`dian.diffusion.schedule`. ``t`` is a tensor with a timestep for each image,
or an ``int`` for all of them.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from dian.diffusion.posterior import posterior
from dian.diffusion.schedule import Images, NoiseSchedule, Steps, at_step
from dian.errors import require, require_one_of
from dian.numerics import at_least_float32, widened

Model = Callable[[Tensor, Tensor], Tensor]
"""Takes :math:`x_t` and a timestep for each image, and returns a tensor like
:math:`x_t`."""

PREDICTION_TYPES = ("epsilon", "x_0", "v", "mu", "score")
"""What a model may predict; each determines the others."""


@widened
def q_sample(schedule: NoiseSchedule, x_0: Images, t: Steps, epsilon: Images) -> Images:
    r"""Sample :math:`q(x_t \mid x_0)`: add the noise of timestep :math:`t` at once.

    .. math::

        x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon

    Parameters
    ----------
    schedule
        The noise schedule.
    x_0
        Clean images in [-1, 1].
    t
        Timesteps from 0 (clean) to T.
    epsilon
        Standard normal noise.

    Notes
    -----
    Equation 4 of Ho et al., *Denoising Diffusion Probabilistic Models*, 2020,
    arXiv:2006.11239.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> schedule = linear_schedule(T=2, beta_start=0.5, beta_end=0.5)
    >>> q_sample(schedule, torch.ones(1, 1), 2, torch.zeros(1, 1))
    tensor([[0.5000]])
    """
    check_images(x_0)
    check_shape("epsilon must be", epsilon, x_0)
    signal, noise = signal_and_noise(schedule, t, x_0)
    return signal * x_0 + noise * epsilon


@widened
def training_target(
    schedule: NoiseSchedule,
    x_0: Images,
    t: Steps,
    epsilon: Images,
    prediction_type: str = "epsilon",
) -> Images:
    r"""Return what a model should predict at :math:`x_t`.

    Parameters
    ----------
    schedule, x_0, t, epsilon
        As in :func:`q_sample`; ``"mu"`` and ``"score"`` are defined from timestep 1 on.
    prediction_type
        One of :data:`PREDICTION_TYPES`.

    Notes
    -----
    For :math:`v`, Salimans and Ho, *Progressive Distillation for Fast Sampling of
    Diffusion Models*, 2022, arXiv:2202.00512.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> schedule, one = linear_schedule(2, 0.5, 0.5), torch.ones(1)
    >>> training_target(schedule, one, 2, 2 * one, "v")  # sqrt(1/4) 2 - sqrt(3/4)
    tensor([0.1340])
    """
    check_prediction_type(prediction_type)
    if prediction_type == "epsilon":
        return epsilon
    if prediction_type == "x_0":
        return x_0
    if prediction_type == "v":
        signal, noise = signal_and_noise(schedule, t, x_0)
        return signal * epsilon - noise * x_0
    signal, noise = signal_and_noise(schedule, t, x_0, first=1)
    if prediction_type == "score":
        return -epsilon / noise
    c_0, c_1, _ = posterior(schedule)
    x_t = signal * x_0 + noise * epsilon
    return at_step(c_0, t, x_0) * x_0 + at_step(c_1, t, x_0) * x_t


@widened
def predict_x0(
    schedule: NoiseSchedule,
    x_t: Images,
    t: Steps,
    prediction: Images,
    prediction_type: str = "epsilon",
) -> Images:
    r"""Return the clean image :math:`\hat x_0` that follows from a prediction.

    Parameters
    ----------
    schedule, x_t, t
        The noisy images and their timesteps; ``"mu"`` is defined from 1 on.
    prediction
        The output of the model.
    prediction_type
        One of :data:`PREDICTION_TYPES`.

    Notes
    -----
    Equation 15 of Ho et al., 2020, for :math:`\epsilon`. For the score of the marginal
    :math:`q(x_t)` it is Tweedie's formula, and :math:`\hat x_0` is the mean of
    :math:`x_0` given :math:`x_t`.

    Examples
    --------
    The inverse of :func:`q_sample`:

    >>> from dian.diffusion.schedule import linear_schedule
    >>> schedule, x_0, epsilon = linear_schedule(), torch.ones(1), torch.full((1,), 3.0)
    >>> predict_x0(schedule, q_sample(schedule, x_0, 500, epsilon), 500, epsilon)
    tensor([1.0000])
    """
    check_prediction_type(prediction_type)
    check_shape("the model must return", prediction, x_t)
    signal, noise = signal_and_noise(schedule, t, x_t)
    if prediction_type == "x_0":
        return prediction
    if prediction_type == "v":
        return signal * x_t - noise * prediction
    if prediction_type == "epsilon":
        epsilon = prediction
    elif prediction_type == "score":
        epsilon = -noise * prediction
    else:  # mu = (x_t - beta_t / noise epsilon) / sqrt(alpha_t), solved for epsilon
        beta = at_step(schedule.beta, t, x_t, first=1)
        root = at_step(schedule.alpha.sqrt(), t, x_t)
        epsilon = (x_t - root * prediction) * noise / beta
    return (x_t - noise * epsilon) / signal


@widened
def predict_epsilon(
    schedule: NoiseSchedule, x_t: Images, t: Steps, x_0: Images
) -> Images:
    r"""Return the noise that takes :math:`x_0` to :math:`x_t`, for :math:`t \ge 1`.

    .. math::

        \epsilon = \frac{x_t - \sqrt{\bar\alpha_t}\, x_0}{\sqrt{1 - \bar\alpha_t}}

    >>> from dian.diffusion.schedule import linear_schedule
    >>> predict_epsilon(linear_schedule(2, 0.5, 0.5), torch.ones(1), 1, torch.zeros(1))
    tensor([1.4142])
    """
    check_shape("x_0 must be", x_0, x_t)
    signal, noise = signal_and_noise(schedule, t, x_t, first=1)
    return (x_t - signal * x_0) / noise


def draw_training_noise(
    schedule: NoiseSchedule, x_0: Images, generator: torch.Generator | None = None
) -> tuple[Int[Tensor, "batch"], Images]:
    r"""Draw :math:`t` and :math:`\epsilon` of :func:`training_loss` for each image."""
    T, place = schedule.T, x_0.device if generator is None else generator.device
    # 3: t ~ Uniform({1, ..., T}), for each image x_0 ~ q(x_0) of line 2
    t = torch.randint(1, T + 1, x_0.shape[:1], generator=generator, device=place)
    # 4: epsilon ~ N(0, I)
    epsilon = standard_normal(x_0, generator)
    return t.to(x_0.device), epsilon


def training_loss(
    schedule: NoiseSchedule,
    model: Model,
    x_0: Images,
    *,
    prediction_type: str = "epsilon",
    weight: Float64[Tensor, "n"] | None = None,
    generator: torch.Generator | None = None,
    draws: tuple[Tensor, Tensor] | None = None,
) -> Float[Tensor, "batch"]:
    r"""Algorithm 1 of Ho et al., 2020: the loss of one training step.

    .. math::

        t \sim \mathrm{Uniform}\{1, \dots, T\}, \qquad \epsilon \sim \mathcal N(0, I),
        \qquad \lVert \epsilon - \epsilon_\theta(\sqrt{\bar\alpha_t}\, x_0
        + \sqrt{1 - \bar\alpha_t}\, \epsilon, t) \rVert^2

    Parameters
    ----------
    schedule
        The noise schedule.
    model
        The network in training.
    x_0
        Clean images in [-1, 1].
    prediction_type
        What the model is trained to predict, one of :data:`PREDICTION_TYPES`.
    weight
        A weight for each timestep, such as
        :func:`dian.diffusion.likelihood.bound_weight` to train on the variational
        bound. Default: 1, the :math:`L_{simple}` of the paper.
    generator
        The source of :math:`t` and :math:`\epsilon`.
    draws
        Both, if :func:`draw_training_noise` has already drawn them.

    Returns
    -------
    loss
        The mean squared error of each image.

    Notes
    -----
    arXiv:2006.11239. The paper sums the squared errors of the entries of an image; this
    function returns their mean, so that the prediction zero has a loss of 1.

    At :math:`t = 1` the squared error takes the place of the term :math:`L_0` of the
    variational bound. This approximates the likelihood of a byte by the Gaussian
    density times the width of its bin, and ignores that the first and the last bin are
    open.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> generator, x_0 = torch.Generator().manual_seed(0), torch.zeros(100, 50)
    >>> def zeros(x_t, t):
    ...     return torch.zeros_like(x_t)
    >>> training_loss(linear_schedule(), zeros, x_0, generator=generator).mean()
    tensor(1.0...)
    """
    check_images(x_0)
    if weight is not None:
        check_shape("weight, from index 0 to T, must be", weight, schedule.beta)
    t, epsilon = draws or draw_training_noise(schedule, x_0, generator)
    # 5: || epsilon - epsilon_theta(sqrt(abar_t) x_0 + sqrt(1 - abar_t) epsilon, t) ||^2
    prediction = model(q_sample(schedule, x_0, t, epsilon), t)
    check_shape("the model must return", prediction, x_0)
    clean, epsilon = at_least_float32(x_0), at_least_float32(epsilon)
    error = training_target(schedule, clean, t, epsilon, prediction_type) - prediction
    loss = error.square().flatten(1).mean(1)
    loss = loss if weight is None else at_step(weight, t, loss) * loss
    return loss.to(x_0.dtype)


def signal_and_noise(
    schedule: NoiseSchedule, t: Steps, x: Images, first: int = 0
) -> tuple[Float[Tensor, "batch ..."] | float, Float[Tensor, "batch ..."] | float]:
    r"""Return :math:`\sqrt{\bar\alpha_t}` and :math:`\sqrt{1 - \bar\alpha_t}`.

    The arguments are those of :func:`dian.diffusion.schedule.at_step`.
    """
    signal, noise = schedule.alpha_bar.sqrt(), (1 - schedule.alpha_bar).sqrt()
    return at_step(signal, t, x, first), at_step(noise, t, x, first)


def standard_normal(
    like: Float[Tensor, "*x"], generator: torch.Generator | None = None
) -> Float[Tensor, "*x"]:
    """Draw standard normal numbers like a tensor, on the device of the generator.

    They are then moved to the device of the tensor: a generator on the CPU gives the
    same numbers on every device.

    >>> standard_normal(torch.zeros(2, 3)).shape
    torch.Size([2, 3])
    """
    place = like.device if generator is None else generator.device
    dtype = torch.promote_types(like.dtype, torch.float32)
    drawn = torch.randn(like.shape, generator=generator, dtype=dtype, device=place)
    return drawn.to(like)


def check_images(x_0: Tensor) -> None:
    """Check that images are not bytes."""
    if not x_0.is_floating_point():
        raise TypeError(f"x_0 must lie in [-1, 1], got {x_0.dtype}; see pixels.signed")


def check_shape(what: str, found: Tensor, like: Tensor) -> None:
    """Check that two tensors have the same shape: others might be broadcast."""
    shapes = f"{tuple(like.shape)}, got {tuple(found.shape)}"
    require(found.shape == like.shape, f"{what} {shapes}")


def check_prediction_type(prediction_type: str) -> None:
    """Check that a prediction type is known."""
    require_one_of("prediction_type", prediction_type, PREDICTION_TYPES)
