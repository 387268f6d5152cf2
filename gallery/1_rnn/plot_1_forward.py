r"""
The memory of a recurrent network is in its recurrent weights
=============================================================

**Question.** A recurrent step has three parts: the input weights :math:`W_{xh}`, the
recurrent weights :math:`W_{hh}` and the bias :math:`b_h`. What does each of them do?

**Answer.** The memory is :math:`W_{hh}`: if it is zero, the last state depends on the
last input only. A unit with a weight between -1 and 1 forgets an impulse exponentially
or faster. With a weight above 1 and a bias that is close enough to zero, it can store
one bit indefinitely. Sixteen units can store sixteen inputs, and no linear readout can
recall more than one uncorrelated input per unit.

**Source.** The network is that of Elman, *Finding structure in time*, 1990; the measure
of memory that of Jaeger, *Short term memory in echo state networks*, GMD Report 152,
2002. **Cost.** Seconds on a CPU, no download.
"""

# %%
# The unrolled network
# --------------------
# The forward pass, equation :eq:`eq-rnn-forward` of the chapter, applies one rule at
# every step, from :math:`H_0 = 0` on. If we draw the network once for each step, the
# loop becomes a chain. All arrows of the same name denote the same matrix.

from math import atanh, sqrt

import matplotlib.pyplot as plt
import torch

from dian import data
from dian.figures import plots
from dian.figures.tables import markdown_table
from dian.rnn import initialization
from dian.rnn.recurrence import rnn_forward

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
plots.unrolled(ax, 3)
ax.set_title("The network unrolled over three steps")
fig.set_label(
    "A recurrent network unrolled over three steps. Each step has its own input $X_t$, "
    "state $H_t$ and output $O_t$; all steps share the matrices $W_{xh}$, $W_{hh}$ and "
    "$W_{hq}$."
)
plt.show()

# %%
# The network reads five images of the bundled sample, one row at each step. The loop
# below is the definition. The library computes the products :math:`X_t W_{xh}` of all
# steps at once, because they do not depend on a state. PyTorch stores its matrices
# transposed, and the bias in two parts, of which only the sum matters.

generator = torch.Generator().manual_seed(0)
n, d, h = 5, 28, 16
images = data.sample("test")[:n].unit().double()
X = images.transpose(0, 1)  # time, batch, d: row t of each image is X_t


def normal(*shape: int) -> torch.Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


W_xh, b_h, H_0 = normal(d, h) / d**0.5, normal(h) / 4, torch.zeros(n, h).double()
W_hh = initialization.orthogonal_(torch.empty(h, h).double(), generator=generator)

H_t, by_loop = H_0, []
for X_t in X:
    H_t = torch.tanh(X_t @ W_xh + H_t @ W_hh + b_h)
    by_loop.append(H_t)

H = rnn_forward(X, W_xh, W_hh, b_h, H_0)  # H[t] is the state after X_t

peer = torch.nn.RNN(d, h).double()
zero = torch.zeros_like(b_h)
names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
peer.load_state_dict(dict(zip(names, (W_xh.T, W_hh.T, b_h, zero), strict=True)))
with torch.no_grad():
    by_torch, _ = peer(X)

against_loop = (H[1:] - torch.stack(by_loop)).abs().max().item()
against_torch = (H[1:] - by_torch).abs().max().item()
print(
    f"largest difference to the loop {against_loop:.1e}, to torch {against_torch:.1e}"
)

assert max(against_loop, against_torch) < 1e-12

# %%
# Without recurrent weights there is no memory
# --------------------------------------------
# We replace all rows of each image but the last by those of another image. If
# :math:`W_{hh}` is zero, the last state does not change at all; otherwise it does.

others = torch.cat([X[:-1].flip(1), X[-1:]])  # not the last row


def change(W: torch.Tensor) -> float:
    """Return the largest change of the last state if the earlier rows change."""
    ends = [rnn_forward(rows, W_xh, W, b_h, H_0)[-1] for rows in (X, others)]
    return (ends[0] - ends[1]).abs().max().item()


without, with_memory = change(torch.zeros_like(W_hh)), change(W_hh)
print(
    f"change of the last state: W_hh = 0: {without}, W_hh as drawn: {with_memory:.2f}"
)

assert without == 0
assert with_memory > 0.1

# %%
# The same happens to a network that receives the whole image as *one* step of 784
# numbers: :math:`W_{hh}` is multiplied by :math:`H_0 = 0` only, whatever its entries
# are, so nothing in that network is recurrent.

whole = images.reshape(1, n, 784)
W_all = normal(784, h) / 28
one_step = [rnn_forward(whole, W_all, W, b_h, H_0)[-1] for W in (W_hh, normal(h, h))]

assert torch.equal(*one_step)

# %%
# One unit
# --------
# The smallest network has one input and one unit, so each weight matrix is one number.
# The input is an impulse: one at step 5, and zero before and after it.


def respond(w_hh: float, w_xh: float = 1.0, b: float = 0.0, n_time=40) -> torch.Tensor:
    """Return the states of one unit, which are initially 0, around an impulse."""
    x = torch.zeros(n_time, 1, 1).double()
    x[4] = 1
    parts = (torch.tensor([[w]]).double() for w in (w_xh, w_hh))
    states = rnn_forward(
        x, *parts, torch.tensor([b]).double(), torch.zeros(1, 1).double()
    )
    return states[1:].flatten()


styles = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
panels = {
    "$w_{hh}$: duration": [
        (f"$w_{{hh}}$ = {w}", {"w_hh": w}) for w in (0.0, 0.5, 0.9, 1.0, 1.5)
    ],
    "$w_{xh}$: amplitude": [
        (f"$w_{{xh}}$ = {w}", {"w_hh": 0.9, "w_xh": w}) for w in (0.1, 0.5, 2.0, 10.0)
    ],
    "$b_h$: fixed points": [
        (f"$b_h$ = {b}", {"w_hh": 1.5, "w_xh": 3.0, "b": b})
        for b in (-0.1, -0.2, -0.3, -0.6)
    ],
}
steps = torch.arange(1, 41)
fig, axes = plt.subplots(1, 3, figsize=(7, 4), layout="constrained", sharey=True)
for ax, (title, curves) in zip(axes, panels.items(), strict=True):
    for (label, parts), style in zip(curves, styles, strict=False):
        ax.plot(steps, respond(**parts), linestyle=style, label=label)
    ax.set(title=title, xlabel="step $t$", ylim=(-1.05, 1.05))
    ax.legend(fontsize=8, loc="center right" if "b_h" in title else "lower right")
fig.suptitle("One unit after an impulse at step 5")
fig.set_label(
    "The state of one unit after an impulse at step 5. Left: the recurrent weight "
    "decides how long the impulse is stored. Middle: large impulses saturate the unit. "
    "Right: a bias that is too negative erases the stored bit."
)
axes[0].set_ylabel("state $h_t$ of the unit")
plt.show()

# %%
# **Left.** With :math:`w_{hh} = 0` the impulse is forgotten one step later. Between -1
# and 1, each step multiplies the size of the state by :math:`|w_{hh}|` or less, because
# :math:`|\tanh a| \le |a|`. At exactly 1 the state still decays, but only as
# :math:`\sqrt{3 / (2t)}` for large :math:`t`: tanh subtracts about :math:`h^3/3` at
# each step, and :math:`\mathrm dh / \mathrm dt = -h^3 / 3` has this solution. Above 1
# the fixed point 0 is unstable, and the state moves to the solution of
# :math:`h = \tanh(w_{hh} h)`. There it remains, so the unit stores one bit
# indefinitely.
#
# **Middle.** The state is proportional to a small impulse. A large impulse saturates
# the unit near 1, so that little more than its sign is stored.
#
# **Right.** The bias shifts the fixed points. Before the impulse, the unit with
# :math:`w_{hh} = 1.5` moves from 0 toward the lower one, and the impulse moves it
# toward the upper one. If the bias is too negative, the upper fixed point ceases to
# exist, and the unit returns to the lower one. At this limit, the curve :math:`h
# \mapsto \tanh(w h + b_h)` touches the diagonal, so its slope :math:`w\,(1 - h^2)`
# equals 1, which gives :math:`h^* = \sqrt{1 - 1/w}`, and with :math:`w h^* + b_h =
# \operatorname{artanh} h^*` the condition for the upper fixed point: :math:`|b_h| < w
# h^* - \operatorname{artanh} h^*`.

for w in (0.5, 0.9):
    tail = respond(w)[4:]
    assert (tail[1:] <= w * tail[:-1]).all()
slow = respond(1.0, n_time=5000)[-1].item()
upper = respond(1.5)[-1].item()
residual = abs(upper - torch.tensor(1.5 * upper).tanh().item())
print(f"w = 1: h = {slow:.5f} after 4995 steps, sqrt(3/2t) = {sqrt(1.5 / 4995):.5f}")
print(f"w = 1.5: h = {upper:.4f}; distance from tanh(w h): {residual:.0e}")

touching = sqrt(1 - 1 / 1.5)
limit = 1.5 * touching - atanh(touching)
ends = {b: respond(1.5, 3.0, -b, n_time=2000)[-1].item() for b in (0.1, 0.2, 0.21, 0.3)}
print(f"largest bias with two stable fixed points: {limit:.4f}")
printed = [(-b, f"{end:.2f}") for b, end in ends.items()]
print(markdown_table(("bias b", "last state"), printed))

assert abs(slow / sqrt(1.5 / 4995) - 1) < 0.01
assert residual < 1e-6
assert upper > 0.8
assert all((end > 0) == (b < limit) for b, end in ends.items())

# %%
# Many units
# ----------
# Sixteen units read a weak random signal, one number at each step. On the left, nothing
# is carried over, and every unit shows the current input. In the middle, :math:`W_{hh}`
# is a delay line: unit :math:`i + 1` takes over the state of unit :math:`i`, so the
# state contains the last sixteen inputs, one in each unit. On the right, :math:`W_{hh}`
# is 0.9 times a random orthogonal matrix: the state contains the past as well, but
# mixed.
#
# The signal is periodic and contains all frequencies with the same amplitude. Therefore
# its copies at different delays are *exactly* uncorrelated, like those of an infinite
# random signal.

queue = torch.diag(torch.ones(h - 1).double(), 1)  # row i, column i + 1
first = torch.eye(h)[:1].double()  # the signal enters at unit 1
networks = {
    "$W_{hh} = 0$": (torch.ones(1, h).double(), torch.zeros(h, h).double()),
    "delay line": (first, queue),
    "random orthogonal": (normal(1, h) / 4, 0.9 * W_hh),
}
period = 4001
phases = 2 * torch.pi * torch.rand(period // 2, generator=generator).double()
spectrum = torch.cat([torch.ones(1), torch.polar(torch.ones_like(phases), phases)])
signal = period**0.5 * torch.fft.irfft(spectrum, n=period)  # of standard deviation 1


def read(W_xh: torch.Tensor, W_hh: torch.Tensor, strength: float) -> torch.Tensor:
    """Return the states of the second period, after the transient of the first."""
    twice = strength * signal.repeat(2)[:, None, None]
    return rnn_forward(twice, W_xh, W_hh, 0 * b_h, H_0[:1])[-period:, 0]


fig, axes = plt.subplots(
    2, 3, figsize=(7, 4), layout="constrained", sharex=True, height_ratios=(1, 3)
)
seen = torch.arange(40)
for (above, below), (title, parts) in zip(axes.T, networks.items(), strict=True):
    above.stem(seen + 1, signal[seen], basefmt=" ", markerfmt=".")
    above.set_title(title)
    states = read(*parts, 0.01)[seen]
    below.imshow(
        (states.T / states.abs().max()).numpy(),
        cmap="PuOr",
        vmin=-1,
        vmax=1,
        aspect="auto",
        extent=(0.5, 40.5, h + 0.5, 0.5),
        interpolation="nearest",
    )
    below.set_xlabel("step $t$")
fig.suptitle("A signal, and the states of sixteen units that read it")
fig.set_label(
    "A random signal (top) and the states of sixteen units (bottom). Without recurrent "
    "weights every unit shows the current input; a delay line stores one past input in "
    "each unit; a random orthogonal matrix mixes them."
)
axes[0, 0].set_ylabel("signal")
axes[1, 0].set_ylabel("unit")
fig.colorbar(below.images[0], ax=axes[1], label="state, relative to the largest")
plt.show()

# %%
# How much is remembered?
# -----------------------
# We measure how well the input :math:`k` steps ago can be recovered from the state: we
# fit the best linear readout by least squares and take the fraction of the variance
# that it explains. Summed over all :math:`k`, these fractions are at most the number of
# units. This is Jaeger's theorem. The proof: regard each signal as a vector over time.
# The delayed signals, normalized, are orthonormal vectors :math:`u_k`, and the
# explained fraction at delay :math:`k` is :math:`\lVert \Pi u_k \rVert^2`, where
# :math:`\Pi` projects on the space that the states of the :math:`h` units span. Summed
# over orthonormal vectors, this is at most the trace of :math:`\Pi`, the dimension of
# that space, which is at most :math:`h`.

delays = range(48)
delayed = torch.stack([signal.roll(k) for k in delays], 1)


def recalled(states: torch.Tensor) -> torch.Tensor:
    """Return the explained fraction of the variance of each delayed signal."""
    readout = torch.linalg.lstsq(states / states.std(), delayed).solution
    error = delayed - states / states.std() @ readout
    return 1 - error.square().mean(0) / delayed.square().mean(0)


strengths = (0.01, 1.0)
memory = {
    (title, strength): recalled(read(*parts, strength))
    for title, parts in networks.items()
    for strength in strengths
}

fig, axes = plt.subplots(1, 2, figsize=(7, 4), layout="constrained", sharey=True)
for ax, strength in zip(axes, strengths, strict=True):
    for title, style in zip(networks, ("^:", "o-", "s--"), strict=True):
        ax.plot(memory[title, strength], style, markersize=4, label=title)
    ax.set(title=f"signal with s.d. {strength:g}", xlabel="delay $k$ (steps)")
fig.suptitle("How much of an earlier input a linear readout recovers")
fig.set_label(
    "The fraction of the variance of the input $k$ steps ago that a linear readout of "
    "the state explains. For a weak signal (left) both networks with a memory store "
    "sixteen inputs in total; for a strong signal (right) they store fewer."
)
axes[0].set_ylabel("explained fraction of $x_{t-k}$")
axes[0].legend()
plt.show()

printed = [(*case, f"{shares.sum():.2f}") for case, shares in memory.items()]
header = ("recurrent matrix", "s.d. of the signal", f"inputs stored in {h} units")
print(markdown_table(header, printed))

# %%
# A weak signal stays in the range where tanh is almost linear, and both networks with a
# memory store sixteen inputs: the delay line the last sixteen, and the random matrix
# most of the recent ones and a part of older ones. A strong signal is distorted at
# every step, so less of it can be recovered linearly. The nonlinearity reduces the
# linear memory.

zero_memory = memory["$W_{hh} = 0$", 0.01]
queue_memory = memory["delay line", 0.01]
mixed = [memory["random orthogonal", strength].sum() for strength in strengths]
assert zero_memory[0] > 0.99
assert zero_memory[1:].max() < 0.01
assert queue_memory[:h].min() > 0.99
assert queue_memory[h:].max() < 0.01
assert all(shares.sum() < h + 1e-6 for shares in memory.values())
assert mixed[0] > h - 0.5
assert mixed[1] < mixed[0] - 1

# %%
# Limits
# ------
# We measure memory by the *uncorrelated* inputs that a *linear* readout can recover,
# which is only one of several measures. The weights were set by hand or drawn at
# random, so this page does not show whether training finds such weights. For that, the
# gradient must reach as far back as the memory does.
