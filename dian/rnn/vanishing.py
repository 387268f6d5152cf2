r"""How far back a recurrent network can be taught: its gradient against the lag.

Axis names: ``time``, ``batch`` and ``h`` as in :mod:`dian.rnn.recurrence`; ``lag``
counts steps back from the last state, 0 to :math:`T`. ``derivatives`` are the
derivatives :math:`\varphi'(A_t)` of the activation, :math:`t = 1..T`, which the
activations of :mod:`dian.rnn.recurrence` give from the states.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


def jacobian(
    derivatives: Float[Tensor, "time h"], W_hh: Float[Tensor, "h h"]
) -> Float[Tensor, "h h"]:
    r"""Differentiate the last state of one sequence by the state before the first step.

    .. math::

        \frac{\partial h_t}{\partial h_k} = J_t J_{t-1} \cdots J_{k+1}, \qquad
        J_s = D_s W_{hh}^\top, \qquad D_s = \operatorname{diag} \varphi'(a_s) .

    Entry :math:`(i, j)` is :math:`\partial h_{t, i} / \partial h_{k, j}`.

    Parameters
    ----------
    derivatives
        Those of the steps :math:`k + 1` to :math:`t`.
    W_hh
        The recurrent matrix.

    Examples
    --------
    >>> jacobian(torch.full((3, 1), 0.5), torch.full((1, 1), 2.0))
    tensor([[1.]])
    """
    product = torch.eye(len(W_hh)).to(W_hh)
    for D_s in derivatives:
        # J_s times what came before; D_s scales the rows
        product = D_s[:, None] * (W_hh.T @ product)
    return product


def gradient_by_lag(
    E: Float[Tensor, "batch h"],
    derivatives: Float[Tensor, "time batch h"],
    W_hh: Float[Tensor, "h h"],
) -> Float[Tensor, "time+1 batch h"]:
    r"""Carry the gradient by the last state back to every state before it.

    .. math::

        \frac{\partial \ell}{\partial H_{t-1}} =
        \Big( \frac{\partial \ell}{\partial H_t} \odot \varphi'(A_t) \Big) W_{hh}^\top

    Parameters
    ----------
    E
        The gradient by the last state.
    derivatives, W_hh
        Of all steps, and the recurrent matrix.

    Returns
    -------
    Gamma
        ``Gamma[k]`` is the gradient by :math:`H_{T-k}`.

    Examples
    --------
    >>> derivatives, W_hh = torch.full((2, 1, 1), 0.5), torch.ones(1, 1)
    >>> gradient_by_lag(torch.ones(1, 1), derivatives, W_hh).flatten()
    tensor([1.0000, 0.5000, 0.2500])
    """
    Gamma = [E]
    for D_t in derivatives.flip(0):
        Gamma.append((Gamma[-1] * D_t) @ W_hh.T)
    return torch.stack(Gamma)


def gradient_terms(
    E: Float[Tensor, "batch h"],
    derivatives: Float[Tensor, "time batch h"],
    H: Float[Tensor, "time+1 batch h"],
    W_hh: Float[Tensor, "h h"],
) -> Float[Tensor, "time h h"]:
    r"""Split the gradient by the recurrent matrix into what each step adds to it.

    .. math::

        \frac{\partial \ell_T}{\partial W_{hh}} =
        \sum_{k=1}^{T} H_{k-1}^\top \delta_k, \qquad
        \delta_k = \frac{\partial \ell_T}{\partial H_k} \odot \varphi'(A_k) .

    Backpropagation that is truncated after :math:`K` steps keeps the last :math:`K`
    of them, ``terms[-K:].sum(0)``; the sum of the others is its bias.

    Parameters
    ----------
    E
        The gradient by the last state, which alone is read.
    derivatives, H
        Of all steps, and the states as from :func:`dian.rnn.recurrence.rnn_forward`.
    W_hh
        The recurrent matrix.

    Returns
    -------
    terms
        ``terms[k-1]`` is that of step :math:`k`.

    Examples
    --------
    >>> H, derivatives = torch.ones(3, 1, 1), torch.full((2, 1, 1), 0.5)
    >>> gradient_terms(torch.ones(1, 1), derivatives, H, torch.ones(1, 1)).flatten()
    tensor([0.2500, 0.5000])
    """
    Gamma = gradient_by_lag(E, derivatives, W_hh)[:-1].flip(0)
    delta = Gamma * derivatives
    return H[:-1].transpose(1, 2) @ delta


class Bounds(NamedTuple):
    """Two bounds of the norm of a Jacobian for each number of steps."""

    tight: Float[Tensor, "lag"]
    """From the derivatives that were met."""
    loose: Float[Tensor, "lag"]
    """From the largest slope there is."""


def lag_bounds(
    derivatives: Float[Tensor, "time h"], W_hh: Float[Tensor, "h h"], max_slope: float
) -> Bounds:
    r"""Bound how much of a small change is left after k more steps.

    .. math::

        \Big\lVert \frac{\partial h_T}{\partial h_{T-k}} \Big\rVert_2
        \le \prod_{s=T-k+1}^{T} \sigma \max_i \varphi'(a_{s, i})
        \le (\gamma \sigma)^k, \qquad \sigma = \lVert W_{hh} \rVert_2 .

    Parameters
    ----------
    derivatives, W_hh
        Of all steps of one sequence, and the recurrent matrix.
    max_slope
        :math:`\gamma`, the largest slope that the activation has.

    Examples
    --------
    >>> derivatives = torch.tensor([[0.5], [0.25]])
    >>> lag_bounds(derivatives, 2 * torch.ones(1, 1), max_slope=1.0)
    Bounds(tight=tensor([1.0000, 0.5000, 0.5000]), loose=tensor([1., 2., 4.]))
    """
    sigma = torch.linalg.matrix_norm(W_hh, 2)
    met = (sigma * derivatives.amax(1)).flip(0).cumprod(0)
    lags = torch.arange(len(derivatives) + 1).to(W_hh)
    return Bounds(torch.cat([met.new_ones(1), met]), (max_slope * sigma) ** lags)


def truncation_bound(
    E: Float[Tensor, "batch h"],
    H: Float[Tensor, "lag batch h"],
    W_hh: Float[Tensor, "h h"],
    K: int,
    max_slope: float,
) -> Float[Tensor, ""]:
    r"""Bound the bias of a gradient by :math:`W_{hh}` truncated after ``K`` steps.

    .. math::

        \lVert \text{bias} \rVert_F \le \sum_{k=1}^{T-K} (\gamma \sigma)^{T-k}\, \gamma
        \sum_n \Big\lVert \frac{\partial \ell}{\partial h_{T, n}} \Big\rVert\,
        \lVert h_{k-1, n} \rVert

    Parameters
    ----------
    E, H, W_hh
        As in :func:`gradient_terms`.
    K
        The steps that the gradient goes back.
    max_slope
        :math:`\gamma`, the largest slope that the activation has.

    Examples
    --------
    >>> H, W_hh = torch.ones(4, 1, 1), torch.full((1, 1), 0.5)
    >>> truncation_bound(torch.ones(1, 1), H, W_hh, K=2, max_slope=1.0)
    tensor(0.2500)
    """
    n_time = len(H) - 1
    sigma = torch.linalg.matrix_norm(W_hh, 2)
    k = torch.arange(1, n_time - K + 1)
    sizes = (E.norm(dim=-1) * H[k - 1].norm(dim=-1)).sum(-1)
    return ((max_slope * sigma) ** (n_time - k).to(sizes) * max_slope * sizes).sum()


def gradient_variance_factor(
    derivatives: Float[Tensor, "*batch h"], W_hh: Float[Tensor, "h h"]
) -> Float[Tensor, ""]:
    r"""Predict by what factor the squared gradient grows at each step back.

    .. math::

        \chi = \sigma_w^2\, \mathbb E[\varphi'(a)^2], \qquad
        \sigma_w^2 = \lVert W_{hh} \rVert_F^2 / h

    The gradient itself then changes as :math:`e^{k \ln(\chi) / 2}` with the lag.

    Parameters
    ----------
    derivatives, W_hh
        Of any number of steps and sequences, and the recurrent matrix.

    Notes
    -----
    Exact for the mean over random weights that are independent of derivatives and
    gradient; one large random matrix is close to it, the identity is not. Schoenholz et
    al.,
    *Deep information propagation*, 2017, arXiv:1611.01232, equation 8.

    Examples
    --------
    >>> gradient_variance_factor(torch.full((5, 3), 0.5), torch.eye(3))
    tensor(0.2500)
    """
    return W_hh.square().sum() / len(W_hh) * derivatives.square().mean()


def sigmoid_as_tanh(
    U: Float[Tensor, "d h"], V: Float[Tensor, "h h"], c: Float[Tensor, "h"]
) -> tuple[Float[Tensor, "d h"], Float[Tensor, "h h"], Float[Tensor, "h"]]:
    r"""Rewrite a logistic network in the units of tanh: the same network.

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
