"""Scaled dot-product attention, forward and backward, and fully masked queries.

Sizes are distinct primes, masks are not uniform, and there are more keys than queries,
so that a swapped axis cannot pass.
"""

import math
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dian.attention import dot_product
from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative, worst
from dian.training import dropout

BATCH, HEADS, N_QUERY, N_KEY, D_KEY, D_VALUE = 2, 3, 5, 7, 11, 13
VASWANI = "Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762, eq. 1"


def example(seed: int = 0) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return Q, K and V, a mask without fully masked queries, and a bias."""
    *tensors, bias = normal(
        seed,
        (BATCH, HEADS, N_QUERY, D_KEY),
        (BATCH, HEADS, N_KEY, D_KEY),
        (BATCH, HEADS, N_KEY, D_VALUE),
        (HEADS, N_QUERY, N_KEY),
    )
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(BATCH, 1, N_QUERY, N_KEY, generator=generator) < 0.5
    mask[..., 0] |= ~mask.any(-1)
    return tensors, mask, bias


def by_loops(Q, K, V, mask=None, bias=None) -> Tensor:
    """Compute one query at a time, in plain arithmetic, for tensors of two axes."""
    output = V.new_zeros(len(Q), V.shape[1])
    for i in range(len(Q)):
        keys = [j for j in range(len(K)) if mask is None or mask[i, j]]
        score = {j: float(Q[i] @ K[j]) / math.sqrt(Q.shape[1]) for j in keys}
        if bias is not None:
            score = {j: s + float(bias[i, j]) for j, s in score.items()}
        total = sum(math.exp(s) for s in score.values())
        for j, s in score.items():
            output[i] += math.exp(s) / total * V[j]
    return output


@claim(
    "A4",
    "Scaled dot-product attention",
    equations=("eq-attention",),
    kinds="I E",
    tolerance=1e-10,
    source=VASWANI,
    subjects=(dot_product,),
    mutants=(
        Mutant("divided by d", "scaled_dot_product_attention",
               "math.sqrt(Q.shape[-1])", "Q.shape[-1]"),
        Mutant("divided by the square root of the number of keys",
               "scaled_dot_product_attention",
               "Q.shape[-1]", "K.shape[-2]"),
        Mutant("the softmax is taken over the queries", "scaled_dot_product_attention",
               "P = torch.softmax(S, -1, out=out)",
               "P = torch.softmax(S, -2, out=out)"),
        Mutant("the bias is missing", "scaled_dot_product_attention",
               "S = S + bias", "S = S"),
        Mutant("the mask is applied after the softmax", "scaled_dot_product_attention",
               "S = S.masked_fill(~mask, torch.finfo(S.dtype).min)", "pass"),
        Mutant("the mask is inverted", "scaled_dot_product_attention",
               "S.masked_fill(~mask, torch.finfo(S.dtype).min)",
               "S.masked_fill(mask, torch.finfo(S.dtype).min)"),
        Mutant("keys are averaged, not values", "scaled_dot_product_attention",
               "(P if dropout_mask is None else P * dropout_mask) @ V",
               "(P if dropout_mask is None else P * dropout_mask) @ K"),
        Mutant("the kernel of torch gets no mask if there is a bias", "fused_attention",
               "bias if mask is None else torch.where(mask, bias, -torch.inf)", "bias"),
        Mutant("the kernel of torch gets no bias", "fused_attention",
               "bias if mask is None else torch.where(mask, bias, -torch.inf)",
               "mask"),
        Mutant("the function that trains ignores the bias", "_plain",
               "scaled_dot_product_attention(Q, K, V, mask=mask, bias=bias)",
               "scaled_dot_product_attention(Q, K, V, mask=mask)"),
        Mutant("the function that trains ignores the mask", "_plain",
               "scaled_dot_product_attention(Q, K, V, mask=mask, bias=bias)",
               "scaled_dot_product_attention(Q, K, V, bias=bias)"),
        Mutant("the first sequence in place of a broadcast one", "share_axes",
               "x.expand(*batch, *x.shape[-2:])",
               "x[:1].expand(*batch, *x.shape[-2:])"),
    ),
)  # fmt: skip
def plain() -> float:
    """Equals torch's and a loop; rows sum to 1; outputs are averages of the values."""
    (Q, K, V), mask, bias = example()
    residuals = []
    for m, b in ((None, None), (mask, None), (None, bias), (mask, bias)):
        output, P = dot_product.scaled_dot_product_attention(Q, K, V, mask=m, bias=b)
        if output.shape != (BATCH, HEADS, N_QUERY, D_VALUE):
            return torch.inf
        added = torch.zeros(N_QUERY, N_KEY).double() if b is None else b
        added = added if m is None else added.masked_fill(~m, -torch.inf)
        with sdpa_kernel(SDPBackend.MATH):
            expected = F.scaled_dot_product_attention(Q, K, V, added)
        inside = [None if x is None else x.expand_as(P)[1, 2] for x in (m, b)]
        looped = by_loops(Q[1, 2], K[1, 2], V[1, 2], *inside)
        # the functions of the layers: with our own backward pass, and torch's kernels
        options = {"mask": m, "bias": b}
        layers = [dot_product.attention, dot_product.fused_attention]
        residuals += [relative(f(Q, K, V, **options), expected) for f in layers]
        residuals += [
            relative(output, expected),
            relative(output[1, 2], looped),
            relative(P.sum(-1), torch.ones_like(P[..., 0])),
            relative(P @ V, output),
            holds(bool((P >= 0).all())),
        ]
    # Each output is in the convex hull of the values, here: within their range.
    output, _ = dot_product.scaled_dot_product_attention(Q, K, V)
    inside = (output <= V.amax(-2, keepdim=True)) & (output >= V.amin(-2, keepdim=True))
    output, _ = dot_product.scaled_dot_product_attention(0 * Q, K, V)
    mean = V.mean(-2, keepdim=True).expand_as(output)
    residuals.append(relative(output, mean))
    # Leading axes are broadcast.
    output, _ = dot_product.scaled_dot_product_attention(Q[:1], K[:, :1], V)
    looped = by_loops(Q[0, 2], K[1, 0], V[1, 2])
    residuals.append(relative(output[1, 2], looped))
    return largest([*residuals, holds(bool(inside.all()))])


def by_autograd(Q, K, V, mask, bias, Z, O_bar, G=None) -> list[Tensor]:
    """Return Q_bar, K_bar, V_bar and B_bar by autograd of an independent formula.

    The loss is sum (O_bar O), and sum (G P) is added to it.
    """
    leaves = [x.clone().requires_grad_() for x in (Q, K, V, bias)]
    S = torch.einsum("...id,...jd->...ij", *leaves[:2]) / Q.shape[-1] ** 0.5 + leaves[3]
    S = torch.where(mask, S, -torch.inf)
    P = (S - S.logsumexp(-1, keepdim=True)).exp()
    loss = (O_bar * ((P * Z) @ leaves[2])).sum()
    loss = loss if G is None else loss + (G * P).sum()
    return list(torch.autograd.grad(loss, leaves))


def central_differences(f, x: Tensor, h: float = 1e-5) -> Tensor:
    """Differentiate a number with respect to each entry of x."""
    found = torch.empty_like(x)
    for i in range(x.numel()):
        step = torch.zeros(x.numel(), dtype=x.dtype)
        step[i] = h
        step = step.view_as(x)
        found.view(-1)[i] = (f(x + step) - f(x - step)) / (2 * h)
    return found


@claim(
    "A5",
    "Backward pass of attention",
    equations=(
        "eq-attention-back-values",
        "eq-attention-back-scores",
        "eq-attention-back-keys",
        "eq-attention-row-term",
        "eq-attention-sums",
    ),
    kinds="G N E",
    tolerance=1e-8,
    source="Dao et al., FlashAttention, 2022, arXiv:2205.14135, appendix B.2",
    assumptions="the last identity holds for keys without rotary embedding",
    subjects=(dot_product, dropout),
    mutants=(
        Mutant("the scores without the term D", "attention_backward",
               "S_bar = softmax_backward(P, P_bar)", "S_bar = P * P_bar"),
        Mutant("the gradient of the values ignores dropout", "attention_backward",
               "V_bar = dropped.mT @ O_bar", "V_bar = P.mT @ O_bar"),
        Mutant("the gradient of the weights ignores dropout", "attention_backward",
               "(O_bar @ V.mT) * dropout_mask", "O_bar @ V.mT"),
        Mutant("the keys without the scale", "attention_backward", "scale * Q", "Q"),
        Mutant("the queries divided by d", "attention_backward",
               "scale * K", "scale**2 * K"),
        Mutant("the weights of the last key for the first", "attention_backward",
               "V_bar = dropped.mT @ O_bar", "V_bar = dropped.flip(-1).mT @ O_bar"),
        Mutant("the direct gradient of the weights is missing", "attention_backward",
               "P_bar = P_bar + G", "pass"),
        Mutant("the gradient of the bias is averaged over broadcast axes",
               "_Attention.backward",
               "S_bar.sum_to_size(bias.shape)",
               "S_bar.sum_to_size(bias.shape) / len(S_bar)"),
        Mutant("queries and keys are exchanged where no bias needs a gradient",
               "_Attention.backward",
               "of_chunk[:3]", "(of_chunk[1], of_chunk[0], of_chunk[2])"),
        Mutant("every chunk is the first", "_chunks",
               "slice(i, i + max(1, n))", "slice(0, max(1, n))"),
        Mutant("the chunks after the first are left out", "_chunks",
               "range(0, len(P), max(1, n))", "range(0, 1, max(1, n))"),
        Mutant("the direct gradient of the weights is dropped in chunks",
               "_Attention.backward",
               "None if G is None else _one_batch_axis(G)[chunk]", "None"),
        Mutant("dropout does not divide by the share that is kept", "dropout_mask",
               "kept.to(like) / (1 - rate)", "kept.to(like)", module=dropout),
        Mutant("dropout divides by the share that is dropped", "dropout_mask",
               "kept.to(like) / (1 - rate)", "kept.to(like) / rate", module=dropout),
        Mutant("kept entries are dropped, and the others kept", "dropout_mask",
               "torch.rand(like.shape, generator=generator, device=device) >= rate",
               "torch.rand(like.shape, generator=generator, device=device) < rate",
               module=dropout),
    ),
)  # fmt: skip
def backward() -> float:
    """Equals autograd with masks, bias and dropout, and central differences."""
    (Q, K, V), mask, bias = example()
    (O_bar,) = normal(1, (BATCH, HEADS, N_QUERY, D_VALUE))
    every, none = torch.ones_like(mask), torch.zeros_like(bias)
    ones = torch.ones(BATCH, HEADS, N_QUERY, N_KEY, dtype=torch.float64)
    dropped = pattern(ones.shape, 0.4)
    found = dropout.dropout_mask(ones, 0.4, torch.Generator().manual_seed(0))
    residuals = [relative(found, dropped)]
    for m, b, Z in (
        (every, none, ones),
        (mask, bias, ones),
        (every, none, dropped),
        (mask, bias, dropped),
    ):
        O, P = dot_product.scaled_dot_product_attention(  # noqa: E741
            Q, K, V, mask=m, bias=b, dropout_mask=Z
        )
        found = dot_product.attention_backward(O_bar, Q, K, V, P, dropout_mask=Z)
        expected = by_autograd(Q, K, V, m, b, Z, O_bar)
        ours = [found.Q, found.K, found.V, found.S.sum_to_size(b.shape)]
        P_bar = (O_bar @ V.mT) * Z
        D = [(P_bar * P).sum(-1), (O_bar * O).sum(-1)]
        residuals += [
            1e2 * worst(ours, expected),  # so that 1e-10 is allowed, not 1e-8
            relative(*D),
            relative(found.S.sum(-1), torch.zeros_like(D[0])),
            relative(found.K.sum(-2), torch.zeros_like(K[..., 0, :])),
        ]
    # The gradient of a broadcast input is summed over the axes of the broadcast.
    shared = K[:1], V[:, :1]
    _, P = dot_product.scaled_dot_product_attention(Q, *shared)
    found = dot_product.attention_backward(O_bar, Q, *shared, P)
    expected = by_autograd(Q, *shared, every, none, ones, O_bar)
    residuals.append(1e2 * worst(found[:3], expected[:3]))
    # Any of them may have the axes that the others lack; with as many keys as queries
    # exchanged gradients have the right shape as well.
    square = (..., slice(N_QUERY), slice(None))
    scores = (..., slice(N_QUERY))
    for n in range(3):
        given = [
            x if i == n else x[:1] for i, x in enumerate((Q, K[square], V[square]))
        ]
        leaves = [x.clone().requires_grad_() for x in given]
        output, P = dot_product.attention(*leaves, need_weights=True)
        found = torch.autograd.grad(output, leaves, O_bar)
        every_pair = (every[scores], none[scores], ones[scores])
        expected = by_autograd(*given, *every_pair, O_bar)
        shape = (BATCH, HEADS, N_QUERY, N_QUERY)
        residuals += [holds(P.shape == shape), 1e2 * worst(found, expected[:3])]
    residuals.append(1e2 * differentiable(Q, K, V, mask, bias, O_bar))
    residuals += [1e2 * in_chunks(), holds(sizes_of_chunks())]
    return largest([*residuals, without_autograd(Q, K, V, mask, bias, O_bar)])


def pattern(shape: torch.Size, rate: float) -> Tensor:
    """Draw factors of dropout entry by entry: 0, or one over the share that is kept."""
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    kept = [1 / (1 - rate) if u >= rate else 0.0 for u in drawn.flatten().tolist()]
    return torch.tensor(kept, dtype=torch.float64).view(shape)


def in_chunks() -> float:
    """Compare the branch of ``attention`` that trains the recorded networks.

    No bias needs a gradient there, and heads go through the backward pass in chunks:
    here one by one, four and the remaining two, and all six. It is self-attention, so
    queries and keys have one shape and could be exchanged.
    """
    n, lead = N_KEY, (BATCH, HEADS)
    *inputs, bias, O_bar, G = normal(
        3, (*lead, n, D_KEY), (*lead, n, D_KEY), (*lead, n, D_VALUE),
        (HEADS, n, n), (*lead, n, D_VALUE), (*lead, n, n),
    )  # fmt: skip
    past = torch.ones(n, n, dtype=torch.bool).tril()
    ones, residuals = torch.ones_like(G), []
    for m, b in ((None, None), (past, None), (None, bias), (past, bias)):
        every = torch.ones_like(past) if m is None else m
        added = torch.zeros_like(bias) if b is None else b
        for of_output, of_weights in ((O_bar, None), (O_bar, G), (None, G)):
            given = 0 * O_bar if of_output is None else of_output
            expected = by_autograd(*inputs, every, added, ones, given, of_weights)
            for size in (1, 4 * n * n + 1, dot_product.SCORES_PER_CHUNK):
                leaves = [x.clone().requires_grad_() for x in inputs]
                with mock.patch.object(dot_product, "SCORES_PER_CHUNK", size):
                    outputs = dot_product.attention(
                        *leaves, mask=m, bias=b, need_weights=True
                    )
                    pairs = zip(outputs, (of_output, of_weights), strict=True)
                    wanted = [(x, g) for x, g in pairs if g is not None]
                    found = torch.autograd.grad(
                        [x for x, _ in wanted], leaves, [g for _, g in wanted],
                        materialize_grads=True,
                    )  # fmt: skip
                residuals.append(worst(found, expected[:3]))
    return largest(residuals)


def sizes_of_chunks() -> bool:
    """Whether each chunk has as many heads as there is room for, and at least one."""
    fits = []
    for shape, room, expected in (
        ((5, 3, 7), 50, [2, 2, 1]),
        ((3, 3, 7), 20, [1, 1, 1]),
        ((3, 1, 1), 2, [2, 1]),
        ((3, 0, 7), 4, [3]),
    ):
        with mock.patch.object(dot_product, "SCORES_PER_CHUNK", room):
            chunks = dot_product._chunks(torch.empty(shape))
        heads = [range(shape[0])[chunk] for chunk in chunks]
        fits.append([len(each) for each in heads] == expected)
    return all(fits)


def differentiable(Q, K, V, mask, bias, O_bar) -> float:
    """Compare the gradients of losses of the output, and of output and weights."""
    leaves = [x.clone().requires_grad_() for x in (Q, K, V, bias)]
    options = {"mask": mask, "bias": leaves[3]}
    output = dot_product.attention(*leaves[:3], **options)
    ones = torch.ones(BATCH, HEADS, N_QUERY, N_KEY, dtype=torch.float64)
    expected = by_autograd(Q, K, V, mask, bias, ones, O_bar)
    residuals = [worst(torch.autograd.grad(output, leaves, O_bar), expected)]
    # the loss sum (O_bar O) + sum (G P)
    (G,) = normal(2, ones.shape)
    gradients = [
        torch.autograd.grad(found, leaves, (O_bar, G))
        for found in (
            dot_product.attention(*leaves[:3], need_weights=True, **options),
            dot_product.scaled_dot_product_attention(*leaves[:3], **options),
        )
    ]
    return largest([*residuals, worst(*gradients)])


def without_autograd(Q, K, V, mask, bias, O_bar) -> float:
    """Compare one head with central differences, which share nothing with autograd."""
    inputs, options = (
        [x[0, 0] for x in (Q, K, V)],
        {"mask": mask[0, 0], "bias": bias[0]},
    )
    _, P = dot_product.scaled_dot_product_attention(*inputs, **options)
    found = dot_product.attention_backward(O_bar[0, 0], *inputs, P)
    residuals = []
    for n in range(3):

        def loss(x, n=n):
            given = [*inputs[:n], x, *inputs[n + 1 :]]
            output, _ = dot_product.scaled_dot_product_attention(*given, **options)
            return (output * O_bar[0, 0]).sum()

        residuals.append(relative(found[n], central_differences(loss, inputs[n])))
    return largest(residuals)


@claim(
    "A9",
    "Fully masked queries",
    equations=("eq-dead-row",),
    kinds="E I",
    tolerance=1e-12,
    source="our choice, and that of torch.nn.functional.scaled_dot_product_attention",
    subjects=(dot_product,),
    mutants=(
        Mutant("minus infinity, and no second fill", "scaled_dot_product_attention",
               "S = S.masked_fill(~mask, torch.finfo(S.dtype).min)\nP = "
               "S.softmax(-1).masked_fill(~mask, 0.0)",
               "P = S.masked_fill(~mask, -torch.inf).softmax(-1)"),
        Mutant("the row is not made zero", "scaled_dot_product_attention",
               "S.softmax(-1).masked_fill(~mask, 0.0)", "S.softmax(-1)"),
        Mutant("a billion is subtracted from the scores",
               "scaled_dot_product_attention",
               "S = S.masked_fill(~mask, torch.finfo(S.dtype).min)\nP = "
               "S.softmax(-1).masked_fill(~mask, 0.0)",
               "P = (S - (1e9 * ~mask).to(S.dtype)).softmax(-1)"),
        Mutant("the scores are set to minus a billion", "scaled_dot_product_attention",
               "S = S.masked_fill(~mask, torch.finfo(S.dtype).min)\nP = "
               "S.softmax(-1).masked_fill(~mask, 0.0)",
               "P = S.float().masked_fill(~mask, -1e9).softmax(-1).to(S.dtype)"),
    ),
)  # fmt: skip
def fully_masked() -> float:
    """Zeros, forward and backward, in four dtypes; other queries are unaffected."""
    (Q, K, V), mask, _ = example()
    (O_bar,) = normal(1, (BATCH, HEADS, N_QUERY, D_VALUE))
    without = mask.clone()  # without any key for query 2
    without[:, :, 2] = False
    others = [i for i in range(N_QUERY) if i != 2]
    residuals = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        q, k, v, o_bar = (x.to(dtype) for x in (Q, K, V, O_bar))
        output, P = dot_product.scaled_dot_product_attention(q, k, v, mask=without)
        back = dot_product.attention_backward(o_bar, q, k, v, P)
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        routes = (
            dot_product.scaled_dot_product_attention(*leaves, mask=without)[0],
            dot_product.attention(*leaves, mask=without),
            dot_product.fused_attention(*leaves, mask=without),
        )
        checked = [output, P, *back]
        zeros = [output, P, back.Q]
        for found in routes:
            auto = torch.autograd.grad(found, leaves, o_bar)
            checked += [found, *auto]
            zeros += [found, auto[0]]
        residuals += [x[:, :, 2].abs().max().item() for x in zeros]
        residuals += [holds(bool(x.isfinite().all())) for x in checked]
    # The same as without that query; and torch returns the same.
    q = Q[:, :, others]
    output, P = dot_product.scaled_dot_product_attention(
        q, K, V, mask=mask[:, :, others]
    )
    rest = dot_product.attention_backward(O_bar[:, :, others], q, K, V, P)
    whole, P = dot_product.scaled_dot_product_attention(Q, K, V, mask=without)
    back = dot_product.attention_backward(O_bar, Q, K, V, P)
    peer = F.scaled_dot_product_attention(Q, K, V, without)
    pairs = [(whole[:, :, others], output), (back.K, rest.K), (back.V, rest.V)]
    pairs += [(whole, peer)]
    return largest([*residuals, *(relative(a, b) for a, b in pairs)])


@claim(
    "A12",
    "Attention as kernel regression",
    equations=("eq-kernel-regression",),
    kinds="E",
    tolerance=1e-12,
    source="Nadaraya, On estimating regression, 1964; Tsai et al., 2019, "
    "arXiv:1908.11775",
    assumptions="all keys have the same norm",
    subjects=(dot_product,),
    mutants=(
        Mutant("the keys differ in norm", "kernel_regression",
               "K = K / K.norm(dim=-1, keepdim=True)", "pass", module=__name__),
        Mutant("the width of the kernel without the scale", "kernel_regression",
               "2 * math.sqrt(D_KEY)", "2", module=__name__),
        Mutant("not divided", "scaled_dot_product_attention",
               "(Q / math.sqrt(Q.shape[-1])) @ K.mT", "Q @ K.mT"),
    ),
)  # fmt: skip
def kernel_regression() -> float:
    """An average of the values, weighted by a Gaussian kernel of query and key."""
    (Q, K, V), _, _ = example()
    K = K / K.norm(dim=-1, keepdim=True)
    squares = (Q[..., :, None, :] - K[..., None, :, :]).square().sum(-1)
    kernel = torch.exp(-squares / (2 * math.sqrt(D_KEY)))
    expected = (kernel @ V) / kernel.sum(-1, keepdim=True)
    output, _ = dot_product.scaled_dot_product_attention(Q, K, V)
    return relative(output, expected)
