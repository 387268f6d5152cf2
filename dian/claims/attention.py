"""Chapter 3: attention with one head, its way back, and its masks.

Sizes are distinct primes, masks are not uniform, and there are more keys than queries:
a swapped axis cannot pass by luck.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dian import attention
from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative, worst

BATCH, HEADS, N_QUERY, N_KEY, D_KEY, D_VALUE = 2, 3, 5, 7, 11, 13
VASWANI = "Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762, eq. 1"


def example(seed: int = 0) -> tuple[list[Tensor], Tensor, Tensor]:
    """Q, K, V; a mask under which every query may read something; and a bias."""
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
    """One query at a time, in plain arithmetic, for two axes."""
    output = V.new_zeros(len(Q), V.shape[1])
    for i in range(len(Q)):
        kept = [j for j in range(len(K)) if mask is None or mask[i, j]]
        score = {j: float(Q[i] @ K[j]) / math.sqrt(Q.shape[1]) for j in kept}
        if bias is not None:
            score = {j: s + float(bias[i, j]) for j, s in score.items()}
        total = sum(math.exp(s) for s in score.values())
        for j, s in score.items():
            output[i] += math.exp(s) / total * V[j]
    return output


@claim(
    "A3",
    "Jacobian of the softmax",
    equations=("eq-softmax-jacobian", "eq-softmax-backward"),
    kinds="G E H",
    tolerance=1e-12,
    source="Bridle, Probabilistic interpretation of feedforward classification network "
    "outputs, 1990",
    assumptions="rank n - 1 needs every weight above zero",
    subjects=(attention,),
    mutants=(
        Mutant("the outer product is forgotten", "softmax_jacobian",
               "torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)",
               "torch.diag_embed(p)"),
        Mutant("p in place of its diagonal", "softmax_jacobian",
               "torch.diag_embed(p)", "p.unsqueeze(-1)"),
        Mutant("the backward pass without its mean", "softmax_backward",
               "s_bar.addcmul_(p, s_bar.sum(-1, keepdim=True), value=-1)", "s_bar"),
        Mutant("the mean is not weighted", "softmax_backward",
               "s_bar.sum(-1, keepdim=True)", "p_bar.mean(-1, keepdim=True)"),
    ),
)  # fmt: skip
def softmax_jacobian(attention) -> float:
    """Autograd; symmetric, no negative eigenvalue, none above 1/2, rank n - 1."""
    residuals = []
    for n, spread in [(2, 1.0), (3, 0.1), (7, 1.0), (11, 3.0)]:
        scores, p_bar = normal(n, (n,), (n,))
        scores = spread * scores
        p = scores.softmax(-1)
        J = attention.softmax_jacobian(p)
        auto = torch.autograd.functional.jacobian(lambda s: s.softmax(-1), scores)
        eigenvalues = torch.linalg.eigvalsh(J)
        residuals += [
            relative(J, auto),
            relative(J, J.T),
            relative(J.sum(-1), torch.zeros_like(p)),
            relative(J.trace(), 1 - (p * p).sum()),
            relative(attention.softmax_backward(p, p_bar), auto @ p_bar),
            holds(bool(eigenvalues[0] > -1e-12 and eigenvalues[-1] <= 0.5 + 1e-12)),
            holds(int((eigenvalues > 1e-12).sum()) == n - 1),
        ]
    # The bound 1/2 is reached where two weights share everything, and only there.
    even = attention.softmax_jacobian(
        torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    )
    residuals.append(relative(torch.linalg.eigvalsh(even)[-1], torch.tensor(0.5)))
    return largest(residuals)


@claim(
    "A4",
    "Scaled dot-product attention",
    equations=("eq-attention",),
    kinds="I E",
    tolerance=1e-10,
    source=VASWANI,
    subjects=(attention,),
    mutants=(
        Mutant("divided by d", "scaled_dot_product_attention",
               "math.sqrt(Q.shape[-1])", "Q.shape[-1]"),
        Mutant("divided by the root of the number of keys",
               "scaled_dot_product_attention",
               "Q.shape[-1]", "K.shape[-2]"),
        Mutant("the softmax is taken over the queries", "scaled_dot_product_attention",
               "P = torch.softmax(S, -1, out=place)",
               "P = torch.softmax(S, -2, out=place)"),
        Mutant("the bias is forgotten", "scaled_dot_product_attention",
               "S = S + bias", "S = S"),
        Mutant("the mask comes after the softmax", "scaled_dot_product_attention",
               "S = S.masked_fill(~mask, torch.finfo(S.dtype).min)", "pass"),
        Mutant("what may be read is hidden", "scaled_dot_product_attention",
               "S.masked_fill(~mask, torch.finfo(S.dtype).min)",
               "S.masked_fill(mask, torch.finfo(S.dtype).min)"),
        Mutant("keys and values change places", "scaled_dot_product_attention",
               "(P if Z is None else P * Z) @ V, P",
               "(P if Z is None else P * Z) @ K, P"),
    ),
)  # fmt: skip
def plain(attention) -> float:
    """Equal to torch's formula and to loops; rows sum to 1; a mean of the values."""
    (Q, K, V), mask, bias = example()
    residuals = []
    for m, b in ((None, None), (mask, None), (None, bias), (mask, bias)):
        output, P = attention.scaled_dot_product_attention(Q, K, V, m, b)
        if output.shape != (BATCH, HEADS, N_QUERY, D_VALUE):
            return torch.inf
        added = torch.zeros(N_QUERY, N_KEY).double() if b is None else b
        added = added if m is None else added.masked_fill(~m, -torch.inf)
        with sdpa_kernel(SDPBackend.MATH):
            expected = F.scaled_dot_product_attention(Q, K, V, added)
        inside = [None if x is None else x.expand_as(P)[1, 2] for x in (m, b)]
        looped = by_loops(Q[1, 2], K[1, 2], V[1, 2], *inside)
        residuals += [
            relative(output, expected),
            relative(output[1, 2], looped),
            relative(P.sum(-1), torch.ones_like(P[..., 0])),
            relative(P @ V, output),
            holds(bool((P >= 0).all())),
        ]
    # A mean with weights: each output is in the convex hull of the values.
    output, _ = attention.scaled_dot_product_attention(Q, K, V)
    inside = (output <= V.amax(-2, keepdim=True)) & (output >= V.amin(-2, keepdim=True))
    output, _ = attention.scaled_dot_product_attention(0 * Q, K, V)
    mean = V.mean(-2, keepdim=True).expand_as(output)
    fused = attention.fused_attention(Q, K, V, mask, bias)
    output_2, _ = attention.scaled_dot_product_attention(Q, K, V, mask, bias)
    return largest(
        [*residuals, holds(bool(inside.all())), relative(output, mean),
         relative(fused, output_2)]
    )  # fmt: skip


def by_autograd(Q, K, V, mask, bias, Z, O_bar) -> list[Tensor]:
    """Q_bar, K_bar, V_bar and B_bar from autograd, by a formula that is not ours."""
    leaves = [x.clone().requires_grad_() for x in (Q, K, V, bias)]
    S = torch.einsum("...id,...jd->...ij", *leaves[:2]) / Q.shape[-1] ** 0.5 + leaves[3]
    S = torch.where(mask, S, -torch.inf)
    P = (S - S.logsumexp(-1, keepdim=True)).exp()
    return list(torch.autograd.grad((P * Z) @ leaves[2], leaves, O_bar))


def slopes(f, x: Tensor, h: float = 1e-5) -> Tensor:
    """Differentiate a number by each entry of x by central differences."""
    found = torch.empty_like(x)
    for i in range(x.numel()):
        step = torch.zeros(x.numel(), dtype=x.dtype)
        step[i] = h
        step = step.view_as(x)
        found.view(-1)[i] = (f(x + step) - f(x - step)) / (2 * h)
    return found


@claim(
    "A5",
    "Attention, backwards",
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
    assumptions="the last identity needs keys that no rotation has turned",
    subjects=(attention,),
    mutants=(
        Mutant("the scores without the term D", "attention_backward",
               "S_bar = softmax_backward(P, P_bar)", "S_bar = P * P_bar"),
        Mutant("the weights in place of what dropout left of them",
               "attention_backward",
               "V_bar = dropped.mT @ O_bar", "V_bar = P.mT @ O_bar"),
        Mutant("dropout is not in the gradient of the weights", "attention_backward",
               "(O_bar @ V.mT) * Z", "O_bar @ V.mT"),
        Mutant("the keys without the scale", "attention_backward", "scale * Q", "Q"),
        Mutant("the queries divided by d", "attention_backward",
               "scale * K", "scale**2 * K"),
        Mutant("the values with the weights not transposed", "attention_backward",
               "V_bar = dropped.mT @ O_bar", "V_bar = dropped.flip(-1).mT @ O_bar"),
        Mutant("what reaches the weights directly is forgotten", "attention_backward",
               "P_bar = P_bar + G", "pass"),
        Mutant("the bias gets the mean of what it was spread over",
               "_Attention.backward",
               "S_bar.sum_to_size(ctx.of_bias)",
               "S_bar.sum_to_size(ctx.of_bias) / len(S_bar)"),
    ),
)  # fmt: skip
def backward(attention) -> float:
    """Autograd with masks, bias and dropout; central differences; the identities."""
    (Q, K, V), mask, bias = example()
    (O_bar,) = normal(1, (BATCH, HEADS, N_QUERY, D_VALUE))
    generator = torch.Generator().manual_seed(0)
    like = torch.empty(BATCH, HEADS, N_QUERY, N_KEY, dtype=torch.float64)
    every, none = torch.ones_like(mask), torch.zeros_like(bias)
    ones = torch.ones_like(like)
    dropped = attention.dropout_pattern(like, 0.4, generator)
    residuals = []
    for m, b, Z in (
        (every, none, ones),
        (mask, bias, ones),
        (every, none, dropped),
        (mask, bias, dropped),
    ):
        O, P = attention.scaled_dot_product_attention(Q, K, V, m, b, Z)  # noqa: E741
        found = attention.attention_backward(O_bar, Q, K, V, P, Z)
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
    leaves = [x.clone().requires_grad_() for x in (Q, K, V, bias)]
    output = attention.attention(*leaves[:3], mask, leaves[3])
    seen = torch.autograd.grad(output, leaves, O_bar)
    expected = by_autograd(Q, K, V, mask, bias, ones, O_bar)
    residuals.append(1e2 * worst(seen, expected))
    # A loss that reads output and weights: sum (O_bar O) + sum (G P).
    (G,) = normal(2, like.shape)
    both = attention.attention_with_weights(*leaves[:3], mask, leaves[3])
    seen = torch.autograd.grad(both, leaves, (O_bar, G))
    plain = attention.scaled_dot_product_attention(*leaves[:3], mask, leaves[3])
    expected = torch.autograd.grad(plain, leaves, (O_bar, G))
    residuals.append(1e2 * worst(seen, expected))

    # Without autograd, for one head: whatever it shares with us, this does not.
    inputs, inside = [x[0, 0] for x in (Q, K, V)], (mask[0, 0], bias[0])
    _, P = attention.scaled_dot_product_attention(*inputs, *inside)
    found = attention.attention_backward(O_bar[0, 0], *inputs, P)
    for n, name in enumerate("QKV"):

        def loss(x, n=n):
            given = [x if i == n else y for i, y in enumerate(inputs)]
            output, _ = attention.scaled_dot_product_attention(*given, *inside)
            return (output * O_bar[0, 0]).sum()

        residuals.append(relative(getattr(found, name), slopes(loss, inputs[n])))
    return largest(residuals)


@claim(
    "A8",
    "Masks",
    equations=("eq-mask", "eq-causal"),
    kinds="E G",
    tolerance=0.0,
    source=VASWANI + ", section 3.2.3",
    assumptions="what is masked is finite",
    subjects=(attention,),
    mutants=(
        Mutant("what may be read is hidden", "scaled_dot_product_attention",
               "S.masked_fill(~mask, torch.finfo(S.dtype).min)",
               "S.masked_fill(mask, torch.finfo(S.dtype).min)"),
        Mutant("-10 in place of the lowest number, and no second fill",
               "scaled_dot_product_attention",
               "S = S.masked_fill(~mask, torch.finfo(S.dtype).min)\nP = "
               "S.softmax(-1).masked_fill(~mask, 0.0)",
               "P = S.masked_fill(~mask, -10.0).softmax(-1)"),
        Mutant("the first query stands at the first key", "causal_mask",
               "every.tril(n_key - n_query)", "every.tril()"),
        Mutant("a position does not see itself", "causal_mask",
               "every.tril(n_key - n_query)", "every.tril(n_key - n_query - 1)"),
        Mutant("the future is seen, and not the past", "causal_mask",
               "every.tril(n_key - n_query)", "every.triu(n_key - n_query)"),
        Mutant("the first padded key is read", "padding_mask",
               "places < lengths.unsqueeze(-1)", "places <= lengths.unsqueeze(-1)"),
        # As many queries as keys would let it pass: there are fewer here.
        Mutant("the mask hides queries, not keys", "padding_mask",
               "(places < lengths.unsqueeze(-1)).unsqueeze(-2).unsqueeze(-2)",
               "(places < lengths.unsqueeze(-1)).unsqueeze(-2).unsqueeze(-1)",
               raises="RuntimeError"),
        Mutant("NaN is let in", "_check",
               "mask is not None and not _finite(given)", "False"),
    ),
)  # fmt: skip
def masks(attention) -> float:
    """Exact zeros: padded keys, the Jacobian above the diagonal; prefixes; refusals."""
    (Q, K, V), _, _ = example()
    padded = attention.padding_mask(torch.tensor([4, 6]), N_KEY)
    hidden = ~padded.expand(BATCH, HEADS, 1, N_KEY)[..., 0, :]
    output, P = attention.scaled_dot_product_attention(Q, K, V, padded)
    back = attention.attention_backward(torch.ones_like(output), Q, K, V, P)
    others = [x.masked_fill(hidden[..., None], 1e3) for x in (K, V)]
    again, _ = attention.scaled_dot_product_attention(Q, *others, padded)
    short = [x[:1, :, :4] for x in (K, V)]
    cut, _ = attention.scaled_dot_product_attention(Q[:1], *short)
    exact = [
        P.masked_select(hidden[..., None, :]),
        back.K[hidden],
        back.V[hidden],
        again - output,
    ]
    residuals = [x.abs().max().item() for x in exact]
    residuals.append(holds(relative(cut, output[:1]) < 1e-14))

    x = K[0, 0]
    causal = attention.causal_mask(N_KEY)

    def through(x):
        return attention.scaled_dot_product_attention(x, x, x, causal)[0]

    J = torch.autograd.functional.jacobian(through, x)  # i, c, j, e
    J = J.abs().amax((1, 3))
    future = torch.ones(N_KEY, N_KEY, dtype=torch.bool).triu(1)
    residuals += [J[future].max().item(), holds(bool((J[~future] > 0).all()))]
    # The last two of seven queries, with all keys: what decoding with a cache needs.
    last, _ = attention.scaled_dot_product_attention(
        x[-2:], x, x, attention.causal_mask(2, N_KEY)
    )
    prefix = x[:4]
    begin, _ = attention.scaled_dot_product_attention(
        prefix, prefix, prefix, causal[:4, :4]
    )
    whole = through(x)
    residuals += [
        holds(relative(last, whole[-2:]) < 1e-14),
        holds(relative(begin, whole[:4]) < 1e-14),
        refuses(attention, padded, hidden),
    ]
    return largest(residuals)


def refuses(attention, padded: Tensor, hidden: Tensor) -> float:
    """Return 0 if NaN behind a mask is refused, and only there."""
    (Q, K, V), _, _ = example()
    V = V.masked_fill(hidden[..., None], torch.nan)
    try:
        attention.scaled_dot_product_attention(Q, K, V, padded)
    except ValueError as error:
        return holds("V must be finite where a mask is given" in str(error))
    return holds(False)


@claim(
    "A9",
    "A query that may read nothing",
    equations=("eq-dead-row",),
    kinds="E I",
    tolerance=1e-12,
    source="our choice, and that of torch.nn.functional.scaled_dot_product_attention",
    subjects=(attention,),
    mutants=(
        Mutant("minus infinity, and no second fill", "scaled_dot_product_attention",
               "S = S.masked_fill(~mask, torch.finfo(S.dtype).min)\nP = "
               "S.softmax(-1).masked_fill(~mask, 0.0)",
               "P = S.masked_fill(~mask, -torch.inf).softmax(-1)"),
        Mutant("the row is not made zero", "scaled_dot_product_attention",
               "S.softmax(-1).masked_fill(~mask, 0.0)", "S.softmax(-1)"),
        Mutant("a billion is taken off the scores", "scaled_dot_product_attention",
               "S = S.masked_fill(~mask, torch.finfo(S.dtype).min)\nP = "
               "S.softmax(-1).masked_fill(~mask, 0.0)",
               "P = (S - (1e9 * ~mask).to(S.dtype)).softmax(-1)"),
        Mutant("the scores are set to minus a billion", "scaled_dot_product_attention",
               "S = S.masked_fill(~mask, torch.finfo(S.dtype).min)\nP = "
               "S.softmax(-1).masked_fill(~mask, 0.0)",
               "P = S.float().masked_fill(~mask, -1e9).softmax(-1).to(S.dtype)"),
    ),
)  # fmt: skip
def dead_rows(attention) -> float:
    """Zeros, forward and back, in four types; nothing else is touched; torch agrees."""
    (Q, K, V), mask, _ = example()
    (O_bar,) = normal(1, (BATCH, HEADS, N_QUERY, D_VALUE))
    dead = mask.clone()
    dead[:, :, 2] = False
    kept = [i for i in range(N_QUERY) if i != 2]
    residuals = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        q, k, v, o_bar = (x.to(dtype) for x in (Q, K, V, O_bar))
        output, P = attention.scaled_dot_product_attention(q, k, v, dead)
        back = attention.attention_backward(o_bar, q, k, v, P)
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        ours, _ = attention.scaled_dot_product_attention(*leaves, dead)
        auto = torch.autograd.grad(ours, leaves, o_bar)
        zeros = [x[:, :, 2] for x in (output, P, back.Q, auto[0])]
        residuals += [x.abs().max().item() for x in zeros]
        residuals += [
            holds(bool(x.isfinite().all())) for x in (output, P, *back, *auto)
        ]
    # The same as if the dead query had never been asked; and torch's answer.
    q, k, v = Q[:, :, kept], K, V
    output, P = attention.scaled_dot_product_attention(q, k, v, mask[:, :, kept])
    rest = attention.attention_backward(O_bar[:, :, kept], q, k, v, P)
    whole, P = attention.scaled_dot_product_attention(Q, K, V, dead)
    back = attention.attention_backward(O_bar, Q, K, V, P)
    peer = F.scaled_dot_product_attention(Q, K, V, dead)
    pairs = [(whole[:, :, kept], output), (back.K, rest.K), (back.V, rest.V)]
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
    assumptions="all keys have the same length",
    subjects=(attention,),
    mutants=(
        Mutant("the keys differ in length", "kernel_regression",
               "K = K / K.norm(dim=-1, keepdim=True)", "pass", module=__name__),
        Mutant("the kernel is as wide as without the scale", "kernel_regression",
               "2 * math.sqrt(D_KEY)", "2", module=__name__),
        Mutant("not divided", "scaled_dot_product_attention",
               "(Q / math.sqrt(Q.shape[-1])) @ K.mT", "Q @ K.mT"),
    ),
)  # fmt: skip
def kernel_regression(attention) -> float:
    """A mean of the values, weighted by a Gaussian of the distance to the query."""
    (Q, K, V), _, _ = example()
    K = K / K.norm(dim=-1, keepdim=True)
    squares = (Q[..., :, None, :] - K[..., None, :, :]).square().sum(-1)
    kernel = torch.exp(-squares / (2 * math.sqrt(D_KEY)))
    expected = (kernel @ V) / kernel.sum(-1, keepdim=True)
    output, _ = attention.scaled_dot_product_attention(Q, K, V)
    return relative(output, expected)
