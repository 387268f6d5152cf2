r"""
Backpropagation through time, line by line
==========================================

**Question.** How does the loss of a recurrent network change with each of its weights,
inputs and start states, and how do we know that the formulas are right?

**Answer.** One walk from the last step to the first gives all seven gradients; each
line of it is one formula below, derived with two rules of algebra. They agree with
automatic differentiation and with a complex step to twelve digits, and three common
mistakes are caught by either. The gradient by :math:`W_{hh}` is a sum over the steps,
in which a step that lies :math:`k` back has passed :math:`k` Jacobians. Before any
training, three quarters of it or more, measured along the whole, come from the last
eight of the 28 rows of an image, and less than a twentieth from its whole first half,
in each of twelve starts; most of what the first half does add points elsewhere.

**Source.** Werbos, *Backpropagation through time: what it does and how to do it*,
Proceedings of the IEEE 78, 1990; for the product of Jacobians, Pascanu, Mikolov and
Bengio, *On the difficulty of training recurrent neural networks*, 2013
(arXiv:1211.5063), equations 3 to 5. **Cost.** Seconds on a CPU, no download.
"""

# %%
# Two rules
# ---------
# Write :math:`\langle A, B \rangle = \sum_{ij} A_{ij} B_{ij}` for two matrices of the
# same shape. The gradient of a number :math:`L` by a matrix :math:`M` is the matrix
# that tells how any small change of :math:`M` changes :math:`L`:
#
# .. math::
#    :label: def-gradient
#
#    \mathrm dL = \Big\langle \frac{\partial L}{\partial M}, \mathrm dM \Big\rangle .
#
# So to find a gradient is to write :math:`\mathrm dL` in this form and to read off what
# stands on the left. Products are moved to the left by two rules, which are the cyclic
# order under a trace and the order of a sum:
#
# .. math::
#
#    \langle A, B\,C \rangle = \langle A\,C^\top, B \rangle
#    = \langle B^\top A, C \rangle, \qquad
#    \langle A, B \odot C \rangle = \langle A \odot B, C \rangle .
#
# A bias is added to every row, :math:`\mathbf 1 b`, so by the first rule
# :math:`\langle A, \mathbf 1\,\mathrm db \rangle = \langle \mathbf 1^\top A, \mathrm db
# \rangle`: its gradient is the sum of the rows.
#
# The way out
# -----------
# The network has an output at every step, and a label, where a mask says so. Below,
# entry :math:`t` of each list belongs to step :math:`t`, and entry 0 of the inputs is
# never read. Sizes are different primes, and nothing is zero, so that no transposed
# matrix and no forgotten term can pass by luck.

import matplotlib.pyplot as plt
import torch
from torch.autograd.functional import jacobian

from dian import data
from dian.figures import plots
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
    """Return the states and the scores, for numbers real or complex."""
    H, scores = [H_0], [None]
    for t in steps:
        H.append(torch.tanh(X[t] @ W_xh + H[t - 1] @ W_hh + b_h))
        scores.append(H[t] @ W_hq + b_q)
    return H, scores


def loss(*tensors):
    """Return the cross-entropy, a mean over all that the mask counts."""
    _, scores = forward(*tensors)
    log_P = [o - o.exp().sum(1, keepdim=True).log() for o in scores[1:]]
    return -(m[1:] * Y[1:] * torch.stack(log_P)).sum() / Z


X, W_xh, W_hh, b_h, H_0, W_hq, b_q = given.values()
H, scores = forward(*given.values())  # H_t and O_t

fig, ax = plt.subplots(figsize=(6.6, 3.4), layout="constrained")
plots.unrolled(ax, 3, backward=True)
ax.set_title("Forward along the solid arrows, backward along the dashed ones")
plt.show()

# %%
# Step 1: from the loss to the scores
# -----------------------------------
# With :math:`G_t = \partial L / \partial O_t`, the change of the loss is
# :math:`\mathrm dL = \sum_t \langle G_t, \mathrm dO_t \rangle`. For one row of scores
# the gradient of the cross-entropy is :math:`p - y`, equation
# :eq:`eq-softmax-gradient` of the chapter; the mask and the mean make of it
# :math:`G_t = \frac1Z m_t \odot (P_t - Y_t)`.

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
# The weights are the same at every step, so their parts add up:
#
# .. math::
#    :label: eq-bptt-output
#
#    \frac{\partial L}{\partial W_{hq}} = \sum_t H_t^\top G_t, \qquad
#    \frac{\partial L}{\partial b_q} = \sum_t \mathbf 1^\top G_t .

gradient = {}
gradient["W_hq"] = sum(H[t].T @ G[t] for t in steps)
gradient["b_q"] = sum(G[t].sum(0) for t in steps)

# %%
# What is left to explain are the states,
# :math:`\sum_t \langle G_t W_{hq}^\top, \mathrm dH_t \rangle`.
#
# Step 3: through the states, from the last to the first
# ------------------------------------------------------
# The states are not independent of each other: :math:`H_T` depends on :math:`H_{T-1}`,
# and so on. We take the last one, replace its change by the changes of what it was made
# of, and go on with the one before. Suppose that all states after :math:`t` are gone,
# and that the coefficient of :math:`\mathrm dH_t` is now :math:`\Gamma_t`: that is the
# gradient by :math:`H_t` when everything is counted that happens after it. For
# :math:`t = T` it is :math:`G_T W_{hq}^\top`. With
# :math:`A_t = X_t W_{xh} + H_{t-1} W_{hh} + \mathbf 1 b_h`, and because
# :math:`\mathrm dH_t = (1 - H_t \odot H_t) \odot \mathrm dA_t` for tanh, the second
# rule gives
#
# .. math::
#
#    \langle \Gamma_t, \mathrm dH_t \rangle = \langle \delta_t, \mathrm dA_t \rangle
#    \quad \text{with} \quad \delta_t = \Gamma_t \odot (1 - H_t \odot H_t),
#
# and the first rule splits that into five parts:
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
# The third part joins what :math:`\mathrm dH_{t-1}` had already, which was
# :math:`G_{t-1} W_{hq}^\top`. So the state one step earlier is in the same position,
# and with :math:`\delta_{T+1} = 0` the walk is
#
# .. math::
#    :label: eq-bptt-states
#
#    \Gamma_t = G_t W_{hq}^\top + \delta_{t+1} W_{hh}^\top, \qquad
#    \delta_t = \Gamma_t \odot (1 - H_t \odot H_t), \qquad t = T, \dots, 1 .

delta = [None] * (T + 1) + [torch.zeros(n, h).double()]
for t in reversed(steps):
    Gamma_t = G[t] @ W_hq.T + delta[t + 1] @ W_hh.T
    delta[t] = Gamma_t * (1 - H[t] * H[t])

# %%
# Step 4: collect
# ---------------
# On the way every step has left its four other parts behind. What is shared by the
# steps gets their sum. Note the index: the state that meets :math:`\delta_t` is the one
# *before*.
#
# .. math::
#    :label: eq-bptt-weights
#
#    \frac{\partial L}{\partial W_{xh}} = \sum_t X_t^\top \delta_t, \qquad
#    \frac{\partial L}{\partial W_{hh}} = \sum_t H_{t-1}^\top \delta_t, \qquad
#    \frac{\partial L}{\partial b_h} = \sum_t \mathbf 1^\top \delta_t .

gradient["W_xh"] = sum(X[t].T @ delta[t] for t in steps)
gradient["W_hh"] = sum(H[t - 1].T @ delta[t] for t in steps)
gradient["b_h"] = sum(delta[t].sum(0) for t in steps)

# %%
# The inputs are not shared, and at the end of the walk stands the start state, which
# has no output of its own:
#
# .. math::
#    :label: eq-bptt-inputs
#
#    \frac{\partial L}{\partial X_t} = \delta_t W_{xh}^\top, \qquad
#    \frac{\partial L}{\partial H_0} = \delta_1 W_{hh}^\top .

gradient["X"] = torch.stack([torch.zeros(n, d)] + [delta[t] @ W_xh.T for t in steps])
gradient["H_0"] = delta[1] @ W_hh.T

# %%
# If all sequences share one start state, its gradient is the sum of the rows of the
# last. Nothing else is needed: these few lines are the whole backward pass. The
# library's :func:`dian.rnn.recurrence.rnn_backward` has the same lines, with each sum
# over time as products over many steps at once.
#
# Three ways, one number
# ----------------------
# **Automatic differentiation** knows nothing of our formulas, but it shares the forward
# pass with them. **A complex step** does not differentiate at all: for an analytic
# function, :math:`f'(x) = \operatorname{Im} f(x + i\epsilon) / \epsilon` up to
# :math:`\epsilon^2`, and since nothing is subtracted, :math:`\epsilon = 10^{-30}` is no
# problem. It takes one forward pass for every single number. **The library** is what
# trains elsewhere in this report.

leaves = [tensor.clone().requires_grad_() for tensor in given.values()]
by_autograd = dict(zip(given, torch.autograd.grad(loss(*leaves), leaves), strict=True))


def complex_step(name: str, epsilon: float = 1e-30) -> torch.Tensor:
    """Differentiate the loss by every entry of one of the seven, one at a time."""
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


print("by    numbers  autograd  complex step  library")
differences = []
for name in given:
    found = gradient[name]
    row = [apart(found, by_autograd[name]), apart(found, complex_step(name))]
    if name in by_library._fields:
        inner = found[1:] if name == "X" else found
        row.append(apart(inner, getattr(by_library, name)))
    print(f"{name:5} {found.numel():7}", *(f"{x:10.1e}" for x in row))
    differences += row

assert max(differences) < 1e-12

# %%
# Would it be noticed?
# --------------------
# A check that cannot fail is worth nothing. Here are three mistakes that are easily
# made, in the gradient by :math:`W_{hh}`.

uncarried = [None] + [G[t] @ W_hq.T * (1 - H[t] * H[t]) for t in steps]
turned = delta.copy()
for t in reversed(steps):
    turned[t] = (G[t] @ W_hq.T + turned[t + 1] @ W_hh) * (1 - H[t] * H[t])
mistakes = {
    "H_t in place of H_(t-1)": sum(H[t].T @ delta[t] for t in steps),
    "nothing carried from the next step": sum(H[t - 1].T @ uncarried[t] for t in steps),
    "W_hh not transposed": sum(H[t - 1].T @ turned[t] for t in steps),
}
by_step = complex_step("W_hh")
for what, wrong in mistakes.items():
    caught = [apart(wrong, right) for right in (by_autograd["W_hh"], by_step)]
    print(
        f"{what:35} off by {caught[0]:.2f} (autograd), {caught[1]:.2f} (complex step)"
    )
    assert min(caught) > 0.01

# %%
# The same gradient as a product of Jacobians
# -------------------------------------------
# Take one sequence, and a loss :math:`\ell_T` that reads the last state alone. Then
# nothing joins on the way, and the walk of step 3 is a product. A small change of the
# state goes forward by :math:`\mathrm dh_s = \mathrm dh_{s-1} W_{hh} D_s`, where the
# diagonal of :math:`D_s` holds the derivatives, :math:`1 - h_s \odot h_s` for tanh. As
# a matrix with entries :math:`\partial h_{t,i} / \partial h_{k,j}`, that is
#
# .. math::
#    :label: eq-jacobian-product
#
#    \frac{\partial h_t}{\partial h_k} = J_t J_{t-1} \cdots J_{k+1}, \qquad
#    J_s = \frac{\partial h_s}{\partial h_{s-1}} = D_s W_{hh}^\top, \qquad
#    D_s = \operatorname{diag} \varphi'(a_s) .

D = [None] + [torch.diag(1 - H[s][0] * H[s][0]) for s in steps]
J = [None] + [D[s] @ W_hh.T for s in steps]


def product_of_jacobians(t: int, k: int) -> torch.Tensor:
    """Multiply them from the last to the first."""
    product = torch.eye(h).double()
    for s in range(t, k, -1):
        product = product @ J[s]
    return product


def state(t: int, k: int, h_k: torch.Tensor) -> torch.Tensor:
    """Run the first sequence from step k to step t."""
    for s in range(k + 1, t + 1):
        h_k = torch.tanh(X[s][0] @ W_xh + h_k @ W_hh + b_h)
    return h_k


for t, k in [(1, 0), (6, 2), (T, 0)]:
    found = product_of_jacobians(t, k)
    expected = jacobian(lambda h_k, t=t, k=k: state(t, k, h_k), H[k][0])
    print(f"∂h_{t}/∂h_{k}: {apart(found, expected):.1e} from autograd")
    assert apart(found, expected) < 1e-12

# %%
# Put into :eq:`eq-bptt-weights`, it gives the form in which one sees the lags: each
# step adds one term, and the term of step :math:`k` has come through :math:`T - k`
# Jacobians.
#
# .. math::
#    :label: eq-gradient-terms
#
#    \frac{\partial \ell_T}{\partial W_{hh}} = \sum_{k=1}^{T} h_{k-1}^\top \delta_k,
#    \qquad
#    \delta_k = \frac{\partial \ell_T}{\partial h_T}\,
#    \frac{\partial h_T}{\partial h_k}\, D_k .

e = (P[T][0] - Y[T][0]) @ W_hq.T  # the gradient of the loss by h_T
terms = [torch.outer(H[k - 1][0], e @ product_of_jacobians(T, k) @ D[k]) for k in steps]

leaf = W_hh.clone().requires_grad_()
_, outputs = forward(X, W_xh, leaf, b_h, H_0, W_hq, b_q)
last = -(Y[T][0] * outputs[T][0].log_softmax(0)).sum()
(expected,) = torch.autograd.grad(last, leaf)
print(f"the sum over all steps: {apart(sum(terms), expected):.1e} from autograd")

assert apart(sum(terms), expected) < 1e-12

# %%
# Where the gradient comes from
# -----------------------------
# The terms tell how much each row of an image has to say about :math:`W_{hh}`. Here for
# 500 test images and a network of width 128 with Xavier weights, before any training.

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

fig, ax = plt.subplots(figsize=(6.6, 3.4), layout="constrained")
ax.semilogy(range(1, 29), sizes, "o-")
ax.set_title("What each row of the image adds to the gradient by $W_{hh}$")
ax.set(xlabel="row $k$ (step)", ylabel="norm of the term / norm of the sum")
plt.show()

# %%
# The first term is zero, since it starts from :math:`H_0 = 0`. From the last row back,
# the terms shrink with the lag: each has passed one Jacobian more.

share = (terms * whole).sum((1, 2)) / whole.square().sum()  # along the whole
print(f"sum of the terms against the library: {apart(terms.sum(0), whole):.1e}")
for rows_back in (1, 4, 8, 14):
    print(
        f"the last {rows_back:2} rows: {share[-rows_back:].sum():.1%} of the gradient"
    )
print(f"row 2 against row 28: {sizes[1] / sizes[-1]:.3f}")

assert apart(terms.sum(0), whole) < 1e-12
assert (sizes[1:14] < sizes[-1] / 4).all()
for seed in range(12):  # other starts
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
    along = share[:14].sum() * whole.norm()  # the rest is at right angles to the whole
    assert terms[:14].sum(0).norm() > 2**0.5 * abs(along)

# %%
# Limits
# ------
# What backpropagation through time computes is exact, and so are these shares; that
# they are small for early rows is not an error of the method. How fast they shrink, and
# what it depends on, is the question of the next page.
