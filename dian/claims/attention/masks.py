"""Attention masks: causal and padding."""

import torch
from torch import Tensor

from dian.attention import dot_product, masks
from dian.claims import Mutant, claim
from dian.claims.attention.dot_product import (
    BATCH,
    HEADS,
    N_KEY,
    VASWANI,
    example,
)
from dian.claims.compare import holds, largest, relative


@claim(
    "A8",
    "Masks",
    equations=("eq-mask", "eq-causal"),
    kinds="E G",
    tolerance=0.0,
    source=VASWANI + ", section 3.2.3",
    assumptions="what is masked is finite",
    subjects=(dot_product,),
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
               "every.tril(n_key - n_query)", "every.tril()", module=masks),
        Mutant("a position does not see itself", "causal_mask",
               "every.tril(n_key - n_query)", "every.tril(n_key - n_query - 1)",
               module=masks),
        Mutant("the future is seen, and not the past", "causal_mask",
               "every.tril(n_key - n_query)", "every.triu(n_key - n_query)",
               module=masks),
        Mutant("the first padded key is read", "padding_mask",
               "places < lengths.unsqueeze(-1)", "places <= lengths.unsqueeze(-1)",
               module=masks),
        # As many queries as keys would let it pass: there are fewer here.
        Mutant("the mask hides queries, not keys", "padding_mask",
               "(places < lengths.unsqueeze(-1)).unsqueeze(-2).unsqueeze(-2)",
               "(places < lengths.unsqueeze(-1)).unsqueeze(-2).unsqueeze(-1)",
               module=masks, raises="RuntimeError"),
        Mutant("NaN is let in", "_check",
               "mask is not None and not _finite(given)", "False"),
    ),
)  # fmt: skip
def masks_act_exactly() -> float:
    """Exact zeros: padded keys, the Jacobian above the diagonal; prefixes; refusals."""
    (Q, K, V), _, _ = example()
    padded = masks.padding_mask(torch.tensor([4, 6]), N_KEY)
    hidden = ~padded.expand(BATCH, HEADS, 1, N_KEY)[..., 0, :]
    output, P = dot_product.scaled_dot_product_attention(Q, K, V, padded)
    back = dot_product.attention_backward(torch.ones_like(output), Q, K, V, P)
    others = [x.masked_fill(hidden[..., None], 1e3) for x in (K, V)]
    again, _ = dot_product.scaled_dot_product_attention(Q, *others, padded)
    short = [x[:1, :, :4] for x in (K, V)]
    cut, _ = dot_product.scaled_dot_product_attention(Q[:1], *short)
    exact = [
        P.masked_select(hidden[..., None, :]),
        back.K[hidden],
        back.V[hidden],
        again - output,
    ]
    residuals = [x.abs().max().item() for x in exact]
    residuals.append(holds(relative(cut, output[:1]) < 1e-14))

    x = K[0, 0]
    causal = masks.causal_mask(N_KEY)

    def through(x):
        return dot_product.scaled_dot_product_attention(x, x, x, causal)[0]

    J = torch.autograd.functional.jacobian(through, x)  # i, c, j, e
    J = J.abs().amax((1, 3))
    future = torch.ones(N_KEY, N_KEY, dtype=torch.bool).triu(1)
    residuals += [J[future].max().item(), holds(bool((J[~future] > 0).all()))]
    # The last two of seven queries, with all keys: what decoding with a cache needs.
    last, _ = dot_product.scaled_dot_product_attention(
        x[-2:], x, x, masks.causal_mask(2, N_KEY)
    )
    prefix = x[:4]
    begin, _ = dot_product.scaled_dot_product_attention(
        prefix, prefix, prefix, causal[:4, :4]
    )
    whole = through(x)
    residuals += [
        holds(relative(last, whole[-2:]) < 1e-14),
        holds(relative(begin, whole[:4]) < 1e-14),
        refuses(padded, hidden),
    ]
    return largest(residuals)


def refuses(padded: Tensor, hidden: Tensor) -> float:
    """Return 0 if NaN behind a mask is refused, and only there."""
    (Q, K, V), _, _ = example()
    V = V.masked_fill(hidden[..., None], torch.nan)
    try:
        dot_product.scaled_dot_product_attention(Q, K, V, padded)
    except ValueError as error:
        return holds("V must be finite where a mask is given" in str(error))
    return holds(False)
