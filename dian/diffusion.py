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

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

Model = Callable[[Tensor, Tensor], Tensor]
"""Takes :math:`x_t` and a step for each, and returns a tensor like :math:`x_t`."""

TARGETS = ("epsilon", "x_0", "v", "mu", "score")
"""What a model may predict; any one of them gives the others."""


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

    def to(self, device: torch.device | str) -> "Schedule":
        """Return the same on a device."""
        return Schedule(*(table.to(device) for table in self))


def make_schedule(beta: Float[Tensor, "T"] | Sequence[float]) -> Schedule:
    r"""Build a schedule from :math:`\beta_1, \dots, \beta_T`, in float64.

    Raises
    ------
    ValueError
        If there is none, or one is not above 0 and below 1, or they are not in a row.

    Examples
    --------
    >>> make_schedule([0.5, 0.5]).alpha_bar
    tensor([1.0000, 0.5000, 0.2500], dtype=torch.float64)
    """
    beta = torch.as_tensor(beta, dtype=torch.float64)
    if beta.ndim != 1:
        raise ValueError(f"beta must be a row of T numbers, got {tuple(beta.shape)}")
    if not len(beta):
        raise ValueError("there must be at least one step, got T = 0")
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
        scale both ends by 1000 / T (``linear_schedule(T, 0.1 / T, 20 / T)``), or a part
        of the image is left at the end.
    first, last
        :math:`\beta_1` and :math:`\beta_T`.

    Raises
    ------
    ValueError
        As :func:`make_schedule`.

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


def cosine_schedule(
    T: int = 1000, s: float = 0.008, largest: float = 0.999
) -> Schedule:
    r"""Let :math:`\bar\alpha_t` fall along a squared cosine.

    .. math::

        \bar\alpha_t = \frac{f(t)}{f(0)}, \qquad
        f(t) = \cos^2\Big(\frac{t/T + s}{1 + s} \cdot \frac{\pi}{2}\Big), \qquad
        \beta_t = \min\Big(1 - \frac{\bar\alpha_t}{\bar\alpha_{t-1}},\ \beta_{max}\Big)

    Parameters
    ----------
    T
        Number of steps.
    s
        Keeps :math:`\beta_1` from being too small.
    largest
        :math:`\beta_{max}`, which only the last step reaches.

    Raises
    ------
    ValueError
        As :func:`make_schedule`.

    Notes
    -----
    Equation 17 of Nichol and Dhariwal, *Improved Denoising Diffusion Probabilistic
    Models*, 2021, arXiv:2102.09672.

    Examples
    --------
    Half-way, about half of the variance is left, where the linear schedule has 8 %:

    >>> cosine_schedule().alpha_bar[500].item()
    0.49
    """
    time = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((time + s) / (1 + s) * math.pi / 2) ** 2
    return make_schedule((1 - f[1:] / f[:-1]).clamp(max=largest))


def signal_to_noise(schedule: Schedule) -> Float64[Tensor, "n"]:
    r"""Return :math:`\operatorname{SNR}(t) = \bar\alpha_t / (1 - \bar\alpha_t)`.

    It is infinite at index 0, where there is no noise. Section 3.1 of Kingma et al.,
    *Variational Diffusion Models*, 2021, arXiv:2107.00630.

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

    Raises
    ------
    TypeError, ValueError
        If the images are bytes, or there is not one step and one draw of noise for
        each; and as :func:`check_steps`.

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
    _check_draw(x_0, t, epsilon)
    signal = at_step(schedule.alpha_bar.sqrt(), t, x_0)
    noise = at_step((1 - schedule.alpha_bar).sqrt(), t, x_0)
    return signal * x_0 + noise * epsilon


def at_step(
    table: Float64[Tensor, "n"], t: Int[Tensor, "batch"], x: Float[Tensor, "batch *x"]
) -> Float[Tensor, "batch ..."]:
    """Look a table up at the step of each image, shaped to multiply ``x``.

    Raises
    ------
    TypeError, ValueError
        As :func:`check_steps`, from 0 to T.

    Examples
    --------
    >>> import torch
    >>> table = torch.tensor([0.0, 0.5, 0.75], dtype=torch.float64)
    >>> at_step(table, torch.tensor([2, 1]), torch.zeros(2, 1, 3)).shape
    torch.Size([2, 1, 1])
    """
    check_steps(t, x, last=len(table) - 1)
    return table.to(x.device)[t].to(x.dtype).view(-1, *[1] * (x.ndim - 1))


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


def target_from(
    schedule: Schedule,
    x_0: Float[Tensor, "batch *x"],
    t: Int[Tensor, "batch"],
    epsilon: Float[Tensor, "batch *x"],
    target: str = "epsilon",
) -> Float[Tensor, "batch *x"]:
    r"""Return what a model that is perfect would predict at :math:`x_t`.

    Parameters
    ----------
    schedule, x_0, t, epsilon
        As in :func:`diffuse`.
    target
        A name in :data:`TARGETS`.

    Raises
    ------
    TypeError, ValueError
        As :func:`diffuse`; if the target has another name; or if a step is 0, where
        neither ``mu`` nor ``score`` is defined.

    Notes
    -----
    For :math:`v`, Salimans and Ho, *Progressive Distillation for Fast Sampling of
    Diffusion Models*, 2022, arXiv:2202.00512.

    Examples
    --------
    >>> import torch
    >>> schedule = linear_schedule(T=2, first=0.5, last=0.5)
    >>> one, t = torch.ones(1, 1), torch.tensor([2])
    >>> target_from(schedule, one, t, 2 * one, "v")  # sqrt(1/4) 2 - sqrt(3/4)
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


def clean_from(
    schedule: Schedule,
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
        As :func:`check_prediction` and :func:`check_steps`; if the target has another
        name; or if a step is 0, where ``mu`` is not defined.

    Notes
    -----
    Equation 15 of Ho et al., 2020, for :math:`\epsilon`. For the score of the whole
    :math:`q(x_t)` this is the formula of Tweedie: the result is then the mean of
    :math:`x_0` given :math:`x_t`.

    Examples
    --------
    There and back:

    >>> import torch
    >>> schedule = linear_schedule()
    >>> x_0, epsilon = torch.ones(1, 1), torch.full((1, 1), 3.0)
    >>> t = torch.tensor([500])
    >>> clean_from(schedule, diffuse(schedule, x_0, t, epsilon), t, epsilon)
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


def noise_from(
    schedule: Schedule,
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
        As :func:`check_steps`, from 1 on; or if the two are of different shapes.

    Examples
    --------
    >>> import torch
    >>> schedule, t = linear_schedule(T=2, first=0.5, last=0.5), torch.tensor([1])
    >>> noise_from(schedule, torch.ones(1, 1), t, torch.zeros(1, 1))
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
    schedule: Schedule,
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
        One for the loss of each step, such as :func:`dian.likelihood.bound_weight`,
        which trains on the bound. Without it all are 1, the :math:`L_{simple}` of the
        paper.
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
    prediction = model(diffuse(schedule, x_0, t, epsilon), t)
    check_prediction(prediction, x_0)
    error = target_from(schedule, x_0, t, epsilon, target) - prediction
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


def from_bytes(images: UInt8[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Scale bytes to [-1, 1], where the noise has the size of the images.

    Raises
    ------
    TypeError
        If the images are no bytes.

    Examples
    --------
    >>> import torch
    >>> from_bytes(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([-1.0000, -0.6000,  1.0000])
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be bytes (uint8), got {images.dtype}")
    return images / 127.5 - 1


def to_bytes(x: Float[Tensor, "*n"]) -> UInt8[Tensor, "*n"]:
    """Scale back from [-1, 1] to the nearest bytes; what lies outside is cut off.

    Raises
    ------
    ValueError
        If an entry is no number: it would become a black pixel.

    Examples
    --------
    >>> import torch
    >>> to_bytes(torch.tensor([-1.0, -0.6, 1.2]))
    tensor([  0,  51, 255], dtype=torch.uint8)
    """
    if x.isnan().any():
        raise ValueError(
            f"x must hold numbers, got NaN in {x.isnan().sum()} of {x.numel()} entries"
        )
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def check_steps(
    t: Tensor, x: Tensor, *, first: int = 0, last: int | None = None
) -> None:
    """Refuse steps that are not whole numbers, one for each of ``x``.

    Raises
    ------
    TypeError
        If they are no integers.
    ValueError
        If there is not one for each, or one is not from ``first`` to ``last``. (On a
        GPU they are not looked at, since that would wait for all work before.)
    """
    if t.shape != x.shape[:1]:
        raise ValueError(
            f"t must be {tuple(x.shape[:1])}, a step for each, got {tuple(t.shape)}"
        )
    if t.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"t must be integers, torch.int64, got {t.dtype}")
    if t.device.type != "cpu" or not len(t) or torch.compiler.is_compiling():
        return
    least, most = (step.item() for step in t.aminmax())
    if least < first or (last is not None and most > last):
        end = f"from {first} to {last}" if last is not None else f"{first} or more"
        raise ValueError(f"every t must be {end}, got {least} to {most}")


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


def check_table(name: str, table: Tensor, schedule: Schedule) -> None:
    """Refuse a table that does not have the length of those of the schedule.

    Raises
    ------
    ValueError
        If it does not: with T entries each would stand for the step before its own.
    """
    if table.shape != schedule.beta.shape:
        raise ValueError(
            f"{name} must have an entry for each of 0 to {len(schedule.beta) - 1}, "
            f"got {table.shape[0] if table.ndim == 1 else tuple(table.shape)}"
        )


def _check_draw(x_0: Tensor, t: Tensor, epsilon: Tensor) -> None:
    check_images(x_0)
    if t.shape != x_0.shape[:1] or epsilon.shape != x_0.shape:
        raise ValueError(
            f"t must be {tuple(x_0.shape[:1])} and epsilon {tuple(x_0.shape)}, as x_0 "
            f"has it, got {tuple(t.shape)} and {tuple(epsilon.shape)}"
        )


def _check_target(
    schedule: Schedule, t: Tensor, x: Tensor, target: str, from_1: tuple[str, ...]
) -> None:
    """Refuse unknown targets, and step 0 for those that are not defined there."""
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
    if target in from_1:
        check_steps(t, x, first=1, last=len(schedule.beta) - 1)
