"""The transformers of the recorded runs, whole: output, gradients, initialization."""

from unittest.mock import patch

import torch
from torch import Tensor, nn

from dian.attention import dot_product, transformer
from dian.attention.layer_norm import layer_norm, layer_norm_backward
from dian.attention.transformer import Encoder, RowTransformer, TokenTransformer
from dian.claims import Mutant, claim
from dian.claims.attention.encoder_layer import (
    BATCH,
    HEADS,
    D,
    N,
    by_formula,
    masked,
    normalized,
)
from dian.claims.compare import holds, largest, normal, relative, worst
from dian.positions.registry import ENCODINGS, encoding

COLUMNS, CLASSES, TOKENS, LAYERS = 6, 4, 9, 2


def randomized(model: nn.Module) -> nn.Module:
    """Give all parameters random values, also those that start at zero or one."""
    shapes = [tuple(p.shape) for p in model.parameters()]
    with torch.no_grad():
        for p, value in zip(model.parameters(), normal(0, *shapes), strict=True):
            p.copy_(0.5 * value)
    return model.double()


def positions(name: str) -> dict:
    """Return the options of an encoding, as the experiments pass them."""
    return encoding(name, D, HEADS, n_position=N + 1, generator=torch.Generator())


def features(encoder: Encoder, X: Tensor, name: str, causal: bool) -> Tensor:
    """Compute an encoder from its parameters, layer by layer, by the formulas."""
    if name == "sinusoidal":
        pairs = torch.arange(0, D, 2).double()
        angle = torch.arange(N)[:, None] / 10_000 ** (pairs / D)
        X = X + torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
    if name == "learned":
        X = X + encoder.encode.positions.P[:N]
    mask, bias = masked(name + " causal" * causal)
    for layer in encoder.layers:
        X = by_formula(layer, X, mask, bias, name == "rotary")
    return normalized(X, encoder.norm)


def affine(X: Tensor, layer: nn.Linear) -> Tensor:
    """Apply a linear layer, by its formula."""
    return X @ layer.weight.T + layer.bias


@claim(
    "A17b",
    "The transformers that are trained",
    equations=("eq-residual-stream", "eq-residual-jacobian", "eq-pre-post-norm"),
    kinds="I G",
    tolerance=1e-10,
    source="He et al., Identity Mappings in Deep Residual Networks, 2016, "
    "arXiv:1603.05027; Xiong et al., 2020, arXiv:2002.04745",
    subjects=(transformer,),
    mutants=(
        Mutant("the final normalization is missing", "Encoder.forward",
               "self.norm(self._layers(X, mask)[0])", "self._layers(X, mask)[0]"),
        Mutant("the last layer is skipped", "Encoder._layers",
               "for layer in self.layers:\n    found = layer(X, "
               "need_weights=need_weights, **options)\n    X, P = found if "
               "need_weights else (found, None)\n    weights.append(P)",
               "for layer in self.layers[:-1]:\n    found = layer(X, "
               "need_weights=need_weights, **options)\n    X, P = found if "
               "need_weights else (found, None)\n    weights.append(P)"),
        Mutant("positions are added once for each layer", "Encoder._layers",
               "X = self.encode(X)", "X = self.encode(self.encode(X))"),
        Mutant("positions are not added", "Encoder._layers",
               "X = self.encode(X)", "pass"),
        Mutant("the bias is missing", "Encoder._bias",
               "at_least_float32(self.bias(n, m).to(X.device))", "None"),
        Mutant("not causal", "Encoder._layers", "self.causal", "False"),
        Mutant("always causal", "Encoder._layers", "self.causal", "True"),
        Mutant("the last row, not the mean over the rows", "RowTransformer.forward",
               "self.encoder(self.enter(images)).mean(1)",
               "self.encoder(self.enter(images))[:, -1]"),
        Mutant("the sum over the rows", "RowTransformer.forward",
               "self.encoder(self.enter(images)).mean(1)",
               "self.encoder(self.enter(images)).sum(1)"),
        Mutant("the embeddings of the reversed sequence", "TokenTransformer._embed",
               "self.vectors[tokens.long()]", "self.vectors[tokens.long().flip(1)]"),
        Mutant("a residual connection is missing", "EncoderLayer.forward",
               "X + attended", "attended"),
        Mutant("a residual connection of weight one half",
               "EncoderLayer._feed_forward",
               "Y + self.outer(torch.relu(self.inner(self.norm_2(Y))))",
               "Y / 2 + self.outer(torch.relu(self.inner(self.norm_2(Y))))"),
        Mutant("a hidden layer of the model dimension", "Encoder.__init__",
               "d_hidden or 4 * d_model", "d_hidden or d_model"),
        Mutant("the kernel of torch instead of our backward pass", "Encoder.__init__",
               "options['attention_fn'] = attention_fn", "pass"),
        Mutant("the weights of the layers in the reverse order", "Encoder._layers",
               "weights.append(P)", "weights.insert(0, P)"),
        Mutant("post-norm does not scale the identity", "orders",
               "J_post.T @ Y_bar + J_f.T @ J_post.T @ Y_bar",
               "Y_bar + J_f.T @ J_post.T @ Y_bar", module=__name__),
        Mutant("the Jacobians of a sublayer in the wrong order", "orders",
               "J_pre.T @ J_f.T @ Y_bar", "J_f.T @ J_pre.T @ Y_bar",
               module=__name__),
    ),
)  # fmt: skip
def networks() -> float:
    """Outputs and all gradients equal those of the formulas; residual stream."""
    # Several chunks of scores, as in the recorded runs.
    with patch.object(dot_product, "SCORES_PER_CHUNK", 4 * N * N):
        residuals = [of_rows(name) for name in ("none", "sinusoidal", "rotary")]
        residuals += [of_tokens(name) for name in ENCODINGS]
        return largest([*residuals, stream(), orders(), holds(default_sizes())])


def of_rows(name: str) -> float:
    """Compare the classifier of images."""
    shape = {"d_model": D, "n_head": HEADS, "n_layer": LAYERS}
    model = randomized(RowTransformer(COLUMNS, CLASSES, **shape, **positions(name)))
    images, Y_bar = normal(1, (BATCH, N, COLUMNS), (BATCH, CLASSES))

    def plain() -> Tensor:
        Z = features(model.encoder, affine(images, model.enter), name, False)
        return affine(Z.sum(1) / N, model.leave)

    wide = model.encoder.layers[0].inner.out_features == 4 * D
    own = dot_product.attention_backward
    with patch.object(dot_product, "attention_backward", wraps=own) as backward:
        residuals = [compare(model, model(images), plain, Y_bar)]
    residuals.append(holds(wide and backward.call_count >= LAYERS))
    if name != "sinusoidal":
        residuals.append(relative(from_weights(model, images), plain()))
    return largest(residuals)


def from_weights(model: RowTransformer, images: Tensor) -> Tensor:
    """Compute the classifier of images from the attention weights that it returns."""
    X, weights = affine(images, model.enter), model.attention_weights(images)
    for layer, P in zip(model.encoder.layers, weights, strict=False):
        a = layer.attention
        V = normalized(X, layer.norm_1) @ a.W_V + a.b_V
        parts = [P[:, h] @ V_h for h, V_h in enumerate(V.chunk(HEADS, -1))]
        X = X + torch.cat(parts, -1) @ a.W_O + a.b_O
        A = affine(normalized(X, layer.norm_2), layer.inner)
        X = X + affine(A * (A > 0), layer.outer)
    return affine(normalized(X, model.encoder.norm).sum(1) / N, model.leave)


def default_sizes() -> bool:
    """Whether the classifiers have two layers of 64 features and four heads."""
    of_layers = 2 * (12 * 64**2 + 13 * 64) + 2 * 64  # and the final normalization
    of_rows = (28 + 1) * 64 + (64 + 1) * 10
    of_tokens = TOKENS * 64 + (64 + 1) * CLASSES
    return all(
        sum(p.numel() for p in model.parameters()) == of_layers + others
        and {layer.attention.n_head for layer in model.encoder.layers} == {4}
        for model, others in (
            (RowTransformer(), of_rows),
            (TokenTransformer(TOKENS, CLASSES), of_tokens),
        )
    )


def of_tokens(name: str) -> float:
    """Compare the causal network of the extrapolation."""
    shape = {"d_model": D, "n_head": HEADS, "n_layer": LAYERS}
    model = randomized(
        TokenTransformer(TOKENS, CLASSES, causal=True, **shape, **positions(name))
    )
    tokens = torch.randint(
        TOKENS, (BATCH, N), generator=torch.Generator().manual_seed(1)
    )
    (Y_bar,) = normal(2, (BATCH, N, CLASSES))

    def plain() -> Tensor:
        one_hot = nn.functional.one_hot(tokens, TOKENS).double()
        Z = features(model.encoder, one_hot @ model.vectors, name, True)
        return affine(Z, model.leave)

    return compare(model, model(tokens), plain, Y_bar)


def compare(model: nn.Module, found: Tensor, plain, Y_bar: Tensor) -> float:
    """Compare an output, and the gradients of all parameters, with the formulas."""
    expected, own = plain(), list(model.parameters())
    gradients = (
        torch.autograd.grad(
            output, own, Y_bar, allow_unused=True, materialize_grads=True
        )
        for output in (found, expected)
    )
    return largest([relative(found, expected), worst(*gradients)])


def stream() -> float:
    """The stream is a sum of sublayers, and its Jacobian a product of I + J."""
    options = {"d_hidden": 7, "causal": True, **positions("rotary")}
    encoder, added = randomized(Encoder(D, HEADS, LAYERS, **options)), []
    (X,) = normal(3, (1, N, D))

    def jacobian(function, X: Tensor) -> Tensor:
        return torch.autograd.functional.jacobian(function, X).reshape(N * D, N * D)

    total = torch.eye(N * D).double()
    Z, kept = X, {"is_causal": True}
    for layer in encoder.layers:
        steps = (
            lambda X, layer=layer: layer.attention(layer.norm_1(X), **kept),
            lambda X, layer=layer: layer.outer(layer.inner(layer.norm_2(X)).relu()),
        )
        for step in steps:
            total = (torch.eye(N * D) + jacobian(step, Z)) @ total
            added.append(step(Z).detach())
            Z = Z + added[-1]
    whole = jacobian(lambda X: encoder._layers(X, None)[0], X)
    output = normalized(X + sum(added), encoder.norm)
    return largest([relative(whole, total), relative(encoder(X), output)])


def orders() -> float:
    """Compare both orders of a linear sublayer and a normalization with autograd."""
    x, W, Y_bar = normal(4, (D,), (D, D), (D,))
    J_f = W.T  # of the linear sublayer x W, acting on columns

    def jacobian_of_norm(x: Tensor) -> Tensor:
        one, zero = torch.ones(D).double(), torch.zeros(D).double()
        _, inner = layer_norm(x, one, zero)
        rows = torch.eye(D).double()
        return torch.stack([layer_norm_backward(row, one, inner).X for row in rows])

    J_pre, J_post = jacobian_of_norm(x), jacobian_of_norm(x + x @ W)
    # Of f(LN(x)) the sublayer is linear, so its Jacobian does not depend on LN(x).
    found = [
        Y_bar + J_pre.T @ J_f.T @ Y_bar,
        J_post.T @ Y_bar + J_f.T @ J_post.T @ Y_bar,
    ]
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    norm = nn.LayerNorm(D).double()
    outputs = leaves[0] + norm(leaves[0]) @ W, norm(leaves[1] + leaves[1] @ W)
    expected = [
        torch.autograd.grad(output, leaf, Y_bar)[0]
        for output, leaf in zip(outputs, leaves, strict=True)
    ]
    return worst(found, expected)


@claim(
    "A17c",
    "Initial weights of the transformers",
    equations=("eq-xavier",),
    kinds="M E",
    tolerance=5.0,
    source="Glorot and Bengio, Understanding the difficulty of training deep "
    "feedforward neural networks, 2010, eq. 16",
    assumptions="the residual counts standard errors of the mean square",
    subjects=(transformer,),
    mutants=(
        Mutant("normal weights", "linear",
               "xavier_(layer.weight, generator=generator)",
               "nn.init.xavier_normal_(layer.weight, generator=generator)"),
        Mutant("twice as large", "linear",
               "xavier_(layer.weight, generator=generator)",
               "xavier_(layer.weight, gain=2, generator=generator)"),
        Mutant("He-uniform weights", "linear",
               "xavier_(layer.weight, generator=generator)",
               "nn.init.kaiming_uniform_(layer.weight, generator=generator)"),
        Mutant("random biases", "linear",
               "nn.init.zeros_(layer.bias)", "nn.init.uniform_(layer.bias)"),
        Mutant("small embeddings", "TokenTransformer.__init__",
               "torch.randn(vocab_size, d_model, generator=generator)",
               "0.02 * torch.randn(vocab_size, d_model, generator=generator)"),
        Mutant("the generator is not used", "linear",
               "xavier_(layer.weight, generator=generator)",
               "xavier_(layer.weight)"),
    ),
)  # fmt: skip
def initial_weights() -> float:
    """Variance 2 / (in + out) of a uniform law; embeddings of variance 1; no biases."""
    model, again = (
        TokenTransformer(
            500, 3, d_model=20, n_head=2, generator=torch.Generator().manual_seed(0)
        )
        for _ in range(2)
    )
    laws = [(model.vectors, 1.0, 3.0)]
    for layer in model.encoder.layers:
        for part, n_in, n_out in ((layer.inner, 20, 80), (layer.outer, 80, 20)):
            laws.append((part.weight, 2 / (n_in + n_out), 9 / 5))
    biases = [p for key, p in model.named_parameters() if key.endswith("r.bias")]
    residuals = [holds(len(biases) == 4 and not any(b.any() for b in biases))]
    for weight, variance, kurtosis in laws:
        W = weight.detach().double()
        standard_error = variance * ((kurtosis - 1) / W.numel()) ** 0.5
        residuals.append(abs(W.square().mean() - variance) / standard_error)
        fourth = W.pow(4).mean() / W.square().mean() ** 2
        residuals.append(holds(bool(abs(fourth / kurtosis - 1) < 0.1)))
    pairs = zip(model.parameters(), again.parameters(), strict=True)
    residuals.append(holds(all(torch.equal(a, b) for a, b in pairs)))
    return largest(residuals)
