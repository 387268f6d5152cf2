r"""Gated recurrent networks: LSTM and GRU, written for reading.

Axis names: ``time``, ``batch``, ``d`` and ``h`` as in :mod:`dian.rnn.recurrence`;
``gates`` is the axis of all gates side by side: :math:`4h` for the LSTM, in
the order input, forget, candidate, output (:math:`i, f, g, o`), and :math:`3h` for the
GRU, in the order reset, update, candidate (:math:`r, z, n`). These are the orders of
:class:`torch.nn.LSTM` and :class:`torch.nn.GRU`, whose weights are transposed and which
are the faster choice for training.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from dian.errors import kind, require
from dian.numerics import widened


class LSTMStates(NamedTuple):
    """The states and gates; index 0 of ``H`` and ``c`` is the initial state."""

    H: Inexact[Tensor, "time+1 batch h"]
    c: Inexact[Tensor, "time+1 batch h"]
    gates: Inexact[Tensor, "time batch gates"]


@widened
def lstm_forward(
    X: Inexact[Tensor, "time batch d"],
    W_xh: Inexact[Tensor, "d gates"],
    W_hh: Inexact[Tensor, "h gates"],
    b_h: Inexact[Tensor, "gates"],
    H_0: Inexact[Tensor, "batch h"],
    c_0: Inexact[Tensor, "batch h"],
) -> LSTMStates:
    r"""Unroll a long short-term memory network over time.

    .. math::

        i_t, f_t, o_t = \sigma(\cdot), \qquad g_t = \tanh(\cdot), \qquad
        c_t = f_t \odot c_{t-1} + i_t \odot g_t, \qquad H_t = o_t \odot \tanh c_t,

    where each :math:`\cdot` is the part of :math:`X_t W_{xh} + H_{t-1} W_{hh} + b_h`
    that belongs to the gate.

    Parameters
    ----------
    X
        The input sequences.
    W_xh, W_hh, b_h
        Input weights, recurrent weights and bias of all gates.
    H_0, c_0
        The initial hidden state and the initial cell state.

    Returns
    -------
    states
        Hidden states ``H``, cell states ``c``, and the values of the gates.

    Notes
    -----
    Hochreiter and Schmidhuber, *Long short-term memory*, 1997; the forget gate is from
    Gers, Schmidhuber and Cummins, *Learning to forget*, 2000. It equals
    :class:`torch.nn.LSTM` with transposed weights and one bias instead of two.
    Autograd can differentiate it; :func:`lstm_backward` is the derivation by hand.

    Examples
    --------
    Without weights every gate is 1/2, and the cell state halves at each step:

    >>> X, W = torch.zeros(3, 1, 1), torch.zeros(1, 4)
    >>> one = torch.ones(1, 1)
    >>> lstm_forward(X, W, W, W[0], 0 * one, one).c.flatten()
    tensor([1.0000, 0.5000, 0.2500, 0.1250])
    """
    _check(X, 4, H_0, W_xh=W_xh, W_hh=W_hh, b_h=b_h, c_0=c_0)
    H, c, gates = [H_0], [c_0], []
    for X_t in X.unbind():
        A_i, A_f, A_g, A_o = (X_t @ W_xh + H[-1] @ W_hh + b_h).chunk(4, -1)
        i, f, o = A_i.sigmoid(), A_f.sigmoid(), A_o.sigmoid()
        g = A_g.tanh()
        c.append(f * c[-1] + i * g)
        H.append(o * c[-1].tanh())
        gates.append(torch.cat([i, f, g, o], -1))
    return LSTMStates(*map(torch.stack, (H, c, gates)))


class LSTMGradients(NamedTuple):
    r"""The gradients of a loss with respect to the inputs of :func:`lstm_forward`.

    ``H[t]`` and ``c[t]`` are the gradients with respect to :math:`H_t` and :math:`c_t`,
    through all later steps; index 0 is the initial state.
    """

    X: Float[Tensor, "time batch d"]
    W_xh: Float[Tensor, "d gates"]
    W_hh: Float[Tensor, "h gates"]
    b_h: Float[Tensor, "gates"]
    H: Float[Tensor, "time+1 batch h"]
    c: Float[Tensor, "time+1 batch h"]


@widened
def lstm_backward(
    grad_states: Float[Tensor, "time batch h"],
    X: Float[Tensor, "time batch d"],
    states: LSTMStates,
    W_xh: Float[Tensor, "d gates"],
    W_hh: Float[Tensor, "h gates"],
) -> LSTMGradients:
    r"""Backpropagate through time.

    With :math:`\bar H_t` as the direct part of the gradient of :math:`H_t`,
    :math:`\Gamma_t = \partial L / \partial H_t`,
    :math:`\kappa_t = \partial L / \partial c_t`, and :math:`\delta_t` as the gradient
    with respect to the pre-activations of all gates side by side,

    .. math::

        \Gamma_t &= \bar H_t + \delta_{t+1} W_{hh}^\top, \\
        \kappa_t &= \kappa_{t+1} \odot f_{t+1}
                    + \Gamma_t \odot o_t \odot (1 - \tanh^2 c_t), \\
        \delta_t^i &= \kappa_t \odot g_t \odot i_t \odot (1 - i_t), \\
        \delta_t^f &= \kappa_t \odot c_{t-1} \odot f_t \odot (1 - f_t), \\
        \delta_t^g &= \kappa_t \odot i_t \odot (1 - g_t \odot g_t), \\
        \delta_t^o &= \Gamma_t \odot \tanh c_t \odot o_t \odot (1 - o_t) .

    Parameters
    ----------
    grad_states
        :math:`\bar H_1, \dots, \bar H_T`.
    X, W_xh, W_hh
        As given to :func:`lstm_forward`.
    states
        Its result.

    Notes
    -----
    This is the full gradient. Hochreiter and Schmidhuber, 1997, truncated it: beyond
    one step they kept only the path through the cell state.

    Examples
    --------
    The gradient with respect to the cell state shrinks by the forget gate alone, 1/2,
    where no weights connect the steps:

    >>> X, W, one = torch.zeros(3, 1, 1), torch.zeros(1, 4), torch.ones(1, 1)
    >>> states = lstm_forward(X, W, W, W[0], 0 * one, 0 * one)
    >>> G = torch.tensor([0.0, 0.0, 2.0]).view(3, 1, 1)
    >>> lstm_backward(G, X, states, W, W).c.flatten()
    tensor([0.1250, 0.2500, 0.5000, 1.0000])
    """
    H, c, gates = states
    expected = tuple(H[1:].shape)
    require(
        tuple(grad_states.shape) == expected,
        f"grad_states must be of shape {expected}, got {kind(grad_states)}",
    )
    i, f, g, o = gates.chunk(4, -1)
    tanh_c = c[1:].tanh()
    # What each pre-activation adds to c_t, and that of the output gate to H_t
    slopes = torch.cat(
        [
            g * i * (1 - i),
            c[:-1] * f * (1 - f),
            i * (1 - g * g),
            tanh_c * o * (1 - o),
        ],
        -1,
    )
    dH_dc = o * (1 - tanh_c * tanh_c)
    deltas, Gammas, kappas = [], [], []
    from_H, from_c = torch.zeros_like(H[0]), torch.zeros_like(c[0])
    for t in reversed(range(len(X))):
        Gamma = grad_states[t] + from_H
        kappa = from_c + Gamma * dH_dc[t]
        delta = torch.cat([kappa, kappa, kappa, Gamma], -1) * slopes[t]
        Gammas.append(Gamma)
        kappas.append(kappa)
        deltas.append(delta)
        from_H, from_c = delta @ W_hh.T, kappa * f[t]
    delta = torch.stack(deltas[::-1])
    rows = delta.flatten(0, 1)
    return LSTMGradients(
        X=delta @ W_xh.T,
        W_xh=X.flatten(0, 1).T @ rows,
        W_hh=H[:-1].flatten(0, 1).T @ rows,
        b_h=rows.sum(0),
        H=torch.stack([from_H, *Gammas[::-1]]),
        c=torch.stack([from_c, *kappas[::-1]]),
    )


@widened
def cell_jacobian(
    states: LSTMStates, W_hh: Float[Tensor, "h gates"]
) -> Float[Tensor, "steps batch h h"]:
    r"""Return the Jacobian of each cell state with respect to the one before it.

    .. math::

        \frac{\partial c_t}{\partial c_{t-1}} = \operatorname{diag}(f_t)
        + K_t \operatorname{diag}\big(o_{t-1} \odot (1 - \tanh^2 c_{t-1})\big),
        \qquad K_t = \frac{\partial c_t}{\partial h_{t-1}} .

    The first term is the direct path through the forget gate; the second passes through
    the hidden state and the gates that read it.

    Parameters
    ----------
    states
        The result of :func:`lstm_forward`.
    W_hh
        Its recurrent weights.

    Returns
    -------
    jacobians
        Entry :math:`(i, j)` of ``jacobians[t - 2]`` is
        :math:`\partial c_{t, i} / \partial c_{t-1, j}`, for :math:`t = 2, \dots, T`.
        (The first step is left out: :math:`H_0` does not depend on :math:`c_0`.)

    Examples
    --------
    >>> X, W = torch.zeros(2, 1, 1), torch.zeros(1, 4)
    >>> states = lstm_forward(X, W, W, W[0], W[:, :1], W[:, :1])
    >>> cell_jacobian(states, W).flatten()
    tensor([0.5000])
    """
    _, c, gates = states
    i, f, g, _ = gates[1:].chunk(4, -1)
    W_i, W_f, W_g, _ = W_hh.chunk(4, -1)
    before = c[1:-1]
    # K_t: for each gate that reads h_{t-1}, its derivative times W, transposed
    slopes = (g * i * (1 - i), before * f * (1 - f), i * (1 - g * g))
    K = sum(
        slope[..., :, None] * W.T
        for slope, W in zip(slopes, (W_i, W_f, W_g), strict=True)
    )
    o_before = gates[:-1].chunk(4, -1)[3]
    dH_dc = o_before * (1 - before.tanh().square())
    return torch.diag_embed(f) + K * dH_dc[..., None, :]


@widened
def gru_forward(
    X: Inexact[Tensor, "time batch d"],
    W_xh: Inexact[Tensor, "d gates"],
    W_hh: Inexact[Tensor, "h gates"],
    b_x: Inexact[Tensor, "gates"],
    b_h: Inexact[Tensor, "gates"],
    H_0: Inexact[Tensor, "batch h"],
) -> Inexact[Tensor, "time+1 batch h"]:
    r"""Unroll a gated recurrent unit over time and return all hidden states.

    .. math::

        r_t, z_t &= \sigma(\cdot), \\
        n_t &= \tanh\big(X_t W_{xn} + b_{xn}
        + r_t \odot (H_{t-1} W_{hn} + b_{hn})\big), \\
        H_t &= z_t \odot H_{t-1} + (1 - z_t) \odot n_t,

    where each :math:`\cdot` is the part of
    :math:`X_t W_{xh} + b_x + H_{t-1} W_{hh} + b_h` that belongs to the gate.

    Parameters
    ----------
    X
        The input sequences.
    W_xh, W_hh, b_x, b_h
        Input weights, recurrent weights, and a bias for each. Both biases are needed,
        because the reset gate scales only the recurrent bias of the candidate.
    H_0
        The initial state.

    Returns
    -------
    H
        The hidden states; ``H[t]`` is :math:`H_t`, and ``H[0]`` is ``H_0``.

    Notes
    -----
    Cho et al., *Learning phrase representations using RNN encoder-decoder for
    statistical machine translation*, 2014, arXiv:1406.1078, in the variant of
    :class:`torch.nn.GRU`: the reset gate multiplies the product with :math:`W_{hn}`. In
    the paper it multiplies :math:`H_{t-1}` before that product.

    Examples
    --------
    Without weights the candidate is 0 and the update gate 1/2: the state halves.

    >>> W, one = torch.zeros(1, 3), torch.ones(1, 1)
    >>> gru_forward(torch.zeros(3, 1, 1), W, W, W[0], W[0], one).flatten()
    tensor([1.0000, 0.5000, 0.2500, 0.1250])
    """
    _check(X, 3, H_0, W_xh=W_xh, W_hh=W_hh, b_x=b_x, b_h=b_h)
    H = [H_0]
    for X_t in X.unbind():
        x_r, x_z, x_n = (X_t @ W_xh + b_x).chunk(3, -1)
        h_r, h_z, h_n = (H[-1] @ W_hh + b_h).chunk(3, -1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        n = (x_n + r * h_n).tanh()
        H.append(z * H[-1] + (1 - z) * n)
    return torch.stack(H)


def _check(X: Tensor, n_gate: int, H_0: Tensor, **others: Tensor) -> None:
    """Raise on what would otherwise be broadcast, or fail inside a matrix product."""
    require(
        X.ndim == 3 and len(X),
        f"X must be (time, batch, d) with a step or more, got {tuple(X.shape)}",
    )
    require(H_0.ndim == 2, f"H_0 must be (batch, h), got {kind(H_0)}")
    (_, n_batch, d), h = X.shape, H_0.shape[-1]
    shapes = {"W_xh": (d, n_gate * h), "W_hh": (h, n_gate * h), "c_0": (n_batch, h)}
    for name, tensor in {"H_0": H_0, **others}.items():
        expected = (n_batch, h) if name == "H_0" else shapes.get(name, (n_gate * h,))
        require(
            tuple(tensor.shape) == expected and tensor.dtype == X.dtype,
            f"{name} must be {X.dtype} of shape {expected}, got {kind(tensor)}",
        )
