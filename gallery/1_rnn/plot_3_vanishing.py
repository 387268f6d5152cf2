r"""
How fast the gradient vanishes, and why tanh does not prevent it
================================================================

**Question.** By how much does the gradient shrink or grow with every step that it goes
back, and what decides that? Does tanh, with a derivative of up to 1 where the logistic
function has 1/4, keep it from vanishing?

**Answer.** With random weights each step changes it by a factor of about
:math:`\sqrt\chi`: :math:`\chi` is the mean squared derivative times the sum of the
squared weights of a unit. So tanh does **not** prevent vanishing: with an orthogonal
:math:`W_{hh}` and inputs of variance 1 a factor of more than :math:`10^7` is lost in 40
steps. Every tanh network equals a logistic one in other units, with the recurrent
weights four times and the input weights twice as large and the bias, initial state and
output layer adapted; only gradient descent depends on the units. The norm of
:math:`W_{hh}` gives an upper bound only; where it is above 1, the gradient may still
vanish, and where all eigenvalues are below 1, it may still grow for a while.

**Source.** Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural
networks*, 2013 (arXiv:1211.5063), section 2.1, for the bound; Schoenholz, Gilmer,
Ganguli and Sohl-Dickstein, *Deep information propagation*, 2017 (arXiv:1611.01232),
for :math:`\chi`; Le, Jaitly and Hinton, 2015 (arXiv:1504.00941), for the
identity. **Cost.** Seconds on a CPU, no download.
"""

# %%
# What is measured
# ----------------
# A network of width 128 reads 60 steps of independent normal numbers, one for each
# unit, so that their spread is the spread of what the input adds to a pre-activation
# (:math:`W_{xh} = I`). A gradient arrives at the last state, and we watch how long it
# is 1, 2, ..., 40 steps earlier. At every step it is multiplied by a derivative for
# each unit, and then by :math:`W_{hh}^\top`.

from functools import partial

import matplotlib.pyplot as plt
import torch

from dian.figures.interactive import Interactive
from dian.rnn import initialization, vanishing
from dian.rnn.recurrence import ACTIVATIONS, rnn_forward

h, n_time, back, n_batch = 128, 60, 40, 16
lags = torch.arange(back + 1)


def run(activation: str, fill, spread: float, seed: int = 0):
    """Return the recurrent matrix, the derivatives, and the gradient by lag."""
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    W_hh = fill(torch.empty(h, h).double(), generator=generator)
    X, W_xh = spread * normal(n_time, n_batch, h), torch.eye(h).double()
    zero = torch.zeros(n_batch, h).double()
    H = rnn_forward(X, W_xh, W_hh, zero[0], zero, activation)
    derivatives = ACTIVATIONS[activation].derivative(H[1:])[-back:]
    Gamma = vanishing.gradient_by_lag(normal(n_batch, h), derivatives, W_hh)
    return W_hh, derivatives, Gamma


# %%
# The derivatives
# ---------------
# .. math::
#    :label: eq-activation-slopes
#
#    \tanh' = 1 - \tanh^2 \in (0, 1], \qquad
#    \sigma' = \sigma\,(1 - \sigma) \in (0, \tfrac14], \qquad
#    \operatorname{relu}'(a) = [a > 0] .
#
# The derivative of tanh is 1 at one point, :math:`a = 0`, and below 1 everywhere else.
# The logistic function :math:`\sigma` looks four times worse, but it is the same curve
# in other units:
#
# .. math::
#    :label: eq-tanh-logistic
#
#    \tanh a = 2\,\sigma(2a) - 1, \qquad \tanh' a = 4\,\sigma'(2a) .

a = torch.linspace(-4, 4, 161, dtype=torch.float64)
derivative_of = {
    name: ACTIVATIONS[name].derivative(ACTIVATIONS[name].apply_(a.clone()))
    for name in ("tanh", "sigmoid", "relu")
}
stretched = ACTIVATIONS["sigmoid"]
stretched = 4 * stretched.derivative(stretched.apply_(2 * a))

fig, ax = plt.subplots(figsize=(6.6, 3.4), layout="constrained")
for name, style in zip(derivative_of, ("-", "--", "-."), strict=True):
    ax.plot(a, derivative_of[name], style, label=name)
ax.plot(a[::5], stretched[::5], "k.", label="logistic: $4\\sigma'(2a)$")
ax.set_title("Slopes of the activations")
ax.set(xlabel="pre-activation $a$", ylabel="derivative $\\varphi'(a)$")
ax.legend()
plt.show()

assert torch.allclose(stretched, derivative_of["tanh"], rtol=0, atol=1e-12)
assert (derivative_of["tanh"][a.abs() > 1e-9] < 1).all()

# %%
# A bound
# -------
# One step multiplies by :math:`D_s W_{hh}^\top`. The norm of a product is at most the
# product of the norms, so with the largest singular value
# :math:`\sigma = \lVert W_{hh} \rVert_2` (a number; with an argument, :math:`\sigma` is
# the logistic function),
#
# .. math::
#    :label: eq-jacobian-bound
#
#    \Big\lVert \frac{\partial h_T}{\partial h_{T-k}} \Big\rVert_2 \le
#    \prod_{s=T-k+1}^{T} \sigma \max_i \varphi'(a_{s,i}) \le (\gamma \sigma)^k, \qquad
#    \gamma = \sup \varphi' .
#
# If :math:`\gamma \sigma < 1` the gradient must vanish. If it explodes, then
# :math:`\gamma \sigma > 1`; the other way round, nothing follows.

fig, axes = plt.subplots(1, 3, figsize=(8.4, 3.4), layout="constrained", sharey=True)
for ax, name in zip(axes, ("tanh", "sigmoid", "relu"), strict=True):
    W_hh, derivatives, _ = run(name, initialization.xavier_, 1.0)
    derivatives = derivatives[:, 0]  # of one sequence
    tight, loose = vanishing.lag_bounds(derivatives, W_hh, ACTIVATIONS[name].max_slope)
    product, norms = torch.eye(h).double(), [1.0]
    for D in derivatives.flip(0):
        product = product @ (D[:, None] * W_hh.T)  # one step further back
        norms.append(torch.linalg.matrix_norm(product, 2).item())
    norms = torch.tensor(norms).double()
    ax.semilogy(lags, loose, ":", label=r"bound $(\gamma\sigma)^k$")
    ax.semilogy(lags, tight, "--", label="bound from the derivatives met")
    ax.semilogy(lags, norms, "o-", markersize=3, label="measured")
    ax.set(title=f"{name}, Xavier", xlabel="lag $k$ (steps)")
    print(
        f"{name:8} gamma sigma = {loose[1]:.2f}; at lag 40: bound {loose[-1]:.0e}, ",
        end="",
    )
    print(f"measured {norms[-1]:.0e}")
    assert (norms <= tight * (1 + 1e-12)).all()
    assert (tight <= loose * (1 + 1e-12)).all()
    if name == "tanh":
        assert loose[1] > 1 > 1e6 * norms[-1]  # above 1, and yet it vanishes
fig.suptitle("Norm of the Jacobian against the lag")
axes[0].set_ylabel(r"$\Vert \partial h_T / \partial h_{T-k} \Vert_2$")
axes[0].legend(fontsize=8)
plt.show()

# %%
# The bounds hold, and tell little: both take the one direction that grows most and the
# one unit with the largest derivative, at every step, as if a gradient always met both.
# Their lines lie on each other, since of 128 units one is always near the steepest
# point.
#
# A law
# -----
# Typical gradients behave like an average. Let the entries of :math:`W_{hh}` be
# independent with mean zero and variance :math:`\sigma_w^2 / h`, and independent of the
# derivatives and of the gradient. Entry :math:`j` of :math:`(\Gamma \odot \varphi')
# W_{hh}^\top` is then a sum of uncorrelated terms of mean zero, whose variances add up,
# so that *one* backward step multiplies the mean squared gradient by exactly
# :math:`\chi`, provided that the squared derivatives are not correlated with the
# squared entries of the gradient. If the same holds at every step,
#
# .. math::
#    :label: eq-growth-law
#
#    \frac{\mathbb E \lVert \Gamma_{T-k} \rVert^2}{\mathbb E \lVert \Gamma_T \rVert^2}
#    \approx \chi^k, \qquad
#    \chi = \sigma_w^2\, \mathbb E\big[\varphi'(a)^2\big], \qquad
#    \sigma_w^2 = \lVert W_{hh} \rVert_F^2 / h,
#
# where :math:`\Gamma_t` is the gradient with respect to :math:`h_t`. For :math:`k \ge
# 2` this is an approximation and not exact for any finite width, because all steps use
# the *same* matrix: after the first step the gradient depends on it. Mean-field theory
# replaces it by an independent copy at every step ("gradient independence"), which is
# justified for wide networks. The law also assumes that the mean squared derivative is
# the same at every step. An orthogonal matrix, whose entries are not independent, does
# not satisfy the assumptions. Whether the law describes these networks is therefore a
# question for measurement: we fit a line to the logarithm of the length, for three
# matrices of each kind, and compare its rate with :math:`\tfrac12 \ln \chi`.

fills = {
    "uniform": initialization.uniform_,
    "Xavier": initialization.xavier_,
    "orthogonal": initialization.orthogonal_,
    "orthogonal, gain 5/3": partial(initialization.orthogonal_, gain=5 / 3),
    "Gaussian, gain 2": partial(initialization.gaussian_, gain=2.0),
    "identity": initialization.identity_,
}
inputs = [("tanh", 0.1), ("tanh", 1.0), ("sigmoid", 1.0), ("relu", 1.0)]
seeds = range(3)


def length(Gamma: torch.Tensor) -> torch.Tensor:
    """Return the root mean square length at each lag, 1 at lag 0."""
    squares = Gamma.square().sum(-1).mean(-1)
    return (squares / squares[0]).sqrt()


def fitted(lengths: torch.Tensor) -> float:
    """Return the rate of the best line through the logarithms, for one step back."""
    x = lags - lags.double().mean()
    return (x @ lengths.log() / x.square().sum()).item()


results = {}
for activation, spread in inputs:
    max_slope = ACTIVATIONS[activation].max_slope
    for name, fill in fills.items():
        curves, numbers = [], []
        for seed in seeds:
            W_hh, derivatives, Gamma = run(activation, fill, spread, seed)
            curve, norm = length(Gamma), torch.linalg.matrix_norm(W_hh, 2)
            law = vanishing.gradient_variance_factor(derivatives, W_hh).log() / 2
            curves.append(curve)
            numbers.append([norm.item(), fitted(curve), law.item()])
            assert (curve <= (max_slope * norm) ** lags * (1 + 1e-9)).all()  # the bound
        means = torch.tensor(numbers).mean(0).tolist()
        results[activation, spread, name] = (torch.stack(curves), *means)

fig, axes = plt.subplots(2, 2, figsize=(8, 6.4), layout="constrained")
markers = "osv^Dx"
for ax, (activation, spread) in zip(axes.flat, inputs, strict=True):
    for i, (name, marker) in enumerate(zip(fills, markers, strict=True)):
        curves, _, _, law = results[activation, spread, name]
        style = {"color": f"C{i}", "markersize": 4}
        ax.semilogy(
            lags[::4], curves.log().mean(0).exp()[::4], marker, label=name, **style
        )
        ax.semilogy(lags, (law * lags).exp(), "-", color=f"C{i}", linewidth=1)
    ax.set(title=f"{activation}, input of s.d. {spread:g}", xlabel="lag $k$ (steps)")
    ax.set_ylabel("length of the gradient / at lag 0")
fig.suptitle("Length of the gradient: measured (marks), and the law (lines)")
axes[0, 0].legend(fontsize=8)
plt.show()

# %%
# Below, each column has its activation and the standard deviation of its input. Rates
# are of the natural logarithm, for one step back; in brackets stands
# :math:`\tfrac12 \ln \chi`.

heads = [f"{activation}, {spread:g}" for activation, spread in inputs]
print(f"{'rate (law)':21}", *(f"{head:>16}" for head in heads), sep="")
for name in fills:
    rates = [results[*case, name][2:] for case in inputs]
    cells = (f"{rate:+.3f} ({law:+.3f})" for rate, law in rates)
    print(f"{name:21}", *(f"{cell:>16}" for cell in cells), sep="")
    if name != "identity":
        assert all(abs(rate - law) < 0.03 for rate, law in rates)

print(f"\n{'left after 40 steps':21}", *(f"{head:>16}" for head in heads), sep="")
for name in fills:
    left = [results[*case, name][0][:, -1].log().mean().exp() for case in inputs]
    print(f"{name:21}", *(f"{x:16.0e}" for x in left), sep="")

assert results["tanh", 1.0, "orthogonal"][0][:, -1].max() < 1e-7

# %%
# The same weights lose little where the input is faint and almost everything where it
# is strong: what matters is where on the curve the units are, and a strong input drives
# them to the flat ends. So the derivative of 1 protects a gradient only as long as the
# units stay near 0, and that is as long as the network is nearly linear.
#
# ReLU has the derivatives 0 and 1, however strong the input. On average half of them
# are 0, which takes a factor :math:`\sqrt{1/2}` a step if the weights keep lengths.
#
# The identity does not obey the law, and should not: nothing is mixed, so an entry of
# the gradient meets the derivatives of one unit, again and again, and these are not
# independent. With ReLU that is an advantage, since a unit that is on tends to stay on.

left = results["relu", 1.0, "identity"][0][:, -1]
print(f"left after 40 steps, ReLU with the identity: {left.min():.0%} or more")
for case in inputs[:2]:
    _, _, rate, law = results[*case, "identity"]
    assert abs(rate - law) > 0.02

assert left.min() > 0.5

# %%
# Move it yourself, for tanh and an orthogonal matrix with a gain: a gain above 1 makes
# the gradient longer only as long as the input leaves the units near zero.

gains, spreads = [0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0], [0.01, 0.1, 0.3, 1.0, 3.0]
curves = {
    (gain, spread): length(
        run("tanh", partial(initialization.orthogonal_, gain=gain), spread)[2]
    )
    for gain in gains
    for spread in spreads
}

assert curves[1.2, 0.01][-1] < 1.2**40 / 100  # the states of their own make it shorter
assert curves[3.0, 3.0][-1] > 1 > curves[1.2, 3.0][-1]

Interactive(
    "gradient",
    "Length of the gradient, as a share of that at lag 0, in a tanh network.",
    gains=gains,
    spreads=spreads,
    curves=[
        [[round(x, 3) for x in curves[g, s].log10().tolist()] for s in spreads]
        for g in gains
    ],
)

# %%
# A choice of units
# -----------------
# A logistic network :math:`s_t = \sigma(x_t U + s_{t-1} V + c)` has states between 0
# and 1. Write them as :math:`h = 2s - 1`, between -1 and 1. By :eq:`eq-tanh-logistic`
# it is then a tanh network, not nearly but exactly, with
#
# .. math::
#    :label: eq-logistic-as-tanh
#
#    W_{xh} = \tfrac12 U, \qquad W_{hh} = \tfrac14 V, \qquad
#    b_h = \tfrac12 c + \tfrac14 \mathbf 1^\top V .
#
# The derivative is four times smaller and the matrix four times larger: every Jacobian
# is the same, and with it how the gradient with respect to the states changes from step
# to step. The initial state is :math:`s_0 = (1 + h_0) / 2`, which is :math:`\tfrac12`
# for :math:`h_0 = 0`, and the output layer reads :math:`h = 2s - 1`. "The derivative of
# tanh is larger" compares two networks that got the same *numbers* for weights, in
# different units. Training does depend on the units: the gradients with respect to the
# weights are scaled, so that gradient descent takes other steps, and inputs and states
# with a mean near zero are better conditioned (LeCun et al., *Efficient BackProp*,
# 1998).

generator = torch.Generator().manual_seed(0)
normal = partial(torch.randn, generator=generator, dtype=torch.float64)
W_hh = initialization.orthogonal_(torch.empty(h, h).double(), generator=generator)
X, E, eye = normal(n_time, n_batch, h), normal(n_batch, h), torch.eye(h).double()
zero = torch.zeros(n_batch, h).double()


def unroll(activation, W_xh, W_hh, b_h, H_0):
    """Return the states, and the length of the gradient by lag."""
    H = rnn_forward(X, W_xh, W_hh, b_h, H_0, activation)
    derivatives = ACTIVATIONS[activation].derivative(H[1:])[-back:]
    return H, length(vanishing.gradient_by_lag(E, derivatives, W_hh))


U, V, c = 2 * eye, 4 * W_hh, -2 * W_hh.sum(0)
s, logistic = unroll("sigmoid", U, V, c, zero + 0.5)
H, tanh = unroll("tanh", *vanishing.sigmoid_as_tanh(U, V, c), zero)
_, same_numbers = unroll("sigmoid", eye, W_hh, zero[0], zero + 0.5)

fig, ax = plt.subplots(figsize=(6.6, 3.6), layout="constrained")
ax.semilogy(lags, tanh, "-", label="tanh, $W$ orthogonal")
ax.semilogy(lags[::2], logistic[::2], "kx", label="logistic, $4W$: the same network")
ax.semilogy(lags, same_numbers, "--", label="logistic, $W$: another network")
ax.set_title("The advantage of tanh is one of units")
ax.set(xlabel="lag $k$ (steps)", ylabel="length of the gradient / at lag 0")
ax.legend()
plt.show()

print(f"states: |2s - 1 - h| <= {(2 * s - 1 - H).abs().max():.0e}")
print(f"gradients differ by {(logistic / tanh - 1).abs().max():.0e} of their length")
print(f"left after 40 steps: tanh {tanh[-1]:.0e}, logistic, W: {same_numbers[-1]:.0e}")

assert torch.allclose(2 * s - 1, H, rtol=0, atol=1e-12)
assert torch.allclose(logistic, tanh, rtol=1e-9, atol=0)
assert tanh[-1] < 1e-7

# %%
# Without any activation
# ----------------------
# In a linear network all derivatives are 1, and the matrix is alone:
#
# .. math::
#    :label: eq-linear-jacobian
#
#    \varphi(a) = a: \qquad
#    \frac{\partial h_t}{\partial h_{t-k}} = (W_{hh}^\top)^k .
#
# Two numbers bracket its norm: the spectral radius :math:`\rho`, the largest modulus of
# an eigenvalue, and the largest singular value :math:`\sigma`,
#
# .. math::
#    :label: eq-power-norms
#
#    \rho^k \le \lVert W^k \rVert_2 \le \sigma^k, \qquad
#    \lVert W^k \rVert_2^{1/k} \to \rho, \qquad
#    \lVert (c\,Q)^k \rVert_2 = c^k
#
# for every orthogonal :math:`Q`. In the long run the eigenvalues decide. If the matrix
# is *normal*, as :math:`c\,Q` is, then :math:`\rho = \sigma` and both are equalities.
# If not, the way to the long run may be long, and may lead upwards first:
#
# .. math::
#    :label: eq-transient
#
#    W = \begin{pmatrix} a & b \\ 0 & a \end{pmatrix}: \qquad
#    W^k = \begin{pmatrix} a^k & k\, b\, a^{k-1} \\ 0 & a^k \end{pmatrix} .
#
# With :math:`x` on the diagonal and :math:`y` in the corner, such a matrix has the norm
# :math:`\tfrac12 (y + \sqrt{y^2 + 4 x^2})`. For a small :math:`a` and a large :math:`b`
# the corner grows before it decays.

matrices = {
    "orthogonal times 0.9": 0.9 * W_hh,
    "[[0.5, 10], [0, 0.5]]": torch.tensor([[0.5, 10.0], [0.0, 0.5]]).double(),
}
k = torch.arange(13).double()
power_norms = {}
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for ax, (name, W) in zip(axes, matrices.items(), strict=True):
    powers = torch.stack([torch.linalg.matrix_power(W, i) for i in range(13)])
    norms = power_norms[name] = torch.linalg.matrix_norm(powers, 2)
    rho = torch.linalg.eigvals(W).abs().max()
    ax.semilogy(k, norms[1] ** k, ":", label=r"$\sigma^k$")
    ax.semilogy(k, norms, "o-", label=r"$\Vert W^k \Vert_2$")
    ax.semilogy(k, rho**k, "--", label=r"$\rho^k$")
    ax.set(title=name, xlabel="lag $k$ (steps)", ylabel="norm")
    ax.legend()
    values = ", ".join(f"{norms[i]:.4g}" for i in (1, 2, 5, 10))
    print(f"{name:21} rho = {rho:.2f}; norms at lag 1, 2, 5, 10: {values}")
fig.suptitle("Norm of the Jacobian of a linear network")
plt.show()

normal_, sheared = power_norms.values()
x, y = 0.5 ** k[1:], k[1:] * 10 * 0.5 ** (k[1:] - 1)
closed_form = (y + (y**2 + 4 * x**2).sqrt()) / 2
assert torch.allclose(normal_, 0.9**k, rtol=1e-12, atol=0)
assert torch.allclose(sheared[1:], closed_form, rtol=1e-12, atol=0)
assert sheared[1:8].min() > 1  # and all eigenvalues are 1/2
assert sheared[-1] < 0.1

# %%
# So "all eigenvalues are below 1" rules out growth in the long run only: for seven
# steps this matrix can make something longer than it was at first, while its
# eigenvalues alone would have halved it every time.
#
# Limits
# ------
# The law is for the start of a training, when weights are random. Training moves the
# weights, and not at random; that is what it is for. The inputs here are independent
# from step to step; those of an image are not. And the length of a gradient says how
# strongly an early step is heard, not whether what it says is of use.
