r"""Vanishing gradients: Jacobians between states, and how fast they decay.

Axis names: ``time``, ``batch`` and ``h`` as in :mod:`dian.rnn.recurrence`; ``lag``
counts steps back from the last state, 0 to :math:`T`. The argument ``derivatives``
holds :math:`\varphi'(A_t)` for :math:`t = 1, \dots, T`, and ``grad_last_state`` the
gradient of the loss with respect to :math:`H_T`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dian.errors import require
from dian.numerics import all_finite, widened


@widened
def jacobian(
    derivatives: Float[Tensor, "time h"], W_hh: Float[Tensor, "h h"]
) -> Float[Tensor, "h h"]:
    r"""Return the Jacobian of the last state with respect to the initial state.

    .. math::

        \frac{\partial h_t}{\partial h_k} = J_t J_{t-1} \cdots J_{k+1}, \qquad
        J_s = D_s W_{hh}^\top, \qquad D_s = \operatorname{diag} \varphi'(a_s) .

    Entry :math:`(i, j)` is :math:`\partial h_{t, i} / \partial h_{k, j}`.

    Parameters
    ----------
    derivatives
        Those of steps :math:`k + 1` to :math:`t` of one sequence.
    W_hh
        The recurrent weights.

    Examples
    --------
    >>> jacobian(torch.full((3, 1), 0.5), torch.full((1, 1), 2.0))
    tensor([[1.]])
    """
    product = torch.eye(len(W_hh)).to(W_hh)
    for D_s in derivatives:
        # J_s times the product so far; D_s scales the rows
        product = D_s[:, None] * (W_hh.T @ product)
    return product


@widened
def gradient_by_lag(
    grad_last_state: Float[Tensor, "batch h"],
    derivatives: Float[Tensor, "time batch h"],
    W_hh: Float[Tensor, "h h"],
) -> Float[Tensor, "time+1 batch h"]:
    r"""Backpropagate the gradient of the last state to all earlier states.

    .. math::

        \frac{\partial \ell}{\partial H_{t-1}} =
        \Big( \frac{\partial \ell}{\partial H_t} \odot \varphi'(A_t) \Big) W_{hh}^\top

    Returns
    -------
    Gamma
        ``Gamma[k]`` is the gradient with respect to :math:`H_{T-k}`.

    Examples
    --------
    >>> derivatives, W_hh = torch.full((2, 1, 1), 0.5), torch.ones(1, 1)
    >>> gradient_by_lag(torch.ones(1, 1), derivatives, W_hh).flatten()
    tensor([1.0000, 0.5000, 0.2500])
    """
    Gamma = [grad_last_state]
    for D_t in derivatives.flip(0):
        Gamma.append((Gamma[-1] * D_t) @ W_hh.T)
    return torch.stack(Gamma)


@widened
def lag_bounds(
    derivatives: Float[Tensor, "time h"], W_hh: Float[Tensor, "h h"], max_slope: float
) -> tuple[Float[Tensor, "lag"], Float[Tensor, "lag"]]:
    r"""Bound the Jacobian of the last state with respect to the state k steps earlier.

    .. math::

        \Big\lVert \frac{\partial h_T}{\partial h_{T-k}} \Big\rVert_2
        \le \prod_{s=T-k+1}^{T} \sigma \max_i \varphi'(a_{s, i})
        \le (\gamma \sigma)^k, \qquad \sigma = \lVert W_{hh} \rVert_2 .

    Parameters
    ----------
    derivatives, W_hh
        Those of all steps of one sequence, and the recurrent weights.
    max_slope
        :math:`\gamma`, the supremum of the derivative of the activation.

    Returns
    -------
    tight, loose
        The first and the second bound, for k from 0 to :math:`T`.

    Examples
    --------
    >>> derivatives = torch.tensor([[0.5], [0.25]])
    >>> lag_bounds(derivatives, 2 * torch.ones(1, 1), max_slope=1.0)
    (tensor([1.0000, 0.5000, 0.5000]), tensor([1., 2., 4.]))
    """
    require(all_finite(W_hh), "W_hh must be finite")
    sigma = torch.linalg.matrix_norm(W_hh, 2)
    met = (sigma * derivatives.amax(1)).flip(0).cumprod(0)
    lags = torch.arange(len(derivatives) + 1).to(W_hh)
    return torch.cat([met.new_ones(1), met]), (max_slope * sigma) ** lags


@widened
def gradient_variance_factor(
    derivatives: Float[Tensor, "*batch h"], W_hh: Float[Tensor, "h h"]
) -> Float[Tensor, ""]:
    r"""Predict the factor of the mean squared gradient per backward step.

    .. math::

        \chi = \sigma_w^2\, \mathbb E[\varphi'(a)^2], \qquad
        \sigma_w^2 = \lVert W_{hh} \rVert_F^2 / h

    The gradient norm then changes as :math:`e^{k \ln(\chi) / 2}` with the lag.

    Parameters
    ----------
    derivatives, W_hh
        Those of any number of steps and sequences, and the recurrent weights.

    Notes
    -----
    For one backward step this is the mean over random weights with independent entries
    of mean zero, which must also be independent of the derivatives and of the gradient.
    For several steps it is an approximation, because every step uses the same matrix:
    the gradient then depends on ``W_hh``. Mean-field theory neglects this dependence
    ("gradient independence"), which is justified for wide networks; it also assumes
    that the mean squared derivative is the same at every step. A large random matrix
    comes close, the identity matrix does not. Schoenholz et al., *Deep information
    propagation*, 2017, arXiv:1611.01232.

    Examples
    --------
    >>> gradient_variance_factor(torch.full((5, 3), 0.5), torch.eye(3))
    tensor(0.2500)
    """
    require(derivatives.numel(), "derivatives must not be empty")
    return W_hh.square().sum() / len(W_hh) * derivatives.square().mean()


@widened
def sigmoid_as_tanh(
    U: Float[Tensor, "d h"], V: Float[Tensor, "h h"], c: Float[Tensor, "h"]
) -> tuple[Float[Tensor, "d h"], Float[Tensor, "h h"], Float[Tensor, "h"]]:
    r"""Return the weights of the tanh network that equals a sigmoid network.

    With :math:`h = 2 s - 1` and :math:`\tanh a = 2 \sigma(2a) - 1`, the network
    :math:`s_t = \sigma(x_t U + s_{t-1} V + c)` is the tanh network with

    .. math::

        W_{xh} = U / 2, \qquad W_{hh} = V / 4, \qquad
        b_h = c / 2 + \mathbf 1^\top V / 4 .

    Examples
    --------
    >>> sigmoid_as_tanh(torch.ones(1, 1), 4 * torch.ones(1, 1), torch.zeros(1))
    (tensor([[0.5000]]), tensor([[1.]]), tensor([1.]))
    """
    return U / 2, V / 4, c / 2 + V.sum(0) / 4
