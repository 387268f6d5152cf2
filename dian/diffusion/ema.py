r"""The mean of the weights over the steps of a training, the last ones counting most.

Samples of a diffusion model are made with these weights, which move less than those
that are trained.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def ema_update(
    theta_bar: Sequence[Tensor], theta: Sequence[Tensor], mu: float
) -> list[Tensor]:
    r"""Return the means after one more step.

    .. math::

        \bar\theta \leftarrow \mu\, \bar\theta + (1 - \mu)\, \theta

    Parameters
    ----------
    theta_bar, theta
        The means until now, and the weights that come in.
    mu
        How much of the past stays: about :math:`1 / (1 - \mu)` steps count.

    Notes
    -----
    Ho et al., 2020, arXiv:2006.11239, appendix B, with :math:`\mu = 0.9999`.

    Examples
    --------
    >>> ema_update([torch.tensor(0.0)], [torch.tensor(1.0)], mu=0.75)
    [tensor(0.2500)]
    """
    # All at once: on a GPU hundreds of small operations would take longer than a step.
    return list(torch._foreach_lerp(list(theta_bar), list(theta), 1 - mu))


class EMA:
    r"""Keep the exponential moving average of parameters.

    It begins with the parameters as they are, as in the authors' code; nothing makes up
    for that beginning, whose share after :math:`n` steps is :math:`\mu^n`.

    Parameters
    ----------
    parameters
        By their names, as :meth:`torch.nn.Module.named_parameters` gives them.
    mu
        How much of the past stays.

    Raises
    ------
    ValueError
        If ``mu`` is not in [0, 1).

    Examples
    --------
    >>> w = torch.zeros(1)
    >>> ema = EMA([("w", w)], mu=0.5)
    >>> for _ in range(3):
    ...     ema.update([("w", w + 1)])
    >>> ema.average
    {'w': tensor([0.8750])}
    """

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], mu: float):
        if not 0 <= mu < 1:
            raise ValueError(f"mu must be in [0, 1), got {mu}")
        self.mu = mu
        self.average = {name: p.detach().clone() for name, p in parameters}

    @torch.no_grad()
    def update(self, parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Take the parameters after one more step into the mean."""
        theta = dict(parameters)
        means = [self.average[name] for name in theta]
        new = ema_update(means, [p.detach() for p in theta.values()], self.mu)
        self.average |= dict(zip(theta, new, strict=True))

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint has to keep."""
        return self.average

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises
        ------
        ValueError
            If the names are not those of the parameters.
        """
        if state.keys() != self.average.keys():
            wrong = sorted(state.keys() ^ self.average.keys())
            raise ValueError(
                f"state must hold the {len(self.average)} names that are averaged, got "
                f"others: {', '.join(wrong)}"
            )
        self.average = {
            name: mean.clone().copy_(state[name]) for name, mean in self.average.items()
        }
