"""The sinusoidal encoding, and attention without positions."""

import math

import mpmath
import sympy
import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.positions import alibi, rotary, sinusoidal

VASWANI = (
    "Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762, section 3.5"
)
PRESS = "Press, Smith and Lewis, Train short, test long, 2021, arXiv:2108.12409"


def refuses(call, *arguments) -> float:
    """Return 0 if a call raises a ValueError, and infinity otherwise."""
    try:
        call(*arguments)
    except ValueError:
        return 0.0
    return holds(False)


@claim(
    "P1",
    "Sinusoidal encoding",
    equations=("eq-sinusoidal",),
    kinds="I E",
    tolerance=1e-10,
    source=VASWANI,
    assumptions="d is even",
    subjects=(sinusoidal,),
    mutants=(
        Mutant("sine and cosine are exchanged", "sinusoidal_encoding",
               "[angles.sin(), angles.cos()]", "[angles.cos(), angles.sin()]"),
        Mutant("the cosine is used twice", "sinusoidal_encoding",
               "[angles.sin(), angles.cos()]", "[angles.cos(), angles.cos()]"),
        Mutant("half-split instead of interleaved", "sinusoidal_encoding",
               "torch.stack([angles.sin(), angles.cos()], dim=-1)",
               "torch.stack([angles.sin(), angles.cos()], dim=-2)"),
        Mutant("divided by d - 2: the last wavelength is 10000", "frequencies",
               "-torch.arange(0, d, 2, dtype=torch.float64) / d",
               "-torch.arange(0, d, 2, dtype=torch.float64) / (d - 2)"),
        Mutant("positions in the dtype of the result", "sinusoidal_encoding",
               "positions.double()", "positions.bfloat16()"),
        Mutant("an odd dimension is accepted", "check_even",
               "d > 0 and d % 2 == 0", "d > 0"),
    ),
)  # fmt: skip
def entries() -> float:
    """Each entry equals the formula with 30 digits; odd dimensions raise an error."""
    d = 14
    where = torch.tensor([0, 1, 7, 257, 100_000])
    found = sinusoidal.sinusoidal_encoding(where, d, dtype=torch.float64)
    expected = torch.empty_like(found)
    with mpmath.workdps(30):
        for row, p in enumerate(where.tolist()):
            for i in range(d // 2):
                angle = p / mpmath.power(10_000, mpmath.mpf(2 * i) / d)
                expected[row, 2 * i] = float(mpmath.sin(angle))
                expected[row, 2 * i + 1] = float(mpmath.cos(angle))
    start = torch.tensor([0.0, 1.0] * (d // 2), dtype=torch.float64)
    return largest(
        [
            relative(found, expected),
            relative(found[0], start),
            refuses(sinusoidal.sinusoidal_encoding, where, 7),
        ]
    )


def encode(where, d: int) -> Tensor:
    """Return the encoding of these positions in float64."""
    return sinusoidal.sinusoidal_encoding(
        torch.as_tensor(where), d, dtype=torch.float64
    )


@claim(
    "P2",
    "A shift is a rotation",
    equations=("eq-shift-rotation",),
    kinds="S I",
    tolerance=1e-10,
    source=f"{VASWANI}, which says that it is a linear function",
    subjects=(sinusoidal, rotary),
    mutants=(
        Mutant("sine and cosine are exchanged", "sinusoidal_encoding",
               "[angles.sin(), angles.cos()]", "[angles.cos(), angles.sin()]"),
        Mutant("each feature has its own frequency", "sinusoidal_encoding",
               "angles.cos()", "(angles * base ** (-1 / d)).cos()"),
        Mutant("exponent i / d in the encoding alone", "frequencies",
               "torch.arange(0, d, 2, dtype=torch.float64)",
               "torch.arange(d // 2, dtype=torch.float64)"),
        Mutant("both sines of the matrix have the same sign", "rotation_matrix",
               "-table.imag", "table.imag", module=rotary),
        Mutant("rotated in the wrong direction", "shift",
               "rotary.rotation_matrix(torch.tensor(steps), omega).mT",
               "rotary.rotation_matrix(torch.tensor(steps), omega)", module=__name__),
        Mutant("the formula rotates in the wrong direction", "shift",
               "[-s, c]", "[s, c]", module=__name__),
    ),
)  # fmt: skip
def shift() -> float:
    """PE(p + k) = M_k PE(p) holds symbolically and for d = 64; M_k is a rotation."""
    p, k, w = sympy.symbols("p k omega", real=True)
    c, s = sympy.cos(k * w), sympy.sin(k * w)
    moved = sympy.Matrix([[c, s], [-s, c]]) * sympy.Matrix(
        [sympy.sin(p * w), sympy.cos(p * w)]
    )
    exact = sympy.Matrix([sympy.sin((p + k) * w), sympy.cos((p + k) * w)])
    residuals = [holds(sympy.simplify(moved - exact) == sympy.zeros(2, 1))]
    d, where = 64, torch.tensor([0, 3, 50, 997])
    powers = [10_000 ** (-2 * i / d) for i in range(d // 2)]
    omega = torch.tensor(powers, dtype=torch.float64)
    eye = torch.eye(d, dtype=torch.float64)
    for steps in (1, 7, 100, -3):
        M = rotary.rotation_matrix(torch.tensor(steps), omega).mT
        found = encode(where + steps, d)
        residuals.append(relative(found, encode(where, d) @ M.T))
        residuals.append(relative(M.T @ M, eye))
        residuals.append(abs(torch.linalg.det(M).item() - 1))
    return largest(residuals)


def cosines(offset: int, d: int, base: float = 10_000) -> float:
    """Return the sum of the cosines, one by one."""
    return math.fsum(math.cos(offset * base ** (-2 * i / d)) for i in range(d // 2))


@claim(
    "P3",
    "The dot product depends on the offset alone",
    equations=("eq-offset-product", "eq-offset-integral"),
    kinds="E",
    tolerance=1e-10,
    source="the addition theorem of the cosine; Euler and Maclaurin for the integral",
    assumptions="for the integral: an offset well below d",
    subjects=(sinusoidal,),
    mutants=(
        Mutant("the cosine is used twice", "sinusoidal_encoding",
               "[angles.sin(), angles.cos()]", "[angles.cos(), angles.cos()]"),
        Mutant("sines are summed", "offset_product",
               "(offsets.double()[..., None] * omega).cos()",
               "(offsets.double()[..., None] * omega).sin()"),
        Mutant("the mean instead of the sum", "offset_product",
               "(offsets.double()[..., None] * omega).cos().sum(-1)",
               "(offsets.double()[..., None] * omega).cos().mean(-1)"),
        Mutant("each feature has its own frequency", "sinusoidal_encoding",
               "angles.cos()", "(angles * base ** (-1 / d)).cos()"),
        Mutant("the product is subtracted once, not twice", "offset_product",
               "d - 2 * product", "d - product", module=__name__),
        Mutant("the integral without its end-point terms", "offset_product",
               "math.cos(x) - math.cos(x / base)",
               "0 * (math.cos(x) - math.cos(x / base))", module=__name__),
        Mutant("the integral starts at 0", "offset_product",
               "mpmath.ci(x / base)", "0", module=__name__),
    ),
)  # fmt: skip
def offset_product() -> float:
    """Products, distances and bounds agree; the integral is close up to offset d."""
    d = 46
    p, q = torch.tensor([0, 1, 7, 257, 5000]), torch.tensor([3, 900, 7, 250, 0])
    P, Q = encode(p, d), encode(q, d)
    product = (P * Q).sum(-1)
    found = sinusoidal.offset_product(p - q, d)
    slow = torch.tensor([cosines(x, d) for x in (q - p).tolist()], dtype=torch.float64)
    residuals = [
        relative(product, slow),
        relative(found, slow),
        relative((P - Q).square().sum(-1), d - 2 * product),
        relative(P.square().sum(-1), torch.full((5,), d / 2, dtype=torch.float64)),
        holds(bool((found.abs() <= d / 2).all())),
    ]
    base, d = 10_000, 512
    for x, allowed in [(10, 2e-4), (100, 3e-3), (512, 0.1), (5000, 2)]:
        integral = mpmath.ci(x) - mpmath.ci(x / base)
        ends = (math.cos(x) - math.cos(x / base)) / 2
        close = d / (2 * math.log(base)) * integral + ends
        error = abs(float(close) / cosines(x, d) - 1)
        residuals.append(holds(error < allowed))
    residuals.append(holds(error > 1))  # at 5000 not even the sign is right
    return largest(residuals)


@claim(
    "P4",
    "Scores with an added encoding depend on absolute positions",
    equations=("eq-absolute-logits",),
    kinds="E",
    tolerance=1e-10,
    source="Dai et al., Transformer-XL, 2019, arXiv:1901.02860, section 3.3",
    subjects=(sinusoidal,),
    mutants=(
        Mutant("all positions have the same encoding", "sinusoidal_encoding",
               "positions.double().unsqueeze(-1)",
               "0 * positions.double().unsqueeze(-1)"),
        Mutant("the last term alone", "absolute_logits",
               "terms = [x, y, z, w]", "terms = [w]", module=__name__),
        Mutant("the matrices are left out", "absolute_logits",
               "A = W_Q @ W_K.T", "A = eye", module=__name__),
    ),
)  # fmt: skip
def absolute_logits() -> float:
    """A score is the sum of four terms, and even the last depends on the position."""
    d, head = 22, 7
    W_Q, W_K, features = normal(0, (d, head), (d, head), (2, d))
    eye = torch.eye(d, dtype=torch.float64)
    A = W_Q @ W_K.T
    x_p, x_q = features
    residuals, between = [], []
    for p in (3, 203):
        P, Q = encode([p, p + 5], d)
        x, y, z, w = x_p @ A @ x_q, x_p @ A @ Q, P @ A @ x_q, P @ A @ Q
        terms = [x, y, z, w]
        whole = ((x_p + P) @ W_Q) @ ((x_q + Q) @ W_K)
        residuals.append(relative(sum(terms), whole))
        between.append(torch.stack([P @ A @ Q, P @ eye @ Q]))
    residuals.append(relative(between[0][1], between[1][1]))  # without matrices: c
    moved = abs(between[0][0] - between[1][0]).item()
    return largest([*residuals, holds(moved > 1)])


@claim(
    "P5",
    "Wavelengths",
    equations=("eq-wavelengths",),
    kinds="E",
    tolerance=1e-10,
    source=VASWANI,
    subjects=(sinusoidal,),
    mutants=(
        Mutant("exponent i / d", "frequencies",
               "torch.arange(0, d, 2, dtype=torch.float64)",
               "torch.arange(d // 2, dtype=torch.float64)"),
        Mutant("divided by d - 2: the last wavelength is 10000", "frequencies",
               "-torch.arange(0, d, 2, dtype=torch.float64) / d",
               "-torch.arange(0, d, 2, dtype=torch.float64) / (d - 2)"),
        Mutant("the last one is base times 2 pi", "wavelengths",
               "base ** (1 - 2 / d)", "base", module=__name__),
    ),
)  # fmt: skip
def wavelengths() -> float:
    """Wavelengths are geometric; the longest is 7499 times 2 pi for d = 64."""
    residuals, base = [], 10_000
    for d, turns in [(64, 7499), (512, 9647)]:
        length = 2 * math.pi / sinusoidal.frequencies(d)
        ratio = torch.full((d // 2 - 1,), base ** (2 / d), dtype=torch.float64)
        last = 2 * math.pi * base ** (1 - 2 / d)
        residuals += [
            relative(length[1:] / length[:-1], ratio),
            abs(length[0].item() - 2 * math.pi),
            abs(length[-1].item() / last - 1),
            holds(round(length[-1].item() / (2 * math.pi)) == turns),
        ]
    return largest(residuals)


@claim(
    "P6",
    "No two positions have the same encoding",
    equations=("eq-injective",),
    kinds="E",
    tolerance=1e-10,
    source="the first frequency is 1, and pi is irrational",
    assumptions="integer positions. A first frequency of 2 pi divided by an integer "
    "is a counterexample",
    subjects=(sinusoidal,),
    mutants=(
        Mutant("positions in bfloat16", "sinusoidal_encoding",
               "positions.double()", "positions.bfloat16()"),
        Mutant("all pairs have one frequency", "frequencies",
               "-torch.arange(0, d, 2, dtype=torch.float64)",
               "-0 * torch.arange(0, d, 2, dtype=torch.float64)"),
        Mutant("the cosine is used twice", "sinusoidal_encoding",
               "[angles.sin(), angles.cos()]", "[angles.cos(), angles.cos()]"),
        Mutant("the smallest product instead of the largest", "injective",
               "max(cosines(x, d) for x in range(1, n))",
               "min(cosines(x, d) for x in range(1, n))", module=__name__),
    ),
)  # fmt: skip
def injective() -> float:
    """4096 encodings have a positive minimum distance; one pair repeats after 2 pi."""
    d, n = 64, 4096
    P = encode(torch.arange(n), d)
    distances = torch.cdist(P[:64], P, compute_mode="donot_use_mm_for_euclid_dist")
    least = distances.fill_diagonal_(torch.inf).min().item()
    expected = math.sqrt(d - 2 * max(cosines(x, d) for x in range(1, n)))
    collide = encode(torch.arange(9).double() * 2 * math.pi / 8, 2)
    return largest(
        [
            abs(least - expected),
            holds(round(expected, 2) == 1.47),
            relative(collide[8], collide[0]),
        ]
    )


def attend(X: Tensor, Q, K, V, bias=0.0, causal: bool = False) -> Tensor:
    """Return the output of one attention head with a bias of the scores."""
    scores = (X @ Q) @ (X @ K).T / Q.shape[1] ** 0.5 + bias
    if causal:
        future = torch.ones(len(X), len(X)).triu(1).bool()
        scores = scores.masked_fill(future, -torch.inf)
    return scores.softmax(-1) @ (X @ V)


@claim(
    "P7",
    "Attention without positions cannot see the order of tokens",
    equations=("eq-permutation",),
    kinds="H",
    tolerance=1e-10,
    source="Vaswani et al., 2017, arXiv:1706.03762, section 3.5, first sentence",
    assumptions="no mask",
    subjects=(sinusoidal, rotary),
    mutants=(
        Mutant("all positions have the same encoding", "sinusoidal_encoding",
               "positions.double().unsqueeze(-1)",
               "0 * positions.double().unsqueeze(-1)"),
        Mutant("all positions have the same rotation", "_angles",
               "positions.double()[..., None]", "0 * positions.double()[..., None]",
               module=rotary),
        Mutant("the output is not permuted", "permutation",
               "attend(X, *W)[order]", "attend(X, *W)", module=__name__),
        Mutant("the mask is left out", "permutation",
               "attend(X, *W, causal=True)", "attend(X, *W, causal=False)",
               module=__name__),
        Mutant("no penalty for the distance", "alibi_bias",
               "-slopes[:, None, None] * distance",
               "0 * slopes[:, None, None] * distance", module=alibi),
    ),
)  # fmt: skip
def permutation() -> float:
    """Permuted inputs permute the outputs, unless encoded; ALiBi keeps reversals."""
    n, d, head = 5, 22, 6
    X, *W = normal(0, (n, d), (d, head), (d, head), (d, 7))
    W, residuals = [w / d**0.5 for w in W], []  # else a softmax takes one key for all
    PE, omega = encode(torch.arange(n), d), sinusoidal.frequencies(head)
    where = torch.arange(n)
    bias = alibi.alibi_bias(where, where, 8, torch.float64)[2]

    def with_rotation(X):
        q, k = (rotary.rotate(X @ part, omega) for part in W[:2])
        return (q @ k.T / head**0.5).softmax(-1) @ (X @ W[2])

    with_positions = {
        "encoding": lambda X: attend(X + PE, *W),
        "rotation": with_rotation,
        "bias": lambda X: attend(X, *W, bias),
        "mask": lambda X: attend(X, *W, causal=True),
    }
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        order = torch.randperm(n, generator=generator)
        swapped, plain = X[order], attend(X, *W)
        residuals.append(relative(attend(swapped, *W), attend(X, *W)[order]))
        residuals.append(relative(attend(swapped, *W).mean(0), plain.mean(0)))
    for order in ([0, 3, 2, 1, 4], [4, 3, 2, 1, 0]):
        for name, f in with_positions.items():
            apart = (f(X[order]).mean(0) - f(X).mean(0)).abs().max().item()
            mirror = name == "bias" and order[0] == 4  # distances are the same
            residuals.append(apart if mirror else holds(apart > 1e-2))
    return largest(residuals)
