"""The bugs of positional encodings, and which properties detect which of them.

An attention layer with rotary embedding in its usual form, and the sinusoidal encoding,
are changed by one bug at a time; then every property is tested. The expected result is
listed with each bug.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dian.claims import Mutant
from dian.claims.compare import normal, relative
from dian.claims.verify import installed, load_mutant
from dian.positions import rotary, sinusoidal
from dian.positions.sinusoidal import frequencies

N, D, AWAY = 7, 10, 1000
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Bug:
    """A mutant, and the properties that detect it."""

    mutant: Mutant
    seen: frozenset[str]


def _bug(what: str, at: str, old: str, new: str, seen: str, module=None) -> Bug:
    return Bug(Mutant(what, at, old, new, module), frozenset(seen.split()))


ROTARY_BUGS = (
    _bug("the cosine is used twice", "rotate_half_split",
         "rot * sin", "rot * cos", "norm zero relative group shift same golden"),
    _bug("the halves are not exchanged", "rotate_half_split",
         "torch.cat([-b, a], dim=-1)", "x", "norm relative group shift same golden"),
    _bug("halves exchanged without the minus sign", "rotate_half_split",
         "[-b, a]", "[b, a]", "norm relative group shift same golden"),
    _bug("table in one layout, rotation in the other", "rotate_half_split",
         "torch.cat([cos, cos], -1), torch.cat([sin, sin], -1)",
         "cos.repeat_interleave(2, -1), sin.repeat_interleave(2, -1)",
         "norm relative group shift same golden"),
    _bug("queries in one layout, keys in the other", "rotated",
         "k = rotary.rotate_half_split(k, omega, offset=start)",
         "k = rotary.rotate(k, omega, offset=start)", "relative shift same golden",
         __name__),
    _bug("only the queries are rotated", "rotated",
         "k = rotary.rotate_half_split(k, omega, offset=start)", "pass",
         "relative shift same golden", __name__),
    _bug("the values are rotated as well", "rotated",
         "q, k, v", "q, k, rotary.rotate_half_split(v, omega, offset=start)", "shift",
         __name__),
    _bug("queries and keys rotate in the wrong direction", "rotation_factors",
         "angles.sin()", "angles.neg().sin()", "golden"),
    _bug("frequencies of the model dimension, not of a head", "rotated",
         "omega = frequencies(D)", "omega = frequencies(3 * D)[: D // 2]", "golden",
         __name__),
    _bug("all positions start at 1", "consecutive_rotation_factors",
         "torch.arange(offset, offset + n, k, device=omega.device)",
         "torch.arange(offset + 1, offset + n + 1, k, device=omega.device)",
         "zero group"),
    _bug("the queries start at 1", "rotated",
         "q = rotary.rotate_half_split(q, omega, offset=start)",
         "q = rotary.rotate_half_split(q, omega, offset=start + 1)",
         "zero group same golden", __name__),
    _bug("angles in bfloat16", "_angles",
         "positions.double()[..., None] * omega.to(positions.device, torch.double)",
         "(positions.bfloat16()[..., None] * omega.bfloat16()).double()",
         "relative group shift cache golden"),
    _bug("no offset in decoding", "decoded",
         "rotated(q[m : m + 1], k[m : m + 1], v[m : m + 1], start=m)",
         "rotated(q[m : m + 1], k[m : m + 1], v[m : m + 1], start=0)", "cache",
         __name__),
)  # fmt: skip

SINUSOIDAL_BUGS = (
    _bug("the cosine is used twice", "sinusoidal_encoding",
         "angles.sin()", "angles.cos()", "norm offset shift zero product golden"),
    _bug("exponent i / d", "frequencies",
         "torch.arange(0, d, 2, dtype=torch.float64)",
         "torch.arange(d // 2, dtype=torch.float64)", "shift product golden"),
    _bug("another base", "frequencies",
         "base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)",
         "(base / 10) ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)",
         "shift product golden"),
    _bug("positions start at 1", "sinusoidal_encoding",
         "positions.double()", "(positions + 1).double()", "zero golden"),
    _bug("sine and cosine are exchanged", "sinusoidal_encoding",
         "[angles.sin(), angles.cos()]", "[angles.cos(), angles.sin()]",
         "shift zero golden"),
    _bug("half-split instead of interleaved", "sinusoidal_encoding",
         "torch.stack([angles.sin(), angles.cos()], dim=-1)",
         "torch.stack([angles.sin(), angles.cos()], dim=-2)", "shift zero golden"),
    _bug("each feature has its own frequency", "sinusoidal_encoding",
         "angles.cos()", "(angles * base ** (-1 / d)).cos()",
         "norm offset shift product golden"),
    _bug("angles in bfloat16", "sinusoidal_encoding",
         "angles = positions.double().unsqueeze(-1) * omega",
         "angles = (positions.double().unsqueeze(-1) * omega).bfloat16().double()",
         "offset shift product golden"),
)  # fmt: skip


def rotated(q: Tensor, k: Tensor, v: Tensor, start: int = 0):
    """Return queries, keys and values as an attention layer uses them."""
    omega = frequencies(D)
    q = rotary.rotate_half_split(q, omega, offset=start)
    k = rotary.rotate_half_split(k, omega, offset=start)
    return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal attention of queries over keys and values."""
    n, m = len(q), len(k)
    future = torch.ones(n, m).triu(m - n + 1).bool()
    return (q @ k.T / D**0.5).masked_fill(future, -torch.inf).softmax(-1) @ v


def decoded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the same, position by position, with cached keys and values."""
    keys, values, outputs = [], [], []
    for m in range(N):
        part = rotated(q[m : m + 1], k[m : m + 1], v[m : m + 1], start=m)
        keys.append(part[1])
        values.append(part[2])
        outputs.append(attend(part[0], torch.cat(keys), torch.cat(values)))
    return torch.cat(outputs)


def rotary_properties() -> dict[str, float]:
    """Return the residual of each property of rotary embedding."""
    q, k, v = normal(0, (N, D), (N, D), (N, D))
    (q0, k0, v0), (q1, k1, v1) = (rotated(q, k, v, s) for s in (0, AWAY))
    one = tuple(x[:1] for x in (q, k, v))
    twice = rotated(*rotated(*one, 300), 77)
    once = rotated(*one, 377)
    lengths = torch.stack([q, k]).norm(dim=2)
    scores = torch.empty(N, N, dtype=torch.float64)
    for m in range(N):
        for n in range(N):
            scores[m, n] = _score(q[m].tolist(), k[n].tolist(), m - n)
    return {
        "norm": relative(torch.stack([q1, k1]).norm(dim=2), lengths),
        "zero": relative(torch.cat([q0[0], k0[0]]), torch.cat([q[0], k[0]])),
        "relative": relative(q1 @ k1.T, q0 @ k0.T),
        "group": relative(torch.cat(twice[:2]), torch.cat(once[:2])),
        "shift": relative(attend(q1, k1, v1), attend(q0, k0, v0)),
        "same": relative((q1 * k1).sum(1), (q * k).sum(1)),
        "golden": relative(q0 @ k0.T, scores),
        "cache": relative(decoded(q, k, v), attend(q0, k0, v0)),
    }


def _score(q: list[float], k: list[float], offset: int) -> float:
    """Return the score in closed form, in the half-split layout."""
    total = 0.0
    for i in range(D // 2):
        a, b, c, e = q[i], q[i + D // 2], k[i], k[i + D // 2]
        angle = offset * 10_000 ** (-2 * i / D)
        total += (a * c + b * e) * math.cos(angle) + (a * e - b * c) * math.sin(angle)
    return total


def sinusoidal_properties() -> dict[str, float]:
    """Return the residual of each property of the sinusoidal encoding."""

    def encoding(start: int) -> Tensor:
        where = torch.arange(start, start + N)
        return sinusoidal.sinusoidal_encoding(where, D, dtype=torch.float64)

    here, there = encoding(0), encoding(AWAY)
    omega = [10_000 ** (-2 * i / D) for i in range(D // 2)]
    M = torch.zeros(D, D, dtype=torch.float64)
    product = torch.zeros(N, N, dtype=torch.float64)
    golden = torch.empty(N, D, dtype=torch.float64)
    for i, w in enumerate(omega):
        cos, sin = math.cos(AWAY * w), math.sin(AWAY * w)
        pair = slice(2 * i, 2 * i + 2)
        block = [[cos, sin], [-sin, cos]]
        M[pair, pair] = torch.tensor(block, dtype=torch.float64)
        for p in range(N):
            golden[p, 2 * i], golden[p, 2 * i + 1] = math.sin(p * w), math.cos(p * w)
            for q in range(N):
                product[p, q] += math.cos((p - q) * w)
    return {
        "norm": relative(there.square().sum(1), torch.full((N,), D / 2).double()),
        "offset": relative(there @ there.T, here @ here.T),
        "shift": relative(there, here @ M.T),
        "zero": relative(here[0], torch.tensor([0.0, 1.0] * (D // 2)).double()),
        "product": relative(here @ here.T, product),
        "golden": relative(here, golden),
    }


def seen(residuals: dict[str, float]) -> frozenset[str]:
    """Return the names of the properties that do not hold, or whose residual is NaN."""
    return frozenset(name for name, r in residuals.items() if not r <= TOLERANCE)


def matrix(bugs: tuple[Bug, ...]) -> dict[str, frozenset[str]]:
    """Run each mutant, and return which properties detect it.

    Parameters
    ----------
    bugs
        Those of the rotation, or those of the sinusoidal encoding.
    """
    found = {}
    for bug in bugs:
        if bug in SINUSOIDAL_BUGS:
            name, properties = sinusoidal.__name__, sinusoidal_properties
        else:
            name, properties = bug.mutant.module or rotary.__name__, rotary_properties
        with installed(load_mutant(name, bug.mutant)):
            found[bug.mutant.what] = seen(properties())
    return found
