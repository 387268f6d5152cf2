r"""Frequencies of a rotary embedding, stretched for texts longer than in training.

Each function takes the frequencies :math:`\omega_i` of :mod:`dian.positions.rotary`,
and gives others in their place; ``scale`` is :math:`s = L' / L`, the length that is
wanted over the length :math:`L` that was trained.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def position_interpolation(
    omega: Float[Tensor, "pairs"], scale: float
) -> Float[Tensor, "pairs"]:
    r"""Slow all pairs alike: position interpolation.

    .. math::

        \omega'_i = \omega_i / s

    No angle is larger than in training, but neighbours are closer than they ever were.

    Notes
    -----
    Chen et al., *Extending context window of large language models via positional
    interpolation*, 2023, arXiv:2306.15595. They divide the
    positions, which is the same.

    Examples
    --------
    >>> position_interpolation(torch.tensor([1.0, 0.01]), 4.0)
    tensor([0.2500, 0.0025])
    """
    _check(scale)
    return omega / scale


def ntk_aware(omega: Float[Tensor, "pairs"], scale: float) -> Float[Tensor, "pairs"]:
    r"""Slow the last pair by the scale, the first not at all: another base.

    .. math::

        \theta' = \theta\, s^{d / (d - 2)}
        \quad \Leftrightarrow \quad
        \omega'_i = \omega_i\, s^{-i / (d/2 - 1)}

    Notes
    -----
    Peng et al., *YaRN*, 2023, arXiv:2309.00071, section 3.1, who tell its origin.

    Examples
    --------
    >>> ntk_aware(torch.tensor([1.0, 0.1, 0.01]), 4.0)
    tensor([1.0000, 0.0500, 0.0025])
    """
    _check(scale)
    if len(omega) < 2:
        raise ValueError(f"omega must have at least two entries, got {len(omega)}")
    exponents = torch.linspace(0, 1, len(omega), dtype=omega.dtype)
    return omega * scale ** -exponents.to(omega.device)


def yarn(
    omega: Float[Tensor, "pairs"],
    scale: float,
    original_max_positions: int,
    slow: float = 1.0,
    fast: float = 32.0,
) -> Float[Tensor, "pairs"]:
    r"""Slow only the pairs that did not turn often in training: NTK-by-parts.

    .. math::

        \omega'_i = (1 - \gamma_i)\, \frac{\omega_i}{s} + \gamma_i\, \omega_i, \qquad
        \gamma_i = \operatorname{clamp}\Big(
        \frac{r_i - \alpha}{\beta - \alpha}, 0, 1 \Big), \qquad
        r_i = \frac{L\, \omega_i}{2 \pi}

    Parameters
    ----------
    omega, scale
        As above.
    original_max_positions
        The length :math:`L` of the training.
    slow, fast
        :math:`\alpha` and :math:`\beta`: how many turns within that length are few
        enough to be slowed by the whole scale, and many enough to be left alone.

    Notes
    -----
    Peng et al., *YaRN*, 2023, arXiv:2309.00071, section 3.2. The other half of YaRN is
    :func:`yarn_factor`. The code of its authors, and that of transformers, let
    :math:`\gamma` fall in proportion to the index of the pair, and not to its turns.

    Examples
    --------
    >>> yarn(torch.tensor([1.0, 0.1, 0.01]), 4.0, original_max_positions=256, fast=8.0)
    tensor([1.0000, 0.0579, 0.0025])
    """
    _check(scale)
    if not 0 < slow < fast:
        raise ValueError(f"slow must be positive and below fast, got {slow} and {fast}")
    r = original_max_positions * omega / (2 * math.pi)
    gamma = ((r - slow) / (fast - slow)).clamp(0, 1)
    return (1 - gamma) * omega / scale + gamma * omega


def yarn_factor(scale: float) -> float:
    r"""Return what YaRN multiplies queries and keys with, :math:`0.1 \ln s + 1`.

    Notes
    -----
    The square root of :math:`1/t` in section 3.4 of the same paper; the scores grow by
    its square, so that the weights are sharper over more keys.

    Examples
    --------
    >>> yarn_factor(1.0)
    1.0
    """
    _check(scale)
    return 0.1 * math.log(scale) + 1


def _check(scale: float) -> None:
    if not scale >= 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
