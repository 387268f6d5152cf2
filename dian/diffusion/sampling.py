r"""The reverse process: ancestral sampling (Algorithm 2 of Ho et al.) and DDIM.

Every sampler takes :math:`x_T` and returns :math:`x_0`. Its argument ``model`` is
either a bare network that predicts the noise in images, or a :class:`Denoiser`, which
states what the network predicts and whether :math:`\hat x_0` is clipped. The
conventions for ``t`` and ``n`` are those of :mod:`dian.diffusion.process`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Integral
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from dian.diffusion.posterior import posterior
from dian.diffusion.process import (
    Model,
    check_images,
    check_prediction_type,
    check_shape,
    predict_epsilon,
    predict_x0,
    q_sample,
    signal_and_noise,
    standard_normal,
)
from dian.diffusion.schedule import (
    Images,
    NoiseSchedule,
    Steps,
    as_steps,
    at_step,
    check_steps,
)
from dian.errors import require, require_whole
from dian.numerics import at_least_float32, widened

Noise = Callable[[int], Tensor]
"""Returns the standard normal :math:`z` of timestep :math:`t`."""

Callback = Callable[[int, Tensor, Tensor], None]
r"""Called after each step with :math:`t`, the new :math:`x` and :math:`\hat x_0`."""


class Denoised(NamedTuple):
    r"""Estimates of the image and of the noise that are consistent with :math:`x_t`.

    :math:`x_t = \sqrt{\bar\alpha_t}\, \hat x_0 + \sqrt{1 - \bar\alpha_t}\,
    \hat\epsilon` holds even if :math:`\hat x_0` is clipped.
    """

    x_0: Images
    epsilon: Images


@dataclass(frozen=True)
class Denoiser:
    r"""A network, with its prediction type and the clipping of :math:`\hat x_0`.

    Parameters
    ----------
    model
        The network, or any other callable ``model(x_t, t)``.
    prediction_type
        What it predicts, one of :data:`dian.diffusion.process.PREDICTION_TYPES`.
    clip
        :math:`\hat x_0` is clamped to [-clip, clip]: 1 for images, ``None`` for no
        clamping. Algorithm 2 of Ho et al., 2020, is printed without clipping;
        their code clips.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> schedule, x_t = linear_schedule(2, 0.5, 0.5), torch.full((1,), 3.0)
    >>> Denoiser(lambda x_t, t: 0 * x_t)(schedule, x_t, 2).x_0
    tensor([1.])
    >>> Denoiser(lambda x_t, t: 0 * x_t, clip=None)(schedule, x_t, 2).x_0
    tensor([6.])
    """

    model: Model
    prediction_type: str = "epsilon"
    clip: float | None = 1.0

    def __post_init__(self):
        check_prediction_type(self.prediction_type)
        fits = self.clip is None or self.clip > 0
        require(fits, f"clip must be above 0, or None, got {self.clip}")

    def __call__(self, schedule: NoiseSchedule, x_t: Images, t: Steps) -> Denoised:
        r"""Return :math:`\hat x_0` and the corresponding :math:`\hat\epsilon`."""
        prediction = self.model(x_t, as_steps(t, x_t))
        dtype, x_t = x_t.dtype, at_least_float32(x_t)
        x_0 = predict_x0(schedule, x_t, t, prediction, self.prediction_type)
        if self.clip is not None:
            x_0 = x_0.clamp(-self.clip, self.clip)
        epsilon = predict_epsilon(schedule, x_t, t, x_0)
        return Denoised(x_0.to(dtype), epsilon.to(dtype))


def as_denoiser(model: Model | Denoiser) -> Denoiser:
    """Wrap a bare model in a :class:`Denoiser` with the default options."""
    return model if isinstance(model, Denoiser) else Denoiser(model)


def in_float32(model: Model | Denoiser, x: Images) -> tuple[Denoiser, Images]:
    """Return a denoiser, and the images in float32.

    The model is still called with images of the original dtype. The sampler itself
    computes in float32, so that rounding to 16 bits does not add up over the steps.
    """
    check_images(x)
    denoiser = as_denoiser(model)

    def rounded(x_t: Tensor, t: Tensor) -> Tensor:
        return denoiser.model(x_t.to(x.dtype), t)

    return replace(denoiser, model=rounded), at_least_float32(x)


@widened
def reverse_mean(
    schedule: NoiseSchedule, x_t: Images, t: Steps, epsilon: Images
) -> Images:
    r"""Return the mean of a reverse transition, from the noise.

    .. math::

        \mu = \frac{1}{\sqrt{\alpha_t}} \Big( x_t
        - \frac{\beta_t}{\sqrt{1 - \bar\alpha_t}}\, \epsilon \Big)

    With the true noise in :math:`x_t` this is the mean :math:`\tilde\mu_t` of the
    :func:`dian.diffusion.posterior.posterior`, and with a predicted noise it is the
    mean of :math:`p_\theta(x_{t-1} \mid x_t)`. Equations 10 and 11 of Ho et al., 2020,
    arXiv:2006.11239.

    >>> from dian.diffusion.schedule import linear_schedule
    >>> schedule, x_t = linear_schedule(2, 0.5, 0.5), torch.full((1,), 3.0)
    >>> reverse_mean(schedule, x_t, 2, torch.zeros(1))
    tensor([4.2426])
    """
    _, noise = signal_and_noise(schedule, t, x_t, first=1)
    beta, alpha = (at_step(table, t, x_t) for table in schedule[:2])
    return (x_t - beta / noise * epsilon) / alpha**0.5


def reverse_variance(
    schedule: NoiseSchedule, variance: str | Float64[Tensor, "n"] = "beta"
) -> Float64[Tensor, "n"]:
    r"""Return :math:`\sigma_t^2`, the variance of each reverse transition.

    Parameters
    ----------
    schedule
        The noise schedule.
    variance
        ``"beta"`` (or ``"fixed_large"``) for :math:`\beta_t`, ``"beta_tilde"`` (or
        ``"fixed_small"``) for :math:`\tilde\beta_t`, or a table of your own.

    Notes
    -----
    Section 3.2 of Ho et al., 2020. The last step, :math:`t = 1`, adds no noise, so its
    variance matters for the likelihood alone. There :math:`\tilde\beta_1 = 0` would not
    give a density; it is replaced by :math:`\tilde\beta_2`, as in the authors' code.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> reverse_variance(linear_schedule(3, 0.5, 0.5), "beta_tilde")
    tensor([0.0000, 0.3333, 0.3333, 0.4286], dtype=torch.float64)
    """
    if isinstance(variance, Tensor):
        check_shape("variance, from index 0 to T, must be", variance, schedule.beta)
        least = variance[1:].min()
        require(least >= 0, f"variance must be >= 0, got {least}")
        return variance.double()
    if variance in ("beta", "fixed_large"):
        return schedule.beta
    if variance in ("beta_tilde", "fixed_small"):
        table = posterior(schedule).beta_tilde
        table[0], table[1] = 0, table[2] if schedule.T > 1 else schedule.beta[1]
        return table
    raise ValueError(
        "variance must be 'beta', 'beta_tilde', 'fixed_large', 'fixed_small' or a "
        f"table, got {variance!r}"
    )


@torch.no_grad()
def ddpm_sample(
    schedule: NoiseSchedule,
    model: Model | Denoiser,
    x_T: Images,
    *,
    variance: str | Float64[Tensor, "n"] = "beta",
    start: int | None = None,
    generator: torch.Generator | None = None,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Images:
    r"""Algorithm 2 of Ho et al., 2020: sample images from noise, in T reverse steps.

    .. math::

        x_{t-1} = \frac{1}{\sqrt{\alpha_t}} \Big( x_t
        - \frac{1 - \alpha_t}{\sqrt{1 - \bar\alpha_t}}\, \epsilon_\theta(x_t, t) \Big)
        + \sigma_t z, \qquad z = 0 \text{ if } t = 1

    Parameters
    ----------
    schedule
        The noise schedule the model was trained with.
    model
        A network that predicts the noise in images, or a :class:`Denoiser`.
    x_T
        Standard normal noise; it decides shape, dtype and device.
    variance
        :math:`\sigma_t^2`, as in :func:`reverse_variance`.
    start
        The timestep of ``x_T``, if not T.
    generator
        The source of :math:`z`.
    noise
        Returns :math:`z` for timestep :math:`t`, in place of the generator.
    callback
        Called after each step with :math:`t`, :math:`x_{t-1}` and :math:`\hat x_0`.

    Returns
    -------
    x_0
        The samples, see :func:`dian.diffusion.pixels.to_bytes`.

    Notes
    -----
    arXiv:2006.11239.

    Examples
    --------
    A model for data that consist of a single image:

    >>> from dian.diffusion.schedule import linear_schedule
    >>> denoiser = Denoiser(lambda x_t, t: 0 * x_t + 0.5, "x_0")
    >>> ddpm_sample(linear_schedule(10, 0.01, 0.9), denoiser, torch.randn(2, 1))
    tensor([[0.5000],
            [0.5000]])
    """
    T = schedule.T if start is None else start
    check_steps(T, x_T, first=1, last=schedule.T)
    schedule, (denoiser, x) = schedule.to("cpu"), in_float32(model, x_T)
    sigma = reverse_variance(schedule, variance).sqrt().tolist()
    like = x  # 1: x_T ~ N(0, I)
    noise = noise or (lambda _: standard_normal(like, generator))
    for t in range(T, 0, -1):  # 2: for t = T, ..., 1
        z = noise(t) if t > 1 else 0  # 3: z ~ N(0, I) if t > 1, else z = 0
        x_0, epsilon = denoiser(schedule, x, t)
        # 4: x_{t-1} = (x_t - (1 - a_t) / sqrt(1 - abar_t) epsilon) / sqrt(a_t)
        #              + sigma_t z
        x = reverse_mean(schedule, x, t, epsilon) + sigma[t] * z
        if callback is not None:
            callback(t, x, x_0)
    return x.to(x_T.dtype)  # 6


@torch.no_grad()
def ddim_sample(
    schedule: NoiseSchedule,
    model: Model | Denoiser,
    x_T: Images,
    *,
    steps: int | Sequence[int] = 50,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Images:
    r"""Sample images from noise in fewer steps, with any amount of new noise (DDIM).

    From timestep :math:`t` to an earlier :math:`s`,

    .. math::

        x_s = \sqrt{\bar\alpha_s}\, \hat x_0 + \sqrt{1 - \bar\alpha_s - \sigma^2}\,
        \hat\epsilon + \sigma z, \qquad \sigma^2 = \eta^2\,
        \frac{1 - \bar\alpha_s}{1 - \bar\alpha_t}
        \Big( 1 - \frac{\bar\alpha_t}{\bar\alpha_s} \Big) .

    Parameters
    ----------
    schedule, model, x_T, generator, noise, callback
        As in :func:`ddpm_sample`. :math:`\hat\epsilon` is computed from the clipped
        :math:`\hat x_0`.
    steps
        The number of steps, for :func:`evenly_spaced_timesteps`, or the timesteps
        themselves, increasing; 0 is added. ``x_T`` is at the last of them.
    eta
        0 adds no noise (DDIM); 1 adds as much as :func:`ddpm_sample` with
        :math:`\tilde\beta_t`.

    Returns
    -------
    x_0
        The samples, see :func:`dian.diffusion.pixels.to_bytes`.

    Notes
    -----
    Equations 12 and 16 of Song, Meng and Ermon, *Denoising Diffusion Implicit Models*,
    2021, arXiv:2010.02502.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> denoiser = Denoiser(lambda x_t, t: 0 * x_t + 0.5, "x_0")
    >>> ddim_sample(linear_schedule(), denoiser, torch.randn(1, 1), steps=2)
    tensor([[0.5000]])
    """
    T, alpha_bar = schedule.T, schedule.alpha_bar.tolist()
    if isinstance(steps, Integral):
        steps = evenly_spaced_timesteps(T, steps)
    whole = len(steps) and all(isinstance(t, Integral) for t in steps)
    fits = whole and all(s < t for s, t in pairwise([0, *steps, T + 1]))
    require(fits, f"steps must be integers increasing from 1 to {T}, got {steps}")
    require(0 <= eta <= 1, f"eta must lie in [0, 1], got {eta}")
    schedule, (denoiser, x) = schedule.to("cpu"), in_float32(model, x_T)
    like = x
    noise = noise or (lambda _: standard_normal(like, generator))
    for s, t in reversed([*pairwise([0, *steps])]):
        a_s, a_t = alpha_bar[s], alpha_bar[t]
        x_0, epsilon = denoiser(schedule, x, t)
        variance = eta**2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
        x = a_s**0.5 * x_0 + max(1 - a_s - variance, 0) ** 0.5 * epsilon
        if variance > 0:
            x = x + variance**0.5 * noise(t)
        if callback is not None:
            callback(t, x, x_0)
    return x.to(x_T.dtype)


def interpolate(
    schedule: NoiseSchedule,
    model: Model | Denoiser,
    x_0: Images,
    y_0: Images,
    *,
    t: int,
    weight: float = 0.5,
    variance: str | Float64[Tensor, "n"] = "beta",
    generator: torch.Generator | None = None,
) -> Images:
    r"""Interpolate between images: noise both, mix, and sample from the mixture.

    .. math::

        \bar x_t = (1 - \lambda)\, x_t + \lambda\, y_t

    Parameters
    ----------
    schedule, model, variance, generator
        As in :func:`ddpm_sample`.
    x_0, y_0
        The images.
    t
        The timestep at which they are mixed. The larger, the less is left of both.
    weight
        :math:`\lambda`, the weight of the second image.

    Returns
    -------
    x_0
        An image for each pair, see :func:`dian.diffusion.pixels.to_bytes`.

    Notes
    -----
    Section 4.4 of Ho et al., 2020, arXiv:2006.11239. Both images get the same noise,
    which the paper leaves open: the mixture of two noises would have less variance than
    the model expects.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> denoiser = Denoiser(lambda x_t, t: 0 * x_t + 0.5, "x_0")
    >>> x_0, y_0 = torch.randn(2, 1, 2)
    >>> interpolate(linear_schedule(), denoiser, x_0, y_0, t=9)
    tensor([[0.5000, 0.5000]])
    """
    denoiser, wide = in_float32(model, x_0)
    epsilon = standard_normal(wide, generator)
    pair = wide, at_least_float32(y_0)
    x_t, y_t = (q_sample(schedule, image, t, epsilon) for image in pair)
    mixed = (1 - weight) * x_t + weight * y_t
    options = {"variance": variance, "start": t, "generator": generator}
    return ddpm_sample(schedule, denoiser, mixed, **options).to(x_0.dtype)


def evenly_spaced_timesteps(T: int, n: int) -> list[int]:
    """Return n timesteps, evenly spaced over 1 to T; the last is T.

    >>> evenly_spaced_timesteps(1000, 4)
    [250, 500, 750, 1000]
    """
    require_whole("T", T, 1)
    require_whole("n", n, 1, T)
    return [round(i * T / n) for i in range(1, n + 1)]
