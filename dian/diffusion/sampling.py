r"""The way back from noise to images: Algorithm 2, and faster walks of the same kind.

Each walk gets :math:`x_T` and returns :math:`x_0`. Two things that many leave unsaid
are arguments here, since they change the images: ``clip``, and ``variance``. Index
``t`` is step :math:`t`, and ``n`` is :math:`T + 1`, as in :mod:`dian.diffusion`.
"""

from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from dian.diffusion.process import (
    Model,
    check_prediction,
    posterior,
    predict_epsilon,
    predict_x0,
    q_sample,
    standard_normal,
)
from dian.diffusion.schedule import NoiseSchedule, at_step, check_steps, check_table

Noise = Callable[[int], Tensor]
"""Gives the standard normal :math:`z` of step :math:`t`."""

Callback = Callable[[int, Tensor, Tensor], None]
r"""Is shown :math:`t`, :math:`x_{t-1}` and the :math:`\hat x_0` it was made of."""


def reverse_variance(
    schedule: NoiseSchedule, variance: str | Float64[Tensor, "n"] = "beta"
) -> Float64[Tensor, "n"]:
    r"""Return :math:`\sigma_t^2`, the variance of each step back.

    Parameters
    ----------
    schedule
        The noise.
    variance
        ``"beta"`` for :math:`\beta_t`, ``"beta_tilde"`` for :math:`\tilde\beta_t`, or a
        table of one's own.

    Raises
    ------
    ValueError
        If it has another name, or the table another length than the schedule, or an
        entry from 1 on is below 0. (On a GPU the entries are not looked at.)

    Notes
    -----
    Section 3.2 of Ho et al., 2020. The last step back, :math:`t = 1`, adds no noise, so
    its variance matters for the likelihood alone; there :math:`\tilde\beta_1 = 0` would
    be no distribution, and :math:`\tilde\beta_2` takes its place, as in the authors'
    code.

    Examples
    --------
    >>> from dian.diffusion.schedule import linear_schedule
    >>> reverse_variance(linear_schedule(3, 0.5, 0.5), "beta_tilde")
    tensor([0.0000, 0.3333, 0.3333, 0.4286], dtype=torch.float64)
    """
    if isinstance(variance, Tensor):
        check_table("variance", variance, schedule)
        used = variance[1:]
        if variance.device.type == "cpu" and not (used >= 0).all():
            raise ValueError(f"every variance must be 0 or above, got {used.min()}")
        return variance
    if variance == "beta":
        return schedule.beta
    if variance == "beta_tilde":
        _, beta, *later = posterior(schedule).beta_tilde.unbind()
        first = later[0] if later else schedule.beta[1]
        return torch.stack([beta.new_zeros(()), first, *later])
    raise ValueError(
        f"variance must be 'beta', 'beta_tilde' or a table, got {variance!r}"
    )


def reverse_mean(
    schedule: NoiseSchedule,
    x_t: Float[Tensor, "batch *x"],
    t: Int[Tensor, "batch"],
    prediction: Float[Tensor, "batch *x"],
    *,
    clip: float | None,
    target: str = "epsilon",
) -> Float[Tensor, "batch *x"]:
    r"""Return the mean of the step back that a prediction amounts to.

    .. math::

        \mu_\theta = \frac{1}{\sqrt{\alpha_t}} \Big( x_t
        - \frac{\beta_t}{\sqrt{1 - \bar\alpha_t}}\, \epsilon_\theta \Big)

    Parameters
    ----------
    schedule, x_t, t
        The noisy images and their steps, from 1 to T.
    prediction
        What the model returned.
    clip
        The largest size that an entry of the predicted image may have, 1 for images; or
        ``None``. With it, :math:`\hat x_0` is cut off there, and goes into
        :math:`\tilde\mu_t` in place of :math:`x_0`.
    target
        What the model predicts, a name in :data:`dian.diffusion.process.TARGETS`.

    Raises
    ------
    TypeError, ValueError
        As :func:`dian.diffusion.process.check_prediction` and, for steps from 1 on,
        :func:`dian.diffusion.schedule.check_steps`; or as
        :func:`dian.diffusion.process.predict_x0` and :func:`clipped`.

    Notes
    -----
    Equation 11 of Ho et al., 2020, arXiv:2006.11239. Their code clips; the text says
    nothing about it.

    Examples
    --------
    >>> import torch
    >>> from dian.diffusion.schedule import linear_schedule
    >>> schedule, t = linear_schedule(2, 0.5, 0.5), torch.tensor([2])
    >>> x, none = torch.full((1, 1), 3.0), torch.zeros(1, 1)
    >>> reverse_mean(schedule, x, t, none, clip=None), reverse_mean(
    ...     schedule, x, t, none, clip=1.0)
    (tensor([[4.2426]]), tensor([[1.8856]]))
    """
    check_prediction(prediction, x_t)
    check_steps(t, x_t, first=1, last=len(schedule.beta) - 1)
    beta, alpha, alpha_bar = schedule
    if clip is None and target == "epsilon":
        shrink = at_step((1 - alpha_bar).sqrt(), t, x_t)
        inner = x_t - at_step(beta, t, x_t) / shrink * prediction
        return inner / at_step(alpha.sqrt(), t, x_t)
    x_0 = clipped(predict_x0(schedule, x_t, t, prediction, target), clip)
    c_0, c_1, _ = posterior(schedule)
    return at_step(c_0, t, x_t) * x_0 + at_step(c_1, t, x_t) * x_t


@torch.no_grad()
def ddpm_sample(
    schedule: NoiseSchedule,
    model: Model,
    x_T: Float[Tensor, "batch *x"],
    *,
    clip: float | None,
    variance: str | Float64[Tensor, "n"],
    target: str = "epsilon",
    start: int | None = None,
    generator: torch.Generator | None = None,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Float[Tensor, "batch *x"]:
    r"""Algorithm 2 of Ho et al., 2020: walk from noise to images, T steps back.

    .. math::

        x_{t-1} = \frac{1}{\sqrt{\alpha_t}} \Big( x_t
        - \frac{1 - \alpha_t}{\sqrt{1 - \bar\alpha_t}}\, \epsilon_\theta(x_t, t) \Big)
        + \sigma_t z, \qquad z = 0 \text{ if } t = 1

    Parameters
    ----------
    schedule
        The noise.
    model
        What was trained.
    x_T
        Standard normal noise: line 1 of the algorithm is the caller's, who knows shape,
        type and device.
    clip
        As in :func:`reverse_mean`; ``None`` is the algorithm as it is printed, 1.0 what
        its authors run.
    variance
        As in :func:`reverse_variance`.
    target
        What the model predicts, a name in :data:`dian.diffusion.process.TARGETS`.
    start
        The step at which ``x_T`` is, if it is not T: an image with a part of the noise.
    generator
        The source of :math:`z`.
    noise
        Gives :math:`z` for step :math:`t` in its place.
    callback
        Is shown :math:`t`, :math:`x_{t-1}` and :math:`\hat x_0` after each step.

    Returns
    -------
    x_0
        The images, not cut off and not scaled.

    Raises
    ------
    ValueError
        If ``start`` is no step, or the model returns another shape than that of
        :math:`x_t`; and as :func:`reverse_variance`, :func:`clipped` and
        :func:`dian.diffusion.process.predict_x0`.

    Notes
    -----
    arXiv:2006.11239.

    Examples
    --------
    A model that knows the one image there is finds it:

    >>> import torch
    >>> from dian.diffusion.schedule import linear_schedule
    >>> def knows(x_t, t):
    ...     return torch.full_like(x_t, 0.5)
    >>> ddpm_sample(linear_schedule(10, 0.01, 0.9), knows, torch.randn(2, 1),
    ...        clip=1.0, variance="beta", target="x_0")
    tensor([[0.5000],
            [0.5000]])
    """
    T = len(schedule.beta) - 1
    if start is not None and not 1 <= start <= T:
        raise ValueError(f"start must be from 1 to {T}, got {start}")
    schedule = schedule.to(x_T.device)
    sigma = reverse_variance(schedule, variance).sqrt()
    noise = noise or (lambda _: standard_normal(x_T, generator))
    x = x_T  # 1: x_T ~ N(0, I)
    for step in range(start or T, 0, -1):  # 2: for t = T, ..., 1
        t = torch.full(x.shape[:1], step, device=x.device)
        # 3: z ~ N(0, I) if t > 1, else z = 0
        z = noise(step) if step > 1 else torch.zeros_like(x)
        # 4: x_{t-1} = (x_t - (1 - a_t) / sqrt(1 - abar_t) eps) / sqrt(a_t) + sigma_t z
        prediction = model(x, t)
        mean = reverse_mean(schedule, x, t, prediction, clip=clip, target=target)
        x_t, x = x, mean + at_step(sigma, t, x) * z
        if callback is not None:
            x_0 = predict_x0(schedule, x_t, t, prediction, target)
            callback(step, x, clipped(x_0, clip))
    return x


@torch.no_grad()
def ddim_sample(
    schedule: NoiseSchedule,
    model: Model,
    x_T: Float[Tensor, "batch *x"],
    *,
    steps: Sequence[int],
    eta: float,
    clip: float | None,
    target: str = "epsilon",
    generator: torch.Generator | None = None,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Float[Tensor, "batch *x"]:
    r"""Walk from noise to images in fewer steps, with as much new noise as one likes.

    From step :math:`t` to an earlier step :math:`s`,

    .. math::

        x_s = \sqrt{\bar\alpha_s}\, \hat x_0 + \sqrt{1 - \bar\alpha_s - \sigma^2}\,
        \hat\epsilon + \sigma z, \qquad \sigma^2 = \eta^2\,
        \frac{1 - \bar\alpha_s}{1 - \bar\alpha_t}
        \Big( 1 - \frac{\bar\alpha_t}{\bar\alpha_s} \Big) .

    Parameters
    ----------
    schedule, model, x_T, clip, target, generator, noise, callback
        As in :func:`ddpm_sample`. A clipped :math:`\hat x_0` gets an
        :math:`\hat\epsilon` that goes with it.
    steps
        The steps to walk on, upwards, such as :func:`evenly_spaced_timesteps`; 0 is
        added below. ``x_T`` is taken to be at the last of them, also if that is not T.
    eta
        0 for no new noise (DDIM); 1 for as much as in :func:`ddpm_sample` with
        :math:`\tilde\beta`.

    Returns
    -------
    x_0
        The images, not cut off and not scaled.

    Raises
    ------
    TypeError, ValueError
        If the steps are not whole numbers that rise from 1 or more to T or less,
        ``eta`` is not in [0, 1], or the model returns another shape than that of
        :math:`x_t`; and as :func:`clipped` and
        :func:`dian.diffusion.process.predict_x0`.

    Notes
    -----
    Equations 12 and 16 of Song, Meng and Ermon, *Denoising Diffusion Implicit Models*,
    2021, arXiv:2010.02502.

    Examples
    --------
    >>> import torch
    >>> from dian.diffusion.schedule import linear_schedule
    >>> def knows(x_t, t):
    ...     return torch.full_like(x_t, 0.5)
    >>> ddim_sample(linear_schedule(), knows, torch.randn(1, 1), steps=[500, 1000],
    ...             eta=0.0, clip=None, target="x_0")
    tensor([[0.5000]])
    """
    T = len(schedule.beta) - 1
    if isinstance(steps, Tensor) or not all(isinstance(s, Integral) for s in steps):
        raise TypeError(f"steps must be a list of whole numbers, got {steps!r}")
    path = [0, *steps]
    if not steps or any(a >= b for a, b in zip(path, steps, strict=False)):
        raise ValueError(f"steps must rise from 1 or more, got {list(steps)}")
    if path[-1] > T:
        raise ValueError(f"steps must end at {T} or before, got {path[-1]}")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
    schedule = schedule.to(x_T.device)
    noise = noise or (lambda _: standard_normal(x_T, generator))
    x = x_T
    for i in range(len(path) - 1, 0, -1):
        before, now = path[i - 1], path[i]
        t = torch.full(x.shape[:1], now, device=x.device)
        x_0 = clipped(predict_x0(schedule, x, t, model(x, t), target), clip)
        epsilon = predict_epsilon(schedule, x, t, x_0)
        a_s, a_t = schedule.alpha_bar[before], schedule.alpha_bar[now]
        variance = eta**2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
        rest = (1 - a_s - variance).clamp(min=0)
        x = a_s.sqrt().to(x) * x_0 + rest.sqrt().to(x) * epsilon
        if variance > 0:
            x = x + variance.sqrt().to(x) * noise(now)
        if callback is not None:
            callback(now, x, x_0)
    return x


@torch.no_grad()
def interpolate(
    schedule: NoiseSchedule,
    model: Model,
    x_0: Float[Tensor, "batch *x"],
    y_0: Float[Tensor, "batch *x"],
    epsilon: Float[Tensor, "batch *x"],
    *,
    t: int,
    share: float,
    clip: float | None,
    variance: str | Float64[Tensor, "n"],
    target: str = "epsilon",
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch *x"]:
    r"""Noise two images alike, mix them, and walk back to an image between them.

    .. math::

        \bar x_t = (1 - \lambda)\, x_t + \lambda\, y_t

    Parameters
    ----------
    schedule, model, clip, variance, target, generator
        As in :func:`ddpm_sample`.
    x_0, y_0
        The images.
    epsilon
        The noise, one for both: two noises would partly cancel in the mixture, which
        would then have less noise than the model expects.
    t
        How far to go before mixing, from 1 to T: the further, the less is left of both.
    share
        :math:`\lambda`, what the second image counts.

    Returns
    -------
    x_0
        An image for each pair, not cut off and not scaled.

    Raises
    ------
    TypeError, ValueError
        If ``t`` is not from 1 to T; and as :func:`dian.diffusion.process.q_sample` and
        :func:`ddpm_sample`.

    Notes
    -----
    Section 4.4 of Ho et al., 2020, arXiv:2006.11239, where it is left open whether the
    noise is shared.

    Examples
    --------
    >>> import torch
    >>> from dian.diffusion.schedule import linear_schedule
    >>> def knows(x_t, t):
    ...     return torch.full_like(x_t, 0.5)
    >>> x_0, y_0, epsilon = torch.randn(3, 1, 2)
    >>> interpolate(linear_schedule(), knows, x_0, y_0, epsilon, t=9, share=0.5,
    ...             clip=None, variance="beta", target="x_0")
    tensor([[0.5000, 0.5000]])
    """
    T = len(schedule.beta) - 1
    if not 1 <= t <= T:
        raise ValueError(f"t must be from 1 to {T}, got {t}")
    steps = torch.full(x_0.shape[:1], t, device=x_0.device)
    x_t, y_t = (q_sample(schedule, image, steps, epsilon) for image in (x_0, y_0))
    return ddpm_sample(
        schedule,
        model,
        (1 - share) * x_t + share * y_t,
        start=t,
        clip=clip,
        variance=variance,
        target=target,
        generator=generator,
    )


def evenly_spaced_timesteps(T: int, n: int) -> list[int]:
    """Spread n steps evenly over 1 to T; the last is T.

    Raises
    ------
    ValueError
        If there are not 1 to T of them.

    Examples
    --------
    >>> evenly_spaced_timesteps(1000, 4)
    [250, 500, 750, 1000]
    """
    if not 1 <= n <= T:
        raise ValueError(f"n must be from 1 to {T}, got {n}")
    return [round(i * T / n) for i in range(1, n + 1)]


def clipped(x_0: Float[Tensor, "*x"], clip: float | None) -> Float[Tensor, "*x"]:
    """Cut a predicted image off at plus and minus ``clip``, if there is one.

    Raises
    ------
    ValueError
        If ``clip`` is not above 0.

    Examples
    --------
    >>> import torch
    >>> clipped(torch.tensor([-3.0, 0.5]), 1.0)
    tensor([-1.0000,  0.5000])
    """
    if clip is None:
        return x_0
    if not clip > 0:
        raise ValueError(f"clip must be above 0, or None, got {clip}")
    return x_0.clamp(-clip, clip)
