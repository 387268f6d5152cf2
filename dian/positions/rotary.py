r"""Rotary position embedding: a feature pair of query and key turns with its position.

Axis names: ``*batch`` are any leading axes, such as batch and head; ``n`` counts the
vectors of a sequence, ``d`` the features of one of them, ``pairs`` is :math:`d/2`.
:func:`rotate` is the one to use. The matrix and the usual form with two halves compute
the same, slower, and are here to be compared with it.

Angles are float64, whatever the type of the features: in bfloat16 position 257 *is*
position 256. Nothing is kept from one call to the next.
"""

import math

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

LAYOUTS = ("interleaved", "half")
"""Which two features are a pair: neighbours (0, 1), (2, 3), ... as in the paper, or
one of each half (0, d/2), (1, d/2 + 1), ... as in Llama."""


def rotation_factors(
    positions: Int[Tensor, "*n"] | Float[Tensor, "*n"],
    omega: Float[Tensor, "pairs"],
    dtype: torch.dtype = torch.complex64,
) -> Complex[Tensor, "*n pairs"]:
    r"""Return :math:`e^{j m \omega_i}`, by which position :math:`m` turns pair i.

    Parameters
    ----------
    positions
        Where; may be negative, and need not be whole.
    omega
        Radians per position of each pair.
    dtype
        The type of the result; the angles are computed in float64 before.

    Examples
    --------
    >>> rotation_factors(torch.tensor([0, 1]), torch.tensor([torch.pi / 2]))
    tensor([[ 1.0000e+00+0.j],
            [-4.3711e-08+1.j]])
    """
    angles = positions.double()[..., None] * omega.to(positions.device, torch.double)
    part = torch.float64 if dtype == torch.complex128 else torch.float32
    return torch.complex(angles.cos().to(part), angles.sin().to(part))


def consecutive_rotation_factors(
    n: int,
    omega: Float[Tensor, "pairs"],
    offset: int = 0,
    dtype: torch.dtype = torch.complex64,
) -> Complex[Tensor, "n pairs"]:
    r"""Return the rotation factors of consecutive positions, from far fewer cosines.

    .. math::

        e^{j (a + b) \omega_i} = e^{j a \omega_i}\, e^{j b \omega_i}

    With every :math:`k`-th position as :math:`a` and :math:`b = 0, \dots, k - 1`, some
    :math:`2 \sqrt n` positions are enough. The products are taken in float64.

    Parameters
    ----------
    n, offset
        How many positions, and the first of them.
    omega, dtype
        As of :func:`rotation_factors`.

    Examples
    --------
    >>> omega = torch.tensor([0.1, 1.0])
    >>> expected = rotation_factors(torch.arange(7, 12), omega)
    >>> torch.equal(consecutive_rotation_factors(5, omega, 7), expected)
    True
    """
    k = math.isqrt(n) + 1
    a = torch.arange(offset, offset + n, k, device=omega.device)
    b = torch.arange(k, device=omega.device)
    of_a, of_b = (rotation_factors(each, omega, torch.complex128) for each in (a, b))
    return (of_a[:, None] * of_b).flatten(0, 1)[:n].to(dtype)


def rotate(
    x: Float[Tensor, "*batch n d"],
    omega: Float[Tensor, "pairs"],
    positions: Int[Tensor, "*#batch n"] | Float[Tensor, "*#batch n"] | None = None,
    offset: int = 0,
    layout: str = "interleaved",
) -> Float[Tensor, "*batch n d"]:
    r"""Turn each pair of features by an angle in proportion to the position.

    .. math::

        \tilde x_i = x_{2i} + j\, x_{2i+1}, \qquad
        (R_m \tilde x)_i = \tilde x_i\, e^{j m \omega_i}

    Queries and keys are rotated, values are not. The score
    :math:`\langle R_m q, R_n k \rangle` then depends on :math:`m - n` alone.

    Parameters
    ----------
    x
        Queries or keys.
    omega
        Radians per position of each pair, such as
        :func:`dian.positions.sinusoidal.frequencies` of the width of **one head**.
    positions
        Where each vector stands. Default: 0, 1, ..., n - 1.
    offset
        Added to all positions. When keys are cached, this is how many there are.
    layout
        One of :data:`LAYOUTS`. It must be the one that the weights were trained with.

    Returns
    -------
    rotated
        In the type of ``x``; 16-bit types are widened for the product.

    Raises
    ------
    ValueError
        If ``x`` has not two features for each frequency, ``positions`` are not one for
        each vector, or ``layout`` is unknown.

    Notes
    -----
    Su et al., *RoFormer*, 2021, arXiv:2104.09864, equations 13 to 16, with positions
    from 0. In pairs one complex product reads every feature once and writes it once.

    Examples
    --------
    A quarter turn for each position:

    >>> rotate(torch.tensor([[1.0, 0.0]] * 3), torch.tensor([torch.pi / 2])).round()
    tensor([[ 1.,  0.],
            [-0.,  1.],
            [-1., -0.]])
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    table = _table(x, omega, positions, offset)
    # float32 is the least that complex numbers have
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    turn = _turn_pairs if layout == "interleaved" else _turn_halves
    return turn(wide, table).to(x.dtype)


def rotate_half_split(
    x: Float[Tensor, "*batch n d"],
    omega: Float[Tensor, "pairs"],
    positions: Int[Tensor, "*#batch n"] | Float[Tensor, "*#batch n"] | None = None,
    offset: int = 0,
) -> Float[Tensor, "*batch n d"]:
    r"""Do the same in the usual form, for the layout of halves.

    .. math::

        x \odot \cos [a; a] + \operatorname{rot}(x) \odot \sin [a; a], \qquad
        a_i = m\,\omega_i, \qquad \operatorname{rot}(x) = [-x_{d/2:}; x_{:d/2}]

    Parameters
    ----------
    x, omega, positions, offset
        As of :func:`rotate`.

    Notes
    -----
    The form of GPT-NeoX and Llama; equation 34 of RoFormer has it for neighbours.

    Examples
    --------
    >>> omega = torch.tensor([torch.pi / 2])
    >>> rotate_half_split(torch.tensor([[1.0, 0.0]]), omega, offset=1).round()
    tensor([[-0.,  1.]])
    """
    table = _table(x, omega, positions, offset)
    cos = torch.cat([table.real, table.real], dim=-1)
    sin = torch.cat([table.imag, table.imag], dim=-1)
    a, b = x.chunk(2, dim=-1)
    rot = torch.cat([-b, a], dim=-1)
    return (x * cos + rot * sin).to(x.dtype)


def rotation_matrix(
    positions: Int[Tensor, "*n"] | Float[Tensor, "*n"], omega: Float[Tensor, "pairs"]
) -> Float[Tensor, "*n d d"]:
    r"""Return the matrix :math:`R_m` that turns neighbouring pairs of a column.

    .. math::

        R_m = \operatorname{blockdiag}_i \begin{pmatrix}
        \cos m\omega_i & -\sin m\omega_i \\ \sin m\omega_i & \cos m\omega_i
        \end{pmatrix}

    Parameters
    ----------
    positions, omega
        As of :func:`rotation_factors`.

    Notes
    -----
    Equation 15 of RoFormer. In float64, with :math:`d^2` entries of which
    :math:`2d` are not zero: to look at, not to use.

    Examples
    --------
    >>> rotation_matrix(torch.tensor(1), torch.tensor([torch.pi / 2])).round()
    tensor([[-0., -1.],
            [ 1., -0.]], dtype=torch.float64)
    """
    table = rotation_factors(positions, omega, torch.complex128)
    even = torch.arange(0, 2 * len(omega), 2)
    R = torch.zeros(*table.shape[:-1], 2 * len(omega), 2 * len(omega)).double()
    R[..., even, even] = R[..., even + 1, even + 1] = table.real
    R[..., even + 1, even] = table.imag
    R[..., even, even + 1] = -table.imag
    return R


def half_split_order(d: int) -> Int[Tensor, "d"]:
    r"""Return the order :math:`(0, 2, 4, \dots, 1, 3, 5, \dots)` of the features.

    ``x[..., half_split_order(d)]`` brings pairs into the layout of halves, and
    ``half_split_order(d).argsort()`` is the way back. Weights trained in one layout
    serve in the other when the outputs of the maps to queries and keys are put into
    this order, inside each head.

    Examples
    --------
    >>> half_split_order(6)
    tensor([0, 2, 4, 1, 3, 5])
    """
    if d <= 0 or d % 2:
        raise ValueError(f"d must be positive and even: features go in pairs, got {d}")
    return torch.arange(d).view(-1, 2).T.flatten()


def decay_bound(
    distances: Int[Tensor, "*n"] | Float[Tensor, "*n"], omega: Float[Tensor, "pairs"]
) -> Float[Tensor, "*n"]:
    r"""Return the mean size of the partial sums that bound a score from above.

    .. math::

        B(\Delta) = \frac 2d \sum_{i=1}^{d/2} |S_i|, \qquad
        S_i = \sum_{l < i} e^{j \Delta \omega_l}

    Parameters
    ----------
    distances, omega
        As positions and frequencies of :func:`rotation_factors`.

    Notes
    -----
    Section 3.4.3 of RoFormer. A bound may fall where no score does.

    Examples
    --------
    >>> decay_bound(torch.tensor([0]), torch.ones(3))
    tensor([2.], dtype=torch.float64)
    """
    table = rotation_factors(distances, omega, torch.complex128)
    return table.cumsum(-1).abs().mean(-1)


def _turn_pairs(x: Tensor, table: Tensor) -> Tensor:
    """View neighbours as one number, and multiply: each feature is read once."""
    pairs = x.unflatten(-1, (-1, 2))
    if pairs.stride(-1) != 1 or any(
        step % 2 for step in (*pairs.stride()[:-1], pairs.storage_offset())
    ):  # cut out of something wider: a copy can be viewed
        pairs = pairs.clone(memory_format=torch.contiguous_format)
    z = torch.view_as_complex(pairs) * table
    return torch.view_as_real(z).flatten(-2)


def _turn_halves(x: Tensor, table: Tensor) -> Tensor:
    """Do the same in real numbers: to bring both parts together would take longer."""
    n_pair = table.shape[-1]
    cos, sin = torch.cat([table.real, table.real], -1), table.imag.contiguous()
    y = x * cos
    y[..., :n_pair].addcmul_(x[..., n_pair:], sin, value=-1)
    y[..., n_pair:].addcmul_(x[..., :n_pair], sin)
    return y


def _table(x: Tensor, omega: Tensor, positions: Tensor | None, offset: int) -> Tensor:
    """Return by how much each vector turns, or tell what does not fit together."""
    if x.ndim < 2 or x.shape[-1] != 2 * len(omega):
        raise ValueError(
            f"x must have the shape (..., n, {2 * len(omega)}), two features for each "
            f"of {len(omega)} frequencies, got {tuple(x.shape)}"
        )
    n, dtype = x.shape[-2], torch.promote_types(x.dtype, torch.complex64)
    if positions is None:
        return consecutive_rotation_factors(n, omega.to(x.device), offset, dtype)
    if positions.ndim not in (1, x.ndim - 1) or positions.shape[-1] != n:
        raise ValueError(
            f"positions must have one entry for each of {n} vectors, and as many axes "
            f"as x before its features or one alone, got the shape "
            f"{tuple(positions.shape)}"
        )
    return rotation_factors(positions.to(x.device) + offset, omega, dtype)
