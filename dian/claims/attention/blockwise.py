"""Online softmax: attention block by block."""

import torch
from torch import Tensor

from dian.attention import blockwise
from dian.claims import Mutant, claim
from dian.claims.attention.dot_product import D_VALUE, N_KEY, by_autograd, example
from dian.claims.compare import holds, largest, normal, relative, worst


@claim(
    "A10",
    "Online softmax",
    equations=("eq-online-state", "eq-online-merge", "eq-online-back"),
    kinds="H G E",
    tolerance=1e-10,
    source="Milakov and Gimelshein, 2018, arXiv:1805.02867, algorithm 3; Dao et al., "
    "FlashAttention, 2022, arXiv:2205.14135, algorithm 4",
    subjects=(blockwise,),
    mutants=(
        Mutant("the running sum is not rescaled", "merge_states",
               "a.l * scale_a + b.l * scale_b", "a.l + b.l * scale_b"),
        Mutant("the running output is not rescaled", "merge_states",
               "a.o * scale_a.unsqueeze(-1)", "a.o"),
        Mutant("the new block is not rescaled", "merge_states", "b.l * scale_b", "b.l"),
        Mutant("the maximum of the last block alone", "merge_states",
               "m = torch.maximum(a.m, b.m)", "m = b.m"),
        Mutant("minus infinity is subtracted from itself", "merge_states",
               "torch.exp(x.m - _zero_if_infinite(m))", "torch.exp(x.m - m)"),
        Mutant("NaN for a fully masked block", "block_state",
               "torch.exp(S - _zero_if_infinite(m).unsqueeze(-1))",
               "torch.exp(S - m.unsqueeze(-1))"),
        Mutant("the exponentials overflow", "block_state",
               "m = S.amax(-1)", "m = 0 * S[..., 0]"),
        Mutant("keys after the last full block are dropped", "_blocks",
               "range(0, n_key, block)", "range(0, n_key - block + 1, block)"),
        Mutant("the backward pass without the term D", "blockwise_backward",
               "(O_bar @ V_b.mT - D)", "(O_bar @ V_b.mT)"),
        Mutant("the gradient of the bias is not summed over the queries",
               "blockwise_backward",
               "own += S_bar.sum_to_size(own.shape)",
               "own += S_bar[..., :1, :].sum_to_size(own[..., :1, :].shape)"),
        Mutant("a bias shared by the keys gets the gradient of the last block",
               "blockwise_backward",
               "own += S_bar.sum_to_size(own.shape)",
               "own.copy_(S_bar.sum_to_size(own.shape))"),
        Mutant("a block takes the bias of the first", "_scores",
               "bias.expand(whole)[..., keys]",
               "bias.expand(whole)[..., :keys.stop - keys.start]"),
        Mutant("a block takes the mask of the first", "_scores",
               "mask.expand(whole)[..., keys]",
               "mask.expand(whole)[..., :keys.stop - keys.start]"),
        Mutant("the gradient of the queries is that of the last block",
               "blockwise_backward",
               "Q_bar += S_bar @ (scale * K_b)", "Q_bar = S_bar @ (scale * K_b)"),
    ),
)  # fmt: skip
def online() -> float:
    """Any block size, forward and backward; scores of 10,000; any order of merging."""
    (Q, K, V), mask, bias = example()
    (O_bar,) = normal(1, (*Q.shape[:-1], D_VALUE))
    mask[..., 0, :] = False  # fully masked
    mask[:, :, 1, :4] = False  # fully masked in the first blocks
    residuals = []
    for m, b, size in ((None, None, 1), (mask, bias, 1), (None, bias, 1e4)):
        every = torch.ones_like(mask) if m is None else m
        added = torch.zeros_like(bias) if b is None else b
        q = size * Q
        P = plain_weights(q, K, every, added)
        log_sum = scores(q, K, every, added).logsumexp(-1)
        # Autograd gives NaN for a fully masked query: it gets all keys and no gradient.
        alive = every.any(-1, keepdim=True)
        ones = torch.ones_like(P)
        back = by_autograd(q, K, V, every | ~alive, added, ones, O_bar * alive)
        for block in (1, 2, 3, N_KEY - 1, N_KEY, N_KEY + 5):
            options = {"mask": m, "bias": b, "block": block}
            found = blockwise.blockwise_attention(q, K, V, **options)
            gradients = blockwise.blockwise_backward(O_bar, q, K, V, found, **options)
            pair = [x.nan_to_num(neginf=0) for x in (found.log_sum, log_sum)]
            residuals += [
                relative(found.output, P @ V),
                relative(*pair),
                holds(torch.equal(found.log_sum.isneginf(), log_sum.isneginf())),
                # the rounding errors of scores of 10,000 are 10,000 times as large
                worst(gradients[:3], back[:3]) / size,
            ]
            if b is not None:
                residuals.append(relative(gradients.B, back[3]) / size)
    residuals += differentiable(Q, K, V, mask, bias, O_bar)
    residuals += broadcast(Q, K, V, bias, O_bar)
    return largest([*residuals, merging()])


def broadcast(Q, K, V, bias, O_bar) -> list[float]:
    """Compare the gradients of inputs and biases that are broadcast."""
    every, residuals = torch.ones(Q.shape[-2], N_KEY, dtype=torch.bool), []
    ones = torch.ones(*Q.shape[:-1], N_KEY, dtype=Q.dtype)
    for part in (bias[:, :1], bias[:1, :, :1], bias[:, :, :1], bias[0]):
        inputs, options = (Q, K[:1], V[:, :1]), {"bias": part, "block": 3}
        found = blockwise.blockwise_attention(*inputs, **options)
        back = blockwise.blockwise_backward(O_bar, *inputs, found, **options)
        expected = by_autograd(*inputs, every, part, ones, O_bar)
        residuals.append(worst(back, expected))
    return residuals


def differentiable(Q, K, V, mask, bias, O_bar) -> list[float]:
    """Compare :func:`.online_attention` with the formula, and its gradients."""
    leaves = [x.clone().requires_grad_() for x in (Q, K, V, bias)]
    options = {"mask": mask, "block": 3}
    output = blockwise.online_attention(*leaves[:3], bias=leaves[3], **options)
    expected = plain_weights(Q, K, mask, bias) @ V
    found = blockwise.blockwise_attention(Q, K, V, mask=mask, bias=bias)
    by_hand = blockwise.blockwise_backward(O_bar, Q, K, V, found, mask=mask, bias=bias)
    by_autograd = torch.autograd.grad(output, leaves, O_bar)
    return [relative(output, expected), worst(by_autograd, by_hand)]


def scores(Q, K, mask, bias) -> Tensor:
    """Return the scores by the formula, minus infinity where masked."""
    S = (Q @ K.mT) / Q.shape[-1] ** 0.5 + bias
    return S.masked_fill(~mask, -torch.inf)


def plain_weights(Q, K, mask, bias) -> Tensor:
    """Return the weights by the formula, zero where masked."""
    return scores(Q, K, mask, bias).softmax(-1).masked_fill(~mask, 0)


def merging() -> float:
    """Merging is associative and commutative, with the empty state as identity."""
    S, V = normal(2, (3, 5, 7), (7, D_VALUE))
    S[..., 2:4] = -torch.inf  # a fully masked block
    V = V.expand(3, -1, -1)
    merge, empty = blockwise.merge_states, blockwise.empty_state(S, V)
    a, b, c = (
        blockwise.block_state(S[..., keys], V[:, keys])
        for keys in (slice(0, 2), slice(2, 4), slice(4, 7))
    )
    whole = blockwise.block_state(S, V)
    pairs = [
        (merge(merge(a, b), c), merge(a, merge(b, c))),
        (merge(a, c), merge(c, a)),
        (merge(a, empty), a),
        (merge(empty, a), a),
        (merge(merge(c, b), a), whole),
    ]
    both = merge(empty, empty)
    still = bool((both.m == -torch.inf).all()) and not both.l.any() and not both.o.any()
    return largest([holds(still), *(worst(x, y) for x, y in pairs)])
