"""The registry: each head gets the frequencies and the slope that belong to it."""

import math

import torch
from torch import Tensor, nn

from dian.attention import multi_head
from dian.attention.transformer import Encoder, RowTransformer, TokenTransformer
from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative, worst
from dian.claims.positions.sinusoidal import PRESS
from dian.positions import alibi, learned, registry, rotary, sinusoidal

BATCH, N, SIDE, N_TOKEN = 2, 11, 13, 7
D_MODEL, N_HEAD, N_LAYER = 64, 4, 2
"""As in the recorded runs."""


@claim(
    "P17",
    "Positional encodings in the heads of a layer",
    equations=("eq-encodings-in-heads",),
    kinds="I G",
    tolerance=1e-10,
    source=f"Su et al., RoFormer, 2021, arXiv:2104.09864, equation 15; {PRESS}",
    assumptions="the number of heads divides the model dimension",
    subjects=(registry, rotary, alibi, sinusoidal, learned),
    mutants=(
        Mutant("frequencies of the whole width, not of one head", "encoding",
               "RotaryEmbedding(d_model // n_head).rotate",
               "RotaryEmbedding(d_model // n_head, omega=RotaryEmbedding(d_model)."
               "omega[:d_model // n_head // 2]).rotate"),
        Mutant("slopes of twice the number of heads", "AlibiBias.forward",
               "alibi_bias(torch.arange(m - n, m), torch.arange(m), self.n_head)",
               "alibi_bias(torch.arange(m - n, m), torch.arange(m), 2 * self.n_head)"
               "[:self.n_head]", module=alibi),
        Mutant("the slope of a single head for all of them", "encoding",
               "AlibiBias(n_head)", "AlibiBias(1)"),
        Mutant("the slopes in reverse order", "alibi_bias",
               "alibi_slopes(n_head)", "alibi_slopes(n_head).flip(0)", module=alibi),
        Mutant("ALiBi by another name", "encoding",
               "name == 'alibi'", "name == 'none'"),
        Mutant("the frequencies of the caller are ignored", "RotaryEmbedding.__init__",
               "frequencies(head_dim, base) if omega is None else omega",
               "frequencies(head_dim, base)", module=rotary),
        Mutant("queries and keys are not scaled", "_table",
               "table if scale == 1 else scale * table", "table", module=rotary),
        Mutant("the layer rotates in the layout of halves", "RotaryEmbedding.__init__",
               "self.attention_factor, self.layout = attention_factor, layout",
               "self.attention_factor, self.layout = attention_factor, 'half'",
               module=rotary),
        Mutant("positions of the sinusoids start at 1", "AddSinusoidal.forward",
               "torch.arange(X.shape[1], device=X.device)",
               "torch.arange(1, X.shape[1] + 1, device=X.device)", module=sinusoidal),
        Mutant("sinusoids along the batch", "AddSinusoidal.forward",
               "X + sinusoidal_encoding(positions, X.shape[2], dtype=X.dtype)",
               "X + sinusoidal_encoding(torch.arange(len(X)), X.shape[2], "
               "dtype=X.dtype)[:, None]", module=sinusoidal),
        Mutant("the learned vector of position 0 everywhere",
               "LearnedPositions.forward",
               "self.P[positions.long()]", "self.P[0 * positions.long()]",
               module=learned),
        Mutant("the input is lost beside the learned vectors", "AddLearned.forward",
               "X + self.positions(torch.arange(X.shape[1], device=X.device))",
               "0 * X + self.positions(torch.arange(X.shape[1], device=X.device))",
               module=learned),
        Mutant("learned vectors start with a variance of 0.02",
               "LearnedPositions.__init__",
               "0.02 * torch.randn(n_position, d, generator=generator)",
               "0.02**0.5 * torch.randn(n_position, d, generator=generator)",
               module=learned),
        Mutant("only the queries are rotated", "MultiHeadAttention._project",
               "rotate(Q, offset), rotate(K, offset)", "rotate(Q, offset), K",
               module=multi_head),
    ),
)  # fmt: skip
def heads_of_a_layer() -> float:
    """The networks of the recorded runs equal a loop over heads, gradients included."""
    shape = {"d_model": D_MODEL, "n_head": N_HEAD, "n_layer": N_LAYER}
    residuals = [other_heads(), scaled(), initial_vectors()]
    for name in registry.ENCODINGS:
        generator = torch.Generator().manual_seed(0)
        options = registry.encoding(
            name, D_MODEL, N_HEAD, n_position=N + 3, generator=generator
        )
        model = TokenTransformer(2 * N_TOKEN, N_TOKEN, causal=True, **shape, **options)
        residuals.append(compare(model, name))
    for name in ("none", "sinusoidal", "rotary"):
        options = registry.encoding(name, D_MODEL, N_HEAD)
        model = RowTransformer(SIDE, N_TOKEN, **shape, **options)
        residuals.append(compare(model, name))
    return largest(residuals)


def other_heads(d_model: int = 48, n_head: int = 8) -> float:
    """Compare other widths and numbers of heads, where these matter."""
    shape = {"d_model": d_model, "n_head": n_head, "n_layer": 1}
    residuals = []
    for name in ("rotary", "alibi"):
        options = registry.encoding(name, d_model, n_head)
        model = TokenTransformer(2 * N_TOKEN, N_TOKEN, causal=True, **shape, **options)
        residuals.append(compare(model, name))
    return largest(residuals)


def initial_vectors() -> float:
    """Learned vectors start as normal numbers with a standard deviation of 0.02."""
    generator = torch.Generator().manual_seed(0)
    encode = registry.encoding("learned", 64, 4, n_position=200, generator=generator)[
        "encode"
    ]
    P = encode.positions.P.detach().double() / 0.02
    errors = [moment.std() / P.numel() ** 0.5 for moment in (P, P**2, P**4)]
    means = [P.mean(), (P**2).mean() - 1, (P**4).mean() - 3]
    return holds(all(abs(m) < 5 * e for m, e in zip(means, errors, strict=True)))


def scaled() -> float:
    """Compare a network whose frequencies and scale are set after the training."""
    omega, factor = 0.3 ** torch.arange(1.0, D_MODEL // N_HEAD // 2 + 1), 1.25
    options = registry.encoding("rotary", D_MODEL, N_HEAD)
    model = TokenTransformer(
        2 * N_TOKEN, N_TOKEN, d_model=D_MODEL, n_head=N_HEAD, causal=True, **options
    )
    for layer in model.encoder.layers:
        own = rotary.RotaryEmbedding(
            2 * len(omega), omega=omega, attention_factor=factor
        )
        layer.attention.rotate = own.rotate
    return compare(model, "rotary", omega.tolist(), factor)


def compare(model: nn.Module, name: str, omega=None, factor: float = 1.0) -> float:
    """Compare a network with random weights and the loop, and their gradients."""
    model = model.double()
    generator = torch.Generator().manual_seed(1)
    for W in model.parameters():
        scale = 1 / math.sqrt(len(W)) if W.ndim == 2 else 0.5
        nn.init.normal_(W, std=scale, generator=generator)
    if isinstance(model, TokenTransformer):
        tokens = torch.randint(2 * N_TOKEN, (BATCH, N), generator=generator)
        output = model(tokens)
        features = by_heads(model.encoder, model.vectors[tokens], name, omega, factor)
        expected = features @ model.leave.weight.T + model.leave.bias
    else:
        (images,) = normal(2, (BATCH, N, SIDE))
        output = model(images)
        X = images @ model.enter.weight.T + model.enter.bias
        features = by_heads(model.encoder, X, name, omega, factor).mean(1)
        expected = features @ model.leave.weight.T + model.leave.bias
    (gradient,) = normal(3, output.shape)
    weights = list(model.parameters())
    pair = [
        torch.autograd.grad(x, weights, gradient, materialize_grads=True)
        for x in (output, expected)
    ]
    return largest([relative(output, expected), worst(*pair)])


def by_heads(encoder: Encoder, X: Tensor, name: str, omega, factor: float) -> Tensor:
    """Return the features of an encoder, head by head, with the positions by hand."""
    D = X.shape[2]
    if name == "sinusoidal":
        PE = [
            [(math.cos if c % 2 else math.sin)(p / 10_000 ** ((c - c % 2) / D))
             for c in range(D)] for p in range(N)
        ]  # fmt: skip
        X = X + torch.tensor(PE, dtype=X.dtype)
    if name == "learned":
        X = X + torch.stack([encoder.encode.positions.P[p] for p in range(N)])
    for layer in encoder.layers:
        X = X + attended(layer, normalized(X, layer.norm_1), name, omega, factor,
                         encoder.causal)  # fmt: skip
        hidden = normalized(X, layer.norm_2) @ layer.inner.weight.T + layer.inner.bias
        X = X + hidden.clamp(min=0) @ layer.outer.weight.T + layer.outer.bias
    return normalized(X, encoder.norm)


def normalized(X: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Normalize each position by its own mean and standard deviation."""
    centered = X - X.mean(-1, keepdim=True)
    deviation = (centered.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return centered / deviation * norm.weight + norm.bias


def attended(layer, X: Tensor, name: str, omega, factor: float, causal: bool) -> Tensor:
    """Sum the heads of a layer; rotations and penalties are those of each head."""
    own, n_head = layer.attention, layer.attention.n_head
    width, Y = X.shape[2] // n_head, own.b_O
    omega = omega or [10_000 ** (-2 * i / width) for i in range(width // 2)]
    for h in range(n_head):
        part = slice(h * width, (h + 1) * width)
        Q = X @ own.W_Q[:, part] + own.b_Q[part]
        K = X @ own.W_K[:, part] + own.b_K[part]
        V = X @ own.W_V[:, part] + own.b_V[part]
        if name == "rotary":
            Q, K = (factor * turned(x, omega) for x in (Q, K))
        S = Q @ K.mT / math.sqrt(width)
        if name == "alibi":
            far = [[abs(m - n) for n in range(N)] for m in range(N)]
            S = S - torch.tensor(far, dtype=X.dtype) / 256 ** ((h + 1) / n_head)
        if causal:
            S = S.masked_fill(torch.ones(N, N).triu(1).bool(), -torch.inf)
        Y = Y + S.softmax(-1) @ V @ own.W_O[part]
    return Y


def turned(x: Tensor, omega: list[float]) -> Tensor:
    """Rotate neighboring features by real sines and cosines, one pair at a time."""
    features = []
    for i, w in enumerate(omega):
        angles = torch.tensor([m * w for m in range(N)], dtype=x.dtype)
        a, b = x[..., 2 * i], x[..., 2 * i + 1]
        features += [a * angles.cos() - b * angles.sin()]
        features += [a * angles.sin() + b * angles.cos()]
    return torch.stack(features, -1)
