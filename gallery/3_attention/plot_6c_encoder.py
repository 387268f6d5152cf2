r"""
Post-norm gives the last layers of a deep transformer larger gradients
======================================================================

**Question.** How does the gradient pass through a stack of encoder layers, and what
changes if layer normalization follows each residual connection (post-norm) instead of
preceding each sublayer (pre-norm)?

**Answer.** Each residual connection passes the gradient on unchanged, and the gradient
through the sublayer is added. At initialization, the gradient norm of the last layer
falls with the depth :math:`L` about as :math:`1/\sqrt L` with pre-norm, and hardly
depends on it with post-norm: the last layers of a deep post-norm network start with
larger gradients, which is one explanation of its need for warm-up. In the first layers,
the gradients are not larger.

**Source.** Xiong et al., *On Layer Normalization in the Transformer Architecture*, 2020
(arXiv:2002.04745), who prove and measure this; Vaswani et al., 2017 (arXiv:1706.03762)
for post-norm. The derivation by hand and the measurement are our own. **Cost.** Seconds
on a CPU, no download.
"""

# %%
# One layer
# ---------
# A pre-norm encoder layer adds the outputs of two sublayers to a residual stream,
# :eq:`def-encoder-layer`.

import matplotlib.pyplot as plt
import numpy as np
import torch

from dian.attention.encoder_layer import encoder_layer, encoder_layer_backward
from dian.attention.layer_norm import layer_norm, layer_norm_backward
from dian.attention.multi_head import multi_head_attention, multi_head_backward
from dian.attention.transformer import EncoderLayer
from dian.figures import attention_diagrams, plots
from dian.figures.tables import markdown_table

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
attention_diagrams.pre_norm_layer(ax)
ax.set_title("A pre-norm encoder layer")
fig.set_label(
    "A pre-norm encoder layer. The residual stream (thick) carries $n$ positions of "
    "$D$ features; each sublayer reads it through a layer normalization (LN) and adds "
    "its output."
)
plt.show()

# %%
# In the backward pass the gradient takes both paths, :eq:`eq-encoder-residual-back`:
# along the residual connection it is unchanged, and the sublayer adds a second term.

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
attention_diagrams.pre_norm_layer(ax, backward=True)
ax.set_title("An encoder layer: forward pass (solid), backward pass (dashed)")
fig.set_label(
    "The backward pass of an encoder layer (dashed): at each fork the gradients of "
    "both paths are added."
)
plt.show()

# %%
# The chapter derives the backward pass of each part, :eq:`eq-layer-norm-backward`,
# :eq:`eq-encoder-feed-forward-back` and :eq:`eq-encoder-residual-back`. We compare the
# gradient from :func:`dian.attention.encoder_layer.encoder_layer_backward` with
# autograd of the layer that the recorded runs train.

D, H, n = 32, 4, 16
generator = torch.Generator().manual_seed(0)
layer = EncoderLayer(D, H, 4 * D, generator=generator).double()
X, Z_bar = torch.randn(2, 1, n, D, generator=generator, dtype=torch.float64)

leaf = X.clone().requires_grad_()
layer(leaf).backward(Z_bar)
with torch.no_grad():
    Z, inner = encoder_layer(X, layer.weights, H)
    back = encoder_layer_backward(Z_bar, layer.weights, inner)

pairs = {
    "input": (back.X, leaf.grad),
    "W_1": (back.weights.W_1, layer.inner.weight.grad.T),
    "W_2": (back.weights.W_2, layer.outer.weight.grad.T),
    "W_Q": (back.weights.attention.W_Q, layer.attention.W_Q.grad),
    "gamma_1": (back.weights.gamma_1, layer.norm_1.weight.grad),
    "gamma_2": (back.weights.gamma_2, layer.norm_2.weight.grad),
}
printed = []
for name, (by_hand, by_autograd) in pairs.items():
    apart = (by_hand - by_autograd).abs().max()
    printed.append((name, f"{apart:.0e}"))
    assert apart < 1e-12
print(markdown_table(("gradient of", "largest difference from autograd"), printed))

# %%
# Pre-norm and post-norm
# ----------------------
# A pre-norm layer computes :math:`Y = X + f(\operatorname{LN}(X))` for each sublayer
# :math:`f`, and a post-norm layer :math:`Y = \operatorname{LN}(X + f(X))`. In both, the
# gradient :math:`\bar X` with respect to the input is a sum of two terms, one for the
# residual connection and one for the sublayer. Pre-norm (first line) and post-norm
# (second line) differ in the first term, and in the order of the factors of the second:
#
# .. math::
#    :label: eq-pre-post-norm
#
#    \bar X &= \bar Y
#    + J_{\operatorname{LN}}^\top J_f^\top\, \bar Y, \\
#    \bar X &= J_{\operatorname{LN}}^\top \bar Y
#    + J_f^\top J_{\operatorname{LN}}^\top\, \bar Y .
#
# With pre-norm the first term is :math:`\bar Y` itself. With post-norm the Jacobian of
# a layer normalization (:eq:`eq-layer-norm-jacobian`) multiplies both terms. Since a
# layer has two sublayers, this happens twice in every layer.
#
# The post-norm layer uses the same functions of the library.


def post_norm(X, w):
    """Return the output of a post-norm layer, and its intermediate results."""
    attended, attention = multi_head_attention(X, X, w.attention, H)
    Y, norm_1 = layer_norm(X + attended, w.gamma_1, w.beta_1)
    F = torch.relu(Y @ w.W_1 + w.b_1)
    Z, norm_2 = layer_norm(Y + F @ w.W_2 + w.b_2, w.gamma_2, w.beta_2)
    return Z, (X, attention, norm_1, Y, F, norm_2)


def post_norm_backward(Z_bar, w, inner):
    """Return the gradients of a post-norm layer: of its input, and of W_1."""
    X, attention, norm_1, Y, F, norm_2 = inner
    sum_2 = layer_norm_backward(Z_bar, w.gamma_2, norm_2).X
    A_bar = (sum_2 @ w.W_2.T) * (F > 0)
    Y_bar = sum_2 + A_bar @ w.W_1.T
    sum_1 = layer_norm_backward(Y_bar, w.gamma_1, norm_1).X
    attended = multi_head_backward(sum_1, X, X, w.attention, attention)
    X_bar = sum_1 + attended.X_q + attended.X_kv
    return X_bar, Y.flatten(0, 1).T @ A_bar.flatten(0, 1)


leaf = X.clone().requires_grad_()
peer = torch.nn.TransformerEncoderLayer(
    D, H, 4 * D, dropout=0.0, batch_first=True, norm_first=False
).double()
a = layer.attention
with torch.no_grad():
    peer.self_attn.in_proj_weight.copy_(torch.cat([a.W_Q, a.W_K, a.W_V], 1).T)
    peer.self_attn.out_proj.weight.copy_(a.W_O.T)
    peer.linear1.load_state_dict(layer.inner.state_dict())
    peer.linear2.load_state_dict(layer.outer.state_dict())
    for bias in (peer.self_attn.in_proj_bias, peer.self_attn.out_proj.bias):
        bias.zero_()
peer(leaf).backward(Z_bar)
with torch.no_grad():
    _, inner = post_norm(X, layer.weights)
    X_bar, W_1_bar = post_norm_backward(Z_bar, layer.weights, inner)
assert torch.allclose(X_bar, leaf.grad, rtol=0, atol=1e-12)
assert torch.allclose(W_1_bar.T, peer.linear1.weight.grad, rtol=0, atol=1e-12)

# %%
# Gradient norms at initialization
# --------------------------------
# We build stacks of several depths, with five initializations each. The inputs are
# random, and so is the gradient :math:`G` at the output. In the pre-norm stack, a last
# layer normalization precedes the output, as in
# :class:`dian.attention.transformer.Encoder`. In each layer we measure the norm of the
# gradient with respect to :math:`W_1`.


def gradient_norms(n_layer: int, seed: int) -> dict[str, np.ndarray]:
    """Return the gradient norm of W_1 in each layer, for both orders."""
    generator = torch.Generator().manual_seed(seed)
    stack = [
        EncoderLayer(D, H, 4 * D, generator=generator).double().weights
        for _ in range(n_layer)
    ]
    X, G = torch.randn(2, 4, n, D, generator=generator, dtype=torch.float64)
    found = {"pre-norm": np.empty(n_layer), "post-norm": np.empty(n_layer)}

    Z, inners = X, []
    for weights in stack:
        Z, inner = encoder_layer(Z, weights, H)
        inners.append(inner)
    one, zero = torch.ones(D).double(), torch.zeros(D).double()
    Z_bar = layer_norm_backward(G, one, layer_norm(Z, one, zero)[1]).X
    for i in reversed(range(n_layer)):
        back = encoder_layer_backward(Z_bar, stack[i], inners[i])
        found["pre-norm"][i] = back.weights.W_1.norm()
        Z_bar = back.X

    Z, inners = X, []
    for weights in stack:
        Z, inner = post_norm(Z, weights)
        inners.append(inner)
    Z_bar = G
    for i in reversed(range(n_layer)):
        Z_bar, W_1_bar = post_norm_backward(Z_bar, stack[i], inners[i])
        found["post-norm"][i] = W_1_bar.norm()
    return found


depths, n_seed = (2, 4, 8, 16, 32), 5
with torch.no_grad():
    runs = {L: [gradient_norms(L, seed) for seed in range(n_seed)] for L in depths}
last = {
    order: np.array([[run[order][-1] for run in runs[L]] for L in depths])
    for order in ("pre-norm", "post-norm")
}

fig, axes = plt.subplots(1, 2, figsize=(7, 4), layout="constrained", sharey=True)
styles = {"pre-norm": "o-", "post-norm": "s--"}
deepest = depths[-1]
for order, style in styles.items():
    of_layers = np.array([run[order] for run in runs[deepest]])
    plots.curve_with_spread(
        axes[0], np.arange(1, deepest + 1), of_layers, order, marker=style[0], ms=3
    )
    mean = last[order].mean(1)
    axes[1].plot(depths, mean, style, label=order)
    low, high = last[order].min(1), last[order].max(1)
    axes[1].fill_between(depths, low, high, alpha=0.25, linewidth=0)
reference = last["pre-norm"][0].mean() * np.sqrt(depths[0] / np.array(depths))
axes[1].plot(depths, reference, ":", color="gray", label=r"$\propto 1/\sqrt{L}$")
axes[0].set(yscale="log", xlabel="layer", ylabel="gradient norm of $W_1$")
axes[1].set(xscale="log", xlabel="depth $L$", title="last layer of each stack")
axes[0].set_title(f"each layer of {deepest}")
axes[1].set_xticks(depths, depths)
axes[1].minorticks_off()
axes[1].legend()
fig.suptitle("Gradient norms at initialization, pre-norm and post-norm")
fig.set_label(
    "Gradient norms at initialization, mean and range of five initializations. In the "
    "last layer (right), the norm falls as $1/\\sqrt{L}$ with pre-norm and is constant "
    "with post-norm."
)
plt.show()

first = {order: np.mean([run[order][0] for run in runs[deepest]]) for order in styles}
print(
    f"first of {deepest} layers: " + ", ".join(f"{k} {v:.0f}" for k, v in first.items())
)
assert first["post-norm"] < first["pre-norm"]
assert all(run["post-norm"][-1] > 2 * run["pre-norm"][-1] for run in runs[deepest])
slope, printed = {}, []
for order, found in last.items():
    slope[order] = np.polyfit(np.log(depths), np.log(found.mean(1)), 1)[0]
    means = (f"{x:.1f}" for x in found.mean(1))
    printed.append((order, *means, f"{slope[order]:.2f}"))
header = ("gradient norm of the last layer", *(f"{L} layers" for L in depths))
print(markdown_table((*header, "exponent"), printed))

assert -0.6 < slope["pre-norm"] < -0.4
assert abs(slope["post-norm"]) < 0.1
# In every initialization, and not only on average:
assert (last["pre-norm"][-1] < last["post-norm"][-1] / 3).all()

# %%
# The reason for the factor :math:`1/\sqrt L` is the residual stream
# :eq:`eq-residual-stream`: it is a sum of :math:`2L` sublayer outputs of similar
# variance, so its variance grows linearly with the depth, and the final layer
# normalization divides the gradient by the standard deviation of the stream. The
# variance of the stream, for the deepest stack:

generator = torch.Generator().manual_seed(0)
Z, variances = torch.randn(4, n, D, generator=generator, dtype=torch.float64), []
with torch.no_grad():
    for _ in range(deepest):
        weights = EncoderLayer(D, H, 4 * D, generator=generator).double().weights
        Z, _ = encoder_layer(Z, weights, H)
        variances.append(Z.var().item())
printed = [(i, f"{variances[i - 1]:.1f}") for i in (1, 8, 16, 32)]
print(markdown_table(("layer", "variance after the layer"), printed))

assert np.corrcoef(np.arange(1, deepest + 1), variances)[0, 1] > 0.99

# %%
# Limits
# ------
# This is the gradient at initialization, for random inputs, one width and the Xavier
# initialization of this library. It does not say how training continues: the recorded
# runs of this report use pre-norm and a one-cycle schedule, and post-norm was not
# trained.
