"""Multi-head attention: forward and backward pass, structure, and decoding."""

import math
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dian.attention import dot_product, multi_head
from dian.claims import Mutant, claim
from dian.claims.attention.dot_product import pattern
from dian.claims.compare import holds, largest, normal, relative, worst
from dian.positions import rotary

BATCH, N, M, HEADS, D_HEAD = 2, 5, 7, 3, 4
D = HEADS * D_HEAD
VASWANI = (
    "Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762, section 3.2.2"
)


def projections(multi_head, seed: int = 0, n_kv_head: int = HEADS):
    """Four matrices and four biases, none of them zero."""
    kv = n_kv_head * D_HEAD
    shapes = [(D, D), (D, kv), (D, kv), (D, D), (D,), (kv,), (kv,), (D,)]
    return multi_head.Projections(*normal(seed, *shapes))


def inputs(seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return target and source sequence, and a gradient of the output."""
    X_q, X_kv, Y_bar = normal(seed, (BATCH, N, D), (BATCH, M, D), (BATCH, N, D))
    return X_q, X_kv, Y_bar


def padding() -> Tensor:
    """Mask the last keys, a different number in each sequence."""
    lengths = torch.tensor([M - 3, M])
    return (torch.arange(M) < lengths[:, None])[:, None, None]


def one_by_one(
    X_q, X_kv, weights, n_head, n_kv_head=None, mask=None, bias=None, Z=None
) -> Tensor:
    """Sum over the heads, each with its slices of the projections: no reshaping.

    ``Z`` are the factors of dropout.
    """
    group, Y = n_head // (n_kv_head or n_head), weights.b_O
    for h in range(n_head):
        own = slice(h * D_HEAD, (h + 1) * D_HEAD)
        g = h // group
        shared = slice(g * D_HEAD, (g + 1) * D_HEAD)
        Q = X_q @ weights.W_Q[:, own] + weights.b_Q[own]
        K = X_kv @ weights.W_K[:, shared] + weights.b_K[shared]
        V = X_kv @ weights.W_V[:, shared] + weights.b_V[shared]
        S = torch.einsum("bid,bjd->bij", Q, K) / D_HEAD**0.5
        if bias is not None:
            S = S + bias[h]
        if mask is not None:
            S = S.masked_fill(~mask[:, 0], -torch.inf)
        P = S.softmax(-1)
        P = P if Z is None else P * Z[:, h]
        Y = Y + P @ V @ weights.W_O[own]
    return Y


def rotate(x: Tensor, offset: int) -> Tensor:
    """Rotate queries or keys of ``D_HEAD`` features."""
    omega = torch.tensor([1.0, 0.1]).double()
    return rotary.rotate(x, omega, offset=offset)


def of_torch(weights) -> nn.MultiheadAttention:
    """Return the layer of torch with these weights."""
    peer = nn.MultiheadAttention(D, HEADS, batch_first=True).double()
    state = {
        "in_proj_weight": torch.cat([weights.W_Q.T, weights.W_K.T, weights.W_V.T]),
        "in_proj_bias": torch.cat([weights.b_Q, weights.b_K, weights.b_V]),
        "out_proj.weight": weights.W_O.T,
        "out_proj.bias": weights.b_O,
    }
    peer.load_state_dict(state)
    return peer


@claim(
    "A6",
    "Multi-head attention and its backward pass",
    equations=("eq-multi-head", "eq-head-sum", "eq-multi-head-back", "eq-inputs-back"),
    kinds="I G",
    tolerance=1e-10,
    source=VASWANI,
    subjects=(multi_head,),
    mutants=(
        Mutant("heads are split by a reshape without a transpose", "split_heads",
               "X.unflatten(-1, (n_head, -1)).transpose(1, 2)",
               "X.reshape(len(X), n_head, X.shape[1], -1)"),
        Mutant("heads are merged by a reshape without a transpose", "merge_heads",
               "X.transpose(1, 2).flatten(-2)", "X.reshape(len(X), X.shape[2], -1)"),
        Mutant("all heads use the projections of the first", "split_heads",
               "X.unflatten(-1, (n_head, -1)).transpose(1, 2)",
               "X.unflatten(-1, (n_head, -1)).transpose(1, 2)[:, :1].expand(-1, "
               "n_head, -1, -1)"),
        Mutant("the values are projected like the keys", "multi_head_attention",
               "V = split_heads(X_kv @ weights.W_V + weights.b_V, n_kv_head)",
               "V = split_heads(X_kv @ weights.W_K + weights.b_V, n_kv_head)"),
        Mutant("the output bias is missing", "multi_head_attention",
               "C @ weights.W_O + weights.b_O", "C @ weights.W_O"),
        Mutant("the output matrix is not transposed in the backward pass",
               "multi_head_backward",
               "Y_bar @ weights.W_O.T", "Y_bar @ weights.W_O"),
        Mutant("the gradient through the values is missing", "multi_head_backward",
               "K_bar @ weights.W_K.T + V_bar @ weights.W_V.T",
               "K_bar @ weights.W_K.T"),
        Mutant("the gradient of a bias is averaged", "multi_head_backward",
               "rows(Q_bar).sum(0)", "rows(Q_bar).mean(0)"),
        Mutant("the gradient of a shared head is averaged", "multi_head_backward",
               "x.unflatten(1, (n_kv_head, -1)).sum(2)",
               "x.unflatten(1, (n_kv_head, -1)).mean(2)"),
        Mutant("shared heads are tiled, not repeated", "repeat_kv",
               "X.repeat_interleave(n_head // X.shape[1], 1)",
               "X.repeat(1, n_head // X.shape[1], 1, 1)"),
        Mutant("dropout in evaluation", "MultiHeadAttention._attend",
               "self.training and self.dropout > 0", "self.dropout > 0"),
        Mutant("no dropout in training", "MultiHeadAttention._attend",
               "self.training and self.dropout > 0", "False"),
        Mutant("the layer ignores the bias", "MultiHeadAttention._attend",
               "{'mask': mask, 'bias': bias}", "{'mask': mask, 'bias': None}"),
        Mutant("a causal layer ignores the padding", "MultiHeadAttention._attend",
               "past if mask is None else mask & past", "past"),
        Mutant("the layer is never causal", "MultiHeadAttention._attend",
               "is_causal", "False"),
        Mutant("the layer takes its values from the keys",
               "MultiHeadAttention._project",
               "_affine(source, self.W_V, self.b_V)",
               "_affine(source, self.W_K, self.b_V)"),
        Mutant("the layer reads its own sequence alone", "MultiHeadAttention.forward",
               "X if memory is None else memory", "X", raises="ValueError"),
        Mutant("the layer adds no biases", "_affine",
               "torch.addmm(b, X.flatten(0, -2), W)", "(X.flatten(0, -2) @ W)"),
        Mutant("the matrices of torch are not transposed",
               "MultiHeadAttention.from_torch",
               "(x.T for x in (*W.chunk(3), layer.out_proj.weight))",
               "(x for x in (*W.chunk(3), layer.out_proj.weight))"),
        Mutant("normal initial weights of a larger variance",
               "MultiHeadAttention.__init__",
               "xavier_(W, generator=generator)",
               "nn.init.normal_(W, std=2 * len(W) ** -0.5, generator=generator)"),
        Mutant("initial weights scaled by the inputs alone",
               "MultiHeadAttention.__init__",
               "xavier_(W, generator=generator)",
               "nn.init.uniform_(W, -(3 / len(W)) ** 0.5, (3 / len(W)) ** 0.5, "
               "generator=generator)"),
    ),
)  # fmt: skip
def heads() -> float:
    """Equals the layer of torch and a sum over heads, with all gradients."""
    X_q, X_kv, Y_bar = inputs()
    weights, mask = projections(multi_head), padding()
    found, inner = multi_head.multi_head_attention(X_q, X_kv, weights, HEADS, mask=mask)
    back = multi_head.multi_head_backward(Y_bar, X_q, X_kv, weights, inner)
    peer = of_torch(weights)
    leaves = [x.clone().requires_grad_() for x in (X_q, X_kv)]
    theirs, P = peer(
        leaves[0], leaves[1], leaves[1], key_padding_mask=~mask[:, 0, 0],
        average_attn_weights=False,
    )  # fmt: skip
    theirs.backward(Y_bar)
    W_Q, W_K, W_V = peer.in_proj_weight.grad.T.chunk(3, 1)
    out, b = peer.out_proj, peer.in_proj_bias.grad.chunk(3)
    residuals = [
        relative(found, theirs.detach()),
        relative(inner.P, P.detach()),
        relative(found, one_by_one(X_q, X_kv, weights, HEADS, mask=mask)),
        worst([back.X_q, back.X_kv], [x.grad for x in leaves]),
        worst(back.weights, [W_Q, W_K, W_V, out.weight.grad.T, *b, out.bias.grad]),
        shared_heads(),
    ]
    # The module: with and without weights, and no dropout in evaluation mode.
    layer = multi_head.MultiHeadAttention.from_torch(peer).eval()
    layer.dropout = 0.5
    pairs = [(layer(X_q, X_kv, mask=mask), theirs) for _ in range(2)]
    for _ in range(2):
        output, seen = layer(X_q, X_kv, mask=mask, need_weights=True)
        pairs += [(output, theirs), (seen, P)]
    residuals += [relative(a, b) for a, b in pairs]
    return largest([*residuals, in_training(weights), initial_weights()])


def in_training(weights) -> float:
    """Compare the layer as it is trained, with all its options, and its gradients.

    Self- and cross-attention, causal with padding and a bias, by our own backward pass
    in several chunks and by the kernels of torch, with and without dropout.
    """
    _, X, _ = inputs()
    (bias, memory, Y_bar) = normal(6, (HEADS, M, M), (BATCH, M, D), (BATCH, M, D))
    past = padding() & torch.ones(M, M, dtype=torch.bool).tril()
    Z, residuals = pattern((BATCH, HEADS, M, M), 0.25), []
    for attention_fn in (dot_product.attention, dot_product.fused_attention):
        layer = multi_head.MultiHeadAttention(D, HEADS, attention_fn=attention_fn)
        layer = layer.double()
        layer.load_state_dict(weights._asdict())
        for source, rate in ((None, 0.0), (memory, 0.0), (None, 0.25)):
            layer.dropout, layer.generator = rate, torch.Generator().manual_seed(0)
            options = {"mask": padding(), "bias": bias, "is_causal": True}
            found = layer(X, source, **options)
            own = multi_head.Projections(*layer.projections)
            expected = one_by_one(
                X, X if source is None else source, own, HEADS, mask=past, bias=bias,
                Z=Z if rate else None,
            )  # fmt: skip
            leaves = list(layer.projections)
            with mock.patch.object(dot_product, "SCORES_PER_CHUNK", 4 * M * M):
                pair = [
                    torch.autograd.grad(x, leaves, Y_bar, materialize_grads=True)
                    for x in (found, expected)
                ]
            residuals += [relative(found, expected), worst(*pair)]
    return largest(residuals)


def initial_weights() -> float:
    """Xavier-uniform: the bound and the variance of each matrix; zero biases."""
    generator = torch.Generator().manual_seed(0)
    width, n_head, n_kv_head = 60, 6, 2
    layer = multi_head.MultiHeadAttention(
        width, n_head, n_kv_head=n_kv_head, generator=generator
    )
    statements = []
    for name, W in layer.projections._asdict().items():
        if name[0] == "b":
            statements.append(not W.any())
            continue
        n_out = width * n_kv_head // n_head if name in ("W_K", "W_V") else width
        bound = math.sqrt(6 / (width + n_out))
        squares = W.double().square()
        error = squares.std() / W.numel() ** 0.5
        statements += [
            W.shape == (width, n_out),
            0.98 * bound < W.abs().max() <= bound * (1 + 1e-6),
            abs(squares.mean() - bound**2 / 3) < 5 * error,
            abs(W.mean()) < 5 * bound / math.sqrt(3 * W.numel()),
        ]
    return holds(all(map(bool, statements)))


def shared_heads() -> float:
    """Compare self-attention with four heads of queries for two of keys by autograd."""
    n_head, n_kv_head = 4, 2
    width, kv = n_head * D_HEAD, n_kv_head * D_HEAD
    X, Y_bar = normal(2, (BATCH, N, width), (BATCH, N, width))
    shapes = [(width, width), (width, kv), (width, kv), (width, width)]
    shapes += [(width,), (kv,), (kv,), (width,)]
    weights = multi_head.Projections(*normal(3, *shapes))
    leaves = [x.clone().requires_grad_() for x in (X, *weights)]
    own = multi_head.Projections(*leaves[1:])
    expected = one_by_one(leaves[0], leaves[0], own, n_head, n_kv_head)
    expected.backward(Y_bar)
    found, inner = multi_head.multi_head_attention(X, X, weights, n_head, n_kv_head)
    back = multi_head.multi_head_backward(Y_bar, X, X, weights, inner)
    gradients = [back.X_q + back.X_kv, *back.weights]
    return largest(
        [relative(found, expected), worst(gradients, [x.grad for x in leaves])]
    )


@claim(
    "A7",
    "What heads can and cannot do",
    equations=("eq-head-rank", "eq-idle-biases", "eq-head-freedom"),
    kinds="E G",
    tolerance=1e-10,
    source=VASWANI,
    assumptions="the key bias has no effect only without rotary embedding; the value "
    "bias only shifts the output if no query is fully masked and no weight is dropped",
    subjects=(multi_head,),
    mutants=(
        Mutant("each head uses all features of the values", "structure",
               "own = weights.W_V[:, head] @ weights.W_O[head]",
               "own = weights.W_V @ weights.W_O", module=__name__),
        Mutant("the key bias depends on the position", "multi_head_attention",
               "X_kv @ weights.W_K + weights.b_K",
               "X_kv @ weights.W_K + torch.arange(1.0, X_kv.shape[1] + 1)[:, None] * "
               "weights.b_K"),
        Mutant("the values are squared", "multi_head_attention",
               "V = split_heads(X_kv @ weights.W_V + weights.b_V, n_kv_head)",
               "V = split_heads((X_kv @ weights.W_V + weights.b_V) ** 2, n_kv_head)"),
        Mutant("the keys with the inverse, not its transpose", "structure",
               "A.inverse().T", "A.inverse()", module=__name__),
        Mutant("the output matrix keeps its order", "structure",
               "weights.W_O[order]", "weights.W_O", module=__name__),
        Mutant("the values with a matrix, the outputs without its inverse",
               "structure",
               "A_all.inverse() @ weights.W_O", "weights.W_O", module=__name__),
        Mutant("the gradient of the key bias through a single position",
               "multi_head_backward",
               "rows(K_bar).sum(0)", "rows(K_bar)[0]"),
        Mutant("dropout leaves the sums of the weights alone",
               "MultiHeadAttention._attend",
               "Z = dropout_mask(like, self.dropout, self.generator)",
               "Z = torch.ones_like(like)"),
    ),
)  # fmt: skip
def structure() -> float:
    """Ranks; biases without effect; invariance to permuted and transformed heads."""
    X_q, X_kv, Y_bar = inputs()
    weights = projections(multi_head)
    Y, inner = multi_head.multi_head_attention(X_q, X_kv, weights, HEADS)
    back = multi_head.multi_head_backward(Y_bar, X_q, X_kv, weights, inner)
    residuals, parts = [], weights.b_O + weights.b_V @ weights.W_O
    for h in range(HEADS):
        head = slice(h * D_HEAD, (h + 1) * D_HEAD)
        own = weights.W_V[:, head] @ weights.W_O[head]
        scores = weights.W_Q[:, head] @ weights.W_K[:, head].T
        ranks = [torch.linalg.matrix_rank(x).item() for x in (own, scores)]
        residuals.append(holds(ranks == [D_HEAD, D_HEAD]))
        parts = parts + inner.P[:, h] @ X_kv @ own
    residuals.append(relative(parts, Y))

    # The key bias shifts all scores of a query; the value bias shifts every output.
    residuals.append(relative(back.weights.b_K, torch.zeros(D).double()))
    residuals.append(
        relative(back.weights.b_V, weights.W_O @ back.weights.b_O),
    )
    for name, shift in (("b_K", 0), ("b_V", weights.b_V @ weights.W_O)):
        moved = weights._replace(**{name: 2 * getattr(weights, name)})
        other, _ = multi_head.multi_head_attention(X_q, X_kv, moved, HEADS)
        residuals.append(relative(other, Y + shift))
    residuals.append(holds(rotated_gradient(weights, X_q, Y_bar) > 1e-3))
    residuals += with_dropout(weights, X_q, Y_bar)

    order = torch.tensor([2, 0, 1])[:, None] * D_HEAD + torch.arange(D_HEAD)
    order = order.flatten()
    A = normal(5, (D_HEAD, D_HEAD))[0]
    A_all = torch.block_diag(*[A] * HEADS)
    B_all = torch.block_diag(*[A.inverse().T] * HEADS)
    columns = {name: getattr(weights, name)[..., order] for name in weights._fields
               if name[-1] in "QKV"}  # fmt: skip
    another = weights._replace(**columns, W_O=weights.W_O[order])
    changed = weights._replace(
        W_Q=weights.W_Q @ A_all, b_Q=weights.b_Q @ A_all,
        W_K=weights.W_K @ B_all, b_K=weights.b_K @ B_all,
    )  # fmt: skip
    remixed = weights._replace(
        W_V=weights.W_V @ A_all, b_V=weights.b_V @ A_all,
        W_O=A_all.inverse() @ weights.W_O,
    )  # fmt: skip
    for same in (another, changed, remixed):
        other, _ = multi_head.multi_head_attention(X_q, X_kv, same, HEADS)
        residuals.append(relative(other, Y))
    return largest(residuals)


def with_dropout(weights, X: Tensor, Y_bar: Tensor) -> list[float]:
    """Of the two biases, dropout spares the key bias: rows no longer sum to one."""
    outputs = []
    for factor in (1, 2):
        layer = multi_head.MultiHeadAttention(D, HEADS, dropout=0.5).double()
        layer.load_state_dict(weights._replace(b_V=factor * weights.b_V)._asdict())
        layer.generator = torch.Generator().manual_seed(0)
        outputs.append(layer(X))
    (gradient,) = torch.autograd.grad(outputs[1], layer.b_K, Y_bar)
    apart = (outputs[1] - outputs[0] - weights.b_V @ weights.W_O).abs().max()
    return [relative(gradient, torch.zeros_like(gradient)), holds(bool(apart > 0.1))]


def rotated_gradient(weights, X: Tensor, Y_bar: Tensor) -> float:
    """Return the largest gradient of the key bias with rotary embedding."""
    layer = multi_head.MultiHeadAttention(D, HEADS, rotate=rotate).double()
    layer.load_state_dict(weights._asdict())
    layer(X).backward(Y_bar)
    return layer.b_K.grad.abs().max().item()


@claim(
    "A11",
    "Permutation equivariance",
    equations=("eq-equivariance",),
    kinds="H",
    tolerance=1e-10,
    source="Lee et al., Set Transformer, 2019, arXiv:1810.00825, property 1",
    assumptions="no positions, and no causal mask",
    subjects=(multi_head,),
    mutants=(
        Mutant("heads are split by a reshape without a transpose", "split_heads",
               "X.unflatten(-1, (n_head, -1)).transpose(1, 2)",
               "X.reshape(len(X), n_head, X.shape[1], -1)"),
        Mutant("heads are merged by a reshape without a transpose", "merge_heads",
               "X.transpose(1, 2).flatten(-2)", "X.reshape(len(X), X.shape[2], -1)"),
        Mutant("the mask is not permuted", "equivariance",
               "mask[..., pi]", "mask", module=__name__),
    ),
)  # fmt: skip
def equivariance() -> float:
    """Permuted inputs give permuted outputs, but not under a causal mask."""
    X, X_kv, _ = inputs()
    weights, mask = projections(multi_head), padding()
    generator = torch.Generator().manual_seed(0)
    residuals = []

    def attend(X_q, X_kv, mask=None):
        return multi_head.multi_head_attention(X_q, X_kv, weights, HEADS, mask=mask)[0]

    for _ in range(5):
        pi, rho = (torch.randperm(n, generator=generator) for n in (M, N))
        residuals += [
            relative(attend(X[:, rho], X[:, rho]), attend(X, X)[:, rho]),
            relative(attend(X, X_kv[:, pi], mask[..., pi]), attend(X, X_kv, mask)),
            relative(attend(X[:, rho], X_kv, mask), attend(X, X_kv, mask)[:, rho]),
        ]
    past = torch.ones(N, N, dtype=torch.bool).tril()
    swapped = attend(X.flip(1), X.flip(1), past), attend(X, X, past).flip(1)
    return largest([*residuals, holds(relative(*swapped) > 1e-2)])


@claim(
    "A13",
    "Parameters and FLOPs",
    equations=("eq-attention-parameters", "eq-attention-flops"),
    kinds="E I",
    tolerance=0.0,
    source=VASWANI,
    assumptions="a multiply-add counts as 2, the softmax as 0",
    subjects=(multi_head,),
    mutants=(
        Mutant("proportional to the number of heads", "counts",
               "8 * n * D**2 + 4 * n**2 * D", "8 * n * D**2 + 4 * n**2 * D * H",
               module=__name__),
        Mutant("a multiply-add counts as 1", "counts",
               "8 * n * D**2 + 4 * n**2 * D", "4 * n * D**2 + 2 * n**2 * D",
               module=__name__),
        Mutant("no biases", "counts", "4 * D**2 + 4 * D", "4 * D**2", module=__name__),
        Mutant("one bias for all features", "MultiHeadAttention.__init__",
               "nn.Parameter(torch.zeros(width))", "nn.Parameter(torch.zeros(1))"),
    ),
)  # fmt: skip
def counts() -> float:
    """Equals the counts of torch for every number of heads."""
    residuals = []
    for D, n in ((12, 5), (12, 31), (36, 7)):
        X = torch.zeros(1, n, D)
        for H in (1, 2, 3, 6):
            layer = multi_head.MultiHeadAttention(D, H)
            expected = 4 * D**2 + 4 * D
            found = sum(p.numel() for p in layer.parameters())
            residuals.append(abs(found - expected))
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                layer(X, need_weights=True)
            operations = 8 * n * D**2 + 4 * n**2 * D
            residuals.append(abs(counter.get_total_flops() - operations))
    return largest(residuals)


@claim(
    "A14",
    "One projection for all heads",
    equations=("eq-shared-heads",),
    kinds="E",
    tolerance=1e-10,
    source="a common mistake; compare " + VASWANI,
    subjects=(multi_head,),
    mutants=(
        Mutant("the heads differ", "multi_head_attention",
               "X_q @ weights.W_Q + weights.b_Q",
               "X_q @ (weights.W_Q * torch.arange(X_q.shape[2])) + weights.b_Q"),
        Mutant("one block of the output matrix, not their sum", "shared_projections",
               "weights.W_O.unflatten(0, (HEADS, D_HEAD)).sum(0)",
               "weights.W_O[:D_HEAD]", module=__name__),
        Mutant("the full rank is expected", "shared_projections",
               "rank <= D_HEAD", "rank > D_HEAD", module=__name__),
        Mutant("one projection for each head", "shared_projections",
               "W[:, :D_HEAD].repeat(1, HEADS)", "W", module=__name__),
    ),
)  # fmt: skip
def shared_projections() -> float:
    """All heads are equal, and the output is that of a single narrow head."""
    X, X_kv, _ = inputs()
    weights = projections(multi_head)._replace(b_O=torch.zeros(D).double())
    alike = {}
    for name in ("W_Q", "W_K", "W_V"):
        W = getattr(weights, name)
        alike[name] = W[:, :D_HEAD].repeat(1, HEADS)
        alike[f"b_{name[-1]}"] = torch.zeros(D).double()
    Y, inner = multi_head.multi_head_attention(
        X, X_kv, weights._replace(**alike), HEADS
    )
    heads = multi_head.split_heads(inner.C, HEADS)
    one = heads[:, 0] @ weights.W_O.unflatten(0, (HEADS, D_HEAD)).sum(0)
    rank = torch.linalg.matrix_rank(Y.flatten(0, 1)).item()
    proper, _ = multi_head.multi_head_attention(X, X_kv, weights, HEADS)
    full = torch.linalg.matrix_rank(proper.flatten(0, 1)).item()
    return largest(
        [
            relative(heads, heads[:, :1].expand_as(heads)),
            relative(Y, one),
            holds(rank <= D_HEAD),
            holds(full > D_HEAD),
        ]
    )


@claim(
    "A15",
    "Decoding with a cache",
    equations=("eq-cache",),
    kinds="I",
    tolerance=1e-10,
    source="Shazeer, Fast Transformer Decoding, 2019, arXiv:1911.02150, section 2.3",
    subjects=(multi_head,),
    mutants=(
        Mutant("the positions of new keys start from 0", "MultiHeadAttention.decode",
               "0 if cache is None else cache.K.shape[2]", "0"),
        Mutant("the cached keys are dropped", "MultiHeadAttention.decode",
               "[cache.K, K]", "[0 * cache.K, K]"),
        Mutant("new keys and values come before cached ones",
               "MultiHeadAttention.decode",
               "torch.cat([cache.K, K], 2), torch.cat([cache.V, V], 2)",
               "torch.cat([K, cache.K], 2), torch.cat([V, cache.V], 2)"),
        Mutant("the mask is aligned at the first key", "MultiHeadAttention._attend",
               "causal_mask(Q.shape[2], K.shape[2], Q.device)",
               "torch.ones(Q.shape[2], K.shape[2], dtype=torch.bool).tril()"),
        Mutant("the values are rotated as well", "MultiHeadAttention._project",
               "Q, K, V", "Q, K, V if self.rotate is None else self.rotate(V, offset)"),
    ),
)  # fmt: skip
def cached() -> float:
    """Equals the whole sequence at once, for any parts, also with rotary embedding."""
    X, _, _ = inputs()
    (bias,) = normal(4, (HEADS, N, N))
    residuals = []
    for n_kv_head in (HEADS, 1):
        for rotation, attention_fn in (
            (None, dot_product.attention),
            (rotate, dot_product.fused_attention),
            (rotate, dot_product.attention),
        ):
            layer = multi_head.MultiHeadAttention(
                D, HEADS, n_kv_head=n_kv_head, rotate=rotation,
                attention_fn=attention_fn, generator=torch.Generator().manual_seed(0),
            ).double()  # fmt: skip
            past = torch.ones(N, N, dtype=torch.bool).tril()
            whole = by_hand(layer, X, past, bias)
            for parts in ([1] * N, [2, 1, 2], [N]):
                cache, outputs, begin = None, [], 0
                for n in parts:
                    end = begin + n
                    output, cache = layer.decode(
                        X[:, begin:end], cache, bias=bias[:, begin:end, :end]
                    )
                    outputs.append(output)
                    begin = end
                residuals.append(relative(torch.cat(outputs, 1), whole))
    return largest(residuals)


def by_hand(layer, X: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
    """Compute all positions at once from the parameters of a layer."""
    heads = []
    for W, b in (
        (layer.W_Q, layer.b_Q),
        (layer.W_K, layer.b_K),
        (layer.W_V, layer.b_V),
    ):
        x = (X @ W + b).unflatten(-1, (-1, D_HEAD)).movedim(2, 1)
        heads.append(x.repeat_interleave(HEADS // x.shape[1], 1))
    Q, K, V = heads
    if layer.rotate is not None:
        Q, K = layer.rotate(Q, 0), layer.rotate(K, 0)
    S = Q @ K.mT / D_HEAD**0.5 + bias
    O = S.masked_fill(~mask, -torch.inf).softmax(-1) @ V  # noqa: E741
    return O.movedim(1, 2).flatten(-2) @ layer.W_O + layer.b_O
