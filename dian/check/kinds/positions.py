"""Contracts of chapter 2: sinusoidal and rotary encodings, and ALiBi."""

import torch
from torch import Tensor

from dian.check.contract import (
    ANY,
    Argument,
    Case,
    Contract,
    Convention,
    Function,
    Mistake,
    Option,
    Outputs,
    Property,
    returning,
)
from dian.claims import Mutant
from dian.claims.compare import largest, normal, relative
from dian.claims.positions import bug_matrix
from dian.positions import rotary as rope
from dian.positions import sinusoidal as pe
from dian.positions.alibi import alibi_bias, alibi_slopes

BASE = 10_000.0


def counted(arguments) -> Tensor:
    """Return the positions that a function without positions has in mind."""
    return torch.arange(arguments["x"].shape[-2])


# Rotary embedding, canonical: x and k of shape (batch, head, n, d), interleaved pairs


def _rotated(rotate: Function) -> Function:
    def both(x, positions, base=BASE, k=None) -> Outputs:
        omega = pe.frequencies(x.shape[-1], base)
        found = rotate(x, omega, positions)
        return (found,) if k is None else (found, rotate(k, omega, positions))

    return both


def _by_consecutive(x, omega, positions) -> Tensor:
    """Use the table of consecutive positions where it can be used."""
    first = int(positions[0])
    if torch.equal(positions, torch.arange(first, first + len(positions))):
        return rope.rotate(x, omega, offset=first)
    return rope.rotate(x, omega, positions)


def _by_halves(x, omega, positions) -> Tensor:
    order = rope.half_split_order(x.shape[-1])
    rotated = rope.rotate_half_split(x[..., order], omega, positions)
    return rotated[..., order.argsort()]


def _by_half_layout(x, omega, positions) -> Tensor:
    order = rope.half_split_order(x.shape[-1])
    rotated = rope.rotate(x[..., order], omega, positions, layout="half")
    return rotated[..., order.argsort()]


def _by_matrix(x, omega, positions) -> Tensor:
    R = rope.rotation_matrix(positions, omega).to(x.dtype)
    return (R @ x[..., None])[..., 0]


def _half_split(function: Function) -> Function:
    def wrapped(x, k=None, **rest) -> Outputs:
        order = rope.half_split_order(x.shape[-1])
        k = None if k is None else k[..., order]
        found = function(x=x[..., order], k=k, **rest)
        return tuple(out[..., order.argsort()] for out in found)

    return wrapped


def _transposed(function: Function) -> Function:
    def wrapped(x, k=None, **rest) -> Outputs:
        k = None if k is None else k.transpose(1, 2)
        found = function(x=x.transpose(1, 2), k=k, **rest)
        return tuple(out.transpose(1, 2) for out in found)

    return wrapped


def _folded(axes: int):
    """Wrap a function of fewer axes: ``(batch, n, d)`` or ``(n, d)``."""

    def wrap(function: Function) -> Function:
        def wrapped(x, k=None, **rest) -> Outputs:
            batch, shape = x.shape[:-2], x.shape

            def flat(y):
                return y.flatten(0, -3) if axes == 3 else y.flatten(0, -3).unbind()

            if axes == 3:
                found = function(x=flat(x), k=None if k is None else flat(k), **rest)
            else:
                ks = [None] * batch.numel() if k is None else flat(k)
                rows = [
                    function(x=a, k=b, **rest) for a, b in zip(flat(x), ks, strict=True)
                ]
                found = tuple(map(torch.stack, zip(*rows, strict=True)))
            return tuple(out.reshape(shape) for out in found)

        return wrapped

    return wrap


def _one_vector(function: Function) -> Function:
    """Wrap a function of one vector, and of its position."""

    def wrapped(x, positions, k=None, **rest) -> Outputs:
        def rotated(y):
            rows = [
                function(x=row, positions=m, **rest)[0]
                for each in y.flatten(0, -3)
                for row, m in zip(each, positions.tolist(), strict=True)
            ]
            return torch.stack(rows).reshape(y.shape)

        return tuple(rotated(y) for y in (x, k) if y is not None)

    return wrapped


def _rotary_case(words: str, shape: tuple, positions: Tensor, **more) -> Case:
    (x,) = normal(sum(shape), shape)
    return Case(words, {"x": x, "positions": positions, **more})


def _norms(f: Function) -> float:
    (x,) = normal(3, (2, 3, 7, 10))
    (found, *_) = f(x=x, positions=torch.arange(7))
    return relative(found.norm(dim=-1), x.norm(dim=-1))


def _relative_scores(f: Function) -> float:
    q, k = normal(4, (1, 1, 9, 10), (1, 1, 9, 10))
    q, k = q[:, :, :1].expand_as(q), k[:, :, :1].expand_as(k)
    positions = torch.arange(9)
    Q, K = (f(x=x, positions=positions)[0] for x in (q, k))
    S = (Q @ K.mT)[0, 0]
    return relative(S[1:, 1:], S[:-1, :-1])


def _group(f: Function) -> float:
    (x,) = normal(5, (1, 1, 6, 10))
    m, n = torch.tensor([0, 1, 5, 2, 9, 4]), torch.tensor([3, 0, 7, 30, 1, 4])
    twice = f(x=f(x=x, positions=m)[0], positions=n)[0]
    return relative(twice, f(x=x, positions=m + n)[0])


def _at_zero(f: Function) -> float:
    (x,) = normal(6, (1, 2, 5, 10))
    return relative(f(x=x, positions=torch.arange(5))[0][:, :, 0], x[:, :, 0])


def _wrong_width(x, positions, base=BASE, k=None) -> Outputs:
    """Take the frequencies from the width of the model, three heads wide."""
    d = x.shape[-1]
    omega = pe.frequencies(3 * d, base)[: d // 2]
    both = [x] if k is None else [x, k]
    return tuple(rope.rotate(y, omega, positions) for y in both)


def _only_queries(x, positions, base=BASE, k=None) -> Outputs:
    omega = pe.frequencies(x.shape[-1], base)
    found = rope.rotate(x, omega, positions)
    return (found,) if k is None else (found, k)


def _by_axis(x, positions, base=BASE, k=None) -> Outputs:
    """Rotate by the index of the head, not by the position."""
    omega = pe.frequencies(x.shape[-1], base)
    heads = torch.arange(x.shape[1])
    both = [x] if k is None else [x, k]
    return tuple(
        rope.rotate(y.transpose(1, 2), omega, heads).transpose(1, 2) for y in both
    )


def _exponent(x, positions, base=BASE, k=None) -> Outputs:
    """Use the exponent i / d in place of 2i / d."""
    both = [x] if k is None else [x, k]
    omega = base ** (-torch.arange(x.shape[-1] // 2, dtype=torch.float64) / x.shape[-1])
    return tuple(rope.rotate(y, omega, positions) for y in both)


def _mixed_tables(x, positions, base=BASE, k=None) -> Outputs:
    """Rotate neighbors, with a table of two equal halves."""

    def rotated(y):
        angles = positions.double()[:, None] * pe.frequencies(y.shape[-1], base)
        cos, sin = (torch.cat([f(angles)] * 2, -1) for f in (torch.cos, torch.sin))
        turned = torch.stack([-y[..., 1::2], y[..., ::2]], -1).flatten(-2)
        return y * cos + turned * sin

    return tuple(rotated(y) for y in ((x,) if k is None else (x, k)))


def _rounded(angles_dtype=torch.float64, table_dtype=torch.float64):
    """Round the frequencies and the angles, or the table, to fewer bits."""

    def function(x, positions, base=BASE, k=None) -> Outputs:
        omega = pe.frequencies(x.shape[-1], base).to(angles_dtype)
        angles = (positions.to(angles_dtype)[:, None] * omega).double()
        cos, sin = (f(angles).to(table_dtype).double() for f in (torch.cos, torch.sin))

        def rotated(y):
            a, b = y[..., ::2], y[..., 1::2]
            pairs = torch.stack([a * cos - b * sin, a * sin + b * cos], -1)
            return pairs.flatten(-2)

        return tuple(rotated(y) for y in ((x,) if k is None else (x, k)))

    return function


def _signed(*signs: int):
    """Rotate pairs with these signs of the four products."""

    def function(x, positions, base=BASE, k=None) -> Outputs:
        angles = positions.double()[:, None] * pe.frequencies(x.shape[-1], base)
        (cc, cs, sc, ss), cos, sin = signs, angles.cos(), angles.sin()

        def rotated(y):
            a, b = y[..., ::2], y[..., 1::2]
            found = cc * a * cos + cs * b * sin, sc * a * sin + ss * b * cos
            return torch.stack(found, -1).flatten(-2)

        return tuple(rotated(y) for y in ((x,) if k is None else (x, k)))

    return function


def _base_ignored(x, positions, base=BASE, k=None) -> Outputs:
    return _rotated(rope.rotate)(x, positions, BASE, k)


def _positions_ignored(x, positions, base=BASE, k=None) -> Outputs:
    return _rotated(rope.rotate)(x, torch.arange(x.shape[-2]), base, k)


def rotary() -> Contract:
    """Return the contract of rotary embedding."""
    k = normal(8, (2, 3, 7, 22))[0]
    at = torch.arange
    values = (
        _rotary_case("4 features at positions 0 and 1", (1, 1, 2, 4), at(2)),
        _rotary_case("22 features, positions 0 to 6", (2, 3, 7, 22), at(7), k=k),
    )
    placed = (
        _rotary_case("position 5 alone", (1, 1, 1, 6), torch.tensor([5])),
        _rotary_case("positions 3, 300, 0", (2, 3, 3, 22), torch.tensor([3, 300, 0])),
        _rotary_case("positions 257 to 261", (2, 3, 5, 22), at(257, 262)),
    )
    other = _rotary_case("base 500", (1, 2, 5, 8), at(5), base=500.0)
    far = _rotary_case("position 100,000", (1, 1, 1, 8), torch.tensor([100_000]))
    bugs = [bug.mutant for bug in bug_matrix.ROTARY_BUGS if bug.mutant.module is None]
    return Contract(
        kind="rotary",
        title="Rotary embedding (RoPE)",
        arguments=(
            Argument("x", "batch head n d", "queries or keys", ("q", "query", "xq")),
            Argument("positions", "n", "position of each vector, integers",
                     ("position_ids", "pos", "m"), counted),
            Argument("base", "float", "base of the frequencies", ("theta",), BASE,
                     fill=lambda _: BASE),
            Argument("k", "batch head n d", "keys, rotated like x",
                     ("key", "xk"), ANY, fill=lambda given: given["x"]),
        ),
        returns=(("x", "batch head n d", "the rotated vectors"),
                 ("k", "batch head n d", "the rotated keys, if any were given")),
        ours=tuple(map(_rotated, (rope.rotate, _by_consecutive, _by_halves,
                                  _by_half_layout, _by_matrix))),
        conventions=(
            Convention("axes", (
                Option("(batch, head, n, d)"),
                Option("(batch, n, head, d)", _transposed),
                Option("(batch, n, d)", _folded(3)),
                Option("(n, d)", _folded(2)),
                Option("one vector (d) at one position", _one_vector),
            ), layout=True),
            Convention("layout", (
                Option("interleaved layout"),
                Option("half-split layout", _half_split),
            )),
        ),
        properties=(
            Property("P8", "rotates each pair by its angle", values),
            Property("P8", "takes any positions", placed, needs=("positions",)),
            Property("P8", "uses the base that is given", (other,), needs=("base",)),
            Property("P9", "keeps norms", law=_norms),
            Property("P10", "leaves position 0 as it is", law=_at_zero),
            Property("P10", "rotations add up: R(m) R(n) = R(m+n)", law=_group,
                     needs=("positions",)),
            Property("P11", "scores depend on the distance alone",
                     law=_relative_scores),
            Property("P13", "angles are precise at position 100,000", (far,),
                     needs=("positions",), advice=True),
        ),
        chapter="positions",
        pitfalls="gallery/2_positions/plot_7_how_it_breaks",
        ledger=(
            "positions.rotary",
            "positions.sinusoidal",
            "positions.registry",
        ),
        mutants=tuple(
            Mutant(m.what, m.at, m.old, m.new, rope) for m in bugs
        ),
        mistakes=(
            Mistake("frequencies of the model dimension, not of one head",
                    _wrong_width),
            Mistake("only the queries are rotated", _only_queries),
            Mistake("rotated by the head in place of the position", _by_axis),
            Mistake("exponent i / d", _exponent),
            Mistake("a reflection: the second feature of a pair has the wrong sign",
                    _signed(1, -1, 1, -1)),
            Mistake("no minus before the sine", _signed(1, 1, 1, 1)),
            Mistake("a minus before both sines", _signed(1, -1, -1, 1)),
            Mistake("interleaved pairs use the table of half-split ones",
                    _mixed_tables),
            Mistake("the angle is in float16", _rounded(torch.float16)),
            Mistake("the table is in bfloat16", _rounded(table_dtype=torch.bfloat16)),
            Mistake("the table is in float16", _rounded(table_dtype=torch.float16)),
            Mistake("the argument base is ignored", _base_ignored),
            Mistake("the given positions are ignored", _positions_ignored),
        ),
    )  # fmt: skip


# Sinusoidal encoding


def _sinusoidal(positions, d, base=BASE) -> Outputs:
    return (pe.sinusoidal_encoding(positions, d, base, torch.float64),)


def _as_length(function: Function) -> Function:
    """Wrap a function that takes the number of positions."""

    def wrapped(positions, **rest) -> Outputs:
        n = int(positions.max()) + 1
        (found, *_) = function(positions=n, **rest)
        return (found.squeeze(0)[positions],)

    return wrapped


def _from_halves(order):
    """Return a wrapper that interleaves halves: 0 for the sines first."""

    def convert(found: Outputs, arguments) -> Outputs:
        halves = found[0].chunk(2, -1)
        pairs = torch.stack((halves[order], halves[1 - order]), -1)
        return (pairs.flatten(-2),)

    return returning(convert)


def _unit_norm(f: Function) -> float:
    (found, *_) = f(positions=torch.arange(9), d=10)
    return relative(found.square().sum(-1), torch.full((9,), 5.0).double())


def _offsets(f: Function) -> float:
    (found, *_) = f(positions=torch.arange(12), d=10)
    S = found @ found.T
    return relative(S[1:, 1:], S[:-1, :-1])


def _columns(scale: float):
    """Give column j the exponent ``scale * j / d``."""

    def function(positions, d, base=BASE) -> Outputs:
        columns = torch.arange(d, dtype=torch.float64)
        angles = positions.double()[:, None] * base ** (-scale * columns / d)
        return (torch.where(columns % 2 == 0, angles.sin(), angles.cos()),)

    return function


def _divided(positions, d, base=BASE) -> Outputs:
    angles = positions.double()[:, None] / pe.frequencies(d, base)
    return (torch.stack([angles.sin(), angles.cos()], -1).flatten(-2),)


def _twice(positions, d, base=BASE) -> Outputs:
    """Take the exponent 2 (2i) / d, of an index that was doubled already."""
    omega = base ** (-2 * torch.arange(0, d, 2, dtype=torch.float64) / d)
    angles = positions.double()[:, None] * omega
    return (torch.stack([angles.sin(), angles.cos()], -1).flatten(-2),)


def sinusoidal() -> Contract:
    """Return the contract of the sinusoidal encoding."""

    def case(words: str, positions: Tensor, d: int, base: float = BASE) -> Case:
        return Case(words, {"positions": positions, "d": d, "base": base})

    bugs = [bug.mutant for bug in bug_matrix.SINUSOIDAL_BUGS]
    return Contract(
        kind="sinusoidal",
        title="Sinusoidal positional encoding",
        arguments=(
            Argument("positions", "n", "positions, integers; or their number",
                     ("position", "pos", "n", "max_len", "seq_len", "length",
                      "timesteps")),
            Argument("d", "int", "features, even",
                     ("d_model", "dim", "embedding_dim", "width")),
            Argument("base", "float", "base of the frequencies",
                     ("theta", "max_period"), BASE, fill=lambda _: BASE),
        ),
        returns=(("PE", "n d", "the encoding of each position"),),
        ours=(_sinusoidal,),
        conventions=(
            Convention("argument", (
                Option("takes positions"),
                Option("takes the number of positions", _as_length),
            )),
            Convention("layout", (
                Option("sines and cosines interleaved"),
                Option("sines first, then cosines", _from_halves(0)),
                Option("cosines first, then sines", _from_halves(1)),
            )),
        ),
        properties=(
            Property("P1", "is the sine and cosine of each angle", (
                case("2 positions, 4 features", torch.arange(2), 4),
                case("9 positions, 22 features", torch.arange(9), 22),
                case("300 positions, 6 features", torch.arange(300), 6),
            )),
            Property("P1", "uses the base that is given", (
                case("base 500", torch.arange(5), 8, 500.0),), needs=("base",)),
            Property("P3", "has the norm d / 2 at every position", law=_unit_norm),
            Property("P3", "dot products depend on the offset alone", law=_offsets),
            Property("P13", "angles are precise at position 20,000", (
                case("20,001 positions", torch.arange(0, 20_001, 5000), 8),
            ), advice=True),
        ),
        chapter="positions",
        pitfalls="gallery/2_positions/plot_7_how_it_breaks",
        ledger=("positions.sinusoidal", "positions.rotary"),
        mutants=tuple(Mutant(m.what, m.at, m.old, m.new, pe) for m in bugs),
        mistakes=(
            Mistake("each column has a frequency of its own", _columns(1.0)),
            Mistake("column j has the exponent 2 j / d", _columns(2.0)),
            Mistake("positions are divided by the frequencies", _divided),
            Mistake("the index of a pair is doubled twice", _twice),
            Mistake("the argument base is ignored",
                    lambda positions, d, base=BASE: _sinusoidal(positions, d)),
        ),
    )  # fmt: skip


# ALiBi


def _alibi(n, n_head) -> Outputs:
    positions = torch.arange(n)
    return (alibi_bias(positions, positions, n_head, torch.float64),)


def _future(value: float | None):
    """Compare the past alone: what a causal mask hides does not matter."""

    def convert(found: Outputs, arguments) -> Outputs:
        bias = found[0].reshape(found[0].shape[-3:])
        future = torch.ones(bias.shape[-2:]).triu(1).bool()
        (right,) = _alibi(**arguments)
        fits = value is None or bool((bias[..., future] == value).all())
        return (torch.where(future, right if fits else torch.nan, bias),)

    return returning(convert)


def _positive_future(found: Outputs, arguments) -> Outputs:
    """Undo the sign of m (n - m) above the diagonal."""
    bias = found[0].reshape(found[0].shape[-3:])
    future = torch.ones(bias.shape[-2:]).triu(1).bool()
    return (torch.where(future, -bias, bias),)


def _by_key(found: Outputs, arguments) -> Outputs:
    """Take the difference of two rows: m_h n differs from -m_h (m - n) by a row."""
    bias = found[0].reshape(arguments["n_head"], -1, arguments["n"])
    bias = (
        bias - bias.diagonal(dim1=-2, dim2=-1)[..., None]
        if len(bias[0]) > 1
        else (bias - bias.mT)
    )
    return _positive_future((bias.expand(-1, arguments["n"], -1),), arguments)


def _one_less(n, n_head) -> Outputs:
    """Let the slopes start at 1."""
    slopes = 2 ** (-8 * torch.arange(n_head, dtype=torch.float64) / n_head)
    distance = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    return (-slopes[:, None, None] * distance,)


def _not_scaled(n, n_head) -> Outputs:
    """Use 2^-h whatever the number of heads."""
    slopes = 2 ** -torch.arange(1, n_head + 1, dtype=torch.float64)
    distance = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    return (-slopes[:, None, None] * distance,)


def _toeplitz(f: Function) -> float:
    (bias, *_) = f(n=9, n_head=4)
    return relative(bias[:, 1:, 1:], bias[:, :-1, :-1])


def _halves(f: Function) -> float:
    """The slopes are a geometric sequence that ends at 2^-8."""
    (bias, *_) = f(n=4, n_head=8)
    return largest([relative(-bias[:, 1, 0], alibi_slopes(8))])


def alibi() -> Contract:
    """Return the contract of ALiBi."""

    def case(words: str, n: int, n_head: int) -> Case:
        return Case(words, {"n": n, "n_head": n_head})

    return Contract(
        kind="alibi",
        title="ALiBi: a bias that is linear in the distance",
        arguments=(
            Argument("n", "int", "number of positions",
                     ("seq_len", "length", "max_len")),
            Argument("n_head", "int", "number of heads, a power of 2",
                     ("heads", "num_heads", "n_heads")),
        ),
        returns=(("bias", "head n n", "what is added to the scores"),),
        ours=(_alibi,),
        conventions=(
            Convention("axes", (
                Option("(head, n, n)"),
                Option("(1, head, n, n)",
                       returning(lambda found, _: (found[0].squeeze(0),))),
            ), layout=True),
            Convention("future", (
                Option("symmetric"),
                Option("rising into the future", returning(_positive_future)),
                Option("0 in the future", _future(0.0)),
                Option("minus infinity in the future", _future(-torch.inf)),
                Option("relative to the query, a row of keys", returning(_by_key)),
            )),
        ),
        properties=(
            Property("P14", "is minus the slope times the distance", (
                case("2 positions, 1 head", 2, 1),
                case("5 positions, 8 heads", 5, 8),
                case("7 positions, 16 heads", 7, 16),
            )),
            Property("P14", "slopes are 2^(-8 h / H)", law=_halves),
            Property("P14", "depends on the distance alone", law=_toeplitz),
        ),
        chapter="positions",
        pitfalls="gallery/2_positions/plot_7_how_it_breaks",
        ledger=(
            "positions.alibi",
            "positions.sinusoidal",
            "positions.registry",
        ),
        mistakes=(
            Mistake("slopes start at 1", _one_less),
            Mistake("slopes are 2^-h for any number of heads", _not_scaled),
        ),
    )  # fmt: skip
