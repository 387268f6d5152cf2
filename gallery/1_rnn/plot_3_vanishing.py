r"""
Tanh does not prevent vanishing gradients
=========================================

**Question.** By what factor does the gradient change with every backward step, and what
determines it? The derivative of tanh reaches 1, whereas that of the sigmoid is at most
1/4. Does tanh therefore prevent vanishing gradients?

**Answer.** With random weights each step multiplies the norm by about
:math:`\sqrt\chi`, where :math:`\chi` is the mean squared derivative times the sum of
all squared recurrent weights, divided by the number of units. In a tanh network with an
orthogonal :math:`W_{hh}` and inputs of variance 1, the gradient shrinks by a factor of
more than :math:`10^7` in 40 steps. Every tanh network equals a sigmoid network with
other weights.

**Source.** Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural
networks*, 2013 (arXiv:1211.5063), section 2.1, for the bound; Schoenholz, Gilmer,
Ganguli and Sohl-Dickstein, *Deep information propagation*, 2017 (arXiv:1611.01232), for
:math:`\chi`; Le, Jaitly and Hinton, 2015 (arXiv:1504.00941), for the identity.
**Cost.** Seconds on a CPU, no download.
"""

# %%
# The measurement
# ---------------
# A network of 128 units reads 60 steps of independent normal numbers, one for each
# unit. Since :math:`W_{xh} = I`, the input adds one of these numbers to each
# pre-activation, so their standard deviation is the strength of the input. We start
# from a random gradient with respect to the last state, and measure the norm of the
# gradient with respect to the states 1, 2, ..., 40 steps earlier. At every backward
# step, each entry of the gradient is multiplied by the derivative of its unit, and the
# result by :math:`W_{hh}^\top`.

from functools import partial

import matplotlib.pyplot as plt
import torch

from dian.figures.interactive import Interactive
from dian.figures.tables import markdown_table
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
# The derivative of tanh, equation :eq:`eq-activation-slopes`, is 1 at one point,
# :math:`a = 0`, and below 1 everywhere else. That of the sigmoid :math:`\sigma` is at
# most 1/4, but both activations are the same curve, scaled and shifted, equation
# :eq:`eq-tanh-logistic`.

a = torch.linspace(-4, 4, 161, dtype=torch.float64)
derivative_of = {
    name: ACTIVATIONS[name].derivative(ACTIVATIONS[name].apply_(a.clone()))
    for name in ("tanh", "sigmoid", "relu")
}
stretched = ACTIVATIONS["sigmoid"]
stretched = 4 * stretched.derivative(stretched.apply_(2 * a))

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, style in zip(derivative_of, ("-", "--", "-."), strict=True):
    ax.plot(a, derivative_of[name], style, label=name)
ax.plot(a[::5], stretched[::5], "k.", label="$4\\sigma'(2a)$")
ax.set_title("Derivatives of the activations")
fig.set_label(
    "The derivatives of three activations. The dots are the derivative of the sigmoid, "
    "scaled like tanh: they lie on the curve of tanh."
)
ax.set(xlabel="pre-activation $a$", ylabel="derivative $\\varphi'(a)$")
ax.legend()
plt.show()

assert torch.allclose(stretched, derivative_of["tanh"], rtol=0, atol=1e-12)
assert (derivative_of["tanh"][a.abs() > 1e-9] < 1).all()

# %%
# The bound
# ---------
# The Jacobian of step :math:`s` is :math:`D_s W_{hh}^\top`, where the diagonal matrix
# :math:`D_s` contains the derivatives of all units at this step. Let :math:`\gamma` be
# the largest possible derivative, which is 1 for tanh and ReLU and 1/4 for the sigmoid,
# and let :math:`\sigma = \lVert W_{hh} \rVert_2` be the largest singular value of
# :math:`W_{hh}`. (This :math:`\sigma` is a number; with an argument, :math:`\sigma` is
# the sigmoid.) Then the norm of the Jacobian over :math:`k` steps is at most
# :math:`(\gamma\sigma)^k`, equation :eq:`eq-jacobian-bound`. If :math:`\gamma \sigma <
# 1`, the gradient must vanish. If it explodes, then :math:`\gamma \sigma > 1`; the
# converse does not hold.

fig, axes = plt.subplots(1, 3, figsize=(7, 4), layout="constrained", sharey=True)
printed = []
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
    ax.semilogy(lags, tight, "--", label="bound, derivatives")
    ax.semilogy(lags, norms, "o-", markersize=3, label="measured")
    ax.set(title=f"{name}, Xavier", xlabel="lag $k$ (steps)")
    ends = (f"{loose[-1]:.0e}", f"{norms[-1]:.0e}")
    printed.append((name, f"{loose[1]:.2f}", *ends))
    assert (norms <= tight * (1 + 1e-12)).all()
    assert (tight <= loose * (1 + 1e-12)).all()
    if name == "tanh":
        assert loose[1] > 1 > 1e6 * norms[-1]  # above 1, and yet it vanishes
fig.suptitle("Norm of the Jacobian against the lag")
fig.set_label(
    "The norm of the Jacobian over $k$ steps and its two bounds, for Xavier weights. "
    "The bounds hold and are loose: with tanh, the bound grows and the norm vanishes."
)
axes[0].set_ylabel(r"$\Vert \partial h_T / \partial h_{T-k} \Vert_2$")
axes[0].legend(fontsize=8)
plt.show()

header = ("activation", "gamma sigma", "bound at lag 40", "measured at lag 40")
print(markdown_table(header, printed))

# %%
# The bounds hold, but they are loose: both assume that at every step the gradient has
# the direction that grows most, and that all units have the same derivative: the
# largest possible one in the first bound, and the largest one of that step in the
# second. The two bounds almost coincide, because at every step one of the 128 units is
# close to the largest possible derivative.
#
# The typical rate
# ----------------
# The chapter derives the typical rate of random networks by a variance argument,
# equation :eq:`eq-growth-law`: each backward step changes the mean squared gradient by
# the factor :math:`\chi`. For one step with independent weights of mean zero this is
# exact, if the squared derivatives are not correlated with the squared entries of the
# gradient.
#
# For :math:`k \ge 2` it is an approximation and not exact for any finite width, because
# all steps use the *same* matrix: after the first step the gradient depends on it.
# Mean-field theory replaces the matrix by an independent copy at every step ("gradient
# independence"), which is justified for wide networks. The argument also assumes that
# the mean squared derivative is the same at every step. An orthogonal matrix, whose
# entries are not independent, does not satisfy the assumptions. Whether the
# approximation describes these networks is therefore a question for measurement: we fit
# a line to the logarithm of the norm, for three matrices of each kind, and compare its
# rate with :math:`\tfrac12 \ln \chi`.

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
    """Return the root mean square norm at each lag, 1 at lag 0."""
    squares = Gamma.square().sum(-1).mean(-1)
    return (squares / squares[0]).sqrt()


def fitted(lengths: torch.Tensor) -> float:
    """Return the slope of the line fitted to the logarithms, for one backward step."""
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

fig, axes = plt.subplots(2, 2, figsize=(7, 5.5), layout="constrained")
markers = "osv^Dx"
for ax, (activation, spread) in zip(axes.flat, inputs, strict=True):
    for i, (name, marker) in enumerate(zip(fills, markers, strict=True)):
        curves, _, _, law = results[activation, spread, name]
        style = {"color": f"C{i}", "markersize": 4}
        ax.semilogy(
            lags[::4], curves.log().mean(0).exp()[::4], marker, label=name, **style
        )
        ax.semilogy(lags, (law * lags).exp(), "-", color=f"C{i}", linewidth=1)
    ax.set(title=f"{activation}, input with s.d. {spread:g}", xlabel="lag $k$ (steps)")
for ax in axes[:, 0]:
    ax.set_ylabel("norm of the gradient / at lag 0")
fig.suptitle("Norm of the gradient: measured (markers) and predicted (lines)")
fig.set_label(
    "The norm of the gradient against the lag, for three activations and six "
    "initializations of $W_{hh}$: measured (markers), and predicted by "
    "$\\chi^{k/2}$ (lines). With tanh, stronger inputs make the gradient smaller."
)
axes[0, 0].legend(fontsize=8)
plt.show()

# %%
# In both tables, each column has an activation and the standard deviation of the input.
# The rates are changes of the natural logarithm for one backward step, with the
# prediction :math:`\tfrac12 \ln \chi` in parentheses. The second table shows the
# fraction of the norm that is left after 40 steps.

heads = [f"{activation}, {spread:g}" for activation, spread in inputs]
printed = []
for name in fills:
    rates = [results[*case, name][2:] for case in inputs]
    printed.append((name, *(f"{rate:+.3f} ({law:+.3f})" for rate, law in rates)))
    if name != "identity":
        assert all(abs(rate - law) < 0.03 for rate, law in rates)

print(markdown_table(("rate (predicted)", *heads), printed))
printed = []
for name in fills:
    left = [results[*case, name][0][:, -1].log().mean().exp() for case in inputs]
    printed.append((name, *(f"{x:.0e}" for x in left)))
print("", markdown_table(("left after 40 steps", *heads), printed), sep="\n")

assert results["tanh", 1.0, "orthogonal"][0][:, -1].max() < 1e-7
for name in ("Xavier", "orthogonal"):
    factor = torch.tensor(results["tanh", 1.0, name][2]).exp().item()
    assert abs(factor - 0.63) < 0.02

# %%
# With the same weights, the gradient of a tanh network is many times smaller after 40
# steps if the input is strong than if it is weak, because a strong input drives the
# units away from 0, where the curve is flatter. A derivative of 1 preserves the
# gradient only as long as the units stay near 0, and there the network is almost
# linear.
#
# The derivative of ReLU is 0 or 1, however strong the input is. On average half of the
# derivatives are 0, which costs a factor :math:`\sqrt{1/2}` for each step if the
# weights preserve norms.
#
# The identity does not satisfy the assumptions: units are not mixed, so an entry of the
# gradient is multiplied by the derivatives of one unit at all steps, and these are not
# independent. With ReLU this is an advantage, since an active unit tends to stay
# active.

left = results["relu", 1.0, "identity"][0][:, -1]
print(f"left after 40 steps, ReLU with the identity: {left.min():.0%} or more")
for case in inputs[:2]:
    _, _, rate, law = results[*case, "identity"]
    assert abs(rate - law) > 0.02

assert left.min() > 0.5

# %%
# In the interactive figure you can change the gain of an orthogonal matrix and the
# input of a tanh network. A gain above 1 is necessary for the gradient to grow, but not
# sufficient: the stronger the input is, the larger the gain must be.

gains, spreads = [0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0], [0.01, 0.1, 0.3, 1.0, 3.0]
curves = {
    (gain, spread): length(
        run("tanh", partial(initialization.orthogonal_, gain=gain), spread)[2]
    )
    for gain in gains
    for spread in spreads
}

assert curves[1.2, 0.01][-1] < 1.2**40 / 100  # growing states saturate the units
assert curves[3.0, 3.0][-1] > 1 > curves[1.2, 3.0][-1]
for spread in spreads:
    ends = [curves[gain, spread][-1] for gain in gains]
    assert ends == sorted(ends)
    assert all(end < 1.001 for gain, end in zip(gains, ends, strict=True) if gain <= 1)

Interactive(
    "gradient",
    "Norm of the gradient of a tanh network against the lag, relative to lag 0. Change "
    "the gain of the orthogonal recurrent matrix and the standard deviation (s.d.) of "
    "the input.",
    gains=gains,
    spreads=spreads,
    curves=[
        [[round(x, 3) for x in curves[g, s].log10().tolist()] for s in spreads]
        for g in gains
    ],
)

# %%
# Tanh and the sigmoid differ by scale and shift
# ----------------------------------------------
# A sigmoid network :math:`s_t = \sigma(x_t U + s_{t-1} V + c)` with states between 0
# and 1 is, with :math:`h = 2s - 1`, exactly a tanh network with the weights
# :eq:`eq-logistic-as-tanh`. The derivative is four times smaller, and the recurrent
# matrix is four times larger. Hence every Jacobian is the same, and so is the decay of
# the gradient with respect to the states. The initial state is :math:`s_0 = (1 + h_0) /
# 2`, which is :math:`\tfrac12` for :math:`h_0 = 0`, and the output layer reads :math:`h
# = 2s - 1`.
#
# The argument "the derivative of tanh is larger" compares two networks with the same
# *numbers* as weights, which are different networks. Training does depend on the scale:
# the gradients with respect to the weights are scaled, so gradient descent takes other
# steps. It usually converges faster if inputs and states have a mean near zero (LeCun
# et al., *Efficient BackProp*, 1998).

generator = torch.Generator().manual_seed(0)
normal = partial(torch.randn, generator=generator, dtype=torch.float64)
W_hh = initialization.orthogonal_(torch.empty(h, h).double(), generator=generator)
X, E, eye = normal(n_time, n_batch, h), normal(n_batch, h), torch.eye(h).double()
zero = torch.zeros(n_batch, h).double()


def unroll(activation, W_xh, W_hh, b_h, H_0):
    """Return the states, and the norm of the gradient by lag."""
    H = rnn_forward(X, W_xh, W_hh, b_h, H_0, activation)
    derivatives = ACTIVATIONS[activation].derivative(H[1:])[-back:]
    return H, length(vanishing.gradient_by_lag(E, derivatives, W_hh))


U, V, c = 2 * eye, 4 * W_hh, -2 * W_hh.sum(0)
s, logistic = unroll("sigmoid", U, V, c, zero + 0.5)
H, tanh = unroll("tanh", *vanishing.sigmoid_as_tanh(U, V, c), zero)
_, same_numbers = unroll("sigmoid", eye, W_hh, zero[0], zero + 0.5)

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.semilogy(lags, tanh, "-", label="tanh, $W$ orthogonal")
ax.semilogy(lags[::2], logistic[::2], "kx", label="sigmoid, $4W$: the same network")
ax.semilogy(lags, same_numbers, "--", label="sigmoid, $W$: another network")
ax.set_title("The advantage of tanh is a matter of scale")
ax.set(xlabel="lag $k$ (steps)", ylabel="norm of the gradient / at lag 0")
fig.set_label(
    "The norm of the gradient of a tanh network, of the sigmoid network that equals it "
    "(recurrent weights $4W$), and of the sigmoid network with the same numbers as "
    "weights, which is a different network."
)
ax.legend()
plt.show()

print(f"states: |2s - 1 - h| <= {(2 * s - 1 - H).abs().max():.0e}")
print(f"gradients differ by {(logistic / tanh - 1).abs().max():.0e} of their norm")
print(f"left after 40 steps: tanh {tanh[-1]:.0e}, sigmoid, W: {same_numbers[-1]:.0e}")

assert torch.allclose(2 * s - 1, H, rtol=0, atol=1e-12)
assert torch.allclose(logistic, tanh, rtol=1e-9, atol=0)
assert tanh[-1] < 1e-7

# %%
# Without an activation
# ---------------------
# In a linear network all derivatives are 1, and the Jacobian over :math:`k` steps is a
# power of the matrix, equation :eq:`eq-linear-jacobian`. Its norm lies between
# :math:`\rho^k` and :math:`\sigma^k`, equation :eq:`eq-power-norms`, where the spectral
# radius :math:`\rho` is the largest absolute value of an eigenvalue. For many steps the
# eigenvalues determine the growth. For a *normal* matrix, such as a multiple of an
# orthogonal one, :math:`\rho = \sigma`. Other matrices may first amplify, for example
# the one of equation :eq:`eq-transient`: a :math:`2 \times 2` matrix :math:`W` with
# :math:`a > 0` twice on the diagonal, :math:`b \ge 0` in the upper right, and 0 in the
# lower left. Its power :math:`W^k` has the same form, with :math:`x = a^k` on the
# diagonal and :math:`y = k\, b\, a^{k-1}` in the upper right, and a matrix of this form
# has the norm :math:`\tfrac12 (y + \sqrt{y^2 + 4 x^2})`. If :math:`b` is large, this
# norm exceeds 1 for several :math:`k`, even if :math:`a` is below 1.

matrices = {
    "orthogonal times 0.9": 0.9 * W_hh,
    "[[0.5, 10], [0, 0.5]]": torch.tensor([[0.5, 10.0], [0.0, 0.5]]).double(),
}
k = torch.arange(13).double()
power_norms = {}
fig, axes = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
printed = []
for ax, (name, W) in zip(axes, matrices.items(), strict=True):
    powers = torch.stack([torch.linalg.matrix_power(W, i) for i in range(13)])
    norms = power_norms[name] = torch.linalg.matrix_norm(powers, 2)
    rho = torch.linalg.eigvals(W).abs().max()
    ax.semilogy(k, norms[1] ** k, ":", label=r"$\sigma^k$")
    ax.semilogy(k, norms, "o-", label=r"$\Vert W^k \Vert_2$")
    ax.semilogy(k, rho**k, "--", label=r"$\rho^k$")
    ax.set(title=name, xlabel="lag $k$ (steps)", ylabel="norm")
    ax.legend()
    values = (f"{norms[i]:.4g}" for i in (1, 2, 5, 10))
    printed.append((name, f"{rho:.2f}", *values))
fig.suptitle("Norm of the Jacobian of a linear network")
fig.set_label(
    "The norm of the Jacobian of a linear network over $k$ steps. For a multiple of an "
    "orthogonal matrix (left) it decays from the first step; for another matrix "
    "(right), with both eigenvalues 0.5, it first grows."
)
plt.show()

header = ("matrix", "rho", *(f"norm at lag {i}" for i in (1, 2, 5, 10)))
print(markdown_table(header, printed))

normal_, sheared = power_norms.values()
x, y = 0.5 ** k[1:], k[1:] * 10 * 0.5 ** (k[1:] - 1)
closed_form = (y + (y**2 + 4 * x**2).sqrt()) / 2
assert torch.allclose(normal_, 0.9**k, rtol=1e-12, atol=0)
assert torch.allclose(sheared[1:], closed_form, rtol=1e-12, atol=0)
assert sheared[1:8].min() > 1  # and all eigenvalues are 1/2
assert sheared[-1] < 0.1

# %%
# Therefore "all eigenvalues are below 1 in absolute value" excludes growth in the long
# run, but not over the first steps. For seven steps this matrix can amplify a vector,
# although its eigenvalues alone would halve the vector at each step.
#
# Limits
# ------
# The variance argument describes random weights, as they are before training. Training
# changes them, and not at random. The inputs here are independent from step to step;
# those of an image are not. Finally, the norm of a gradient shows how strongly an early
# step influences the update, but not whether that influence is useful.
