r"""One step of SGD, Adam and AdamW, each as a pure function.

They are written for reading; the recorded runs train with :mod:`torch.optim`, which
computes the same (:data:`dian.training.loop.OPTIMIZERS`). The axes ``*shape`` are those
of one parameter tensor: every operation is element-wise.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dian.errors import require
from dian.numerics import widened


@widened
def sgd_step(
    theta: Float[Tensor, "*shape"],
    grad: Float[Tensor, "*shape"],
    velocity: Float[Tensor, "*shape"],
    *,
    lr: float,
    momentum: float = 0.0,
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    r"""Take one step of stochastic gradient descent with momentum.

    .. math::

        v_t = \mu\, v_{t-1} + g_t, \qquad \theta_t = \theta_{t-1} - \eta_t\, v_t .

    Parameters
    ----------
    theta, grad
        A parameter and its gradient.
    velocity
        :math:`v_{t-1}`, zero before the first step.
    lr
        The learning rate :math:`\eta_t`.
    momentum
        :math:`\mu`. Default: 0, plain gradient descent.

    Returns
    -------
    theta, velocity
        Their next values.

    Notes
    -----
    The form of :class:`torch.optim.SGD`: the learning rate multiplies the velocity and
    is not part of it. A change of the rate therefore takes effect at once.

    Examples
    --------
    >>> theta, velocity = torch.ones(1), torch.zeros(1)
    >>> for _ in range(2):
    ...     step = sgd_step(theta, torch.ones(1), velocity, lr=0.1, momentum=0.5)
    ...     theta, velocity = step
    >>> theta  # 1 - 0.1 - 0.15
    tensor([0.7500])
    """
    velocity = momentum * velocity + grad
    return theta - lr * velocity, velocity


class AdamState(NamedTuple):
    """The state of Adam for one parameter."""

    m: Float[Tensor, "*shape"]
    """Exponential moving average of the gradient."""
    v: Float[Tensor, "*shape"]
    """Exponential moving average of the squared gradient."""
    step: int
    """Number of steps done."""


@widened
def adam_step(
    theta: Float[Tensor, "*shape"],
    grad: Float[Tensor, "*shape"],
    state: AdamState | None,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Float[Tensor, "*shape"], AdamState]:
    r"""Take one step of Adam, or with ``weight_decay`` of AdamW.

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2, \\
        \theta_t &= (1 - \eta_t \lambda)\, \theta_{t-1} - \eta_t\,
        \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} .

    Parameters
    ----------
    theta, grad
        A parameter and its gradient.
    state
        The state that the previous step returned; None before the first step.
    lr
        The learning rate :math:`\eta_t`.
    betas
        :math:`\beta_1` and :math:`\beta_2`.
    eps
        :math:`\epsilon`.
    weight_decay
        :math:`\lambda`. It is decoupled: it shrinks the parameter itself, and is not
        added to the gradient.

    Returns
    -------
    theta, state
        Their next values.

    Notes
    -----
    Kingma and Ba, *Adam: a method for stochastic optimization*, 2015, arXiv:1412.6980,
    algorithm 1; Loshchilov and Hutter, *Decoupled weight decay regularization*, 2019,
    arXiv:1711.05101. The default of ``weight_decay`` is that of
    :class:`torch.optim.Adam`; the default of :class:`torch.optim.AdamW` is 0.01.

    Examples
    --------
    The first step has the length of the learning rate, whatever the gradient is:

    >>> theta, grad = torch.zeros(2), torch.tensor([1e-3, -1e3])
    >>> adam_step(theta, grad, None, lr=0.1)[0]
    tensor([-0.1000,  0.1000])
    """
    require(
        all(0 <= beta < 1 for beta in betas), f"betas must be in [0, 1), got {betas}"
    )
    m, v, step = state or AdamState(torch.zeros_like(grad), torch.zeros_like(grad), 0)
    (beta_1, beta_2), step = betas, step + 1
    m = beta_1 * m + (1 - beta_1) * grad
    v = beta_2 * v + (1 - beta_2) * grad * grad
    # Both averages are initially zero: the corrections compensate for that
    m_hat, v_hat = m / (1 - beta_1**step), v / (1 - beta_2**step)
    theta = (1 - lr * weight_decay) * theta - lr * m_hat / (v_hat.sqrt() + eps)
    return theta, AdamState(m, v, step)
