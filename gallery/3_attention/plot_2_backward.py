r"""
The backward pass of attention agrees with autograd to twelve digits
====================================================================

**Question.** How does the loss change with each query, key, value and projection, and
how do we know that the formulas are right?

**Answer.** The backward pass of one head takes five lines, and that of the projections
a few matrix products more; no Jacobian is built, and no mask is needed. The formulas
agree with autograd to twelve digits and with central differences to eight. Both detect
each of four common mistakes.

**Source.** The derivation is our own; the same lines are in Dao et al.,
*FlashAttention*, 2022 (arXiv:2205.14135), appendix B.2. **Cost.** Seconds on a CPU, no
download.
"""

# %%
# The forward pass
# ----------------
# A product, a softmax of each row and another product lead from queries, keys and
# values to the output, :eq:`eq-attention`. The chapter derives its gradients in
# :doc:`/attention_backward`.

import math

import matplotlib.pyplot as plt
import torch

from dian.attention.dot_product import attention_backward, scaled_dot_product_attention
from dian.attention.multi_head import (
    Projections,
    multi_head_attention,
    multi_head_backward,
)
from dian.figures import attention_diagrams, plots
from dian.figures.tables import markdown_table
from dian.training.dropout import dropout_mask

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
attention_diagrams.head(ax)
ax.set_title("One attention head")
fig.set_label(
    "One attention head with $n$ queries and $m$ keys. Each row of $P$ holds the "
    "weights with which one query averages the values."
)
plt.show()

# %%
# The gradient :math:`\bar M` of the loss with respect to a matrix :math:`M` is defined
# by :math:`\mathrm dL = \langle \bar M, \mathrm dM \rangle`, where :math:`\langle A, B
# \rangle` is the sum of all products of corresponding entries. To find it, we write
# :math:`\mathrm dL` in this form. For everything but the softmax, two rules suffice:
#
# .. math::
#
#    \langle A, B\,C \rangle = \langle A\,C^\top, B \rangle
#    = \langle B^\top A, C \rangle, \qquad
#    \langle A, B \odot C \rangle = \langle A \odot B, C \rangle .
#
# Applied from the output to the inputs, they and the derivative of the softmax,
# :eq:`eq-softmax-backward`, give one formula for each arrow:

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
attention_diagrams.head(ax, backward=True)
ax.set_title("One attention head: forward pass (solid), backward pass (dashed)")
fig.set_label(
    "The backward pass (dashed) follows each arrow of the forward pass (solid) in the "
    "opposite direction. Here $D$ holds the average of each row of $\\bar P$ under its "
    "weights; dropout is omitted."
)
plt.show()

# %%
# The example has more keys than queries, a bias :math:`B`, a mask with one fully masked
# query (query 1, counted from 0), and dropout. The dropout mask :math:`Z` multiplies
# each weight by 0, with the probability 0.3, or by :math:`1/(1 - 0.3)`.

n, m, d_k, d_v = 5, 7, 3, 2
generator = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


given = {"Q": normal(n, d_k), "K": normal(m, d_k), "V": normal(m, d_v)}
given["B"] = normal(n, m)
mask = torch.rand(n, m, generator=generator) < 0.7
mask[:, 0] = True
mask[1] = False  # one query is fully masked
Z = dropout_mask(given["B"], 0.3, generator)


def forward(Q, K, V, B):
    """Return the weights and the output."""
    S = Q @ K.T / math.sqrt(d_k) + B
    # a fully masked row is not changed here, and set to zero after the softmax
    S = S.masked_fill(~mask & mask.any(1, keepdim=True), -math.inf)
    P = S.softmax(1) * mask
    return P, (P * Z) @ V


O_bar = normal(n, d_v)  # gradient with respect to the output, given


def loss(*tensors):
    """Return a number whose gradient with respect to the output is O_bar."""
    return (O_bar * forward(*tensors)[1]).sum()


Q, K, V, B = given.values()
P, output = forward(*given.values())

fig, axes = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
plots.attention(axes[0], P.numpy(), "weights $P$")
plots.attention(axes[1], (P * Z).numpy(), "after dropout, $P \\odot Z$")
fig.set_label(
    "The weights of the example before and after dropout. Masked keys have the weight "
    "zero, and query 1 is fully masked."
)
plt.show()

# %%
# Step 1: values and weights
# --------------------------
# With :math:`\tilde P = P \odot Z` the output is :math:`O = \tilde P V`, so
#
# .. math::
#
#    \langle \bar O, \mathrm dO \rangle
#    = \langle \bar O, \tilde P\, \mathrm dV + \mathrm d\tilde P\; V \rangle
#    = \langle \tilde P^\top \bar O, \mathrm dV \rangle
#    + \langle (\bar O V^\top) \odot Z, \mathrm dP \rangle .
#
# By the definition above, the factors of :math:`\mathrm dV` and :math:`\mathrm dP` are
# the gradients :eq:`eq-attention-back-values`.

gradient = {"V": (P * Z).T @ O_bar}
P_bar = (O_bar @ V.T) * Z

# %%
# Step 2: scores
# --------------
# Each row passes through the softmax, :eq:`eq-attention-back-scores`: subtract the
# average under the weights, :math:`D`, and multiply by the weights. A masked key has
# :math:`P_{ij} = 0`, so :math:`\bar S_{ij} = 0`; a fully masked row has the gradient
# zero.

D = (P_bar * P).sum(1, keepdim=True)
S_bar = P * (P_bar - D)
gradient["B"] = S_bar

assert not S_bar[~mask].any()
assert not S_bar[1].any()

# %%
# Step 3: queries and keys
# ------------------------
# The scores contain the product :math:`Q K^\top / \sqrt{d_k}`; the first rule gives
# :eq:`eq-attention-back-keys`.

gradient["Q"] = S_bar @ K / math.sqrt(d_k)
gradient["K"] = S_bar.T @ Q / math.sqrt(d_k)

# %%
# Two consequences
# ----------------
# :math:`D` can be computed from the output, :eq:`eq-attention-row-term`, also with
# dropout. Therefore :doc:`/gallery/3_attention/plot_6_online_softmax` needs no stored
# weights in its backward pass. And the gradients of the scores of a query sum to zero,
# as do the gradients of all keys, :eq:`eq-attention-sums`.

residuals = {
    "D - D from the output": D[:, 0] - (O_bar * output).sum(1),
    "sums of S_bar over the keys": S_bar.sum(1),
    "sum of K_bar over the keys": gradient["K"].sum(0),
}
printed = [(name, f"{x.abs().max():.0e}") for name, x in residuals.items()]
print(markdown_table(("zero up to rounding", "largest entry"), printed))

assert torch.allclose(D[:, 0], (O_bar * output).sum(1), rtol=0, atol=1e-12)
assert S_bar.sum(1).abs().max() < 1e-12
assert gradient["K"].sum(0).abs().max() < 1e-12

# %%
# Comparison with autograd and finite differences
# -----------------------------------------------
# Central differences are independent of both the formulas and autograd: we change each
# number a little in both directions, and divide the change of the loss by the distance.
# (A complex step would be more accurate, but PyTorch's softmax does not accept complex
# numbers.)

leaves = [tensor.clone().requires_grad_() for tensor in given.values()]
by_autograd = dict(zip(given, torch.autograd.grad(loss(*leaves), leaves), strict=True))


def central(name: str, h: float = 1e-5) -> torch.Tensor:
    """Differentiate the loss with respect to each entry of one input."""
    derivatives = torch.empty_like(given[name])
    for i in range(derivatives.numel()):
        ends = []
        for sign in (1, -1):
            tensors = {key: x.clone() for key, x in given.items()}
            tensors[name].view(-1)[i] += sign * h
            ends.append(loss(*tensors.values()))
        derivatives.view(-1)[i] = (ends[0] - ends[1]) / (2 * h)
    return derivatives


_, weights = scaled_dot_product_attention(Q, K, V, mask=mask, bias=B, dropout_mask=Z)
library = attention_backward(O_bar, Q, K, V, weights, dropout_mask=Z)._asdict()
library["B"] = library.pop("S")


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest entry above 1."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()


printed = []
for name, found in gradient.items():
    row = [apart(found, by[name]) for by in (by_autograd, library)]
    row.insert(1, apart(found, central(name)))
    printed.append((name, found.numel(), *(f"{x:.0e}" for x in row)))
    assert max(row[0], row[2]) < 1e-12
    assert row[1] < 1e-8
header = ("gradient of", "entries", "autograd", "central differences", "library")
print(markdown_table(header, printed))

# %%
# Common mistakes are detected
# ----------------------------
# A check is useful only if it fails for a wrong formula. Each of these four mistakes
# changes :math:`\bar Q` by more than one percent of its size:

right = by_autograd["Q"]
undropped = O_bar @ V.T
mistakes = {
    "the term D is forgotten": P * P_bar,
    "the scale is forgotten": S_bar * math.sqrt(d_k),
    "dropout is forgotten": P * (undropped - (undropped * P).sum(1, keepdim=True)),
    "the mean is not weighted": P * (P_bar - P_bar.mean(1, keepdim=True)),
}
by_step, printed = central("Q"), []
for what, wrong_S in mistakes.items():
    wrong = wrong_S @ K / math.sqrt(d_k)
    caught = [apart(wrong, x) for x in (right, by_step)]
    printed.append((what, *(f"{x:.2f}" for x in caught)))
    assert min(caught) > 0.01
header = ("mistake", "from autograd", "from central differences")
print(markdown_table(header, printed))

# %%
# Multi-head attention
# --------------------
# In a layer with :math:`H` heads (:doc:`/gallery/3_attention/plot_3_multi_head`) the
# backward pass begins with the output projection, :eq:`eq-multi-head-back`, continues
# in each head separately, and ends with the input projections, :eq:`eq-inputs-back`. We
# compare all gradients of the library with those of PyTorch's layer.

H, d_h, batch = 3, 2, 2
width = H * d_h
shapes = 4 * [(width, width)] + 4 * [(width,)]
projections = Projections(*(normal(*shape) for shape in shapes))
X, Y_bar = normal(batch, n, width), normal(batch, n, width)

_, inner = multi_head_attention(X, X, projections, H)
back = multi_head_backward(Y_bar, X, X, projections, inner)
found = {"X": back.X_q + back.X_kv} | back.weights._asdict()

peer = torch.nn.MultiheadAttention(width, H, batch_first=True).double()
state = {
    "in_proj_weight": torch.cat(
        [projections.W_Q, projections.W_K, projections.W_V], 1
    ).T,
    "in_proj_bias": torch.cat([projections.b_Q, projections.b_K, projections.b_V]),
    "out_proj.weight": projections.W_O.T,
    "out_proj.bias": projections.b_O,
}
peer.load_state_dict(state)
leaf = X.clone().requires_grad_()
peer(leaf, leaf, leaf)[0].backward(Y_bar)
of_peer = {"X": leaf.grad, "W_O": peer.out_proj.weight.grad.T}
of_peer["b_O"] = peer.out_proj.bias.grad
for i, name in enumerate("QKV"):
    of_peer[f"W_{name}"] = peer.in_proj_weight.grad.chunk(3)[i].T
    of_peer[f"b_{name}"] = peer.in_proj_bias.grad.chunk(3)[i]

printed = []
for name, value in found.items():
    printed.append((name, f"{apart(value, of_peer[name]):.0e}"))
    assert apart(value, of_peer[name]) < 1e-12
print(markdown_table(("gradient of", "difference from torch's own layer"), printed))

assert back.weights.b_K.abs().max() < 1e-12

# %%
# The gradient with respect to the bias of the keys is zero up to rounding, because this
# bias adds the same number to all scores of a query, :eq:`eq-idle-biases`. It has no
# effect, and is kept because other libraries have it.
#
# Limits
# ------
# The sizes here are small, so that each number can be changed separately. The tests of
# the library cover other shapes, masks and dtypes.
