"""The encoder layer: forward pass, and the whole backward pass by hand."""

from unittest.mock import patch

import torch
from torch import Tensor, nn

from dian.attention import (
    dot_product,
    encoder_layer,
    layer_norm,
    multi_head,
    transformer,
)
from dian.attention.encoder_layer import EncoderLayerWeights
from dian.attention.multi_head import Projections
from dian.attention.transformer import EncoderLayer
from dian.claims import Mutant, claim
from dian.claims.compare import largest, normal, worst
from dian.positions.registry import encoding
from dian.positions.rotary import RotaryEmbedding

BATCH, N, HEADS, D_HEAD, HIDDEN = 3, 5, 2, 4, 7
D = HEADS * D_HEAD
OPTIONS = ("none", "causal", "padded", "rotary", "causal rotary", "causal alibi")
"""The positions and masks of the recorded runs, and padding."""


def layer_with(options: str, seed: int = 0) -> EncoderLayer:
    """Return the layer of the recorded runs, with random values in all parameters."""
    rotate = encoding("rotary", D, HEADS) if "rotary" in options else {}
    attention = {"attention_fn": dot_product.attention}
    layer = EncoderLayer(D, HEADS, HIDDEN, **attention, **rotate).double()
    shapes = [tuple(p.shape) for p in layer.parameters()]
    with torch.no_grad():
        for parameter, value in zip(
            layer.parameters(), normal(seed, *shapes), strict=True
        ):
            parameter.copy_(0.5 * value)
    return layer


def masked(options: str) -> tuple[Tensor | None, Tensor | None]:
    """Return mask and bias, written out: ALiBi has a slope of 2^(-8h/H) for head h."""
    i = torch.arange(N)
    mask = bias = None
    if "causal" in options:
        mask = i[None] <= i[:, None]
    if "padded" in options:
        mask = (i < torch.tensor([N, N - 2, 1])[:, None])[:, None, None]
    if "alibi" in options:
        slopes = torch.tensor([1 / 16, 1 / 256]).double()
        bias = -slopes[:, None, None] * (i[:, None] - i[None]).abs()
    return mask, bias


def gradients_of(layer: EncoderLayer) -> list[Tensor]:
    """Return what autograd left at each parameter, in the order of the weights."""
    attention, inner, outer = layer.attention, layer.inner, layer.outer
    for parameter in layer.parameters():
        if parameter.grad is None:  # a mutant does not use it
            parameter.grad = torch.zeros_like(parameter)
    return [
        *(getattr(attention, name).grad for name in Projections._fields),
        *(layer.norm_1.weight.grad, layer.norm_1.bias.grad),
        *(layer.norm_2.weight.grad, layer.norm_2.bias.grad),
        *(inner.weight.grad.T, inner.bias.grad),
        *(outer.weight.grad.T, outer.bias.grad),
    ]


def flat(weights: EncoderLayerWeights) -> list[Tensor]:
    """Return all parameters, or their gradients, in one list."""
    return [*weights.attention, *weights[1:]]


def normalized(X: Tensor, layer: nn.LayerNorm) -> Tensor:
    """Layer normalization, by its formula."""
    mean, variance = X.mean(-1, keepdim=True), X.var(-1, correction=0, keepdim=True)
    return layer.weight * (X - mean) / (variance + 1e-5).sqrt() + layer.bias


def by_formula(layer: EncoderLayer, X: Tensor, mask, bias, rotary: bool) -> Tensor:
    """Compute the layer head by head and position by position, from its parameters."""
    a, U = layer.attention, normalized(X, layer.norm_1)
    attended = a.b_O.expand_as(X)
    for h in range(HEADS):
        own = slice(h * D_HEAD, (h + 1) * D_HEAD)
        Q, K, V = (U @ W[:, own] + b[own] for W, b in
                   ((a.W_Q, a.b_Q), (a.W_K, a.b_K), (a.W_V, a.b_V)))  # fmt: skip
        if rotary:
            Q, K = (torch.einsum("nij,bnj->bni", rotations(), x) for x in (Q, K))
        S = torch.einsum("bid,bjd->bij", Q, K) / D_HEAD**0.5
        if bias is not None:
            S = S + bias[h]
        if mask is not None:
            S = S.masked_fill(~(mask if mask.ndim == 2 else mask[:, 0]), -torch.inf)
        attended = attended + S.softmax(-1) @ V @ a.W_O[own]
    Y = X + attended
    A = normalized(Y, layer.norm_2) @ layer.inner.weight.T + layer.inner.bias
    return Y + (A * (A > 0)) @ layer.outer.weight.T + layer.outer.bias


def rotations() -> Tensor:
    """Return the matrix of each position: its pairs turn by m and by m / 100."""
    R = torch.zeros(N, D_HEAD, D_HEAD).double()
    for m in range(N):
        for pair, omega in enumerate((1.0, 0.01)):
            angle = torch.tensor(m * omega, dtype=torch.float64)
            i, j, cos, sin = 2 * pair, 2 * pair + 1, angle.cos(), angle.sin()
            R[m, i, i], R[m, j, j], R[m, j, i], R[m, i, j] = cos, cos, sin, -sin
    return R


def of_torch(layer: EncoderLayer) -> nn.TransformerEncoderLayer:
    """Return torch's pre-norm layer with the same parameters."""
    peer = nn.TransformerEncoderLayer(
        D, HEADS, HIDDEN, dropout=0.0, batch_first=True, norm_first=True
    ).double()
    a = layer.attention
    own = {
        "self_attn.in_proj_weight": torch.cat([a.W_Q, a.W_K, a.W_V], 1).T,
        "self_attn.in_proj_bias": torch.cat([a.b_Q, a.b_K, a.b_V]),
        "self_attn.out_proj.weight": a.W_O.T,
        "self_attn.out_proj.bias": a.b_O,
    }
    names = {"norm_1": "norm1", "norm_2": "norm2", "inner": "linear1"}
    for ours, theirs in (names | {"outer": "linear2"}).items():
        for part in ("weight", "bias"):
            own[f"{theirs}.{part}"] = getattr(getattr(layer, ours), part)
    peer.load_state_dict(own)
    return peer


def gradients_of_torch(peer: nn.TransformerEncoderLayer) -> list[Tensor]:
    """Return its gradients in the order and orientation of the weights."""
    attention = peer.self_attn
    W, b = attention.in_proj_weight.grad.T, attention.in_proj_bias.grad
    return [
        *W.chunk(3, 1), attention.out_proj.weight.grad.T,
        *b.chunk(3), attention.out_proj.bias.grad,
        *(peer.norm1.weight.grad, peer.norm1.bias.grad),
        *(peer.norm2.weight.grad, peer.norm2.bias.grad),
        *(peer.linear1.weight.grad.T, peer.linear1.bias.grad),
        *(peer.linear2.weight.grad.T, peer.linear2.bias.grad),
    ]  # fmt: skip


@claim(
    "A17",
    "Encoder layer and its whole backward pass",
    equations=("def-encoder-layer", "eq-encoder-feed-forward-back",
               "eq-encoder-residual-back"),
    kinds="I G",
    tolerance=1e-10,
    source="Xiong et al., On Layer Normalization in the Transformer Architecture, "
    "2020, arXiv:2002.04745; Vaswani et al., 2017, arXiv:1706.03762, section 3.1",
    subjects=(encoder_layer, layer_norm, multi_head, transformer),
    mutants=(
        # The layer that trains
        Mutant("the first residual connection is missing", "EncoderLayer.forward",
               "X + attended", "attended", module=transformer),
        Mutant("the second residual connection is missing",
               "EncoderLayer._feed_forward",
               "Y + self.outer(torch.relu(self.inner(self.norm_2(Y))))",
               "self.outer(torch.relu(self.inner(self.norm_2(Y))))",
               module=transformer),
        Mutant("the second layer normalization is missing",
               "EncoderLayer._feed_forward", "self.inner(self.norm_2(Y))",
               "self.inner(Y)", module=transformer),
        Mutant("the first layer normalization is missing", "EncoderLayer.forward",
               "self.norm_1(X)", "X", module=transformer),
        Mutant("post-norm: normalized after the addition",
               "EncoderLayer._feed_forward",
               "Y + self.outer(torch.relu(self.inner(self.norm_2(Y))))",
               "self.norm_2(Y + self.outer(torch.relu(self.inner(Y))))",
               module=transformer),
        Mutant("both sublayers share one normalization",
               "EncoderLayer._feed_forward", "self.norm_2(Y)", "self.norm_1(Y)",
               module=transformer),
        Mutant("the residual connection adds the normalized input",
               "EncoderLayer._feed_forward",
               "Y + self.outer(torch.relu(self.inner(self.norm_2(Y))))",
               "self.norm_2(Y) + self.outer(torch.relu(self.inner(self.norm_2(Y))))",
               module=transformer),
        Mutant("GELU in place of ReLU", "EncoderLayer._feed_forward",
               "torch.relu(self.inner(self.norm_2(Y)))",
               "torch.nn.functional.gelu(self.inner(self.norm_2(Y)))",
               module=transformer),
        Mutant("the options do not reach the attention", "EncoderLayer.forward",
               "self.attention(self.norm_1(X), need_weights=need_weights, **options)",
               "self.attention(self.norm_1(X), need_weights=need_weights)",
               module=transformer),
        # Forward by hand
        Mutant("the attention gets the input itself", "encoder_layer",
               "layer_norm(X, w.gamma_1, w.beta_1)",
               "(X, layer_norm(X, w.gamma_1, w.beta_1)[1])"),
        Mutant("the first residual connection is missing by hand", "encoder_layer",
               "X + attended", "attended"),
        # Backward by hand
        Mutant("the gradient passes the second sublayer alone",
               "encoder_layer_backward", "Z_bar + norm_2.X", "norm_2.X"),
        Mutant("the gradient passes the first sublayer alone",
               "encoder_layer_backward", "Y_bar + norm_1.X", "norm_1.X"),
        Mutant("the gradient by-passes both sublayers", "encoder_layer_backward",
               "Y_bar + norm_1.X", "Y_bar"),
        Mutant("the attention gets the gradient of the output",
               "encoder_layer_backward",
               "multi_head_backward(Y_bar, inner.U_1, inner.U_1, w.attention, "
               "inner.attention, rotate_back=rotate_back)",
               "multi_head_backward(Z_bar, inner.U_1, inner.U_1, w.attention, "
               "inner.attention, rotate_back=rotate_back)"),
        Mutant("the gradient through keys and values is missing",
               "encoder_layer_backward", "attention.X_q + attention.X_kv",
               "attention.X_q"),
        Mutant("the ReLU is missing in the backward pass", "encoder_layer_backward",
               "(Z_bar @ w.W_2.T) * (inner.F > 0)", "Z_bar @ w.W_2.T"),
        Mutant("the ReLU is inverted in the backward pass", "encoder_layer_backward",
               "inner.F > 0", "inner.F <= 0"),
        Mutant("the layer normalizations are exchanged", "encoder_layer_backward",
               "layer_norm_backward(U_1_bar, w.gamma_1, inner.norm_1)",
               "layer_norm_backward(U_1_bar, w.gamma_1, inner.norm_2)"),
        Mutant("the weights get the input before the normalization",
               "encoder_layer_backward", "rows(inner.U_2).T @ rows(A_bar)",
               "rows(inner.norm_2.X_hat).T @ rows(A_bar)"),
        Mutant("the gradients are not rotated back", "multi_head_backward",
               "of_heads[:2] = (rotate_back(x, 0) for x in of_heads[:2])", "pass",
               module=multi_head),
        Mutant("queries and keys exchange their gradients where the runs train",
               "_Attention.backward",
               "zip(gradients, of_chunk[:3], strict=True)",
               "zip(gradients, (of_chunk[1], of_chunk[0], of_chunk[2]), strict=True)",
               module=dot_product),
    ),
)  # fmt: skip
def layers() -> float:
    """Equals torch's layer, formulas, and autograd of the layer that was trained."""
    # Several chunks of scores, as in the recorded runs.
    with patch.object(dot_product, "SCORES_PER_CHUNK", 4 * N * N):
        return largest(compare(options) for options in OPTIONS)


def compare(options: str) -> float:
    """Compare output and gradients of all sides, with some mask and positions."""
    X, Z_bar = normal(1, (BATCH, N, D), (BATCH, N, D))
    layer, rotary = layer_with(options), "rotary" in options
    mask, bias = masked(options)
    sides = []  # output, gradient of the input, gradients of the parameters

    leaf = X.clone().requires_grad_()
    trained = {"mask": mask, "bias": None, "is_causal": False}
    if "causal" in options:
        trained |= {"mask": None, "is_causal": True}
    if "alibi" in options:
        trained["bias"] = encoding("alibi", D, HEADS)["bias"](N, N).double()
    Z = layer(leaf, **trained)
    Z.backward(Z_bar)
    sides.append([Z, leaf.grad, *gradients_of(layer)])

    layer.zero_grad()
    leaf = X.clone().requires_grad_()
    Z = by_formula(layer, leaf, mask, bias, rotary)
    Z.backward(Z_bar)
    sides.append([Z, leaf.grad, *gradients_of(layer)])

    if not rotary:
        peer, leaf = of_torch(layer), X.clone().requires_grad_()
        added = torch.zeros(BATCH, HEADS, N, N).double()
        added = added if bias is None else added + bias
        added = added if mask is None else added.masked_fill(~mask, -torch.inf)
        Z = peer(leaf, src_mask=added.flatten(0, 1))
        Z.backward(Z_bar)
        sides.append([Z, leaf.grad, *gradients_of_torch(peer)])

    rotation = RotaryEmbedding(D_HEAD)
    back = RotaryEmbedding(D_HEAD, omega=-rotation.omega)
    turn = {"rotate": rotation.rotate} if rotary else {}
    turn_back = {"rotate_back": back.rotate} if rotary else {}
    weights = EncoderLayerWeights(
        Projections(*(x.detach() for x in layer.weights.attention)),
        *(x.detach() for x in layer.weights[1:]),
    )
    Z, inner = encoder_layer.encoder_layer(
        X, weights, HEADS, mask=mask, bias=bias, **turn
    )
    found = encoder_layer.encoder_layer_backward(Z_bar, weights, inner, **turn_back)
    by_hand = [Z, found.X, *flat(found.weights)]
    expected = sides.pop(1)
    return largest(worst(side, expected) for side in [by_hand, *sides])
