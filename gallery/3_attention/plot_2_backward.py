r"""
The gradient of attention, line by line
=======================================

**Question.** How does a loss change with each query, key, value and projection, and how
do we know that the formulas are right?

**Answer.** The way back has five lines for one head, and a few products of matrices
more for the projections around many. No :math:`n \times n \times n` Jacobian is built,
and no mask is needed on the way back, not even for a query that may read nothing. The
formulas agree with automatic differentiation to twelve digits, and with central
differences, which share nothing with them, to eight. Each of four common mistakes is
noticed by both.

**Source.** The derivation is our own; the same lines stand in Dao et al.,
*FlashAttention*, 2022 (arXiv:2205.14135), appendix B.2. **Cost.** Seconds on a CPU, no
download.
"""

# %%
# The way out
# -----------
# As in :doc:`/gallery/1_rnn/plot_2_bptt`, a gradient is what stands on the left when a
# small change of the loss is written as
# :math:`\mathrm dL = \langle \bar M, \mathrm dM \rangle`, and
#
# .. math::
#
#    \langle A, B\,C \rangle = \langle A\,C^\top, B \rangle
#    = \langle B^\top A, C \rangle, \qquad
#    \langle A, B \odot C \rangle = \langle A \odot B, C \rangle .
#
# A bar marks the gradient of the loss by what is under it. The forward pass of one head
# has three lines; :math:`B` is a bias or zero, and :math:`Z` holds what dropout leaves
# of each weight: 0 or :math:`1/(1-p)`.

import math

import matplotlib.pyplot as plt
import torch

from dian.attention.dot_product import attention_backward, scaled_dot_product_attention
from dian.attention.multi_head import (
    Projections,
    multi_head_attention,
    multi_head_backward,
)
from dian.figures import plots
from dian.training.dropout import dropout_mask

n, m, d_k, d_v = 5, 7, 3, 2
generator = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


given = {"Q": normal(n, d_k), "K": normal(m, d_k), "V": normal(m, d_v)}
given["B"] = normal(n, m)
mask = torch.rand(n, m, generator=generator) < 0.7
mask[:, 0] = True
mask[1] = False  # one query may read nothing
Z = dropout_mask(given["B"], 0.3, generator)


def forward(Q, K, V, B):
    """Return the weights and the output."""
    S = Q @ K.T / math.sqrt(d_k) + B
    # a row without any key is left as it is, and made zero after the softmax
    S = S.masked_fill(~mask & mask.any(1, keepdim=True), -math.inf)
    P = S.softmax(1) * mask
    return P, (P * Z) @ V


O_bar = normal(n, d_v)  # the gradient by the output, as if from the layers above


def loss(*tensors):
    """Return a number whose gradient by the output is O_bar."""
    return (O_bar * forward(*tensors)[1]).sum()


Q, K, V, B = given.values()
P, output = forward(*given.values())

fig, axes = plt.subplots(1, 2, figsize=(7, 2.9), layout="constrained")
plots.attention(axes[0], P.numpy(), "weights $P$")
plots.attention(axes[1], (P * Z).numpy(), "after dropout, $P \\odot Z$")
plt.show()

# %%
# Step 1: through the mean of the values
# --------------------------------------
# With :math:`\tilde P = P \odot Z` the output is :math:`O = \tilde P V`, so
#
# .. math::
#
#    \langle \bar O, \mathrm dO \rangle
#    = \langle \bar O, \tilde P\, \mathrm dV + \mathrm d\tilde P\; V \rangle
#    = \langle \tilde P^\top \bar O, \mathrm dV \rangle
#    + \langle (\bar O V^\top) \odot Z, \mathrm dP \rangle :
#
# .. math::
#    :label: eq-attention-back-values
#
#    \bar V = (P \odot Z)^\top \bar O, \qquad \bar P = (\bar O V^\top) \odot Z .

gradient = {"V": (P * Z).T @ O_bar}
P_bar = (O_bar @ V.T) * Z

# %%
# Step 2: through the softmax
# ---------------------------
# Row by row, this is equation :eq:`eq-softmax-backward`: the Jacobian
# :math:`\operatorname{diag}(p) - p\,p^\top` takes off each row of :math:`\bar P` its
# mean under the weights. With :math:`D` for these means,
#
# .. math::
#    :label: eq-attention-back-scores
#
#    \bar S = P \odot (\bar P - D\, \mathbf 1^\top), \qquad
#    D_i = \sum_j \bar P_{ij} P_{ij}, \qquad \bar B = \bar S .
#
# Where a mask hides a key, :math:`P_{ij} = 0` and with it :math:`\bar S_{ij}`: on the
# way back the mask is in the weights already. A row in which all is hidden gets zeros.

D = (P_bar * P).sum(1, keepdim=True)
S_bar = P * (P_bar - D)
gradient["B"] = S_bar

assert not S_bar[~mask].any()
assert not S_bar[1].any()

# %%
# Step 3: through the scores
# --------------------------
# The scores are :math:`S = Q K^\top / \sqrt{d_k} + B`, and the first rule gives
#
# .. math::
#    :label: eq-attention-back-keys
#
#    \bar Q = \frac{\bar S\, K}{\sqrt{d_k}}, \qquad
#    \bar K = \frac{\bar S^\top Q}{\sqrt{d_k}} .

gradient["Q"] = S_bar @ K / math.sqrt(d_k)
gradient["K"] = S_bar.T @ Q / math.sqrt(d_k)

# %%
# Two things to read off
# ----------------------
# The means :math:`D` can be had without any weights. Put :math:`\bar P` into them:
#
# .. math::
#    :label: eq-attention-row-term
#
#    D_i = \sum_j P_{ij} Z_{ij} \sum_c \bar O_{ic} V_{jc} = \sum_c \bar O_{ic} O_{ic},
#
# which holds with dropout, too. That is what lets
# :doc:`/gallery/3_attention/plot_6_online_softmax` go back without holding all weights.
# And since adding a constant to a row of scores changes nothing,
#
# .. math::
#    :label: eq-attention-sums
#
#    \sum_j \bar S_{ij} = 0, \qquad \sum_j \bar K_j = 0 :
#
# moving all keys together moves nothing. (If positions turn the keys, each by another
# angle, the second is no longer true.)

print(f"D by the output: {(D[:, 0] - (O_bar * output).sum(1)).abs().max():.0e} apart")
print(f"sums of S_bar over the keys: {S_bar.sum(1).abs().max():.0e}")
print(f"sum of K_bar over the keys:  {gradient['K'].sum(0).abs().max():.0e}")

assert torch.allclose(D[:, 0], (O_bar * output).sum(1), rtol=0, atol=1e-12)
assert S_bar.sum(1).abs().max() < 1e-12
assert gradient["K"].sum(0).abs().max() < 1e-12

# %%
# Three ways, one number
# ----------------------
# A complex step would need an analytic forward pass, and the softmax of torch takes no
# complex numbers. So the third way is the oldest: move each number a little to both
# sides.

leaves = [tensor.clone().requires_grad_() for tensor in given.values()]
by_autograd = dict(zip(given, torch.autograd.grad(loss(*leaves), leaves), strict=True))


def central(name: str, h: float = 1e-5) -> torch.Tensor:
    """Differentiate the loss by every entry of one input, one at a time."""
    slopes = torch.empty_like(given[name])
    for i in range(slopes.numel()):
        ends = []
        for sign in (1, -1):
            tensors = {key: x.clone() for key, x in given.items()}
            tensors[name].view(-1)[i] += sign * h
            ends.append(loss(*tensors.values()))
        slopes.view(-1)[i] = (ends[0] - ends[1]) / (2 * h)
    return slopes


_, weights = scaled_dot_product_attention(Q, K, V, mask=mask, bias=B, dropout_mask=Z)
library = attention_backward(O_bar, Q, K, V, weights, dropout_mask=Z)._asdict()
library["B"] = library.pop("S")


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest entry above 1."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()


print("by  numbers  autograd  differences  library")
for name, found in gradient.items():
    row = [apart(found, by[name]) for by in (by_autograd, library)]
    row.insert(1, apart(found, central(name)))
    print(f"{name:3} {found.numel():7} {row[0]:9.0e} {row[1]:12.0e} {row[2]:8.0e}")
    assert max(row[0], row[2]) < 1e-12
    assert row[1] < 1e-8

# %%
# Would it be noticed?
# --------------------

right = by_autograd["Q"]
undropped = O_bar @ V.T
mistakes = {
    "the term D is forgotten": P * P_bar,
    "the scale is forgotten": S_bar * math.sqrt(d_k),
    "dropout is forgotten": P * (undropped - (undropped * P).sum(1, keepdim=True)),
    "the mean without its weights": P * (P_bar - P_bar.mean(1, keepdim=True)),
}
by_step = central("Q")
for what, wrong_S in mistakes.items():
    wrong = wrong_S @ K / math.sqrt(d_k)
    caught = [apart(wrong, x) for x in (right, by_step)]
    print(f"{what:30} off by {caught[0]:.2f} (autograd), {caught[1]:.2f} (differences)")
    assert min(caught) > 0.01

# %%
# Through the projections
# -----------------------
# In a layer with :math:`H` heads (:doc:`/gallery/3_attention/plot_3_multi_head`) the
# outputs of the heads stand side by side, :math:`C = [O_1 \dots O_H]`, and
# :math:`Y = C\,W_O + \mathbf 1 b_O`. So the way back starts with
#
# .. math::
#    :label: eq-multi-head-back
#
#    \bar W_O = C^\top \bar Y, \qquad \bar b_O = \mathbf 1^\top \bar Y, \qquad
#    \bar C = \bar Y W_O^\top,
#
# the columns of :math:`\bar C` are the :math:`\bar O` of the heads, each head goes its
# own way back, and its :math:`\bar Q, \bar K, \bar V` stand side by side again. Since
# :math:`Q = X_q W_Q + \mathbf 1 b_Q`, and keys and values likewise are made of what is
# asked, :math:`X_{kv}`,
#
# .. math::
#    :label: eq-inputs-back
#
#    \bar W_Q = X_q^\top \bar Q, \qquad \bar b_Q = \mathbf 1^\top \bar Q, \qquad
#    \bar X_q = \bar Q W_Q^\top, \qquad
#    \bar X_{kv} = \bar K W_K^\top + \bar V W_V^\top,
#
# and so on for :math:`W_K` and :math:`W_V`. In self-attention :math:`X_q` and
# :math:`X_{kv}` are the same, and the gradient is the sum of both.

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

for name, value in found.items():
    print(f"{name:4} {apart(value, of_peer[name]):.0e} from torch's own layer")
    assert apart(value, of_peer[name]) < 1e-12

assert back.weights.b_K.abs().max() < 1e-12

# %%
# The gradient by the bias of the keys is zero, but for rounding: it adds the same
# number to all scores of a query. A parameter that nothing can move need not be there;
# it is kept because other libraries have it.
#
# Limits
# ------
# Sizes are small here, so that every number can be moved by itself. That the library is
# right for other shapes, masks and types is the business of its tests.
