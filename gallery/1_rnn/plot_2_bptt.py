r"""
Backpropagation through time, derived line by line and checked
==============================================================

**Question.** What are the gradients of the loss of a recurrent network with respect to
its weights, inputs and initial hidden state, and how do we know that the formulas are
right?

**Answer.** One backward pass gives the gradients with respect to the five parameters,
the inputs and the initial state. They agree with automatic differentiation and with a
complex step to twelve digits, and both comparisons detect three common mistakes. Before
training, at least three quarters of the gradient with respect to :math:`W_{hh}` come
from the last eight of the 28 rows of an image, in each of twelve initializations.

**Source.** Werbos, *Backpropagation through time: what it does and how to do it*,
Proceedings of the IEEE 78, 1990; for the product of Jacobians, Pascanu, Mikolov and
Bengio, *On the difficulty of training recurrent neural networks*, 2013
(arXiv:1211.5063), equations 3 to 5. **Cost.** Seconds on a CPU, no download.
"""

# %%
# The method
# ----------
# The chapter derives all gradients from the definition :eq:`def-gradient`,
# :math:`\mathrm dL = \langle \partial L / \partial M, \mathrm dM \rangle` with
# :math:`\langle A, B \rangle = \sum_{ij} A_{ij} B_{ij}`, and from two rules:
#
# .. math::
#
#    \langle A, B\,C \rangle = \langle A\,C^\top, B \rangle
#    = \langle B^\top A, C \rangle, \qquad
#    \langle A, B \odot C \rangle = \langle A \odot B, C \rangle .
#
# A bias row :math:`b` is added to every row of a batch, as :math:`\mathbf 1 b` with a
# column of ones. Therefore :math:`\langle A, \mathbf 1\,\mathrm db \rangle = \langle
# \mathbf 1^\top A, \mathrm db \rangle`: the gradient with respect to the bias is the
# sum of the rows of :math:`A`. This page repeats each step of the derivation with one
# line of code.
#
# The forward pass
# ----------------
# The network has an output at every step, and a label where a mask is 1. Below, entry
# :math:`t` of each list belongs to step :math:`t`, and entry 0 of the inputs is never
# used. The sizes are different primes, and no weight or input is zero. Therefore a
# missing transpose or a missing term changes a shape or a value, and is noticed.

import matplotlib.pyplot as plt
import torch
from torch.autograd.functional import jacobian

from dian import data
from dian.figures import plots
from dian.figures.interactive import Interactive
from dian.figures.tables import markdown_table
from dian.rnn import initialization
from dian.rnn.recurrence import ACTIVATIONS, rnn_backward, rnn_forward
from dian.rnn.truncated import gradient_terms
from dian.training.loss import cross_entropy_backward

T, n, d, h, q = 7, 5, 3, 11, 2
steps = range(1, T + 1)
generator = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


given = {
    "X": normal(T + 1, n, d),
    "W_xh": normal(d, h),
    "W_hh": normal(h, h) / h**0.5,
    "b_h": normal(h),
    "H_0": normal(n, h),
    "W_hq": normal(h, q),
    "b_q": normal(q),
}
Y = torch.eye(q).double()[torch.randint(q, (T + 1, n), generator=generator)]  # one-hot
m = (torch.rand(T + 1, n, 1, generator=generator) < 0.6).double()
Z = m[1:].sum()


def forward(X, W_xh, W_hh, b_h, H_0, W_hq, b_q):
    """Return the states and the logits, for real or complex numbers."""
    H, scores = [H_0], [None]
    for t in steps:
        H.append(torch.tanh(X[t] @ W_xh + H[t - 1] @ W_hh + b_h))
        scores.append(H[t] @ W_hq + b_q)
    return H, scores


def loss(*tensors):
    """Return the cross-entropy, a mean over the positions that count."""
    _, scores = forward(*tensors)
    log_P = [o - o.exp().sum(1, keepdim=True).log() for o in scores[1:]]
    return -(m[1:] * Y[1:] * torch.stack(log_P)).sum() / Z


X, W_xh, W_hh, b_h, H_0, W_hq, b_q = given.values()
H, scores = forward(*given.values())  # H_t and O_t

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
plots.unrolled(ax, 3, backward=True)
ax.set_title("Forward along the solid arrows, backward along the dashed ones")
fig.set_label(
    "The forward pass (solid) and the backward pass (dashed) of three time steps. "
    "Each state receives the gradient of its own output and that of the next state."
)
plt.show()

# %%
# Step 1: from the loss to the logits
# -----------------------------------
# With :math:`G_t = \partial L / \partial O_t`, the change of the loss is :math:`\mathrm
# dL = \sum_t \langle G_t, \mathrm dO_t \rangle`. For one row of logits, the gradient of
# the cross-entropy is :math:`p - y`, equation :eq:`eq-softmax-gradient`. With the mask
# and the mean this becomes :math:`G_t = \frac1Z m_t \odot (P_t - Y_t)`.

P = [None] + [scores[t].softmax(1) for t in steps]
G = [None] + [m[t] * (P[t] - Y[t]) / Z for t in steps]

# %%
# Step 2: through the output layer
# --------------------------------
# Since :math:`O_t = H_t W_{hq} + \mathbf 1 b_q`,
#
# .. math::
#
#    \langle G_t, \mathrm dO_t \rangle
#    &= \langle G_t, \mathrm dH_t\, W_{hq} + H_t\, \mathrm dW_{hq}
#    + \mathbf 1\, \mathrm db_q \rangle \\
#    &= \langle G_t W_{hq}^\top, \mathrm dH_t \rangle
#    + \langle H_t^\top G_t, \mathrm dW_{hq} \rangle
#    + \langle \mathbf 1^\top G_t, \mathrm db_q \rangle .
#
# All steps share the weights, so their contributions are summed over the time steps,
# equation :eq:`eq-bptt-output`:

gradient = {}
gradient["W_hq"] = sum(H[t].T @ G[t] for t in steps)
gradient["b_q"] = sum(G[t].sum(0) for t in steps)

# %%
# The remaining part of :math:`\mathrm dL` contains the changes of the states:
# :math:`\sum_t \langle G_t W_{hq}^\top, \mathrm dH_t \rangle`.
#
# Step 3: through the states, from the last to the first
# ------------------------------------------------------
# The states depend on each other: :math:`H_T` depends on :math:`H_{T-1}`, and so on. We
# begin with the last one, replace its change by the changes of the quantities that it
# was computed from, and continue with the previous one. Suppose that all states after
# :math:`t` have been replaced, and that the coefficient of :math:`\mathrm dH_t` is
# :math:`\Gamma_t`. This is the gradient with respect to :math:`H_t` that includes all
# later steps. For :math:`t = T` it is :math:`G_T W_{hq}^\top`. With :math:`A_t = X_t
# W_{xh} + H_{t-1} W_{hh} + \mathbf 1 b_h`, and because :math:`\mathrm dH_t = (1 - H_t
# \odot H_t) \odot \mathrm dA_t` for tanh, the second rule gives
#
# .. math::
#
#    \langle \Gamma_t, \mathrm dH_t \rangle = \langle \delta_t, \mathrm dA_t \rangle,
#    \qquad \delta_t = \Gamma_t \odot (1 - H_t \odot H_t),
#
# and the first rule splits this into five terms:
#
# .. math::
#
#    \langle \delta_t, \mathrm dA_t \rangle
#    = \langle \delta_t W_{xh}^\top, \mathrm dX_t \rangle
#    + \langle X_t^\top \delta_t, \mathrm dW_{xh} \rangle
#    + \langle \delta_t W_{hh}^\top, \mathrm dH_{t-1} \rangle
#    + \langle H_{t-1}^\top \delta_t, \mathrm dW_{hh} \rangle
#    + \langle \mathbf 1^\top \delta_t, \mathrm db_h \rangle .
#
# The third term is added to the coefficient that :math:`\mathrm dH_{t-1}` already has,
# :math:`G_{t-1} W_{hq}^\top`. The sum is :math:`\Gamma_{t-1}`, and the same two rules
# apply to it. With :math:`\delta_{T+1} = 0` this is the recursion :eq:`eq-bptt-states`:

delta = [None] * (T + 1) + [torch.zeros(n, h).double()]
for t in reversed(steps):
    Gamma_t = G[t] @ W_hq.T + delta[t + 1] @ W_hh.T
    delta[t] = Gamma_t * (1 - H[t] * H[t])

# %%
# Step 4: sums over the time steps
# --------------------------------
# Each step leaves four other terms. For the shared weights and the bias they are
# summed, equation :eq:`eq-bptt-weights`. Note the index: the state that is multiplied
# by :math:`\delta_t` is the *previous* one, :math:`H_{t-1}`.

gradient["W_xh"] = sum(X[t].T @ delta[t] for t in steps)
gradient["W_hh"] = sum(H[t - 1].T @ delta[t] for t in steps)
gradient["b_h"] = sum(delta[t].sum(0) for t in steps)

# %%
# The inputs are not shared. The initial hidden state has no output of its own, so it
# receives only the gradient from step 1, equation :eq:`eq-bptt-inputs`:

gradient["X"] = torch.stack([torch.zeros(n, d)] + [delta[t] @ W_xh.T for t in steps])
gradient["H_0"] = delta[1] @ W_hh.T

# %%
# If all sequences share one initial state, the gradient with respect to this state is
# the sum of the rows of :math:`\partial L / \partial H_0`. These few lines are the
# whole backward pass. The library's :func:`dian.rnn.recurrence.rnn_backward` has the
# same lines, and computes the sums over time by matrix products that contain many
# steps.
#
# Three computations of each gradient
# -----------------------------------
# **Automatic differentiation** does not use our formulas, but it shares the forward
# pass with them. **A complex step** does not differentiate at all: for an analytic
# function, :math:`f'(x) = \operatorname{Im} f(x + i\epsilon) / \epsilon` up to an error
# of order :math:`\epsilon^2`. Since nothing is subtracted, :math:`\epsilon = 10^{-30}`
# causes no cancellation. The method needs one forward pass for each entry of each
# tensor. **The library's functions** are those that train the networks of this report.

leaves = [tensor.clone().requires_grad_() for tensor in given.values()]
by_autograd = dict(zip(given, torch.autograd.grad(loss(*leaves), leaves), strict=True))


def complex_step(name: str, epsilon: float = 1e-30) -> torch.Tensor:
    """Differentiate with respect to each entry of one of the seven tensors."""
    derivatives = torch.empty_like(given[name])
    for i in range(derivatives.numel()):
        tensors = {key: x.to(torch.complex128) for key, x in given.items()}
        tensors[name].view(-1)[i] += 1j * epsilon
        derivatives.view(-1)[i] = loss(*tensors.values()).imag / epsilon
    return derivatives


states = rnn_forward(X[1:], W_xh, W_hh, b_h, H_0)
logits, labels, counts = states[1:] @ W_hq + b_q, Y[1:].argmax(-1), m[1:, :, 0] == 1
G_library = cross_entropy_backward(logits, labels, counts)
by_library = rnn_backward(G_library @ W_hq.T, None, X[1:], states, W_xh, W_hh)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest entry above 1."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()


differences, printed = [], []
for name in given:
    found = gradient[name]
    row = [apart(found, by_autograd[name]), apart(found, complex_step(name))]
    if name in by_library._fields:
        inner = found[1:] if name == "X" else found
        row.append(apart(inner, getattr(by_library, name)))
    cells = [f"{x:.1e}" for x in row] + [""] * (3 - len(row))
    printed.append((name, found.numel(), *cells))
    differences += row
header = (
    "gradient of",
    "entries",
    "from autograd",
    "from complex step",
    "from library",
)
print(markdown_table(header, printed))

assert max(differences) < 1e-12

# %%
# Would a mistake be noticed?
# ---------------------------
# A check is useful only if it fails for a wrong gradient. Here are three common
# mistakes in the gradient with respect to :math:`W_{hh}`.

uncarried = [None] + [G[t] @ W_hq.T * (1 - H[t] * H[t]) for t in steps]
turned = delta.copy()
for t in reversed(steps):
    turned[t] = (G[t] @ W_hq.T + turned[t + 1] @ W_hh) * (1 - H[t] * H[t])
mistakes = {
    "H_t in place of H_(t-1)": sum(H[t].T @ delta[t] for t in steps),
    "nothing carried from the next step": sum(H[t - 1].T @ uncarried[t] for t in steps),
    "W_hh not transposed": sum(H[t - 1].T @ turned[t] for t in steps),
}
by_step, printed = complex_step("W_hh"), []
for what, wrong in mistakes.items():
    caught = [apart(wrong, right) for right in (by_autograd["W_hh"], by_step)]
    printed.append((what, *(f"{x:.2f}" for x in caught)))
    assert min(caught) > 0.01
print(markdown_table(("mistake", "from autograd", "from complex step"), printed))

# %%
# The same gradient as a product of Jacobians
# -------------------------------------------
# Take one sequence, and a loss :math:`\ell_T` that depends on the last state only. The
# recursion of step 3 is then a product. A small change of the state propagates forward
# by :math:`\mathrm dh_s = \mathrm dh_{s-1} W_{hh} D_s`, where the diagonal of
# :math:`D_s` contains the derivatives, :math:`1 - h_s \odot h_s` for tanh. As a matrix
# with entries :math:`\partial h_{t,i} / \partial h_{k,j}`, this is the product of
# Jacobians :eq:`eq-jacobian-product`, with :math:`J_s = D_s W_{hh}^\top`:

D = [None] + [torch.diag(1 - H[s][0] * H[s][0]) for s in steps]
J = [None] + [D[s] @ W_hh.T for s in steps]


def product_of_jacobians(t: int, k: int) -> torch.Tensor:
    """Multiply the Jacobians from the last to the first."""
    product = torch.eye(h).double()
    for s in range(t, k, -1):
        product = product @ J[s]
    return product


def state(t: int, k: int, h_k: torch.Tensor) -> torch.Tensor:
    """Run the first sequence from step k to step t."""
    for s in range(k + 1, t + 1):
        h_k = torch.tanh(X[s][0] @ W_xh + h_k @ W_hh + b_h)
    return h_k


printed = []
for t, k in [(1, 0), (6, 2), (T, 0)]:
    found = product_of_jacobians(t, k)
    expected = jacobian(lambda h_k, t=t, k=k: state(t, k, h_k), H[k][0])
    printed.append((f"∂h_{t}/∂h_{k}", f"{apart(found, expected):.1e}"))
    assert apart(found, expected) < 1e-12
print(markdown_table(("Jacobian", "difference from autograd"), printed))

# %%
# If we insert this product into :eq:`eq-bptt-weights`, we obtain the form
# :eq:`eq-gradient-terms`, which shows the lags. Each step contributes one term, and the
# term of step :math:`k` has passed through :math:`T - k` Jacobians.

e = (P[T][0] - Y[T][0]) @ W_hq.T  # the gradient of the loss with respect to h_T
terms = [torch.outer(H[k - 1][0], e @ product_of_jacobians(T, k) @ D[k]) for k in steps]

leaf = W_hh.clone().requires_grad_()
_, outputs = forward(X, W_xh, leaf, b_h, H_0, W_hq, b_q)
last = -(Y[T][0] * outputs[T][0].log_softmax(0)).sum()
(expected,) = torch.autograd.grad(last, leaf)
print(f"the sum over all steps: {apart(sum(terms), expected):.1e} from autograd")

assert apart(sum(terms), expected) < 1e-12

# %%
# One unit: a number for each Jacobian
# ------------------------------------
# For a single unit without bias the Jacobians are numbers, :math:`J_s = w_{hh}\,(1 -
# h_s^2)`, and the derivative of the last state with respect to an earlier one is their
# product. In the interactive figure, the unit receives one impulse at step 1. The upper
# panel shows its states, and the lower panel the size of the derivative of the last
# state with respect to each of them.

weights = [-1.5, -0.8, 0.3, 0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0]
impulses = [0.0001, 0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0]
Interactive(
    "unit",
    "One tanh unit with an impulse at step 1: its states (top), and the size of the "
    "derivative of its last state with respect to each state (bottom). Change the "
    "recurrent weight and the impulse.",
    weights=weights,
    impulses=impulses,
    steps=15,
)

# %%
# With a recurrent weight of 0.8, each step multiplies the derivative by 0.8 or less.
# With a weight of 2 and an impulse of 1, the unit stores the sign of the impulse, but
# it is saturated, so the derivative vanishes faster. With a weight of 2 and an impulse
# of 0.0001, the unit stays near zero for ten steps, and the derivative explodes.


def of_one_unit(w: float, impulse: float) -> tuple[float, float]:
    """Return the last state, and its derivative with respect to the first."""
    first = torch.tensor(impulse).double().tanh().requires_grad_()
    last = first
    for _ in range(14):
        last = torch.tanh(w * last)
    (derivative,) = torch.autograd.grad(last, first)
    return last.item(), derivative.item()


printed = []
for w, impulse in [(0.8, 1.0), (2.0, 1.0), (2.0, 0.0001)]:
    last_state, derivative = of_one_unit(w, impulse)
    printed.append((w, impulse, f"{last_state:.2g}", f"{derivative:.2g}"))
print(markdown_table(("weight w", "impulse", "h_15", "∂h_15/∂h_1"), printed))

assert 0.01 < of_one_unit(0.8, 1.0)[1] < 0.8**14
assert of_one_unit(2.0, 1.0)[0] > 0.9 > 1e9 * of_one_unit(2.0, 1.0)[1]
assert of_one_unit(2.0, 0.0001)[1] > 1000

# %%
# Where the gradient comes from
# -----------------------------
# The terms show how much each row of an image contributes to the gradient with respect
# to :math:`W_{hh}`. We compute them for 500 test images and a network of 128 units with
# Xavier weights, before training.

test = data.sample("test")
rows = test.unit().double().transpose(0, 1)  # time, batch, pixels
draw = {"generator": torch.Generator().manual_seed(0)}
W_in, W_rec, W_out = (
    initialization.xavier_(torch.empty(shape).double(), **draw)
    for shape in ((28, 128), (128, 128), (128, 10))
)
matrices = W_in, W_rec, W_out
bias, start = torch.zeros(128).double(), torch.zeros(500, 128).double()
states = rnn_forward(rows, W_in, W_rec, bias, start)
E = cross_entropy_backward(states[-1] @ W_out, test.labels) @ W_out.T
derivatives = ACTIVATIONS["tanh"].derivative(states[1:])
terms = gradient_terms(
    E, derivatives, states, W_rec
)  # the formula above, for all images
whole = rnn_backward(None, E, rows, states, W_in, W_rec).W_hh
sizes = terms.norm(dim=(1, 2)) / whole.norm()

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.semilogy(range(1, 29), sizes, "o-")
ax.set_title("Contribution of each row to the gradient with respect to $W_{hh}$")
fig.set_label(
    "The norm of each term of the gradient with respect to $W_{hh}$, relative to the "
    "norm of their sum, for 500 images before training. The terms of early rows are "
    "much smaller, because they contain more Jacobians."
)
ax.set(xlabel="row $k$ (step)", ylabel="norm of the term / norm of the sum")
plt.show()

# %%
# The first term is zero, since it contains :math:`H_0 = 0`. From the last row backward,
# the terms shrink with the lag, because each contains one more Jacobian, and these
# Jacobians shrink the gradient. To measure which fraction of the gradient comes from a
# term, we project the term on the direction of the whole gradient. In each of twelve
# initializations, the first half of the image contributes less than a twentieth. (This
# fraction counts only the component along the gradient. The sum of the terms of the
# first half also has a component orthogonal to the gradient, and that one is larger.)

share = (terms * whole).sum((1, 2)) / whole.square().sum()  # along the whole
print(f"sum of the terms against the library: {apart(terms.sum(0), whole):.1e}")
printed = [(k, f"{share[-k:].sum():.1%}") for k in (1, 4, 8, 14)]
print(markdown_table(("last rows of the image", "share of the gradient"), printed))
print(f"row 2 against row 28: {sizes[1] / sizes[-1]:.3f}")

assert apart(terms.sum(0), whole) < 1e-12
assert (sizes[1:14] < sizes[-1] / 4).all()
for seed in range(12):  # other initial weights
    draw["generator"].manual_seed(seed)
    W_in, W_rec, W_out = (
        initialization.xavier_(torch.empty_like(W), **draw) for W in matrices
    )
    states = rnn_forward(rows, W_in, W_rec, bias, start)
    E = cross_entropy_backward(states[-1] @ W_out, test.labels) @ W_out.T
    derivatives = ACTIVATIONS["tanh"].derivative(states[1:])
    terms = gradient_terms(E, derivatives, states, W_rec)
    whole = terms.sum(0)
    share = (terms * whole).sum((1, 2)) / whole.square().sum()
    assert share[-8:].sum() > 0.75
    assert abs(share[:14].sum()) < 0.05
    along = share[:14].sum() * whole.norm()  # the rest is orthogonal to the whole
    assert terms[:14].sum(0).norm() > 2**0.5 * abs(along)

# %%
# Limits
# ------
# Backpropagation through time is exact, and so are these fractions. That they are small
# for early rows is not an error of the method.
# :ref:`sphx_glr_gallery_1_rnn_plot_3_vanishing.py` examines how fast they shrink and
# what determines the rate.
