r"""RoPE scaling: frequencies for contexts longer than those in training.

Each function maps the frequencies :math:`\omega_i` of :mod:`dian.positions.rotary` to
new ones, for the ``omega`` of :class:`dian.positions.rotary.RotaryEmbedding`. The
``factor`` is :math:`s = L' / L`, the ratio of the new context length to the length
:math:`L` in training.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dian.errors import require
from dian.positions.sinusoidal import check_frequencies


def position_interpolation(
    omega: Float[Tensor, "pairs"], factor: float
) -> Float[Tensor, "pairs"]:
    r"""Divide all frequencies by the factor (linear scaling).

    .. math::

        \omega'_i = \omega_i / s

    No angle exceeds those in training, but neighboring positions become less distinct.

    Notes
    -----
    Chen et al., *Extending context window of large language models via positional
    interpolation*, 2023, arXiv:2306.15595, who divide the positions, which is
    equivalent.

    Examples
    --------
    >>> position_interpolation(torch.tensor([1.0, 0.01]), 4.0)
    tensor([0.2500, 0.0025])
    """
    _check(factor, omega)
    return omega / factor


def ntk_aware(omega: Float[Tensor, "pairs"], factor: float) -> Float[Tensor, "pairs"]:
    r"""Increase the base: the lowest frequency is divided by the factor.

    .. math::

        \theta' = \theta\, s^{d / (d - 2)}
        \quad \Leftrightarrow \quad
        \omega'_i = \omega_i\, s^{-i / (d/2 - 1)}

    The highest frequency does not change.

    Notes
    -----
    Peng et al., *YaRN*, 2023, arXiv:2309.00071, section 3.1, which cites its origin.

    Examples
    --------
    >>> ntk_aware(torch.tensor([1.0, 0.1, 0.01]), 4.0)
    tensor([1.0000, 0.0500, 0.0025])
    """
    _check(factor, omega)
    require(len(omega) > 1, f"omega must have two entries or more, got {len(omega)}")
    exponents = torch.linspace(0, 1, len(omega), dtype=omega.dtype)
    return omega * factor ** -exponents.to(omega.device)


def yarn(
    omega: Float[Tensor, "pairs"],
    factor: float,
    original_max_positions: int,
    beta_slow: float = 1.0,
    beta_fast: float = 32.0,
) -> Float[Tensor, "pairs"]:
    r"""Scale only the pairs with few rotations in training (NTK-by-parts).

    .. math::

        \omega'_i = (1 - \gamma_i)\, \frac{\omega_i}{s} + \gamma_i\, \omega_i, \qquad
        \gamma_i = \operatorname{clamp}\Big(
        \frac{r_i - \alpha}{\beta - \alpha}, 0, 1 \Big), \qquad
        r_i = \frac{L\, \omega_i}{2 \pi}

    Parameters
    ----------
    omega, factor
        As in :func:`position_interpolation`.
    original_max_positions
        The context length :math:`L` in training.
    beta_slow, beta_fast
        :math:`\alpha` and :math:`\beta`: pairs with fewer than :math:`\alpha` rotations
        within :math:`L` are divided by the factor, and pairs with more than
        :math:`\beta` do not change.

    Notes
    -----
    Peng et al., *YaRN*, 2023, arXiv:2309.00071, section 3.2. The other part of YaRN is
    :func:`yarn_attention_factor`. In the code of the authors and of transformers,
    :math:`\gamma` is linear in the index of the pair, not in the number of rotations.

    Examples
    --------
    >>> omega = torch.tensor([1.0, 0.1, 0.01])
    >>> yarn(omega, 4.0, original_max_positions=256, beta_fast=8.0)
    tensor([1.0000, 0.0579, 0.0025])
    """
    _check(factor, omega)
    require(
        0 < beta_slow < beta_fast,
        f"beta_slow must be positive and below beta_fast, got {beta_slow}, {beta_fast}",
    )
    r = original_max_positions * omega / (2 * math.pi)
    gamma = ((r - beta_slow) / (beta_fast - beta_slow)).clamp(0, 1)
    return (1 - gamma) * omega / factor + gamma * omega


def yarn_attention_factor(factor: float) -> float:
    r"""Return the factor of queries and keys in YaRN, :math:`0.1 \ln s + 1`.

    Notes
    -----
    The square root of :math:`1/t` in section 3.4 of the paper. The scores grow by its
    square, which makes the attention weights over more keys sharper.

    Examples
    --------
    >>> yarn_attention_factor(1.0)
    1.0
    """
    _check(factor)
    return 0.1 * math.log(factor) + 1


def _check(factor: float, omega: Tensor | None = None) -> None:
    fits = factor >= 1 and factor < math.inf
    require(fits, f"factor must be at least 1, got {factor}")
    if omega is not None:
        check_frequencies(omega)
