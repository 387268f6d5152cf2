r"""A recurrent network with a hand-derived backward pass (BPTT).

Axis names used in this module (the tests check them at run time):

``time``
    time steps :math:`t = 1, \dots, T`; ``time+1`` where the initial state is stored
    too, so that ``H[t]`` is :math:`H_t`;
``batch``
    sequences that are processed together;
``d``, ``h``, ``q``
    features of an input :math:`X_t`, a hidden state :math:`H_t` and an output
    :math:`O_t`.

Each row of a matrix belongs to one sequence: the product is :math:`X_t W`, not
:math:`W x_t`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Inexact, Int
from torch import Tensor, nn

from dian.errors import kind, require, require_one_of
from dian.numerics import apply, backward_of, widened
from dian.rnn.initialization import INITS, xavier_


class Activation(NamedTuple):
    r"""An element-wise activation :math:`H = \varphi(A)` and its derivative."""

    apply_: Callable[[Tensor], Tensor]
    """Replaces pre-activations by activations, in place."""
    derivative: Callable[[Tensor], Tensor]
    r"""Returns :math:`\varphi'(A)` given :math:`H`, so that ``A`` is not stored."""
    max_slope: float
    r"""The supremum of :math:`\varphi'`, called :math:`\gamma` in the bounds."""


ACTIVATIONS = {
    # tanh' = 1 - H^2, in one pass over memory
    "tanh": Activation(
        torch.tanh_, lambda H: torch.addcmul(H.new_ones(()), H, H, value=-1), 1.0
    ),
    # sigma' = H (1 - H)
    "sigmoid": Activation(torch.sigmoid_, lambda H: H * (1 - H), 0.25),
    # relu' = [H > 0], which is 0 at the kink, as in torch
    "relu": Activation(torch.relu_, lambda H: (H > 0).to(H.dtype), 1.0),
    # the linear network, whose Jacobians have a closed form
    "identity": Activation(lambda A: A, torch.ones_like, 1.0),
}
"""The activations by name.

:meta hide-value:
"""

ROWS = 1024
"""Rows per matrix product, which are sequences times steps; enough for a fast product,
and few enough to stay in the cache of the processor until they are used."""


@widened
def rnn_forward(
    X: Inexact[Tensor, "time batch d"],
    W_xh: Inexact[Tensor, "d h"],
    W_hh: Inexact[Tensor, "h h"],
    b_h: Inexact[Tensor, "h"],
    H_0: Inexact[Tensor, "batch h"],
    activation: str = "tanh",
) -> Inexact[Tensor, "time+1 batch h"]:
    r"""Unroll the recurrence over time and return all hidden states.

    .. math::

        A_t = X_t W_{xh} + H_{t-1} W_{hh} + b_h, \qquad H_t = \varphi(A_t) .

    Parameters
    ----------
    X
        The input sequences.
    W_xh, W_hh, b_h
        Input weights, recurrent weights and bias.
    H_0
        The initial state.
    activation
        The name of :math:`\varphi` in :data:`ACTIVATIONS`.

    Returns
    -------
    H
        The hidden states; ``H[t]`` is :math:`H_t`, and ``H[0]`` is ``H_0``.

    Notes
    -----
    The network of Elman, *Finding structure in time*, Cognitive Science 14, 1990, with
    tanh instead of the sigmoid. It equals :class:`torch.nn.RNN` with transposed weights
    and one bias instead of two.

    The states are written in place, so autograd cannot differentiate this function;
    :func:`rnn` is the differentiable version.

    Examples
    --------
    Without input and bias, the initial state decays:

    >>> H = rnn_forward(torch.zeros(3, 1, 1), *torch.ones(2, 1, 1), torch.zeros(1),
    ...                 torch.ones(1, 1))
    >>> H.flatten()
    tensor([1.0000, 0.7616, 0.6420, 0.5663])
    """
    _check(X, W_xh, W_hh, b_h, H_0)
    activate_ = _activation(activation).apply_
    n_time, n_batch, _ = X.shape
    H = X.new_empty(n_time + 1, *H_0.shape)
    H[0] = H_0
    state, *states = H.unbind()
    for part in _parts(n_time, n_batch):
        # X_t W_xh + b_h does not depend on the state: several steps in one product
        rows = _rows(X[part])
        torch.addmm(b_h, rows, W_xh, out=H[1:][part].flatten(0, 1))
        for A in states[part]:
            # A_t = (X_t W_xh + b_h) + H_{t-1} W_hh and H_t = phi(A_t), in place
            state = activate_(A.addmm_(state, W_hh))
    return H


class RNNGradients(NamedTuple):
    r"""The gradients of a loss with respect to the inputs of :func:`rnn_forward`."""

    X: Float[Tensor, "time batch d"] | None
    W_xh: Float[Tensor, "d h"]
    W_hh: Float[Tensor, "h h"]
    b_h: Float[Tensor, "h"]
    H_0: Float[Tensor, "batch h"]


@widened
def rnn_backward(
    grad_states: Float[Tensor, "time batch h"] | None,
    grad_last_state: Float[Tensor, "batch h"] | None,
    X: Float[Tensor, "time batch d"],
    H: Float[Tensor, "time+1 batch h"],
    W_xh: Float[Tensor, "d h"],
    W_hh: Float[Tensor, "h h"],
    activation: str = "tanh",
    *,
    need_input_grad: bool = True,
) -> RNNGradients:
    r"""Backpropagate through time.

    A state :math:`H_t` affects the loss directly, through the output of its step, and
    through the next state. Let :math:`\bar H_t` be the direct part of its gradient,
    which is :math:`G_t W_{hq}^\top` before an output layer. With
    :math:`\Gamma_t = \partial L / \partial H_t`,
    :math:`\delta_t = \partial L / \partial A_t` and :math:`\delta_{T+1} = 0`,

    .. math::

        \Gamma_t = \bar H_t + \delta_{t+1} W_{hh}^\top, \qquad
        \delta_t = \Gamma_t \odot \varphi'(A_t), \qquad t = T, \dots, 1 .

    The derivative is a function of the state: :math:`1 - H_t \odot H_t` for tanh,
    :math:`H_t \odot (1 - H_t)` for the sigmoid, and 1 where :math:`H_t > 0` for ReLU.

    Parameters
    ----------
    grad_states
        :math:`\bar H_1, \dots, \bar H_T`; ``None`` means zero (only the last state is
        read).
    grad_last_state
        A further gradient with respect to :math:`H_T`, for example from the chunk of
        the sequence that follows. ``None`` means zero.
    X, W_xh, W_hh, activation
        As given to :func:`rnn_forward`.
    H
        Its result.
    need_input_grad
        Whether to compute the gradient with respect to ``X``.

    Returns
    -------
    gradients
        The field ``X`` is ``None`` without ``need_input_grad``. If the sequences share
        one initial state, its gradient is the sum of the rows of ``H_0``.

    Notes
    -----
    Werbos, *Backpropagation through time: what it does and how to do it*,
    Proceedings of the IEEE 78, 1990.

    Examples
    --------
    One step and one unit: the derivative of tanh at 0 is 1, and the input is 2.

    >>> X, W = torch.full((1, 1, 1), 2.0), torch.zeros(1, 1)
    >>> H = rnn_forward(X, W, W, torch.zeros(1), torch.zeros(1, 1))
    >>> rnn_backward(None, torch.ones(1, 1), X, H, W, W).W_xh
    tensor([[2.]])
    """
    _check_like(X, "H", H, (len(X) + 1, *H.shape[1:]))
    if grad_states is not None:
        _check_like(X, "grad_states", grad_states, H[1:].shape)
    derivative = _activation(activation).derivative
    W_hh_T = W_hh.T.contiguous()  # transposed once instead of in each product
    grad_X = X.new_empty(X.shape) if need_input_grad else None
    grad_W_xh, grad_W_hh, grad_b_h = map(torch.zeros_like, (W_xh, W_hh, W_hh[0]))
    # delta_{T+1} W_hh^T = 0, plus what else reaches H_T
    Gamma = torch.zeros_like(H[0])
    if grad_last_state is not None:
        _check_like(X, "grad_last_state", grad_last_state, Gamma.shape)
        Gamma += grad_last_state
    for part in reversed(_parts(*X.shape[:2])):
        # phi'(A_t) of several steps, to be multiplied by Gamma_t in place
        delta = derivative(H[1:][part])
        for t, delta_t in reversed(list(enumerate(delta.unbind(), part.start))):
            # Gamma_t = direct gradient + delta_{t+1} W_hh^T
            if grad_states is not None:
                Gamma += grad_states[t]
            # delta_t = Gamma_t * phi'(A_t)
            delta_t.mul_(Gamma)
            torch.mm(delta_t, W_hh_T, out=Gamma)
        rows = delta.flatten(0, 1)
        # dL/dX_t = delta_t W_xh^T
        if need_input_grad:
            torch.mm(rows, W_xh.T, out=grad_X[part].flatten(0, 1))
        # dL/dW_xh = sum_t X_t^T delta_t: several steps in one product
        grad_W_xh.addmm_(_rows(X[part]).T, rows)
        # dL/dW_hh = sum_t H_{t-1}^T delta_t
        grad_W_hh.addmm_(H[:-1][part].flatten(0, 1).T, rows)
        # dL/db_h = sum_t 1^T delta_t
        grad_b_h += rows.sum(0)
    # dL/dH_0 = delta_1 W_hh^T, the last value of Gamma
    return RNNGradients(grad_X, grad_W_xh, grad_W_hh, grad_b_h, H_0=Gamma)


@widened
def output_forward(
    H: Inexact[Tensor, "*batch h"],
    W_hq: Inexact[Tensor, "h q"],
    b_q: Inexact[Tensor, "q"],
) -> Inexact[Tensor, "*batch q"]:
    r"""Apply the output layer: :math:`O_t = H_t W_{hq} + b_q`.

    Parameters
    ----------
    H
        Hidden states of all steps, or of the last one alone (many-to-one).
    W_hq, b_q
        Weights and bias of the output layer.

    Examples
    --------
    >>> output_forward(torch.ones(3), torch.eye(3), torch.tensor([0.0, 0.1, 0.2]))
    tensor([1.0000, 1.1000, 1.2000])
    """
    return H @ W_hq + b_q


class OutputGradients(NamedTuple):
    r"""The gradients of a loss with respect to the inputs of :func:`output_forward`."""

    H: Float[Tensor, "*batch h"]
    W_hq: Float[Tensor, "h q"]
    b_q: Float[Tensor, "q"]


@widened
def output_backward(
    grad_output: Float[Tensor, "*batch q"],
    H: Float[Tensor, "*batch h"],
    W_hq: Float[Tensor, "h q"],
) -> OutputGradients:
    r"""Backpropagate through :func:`output_forward`.

    Parameters
    ----------
    grad_output
        :math:`G_t = \partial L / \partial O_t`.
    H, W_hq
        As given to :func:`output_forward`.

    Examples
    --------
    >>> output_backward(torch.ones(2, 1), torch.ones(2, 3), torch.eye(3)[:, :1]).W_hq
    tensor([[2.],
            [2.],
            [2.]])
    """
    rows = _rows(grad_output)
    return OutputGradients(
        # dL/dH_t = G_t W_hq^T
        H=grad_output @ W_hq.T,
        # dL/dW_hq = sum_t H_t^T G_t
        W_hq=_rows(H).T @ rows,
        # dL/db_q = sum_t 1^T G_t
        b_q=rows.sum(0),
    )


def _plain(X, W_xh, W_hh, b_h, H_0, activation) -> tuple[Tensor, Tensor]:
    """Compute what :func:`rnn` returns, for autograd to follow."""
    _check(X, W_xh, W_hh, b_h, H_0)
    activate_, states = _activation(activation).apply_, [H_0]
    for X_t in X.unbind():
        states.append(activate_(X_t @ W_xh + states[-1] @ W_hh + b_h))
    return torch.stack(states[1:]), states[-1]


class _BackpropagationThroughTime(torch.autograd.Function):
    """:func:`rnn_forward` and :func:`rnn_backward` as one operation of autograd."""

    @staticmethod
    def forward(ctx, X, W_xh, W_hh, b_h, H_0, activation):
        rows = X.contiguous()  # once, for both passes
        H = rnn_forward(rows, W_xh, W_hh, b_h, H_0, activation)
        ctx.save_for_backward(X, W_xh, W_hh, b_h, H_0, rows, H)
        ctx.options = (activation,)
        ctx.set_materialize_grads(False)
        # The last state separately: a loss that reads only this state (many-to-one)
        # then does not send T-1 matrices of zeros back.
        return H[1:], H[-1].clone()

    @staticmethod
    @backward_of(_plain)
    def backward(ctx, grad_states, grad_last_state):
        _, W_xh, W_hh, _, _, X, H = ctx.saved_tensors
        gradients = rnn_backward(
            grad_states,
            grad_last_state,
            X,
            H,
            W_xh,
            W_hh,
            *ctx.options,
            need_input_grad=ctx.needs_input_grad[0],
        )
        return *gradients, None


@widened
def rnn(
    X: Float[Tensor, "time batch d"],
    W_xh: Float[Tensor, "d h"],
    W_hh: Float[Tensor, "h h"],
    b_h: Float[Tensor, "h"],
    H_0: Float[Tensor, "batch h"],
    activation: str = "tanh",
) -> tuple[Float[Tensor, "time batch h"], Float[Tensor, "batch h"]]:
    r"""Unroll the recurrence; autograd calls :func:`rnn_backward`.

    Parameters
    ----------
    X, W_xh, W_hh, b_h, H_0, activation
        As in :func:`rnn_forward`.

    Returns
    -------
    states
        :math:`H_1, \dots, H_T`.
    last
        :math:`H_T`. A loss that reads only the last state should use this output:
        its backward pass is cheaper.

    Examples
    --------
    >>> W = torch.ones(1, 1, requires_grad=True)
    >>> X, zero = torch.zeros(2, 1, 1), torch.zeros(1)
    >>> states, last = rnn(X, W, W, zero, torch.ones(1, 1))
    >>> last.sum().backward()
    >>> W.grad  # tanh'(a_2) (h_1 + w tanh'(a_1) h_0)
    tensor([[0.6945]])

    Truncated backpropagation through time: the state is carried from chunk to chunk,
    but detached, so that no gradient crosses the boundary.

    >>> W.grad, state = None, torch.ones(1, 1)
    >>> for chunk in X.split(1):
    ...     states, last = rnn(chunk, W, W, zero, state)
    ...     last.sum().backward()
    ...     state = last.detach()
    >>> W.grad  # tanh'(a_1) h_0 + tanh'(a_2) h_1
    tensor([[0.8677]])
    """
    inputs = (X, W_xh, W_hh, b_h, H_0, activation)
    return apply(_BackpropagationThroughTime, _plain, *inputs)


class RNN(nn.Module):
    r"""One recurrent layer: the parameters of :func:`rnn`.

    The input weights are initialized by :func:`~dian.rnn.initialization.xavier_`, and
    so are the recurrent weights unless ``init`` is given; the bias is zero.

    Parameters
    ----------
    input_size, hidden_size
        Features of an input and of a hidden state.
    activation
        A name in :data:`ACTIVATIONS`.
    init
        Initializes the recurrent weights: a function of
        :mod:`dian.rnn.initialization` or :mod:`torch.nn.init`.
    learnable_h0
        Whether the initial state is a parameter, shared by all sequences and
        initialized to zero.
    generator
        The random-number generator of the initialization.

    Examples
    --------
    >>> layer = RNN(28, 128, generator=torch.Generator().manual_seed(0))
    >>> states, last = layer(torch.zeros(5, 2, 28))
    >>> states.shape, last.shape
    (torch.Size([5, 2, 128]), torch.Size([2, 128]))
    >>> sum(p.numel() for p in layer.parameters()) == 128 * (28 + 128 + 1)
    True
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        activation: str = "tanh",
        init: Callable[..., object] = xavier_,
        learnable_h0: bool = False,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        _activation(activation)  # raises now instead of at the first batch
        known = ", ".join(f"{name}_" for name in INITS)
        require(
            callable(init),
            f"init must be a function, such as {known} of dian.rnn.initialization, "
            f"got {init!r}",
        )
        self.activation = activation
        self.W_xh = nn.Parameter(torch.empty(input_size, hidden_size))
        self.W_hh = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.b_h = nn.Parameter(torch.zeros(hidden_size))
        self.h_0 = nn.Parameter(torch.zeros(hidden_size)) if learnable_h0 else None
        xavier_(self.W_xh, generator=generator)
        init(self.W_hh, generator=generator)

    def forward(
        self,
        X: Float[Tensor, "time batch d"],
        H_0: Float[Tensor, "batch h"] | None = None,
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> tuple[Float[Tensor, "time batch h"], Float[Tensor, "batch h"]]:
        """Return all hidden states, and the last one of each sequence.

        Parameters
        ----------
        X
            The input sequences.
        H_0
            The initial state. Default: the learned one, or else zero.
        lengths
            Steps of each sequence before its padding. Default: all steps.
        """
        if H_0 is None:
            h_0 = torch.zeros_like(self.b_h) if self.h_0 is None else self.h_0
            # The backward pass of expand sums over the batch that shares the state.
            H_0 = h_0.expand(X.shape[1], -1)
        states, last = rnn(X, self.W_xh, self.W_hh, self.b_h, H_0, self.activation)
        return states, last if lengths is None else state_at_end(states, lengths)


def state_at_end(
    states: Float[Tensor, "time batch h"], lengths: Int[Tensor, "batch"]
) -> Float[Tensor, "batch h"]:
    """Return the last state of each sequence before its padding.

    >>> states = torch.arange(6.0).view(3, 2, 1)
    >>> state_at_end(states, torch.tensor([3, 1])).flatten()
    tensor([4., 1.])
    """
    n_time, n_batch, _ = states.shape
    require(
        isinstance(lengths, Tensor), f"lengths must be a tensor, got {kind(lengths)}"
    )
    inside = (lengths >= 1) & (lengths <= n_time)
    require(
        lengths.shape == (n_batch,)
        and not lengths.is_floating_point()
        and inside.all(),
        f"lengths must be {n_batch} numbers from 1 to {n_time}, one per sequence, "
        f"got {lengths.tolist()}",
    )
    return states[lengths.long() - 1, torch.arange(n_batch, device=states.device)]


def _rows(x: Tensor) -> Tensor:
    """Flatten all axes but the last into one; reshape could not, without items."""
    return x.flatten(0, -2) if x.ndim > 1 else x[None]


def _activation(name: str) -> Activation:
    require_one_of("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def _parts(n_time: int, n_batch: int) -> list[slice]:
    """Split the steps into parts of about :data:`ROWS` rows."""
    n = max(1, ROWS // max(1, n_batch))
    return [slice(t, min(t + n, n_time)) for t in range(0, n_time, n)]


def _check(X: Tensor, W_xh: Tensor, W_hh: Tensor, b_h: Tensor, H_0: Tensor) -> None:
    """Raise on what would otherwise be broadcast, or fail inside a matrix product."""
    require(
        X.ndim == 3 and len(X),
        f"X must be (time, batch, d) with a step or more, got {tuple(X.shape)}",
    )
    (_, n_batch, d), h = X.shape, b_h.shape[-1]
    _check_like(X, "W_xh", W_xh, (d, h))
    _check_like(X, "W_hh", W_hh, (h, h))
    _check_like(X, "b_h", b_h, (h,))
    _check_like(X, "H_0", H_0, (n_batch, h))


def _check_like(X: Tensor, name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    """Raise unless a tensor has this shape, and the dtype and device of the inputs."""
    wanted = f"{X.dtype} of shape {tuple(shape)} on {X.device}"
    got = f"{kind(tensor)} on {tensor.device}"
    same = tensor.dtype == X.dtype and tensor.device == X.device
    fits = same and tuple(tensor.shape) == tuple(shape)
    require(fits, f"{name} must be {wanted}, got {got}")
