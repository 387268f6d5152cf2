r"""
What truncated backpropagation leaves out
=========================================

**Question.** Long sequences are cut, and the gradient is stopped after :math:`K` steps,
while the state is carried on. Which gradient is that, how far is it from the true one,
and does more data help?

**Answer.** It is exactly the sum of the last :math:`K` terms of the true gradient by
:math:`W_{hh}`; the others are its bias. On rows of images, before any training and with
Xavier weights, more than three tenths of the gradient are missing for :math:`K = 4` and
less than a fifth for :math:`K = 14`, in each of twelve starts. The bias is sure to fall
like :math:`(\gamma\sigma)^K` only if :math:`\gamma\sigma < 1`. More data do not help:
they remove the noise, and the bias stays. Chunks keep exactly the pairs of steps that
share a chunk. The output layer is never biased.

**Source.** Williams and Peng, *An efficient gradient-based algorithm for on-line
training of recurrent network trajectories*, Neural Computation 2, 1990. **Cost.**
Seconds on a CPU, no download.
"""

# %%
# The setting
# -----------
# The 1,000 training images of the bundled sample, row by row, and a network of width 64
# that is read after the last of :math:`T = 28` rows. Two starts: Xavier, and an
# orthogonal matrix times 0.7, for which :math:`\gamma\sigma` is 0.7.

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle

from dian import data
from dian.rnn import initialization
from dian.rnn.recurrence import ACTIVATIONS, rnn, rnn_backward, rnn_forward
from dian.rnn.truncated import gradient_terms, truncation_bound
from dian.training.loss import cross_entropy, cross_entropy_backward

train = data.sample("train")
X, labels = train.unit().double().transpose(0, 1), train.labels
T, n, d = X.shape
h, q = 64, 10
generator = torch.Generator().manual_seed(0)


def empty(*shape: int) -> torch.Tensor:
    """Return memory for a matrix."""
    return torch.empty(shape, dtype=torch.float64)


W_xh = initialization.xavier_(empty(d, h), generator=generator)
W_hq = initialization.xavier_(empty(h, q), generator=generator)
b_h, H_0 = torch.zeros(h).double(), torch.zeros(n, h).double()
starts = {
    "Xavier": initialization.xavier_(empty(h, h), generator=generator),
    "orthogonal times 0.7": initialization.orthogonal_(
        empty(h, h), 0.7, generator=generator
    ),
}


def backward(W_hh):
    """Return the states, the derivatives, and the gradient by the last state."""
    H = rnn_forward(X, W_xh, W_hh, b_h, H_0)
    G = cross_entropy_backward(H[-1] @ W_hq, labels)
    return H, ACTIVATIONS["tanh"].derivative(H[1:]), G @ W_hq.T


# %%
# Which gradient is it?
# ---------------------
# In the full gradient :math:`\sum_k h_{k-1}^\top \delta_k`, equation
# :eq:`eq-gradient-terms`, each step has one term. Backpropagation that goes back
# :math:`K` steps from the loss never reaches the earlier ones, and changes nothing in
# those that it reaches:
#
# .. math::
#    :label: eq-truncated
#
#    \Big[ \frac{\partial \ell_T}{\partial W_{hh}} \Big]_K
#    = \sum_{k=T-K+1}^{T} h_{k-1}^\top \delta_k .
#
# Here is what one does in practice: run to step :math:`T - K`, detach the state, and go
# on. The gradient that comes out is compared with the partial sum.

W_hh = starts["Xavier"]
H, derivatives, E = backward(W_hh)
terms = gradient_terms(E, derivatives, H, W_hh)  # the term of step k is terms[k - 1]
full = rnn_backward(None, E, X, H, W_xh, W_hh).W_hh

for K in (1, 4, 14, T):
    leaf = W_hh.clone().requires_grad_()
    state = rnn_forward(X[: T - K], W_xh, W_hh, b_h, H_0)[-1] if K < T else H_0
    _, last = rnn(X[T - K :], W_xh, leaf, b_h, state.detach())
    cross_entropy(last @ W_hq, labels).backward()
    difference = (leaf.grad - terms[-K:].sum(0)).norm() / full.norm()
    print(f"K = {K:2}: detached against the partial sum {difference:.1e}")
    assert difference < 1e-12

assert torch.allclose(terms.sum(0), full, rtol=0, atol=1e-14)  # K = T

# %%
# How large is the bias?
# ----------------------
# What is left out is the sum of the other terms. Each has passed at least :math:`K`
# Jacobians, so with the bound of one Jacobian,
#
# .. math::
#    :label: eq-truncation-bias
#
#    \lVert \text{bias} \rVert_F \le \sum_{k=1}^{T-K} (\gamma \sigma)^{T-k}\, \gamma\,
#    \Big\lVert \frac{\partial \ell_T}{\partial h_T} \Big\rVert\, \lVert h_{k-1} \rVert
#    = O\big((\gamma \sigma)^K\big) \quad\text{if } \gamma \sigma < 1 .

Ks = range(1, T + 1)
fig, axes = plt.subplots(1, 2, figsize=(8, 3.5), layout="constrained", sharey=True)
biases = {}
for ax, (name, W) in zip(axes, starts.items(), strict=True):
    H, derivatives, E = backward(W)
    by_step = gradient_terms(E, derivatives, H, W)
    whole = by_step.sum(0)
    bias = torch.stack([by_step[: T - K].sum(0).norm() for K in Ks]) / whole.norm()
    bound = torch.stack([truncation_bound(E, H, W, K, 1.0) for K in Ks]) / whole.norm()
    biases[name] = bias
    assert (bias <= bound).all()
    sigma = torch.linalg.matrix_norm(W, 2)
    ax.semilogy(Ks[:-2], bound[:-2], "--", label="bound")
    ax.semilogy(Ks[:-2], bias[:-2], "o-", markersize=4, label="measured")
    ax.set(title=rf"{name}: $\gamma\sigma$ = {sigma:.2f}", xlabel="$K$ (steps)")
    print(f"{name}: the part of the gradient that is missing")
    for K in (1, 4, 7, 14):
        kept = by_step[-K:].sum(0)
        cosine = (kept * whole).sum() / kept.norm() / whole.norm()
        print(f"  K = {K:2}: {bias[K - 1]:7.2%} (cosine with the whole {cosine:.3f})")
fig.suptitle("Bias of the truncated gradient, relative to the whole")
axes[0].set_ylabel("norm of the bias / norm of the gradient")
axes[0].legend()
plt.show()

# %%
# Where :math:`\gamma\sigma < 1` the bound falls with :math:`K`, as it must. For Xavier
# weights it is no use: it is many powers of ten too high, and would allow the first
# steps to be the important ones. The bias falls all the same, as the gradient itself
# does. How fast the gradient vanishes is how little there is to lose by truncating it.

for seed in range(12):  # other starts
    generator.manual_seed(seed)
    shapes = (d, h), (h, q), (h, h)
    U, V, W = (
        initialization.xavier_(empty(*shape), generator=generator) for shape in shapes
    )
    H = rnn_forward(X, U, W, b_h, H_0)
    E = cross_entropy_backward(H[-1] @ V, labels) @ V.T
    by_step = gradient_terms(E, ACTIVATIONS["tanh"].derivative(H[1:]), H, W)
    whole = by_step.sum(0).norm()
    assert by_step[: T - 4].sum(0).norm() > 0.3 * whole
    assert by_step[: T - 14].sum(0).norm() < 0.2 * whole
assert (biases["orthogonal times 0.7"][:20] < 2 * 0.7 ** torch.arange(1, 21)).all()

# %%
# More data do not help
# ---------------------
# Take the 1,000 images for all there are, and their full gradient for the truth. Draw
# :math:`n` of them at random, and estimate it: with the full gradient of these
# :math:`n`, and with the one that is truncated after :math:`K = 4` steps. The full
# estimate comes closer as :math:`1/\sqrt n`; the truncated one comes closer to
# something else.

K = 4
H, derivatives, E = backward(W_hh)
delta, Gamma = [], n * E  # of each image for itself, so without the mean
for D_t in derivatives.flip(0):
    delta.append(Gamma * D_t)
    Gamma = delta[-1] @ W_hh.T
delta = torch.stack(delta).flip(0)
each = {
    "full": torch.einsum("tni,tnj->nij", H[:-1], delta),
    f"truncated, K = {K}": torch.einsum("tni,tnj->nij", H[-1 - K : -1], delta[-K:]),
}
truth = each["full"].mean(0)
sizes = [10, 30, 100, 300, 1000, 3000, 10_000]
error = {name: [] for name in each}
for size in sizes:
    for name, gradients in each.items():
        squares = []
        for _ in range(10):
            drawn = torch.randint(n, (size,), generator=generator)
            times = drawn.bincount(minlength=n).double()  # how often each was drawn
            estimate = (times @ gradients.flatten(1)).view(h, h) / size
            squares.append((estimate - truth).square().sum() / truth.square().sum())
        error[name].append(torch.stack(squares).mean().sqrt().item())
bias = (each[f"truncated, K = {K}"].mean(0) - truth).norm() / truth.norm()

fig, ax = plt.subplots(figsize=(6.6, 3.6), layout="constrained")
for (name, errors), style in zip(error.items(), ("o-", "s--"), strict=True):
    ax.loglog(sizes, errors, style, label=name)
ax.axhline(bias, color="gray", linestyle=":", label="the bias")
ax.set_title("Error of the estimated gradient against the number of images")
ax.set(xlabel="images drawn", ylabel="root mean square error / gradient")
ax.legend()
plt.show()

for size, *errors in zip(sizes, *error.values(), strict=True):
    print(
        f"{size:6} images: error {errors[0]:7.2%} in full, {errors[1]:7.2%} truncated"
    )
print(f"bias: {bias:.2%}")

full_errors, truncated_errors = error.values()
assert abs(bias - biases["Xavier"][K - 1]) < 1e-12  # as measured above
assert full_errors[-1] < full_errors[0] / 20  # 1/√n says: a 32nd
assert abs(truncated_errors[-1] / bias - 1) < 0.05

# %%
# Chunks
# ------
# With a label at every step the usual way is to cut the sequence into chunks of
# :math:`K` steps, to carry the state from chunk to chunk, and to detach it at each cut.
# Let :math:`\delta_k^{(t)}` be what comes back to step :math:`k` from the loss
# :math:`\ell_t` of step :math:`t`. The full gradient is the sum over all pairs
# :math:`k \le t`; what is left of it are the pairs in one chunk:
#
# .. math::
#    :label: eq-truncated-chunks
#
#    \sum_{t=1}^{T} \; \sum_{k \le t,\; \lceil k/K \rceil = \lceil t/K \rceil}
#    h_{k-1}^\top \delta_k^{(t)} .
#
# Here the class is asked for after every row, and chunks are 7 rows long. The first
# column is empty, since :math:`h_0 = 0`.

K = 7
every = labels.expand(T, n)  # the label of an image, at each of its rows
H, derivatives, _ = backward(W_hh)
G = cross_entropy_backward(H[1:] @ W_hq, every) @ W_hq.T
pairs = torch.zeros(T, T, h, h).double()  # of the loss after row t, by way of row k
for t in range(T):
    pairs[t, : t + 1] = gradient_terms(G[t], derivatives[: t + 1], H[: t + 2], W_hh)
chunk = torch.arange(T) // K
same = chunk[:, None] == chunk

weights = [w.clone().requires_grad_() for w in (W_xh, W_hh, b_h, W_hq)]
state, loss = H_0, 0
for rows, answers in zip(X.split(K), every.split(K), strict=True):
    states, last = rnn(rows, *weights[:3], state)
    loss = loss + cross_entropy(states @ weights[3], answers) * len(rows) / T
    state = last.detach()
chunked = torch.autograd.grad(loss, weights)

full = rnn_backward(G, None, X, H, W_xh, W_hh)
through_output = cross_entropy_backward(H[1:] @ W_hq, every)
full_W_hq = H[1:].flatten(0, 1).T @ through_output.flatten(0, 1)

sizes_of_pairs = pairs.norm(dim=(2, 3))
fig, ax = plt.subplots(figsize=(5.6, 4.6), layout="constrained")
shown = (sizes_of_pairs / sizes_of_pairs.max()).log10()  # -inf: there is no such pair
image = ax.imshow(
    shown.numpy(),
    cmap="viridis_r",
    extent=(0.5, T + 0.5, T + 0.5, 0.5),
)
for start in range(0, T, K):
    ax.add_patch(
        Rectangle(
            (start + 0.5,) * 2, K, K, fill=False, edgecolor="#d55e00", linewidth=2
        )
    )
ax.set_title("Which pairs of steps a gradient in chunks keeps (frames)")
ax.set(xlabel="weight used at step $k$", ylabel="loss of step $t$")
fig.colorbar(image, label="$\\log_{10}$ of the norm, relative to the largest")
plt.show()

kept = pairs[same].sum(0)
print(
    f"all pairs against the full gradient: {(pairs.sum((0, 1)) - full.W_hh).norm():.1e}"
)
print(f"pairs in one chunk against detaching: {(kept - chunked[1]).norm():.1e}")
print(f"pairs kept: {int(same.tril().sum())} of {T * (T + 1) // 2}")
names = ("W_xh", "W_hh", "b_h", "W_hq")
missing = {}
for name, found in zip(names, chunked, strict=True):
    true = full_W_hq if name == "W_hq" else getattr(full, name)
    missing[name] = ((found - true).norm() / true.norm()).item()
    print(f"missing of the gradient by {name:4}: {missing[name]:.2%}")

assert torch.allclose(pairs.sum((0, 1)), full.W_hh, rtol=0, atol=1e-13)
assert torch.allclose(kept, chunked[1], rtol=0, atol=1e-13)
assert missing["W_hq"] < 1e-14
assert min(missing[name] for name in ("W_xh", "W_hh", "b_h")) > 0.01

# %%
# :math:`W_{hq}` acts on the loss of its own step only, from a state that is exact,
# since it was carried over: no path of its gradient leads through a cut. All that lies
# before the states is biased.
#
# A chunk of :math:`K` steps does not look back :math:`K` steps: its first step sees
# itself only, its last one all of the chunk, so :math:`(K + 1)/2` on average. And where
# the cuts are matters: the same two rows may be a pair, or none.
#
# Limits
# ------
# A bias that is small at the start of a training need not stay small: a network that is
# learning to remember is one whose gradient reaches further back. What truncation is
# for is what it saves: the states of :math:`K` steps have to be kept, not of all.
