r"""Denoising diffusion: add noise step by step, and learn to take it away.

The papers count steps from :math:`t = 1` to :math:`T`. Arrays here have length
:math:`T + 1`, so that index ``t`` *is* step :math:`t`; index 0 is the clean image,
:math:`\bar\alpha_0 = 1`. The axis ``n`` is :math:`T + 1` long.

A *model* is any callable ``model(x_t, t)`` that returns a tensor like ``x_t``. What it
is meant to return has one of these names:

``"epsilon"``
    the noise :math:`\epsilon` that is in :math:`x_t`;
``"x_0"``
    the clean image;
``"v"``
    :math:`v = \sqrt{\bar\alpha_t}\, \epsilon - \sqrt{1 - \bar\alpha_t}\, x_0`;
``"mu"``
    the mean :math:`\tilde\mu_t` of the step back, of :func:`posterior`;
``"score"``
    :math:`\nabla \log q(x_t \mid x_0) = -\epsilon / \sqrt{1 - \bar\alpha_t}`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from dian.diffusion.schedule import NoiseSchedule, at_step, check_steps, check_table

Model = Callable[[Tensor, Tensor], Tensor]
"""Takes :math:`x_t` and a step for each, and returns a tensor like :math:`x_t`."""

TARGETS = ("epsilon", "x_0", "v", "mu", "score")
"""What a model may predict; any one of them gives the others."""


def q_sample(
    schedule: NoiseSchedule,
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

    Raises
    ------
    TypeError, ValueError
        If the images are bytes, or there is not one step and one draw of noise for
        each; and as :func:`~dian.diffusion.schedule.check_steps`.

    Notes
    -----
    Equation 4 of Ho et al., 2020, arXiv:2006.11239.

    Examples
    --------
    >>> import torch
    >>> from dian.diffusion.schedule import linear_schedule
    >>> schedule = linear_schedule(T=2, beta_start=0.5, beta_end=0.5)
    >>> q_sample(schedule, torch.ones(1, 1), torch.tensor([2]), torch.zeros(1, 1))
    tensor([[0.5000]])
    """
    _check_draw(x_0, t, epsilon)
    signal = at_step(schedule.alpha_bar.sqrt(), t, x_0)
    noise = at_step((1 - schedule.alpha_bar).sqrt(), t, x_0)
    return signal * x_0 + noise * epsilon


class Posterior(NamedTuple):
    r"""The distribution of :math:`x_{t-1}` when both its neighbours in time are known.

    :math:`q(x_{t-1} \mid x_t, x_0) = \mathcal N(c_0 x_0 + c_1 x_t, \tilde\beta_t I)`.
    Index 0 has no step before it, and holds NaN.
    """

    c_0: Float64[Tensor, "n"]
    c_1: Float64[Tensor, "n"]
    beta_tilde: Float64[Tensor, "n"]


def posterior(schedule: NoiseSchedule) -> Posterior:
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


def training_target(
    schedule: NoiseSchedule,
    x_0: Float[Tensor, "batch *x"],
    t: Int[Tensor, "batch"],
    epsilon: Float[Tensor, "batch *x"],
    target: str = "epsilon",
) -> Float[Tensor, "batch *x"]:
    r"""Return what a model that is perfect would predict at :math:`x_t`.

    Parameters
    ----------
    schedule, x_0, t, epsilon
        As in :func:`q_sample`.
    target
        A name in :data:`TARGETS`.

    Raises
    ------
    TypeError, ValueError
        As :func:`q_sample`; if the target has another name; or if a step is 0, where
        neither ``mu`` nor ``score`` is defined.

    Notes
    -----
    For :math:`v`, Salimans and Ho, *Progressive Distillation for Fast Sampling of
    Diffusion Models*, 2022, arXiv:2202.00512.

    Examples
    --------
    >>> import torch
    >>> from dian.diffusion.schedule import linear_schedule
    >>> schedule = linear_schedule(T=2, beta_start=0.5, beta_end=0.5)
    >>> one, t = torch.ones(1, 1), torch.tensor([2])
    >>> training_target(schedule, one, t, 2 * one, "v")  # sqrt(1/4) 2 - sqrt(3/4)
    tensor([[0.1340]])
    """
    _check_draw(x_0, t, epsilon)
    _check_target(schedule, t, x_0, target, ("mu", "score"))
    signal = at_step(schedule.alpha_bar.sqrt(), t, x_0)
    noise = at_step((1 - schedule.alpha_bar).sqrt(), t, x_0)
    if target == "epsilon":
        return epsilon
    if target == "x_0":
        return x_0
    if target == "v":
        return signal * epsilon - noise * x_0
    if target == "score":
        return -epsilon / noise
    c_0, c_1, _ = posterior(schedule)
    x_t = signal * x_0 + noise * epsilon
    return at_step(c_0, t, x_0) * x_0 + at_step(c_1, t, x_0) * x_t


def predict_x0(
    schedule: NoiseSchedule,
    x_t: Float[Tensor, "batch *x"],
    t: Int[Tensor, "batch"],
    prediction: Float[Tensor, "batch *x"],
    target: str = "epsilon",
) -> Float[Tensor, "batch *x"]:
    r"""Read the clean image off what a model predicts at :math:`x_t`.

    Parameters
    ----------
    schedule, x_t, t
        The noisy images and their steps.
    prediction
        What the model returned.
    target
        What it is meant to be, a name in :data:`TARGETS`.

    Raises
    ------
    TypeError, ValueError
        As :func:`check_prediction` and
        :func:`~dian.diffusion.schedule.check_steps`; if the target has another name; or if a step is 0, where ``mu`` is not defined.

    Notes
    -----
    Equation 15 of Ho et al., 2020, for :math:`\epsilon`. For the score of the whole
    :math:`q(x_t)` this is the formula of Tweedie: the result is then the mean of
    :math:`x_0` given :math:`x_t`.

    Examples
    --------
    There and back:

    >>> import torch
    >>> from dian.diffusion.schedule import linear_schedule
    >>> schedule = linear_schedule()
    >>> x_0, epsilon = torch.ones(1, 1), torch.full((1, 1), 3.0)
    >>> t = torch.tensor([500])
    >>> predict_x0(schedule, q_sample(schedule, x_0, t, epsilon), t, epsilon)
    tensor([[1.0000]])
    """
    check_prediction(prediction, x_t)
    _check_target(schedule, t, x_t, target, ("mu",))
    signal = at_step(schedule.alpha_bar.sqrt(), t, x_t)
    noise = at_step((1 - schedule.alpha_bar).sqrt(), t, x_t)
    if target == "epsilon":
        return (x_t - noise * prediction) / signal
    if target == "x_0":
        return prediction
    if target == "v":
        return signal * x_t - noise * prediction
    if target == "score":
        return (x_t + noise**2 * prediction) / signal
    c_0, c_1, _ = posterior(schedule)
    return (prediction - at_step(c_1, t, x_t) * x_t) / at_step(c_0, t, x_t)


def predict_epsilon(
    schedule: NoiseSchedule,
    x_t: Float[Tensor, "batch *x"],
    t: Int[Tensor, "batch"],
    x_0: Float[Tensor, "batch *x"],
) -> Float[Tensor, "batch *x"]:
    r"""Return the :math:`\epsilon` that leads from :math:`x_0` to :math:`x_t`.

    .. math::

        \epsilon = \frac{x_t - \sqrt{\bar\alpha_t}\, x_0}{\sqrt{1 - \bar\alpha_t}},
        \qquad t \ge 1

    Raises
    ------
    TypeError, ValueError
        As :func:`~dian.diffusion.schedule.check_steps`, from 1 on; or if the two are
        of different shapes.

    Examples
    --------
    >>> import torch
    >>> from dian.diffusion.schedule import linear_schedule
    >>> schedule, t = linear_schedule(2, 0.5, 0.5), torch.tensor([1])
    >>> predict_epsilon(schedule, torch.ones(1, 1), t, torch.zeros(1, 1))
    tensor([[1.4142]])
    """
    if x_0.shape != x_t.shape:
        raise ValueError(
            f"x_0 must be {tuple(x_t.shape)}, the shape of x_t, got {tuple(x_0.shape)}"
        )
    check_steps(t, x_t, first=1, last=len(schedule.beta) - 1)
    signal = at_step(schedule.alpha_bar.sqrt(), t, x_t)
    return (x_t - signal * x_0) / at_step((1 - schedule.alpha_bar).sqrt(), t, x_t)


def training_loss(
    schedule: NoiseSchedule,
    model: Model,
    x_0: Float[Tensor, "batch *x"],
    *,
    target: str = "epsilon",
    weight: Float64[Tensor, "n"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch"]:
    r"""Algorithm 1 of Ho et al., 2020: the loss that one step of training goes down.

    .. math::

        t \sim \mathrm{Uniform}\{1, \dots, T\}, \qquad \epsilon \sim \mathcal N(0, I),
        \qquad \lVert \epsilon - \epsilon_\theta(\sqrt{\bar\alpha_t}\, x_0
        + \sqrt{1 - \bar\alpha_t}\, \epsilon, t) \rVert^2

    Parameters
    ----------
    schedule
        The noise.
    model
        What learns.
    x_0
        Clean images, scaled to [-1, 1].
    target
        What the model is meant to predict, a name in :data:`TARGETS`.
    weight
        One for the loss of each step, such as
        :func:`dian.diffusion.likelihood.bound_weight`, which trains on the bound.
        Without it all are 1, the :math:`L_{simple}` of the paper.
    generator
        The source of :math:`t` and :math:`\epsilon`.

    Returns
    -------
    loss
        For each image, the mean over its entries. Training takes the mean of them.

    Raises
    ------
    TypeError, ValueError
        If the images are bytes or there is none, the weights are not as many as the
        schedule has entries, or the model returns something of another shape.

    Notes
    -----
    arXiv:2006.11239. Where the paper sums over the entries of an image, this takes the
    mean, so that a model that returns zeros loses 1.

    Examples
    --------
    >>> import torch
    >>> from dian.diffusion.schedule import linear_schedule
    >>> generator, x_0 = torch.Generator().manual_seed(0), torch.zeros(100, 50)
    >>> def knows_nothing(x_t, t):
    ...     return torch.zeros_like(x_t)
    >>> training_loss(linear_schedule(), knows_nothing, x_0, generator=generator).mean()
    tensor(1.0...)
    """
    check_images(x_0)
    if not len(x_0):
        raise ValueError("x_0 must hold at least one image, got none")
    if weight is not None:
        check_table("weight", weight, schedule)
    T = len(schedule.beta) - 1
    place = x_0.device if generator is None else generator.device
    # 2-3: t ~ Uniform({1, ..., T}), one for each image
    t = torch.randint(1, T + 1, x_0.shape[:1], generator=generator, device=place)
    # 4: epsilon ~ N(0, I)
    epsilon = standard_normal(x_0, generator)
    t = t.to(x_0.device)
    # 5: || epsilon - epsilon_theta(sqrt(abar_t) x_0 + sqrt(1 - abar_t) epsilon, t) ||^2
    prediction = model(q_sample(schedule, x_0, t, epsilon), t)
    check_prediction(prediction, x_0)
    error = training_target(schedule, x_0, t, epsilon, target) - prediction
    loss = error.square().flatten(1).mean(1)
    return loss if weight is None else at_step(weight, t, loss) * loss


def standard_normal(
    like: Float[Tensor, "*x"], generator: torch.Generator | None = None
) -> Float[Tensor, "*x"]:
    """Draw standard normal numbers where the generator lives, and bring them along.

    With a generator on the CPU, a GPU gets the same numbers as the CPU would.

    >>> import torch
    >>> standard_normal(torch.zeros(2, 3)).shape
    torch.Size([2, 3])
    """
    place = like.device if generator is None else generator.device
    drawn = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=place)
    return drawn.to(like.device)


def check_prediction(prediction: Tensor, x_t: Tensor) -> None:
    """Refuse what a model returned, if it is not of the shape of what it was shown.

    Raises
    ------
    ValueError
        If it is of another shape: most of these could be broadcast.
    """
    if prediction.shape != x_t.shape:
        raise ValueError(
            f"the model must return {tuple(x_t.shape)}, the shape of x_t, "
            f"got {tuple(prediction.shape)}"
        )


def check_images(x_0: Tensor) -> None:
    """Refuse bytes where images in [-1, 1] belong.

    Raises
    ------
    TypeError
        If the entries are not floating-point numbers.
    """
    if not x_0.is_floating_point():
        raise TypeError(
            f"x_0 must be images in [-1, 1], got {x_0.dtype}; see from_bytes"
        )


def _check_draw(x_0: Tensor, t: Tensor, epsilon: Tensor) -> None:
    check_images(x_0)
    if t.shape != x_0.shape[:1] or epsilon.shape != x_0.shape:
        raise ValueError(
            f"t must be {tuple(x_0.shape[:1])} and epsilon {tuple(x_0.shape)}, as x_0 "
            f"has it, got {tuple(t.shape)} and {tuple(epsilon.shape)}"
        )


def _check_target(
    schedule: NoiseSchedule, t: Tensor, x: Tensor, target: str, from_1: tuple[str, ...]
) -> None:
    """Refuse unknown targets, and step 0 for those that are not defined there."""
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
    if target in from_1:
        check_steps(t, x, first=1, last=len(schedule.beta) - 1)
