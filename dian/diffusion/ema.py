r"""Exponential moving average (EMA) of the weights over the steps of training.

A diffusion model samples with its EMA weights, because they fluctuate less than the raw
weights that are trained.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from dian.errors import kind, require
from dian.numerics import at_least_float32


def ema_update(
    theta_bar: Sequence[Tensor], theta: Sequence[Tensor], decay: float
) -> list[Tensor]:
    r"""Return the averages after one more training step.

    .. math::

        \bar\theta \leftarrow \mu\, \bar\theta + (1 - \mu)\, \theta

    Parameters
    ----------
    theta_bar, theta
        The averages before the step, and the weights after it.
    decay
        :math:`\mu`: the average spans about :math:`1 / (1 - \mu)` steps.

    Notes
    -----
    Ho et al., 2020, arXiv:2006.11239, appendix B, with :math:`\mu = 0.9999`.

    Examples
    --------
    >>> ema_update([torch.tensor(0.0)], [torch.tensor(1.0)], decay=0.75)
    [tensor(0.2500)]
    """
    for old, new in zip(theta_bar, theta, strict=True):
        wide = old.dtype in (torch.float32, torch.float64) and old.shape == new.shape
        require(
            wide,
            "an average must be float32 or float64 (in 16 bits it would not move) and "
            f"of the shape {tuple(new.shape)} of its weight, got {kind(old)}",
        )
    theta = [new.to(old.dtype) for old, new in zip(theta_bar, theta, strict=True)]
    # All at once: on a GPU hundreds of small operations would take longer than a step.
    return list(torch._foreach_lerp(list(theta_bar), theta, 1 - decay))


class EMA:
    r"""The exponential moving average of named parameters.

    It starts from their current values, as in the authors' code, and is not corrected
    for this: after :math:`n` steps these values still have the weight :math:`\mu^n`.

    Parameters
    ----------
    parameters
        Names and values, as from :meth:`torch.nn.Module.named_parameters`.
    decay
        :math:`\mu`, in [0, 1).

    Examples
    --------
    >>> w = torch.zeros(1)
    >>> ema = EMA([("w", w)], decay=0.5)
    >>> for _ in range(3):
    ...     ema.update([("w", w + 1)])
    >>> ema.average
    {'w': tensor([0.8750])}
    """

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], decay: float):
        require(0 <= decay < 1, f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.average = {
            name: at_least_float32(p.detach().clone()) for name, p in parameters
        }

    @torch.no_grad()
    def update(self, parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Update the averages with the parameters after one more training step."""
        theta = dict(parameters)
        self._check(theta.keys() - self.average.keys())
        means = [self.average[name] for name in theta]
        new = ema_update(means, [p.detach() for p in theta.values()], self.decay)
        self.average |= dict(zip(theta, new, strict=True))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages, for a checkpoint."""
        return self.average

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the averages from a checkpoint."""
        self._check(state.keys() ^ self.average.keys())
        for name, mean in self.average.items():
            fits = state[name].shape == mean.shape
            require(fits, f"{name} must be {kind(mean)}, got {kind(state[name])}")
        self.average = {
            name: mean.clone().copy_(state[name]) for name, mean in self.average.items()
        }

    def _check(self, wrong: set[str]) -> None:
        """Raise an error if names are missing or unknown."""
        message = f"expected the names of the averaged parameters, not {sorted(wrong)}"
        require(not wrong, message)
