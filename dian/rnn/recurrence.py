r"""A recurrent network, and backpropagation through time derived by hand.

Axis names used in this module (the tests check them at run time):

``time``
    steps :math:`t = 1..T` of the sequence; ``time+1`` where the state before the
    first step is stored too, so that ``H[t]`` is :math:`H_t`;
``batch``
    sequences that are processed together, one a row;
``d``, ``h``, ``q``
    features of one input :math:`X_t`, of one state :math:`H_t`, of one output
    :math:`O_t`.

Every row of a matrix is one sequence: :math:`X_t W` and not :math:`W x_t`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Inexact
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Activation(NamedTuple):
    r"""A function :math:`H = \varphi(A)` of each pre-activation, and its derivative."""

    apply_: Callable[[Tensor], Tensor]
    """Turns pre-activations into states, in place."""
    derivative: Callable[[Tensor], Tensor]
    r"""Gives :math:`\varphi'(A)` from the state :math:`H`: ``A`` need not be kept."""
    max_slope: float
    r"""The largest value of :math:`\varphi'`, called :math:`\gamma` in the bounds."""


ACTIVATIONS = {
    # tanh' = 1 - H^2, in one pass over the states
    "tanh": Activation(
        torch.tanh_, lambda H: torch.addcmul(H.new_ones(()), H, H, value=-1), 1.0
    ),
    # sigma' = H (1 - H)
    "sigmoid": Activation(torch.sigmoid_, lambda H: H * (1 - H), 0.25),
    # relu' = [H > 0], so 0 at the kink, as in torch
    "relu": Activation(torch.relu_, lambda H: (H > 0).to(H.dtype), 1.0),
    # the linear network, whose memory can be written down exactly
    "identity": Activation(lambda A: A, torch.ones_like, 1.0),
}
"""The activations by their names.

:meta hide-value:
"""

ROWS = 1024
"""Rows of a matrix, one for each sequence and step, that are worked on together: enough
for a fast product, and few enough to stay near the processor until they are used."""


def rnn_forward(
    X: Inexact[Tensor, "time batch d"],
    W_xh: Inexact[Tensor, "d h"],
    W_hh: Inexact[Tensor, "h h"],
    b_h: Inexact[Tensor, "h"],
    H_0: Inexact[Tensor, "batch h"],
    activation: str = "tanh",
) -> Inexact[Tensor, "time+1 batch h"]:
    r"""Unroll the recurrence over time, and return every state.

    .. math::

        A_t = X_t W_{xh} + H_{t-1} W_{hh} + b_h, \qquad H_t = \varphi(A_t) .

    Parameters
    ----------
    X
        The inputs, the first step first.
    W_xh, W_hh, b_h
        How the input enters, how the last state enters, and the bias.
    H_0
        The state before the first step.
    activation
        The name of :math:`\varphi` in :data:`ACTIVATIONS`.

    Returns
    -------
    H
        The states; ``H[t]`` is :math:`H_t`, and ``H[0]`` is ``H_0``.

    Raises
    ------
    ValueError
        If a shape, a dtype or a device does not fit the others, or the activation is
        not known.

    Notes
    -----
    The network of Elman, *Finding structure in time*, Cognitive Science 14, 1990,
    with tanh for his logistic function. It is :class:`torch.nn.RNN` with transposed
    weights and one bias instead of two.
    Autograd cannot follow this function, since it writes the states in place:
    :func:`rnn` is the differentiable one.

    Examples
    --------
    With no input and no bias, what is left is memory, and it fades:

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
        # X_t W_xh + b_h does not wait for the state: some steps at once, in one product
        rows = X[part].reshape(-1, X.shape[-1])
        torch.addmm(b_h, rows, W_xh, out=H[1:][part].view(len(rows), -1))
        for A in states[part]:
            # A_t = (X_t W_xh + b_h) + H_{t-1} W_hh; H_t = phi(A_t): each in its place
            state = activate_(A.addmm_(state, W_hh))
    return H


class RNNGradients(NamedTuple):
    r"""The gradients of a loss by everything that :func:`rnn_forward` was given."""

    X: Float[Tensor, "time batch d"] | None
    W_xh: Float[Tensor, "d h"]
    W_hh: Float[Tensor, "h h"]
    b_h: Float[Tensor, "h"]
    H_0: Float[Tensor, "batch h"]


def rnn_backward(
    G: Float[Tensor, "time batch h"] | None,
    E: Float[Tensor, "batch h"] | None,
    X: Float[Tensor, "time batch d"],
    H: Float[Tensor, "time+1 batch h"],
    W_xh: Float[Tensor, "d h"],
    W_hh: Float[Tensor, "h h"],
    activation: str = "tanh",
    *,
    need_input_grad: bool = True,
) -> RNNGradients:
    r"""Backpropagate through time: from the gradients by the states to all others.

    A state acts on the loss directly, through the output of its step, and through
    the next state. With :math:`\Gamma_t = \partial L / \partial H_t` and
    :math:`\delta_t = \partial L / \partial A_t`, and :math:`\delta_{T+1} = 0`,

    .. math::

        \Gamma_t = G_t + \delta_{t+1} W_{hh}^\top, \qquad
        \delta_t = \Gamma_t \odot \varphi'(A_t), \qquad t = T, \dots, 1,

    and :math:`\varphi'` can be had from the states: it is :math:`1 - H_t \odot H_t` for
    tanh, :math:`H_t \odot (1 - H_t)` for the logistic function, and one where
    :math:`H_t > 0` for ReLU.

    Parameters
    ----------
    G
        What reaches :math:`H_1..H_T` directly; ``G[t-1]`` belongs to :math:`H_t`.
        ``None`` means zero: only the last state is read.
    E
        What reaches :math:`H_T` besides, for example from the chunk of the sequence
        that follows. ``None`` means zero.
    X, W_xh, W_hh, activation
        As given to :func:`rnn_forward`.
    H
        What it returned.
    need_input_grad
        Whether to compute the gradient by the inputs; data do not need one.

    Returns
    -------
    gradients
        By ``X`` (``None`` without ``need_input_grad``), ``W_xh``, ``W_hh``, ``b_h`` and
        ``H_0``. A start state that the whole batch shares gets the sum of the rows
        of the last.

    Raises
    ------
    ValueError
        If ``G``, ``E`` or ``H`` has a shape that does not fit the inputs, or the
        activation is not known.

    Notes
    -----
    Werbos, *Backpropagation through time: what it does and how to do it*,
    Proceedings of the IEEE 78, 1990.

    Examples
    --------
    One step, one unit: the derivative of tanh at 0 is 1, and the input was 2:

    >>> X, W = torch.full((1, 1, 1), 2.0), torch.zeros(1, 1)
    >>> H = rnn_forward(X, W, W, torch.zeros(1), torch.zeros(1, 1))
    >>> rnn_backward(None, torch.ones(1, 1), X, H, W, W).W_xh
    tensor([[2.]])
    """
    _check_backward(G, E, X, H)
    derivative = _activation(activation).derivative
    W_hh_T = W_hh.T.contiguous()  # transposed once, not in each product
    X_bar = X.new_empty(X.shape) if need_input_grad else None
    W_xh_bar, W_hh_bar, b_h_bar = map(torch.zeros_like, (W_xh, W_hh, W_hh[0]))
    # delta_{T+1} W_hh^T = 0, and what else reaches H_T
    Gamma = torch.zeros_like(H[0]) if E is None else E.clone()
    for part in reversed(_parts(*X.shape[:2])):
        # phi'(A_t) of some steps; each becomes delta_t when its turn comes
        delta = derivative(H[1:][part])
        for t, delta_t in reversed(list(enumerate(delta.unbind(), part.start))):
            # Gamma_t = G_t + delta_{t+1} W_hh^T
            if G is not None:
                Gamma += G[t]
            # delta_t = Gamma_t * phi'(A_t)
            delta_t.mul_(Gamma)
            torch.mm(delta_t, W_hh_T, out=Gamma)
        rows = delta.flatten(0, 1)
        # dL/dX_t = delta_t W_xh^T
        if need_input_grad:
            torch.mm(rows, W_xh.T, out=X_bar[part].view(len(rows), -1))
        # dL/dW_xh = sum_t X_t^T delta_t: some steps in one product
        W_xh_bar.addmm_(X[part].reshape(len(rows), -1).T, rows)
        # dL/dW_hh = sum_t H_{t-1}^T delta_t
        W_hh_bar.addmm_(H[:-1][part].flatten(0, 1).T, rows)
        # dL/db_h = sum_t 1^T delta_t
        b_h_bar += rows.sum(0)
    # dL/dH_0 = delta_1 W_hh^T, which is what is left in Gamma
    return RNNGradients(X_bar, W_xh_bar, W_hh_bar, b_h_bar, H_0=Gamma)


def output_forward(
    H: Inexact[Tensor, "*batch h"],
    W_hq: Inexact[Tensor, "h q"],
    b_q: Inexact[Tensor, "q"],
) -> Inexact[Tensor, "*batch q"]:
    r"""Read outputs off the states: :math:`O_t = H_t W_{hq} + b_q`.

    Parameters
    ----------
    H
        States of any number of steps, or of the last one alone (many-to-one).
    W_hq, b_q
        The output layer.

    Examples
    --------
    >>> output_forward(torch.ones(3), torch.eye(3), torch.tensor([0.0, 0.1, 0.2]))
    tensor([1.0000, 1.1000, 1.2000])
    """
    return H @ W_hq + b_q


class OutputGradients(NamedTuple):
    r"""The gradients of a loss by everything that :func:`output_forward` was given."""

    H: Float[Tensor, "*batch h"]
    W_hq: Float[Tensor, "h q"]
    b_q: Float[Tensor, "q"]


def output_backward(
    G: Float[Tensor, "*batch q"],
    H: Float[Tensor, "*batch h"],
    W_hq: Float[Tensor, "h q"],
) -> OutputGradients:
    r"""From the gradient by the outputs to those by states, weights and bias.

    Parameters
    ----------
    G
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
    rows = G.reshape(-1, G.shape[-1])
    return OutputGradients(
        # dL/dH_t = G_t W_hq^T
        H=G @ W_hq.T,
        # dL/dW_hq = sum_t H_t^T G_t
        W_hq=H.reshape(-1, H.shape[-1]).T @ rows,
        # dL/db_q = sum_t 1^T G_t
        b_q=rows.sum(0),
    )


class _BackpropagationThroughTime(torch.autograd.Function):
    """The two functions above, where autograd can see them."""

    @staticmethod
    def forward(ctx, X, W_xh, W_hh, b_h, H_0, activation):
        X = X.contiguous()  # once, for both passes
        H = rnn_forward(X, W_xh, W_hh, b_h, H_0, activation)
        ctx.save_for_backward(X, H, W_xh, W_hh)
        ctx.activation = activation
        ctx.set_materialize_grads(False)
        # The last state apart, so that a loss that reads only it (many-to-one) does
        # not send back T-1 matrices of zeros.
        return H[1:], H[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, G, E):
        gradients = rnn_backward(
            G,
            E,
            *ctx.saved_tensors,
            ctx.activation,
            need_input_grad=ctx.needs_input_grad[0],
        )
        return *gradients, None


def rnn(
    X: Float[Tensor, "time batch d"],
    W_xh: Float[Tensor, "d h"],
    W_hh: Float[Tensor, "h h"],
    b_h: Float[Tensor, "h"],
    H_0: Float[Tensor, "batch h"],
    activation: str = "tanh",
) -> tuple[Float[Tensor, "time batch h"], Float[Tensor, "batch h"]]:
    r"""Unroll the recurrence; gradients come from :func:`rnn_backward`.

    Parameters
    ----------
    X, W_xh, W_hh, b_h, H_0, activation
        As in :func:`rnn_forward`.

    Returns
    -------
    states
        :math:`H_1, \dots, H_T`.
    last
        :math:`H_T`. A loss that reads only the last state should read it here.

    Examples
    --------
    >>> W = torch.ones(1, 1, requires_grad=True)
    >>> X, zero = torch.zeros(2, 1, 1), torch.zeros(1)
    >>> states, last = rnn(X, W, W, zero, torch.ones(1, 1))
    >>> last.sum().backward()
    >>> W.grad  # tanh'(a_2) (h_1 + w tanh'(a_1) h_0)
    tensor([[0.6945]])

    A long sequence in chunks (truncated backpropagation through time): the state is
    carried from chunk to chunk, and detached, so that no gradient crosses the cut.

    >>> W.grad, state = None, torch.ones(1, 1)
    >>> for chunk in X.split(1):
    ...     states, last = rnn(chunk, W, W, zero, state)
    ...     last.sum().backward()
    ...     state = last.detach()
    >>> W.grad  # tanh'(a_1) h_0 + tanh'(a_2) h_1
    tensor([[0.8677]])
    """
    return _BackpropagationThroughTime.apply(X, W_xh, W_hh, b_h, H_0, activation)


class RNN(nn.Module):
    r"""The parameters of one recurrent layer, and the call of :func:`rnn` on them.

    The input matrix starts Xavier-uniform, :math:`U(-a, a)` with
    :math:`a = \sqrt{6 / (n_{in} + n_{out})}` (Glorot and Bengio, 2010), and so does
    the recurrent matrix unless ``init`` says otherwise; the bias starts at zero.

    Parameters
    ----------
    d, h
        Features of one input and of one state.
    activation
        A name in :data:`ACTIVATIONS`.
    init
        Fills the recurrent matrix: one of :mod:`dian.rnn.initialization`, or of
        :mod:`torch.nn.init`.
    learnable_h0
        Whether the state before the first step is a parameter, shared by the batch.
        It starts at zero.
    generator
        The source of the random start weights.

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
        d: int,
        h: int,
        *,
        activation: str = "tanh",
        init: Callable[..., object] = nn.init.xavier_uniform_,
        learnable_h0: bool = False,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        _activation(activation)  # a wrong name is told here, not at the first batch
        self.activation = activation
        self.W_xh = nn.Parameter(torch.empty(d, h))
        self.W_hh = nn.Parameter(torch.empty(h, h))
        self.b_h = nn.Parameter(torch.zeros(h))
        self.h_0 = nn.Parameter(torch.zeros(h)) if learnable_h0 else None
        nn.init.xavier_uniform_(self.W_xh, generator=generator)
        init(self.W_hh, generator=generator)

    def forward(
        self,
        X: Float[Tensor, "time batch d"],
        H_0: Float[Tensor, "batch h"] | None = None,
    ) -> tuple[Float[Tensor, "time batch h"], Float[Tensor, "batch h"]]:
        """Return all states and the last one.

        Without ``H_0`` the start is the learned state, or else zero.
        """
        if H_0 is None:
            start = torch.zeros_like(self.b_h) if self.h_0 is None else self.h_0
            # Expanding sends back the sum over the batch to the state that it shares.
            H_0 = start.expand(X.shape[1], -1)
        return rnn(X, self.W_xh, self.W_hh, self.b_h, H_0, self.activation)


def _activation(name: str) -> Activation:
    if name not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}"
        )
    return ACTIVATIONS[name]


def _check_backward(G: Tensor | None, E: Tensor | None, X: Tensor, H: Tensor) -> None:
    """Refuse gradients of other shapes, most of which would be broadcast."""
    wanted = {"H": (len(X) + 1, *H.shape[1:]), "G": H[1:].shape, "E": H.shape[1:]}
    for name, given in (("H", H), ("G", G), ("E", E)):
        if given is not None and given.shape != wanted[name]:
            raise ValueError(
                f"{name} must have shape {tuple(wanted[name])} here, "
                f"got {tuple(given.shape)}"
            )


def _parts(n_time: int, n_batch: int) -> list[slice]:
    """Cut the steps into parts of some :data:`ROWS` rows."""
    n = max(1, ROWS // n_batch)
    return [slice(t, min(t + n, n_time)) for t in range(0, n_time, n)]


def _check(X: Tensor, W_xh: Tensor, W_hh: Tensor, b_h: Tensor, H_0: Tensor) -> None:
    """Refuse what would otherwise be broadcast, or fail deep inside a product."""
    if X.ndim != 3 or not X.numel():
        raise ValueError(
            f"X must be (time, batch, d), none empty, got {tuple(X.shape)}"
        )
    (_, n_batch, d), h = X.shape, b_h.shape[-1]
    wanted = {"W_xh": (d, h), "W_hh": (h, h), "b_h": (h,), "H_0": (n_batch, h)}
    given = {"W_xh": W_xh, "W_hh": W_hh, "b_h": b_h, "H_0": H_0}
    for name, shape in wanted.items():
        if given[name].shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} here, got {tuple(given[name].shape)}"
            )
        for what in ("dtype", "device"):
            expected, got = getattr(X, what), getattr(given[name], what)
            if got != expected:
                raise ValueError(
                    f"{name} must have the {what} {expected} of X, got {got}"
                )
