r"""Learning-rate schedules: factors of the peak rate as functions of progress."""

import math
from collections.abc import Callable

from dian.errors import require_whole


def cosine(progress: float) -> float:
    r"""Decay from 1 to 0 along half a cosine, :math:`(1 + \cos \pi p) / 2`.

    Loshchilov and Hutter, *SGDR*, 2017, arXiv:1608.03983, without restarts.

    >>> [round(cosine(p), 3) for p in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    """
    return (1 + math.cos(math.pi * progress)) / 2


def one_cycle(progress: float) -> float:
    r"""Increase from 1/25 to 1 in the first 30 %, then decay to 0, both as a cosine.

    Smith and Topin, *Super-convergence*, 2018, arXiv:1708.07120, with the shape and the
    defaults of :class:`torch.optim.lr_scheduler.OneCycleLR` and a constant momentum.

    >>> [round(one_cycle(p), 3) for p in (0.0, 0.15, 0.3, 0.65, 1.0)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    """
    if progress < 0.3:
        return 1 - (1 - 1 / 25) * cosine(progress / 0.3)
    return cosine((progress - 0.3) / 0.7)


def linear_warm_up(
    schedule: Callable[[float], float], n_warm_up: int, n_step: int
) -> Callable[[float], float]:
    r"""Increase a schedule linearly from zero in its first steps.

    The factor of step :math:`t = 1, 2, \dots` is multiplied by
    :math:`\min(1, t / n_{warm})`.

    Parameters
    ----------
    schedule
        The factor after the warm-up, as a function of progress.
    n_warm_up
        The number of steps :math:`n_{warm}`; 0 leaves the schedule as it is.
    n_step
        The number of all steps.

    Examples
    --------
    >>> factor = linear_warm_up(lambda progress: 1.0, n_warm_up=4, n_step=8)
    >>> [factor(done / 8) for done in range(8)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    require_whole("n_warm_up", n_warm_up, 0)
    require_whole("n_step", n_step, 1)

    def factor(progress: float) -> float:
        if not n_warm_up:
            return schedule(progress)
        done = round(progress * n_step)
        return schedule(progress) * min(1.0, (done + 1) / n_warm_up)

    return factor


SCHEDULES = {
    "constant": lambda progress: 1.0,
    "cosine": cosine,
    "one-cycle": one_cycle,
}
"""The schedules by name.

:meta hide-value:
"""
