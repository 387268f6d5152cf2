r"""Noise schedules of the forward process, and their lookup at a timestep.

The papers count timesteps from :math:`t = 1` to :math:`T`. Tables have length
:math:`T + 1`, so that index ``t`` is timestep :math:`t`; index 0 is the clean image,
:math:`\bar\alpha_0 = 1`. The axis ``n`` has length :math:`T + 1`.
"""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from dian.errors import require, require_whole

Steps = Int[Tensor, "batch"] | int
"""A timestep for each image, or one for all of them."""

Images = Float[Tensor, "batch *x"]
"""A batch of images, or of points, with any axes."""


class NoiseSchedule(NamedTuple):
    r"""The variance added at each timestep, and its cumulative products.

    All tables are float64: in float32 the variance :math:`1 - \bar\alpha_1` of the
    linear schedule has a relative error of 1.7e-4.
    """

    beta: Float64[Tensor, "n"]
    r""":math:`\beta_t`, the variance added at timestep :math:`t`; 0 at index 0."""
    alpha: Float64[Tensor, "n"]
    r""":math:`\alpha_t = 1 - \beta_t`."""
    alpha_bar: Float64[Tensor, "n"]
    r""":math:`\bar\alpha_t = \prod_{s \le t} \alpha_s`, the fraction of the variance of
    :math:`x_t` that comes from :math:`x_0`."""

    @property
    def T(self) -> int:
        """Number of timesteps."""
        return len(self.beta) - 1

    def to(self, device: torch.device | str) -> "NoiseSchedule":
        """Return a copy on a device."""
        return NoiseSchedule(*(table.to(device) for table in self))


def make_schedule(beta: Float[Tensor, "T"] | Sequence[float]) -> NoiseSchedule:
    r"""Build a schedule from :math:`\beta_1, \dots, \beta_T`, each in (0, 1).

    Examples
    --------
    >>> make_schedule([0.5, 0.5]).alpha_bar
    tensor([1.0000, 0.5000, 0.2500], dtype=torch.float64)
    """
    beta = torch.as_tensor(beta, dtype=torch.float64)
    fits = beta.ndim == 1 and len(beta)
    require(fits, f"beta must be T >= 1 numbers, got shape {tuple(beta.shape)}")
    fits = ((beta > 0) & (beta < 1)).all()
    require(fits, f"beta must lie in (0, 1), got {beta.min()} to {beta.max()}")
    beta = torch.cat([beta.new_zeros(1), beta])
    alpha = 1 - beta
    return NoiseSchedule(beta, alpha, alpha.cumprod(0))


def linear_schedule(
    T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> NoiseSchedule:
    r"""Increase :math:`\beta_t` linearly from :math:`\beta_1` to :math:`\beta_T`.

    Parameters
    ----------
    T
        Number of timesteps. With fewer than 1000, scale both ends by 1000 / T
        (``linear_schedule(T, 0.1 / T, 20 / T)``): otherwise part of the image is left
        in :math:`x_T`.
    beta_start, beta_end
        :math:`\beta_1` and :math:`\beta_T`.

    Notes
    -----
    Section 4 of Ho et al., *Denoising Diffusion Probabilistic Models*, 2020,
    arXiv:2006.11239.

    Examples
    --------
    The fraction of the variance of an image that is left at :math:`T`:

    >>> linear_schedule().alpha_bar[-1].item()
    4.04e-05
    """
    require_whole("T", T, 1)
    return make_schedule(torch.linspace(beta_start, beta_end, T, dtype=torch.float64))


def cosine_schedule(
    T: int = 1000, s: float = 0.008, max_beta: float = 0.999
) -> NoiseSchedule:
    r"""Let :math:`\bar\alpha_t` follow a squared cosine.

    .. math::

        \bar\alpha_t = \frac{f(t)}{f(0)}, \qquad
        f(t) = \cos^2\Big(\frac{t/T + s}{1 + s} \cdot \frac{\pi}{2}\Big), \qquad
        \beta_t = \min\Big(1 - \frac{\bar\alpha_t}{\bar\alpha_{t-1}},\ \beta_{max}\Big)

    Parameters
    ----------
    T
        Number of timesteps.
    s
        Offset that keeps :math:`\beta_1` from being too small.
    max_beta
        :math:`\beta_{max}`, which only the last timestep reaches.

    Notes
    -----
    Equation 17 of Nichol and Dhariwal, *Improved Denoising Diffusion Probabilistic
    Models*, 2021, arXiv:2102.09672.

    Examples
    --------
    Half of the variance is left at :math:`T/2`, where the linear schedule has 8 %:

    >>> cosine_schedule().alpha_bar[500].item()
    0.49
    """
    require_whole("T", T, 1)
    time = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((time + s) / (1 + s) * math.pi / 2) ** 2
    return make_schedule((1 - f[1:] / f[:-1]).clamp(max=max_beta))


def signal_to_noise(schedule: NoiseSchedule) -> Float64[Tensor, "n"]:
    r"""Return :math:`\operatorname{SNR}(t) = \bar\alpha_t / (1 - \bar\alpha_t)`.

    It is infinite at index 0. Section 3.1 of Kingma et al., *Variational Diffusion
    Models*, 2021, arXiv:2107.00630.

    >>> signal_to_noise(linear_schedule(T=2, beta_start=0.5, beta_end=0.5))
    tensor([   inf, 1.0000, 0.3333], dtype=torch.float64)
    """
    return schedule.alpha_bar / (1 - schedule.alpha_bar)


def at_step(
    table: Float64[Tensor, "n"], t: Steps, x: Images, first: int = 0
) -> Float[Tensor, "batch ..."] | float:
    """Look a table up at the timestep of each image, shaped to broadcast against ``x``.

    Parameters
    ----------
    table
        One entry for each of 0 to T.
    t
        Timesteps. The result for an ``int`` is a number.
    x
        The images.
    first
        The first timestep at which the table is defined.

    Examples
    --------
    >>> table = torch.tensor([0.0, 0.5, 0.75], dtype=torch.float64)
    >>> at_step(table, torch.tensor([2, 1]), torch.zeros(2, 1, 3)).shape
    torch.Size([2, 1, 1])
    >>> at_step(table, 2, torch.zeros(2, 1, 3))
    0.75
    """
    check_steps(t, x, first=first, last=len(table) - 1)
    if not isinstance(t, Tensor):
        return table[t].item()
    return table.to(x.device)[t].to(x.dtype).view(-1, *[1] * (x.ndim - 1))


def as_steps(t: Steps, x: Images) -> Int[Tensor, "batch"]:
    """Return a timestep for each image, as networks take it.

    >>> as_steps(7, torch.zeros(3, 1))
    tensor([7, 7, 7])
    """
    return t if isinstance(t, Tensor) else torch.full(x.shape[:1], t, device=x.device)


_INTEGERS = (torch.int64, torch.int32)


def check_steps(
    t: Tensor | int, x: Tensor, *, first: int = 0, last: int | float = math.inf
) -> None:
    """Check that timesteps are integers in range, one for each image or one for all.

    The range of a tensor on a GPU is not checked, since that would synchronize.
    """
    if isinstance(t, Integral):
        low, high = t, t
    elif isinstance(t, Tensor) and t.shape == x.shape[:1] and t.dtype in _INTEGERS:
        if not t.is_cpu or not len(t) or torch.compiler.is_compiling():
            return
        low, high = (step.item() for step in t.aminmax())
    else:
        got = f"{t.dtype} {tuple(t.shape)}" if isinstance(t, Tensor) else repr(t)
        raise TypeError(f"t must be an int, or {len(x)} integers in a row, got {got}")
    fits = first <= low and high <= last
    require(fits, f"t must be from {first} to {last}, got {low} to {high}")
