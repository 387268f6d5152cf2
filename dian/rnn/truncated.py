r"""Truncated backpropagation through time: the terms that it keeps, and its bias.

Axis names: ``time``, ``batch`` and ``h`` as in :mod:`dian.rnn.recurrence`. The argument
``derivatives`` holds :math:`\varphi'(A_t)` for :math:`t = 1, \dots, T`, and
``grad_last_state`` the gradient of the loss with respect to :math:`H_T`.

To train with truncation, detach the state between chunks; the second example of
:func:`dian.rnn.recurrence.rnn` shows how. The functions of this module compute what
such a gradient leaves out.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dian.errors import require, require_whole
from dian.numerics import all_finite, widened
from dian.rnn.vanishing import gradient_by_lag


@widened
def gradient_terms(
    grad_last_state: Float[Tensor, "batch h"],
    derivatives: Float[Tensor, "time batch h"],
    H: Float[Tensor, "time+1 batch h"],
    W_hh: Float[Tensor, "h h"],
) -> Float[Tensor, "time h h"]:
    r"""Split the gradient with respect to the recurrent weights into a term per step.

    .. math::

        \frac{\partial \ell_T}{\partial W_{hh}} =
        \sum_{k=1}^{T} H_{k-1}^\top \delta_k, \qquad
        \delta_k = \frac{\partial \ell_T}{\partial H_k} \odot \varphi'(A_k) .

    Backpropagation truncated after :math:`K` steps keeps the last :math:`K` terms,
    ``terms[-K:].sum(0)``. The sum of the other terms is its bias.

    Parameters
    ----------
    grad_last_state
        The gradient with respect to the last state, the only one that the loss reads.
    derivatives, W_hh
        The derivatives at all steps, and the recurrent weights.
    H
        The states as returned by :func:`dian.rnn.recurrence.rnn_forward`.

    Returns
    -------
    terms
        ``terms[k-1]`` is the term of step :math:`k`.

    Examples
    --------
    >>> H, derivatives = torch.ones(3, 1, 1), torch.full((2, 1, 1), 0.5)
    >>> gradient_terms(torch.ones(1, 1), derivatives, H, torch.ones(1, 1)).flatten()
    tensor([0.2500, 0.5000])
    """
    Gamma = gradient_by_lag(grad_last_state, derivatives, W_hh)[:-1].flip(0)
    delta = Gamma * derivatives
    return H[:-1].transpose(1, 2) @ delta


@widened
def truncation_bound(
    grad_last_state: Float[Tensor, "batch h"],
    H: Float[Tensor, "lag batch h"],
    W_hh: Float[Tensor, "h h"],
    K: int,
    max_slope: float,
) -> Float[Tensor, ""]:
    r"""Bound the bias of the gradient of ``W_hh`` truncated after ``K`` steps.

    .. math::

        \lVert \text{bias} \rVert_F \le \sum_{k=1}^{T-K} (\gamma \sigma)^{T-k}\, \gamma
        \sum_n \Big\lVert \frac{\partial \ell}{\partial h_{T, n}} \Big\rVert\,
        \lVert h_{k-1, n} \rVert

    Parameters
    ----------
    grad_last_state, H, W_hh
        As in :func:`gradient_terms`.
    K
        Number of backward steps.
    max_slope
        :math:`\gamma`, the supremum of the derivative of the activation.

    Examples
    --------
    >>> H, W_hh = torch.ones(4, 1, 1), torch.full((1, 1), 0.5)
    >>> truncation_bound(torch.ones(1, 1), H, W_hh, K=2, max_slope=1.0)
    tensor(0.2500)
    """
    n_time = len(H) - 1
    require_whole("K", K, 0, n_time)
    require(all_finite(W_hh), "W_hh must be finite")
    sigma = torch.linalg.matrix_norm(W_hh, 2)
    k = torch.arange(1, n_time - K + 1)
    sizes = (grad_last_state.norm(dim=-1) * H[k - 1].norm(dim=-1)).sum(-1)
    return ((max_slope * sigma) ** (n_time - k).to(sizes) * max_slope * sizes).sum()
