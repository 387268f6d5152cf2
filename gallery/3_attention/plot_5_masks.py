r"""
Adding a large negative number does not replace a mask
======================================================

**Question.** How is a key masked so that it has no influence at all, and what does a
query return that may attend to no key?

**Answer.** A Boolean mask, in which true means *may attend*, is applied to the scores
before the softmax: a masked key has a weight and a gradient of exactly zero. A fully
masked query should return zeros. With :math:`-\infty` alone, such a query makes all
gradients of the values NaN; adding :math:`-10^9` has three different results in three
dtypes.

**Source.** Masks: Vaswani et al., *Attention Is All You Need*, 2017 (arXiv:1706.03762),
section 3.2.3, which does not define the output of a fully masked query. **Cost.**
Seconds on a CPU, no download.
"""

# %%
# Five masks
# ----------
# A mask has the entry 1 (true) where a query may attend to a key, :eq:`eq-mask`. Three
# kinds are common: *padding* masks exclude the positions that make sequences equally
# long, *causal* masks exclude later positions, and *block* masks separate sequences
# that share a row of a batch.

import matplotlib.pyplot as plt
import torch
from torch.autograd.functional import jacobian
from torch.nn import functional as F

from dian.attention.dot_product import attention_backward, scaled_dot_product_attention
from dian.attention.masks import causal_mask, padding_mask
from dian.figures import plots
from dian.figures.interactive import Interactive
from dian.figures.tables import markdown_table

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

fig, axes = plt.subplots(2, 5, figsize=(7, 4), layout="constrained")
for column, (name, M) in zip(axes.T, masks.items(), strict=True):
    _, P = scaled_dot_product_attention(Q, K, V, mask=M)
    plots.attention(column[0], M.numpy(), name, largest=1)
    plots.attention(column[1], P.numpy(), "weights", largest=1)
    assert not P[~M].any()
    assert torch.allclose(P.sum(1), torch.ones(n).double())
for ax in axes.flat:
    ax.label_outer()
fig.suptitle("Masks (top, dark: may attend) and attention weights (bottom)")
fig.set_label(
    "Five masks and the attention weights with them. Masked keys have the weight zero, "
    "and each row still sums to one."
)
plt.show()

# %%
# In the next figure you can choose the mask and the query. In the last mask the padding
# comes first, as in a batch of prompts of different lengths that are aligned at their
# last tokens. Since the mask is causal as well, all keys of queries 0 and 1 are masked.

chosen = {
    "causal": masks["causal"],
    "padding, 5 of 7": masks["padding, 5 of 7"],
    "causal and padding": masks["both"],
    "blocks of 3": masks["blocks of 3"],
    "none": masks["none"],
    "padding first, and causal": causal_mask(n) & (torch.arange(n) >= 2),
}
Interactive(
    "masks",
    "Attention weights under a mask; masked keys are crossed out. Below: the weights "
    "of one query with the mask (bars) and without (dashed).",
    scores=[[round(s, 4) for s in row] for row in (Q @ K.T / d**0.5).tolist()],
    masks={name: M.int().tolist() for name, M in chosen.items()},
)

# %%
# Polarity: what true means
# -------------------------
# Libraries differ, and even PyTorch is not consistent. In
# :class:`torch.nn.MultiheadAttention` true means *masked*; in
# :func:`torch.nn.functional.scaled_dot_product_attention`, on which it is based, true
# means *may attend*, as it does here. The example marks one key as true:

single = torch.zeros(n, n, dtype=torch.bool)
single[:, 0] = True
_, P = scaled_dot_product_attention(Q, K, V, mask=single)
peer = torch.nn.MultiheadAttention(d, 1, batch_first=True).double()
_, of_peer = peer(Q[None], K[None], V[None], attn_mask=single)
functional = F.scaled_dot_product_attention(Q[None], K[None], V[None], single)
print("weight of the only key that is marked true, for the first query:")
print(f"  here {P[0, 0]:.0f}; torch.nn.MultiheadAttention {of_peer[0, 0, 0]:.0f}")

assert P[0, 0] == 1
assert of_peer[0, 0, 0] == 0
assert torch.allclose(functional[0, 0], V[0])

# %%
# Axis: keys, not queries
# -----------------------
# A padding mask excludes *keys*: columns of the weights. In self-attention there are as
# many queries as keys, so a mask along the other axis has the right shape, and no error
# is raised. The padded queries then return zeros, which are not used, and all other
# queries attend to the padding:

padded = masks["padding, 5 of 7"]
_, right = scaled_dot_product_attention(Q, K, V, mask=padded)
_, wrong = scaled_dot_product_attention(Q, K, V, mask=padded.T)
print("total weight of the two padded keys, for the five queries without padding:")
printed = [
    (name, *(f"{p:.2f}" for p in weights[:5, 5:].sum(1)))
    for name, weights in (("keys", right), ("queries", wrong))
]
print(markdown_table(("masked", *(f"query {i}" for i in range(5))), printed))

assert not right[:, 5:].any()
assert (wrong[:5, 5:] > 0).all()
assert not wrong[5:].any()

# %%
# Alignment of the causal mask
# ----------------------------
# If there are more keys than queries, as in decoding with a KV cache, *causal* has two
# meanings. PyTorch's ``is_causal`` aligns the first query with the first key (top
# left). Decoding requires that the last query is aligned with the last key.

ones = torch.ones(2, 5, dtype=torch.bool)
print("here (last query at the last key):", causal_mask(2, 5).int().tolist())
print("PyTorch (first query at the first):", ones.tril().int().tolist())

of_torch = F.scaled_dot_product_attention(Q[:2], K[:5], V[:5], is_causal=True)
top_left, _ = scaled_dot_product_attention(Q[:2], K[:5], V[:5], mask=ones.tril())
assert torch.allclose(of_torch, top_left)

# %%
# Exact zeros in the Jacobian
# ---------------------------
# Under a causal mask, no output depends on a later input, :eq:`eq-causal`: the blocks
# of the Jacobian above the diagonal are exactly zero, and not only small. Therefore the
# output of a prefix is the prefix of the output, and can be cached.

M = causal_mask(n)
x = normal(n, d)
J = jacobian(lambda x: scaled_dot_product_attention(x, x, x, mask=M)[0], x)
size = J.abs().amax((1, 3))  # the largest entry of each block

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
image = plots.attention(ax, size.numpy(), "Jacobian under a causal mask")
ax.set(xlabel="input $j$", ylabel="output $i$")
fig.colorbar(image, ax=ax, label="largest absolute entry")
fig.set_label(
    "The largest entry of each block of the Jacobian with a causal mask: exactly zero "
    "above the diagonal."
)
plt.show()

whole, _ = scaled_dot_product_attention(x, x, x, mask=M)
prefix, _ = scaled_dot_product_attention(x[:4], x[:4], x[:4], mask=M[:4, :4])
print("largest entry above the diagonal:", size.triu(1).max().item())
print(f"prefix of 4: {(prefix - whole[:4]).abs().max():.0e} apart")

assert size.triu(1).max() == 0
assert (size.tril() > 0)[M].all()
assert torch.allclose(prefix, whole[:4], rtol=0, atol=1e-14)

# %%
# A fully masked query
# --------------------
# If all keys of a query are masked, the fraction in :eq:`eq-mask` is 0/0. We define the
# output and the gradient as zero, :eq:`eq-dead-row`, as PyTorch's function does. To
# compute this, we set masked scores to the lowest finite number of the dtype, and
# masked weights to zero after the softmax. The table compares this with three other
# implementations. The loss leaves out the fully masked query. Nevertheless, the
# gradients of the values may be NaN; the last column says whether they are finite.

mask = torch.ones(n, n, dtype=torch.bool)
mask[:, 5:] = False
mask[2] = False


def ours(S: torch.Tensor) -> torch.Tensor:
    """Return weights that are zero for masked keys, also in fully masked rows."""
    low = torch.finfo(S.dtype).min
    return S.masked_fill(~mask, low).softmax(-1).masked_fill(~mask, 0)


ways = {
    "lowest number, then zeros": ours,
    "minus infinity": lambda S: S.masked_fill(~mask, -torch.inf).softmax(-1),
    "set to -1e9": lambda S: S.masked_fill(~mask, -1e9).softmax(-1),
    "add -1e9": lambda S: (S + (-1e9 * ~mask).to(S.dtype)).softmax(-1),
}
types = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
seen, printed = {}, []
for dtype in types:
    for way, weigh in ways.items():
        q, k, v = (x.to(dtype, copy=True).requires_grad_() for x in (Q, K, V))
        S = q @ k.T / d**0.5
        try:
            P = weigh(S)
        except RuntimeError:
            printed.append((str(dtype)[6:], way, "error: no such number", ""))
            seen[dtype, way] = "error"
            continue
        alive = torch.arange(n) != 2
        (P @ v)[alive].sum().backward()
        row = P[2].detach().double()
        plain = S[2].detach().double().softmax(-1)
        what = {
            "zeros": not row.any(),
            "NaN": bool(row.isnan().any()),
            "uniform": torch.allclose(row, torch.full((n,), 1 / n).double(), atol=1e-3),
            "not masked at all": torch.allclose(row, plain, atol=1e-5),
        }
        found = next((name for name, true in what.items() if true), "something else")
        finite = bool(v.grad.isfinite().all())
        seen[dtype, way] = found, finite
        ends = "finite" if finite else "NaN in every row"
        printed.append((str(dtype)[6:], way, found, ends))
        if not finite:
            assert v.grad.isnan().any(1).all()
header = ("type", "mask", "weights of a fully masked query", "gradients of the values")
print(markdown_table(header, printed))

for dtype in types:
    assert seen[dtype, "lowest number, then zeros"] == ("zeros", True)
    assert seen[dtype, "minus infinity"] == ("NaN", False)
assert seen[torch.float32, "add -1e9"] == ("uniform", True)
assert seen[torch.float64, "add -1e9"] == ("not masked at all", True)
assert seen[torch.float16, "add -1e9"] == ("NaN", False)
assert seen[torch.float16, "set to -1e9"] == "error"

# %%
# For this query, adding :math:`-10^9` gives uniform attention, attention without any
# mask, or NaN, depending on the dtype. In float64, :math:`10^9` is subtracted from
# *every* score of the row, which does not change the softmax. In float32 the scores are
# lost to rounding, and all become equal. In float16, :math:`-10^9` is not representable
# and becomes :math:`-\infty`.
#
# With :math:`-\infty` the NaN does not stay in its row. The product
# :math:`\bar V = P^\top \bar O` contains the weights of that row, and NaN times zero is
# NaN, for every key and whatever the loss.

q, k, v = (x.clone().requires_grad_() for x in (Q, K, V))
output, P = scaled_dot_product_attention(q, k, v, mask=mask)
back = attention_backward(torch.ones_like(output), *(x.detach() for x in (q, k, v, P)))
peer_output = F.scaled_dot_product_attention(Q, K, V, mask)

assert not output[2].any()
assert not back.Q[2].any()
assert torch.allclose(output, peer_output, rtol=0, atol=1e-12)

# %%
# A mask does not exclude NaN
# ---------------------------
# A weight of zero times NaN is NaN. If padded values are uninitialized memory that
# contains NaN, no mask of the weights helps. The library therefore raises an error:

unfilled = V.clone()
unfilled[6] = torch.nan
in_formula = ours(Q @ K.T / d**0.5) @ unfilled
print("rows with NaN in the formula:", int(in_formula.isnan().any(1).sum()), "of", n)
try:
    scaled_dot_product_attention(Q, K, unfilled, mask=mask)
except ValueError as error:
    print("here:", error)
else:
    raise AssertionError("a NaN was accepted")

assert in_formula.isnan().all(0).all()

# %%
# Limits
# ------
# A mask excludes keys. The output of a padded *query* is computed as well, and must be
# left out of the loss, with the mask in :eq:`eq-cross-entropy`.
