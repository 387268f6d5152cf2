"""Chapter 3: several heads, their way back, and what follows from their make."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dian.attention import multi_head
from dian.claims import Mutant, claim
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
    """What asks, what is asked, and a gradient by the output."""
    X_q, X_kv, Y_bar = normal(seed, (BATCH, N, D), (BATCH, M, D), (BATCH, N, D))
    return X_q, X_kv, Y_bar


def padding() -> Tensor:
    """Hide the last keys, another number in each sequence."""
    lengths = torch.tensor([M - 3, M])
    return (torch.arange(M) < lengths[:, None])[:, None, None]


def one_by_one(X_q, X_kv, weights, n_head, n_kv_head=None, mask=None) -> Tensor:
    """Every head for itself, and its part of the output matrix: no reshaping."""
    group, Y = n_head // (n_kv_head or n_head), weights.b_O
    for h in range(n_head):
        own = slice(h * D_HEAD, (h + 1) * D_HEAD)
        g = h // group
        shared = slice(g * D_HEAD, (g + 1) * D_HEAD)
        Q = X_q @ weights.W_Q[:, own] + weights.b_Q[own]
        K = X_kv @ weights.W_K[:, shared] + weights.b_K[shared]
        V = X_kv @ weights.W_V[:, shared] + weights.b_V[shared]
        S = torch.einsum("bid,bjd->bij", Q, K) / D_HEAD**0.5
        if mask is not None:
            S = S.masked_fill(~mask[:, 0], -torch.inf)
        Y = Y + S.softmax(-1) @ V @ weights.W_O[own]
    return Y


def of_torch(weights) -> nn.MultiheadAttention:
    """Make torch's layer with these weights."""
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
    "Multi-head attention, and its way back",
    equations=("eq-multi-head", "eq-head-sum", "eq-multi-head-back", "eq-inputs-back"),
    kinds="I G",
    tolerance=1e-10,
    source=VASWANI,
    subjects=(multi_head,),
    mutants=(
        Mutant("cut into heads without bringing them to the front", "split_heads",
               "X.unflatten(-1, (n_head, -1)).transpose(1, 2)",
               "X.reshape(len(X), n_head, X.shape[1], -1)"),
        Mutant("put together without bringing them back", "merge_heads",
               "X.transpose(1, 2).flatten(-2)", "X.reshape(len(X), X.shape[2], -1)"),
        Mutant("all heads share the projections of the first", "split_heads",
               "X.unflatten(-1, (n_head, -1)).transpose(1, 2)",
               "X.unflatten(-1, (n_head, -1)).transpose(1, 2)[:, :1].expand(-1, "
               "n_head, -1, -1)"),
        Mutant("the values are projected as the keys are", "multi_head_attention",
               "V = split_heads(X_kv @ weights.W_V + weights.b_V, n_kv_head)",
               "V = split_heads(X_kv @ weights.W_K + weights.b_V, n_kv_head)"),
        Mutant("the bias of the output is forgotten", "multi_head_attention",
               "C @ weights.W_O + weights.b_O", "C @ weights.W_O"),
        Mutant("the output matrix is not transposed on the way back",
               "multi_head_backward",
               "Y_bar @ weights.W_O.T", "Y_bar @ weights.W_O"),
        Mutant("what goes back through the values is forgotten", "multi_head_backward",
               "K_bar @ weights.W_K.T + V_bar @ weights.W_V.T",
               "K_bar @ weights.W_K.T"),
        Mutant("the bias gets the mean", "multi_head_backward",
               "by_q.sum(0)", "by_q.mean(0)"),
        Mutant("a shared key gets the mean of its heads", "multi_head_backward",
               "x.unflatten(1, (n_kv_head, -1)).sum(2)",
               "x.unflatten(1, (n_kv_head, -1)).mean(2)"),
        Mutant("heads of queries take turns with the shared keys", "repeat_kv",
               "X.repeat_interleave(n_head // X.shape[1], 1)",
               "X.repeat(1, n_head // X.shape[1], 1, 1)"),
        Mutant("dropout in evaluation", "MultiHeadAttention._attend",
               "self.training and self.dropout > 0", "self.dropout > 0"),
    ),
)  # fmt: skip
def heads() -> float:
    """Equal to torch's layer, and to its heads one by one, with all gradients."""
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
    b_Q, b_K, b_V = peer.in_proj_bias.grad.chunk(3)
    out = peer.out_proj
    grads = [W_Q, W_K, W_V, out.weight.grad.T, b_Q, b_K, b_V, out.bias.grad]
    residuals = [
        relative(found, theirs.detach()),
        relative(inner.P, P.detach()),
        relative(found, one_by_one(X_q, X_kv, weights, HEADS, mask=mask)),
        worst([back.X_q, back.X_kv], [x.grad for x in leaves]),
        worst(back.weights, grads),
    ]
    # Self-attention, with four heads of queries for two of keys: by autograd.
    n_head, n_kv_head = 4, 2
    X, Y_bar = normal(2, (BATCH, N, n_head * D_HEAD), (BATCH, N, n_head * D_HEAD))
    width, kv = n_head * D_HEAD, n_kv_head * D_HEAD
    shapes = [(width, width), (width, kv), (width, kv), (width, width)]
    shapes += [(width,), (kv,), (kv,), (width,)]
    weights = multi_head.Projections(*normal(3, *shapes))
    leaves = [x.clone().requires_grad_() for x in (X, *weights)]
    own = multi_head.Projections(*leaves[1:])
    expected = one_by_one(leaves[0], leaves[0], own, n_head, n_kv_head)
    expected.backward(Y_bar)
    found, inner = multi_head.multi_head_attention(X, X, weights, n_head, n_kv_head)
    back = multi_head.multi_head_backward(Y_bar, X, X, weights, inner)
    residuals += [
        relative(found, expected.detach()),
        relative(back.X_q + back.X_kv, leaves[0].grad),
        worst(back.weights, [x.grad for x in leaves[1:]]),
    ]
    # The layer: both routes, and nothing random in evaluation.
    layer = multi_head.from_torch(peer).eval()
    layer.dropout = 0.5
    plain, _ = layer(X_q, X_kv, mask, need_weights=True)
    again, _ = layer(X_q, X_kv, mask, need_weights=True)
    pairs = [(plain, again), (plain, layer(X_q, X_kv, mask)), (plain, theirs)]
    return largest([*residuals, *(relative(a, b) for a, b in pairs)])


@claim(
    "A7",
    "What heads can and cannot do",
    equations=("eq-head-rank", "eq-idle-biases", "eq-head-freedom"),
    kinds="E G",
    tolerance=1e-10,
    source=VASWANI,
    assumptions="the key bias is idle without a rotary encoding only; the value bias "
    "only shifts if no row is masked as a whole",
    subjects=(multi_head,),
    mutants=(
        Mutant("each head sees all features of the values", "structure",
               "own = weights.W_V[:, head] @ weights.W_O[head]",
               "own = weights.W_V @ weights.W_O", module=__name__),
        Mutant("the keys get a bias of their own at each position",
               "multi_head_attention",
               "X_kv @ weights.W_K + weights.b_K",
               "X_kv @ weights.W_K + torch.arange(1.0, X_kv.shape[1] + 1)[:, None] * "
               "weights.b_K"),
        Mutant("the values are squared", "multi_head_attention",
               "V = split_heads(X_kv @ weights.W_V + weights.b_V, n_kv_head)",
               "V = split_heads((X_kv @ weights.W_V + weights.b_V) ** 2, n_kv_head)"),
        Mutant("the keys with the inverse, and not its transpose", "structure",
               "A.inverse().T", "A.inverse()", module=__name__),
        Mutant("the output matrix keeps its order", "structure",
               "weights.W_O[order]", "weights.W_O", module=__name__),
    ),
)  # fmt: skip
def structure() -> float:
    """Ranks; idle biases, without and with rotation; heads in another order."""
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

    # The key bias adds the same to all scores of a row; the value bias to every output.
    residuals.append(relative(back.weights.b_K, torch.zeros(D).double()))
    residuals.append(
        relative(back.weights.b_V, weights.W_O @ back.weights.b_O),
    )
    for name, shift in (("b_K", 0), ("b_V", weights.b_V @ weights.W_O)):
        moved = weights._replace(**{name: 2 * getattr(weights, name)})
        other, _ = multi_head.multi_head_attention(X_q, X_kv, moved, HEADS)
        residuals.append(relative(other, Y + shift))
    turned = rotated_gradient(weights, X_q, Y_bar)
    residuals.append(holds(turned > 1e-3))

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
    for same in (another, changed):
        other, _ = multi_head.multi_head_attention(X_q, X_kv, same, HEADS)
        residuals.append(relative(other, Y))
    return largest(residuals)


def rotated_gradient(weights, X: Tensor, Y_bar: Tensor) -> float:
    """How large the gradient by the key bias is when queries and keys are rotated."""
    omega = torch.tensor([1.0, 0.1]).double()
    layer = multi_head.from_torch(of_torch(weights))
    layer.rotate = lambda x, offset: rotary.rotate(x, omega, offset=offset)
    layer(X).backward(Y_bar)
    return layer.b_K.grad.abs().max().item()


@claim(
    "A11",
    "Attention does not see order",
    equations=("eq-equivariance",),
    kinds="H",
    tolerance=1e-10,
    source="Lee et al., Set Transformer, 2019, arXiv:1810.00825, property 1",
    assumptions="no positions, and no causal mask",
    subjects=(multi_head,),
    mutants=(
        Mutant("cut into heads without bringing them to the front", "split_heads",
               "X.unflatten(-1, (n_head, -1)).transpose(1, 2)",
               "X.reshape(len(X), n_head, X.shape[1], -1)"),
        Mutant("put together without bringing them back", "merge_heads",
               "X.transpose(1, 2).flatten(-2)", "X.reshape(len(X), X.shape[2], -1)"),
        Mutant("the mask stays where it was", "equivariance",
               "mask[..., pi]", "mask", module=__name__),
    ),
)  # fmt: skip
def equivariance() -> float:
    """Rows permuted in are rows permuted out; a causal mask tells them apart."""
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
    "Parameters and operations",
    equations=("eq-attention-parameters", "eq-attention-flops"),
    kinds="E I",
    tolerance=0.0,
    source=VASWANI,
    assumptions="a multiplication and its addition count as 2, the softmax as nothing",
    subjects=(multi_head,),
    mutants=(
        Mutant("the number of heads enters", "counts",
               "8 * n * D**2 + 4 * n**2 * D", "8 * n * D**2 + 4 * n**2 * D * H",
               module=__name__),
        Mutant("a multiplication and its addition are one", "counts",
               "8 * n * D**2 + 4 * n**2 * D", "4 * n * D**2 + 2 * n**2 * D",
               module=__name__),
        Mutant("no biases", "counts", "4 * D**2 + 4 * D", "4 * D**2", module=__name__),
        Mutant("one bias for all features", "MultiHeadAttention.__init__",
               "nn.Parameter(torch.zeros(width))", "nn.Parameter(torch.zeros(1))"),
    ),
)  # fmt: skip
def counts() -> float:
    """Counted by torch while it computes, for every number of heads."""
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
    "A projection that all heads share",
    equations=("eq-shared-heads",),
    kinds="E",
    tolerance=1e-10,
    source="what goes wrong in practice; compare " + VASWANI,
    subjects=(multi_head,),
    mutants=(
        Mutant("the heads are not alike", "multi_head_attention",
               "X_q @ weights.W_Q + weights.b_Q",
               "X_q @ (weights.W_Q * torch.arange(X_q.shape[2])) + weights.b_Q"),
        Mutant("one block of the output matrix in place of their sum",
               "shared_projections",
               "weights.W_O.unflatten(0, (HEADS, D_HEAD)).sum(0)",
               "weights.W_O[:D_HEAD]", module=__name__),
        Mutant("the full rank is expected", "shared_projections",
               "rank <= D_HEAD", "rank > D_HEAD", module=__name__),
        Mutant("projections of their own", "shared_projections",
               "W[:, :D_HEAD].repeat(1, HEADS)", "W", module=__name__),
    ),
)  # fmt: skip
def shared_projections() -> float:
    """All heads find the same, and the output is that of a single narrow head."""
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
        Mutant("a new position counts from 0", "MultiHeadAttention.decode",
               "0 if cache is None else cache.K.shape[2]", "0"),
        Mutant("the keys of the positions before are lost", "MultiHeadAttention.decode",
               "[cache.K, K]", "[0 * cache.K, K]"),
        Mutant("the new stand before the old", "MultiHeadAttention.decode",
               "torch.cat([cache.K, K], 2), torch.cat([cache.V, V], 2)",
               "torch.cat([K, cache.K], 2), torch.cat([V, cache.V], 2)"),
        Mutant("the mask is aligned at the first key", "MultiHeadAttention.decode",
               "mask = causal_mask(Q.shape[2], K.shape[2], X.device)",
               "mask = torch.ones(Q.shape[2], K.shape[2], dtype=torch.bool).tril()"),
        Mutant("the values are rotated, too", "MultiHeadAttention._project",
               "Q, K, V", "Q, K, V if self.rotate is None else self.rotate(V, offset)"),
    ),
)  # fmt: skip
def cached() -> float:
    """One position at a time, or some: the same as all at once, also when rotated."""
    X, _, _ = inputs()
    omega = torch.tensor([1.0, 0.1]).double()
    (bias,) = normal(4, (HEADS, N, N))
    residuals = []
    for n_kv_head in (HEADS, 1):
        for rotate in (None, lambda x, offset: rotary.rotate(x, omega, offset=offset)):
            layer = multi_head.MultiHeadAttention(
                D, HEADS, n_kv_head=n_kv_head, rotate=rotate,
                generator=torch.Generator().manual_seed(0),
            ).double()  # fmt: skip
            past = torch.ones(N, N, dtype=torch.bool).tril()
            whole = by_hand(layer, X, past, bias)
            for parts in ([1] * N, [2, 1, 2], [N]):
                cache, outputs, begin = None, [], 0
                for n in parts:
                    end = begin + n
                    output, cache = layer.decode(
                        X[:, begin:end], cache, bias[:, begin:end, :end]
                    )
                    outputs.append(output)
                    begin = end
                residuals.append(relative(torch.cat(outputs, 1), whole))
    return largest(residuals)


def by_hand(layer, X: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
    """All positions at once, from the parameters of a layer alone."""
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
