r"""Rotary embedding: forms, group, relative scores, decay, and precision.

Half of each dimension is prime, and positions, dimensions and numbers of vectors
are distinct. Formulas are written pair by pair, with the complex numbers of Python.
"""

import cmath
import math
from unittest import mock

import mpmath
import sympy
import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.claims.positions.bug_matrix import attend, decoded, rotated
from dian.positions import rotary, sinusoidal

SU = "Su et al., RoFormer, 2021, arXiv:2104.09864"
N, D = 7, 22


def omegas(d: int = D, base: float = 10_000) -> Tensor:
    """The frequencies, from the formula."""
    return torch.tensor(
        [base ** (-2 * i / d) for i in range(d // 2)], dtype=torch.float64
    )


def complex_pairs(row: list[float]) -> list[complex]:
    """Neighbors as one complex number."""
    return [complex(a, b) for a, b in zip(row[::2], row[1::2], strict=True)]


@claim(
    "P8",
    "Rotary embedding in three forms and two layouts",
    equations=(
        "eq-rotary-complex",
        "eq-rotary-blocks",
        "eq-rotary-halves",
        "eq-rotary-layouts",
    ),
    kinds="I",
    tolerance=1e-12,
    source=f"{SU}, equations 13 to 15 and 34",
    assumptions="d is even",
    subjects=(rotary,),
    mutants=(
        Mutant("the cosine is used twice", "rotate_half_split",
               "rot * sin", "rot * cos"),
        Mutant("the halves are not exchanged", "rotate_half_split",
               "torch.cat([-b, a], dim=-1)", "x"),
        Mutant("halves exchanged without the minus sign", "rotate_half_split",
               "[-b, a]", "[b, a]"),
        Mutant("rotated in the wrong direction", "rotation_factors",
               "angles.sin()", "angles.neg().sin()"),
        Mutant("both sines of the matrix have the same sign", "rotation_matrix",
               "-table.imag", "table.imag"),
        Mutant("the halves are read as neighbors", "_rotate",
               "_rotate_half(wide, cos, sin)",
               "_rotate_interleaved(wide, cos, sin, None)"),
        Mutant("one half rotates in the other direction", "_rotate_half",
               "y[..., n_pair:].addcmul_(x[..., :n_pair], sin)",
               "y[..., n_pair:].addcmul_(x[..., :n_pair], sin, value=-1)"),
        Mutant("the permutation is its inverse", "half_split_order",
               "torch.arange(d).view(-1, 2)", "torch.arange(d).view(2, -1)"),
        Mutant("the offset is missing", "consecutive_rotation_factors",
               "torch.arange(offset, offset + n, k, device=omega.device)",
               "torch.arange(0, n, k, device=omega.device)"),
        Mutant("a wrong number of features is accepted", "_table",
               "x.ndim >= 2 and x.shape[-1] == d", "x.ndim >= 2",
               raises="RuntimeError"),
        Mutant("all sequences have the positions of the first", "_table",
               "positions.view(*axes, *[1] * (x.ndim - 3), n)",
               "positions[:1].view(1, *[1] * (x.ndim - 3), n)"),
        Mutant("no offset if positions are given", "_table",
               "positions.to(x.device).double() + offset",
               "positions.to(x.device).double()"),
        Mutant("no scale if positions are given", "_table",
               "scale * f(angles)", "f(angles)"),
        Mutant("no scale of consecutive positions", "_table",
               "table if scale == 1 else scale * table", "table"),
        Mutant("the layer ignores its layout", "RotaryEmbedding._rotated",
               "self.layout", "'interleaved'"),
        Mutant("keys use the table of fewer queries", "RotaryEmbedding._rotated",
               "table is None or table[0].shape[-2] != x.shape[-2]", "table is None",
               raises="RuntimeError"),
        Mutant("the result is not written to out", "_rotate",
               "out.copy_(rotated)", "rotated"),
        Mutant("compiled code rotates in the wrong direction", "_rotate_interleaved",
               "[a * cos - b * sin, a * sin + b * cos]",
               "[a * cos + b * sin, b * cos - a * sin]"),
        Mutant("features are copied in another order", "_rotate_interleaved",
               "x.clone(memory_format=torch.contiguous_format)",
               "x.flip(-2).clone(memory_format=torch.contiguous_format)"),
    ),
)  # fmt: skip
def forms() -> float:
    """Each form and layout agrees with the product of complex numbers, pair by pair."""
    (x,), omega, order = normal(0, (N, D)), omegas(), rotary.half_split_order(D)
    residuals = []
    for offset in (0, 257):
        slow = torch.empty(N, D, dtype=torch.float64)
        for m, row in enumerate(x.tolist()):
            for i, z in enumerate(complex_pairs(row)):
                z *= cmath.exp(1j * (m + offset) * omega[i].item())
                slow[m, 2 * i], slow[m, 2 * i + 1] = z.real, z.imag
        R = rotary.rotation_matrix(torch.arange(offset, offset + N), omega)
        residuals += [
            relative(rotary.rotate(x, omega, offset=offset), slow),
            relative((R @ x[..., None])[..., 0], slow),
            relative(
                rotary.rotate(x[:, order], omega, offset=offset, layout="half"),
                slow[:, order],
            ),
            relative(
                rotary.rotate_half_split(x[:, order], omega, offset=offset),
                slow[:, order],
            ),
        ]
    mixed = rotary.rotate_half_split(x, omega) - rotary.rotate(x, omega)
    refused = []
    for width in (D - 2, D - 1):
        try:
            rotary.rotate(x[:, :width], omega)
        except ValueError:
            refused.append(width)
    residuals.append(holds(mixed.abs().max() > 0.1 and len(refused) == 2))
    return largest([*residuals, *routes(), *layers()])


def by_complex(x: Tensor, positions: Tensor, omega: Tensor) -> Tensor:
    """Rotate one pair at a time; the positions have all leading axes of ``x``."""
    rotated = []
    rows, places = x.reshape(-1, D).tolist(), positions.flatten().tolist()
    for row, m in zip(rows, places, strict=True):
        for z, w in zip(complex_pairs(row), omega.tolist(), strict=True):
            z *= cmath.exp(1j * m * w)
            rotated += [z.real, z.imag]
    return torch.tensor(rotated, dtype=torch.float64).view(x.shape)


def routes() -> list[float]:
    """Compare the code paths for memory layouts, positions, dtypes and a compiler."""
    batch, head = 2, 3
    (wide,), omega = normal(1, (batch, N, head * D + 1)), omegas()
    of_batch = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, -5, 3, 5, 8, 0, 7]])
    every = torch.arange(head)[None, :, None] + 0.5 * of_batch[:, None]
    residuals = []
    for begin in (0, 1):  # from 1 on, the features cannot be read as complex numbers
        x = wide[..., begin : begin + head * D].unflatten(-1, (head, D)).transpose(1, 2)
        for positions in (torch.arange(N) - 4, of_batch, every):
            whole = (
                positions.view(*positions.shape[:-1], *[1] * (3 - positions.ndim), N)
                if positions.ndim > 1
                else positions
            )
            expected = by_complex(x, (whole + 2).expand(x.shape[:-1]), omega)
            found = rotary.rotate(x, omega, positions, offset=2)
            residuals.append(relative(found, expected))
        expected = by_complex(x, torch.arange(2, N + 2).expand(x.shape[:-1]), omega)
        outputs = [rotary.rotate(x, omega, offset=2)]
        kept = x.clone()
        rotary.rotate(kept, omega, offset=2, out=kept)
        apart = torch.zeros(batch, head, N, D + 1, dtype=torch.float64)[..., begin:]
        apart = apart[..., :D]
        rotary.rotate(x, omega, offset=2, out=apart)
        with mock.patch("torch.compiler.is_compiling", return_value=True):
            outputs.append(rotary.rotate(x, omega, offset=2))
        outputs += [kept, apart]
        residuals += [relative(found, expected) for found in outputs]
        for dtype, unit in ((torch.float32, 2**-23), (torch.bfloat16, 2**-7)):
            small = rotary.rotate(x.to(dtype), omega, offset=2)
            exact = by_complex(
                x.to(dtype).double(), torch.arange(2, N + 2).expand(x.shape[:-1]), omega
            )
            right = relative(small.double(), exact) < 2 * unit
            residuals.append(holds(small.dtype == dtype and right))
    return residuals


def layers() -> list[float]:
    """Compare the layer with its options, for queries and keys of two lengths."""
    head, scale = 3, 1.25
    (q, k), omega = normal(2, (1, head, 4, D), (1, 1, N, D)), omegas()
    order, residuals = rotary.half_split_order(D), []
    ids = torch.tensor([[2, 7, 1, 8]])
    for factor in (1.0, scale):
        options = {"omega": omega, "attention_factor": factor}
        pair = rotary.RotaryEmbedding(D, **options)(q, k, offset=5)
        half = rotary.RotaryEmbedding(D, layout="half", **options)
        halves = half(q[..., order], k[..., order], offset=5)
        before = rotary.RotaryEmbedding(D, seq_dim=1, **options)
        moved = before(q.transpose(1, 2), k.transpose(1, 2), offset=5)
        given = rotary.RotaryEmbedding(D, **options).rotate(q, position_ids=ids)
        at = ids[:, None].expand(q.shape[:-1])
        residuals.append(relative(given, factor * by_complex(q, at, omega)))
        for x, a, b, c in zip((q, k), pair, halves, moved, strict=True):
            places = torch.arange(5, 5 + x.shape[-2]).expand(x.shape[:-1])
            expected = factor * by_complex(x, places, omega)
            residuals += [
                relative(a, expected),
                relative(b, expected[..., order]),
                relative(c, expected.transpose(1, 2)),
            ]
    # By default positions start at 0; a single head needs no leading axes.
    usual, half = (rotary.RotaryEmbedding(D, layout=name) for name in rotary.LAYOUTS)
    for x in (q, q[0, 0]):
        expected = by_complex(x, torch.arange(4).expand(x.shape[:-1]), omega)
        found = [usual.rotate(x), *usual(x, x), rotary.rotate(x, omega)]
        residuals += [relative(each, expected) for each in found]
        halves = x[..., order]
        found = [half.rotate(halves), rotary.rotate_half_split(halves, omega)]
        residuals += [relative(each, expected[..., order]) for each in found]
    return residuals


@claim(
    "P9",
    "Rotations preserve norms",
    equations=("eq-rotary-norm",),
    kinds="E",
    tolerance=1e-12,
    source=f"{SU}, section 3.2.2",
    subjects=(rotary,),
    mutants=(
        Mutant("the cosine is used twice", "rotate_half_split",
               "rot * sin", "rot * cos"),
        Mutant("table in one layout, rotation in the other", "rotate_half_split",
               "torch.cat([cos, cos], -1)", "cos.repeat_interleave(2, -1)"),
        Mutant("sine and cosine of two angles", "rotation_factors",
               "angles.sin()", "(2 * angles).sin()"),
    ),
)  # fmt: skip
def norms() -> float:
    """Norms of vectors and of single pairs do not change, also at large positions."""
    (x,), omega = normal(0, (N, D)), omegas()
    residuals = []
    for offset in (0, 1000, 10**6):
        for form in (rotary.rotate, rotary.rotate_half_split):
            found = form(x, omega, offset=offset)
            residuals.append(relative(found.norm(dim=1), x.norm(dim=1)))
        pairs = rotary.rotate(x, omega, offset=offset).unflatten(1, (-1, 2))
        expected = x.unflatten(1, (-1, 2)).norm(dim=2)
        residuals.append(relative(pairs.norm(dim=2), expected))
    return largest(residuals)


@claim(
    "P10",
    "The rotations of all positions form a group",
    equations=("eq-rotary-group",),
    kinds="E I",
    tolerance=1e-10,
    source=f"{SU}, section 3.2.2",
    subjects=(rotary,),
    mutants=(
        Mutant("positions start at 1", "_angles",
               "positions.double()", "(positions + 1).double()"),
        Mutant("angles in bfloat16", "_angles",
               "omega.to(positions.device, torch.double)",
               "omega.to(positions.device, torch.double).bfloat16().double()"),
        Mutant("both sines of the matrix have the same sign", "rotation_matrix",
               "-table.imag", "table.imag"),
        Mutant("the wrong generator", "group",
               "A[2 * i + 1, 2 * i] = w", "A[2 * i + 1, 2 * i] = -w", module=__name__),
    ),
)  # fmt: skip
def group() -> float:
    """R_m R_n = R_{m+n}, R_0 = I, R_{-m} = R_m^T, and R_m = exp(m B)."""
    omega = omegas()
    A = torch.zeros(D, D, dtype=torch.float64)
    for i, w in enumerate(omega.tolist()):
        A[2 * i + 1, 2 * i] = w
        A[2 * i, 2 * i + 1] = -w

    def R(m: int) -> Tensor:
        return rotary.rotation_matrix(torch.tensor(m), omega)

    eye = torch.eye(D, dtype=torch.float64)
    residuals = [relative(R(0), eye)]
    for m, n in [(3, 5), (-7, 300), (1000, 11)]:
        residuals += [
            relative(R(m) @ R(n), R(m + n)),
            relative(R(-m), R(m).T),
            relative(R(m) @ R(m).T, eye),
            abs(torch.linalg.det(R(m)).item() - 1),
        ]
    residuals += [relative(R(m), torch.matrix_exp(m * A)) for m in (1, -3, 40)]
    return largest(residuals)


@claim(
    "P11",
    "Scores depend on the relative position alone",
    equations=("eq-rotary-relative", "eq-rotary-score"),
    kinds="H E I",
    tolerance=1e-10,
    source=f"{SU}, equation 16",
    assumptions="queries and keys are rotated in one layout, values are not rotated",
    subjects=(rotary,),
    mutants=(
        Mutant("rotated in the wrong direction", "rotation_factors",
               "angles.sin()", "angles.neg().sin()"),
        Mutant("angles in bfloat16", "_angles",
               "omega.to(positions.device, torch.double)",
               "omega.to(positions.device, torch.double).bfloat16().double()"),
        Mutant("halves exchanged without the minus sign", "rotate_half_split",
               "[-b, a]", "[b, a]"),
        Mutant("the offset is missing", "consecutive_rotation_factors",
               "torch.arange(offset, offset + n, k, device=omega.device)",
               "torch.arange(0, n, k, device=omega.device)"),
        Mutant("n - m for m - n", "relative_scores",
               "distance = m - n", "distance = n - m", module=__name__),
    ),
)  # fmt: skip
def relative_scores() -> float:
    """Scores equal the closed form, do not depend on a shift, and allow a cache."""
    q, k, v = normal(0, (N, D), (N, D), (N, D))
    omega, residuals = omegas(), []
    slow = torch.empty(N, N, dtype=torch.float64)
    for m, row in enumerate(q.tolist()):
        for n, column in enumerate(k.tolist()):
            pairs = zip(complex_pairs(row), complex_pairs(column), strict=True)
            distance = m - n
            slow[m, n] = sum(
                (a * b.conjugate() * cmath.exp(1j * distance * w)).real
                for (a, b), w in zip(pairs, omega.tolist(), strict=True)
            )
    for shift in (0, 1, 257, 1000):
        Q, K = (rotary.rotate(x, omega, offset=shift) for x in (q, k))
        residuals.append(relative(Q @ K.T, slow))
        R = rotary.rotation_matrix(torch.tensor(3 - 5), omega)
        residuals.append(relative(Q[5] @ K[3], q[5] @ R @ k[3]))
        residuals.append(relative((Q * K).sum(1), (q * k).sum(1)))  # m = n
    q, k, v = (x[:, :10] for x in (q, k, v))
    whole = attend(*rotated(q, k, v))
    residuals.append(relative(attend(*rotated(q, k, v, start=1000)), whole))
    residuals.append(relative(decoded(q, k, v), whole))
    return largest(residuals)


@claim(
    "P12",
    "Long-term decay is the decay of a bound",
    equations=("eq-decay-abel", "eq-decay-bound"),
    kinds="E H",
    tolerance=1e-10,
    source=f"{SU}, section 3.4.3, equations 35 to 37",
    subjects=(rotary,),
    mutants=(
        Mutant("the first sum is left out", "decay_bound",
               "table.cumsum(-1)", "table.cumsum(-1)[..., 1:]"),
        Mutant("rotations are not summed", "decay_bound", "table.cumsum(-1)", "table"),
        Mutant("the real part instead of the magnitude", "decay_bound",
               "table.cumsum(-1).abs()", "table.cumsum(-1).real"),
        Mutant("the last step of h is left out", "decay",
               "[*h, 0]", "[*h, h[-1]]", module=__name__),
        Mutant("the mean step instead of the largest", "decay",
               "max(steps)", "sum(steps) / len(steps)", module=__name__),
        Mutant("half of the pairs decay", "decay",
               "max(steps) * len(h)", "max(steps) * len(h) / 2", module=__name__),
    ),
)  # fmt: skip
def decay() -> float:
    """Identity and bound hold for 2000 random draws; the bound is not monotonic."""
    generator = torch.Generator().manual_seed(0)
    residuals, d = [], 16
    w = omegas(d).tolist()
    distances = torch.randint(5000, (2000,), generator=generator)
    draws = torch.randn(2000, 2, d // 2, 2, generator=generator, dtype=torch.float64)
    draws = torch.view_as_complex(draws).tolist()
    # two in which little is lost: all steps alike, and all in one
    distances[:2], n = 0, d // 2
    draws[:2] = [([n - i for i in range(n)], n * [1]), (n * [1], n * [1])]
    bounds = rotary.decay_bound(distances, omegas(d)).tolist()
    for distance, B, (q, k) in zip(distances.tolist(), bounds, draws, strict=True):
        h = [a * b.conjugate() for a, b in zip(q, k, strict=True)]
        turned = [cmath.exp(1j * distance * x) for x in w]
        score = sum(a * b for a, b in zip(h, turned, strict=True))
        S = [sum(turned[:i]) for i in range(1, len(h) + 1)]
        after = [*h, 0]
        changes = [after[i + 1] - after[i] for i in range(len(h))]
        by_parts = -sum(s * c for s, c in zip(S, changes, strict=True))
        steps = [abs(c) for c in changes]
        residuals.append(abs(score - by_parts) / max(1, abs(score)))
        residuals.append(holds(abs(score) <= max(steps) * len(h) * B * (1 + 1e-12)))
    # d = 128: values, the first rise, and a query and a key on the slowest pair
    omega = omegas(128)
    B = rotary.decay_bound(torch.arange(5001), omega)
    published = {0: "32.5", 10: "18", 100: "10.2", 1000: "4.47", 5000: "7.6"}
    told = all(f"{B[x]:.3g}" == text for x, text in published.items())
    rises = (B.diff() > 0).nonzero().flatten()
    residuals.append(holds(told and rises[:1].tolist() == [18]))
    slowest = torch.zeros(2, 128, dtype=torch.float64)
    slowest[:, -2] = 1
    q, k = rotary.rotate(slowest, omega, torch.tensor([1000, 0]))
    residuals.append(abs((q @ k).item() - math.cos(1000 * omega[-1].item())))
    residuals.append(holds((q @ k).item() > 0.993))
    return largest(residuals)


@claim(
    "P13",
    "Precision of the angles",
    equations=("eq-angle-error",),
    kinds="E I",
    tolerance=0.0,
    source="Higham, Accuracy and stability of numerical algorithms, 2002, section 2.2",
    assumptions="the base is 10000, and a power in float32 is within one unit in the "
    "last place. The residual is by how much a bound is exceeded",
    subjects=(rotary, sinusoidal),
    mutants=(
        Mutant("angles in float32", "_angles",
               "positions.double()[..., None] * omega.to(positions.device, "
               "torch.double)",
               "(positions.float()[..., None] * omega.float()).double()"),
        Mutant("positions in bfloat16", "_angles",
               "positions.double()", "positions.bfloat16()"),
        Mutant("frequencies in float32", "frequencies",
               "torch.float64", "torch.float32", module=sinusoidal),
        Mutant("products of rotations in single precision",
               "consecutive_rotation_factors",
               "rotation_factors(each, omega, torch.complex128)",
               "rotation_factors(each, omega)"),
        Mutant("one rounding instead of three", "single_precision",
               "3 * u * p", "u * p", module=__name__),
        Mutant("a bound that is far from all errors", "single_precision",
               "3 * u * p", "9 * u * p", module=__name__),
        Mutant("the exponent is not rounded", "single_precision",
               "(3 + y) * u * p * omega", "3 * u * p * omega", module=__name__),
        Mutant("the power, the quotient and the exponent each rounded once",
               "single_precision",
               "(3 + y) * u * p * omega", "(1 + y / 2) * u * p * omega",
               module=__name__),
        Mutant("bfloat16 separates integers up to 1024", "precision",
               "256 if dtype == torch.bfloat16 else 2048",
               "1024 if dtype == torch.bfloat16 else 2048", module=__name__),
    ),
)  # fmt: skip
def precision() -> float:
    """The errors of float32 angles and of our tables do not exceed their bounds."""
    d, residuals = 128, []
    places = torch.tensor([1, 100, 257, 4096, 131_072, 1_000_000])
    with mpmath.workdps(40):
        powers = [mpmath.power(10_000, mpmath.mpf(-2 * i) / d) for i in range(d // 2)]
        angles = [[p * w for w in powers] for p in places.tolist()]
        exact = [
            torch.tensor(
                [[float(f(a)) for a in r] for r in angles], dtype=torch.float64
            )
            for f in (mpmath.cos, mpmath.sin)
        ]
    table = rotary.rotation_factors(places, sinusoidal.frequencies(d), torch.complex64)
    for part, right in zip((table.real, table.imag), exact, strict=True):
        error = (part.double() - right).abs().max()
        residuals.append((error - 2**-25 * 1.01).clamp(min=0))  # half a unit below 1
        rounded = (part.bfloat16().double() - right).abs().max()
        residuals.append((rounded - 2**-9 * 1.01).clamp(min=0))
    residuals += [from_offsets(), single_precision()]
    for dtype in (torch.bfloat16, torch.float16):
        last = 256 if dtype == torch.bfloat16 else 2048
        whole = torch.arange(last + 2).to(dtype)
        residuals.append(holds(bool((whole[: last + 1].diff() > 0).all())))
        residuals.append(holds(bool(whole[last + 1] == whole[last])))
    too_far = torch.tensor(131_072.0).half()
    residuals.append(holds(bool(too_far.isinf() and too_far.cos().isnan())))
    return largest(residuals)


def from_offsets() -> float:
    """Compare tables of consecutive positions, as layers use them, far from 0."""
    (offset, n), d, residuals = (999_983, 29), 10, []
    table = rotary.consecutive_rotation_factors(n, sinusoidal.frequencies(d), offset)
    with mpmath.workdps(40):
        for m, row in enumerate(table.tolist()):
            for i, found in enumerate(row):
                angle = (offset + m) * mpmath.power(10_000, mpmath.mpf(-2 * i) / d)
                exact = mpmath.cos(angle), mpmath.sin(angle)
                apart = max(abs(found.real - exact[0]), abs(found.imag - exact[1]))
                residuals.append(max(0.0, float(apart) - 2**-25 * 1.01))
    return largest(residuals)


def single_precision() -> float:
    """Angles in float32 are below both bounds, and exceed half of each."""
    u, residuals, reached = 2.0**-24, [], []
    generator = torch.Generator().manual_seed(0)
    far = torch.randint(3000, 2**20, (1000,), generator=generator)
    p = torch.cat([torch.arange(1, 1000), far])[:, None].double()
    for d in (2, 6, 34, 64, 128, 510, 1022):
        y = torch.arange(0, d, 2).double() / d * math.log(10_000)
        omega = torch.exp(-y)
        usual = p.float() / 10_000 ** (torch.arange(0, d, 2) / d)
        error = (usual.double() - p * omega).abs()
        for bound in ((3 + y) * u * p * omega, (3 * u * p).expand_as(error)):
            reached.append((error / bound).max())
            residuals.append((error - bound).max().clamp(min=0))
    each = torch.stack(reached).view(-1, 2).amax(0)
    return largest([*residuals, holds(bool((each > 0.5).all()))])


@claim(
    "P16",
    "Rotations solve the functional equation of relative scores",
    equations=("eq-rotary-orthogonal", "eq-rotary-solution"),
    kinds="S E",
    tolerance=1e-10,
    source=f"{SU}, section 3.4.1; the proof by inner products is our own",
    assumptions="one map encodes queries and keys, position 0 changes nothing, and "
    "positions 0 and 2 are encoded differently",
    subjects=(rotary,),
    mutants=(
        Mutant("sine and cosine of two angles", "rotation_factors",
               "angles.sin()", "(2 * angles).sin()"),
        Mutant("angles grow with the square of the position", "_angles",
               "positions.double()[..., None]", "positions.double()[..., None] ** 2"),
        Mutant("features shrink with the position", "rotation_factors",
               "torch.complex(angles.cos(), angles.sin())",
               "torch.complex(angles.cos(), angles.sin()) * "
               "0.99 ** positions[..., None]"),
        Mutant("positions start at 1", "consecutive_rotation_factors",
               "torch.arange(offset, offset + n, k, device=omega.device)",
               "torch.arange(offset + 1, offset + n + 1, k, device=omega.device)"),
        Mutant("a reflection before each rotation", "_rotate_interleaved",
               "torch.mul(z, torch.complex(cos, sin), out=target)",
               "torch.mul(z.conj(), torch.complex(cos, sin), out=target)"),
        Mutant("the magnitude of the features enters", "_rotate_interleaved",
               "torch.mul(z, torch.complex(cos, sin), out=target)",
               "torch.mul(z * z.abs(), torch.complex(cos, sin), out=target)"),
        Mutant("all pairs have the same frequency", "_angles",
               "omega.to(positions.device, torch.double)",
               "omega[:1].to(positions.device, torch.double).expand(len(omega))"),
        Mutant("positions without a sign", "_angles",
               "positions.double()", "positions.abs().double()"),
    ),
)  # fmt: skip
def functional_equation() -> float:
    """The steps of the proof hold symbolically, and the library is such a solution."""
    omega, eye = omegas(), torch.eye(D, dtype=torch.float64)
    (x,) = normal(3, (N, D))

    def A(m: int) -> Tensor:
        """Return the matrix of the library, from the images of the unit vectors."""
        return rotary.rotate(eye[:, None], omega, offset=m)[:, 0].T

    residuals = [steps_of_the_proof(), relative(A(0), eye)]
    for m, n in ((1, 1), (5, 2), (3, 257), (-4, 1000)):
        moved = rotary.rotate(x[:, None], omega, offset=m)[:, 0]
        residuals += [
            relative(moved, x @ A(m).T),
            relative(A(m).T @ A(m), eye),
            relative(A(m).T @ A(n), A(n - m)),
        ]
    residuals += [relative(A(m), torch.linalg.matrix_power(A(1), m)) for m in (2, 40)]
    # The frequencies are the angles of the eigenvalues, in conjugate pairs.
    angles = torch.linalg.eigvals(A(1)).angle().sort().values
    residuals.append(relative(angles, torch.cat([-omega, omega]).sort().values))
    return largest([*residuals, *without_assumptions()])


def steps_of_the_proof() -> float:
    """The map is linear; it is a rotation, or applying it twice is the identity."""
    r, s, qq, qk, kk = sympy.symbols("r s qq qk kk", real=True)
    coordinates = sympy.Matrix([[r, s], [1, 0], [0, 1]])  # of r q + s k, of q, of k
    products = coordinates * sympy.Matrix([[qq, qk], [qk, kk]]) * coordinates.T
    rest = sympy.Matrix([1, -r, -s])  # f(r q + s k) - r f(q) - s f(k)
    linear = sympy.expand((rest.T * products * rest)[0]) == 0

    a, b, c, e = entries = sympy.symbols("a b c e", real=True)
    A = sympy.Matrix([[a, b], [c, e]])
    orthogonal = list(A.T * A - sympy.eye(2))
    rotations = sympy.groebner([*orthogonal, A.det() - 1], *entries)
    others = sympy.groebner([*orthogonal, A.det() + 1], *entries)
    either = sympy.groebner(orthogonal, *entries)
    twice = list(A**2 - sympy.eye(2))
    return holds(
        linear
        and all(rotations.contains(x) for x in (e - a, b + c, a**2 + c**2 - 1))
        and all(others.contains(x) for x in twice)
        and either.contains(sympy.expand((A.det() - 1) * (A.det() + 1)))
    )


def without_assumptions() -> list[float]:
    """Two maps need not be orthogonal; a reflection encodes 2 like 0."""
    B, q, k, G = normal(4, (D, D), (D,), (D,), (D, D))
    B, omega = B / 20, omegas()

    def scores(of_query, of_key) -> Tensor:
        places = ((2, 1), (5, 4), (9, 8))
        return torch.stack([of_query(m) @ q @ (of_key(n) @ k) for m, n in places])

    def same(x: Tensor) -> float:
        return relative(x, x[:1].expand_as(x))

    queries, keys = (lambda m, X=X: torch.matrix_exp(m * X) for X in (B, -B.T))
    mirror = torch.diag(torch.tensor([1.0, -1.0] * (D // 2)).double())
    power = torch.linalg.matrix_power

    def changed(m: int) -> Tensor:
        return rotary.rotation_matrix(torch.tensor(m), omega) @ G

    return [
        same(scores(queries, keys)),
        holds(relative(queries(1).T @ queries(1), torch.eye(D).double()) > 0.1),
        holds(same(scores(queries, queries)) > 0.1),
        same(scores(lambda m: power(mirror, m), lambda n: power(mirror, n))),
        relative(power(mirror, 2), torch.eye(D).double()),
        same(scores(changed, changed)),  # a change of basis belongs to the projections
    ]
