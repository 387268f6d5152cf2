r"""
Truncated BPTT is biased, and more data do not help
===================================================

**Question.** For long sequences, the gradient is often propagated back through
:math:`K` steps only, while the state is carried over. How far is this gradient from the
full one, and does more data reduce the error?

**Answer.** It is exactly the sum of the last :math:`K` terms of the gradient with
respect to :math:`W_{hh}`; the omitted terms are the bias. On rows of images, before
training and with Xavier weights, more than three tenths of the gradient are missing for
:math:`K = 4` and less than a fifth for :math:`K = 14`, in each of twelve
initializations. More data do not help: they reduce the noise and not the bias.

**Source.** Williams and Peng, *An efficient gradient-based algorithm for on-line
training of recurrent network trajectories*, Neural Computation 2, 1990. **Cost.**
Seconds on a CPU, no download.
"""

# %%
# The setting
# -----------
# The network has 64 units and reads the 1,000 training images of the bundled sample row
# by row. The loss depends on the state after the last of :math:`T = 28` rows. We
# compare two initializations: Xavier, and an orthogonal matrix times 0.7, for which
# :math:`\gamma\sigma` is 0.7.

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle

from dian import data
from dian.figures.tables import markdown_table
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
    """Return a matrix that is not initialized."""
    return torch.empty(shape, dtype=torch.float64)


W_xh = initialization.xavier_(empty(d, h), generator=generator)
W_hq = initialization.xavier_(empty(h, q), generator=generator)
b_h, H_0 = torch.zeros(h).double(), torch.zeros(n, h).double()
initializations = {
    "Xavier": initialization.xavier_(empty(h, h), generator=generator),
    "orthogonal times 0.7": initialization.orthogonal_(
        empty(h, h), 0.7, generator=generator
    ),
}


def backward(W_hh):
    """Return the states, the derivatives, and the gradient of the last state."""
    H = rnn_forward(X, W_xh, W_hh, b_h, H_0)
    G = cross_entropy_backward(H[-1] @ W_hq, labels)
    return H, ACTIVATIONS["tanh"].derivative(H[1:]), G @ W_hq.T


# %%
# The terms that truncation keeps
# -------------------------------
# In the full gradient :math:`\sum_k h_{k-1}^\top \delta_k`, equation
# :eq:`eq-gradient-terms`, each step has one term. A backward pass that goes back
# :math:`K` steps from the loss keeps the last :math:`K` terms unchanged and omits the
# others, equation :eq:`eq-truncated`.
#
# In practice, the forward pass runs to step :math:`T - K`, the state is detached from
# the graph, and the forward pass continues. We compare the resulting gradient with the
# partial sum.

W_hh = initializations["Xavier"]
H, derivatives, E = backward(W_hh)
terms = gradient_terms(E, derivatives, H, W_hh)  # the term of step k is terms[k - 1]
full = rnn_backward(None, E, X, H, W_xh, W_hh).W_hh

printed = []
for K in (1, 4, 14, T):
    leaf = W_hh.clone().requires_grad_()
    state = rnn_forward(X[: T - K], W_xh, W_hh, b_h, H_0)[-1] if K < T else H_0
    _, last = rnn(X[T - K :], W_xh, leaf, b_h, state.detach())
    cross_entropy(last @ W_hq, labels).backward()
    difference = (leaf.grad - terms[-K:].sum(0)).norm() / full.norm()
    printed.append((K, f"{difference:.1e}"))
    assert difference < 1e-12
print(markdown_table(("steps K", "detached against the partial sum"), printed))

assert torch.allclose(terms.sum(0), full, rtol=0, atol=1e-14)  # K = T

# %%
# How large is the bias?
# ----------------------
# The bias is the sum of the omitted terms. Each has passed through at least :math:`K`
# Jacobians, which gives the bound :eq:`eq-truncation-bias`.

Ks = range(1, T + 1)
fig, axes = plt.subplots(1, 2, figsize=(7, 4), layout="constrained", sharey=True)
biases, printed = {}, []
for ax, (name, W) in zip(axes, initializations.items(), strict=True):
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
    for K in (1, 4, 7, 14):
        kept = by_step[-K:].sum(0)
        cosine = (kept * whole).sum() / kept.norm() / whole.norm()
        printed.append((name, K, f"{bias[K - 1]:.2%}", f"{cosine:.3f}"))
fig.suptitle("Bias of the truncated gradient, relative to the whole")
axes[0].set_ylabel("norm of the bias / norm of the gradient")
fig.set_label(
    "The bias of the gradient that is truncated after $K$ steps, and its bound, before "
    "training. Left: with Xavier weights the bound is far too large, and the bias "
    "decreases nevertheless. Right: with $\\gamma\\sigma < 1$ both decrease."
)
axes[0].legend()
plt.show()

header = ("weights", "steps K", "missing of the gradient", "cosine with the whole")
print(markdown_table(header, printed))

# %%
# If :math:`\gamma\sigma < 1`, the bound decreases with :math:`K`. For Xavier weights
# the bound is useless: it is many powers of ten too large, and would allow the first
# steps to contribute most. The bias decreases nevertheless, because the gradient itself
# vanishes. The faster the gradient vanishes, the less is lost by truncating it.

for seed in range(12):  # other initial weights
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
# We take the 1,000 images as the whole population, and their full gradient as the true
# one. From :math:`n` images drawn at random we estimate it in two ways: with their full
# gradient, and with the gradient that is truncated after :math:`K = 4` steps. The error
# of the full estimate decreases as :math:`1/\sqrt n`. The truncated estimate converges
# to a different value.

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

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, errors), style in zip(error.items(), ("o-", "s--"), strict=True):
    ax.loglog(sizes, errors, style, label=name)
ax.axhline(bias, color="gray", linestyle=":", label="bias")
ax.set_title("Error of the estimated gradient against the number of images")
ax.set(xlabel="images drawn", ylabel="root mean square error / norm of the gradient")
fig.set_label(
    "The error of the estimated gradient against the number of images. For the full "
    "gradient it decreases; for the truncated one it approaches the bias."
)
ax.legend()
plt.show()

printed = [
    (f"{size:,}", *(f"{x:.2%}" for x in errors))
    for size, *errors in zip(sizes, *error.values(), strict=True)
]
header = ("images", "error of the full gradient", "of the truncated gradient")
print(markdown_table(header, printed))
print(f"bias: {bias:.2%}")

full_errors, truncated_errors = error.values()
assert abs(bias - biases["Xavier"][K - 1]) < 1e-12  # as measured above
assert full_errors[-1] < full_errors[0] / 20  # 1/√n says: a 32nd
assert abs(truncated_errors[-1] / bias - 1) < 0.05

# %%
# Consecutive chunks
# ------------------
# With a label at every step, the usual method cuts the sequence into chunks of
# :math:`K` steps, carries the state from chunk to chunk, and detaches it at each cut.
# Let :math:`\ell_t` be the loss of step :math:`t`, and :math:`\delta_k^{(t)}` its
# gradient with respect to the pre-activation of step :math:`k`. The full gradient is
# the sum over all pairs :math:`k \le t`. The method keeps the pairs in the same chunk:
#
# .. math::
#    :label: eq-truncated-chunks
#
#    \sum_{t=1}^{T} \; \sum_{k \le t,\; \lceil k/K \rceil = \lceil t/K \rceil}
#    h_{k-1}^\top \delta_k^{(t)} .
#
# Here the network predicts the class after every row, and chunks have 7 rows. The first
# column of the figure is empty, since :math:`h_0 = 0`.

K = 7
every = labels.expand(T, n)  # the label of an image, at each of its rows
H, derivatives, _ = backward(W_hh)
G = cross_entropy_backward(H[1:] @ W_hq, every) @ W_hq.T
pairs = torch.zeros(T, T, h, h).double()  # of the loss after row t, through row k
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
fig, ax = plt.subplots(figsize=(7, 5.5), layout="constrained")
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
ax.set_title("Pairs of steps that a gradient in chunks keeps (frames)")
fig.set_label(
    "The norm of the contribution of each pair of steps to the gradient of $W_{hh}$ on "
    "a logarithmic scale. Backpropagation in chunks of 7 steps keeps the "
    "pairs in the frames."
)
ax.set(xlabel="weight used at step $k$", ylabel="loss of step $t$")
fig.colorbar(image, label="$\\log_{10}$(norm / largest norm)")
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
printed = [(name, f"{share:.2%}") for name, share in missing.items()]
print(markdown_table(("gradient of", "missing"), printed))

assert torch.allclose(pairs.sum((0, 1)), full.W_hh, rtol=0, atol=1e-13)
assert torch.allclose(kept, chunked[1], rtol=0, atol=1e-13)
assert missing["W_hq"] < 1e-14
assert min(missing[name] for name in ("W_xh", "W_hh", "b_h")) > 0.01

# %%
# At each step, the output :math:`h_t W_{hq}` affects the loss of this step only. The
# state :math:`h_t` is exact, because states are carried over. Therefore no path of the
# gradient with respect to :math:`W_{hq}` crosses a cut, and this gradient is unbiased.
# The gradients with respect to :math:`W_{xh}`, :math:`W_{hh}` and :math:`b_h` are
# biased.
#
# With chunks of :math:`K` steps, the gradient of a loss is not always propagated
# through :math:`K` steps: that of the first loss of a chunk reaches one step, and that
# of the last loss all :math:`K`, so the average is :math:`(K + 1)/2` steps. The
# position of the cuts matters, too, because it determines which rows are in the same
# chunk.
#
# Limits
# ------
# A bias that is small before training need not stay small, because a network that
# learns to remember has a gradient that reaches farther back. The purpose of truncation
# is to save memory: the states of :math:`K` steps have to be stored instead of all.
