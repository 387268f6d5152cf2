r"""Noise schedules of the forward process, and their lookup at a timestep.

The papers count timesteps from :math:`t = 1` to :math:`T`. Tables have length
:math:`T + 1`, so that index ``t`` is timestep :math:`t`; index 0 is the clean image,
:math:`\bar\alpha_0 = 1`. The axis ``n`` has length :math:`T + 1`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


class NoiseSchedule(NamedTuple):
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

    def to(self, device: torch.device | str) -> "NoiseSchedule":
        """Return the same on a device."""
        return NoiseSchedule(*(table.to(device) for table in self))


def make_schedule(beta: Float[Tensor, "T"] | Sequence[float]) -> NoiseSchedule:
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
    return NoiseSchedule(beta, alpha, alpha.cumprod(0))


def linear_schedule(
    T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> NoiseSchedule:
    r"""Let :math:`\beta_t` grow evenly from :math:`\beta_1` to :math:`\beta_T`.

    Parameters
    ----------
    T
        Number of steps. A shorter chain wants larger steps: with fewer than 1000,
        scale both ends by 1000 / T (``linear_schedule(T, 0.1 / T, 20 / T)``), or a part
        of the image is left at the end.
    beta_start, beta_end
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
    return make_schedule(torch.linspace(beta_start, beta_end, T, dtype=torch.float64))


def cosine_schedule(
    T: int = 1000, s: float = 0.008, max_beta: float = 0.999
) -> NoiseSchedule:
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
    max_beta
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
    return make_schedule((1 - f[1:] / f[:-1]).clamp(max=max_beta))


def signal_to_noise(schedule: NoiseSchedule) -> Float64[Tensor, "n"]:
    r"""Return :math:`\operatorname{SNR}(t) = \bar\alpha_t / (1 - \bar\alpha_t)`.

    It is infinite at index 0, where there is no noise. Section 3.1 of Kingma et al.,
    *Variational Diffusion Models*, 2021, arXiv:2107.00630.

    >>> signal_to_noise(linear_schedule(T=2, beta_start=0.5, beta_end=0.5))
    tensor([   inf, 1.0000, 0.3333], dtype=torch.float64)
    """
    return schedule.alpha_bar / (1 - schedule.alpha_bar)


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


def check_table(name: str, table: Tensor, schedule: NoiseSchedule) -> None:
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
