"""Chapter 3: attention block by block."""

import torch

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
        Mutant("what was summed before is not shrunk", "merge",
               "a.l * of_a + b.l * of_b", "a.l + b.l * of_b"),
        Mutant("the values are not shrunk", "merge", "a.o * of_a.unsqueeze(-1)", "a.o"),
        Mutant("the new block is not shrunk", "merge", "b.l * of_b", "b.l"),
        Mutant("the largest score of the last block alone", "merge",
               "m = torch.maximum(a.m, b.m)", "m = b.m"),
        Mutant("nothing minus nothing", "merge",
               "torch.exp(a.m - _finite(m))", "torch.exp(a.m - m)"),
        Mutant("a block of which nothing may be read", "block_state",
               "torch.exp(S - _finite(m).unsqueeze(-1))",
               "torch.exp(S - m.unsqueeze(-1))"),
        Mutant("the exponentials overflow", "block_state",
               "m = S.amax(-1)", "m = 0 * S[..., 0]"),
        Mutant("the keys after the last whole block are lost", "_blocks",
               "range(0, n_key, block)", "range(0, n_key - block + 1, block)"),
        Mutant("the way back without the term D", "blockwise_backward",
               "(O_bar @ V_b.mT - D)", "(O_bar @ V_b.mT)"),
        Mutant("the queries hear of the last block alone", "blockwise_backward",
               "Q_bar += S_bar @ (scale * K_b)", "Q_bar = S_bar @ (scale * K_b)"),
    ),
)  # fmt: skip
def online() -> float:
    """Every size of block, forward and back; scores of 10,000; any order of merging."""
    (Q, K, V), mask, bias = example()
    (O_bar,) = normal(1, (*Q.shape[:-1], D_VALUE))
    mask[..., 0, :] = False  # may read nothing
    mask[:, :, 1, :4] = False  # nothing in the first blocks
    residuals = []
    for m, b, size in ((None, None, 1), (mask, bias, 1), (None, bias, 1e4)):
        every = torch.ones_like(mask) if m is None else m
        added = torch.zeros_like(bias) if b is None else b
        q = size * Q
        S = (q @ K.mT) / Q.shape[-1] ** 0.5 + added
        S = S.masked_fill(~every, torch.finfo(S.dtype).min)
        P = S.softmax(-1).masked_fill(~every, 0)
        of_torch = S.logsumexp(-1).masked_fill(~every.any(-1), -torch.inf)
        # A dead row has no gradient: autograd is asked about the others.
        alive = every.any(-1, keepdim=True)
        safe = every | ~alive
        back = by_autograd(q, K, V, safe, added, torch.ones_like(P), O_bar * alive)
        for block in (1, 2, 3, N_KEY - 1, N_KEY, N_KEY + 5):
            output, log_sum = blockwise.blockwise_attention(q, K, V, m, b, block=block)
            found = blockwise.blockwise_backward(
                O_bar, q, K, V, output, log_sum, m, b, block=block
            )
            ends = log_sum.isfinite() == of_torch.isfinite()
            residuals += [
                relative(output, P @ V),
                relative(log_sum.nan_to_num(neginf=0), of_torch.nan_to_num(neginf=0)),
                holds(bool(ends.all())),
                # scores of 10,000 are rounded 10,000 times as coarsely
                worst(found[:3], back[:3]) / size,
            ]
    leaves = [x.clone().requires_grad_() for x in (Q, K, V, bias)]
    seen = blockwise.online_attention(*leaves[:3], mask, leaves[3], block=3)
    plain = plain_weights(Q, K, bias, mask) @ V
    ours = blockwise.blockwise_backward(
        O_bar, Q, K, V, *blockwise.blockwise_attention(Q, K, V, mask, bias),
        mask, bias,
    )  # fmt: skip
    residuals.append(relative(seen, plain))
    residuals.append(worst(torch.autograd.grad(seen, leaves, O_bar), ours))
    return largest([*residuals, merging(blockwise)])


def plain_weights(Q, K, bias, mask):
    """Return the weights by the plain formula, zero where nothing may be read."""
    S = (Q @ K.mT) / Q.shape[-1] ** 0.5 + bias
    S = S.masked_fill(~mask, torch.finfo(S.dtype).min)
    return S.softmax(-1).masked_fill(~mask, 0)


def merging(blockwise) -> float:
    """Associative, commutative, and nothing is the neutral state."""
    S, V = normal(2, (3, 5, 7), (7, D_VALUE))
    S[..., 2:4] = -torch.inf  # a block without anything
    merge, block_state = blockwise.merge, blockwise.block_state
    a, b, c = (
        block_state(S[..., part], V[part].expand(3, -1, -1))
        for part in (slice(0, 2), slice(2, 4), slice(4, 7))
    )
    empty = blockwise.empty_state((3, 5), D_VALUE, S)
    whole = block_state(S, V.expand(3, -1, -1))
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
