r"""Rotary position embedding (RoPE): feature pairs rotated in proportion to position.

Axis names: ``*batch`` are any leading axes, such as batch and head; ``n`` is the length
of a sequence, ``d`` the number of features of a vector, ``pairs`` is :math:`d/2`.
:class:`RotaryEmbedding` is the layer, and :func:`rotate` the function. The rotation
matrix and the usual form of the half-split layout compute the same more slowly, and
serve for comparison.

Angles are float64 whatever the dtype of the features, since in bfloat16 position 257
rounds to 256. Nothing is cached between calls.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Complex, Float, Float64, Int, Real
from torch import Tensor, nn

from dian.errors import kind, require, require_one_of, require_whole
from dian.positions.sinusoidal import check_even, check_frequencies, frequencies

LAYOUTS = ("interleaved", "half")
"""The features that form a pair are neighbors (0, 1), (2, 3), ... as in the paper, or
one of each half, (0, d/2), (1, d/2 + 1), ... as in Llama."""


class RotaryEmbedding(nn.Module):
    r"""Rotate queries and keys, so that scores depend on relative positions alone.

    Parameters
    ----------
    head_dim
        Features of a query or key of **one head**, even.
    base
        The :math:`\theta` of :func:`dian.positions.sinusoidal.frequencies`.
    omega
        Frequencies instead of those of ``base``, for example from
        :mod:`dian.positions.rotary_scaling`.
    attention_factor
        Multiplies queries and keys, as in YaRN.
    layout
        One of :data:`LAYOUTS`: the layout that the weights were trained with. Weights
        of Llama need ``"half"``.
    seq_dim
        The axis of positions: -2 for ``(batch, head, n, d)``, and 1 for ``(batch, n,
        head, d)``. Shapes alone do not tell these two apart.
    inplace
        Whether to overwrite queries and keys; see ``out`` of :func:`rotate`.

    Notes
    -----
    The layer has no parameters and an empty state dict, and ``model.bfloat16()`` does
    not round its frequencies. It can be pickled, and works under
    ``torch.compile(fullgraph=True)``.

    Examples
    --------
    >>> rotary = RotaryEmbedding(64)
    >>> q, k = torch.randn(2, 3, 8, 10, 64)  # batch 3, 8 heads, 10 positions
    >>> q, k = rotary(q, k)

    One new position after 10 cached ones, and positions that differ in the batch:

    >>> q, k = torch.randn(2, 3, 8, 1, 64)
    >>> rotated = rotary(q, k, offset=10)
    >>> rotated = rotary(q, k, position_ids=torch.tensor([[10], [7], [4]]))
    """

    def __init__(
        self,
        head_dim: int,
        *,
        base: float = 10_000.0,
        omega: Float[Tensor, "pairs"] | None = None,
        attention_factor: float = 1.0,
        layout: str = "interleaved",
        seq_dim: int = -2,
        inplace: bool = False,
    ):
        super().__init__()
        require_one_of("layout", layout, LAYOUTS)
        # Not a buffer, which would be cast with the module.
        self.omega = frequencies(head_dim, base) if omega is None else omega
        check_frequencies(self.omega)
        self.attention_factor, self.layout = attention_factor, layout
        self.seq_dim, self.inplace = seq_dim, inplace

    def forward(
        self,
        q: Float[Tensor, "*shape_q d"],
        k: Float[Tensor, "*shape_k d"],
        position_ids: Int[Tensor, "*m n"] | None = None,
        offset: int = 0,
    ) -> tuple[Float[Tensor, "*shape_q d"], Float[Tensor, "*shape_k d"]]:
        """Return the rotated queries and keys.

        Parameters
        ----------
        q, k
            Queries and keys; they may differ in the number of heads.
        position_ids
            Positions of all sequences ``(n,)``, or of each sequence ``(batch, n)``.
            Default: 0, 1, ..., n - 1.
        offset
            Added to all positions: the number of cached keys.
        """
        apart = not self.inplace or q is not k
        require(apart, "q and k must be two tensors with inplace=True, got the same")
        return tuple(self._rotated([q, k], position_ids, offset))

    def rotate(
        self,
        x: Float[Tensor, "*shape d"],
        offset: int = 0,
        position_ids: Int[Tensor, "*m n"] | None = None,
    ) -> Float[Tensor, "*shape d"]:
        """Return rotated queries or keys: the ``rotate`` of an attention layer."""
        return next(self._rotated([x], position_ids, offset))

    def _rotated(self, tensors, positions, offset) -> Iterator[Tensor]:
        table = None
        for x in tensors:
            x = x.movedim(self.seq_dim, -2)
            # Queries and keys share a table, unless they differ in length.
            if table is None or table[0].shape[-2] != x.shape[-2]:
                table = _table(x, self.omega, positions, offset, self.attention_factor)
            y = _rotate(x, *table, self.layout, x if self.inplace else None)
            yield y.movedim(-2, self.seq_dim)

    def extra_repr(self) -> str:
        """Describe the layer."""
        return f"{2 * len(self.omega)}, layout={self.layout!r}, seq_dim={self.seq_dim}"


def rotation_factors(
    positions: Real[Tensor, "*n"],
    omega: Float[Tensor, "pairs"],
    dtype: torch.dtype = torch.complex64,
) -> Complex[Tensor, "*n pairs"]:
    r"""Return :math:`e^{j m \omega_i}`, the rotation of pair i at position :math:`m`.

    Parameters
    ----------
    positions
        Positions; may be negative or fractional.
    omega
        Angular frequencies in radians per position, one per pair; 16 bits are rejected.
    dtype
        The dtype of the result; the angles are computed in float64.

    Examples
    --------
    >>> rotation_factors(torch.tensor([0, 1]), torch.tensor([torch.pi / 2]))
    tensor([[ 1.0000e+00+0.j],
            [-4.3711e-08+1.j]])
    """
    angles = _angles(positions, omega)
    return torch.complex(angles.cos(), angles.sin()).to(dtype)


def consecutive_rotation_factors(
    n: int,
    omega: Float[Tensor, "pairs"],
    offset: int = 0,
    dtype: torch.dtype = torch.complex64,
) -> Complex[Tensor, "n pairs"]:
    r"""Return the rotation factors of consecutive positions, from fewer cosines.

    .. math::

        e^{j (a + b) \omega_i} = e^{j a \omega_i}\, e^{j b \omega_i}

    With every :math:`k`-th position as :math:`a` and :math:`b = 0, \dots, k - 1`, about
    :math:`2 \sqrt n` positions suffice. The products are computed in float64.

    Parameters
    ----------
    n, offset
        Number of positions, and the first position.
    omega, dtype
        As in :func:`rotation_factors`.

    Examples
    --------
    >>> omega = torch.tensor([0.1, 1.0])
    >>> expected = rotation_factors(torch.arange(7, 12), omega)
    >>> torch.equal(consecutive_rotation_factors(5, omega, 7), expected)
    True
    """
    require_whole("n", n, 0)
    k = math.isqrt(n) + 1
    a = torch.arange(offset, offset + n, k, device=omega.device)
    b = torch.arange(k, device=omega.device)
    of_a, of_b = (rotation_factors(each, omega, torch.complex128) for each in (a, b))
    return (of_a[:, None] * of_b).flatten(0, 1)[:n].to(dtype)


def rotate(
    x: Float[Tensor, "*batch n d"],
    omega: Float[Tensor, "pairs"],
    positions: Real[Tensor, "*m n"] | None = None,
    offset: int = 0,
    layout: str = "interleaved",
    out: Float[Tensor, "*batch n d"] | None = None,
) -> Float[Tensor, "*batch n d"]:
    r"""Rotate each feature pair by an angle proportional to the position.

    .. math::

        \tilde x_i = x_{2i} + j\, x_{2i+1}, \qquad
        (R_m \tilde x)_i = \tilde x_i\, e^{j m \omega_i}

    Queries and keys are rotated, values are not. The score
    :math:`\langle R_m q, R_n k \rangle` then depends on :math:`m - n` alone.

    Parameters
    ----------
    x
        Queries or keys; the positions are the axis before the features.
    omega
        Angular frequencies in radians per position, one per pair, for example
        :func:`dian.positions.sinusoidal.frequencies` of the features of **one head**.
    positions
        Position of each vector: of shape ``(n,)``, ``(batch, n)`` for the first axis of
        ``x``, or with all leading axes. Default: 0, 1, ..., n - 1.
    offset
        Added to all positions: the number of cached keys.
    layout
        One of :data:`LAYOUTS`: the layout that the weights were trained with.
    out
        A tensor for the result, which may be ``x`` itself (in place). The interleaved
        layout then needs no further memory for float32 and float64; 16-bit types are
        copied to float32. As with any ``out`` in PyTorch, there is no gradient.

    Returns
    -------
    rotated
        In the dtype of ``x``; 16-bit types are computed in float32.

    Notes
    -----
    Su et al., *RoFormer*, 2021, arXiv:2104.09864, equations 13 to 16, with positions
    from 0. In the interleaved layout, one complex product reads and writes each feature
    once.

    Examples
    --------
    A quarter turn per position:

    >>> rotate(torch.tensor([[1.0, 0.0]] * 3), torch.tensor([torch.pi / 2])).round()
    tensor([[ 1.,  0.],
            [-0.,  1.],
            [-1., -0.]])
    """
    fits = out is None or out.shape == x.shape
    require(fits, f"out must have the shape {tuple(x.shape)} of x, got {kind(out)}")
    return _rotate(x, *_table(x, omega, positions, offset), layout, out)


def rotate_half_split(
    x: Float[Tensor, "*batch n d"],
    omega: Float[Tensor, "pairs"],
    positions: Real[Tensor, "*m n"] | None = None,
    offset: int = 0,
) -> Float[Tensor, "*batch n d"]:
    r"""Rotate in the half-split layout, in the form of GPT-NeoX and Llama.

    .. math::

        x \odot \cos [a; a] + \operatorname{rot}(x) \odot \sin [a; a], \qquad
        a_i = m\,\omega_i, \qquad \operatorname{rot}(x) = [-x_{d/2:}; x_{:d/2}]

    Parameters
    ----------
    x, omega, positions, offset
        As in :func:`rotate`.

    Notes
    -----
    Equation 34 of RoFormer is this form for the interleaved layout.

    Examples
    --------
    >>> omega = torch.tensor([torch.pi / 2])
    >>> rotate_half_split(torch.tensor([[1.0, 0.0]]), omega, offset=1).round()
    tensor([[-0.,  1.]])
    """
    cos, sin = _table(x, omega, positions, offset)
    cos, sin = torch.cat([cos, cos], -1), torch.cat([sin, sin], -1)
    a, b = x.chunk(2, dim=-1)
    rot = torch.cat([-b, a], dim=-1)
    return (x * cos + rot * sin).to(x.dtype)


def rotation_matrix(
    positions: Real[Tensor, "*n"], omega: Float[Tensor, "pairs"]
) -> Float64[Tensor, "*n d d"]:
    r"""Return the matrix :math:`R_m` that rotates interleaved pairs of a column vector.

    .. math::

        R_m = \operatorname{blockdiag}_i \begin{pmatrix}
        \cos m\omega_i & -\sin m\omega_i \\ \sin m\omega_i & \cos m\omega_i
        \end{pmatrix}

    Parameters
    ----------
    positions, omega
        As in :func:`rotation_factors`.

    Notes
    -----
    Equation 15 of RoFormer. Only :math:`2d` of the :math:`d^2` entries are not zero, so
    this form is for verification.

    Examples
    --------
    >>> rotation_matrix(torch.tensor(1), torch.tensor([torch.pi / 2])).round()
    tensor([[-0., -1.],
            [ 1., -0.]], dtype=torch.float64)
    """
    table = rotation_factors(positions, omega, torch.complex128)
    even = torch.arange(0, 2 * len(omega), 2, device=table.device)
    R = table.real.new_zeros(*table.shape[:-1], 2 * len(omega), 2 * len(omega))
    R[..., even, even] = R[..., even + 1, even + 1] = table.real
    R[..., even + 1, even] = table.imag
    R[..., even, even + 1] = -table.imag
    return R


def half_split_order(d: int) -> Int[Tensor, "d"]:
    r"""Return the permutation :math:`(0, 2, 4, \dots, 1, 3, 5, \dots)` of features.

    ``x[..., half_split_order(d)]`` converts the interleaved layout to the half-split
    layout, and ``half_split_order(d).argsort()`` is the inverse. To use weights in the
    other layout, permute the outputs of the query and key projections of each head.

    Examples
    --------
    >>> half_split_order(6)
    tensor([0, 2, 4, 1, 3, 5])
    """
    check_even(d)
    return torch.arange(d).view(-1, 2).T.flatten()


def decay_bound(
    distances: Real[Tensor, "*n"], omega: Float[Tensor, "pairs"]
) -> Float64[Tensor, "*n"]:
    r"""Return the mean magnitude of the partial sums that bound a score.

    .. math::

        B(\Delta) = \frac 2d \sum_{i=1}^{d/2} |S_i|, \qquad
        S_i = \sum_{l < i} e^{j \Delta \omega_l}

    Parameters
    ----------
    distances, omega
        As positions and frequencies of :func:`rotation_factors`.

    Notes
    -----
    Section 3.4.3 of RoFormer. The bound decays with the distance; scores need not.

    Examples
    --------
    >>> decay_bound(torch.tensor([0]), torch.ones(3))
    tensor([2.], dtype=torch.float64)
    """
    table = rotation_factors(distances, omega, torch.complex128)
    return table.cumsum(-1).abs().mean(-1)


def _angles(positions, omega) -> Tensor:
    check_frequencies(omega)
    return positions.double()[..., None] * omega.to(positions.device, torch.double)


def _table(x, omega, positions, offset, scale=1.0) -> tuple[Tensor, Tensor]:
    """Return the scaled cosine and sine for each vector and pair."""
    d, dtype = 2 * len(omega), torch.promote_types(x.dtype, torch.float32)
    fits = x.ndim >= 2 and x.shape[-1] == d
    require(fits, f"x must be (..., n, {d}) for {d // 2} frequencies, got {kind(x)}")
    require(x.is_floating_point(), f"x must be floating-point numbers, got {kind(x)}")
    n = x.shape[-2]
    if positions is None and not torch.compiler.is_compiling():
        omega = omega.to(x.device)
        table = consecutive_rotation_factors(n, omega, offset, dtype.to_complex())
        table = table if scale == 1 else scale * table
        return table.real, table.imag
    if positions is None:
        positions = torch.arange(n, device=x.device)
    *axes, last = getattr(positions, "shape", None) or [None]
    known = axes[:1] in ([], [1], [len(x)]) and len(axes) in (0, 1, x.ndim - 2)
    require(
        last == n and known,
        f"positions must be a tensor of shape ({n},), (batch, {n}), or with all "
        f"leading axes of x, got {kind(positions)}",
    )
    if len(axes) == 1:  # of each sequence, and shared by its heads
        positions = positions.view(*axes, *[1] * (x.ndim - 3), n)
    angles = _angles(positions.to(x.device).double() + offset, omega)
    return tuple((scale * f(angles)).to(dtype) for f in (torch.cos, torch.sin))


def _rotate(x, cos, sin, layout, out) -> Tensor:
    require_one_of("layout", layout, LAYOUTS)
    wide = x.to(torch.promote_types(x.dtype, cos.dtype))
    if layout == "half":
        rotated = _rotate_half(wide, cos, sin)
    else:
        rotated = _rotate_interleaved(wide, cos, sin, out)
    if out is None or rotated is out:
        return rotated.to(x.dtype)
    return out.copy_(rotated)


def _rotate_interleaved(x, cos, sin, out) -> Tensor:
    """Multiply neighbors as one complex number: each feature is read once."""
    if torch.compiler.is_compiling():  # which has no code for complex numbers
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    z, target = _as_complex(x), None if out is None else _as_complex(out)
    if z is None:
        z = _as_complex(x.clone(memory_format=torch.contiguous_format))
    rotated = torch.mul(z, torch.complex(cos, sin), out=target)
    return torch.view_as_real(rotated).flatten(-2) if target is None else out


def _as_complex(x: Tensor) -> Tensor | None:
    """View neighbors as complex numbers; ``None`` if dtype or strides rule this out."""
    pairs = x.unflatten(-1, (-1, 2))
    even = not any(n % 2 for n in (*pairs.stride()[:-1], pairs.storage_offset()))
    if even and pairs.stride(-1) == 1 and x.dtype in (torch.float32, torch.float64):
        return torch.view_as_complex(pairs)
    return None


def _rotate_half(x, cos, sin) -> Tensor:
    """Rotate in real numbers, since the features of a pair are far apart."""
    n_pair, sin = cos.shape[-1], sin.contiguous()
    y = x * torch.cat([cos, cos], -1)
    y[..., :n_pair].addcmul_(x[..., n_pair:], sin, value=-1)
    y[..., n_pair:].addcmul_(x[..., :n_pair], sin)
    return y
