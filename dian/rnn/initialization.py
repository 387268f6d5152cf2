r"""Initialization of the recurrent weights.

Each function fills a matrix in place from a generator, and returns it. For a large
square matrix they differ in the spectral radius :math:`\rho` and in the norm
:math:`\lVert W \rVert_2`, which determine how fast gradients vanish or explode.

======================  ==============================  ===============================
function                spectral radius :math:`\rho`    norm :math:`\lVert W \rVert_2`
======================  ==============================  ===============================
:func:`uniform_`        :math:`1 / \sqrt 3`             :math:`2 / \sqrt 3`
:func:`xavier_`         gain                            2 gain
:func:`gaussian_`       gain                            2 gain
:func:`orthogonal_`     gain                            gain
:func:`identity_`       scale                           scale
======================  ==============================  ===============================

The last two rows hold for every size, the others in the limit of large matrices.
"""

import functools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dian.errors import kind, require
from dian.numerics import at_least_float32

Matrix = Float[Tensor, "n_in n_out"]
Generator = torch.Generator | None


def _widened(initialize: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Draw in at least float32, and round to the dtype of the matrix."""

    @functools.wraps(initialize)
    @torch.no_grad()
    def initialized(W: Tensor, *args, **kwargs) -> Tensor:
        fits = W.ndim == 2 and W.is_floating_point() and W.numel()
        require(fits, f"W must be a matrix of floating-point numbers, got {kind(W)}")
        wide = initialize(at_least_float32(W), *args, **kwargs)
        return W if wide is W else W.copy_(wide)

    return initialized


@_widened
def uniform_(W: Matrix, generator: Generator = None) -> Matrix:
    r"""Fill with :math:`U(\pm 1 / \sqrt{n_{out}})`.

    The initialization of all parameters of :class:`torch.nn.RNN`.

    >>> W = uniform_(torch.empty(3, 4), generator=torch.Generator())
    >>> bool(W.abs().max() <= 0.5)
    True
    """
    bound = W.shape[1] ** -0.5
    return W.uniform_(-bound, bound, generator=generator)


@_widened
def xavier_(W: Matrix, gain: float = 1.0, generator: Generator = None) -> Matrix:
    r"""Fill with :math:`U(\pm a)`, :math:`a = g \sqrt{6 / (n_{in} + n_{out})}`.

    The variance is :math:`2 g^2 / (n_{in} + n_{out})`. Glorot and Bengio,
    *Understanding the difficulty of training deep feedforward neural networks*, 2010,
    equation 16.

    >>> W = xavier_(torch.empty(2, 4), generator=torch.Generator())
    >>> bool(W.abs().max() <= 1)
    True
    """
    return nn.init.xavier_uniform_(W, gain, generator)


@_widened
def gaussian_(W: Matrix, gain: float = 1.0, generator: Generator = None) -> Matrix:
    r"""Fill with independent entries of :math:`\mathcal N(0, g^2 / n_{in})`.

    >>> gaussian_(torch.empty(2, 3), gain=0.0)
    tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """
    return W.normal_(0, gain * W.shape[0] ** -0.5, generator=generator)


@_widened
def orthogonal_(W: Matrix, gain: float = 1.0, generator: Generator = None) -> Matrix:
    r"""Fill with a uniformly distributed orthogonal matrix times ``gain``.

    A square matrix scales every vector by exactly the gain. Saxe et al., *Exact
    solutions to the nonlinear dynamics of learning in deep linear neural networks*,
    2014, arXiv:1312.6120.

    >>> W = orthogonal_(torch.empty(3, 3), gain=2.0, generator=torch.Generator())
    >>> torch.allclose(W.T @ W, 4 * torch.eye(3), atol=1e-5)
    True
    """
    wide = W.shape[0] < W.shape[1]
    draws = torch.empty_like(W).normal_(generator=generator)
    # In float64, and rounded at the end: in float32 the QR decomposition has another
    # last digit on another processor, and training amplifies it.
    Q, R = torch.linalg.qr(draws.double().T if wide else draws.double())
    Q *= R.diagonal().sign()  # without it, not uniformly distributed
    return W.copy_(Q.T if wide else Q).mul_(gain)


@_widened
def identity_(W: Matrix, scale: float = 1.0, generator: Generator = None) -> Matrix:
    r"""Fill with the identity matrix times ``scale``; the generator is not used.

    With ReLU and no input, a non-negative state then stays as it is. Le, Jaitly and
    Hinton, *A simple way to initialize recurrent networks of rectified linear units*,
    2015, arXiv:1504.00941.

    >>> identity_(torch.empty(2, 2), scale=0.5)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])
    """
    return nn.init.eye_(W).mul_(scale)


INITS = {
    "uniform": uniform_,
    "xavier": xavier_,
    "gaussian": gaussian_,
    "orthogonal": orthogonal_,
    "identity": identity_,
}
"""The initializations by name.

:meta hide-value:
"""
