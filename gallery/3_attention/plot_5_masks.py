r"""
Masks: what is hidden, how, and what leaks
==========================================

**Question.** How is a key hidden from a query, so that it really is? And what does a
query return that may read nothing?

**Answer.** By a boolean mask in which true means *may be read*, applied to the scores
before the softmax. A hidden key then has a weight and a gradient of exactly zero, and
under a causal mask the Jacobian has exact zeros above the diagonal. Adding a large
negative number instead is three different things in three types of numbers. A query
that may read nothing returns zeros and sends zeros back, in every type; with minus
infinity and nothing else it returns NaN, and on the way back it spoils every value. The
one thing that no mask hides is a NaN: it is refused.

**Source.** Masks: Vaswani et al., *Attention Is All You Need*, 2017 (arXiv:1706.03762),
section 3.2.3, which does not say what a query returns that may read nothing. **Cost.**
Seconds on a CPU, no download.
"""

# %%
# The rule
# --------
# With :math:`M_{ij} \in \{0, 1\}`, 1 where query :math:`i` may read key :math:`j`,
#
# .. math::
#    :label: eq-mask
#
#    P_{ij} = \frac{M_{ij}\, e^{s_{ij}}}{\sum_l M_{il}\, e^{s_{il}}}, \qquad
#    M_{ij} = 0 \;\Rightarrow\; P_{ij} = 0, \quad \frac{\partial O_i}{\partial k_j}
#    = \frac{\partial O_i}{\partial v_j} = 0 .
#
# Three masks are common. *Padding* hides what was added to make sequences equally long.
# *Causal* hides what comes later, so that a prediction cannot read its own answer. And
# any other says which pairs belong together.

import matplotlib.pyplot as plt
import torch
from torch.autograd.functional import jacobian
from torch.nn import functional as F

from dian.attention.dot_product import attention_backward, scaled_dot_product_attention
from dian.attention.masks import causal_mask, padding_mask
from dian.figures import plots

n, d = 7, 5
generator = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


Q, K, V = normal(n, d), normal(n, d), normal(n, d)
blocks = torch.arange(n) // 3
masks = {
    "none": torch.ones(n, n, dtype=torch.bool),
    "padding, 5 of 7": padding_mask(torch.tensor(5), n)[0].expand(n, n),
    "causal": causal_mask(n),
    "both": causal_mask(n) & padding_mask(torch.tensor(5), n)[0],
    "blocks of 3": blocks[:, None] == blocks,
}

fig, axes = plt.subplots(2, 5, figsize=(10, 4.6), layout="constrained")
for column, (name, M) in zip(axes.T, masks.items(), strict=True):
    _, P = scaled_dot_product_attention(Q, K, V, mask=M)
    plots.attention(column[0], M.numpy(), name, largest=1)
    plots.attention(column[1], P.numpy(), "weights", largest=1)
    assert not P[~M].any()
    assert torch.allclose(P.sum(1), torch.ones(n).double())
for ax in axes.flat:
    ax.label_outer()
fig.suptitle("Masks (above: dark may be read), and weights under them")
plt.show()

# %%
# Which way round?
# ----------------
# Libraries differ, and one differs with itself. In :class:`torch.nn.MultiheadAttention`
# true means *hidden*; in :func:`torch.nn.functional.scaled_dot_product_attention`, one
# layer below, it means *may be read*, and so it does here. Here is what each makes of a
# mask in which one entry of the first query is true.

single = torch.zeros(n, n, dtype=torch.bool)
single[:, 0] = True
_, P = scaled_dot_product_attention(Q, K, V, mask=single)
peer = torch.nn.MultiheadAttention(d, 1, batch_first=True).double()
_, of_peer = peer(Q[None], K[None], V[None], attn_mask=single)
functional = F.scaled_dot_product_attention(Q[None], K[None], V[None], single)
print("weight of the key that is marked true, for the first query:")
print(f"  here {P[0, 0]:.0f}; torch.nn.MultiheadAttention {of_peer[0, 0, 0]:.0f}")

assert P[0, 0] == 1
assert of_peer[0, 0, 0] == 0
assert torch.allclose(functional[0, 0], V[0])

# %%
# Along which axis?
# -----------------
# What is hidden is a *key*: a column of the weights. A text that reads itself has as
# many queries as keys, so that a mask along the other axis fits, too, and nothing
# complains. The padded queries then return zeros, which nobody reads, and all other
# queries read the padding.

padded = masks["padding, 5 of 7"]
_, right = scaled_dot_product_attention(Q, K, V, mask=padded)
_, wrong = scaled_dot_product_attention(Q, K, V, mask=padded.T)
print("weights on two padded keys, summed, of the five queries that are not padded:")
print("  hidden are keys:   ", *(f"{p:.2f}" for p in right[:5, 5:].sum(1)))
print("  hidden are queries:", *(f"{p:.2f}" for p in wrong[:5, 5:].sum(1)))

assert not right[:, 5:].any()
assert (wrong[:5, 5:] > 0).all()
assert not wrong[5:].any()

# %%
# Which key comes last?
# ---------------------
# Nor do all mean the same by *causal* if there are more keys than queries, as when keys
# have been kept from earlier steps. torch's ``is_causal`` is aligned at the top left:
# the first query stands at the first key. For decoding, the last query must stand at
# the last key.

ones = torch.ones(2, 5, dtype=torch.bool)
print("here (the last query at the last key):", causal_mask(2, 5).int().tolist())
print("top left:                             ", ones.tril().int().tolist())

of_torch = F.scaled_dot_product_attention(Q[:2], K[:5], V[:5], is_causal=True)
top_left, _ = scaled_dot_product_attention(Q[:2], K[:5], V[:5], mask=ones.tril())
assert torch.allclose(of_torch, top_left)

# %%
# Exact zeros
# -----------
# Under a causal mask, no output depends on a later input:
#
# .. math::
#    :label: eq-causal
#
#    \frac{\partial O_i}{\partial x_j} = 0 \quad \text{for } j > i,
#
# and not nearly zero. So a prefix gives the prefix of the result, and what was computed
# for it can be kept.

M = causal_mask(n)
x = normal(n, d)
J = jacobian(lambda x: scaled_dot_product_attention(x, x, x, mask=M)[0], x)
size = J.abs().amax((1, 3))  # the largest entry of each block

fig, ax = plt.subplots(figsize=(4.4, 3.6), layout="constrained")
image = plots.attention(ax, size.numpy(), "Largest entry of the Jacobian, causal mask")
ax.set(xlabel="input $j$", ylabel="output $i$")
fig.colorbar(image, ax=ax)
plt.show()

whole, _ = scaled_dot_product_attention(x, x, x, mask=M)
prefix, _ = scaled_dot_product_attention(x[:4], x[:4], x[:4], mask=M[:4, :4])
print("largest entry above the diagonal:", size.triu(1).max().item())
print(f"prefix of 4: {(prefix - whole[:4]).abs().max():.0e} from that of the whole")

assert size.triu(1).max() == 0
assert (size.tril() > 0)[M].all()
assert torch.allclose(prefix, whole[:4], rtol=0, atol=1e-14)

# %%
# A query that may read nothing
# -----------------------------
# The fraction of :eq:`eq-mask` is then 0/0. The rule here, and in torch's function, is
#
# .. math::
#    :label: eq-dead-row
#
#    \sum_l M_{il} = 0: \qquad P_{ij} = 0, \qquad O_i = 0, \qquad \bar S_{ij} = 0 .
#
# Hidden scores are set to the lowest finite number, the softmax is taken, and then the
# weights are set to zero. Other ways are on the way. Here is what each gives for a
# query that may read nothing, and whether the gradients by the values are still
# numbers, though the loss does not look at that query.

mask = torch.ones(n, n, dtype=torch.bool)
mask[:, 5:] = False
mask[2] = False


def ours(S: torch.Tensor) -> torch.Tensor:
    """Return weights that are zero where nothing may be read."""
    low = torch.finfo(S.dtype).min
    return S.masked_fill(~mask, low).softmax(-1).masked_fill(~mask, 0)


ways = {
    "lowest number, then zeros": ours,
    "minus infinity": lambda S: S.masked_fill(~mask, -torch.inf).softmax(-1),
    "set to -1e9": lambda S: S.masked_fill(~mask, -1e9).softmax(-1),
    "add -1e9": lambda S: (S + (-1e9 * ~mask).to(S.dtype)).softmax(-1),
}
types = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
seen = {}
for dtype in types:
    print(f"{str(dtype)[6:]:9} {'fully masked query':24} gradients by values")
    for way, weigh in ways.items():
        q, k, v = (x.to(dtype, copy=True).requires_grad_() for x in (Q, K, V))
        S = q @ k.T / d**0.5
        try:
            P = weigh(S)
        except RuntimeError:
            print(f"  {way:26} refused: the type has no such number")
            seen[dtype, way] = "refused"
            continue
        alive = torch.arange(n) != 2
        (P @ v)[alive].sum().backward()
        row = P[2].detach().double()
        plain = S[2].detach().double().softmax(-1)
        what = {
            "zeros": not row.any(),
            "NaN": bool(row.isnan().any()),
            "even": torch.allclose(row, torch.full((n,), 1 / n).double(), atol=1e-3),
            "not masked at all": torch.allclose(row, plain, atol=1e-5),
        }
        found = next((name for name, true in what.items() if true), "something else")
        finite = bool(v.grad.isfinite().all())
        seen[dtype, way] = found, finite
        print(f"  {way:26} {found:18}", "numbers" if finite else "NaN in every row")
        if not finite:
            assert v.grad.isnan().any(1).all()

for dtype in types:
    assert seen[dtype, "lowest number, then zeros"] == ("zeros", True)
    assert seen[dtype, "minus infinity"] == ("NaN", False)
assert seen[torch.float32, "add -1e9"] == ("even", True)
assert seen[torch.float64, "add -1e9"] == ("not masked at all", True)
assert seen[torch.float16, "add -1e9"] == ("NaN", False)
assert seen[torch.float16, "set to -1e9"] == "refused"

# %%
# The same line of code is an even mean over keys that were to be hidden, or attention
# without any mask, or NaN, and it is the type of the numbers that decides. In float64 a
# billion is taken off *every* score of the row, which changes nothing; in float32 the
# scores drown in the billion, and all are alike; float16 has no such number.
#
# And the NaN does not stay in its row. Its weights are in :math:`\bar V = P^\top \bar
# O`, where a NaN times zero is a NaN for every key, whatever the loss looks at.

q, k, v = (x.clone().requires_grad_() for x in (Q, K, V))
output, P = scaled_dot_product_attention(q, k, v, mask=mask)
back = attention_backward(torch.ones_like(output), *(x.detach() for x in (q, k, v, P)))
peer_output = F.scaled_dot_product_attention(Q, K, V, mask)

assert not output[2].any()
assert not back.Q[2].any()
assert torch.allclose(output, peer_output, rtol=0, atol=1e-12)

# %%
# What a mask does not hide
# -------------------------
# A weight of zero times a NaN is a NaN. If the padding of a batch was never filled in,
# and is not a number, then no mask over the weights helps. So this is refused, in one
# line.

unfilled = V.clone()
unfilled[6] = torch.nan
in_formula = ours(Q @ K.T / d**0.5) @ unfilled
print("rows that the formula spoils:", int(in_formula.isnan().any(1).sum()), "of", n)
try:
    scaled_dot_product_attention(Q, K, unfilled, mask=mask)
except ValueError as error:
    print("here:", error)
else:
    raise AssertionError("a NaN was let in")

assert in_formula.isnan().all(0).all()

# %%
# Limits
# ------
# What a masked *query* returns is not hidden by any of this: its output is computed,
# and must be left out of the loss (the mask of :eq:`eq-cross-entropy`).
