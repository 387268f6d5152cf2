r"""Exponential moving average (EMA) of the weights over the steps of training.

Samples of a diffusion model are made with the EMA weights, which fluctuate less than
the raw weights that are trained.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from dian.errors import require


def ema_update(
    theta_bar: Sequence[Tensor], theta: Sequence[Tensor], decay: float
) -> list[Tensor]:
    r"""Return the averages after one more step.

    .. math::

        \bar\theta \leftarrow \mu\, \bar\theta + (1 - \mu)\, \theta

    Parameters
    ----------
    theta_bar, theta
        The averages so far, and the new weights.
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
    # All at once: on a GPU hundreds of small operations would take longer than a step.
    return list(torch._foreach_lerp(list(theta_bar), list(theta), 1 - decay))


class EMA:
    r"""The exponential moving average of named parameters.

    It starts from their present values, as in the authors' code, without bias
    correction: after :math:`n` steps they have the weight :math:`\mu^n`.

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
        self.average = {name: p.detach().clone() for name, p in parameters}

    @torch.no_grad()
    def update(self, parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Include the parameters after one more step."""
        theta = dict(parameters)
        means = [self.average[name] for name in theta]
        new = ema_update(means, [p.detach() for p in theta.values()], self.decay)
        self.average |= dict(zip(theta, new, strict=True))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages, for a checkpoint."""
        return self.average

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the averages from a checkpoint."""
        wrong = sorted(state.keys() ^ self.average.keys())
        require(not wrong, f"state must hold the averaged parameters, not {wrong}")
        self.average = {
            name: mean.clone().copy_(state[name]) for name, mean in self.average.items()
        }
