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
    subjects=(dot_product, masks),
    mutants=(
        Mutant("the mask is inverted", "scaled_dot_product_attention",
               "S.masked_fill(~mask, torch.finfo(S.dtype).min)",
               "S.masked_fill(mask, torch.finfo(S.dtype).min)"),
        Mutant("-10 instead of the lowest number, and no second fill",
               "scaled_dot_product_attention",
               "S = S.masked_fill(~mask, torch.finfo(S.dtype).min)\nP = "
               "S.softmax(-1).masked_fill(~mask, 0.0)",
               "P = S.masked_fill(~mask, -10.0).softmax(-1)"),
        Mutant("the causal mask is aligned at the first key", "causal_mask",
               "ones.tril(n_key - n_query)", "ones.tril()", module=masks),
        Mutant("a position does not attend to itself", "causal_mask",
               "ones.tril(n_key - n_query)", "ones.tril(n_key - n_query - 1)",
               module=masks),
        Mutant("the past is masked, not the future", "causal_mask",
               "ones.tril(n_key - n_query)", "ones.triu(n_key - n_query)",
               module=masks),
        Mutant("the first padded key is not masked", "padding_mask",
               "positions < lengths.unsqueeze(-1)",
               "positions <= lengths.unsqueeze(-1)", module=masks),
        # With as many queries as keys, it would not raise an error.
        Mutant("queries are masked, not keys", "padding_mask",
               "(positions < lengths.unsqueeze(-1)).unsqueeze(-2).unsqueeze(-2)",
               "(positions < lengths.unsqueeze(-1)).unsqueeze(-2).unsqueeze(-1)",
               module=masks, raises="RuntimeError"),
        Mutant("the kernel of torch adds the mask as a bias", "fused_attention",
               "added = mask", "added = None if mask is None else mask.to(Q)"),
        Mutant("NaN is accepted", "check_inputs",
               "require(all_finite(given), message)", "pass"),
    ),
)  # fmt: skip
def masks_act_exactly() -> float:
    """Zeros are exact: padded keys, Jacobian above the diagonal; NaN is rejected."""
    (Q, K, V), _, _ = example()
    padded = masks.padding_mask(torch.tensor([4, 6]), N_KEY)
    masked = ~padded.expand(BATCH, HEADS, 1, N_KEY)[..., 0, :]
    output, P = dot_product.scaled_dot_product_attention(Q, K, V, mask=padded)
    back = dot_product.attention_backward(torch.ones_like(output), Q, K, V, P)
    others = [x.masked_fill(masked[..., None], 1e3) for x in (K, V)]
    again, _ = dot_product.scaled_dot_product_attention(Q, *others, mask=padded)
    short = [x[:1, :, :4] for x in (K, V)]
    cut, _ = dot_product.scaled_dot_product_attention(Q[:1], *short)
    exact = [
        P.masked_select(masked[..., None, :]),
        back.K[masked],
        back.V[masked],
        again - output,
    ]
    residuals = [x.abs().max().item() for x in exact]
    residuals.append(holds(relative(cut, output[:1]) < 1e-14))

    x = K[0, 0]
    causal = masks.causal_mask(N_KEY)

    def through(x):
        return dot_product.scaled_dot_product_attention(x, x, x, mask=causal)[0]

    def trained(x):
        return dot_product.attention(x[None], x[None], x[None], mask=causal)[0]

    def fused(x):
        return dot_product.fused_attention(x, x, x, mask=causal)

    future = torch.ones(N_KEY, N_KEY, dtype=torch.bool).triu(1)
    for route in (through, trained, fused):
        J = torch.autograd.functional.jacobian(route, x)  # i, c, j, e
        J = J.abs().amax((1, 3))
        residuals += [J[future].max().item(), holds(bool((J[~future] > 0).all()))]
    # The last two of seven queries with all keys, as in decoding with a cache.
    last, _ = dot_product.scaled_dot_product_attention(
        x[-2:], x, x, mask=masks.causal_mask(2, N_KEY)
    )
    prefix = x[:4]
    begin, _ = dot_product.scaled_dot_product_attention(
        prefix, prefix, prefix, mask=causal[:4, :4]
    )
    whole = through(x)
    residuals += [
        holds(relative(last, whole[-2:]) < 1e-14),
        holds(relative(begin, whole[:4]) < 1e-14),
        rejects_nan(padded, masked),
    ]
    return largest(residuals)


def rejects_nan(padded: Tensor, masked: Tensor) -> float:
    """Return 0 if NaN at masked keys raises the error that names it."""
    (Q, K, V), _, _ = example()
    V = V.masked_fill(masked[..., None], torch.nan)
    try:
        dot_product.scaled_dot_product_attention(Q, K, V, mask=padded)
    except ValueError as error:
        return holds("V must be finite if a mask is given" in str(error))
    return holds(False)
