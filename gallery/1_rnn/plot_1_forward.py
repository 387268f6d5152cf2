r"""
What a recurrent step does, and where the memory is
===================================================

**Question.** A recurrent step has three parts: :math:`W_{xh}`, :math:`W_{hh}` and
:math:`b_h`. What does each of them do, and which of them remembers?

**Answer.** The memory is :math:`W_{hh}` and nothing else: where it is zero, the last
state depends on the last input alone. One unit forgets an impulse at least
geometrically if its weight lies between -1 and 1, and can keep it for ever if the
weight is above 1; the bias decides whether it can. Sixteen units wired as a queue
remember the last sixteen inputs, and however they are wired, what a linear read-out can
recall of uncorrelated inputs adds up to no more than one input for each unit.

**Source.** The network is that of Elman, *Finding structure in time*, 1990; the measure
of memory that of Jaeger, *Short term memory in echo state networks*, GMD Report 152,
2002. **Cost.** Seconds on a CPU, no download.
"""

# %%
# Unrolling
# ---------
# One rule, equation :eq:`eq-rnn-forward` of the chapter, is applied at every step, from
# :math:`H_0 = 0` on. Drawn once for each step, the loop becomes a chain without a loop.
# Every arrow of the same name is the same matrix.

from math import atanh, sqrt

import matplotlib.pyplot as plt
import torch

from dian import data
from dian.figures import plots
from dian.rnn import initialization
from dian.rnn.recurrence import rnn_forward

fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
plots.unrolled(ax, 3)
ax.set_title("The network unrolled over three steps")
plt.show()

# %%
# Here it reads five images of the bundled sample, one row at a time. The loop below
# *is* the definition. The library takes the products :math:`X_t W_{xh}` of all steps at
# once, since they do not wait for a state. PyTorch stores its matrices transposed, and
# the bias in two parts, of which only the sum counts.

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
# Without :math:`W_{hh}` there is no memory
# -----------------------------------------
# Take other images, but leave their last row as it was. If :math:`W_{hh}` is zero, the
# last state does not change by one bit; otherwise it does.

others = torch.cat([X[:-1].flip(1), X[-1:]])  # not the last row


def change(W: torch.Tensor) -> float:
    """By how much the rows before the last one move the last state, at most."""
    ends = [rnn_forward(rows, W_xh, W, b_h, H_0)[-1] for rows in (X, others)]
    return (ends[0] - ends[1]).abs().max().item()


without, with_memory = change(torch.zeros_like(W_hh)), change(W_hh)
print(
    f"change of the last state: W_hh = 0: {without}, W_hh as drawn: {with_memory:.2f}"
)

assert without == 0
assert with_memory > 0.1

# %%
# The same happens to a network that is given the whole image as *one* step of 784
# numbers: :math:`W_{hh}` meets nothing but :math:`H_0 = 0`, whatever its entries are,
# and nothing in that network is recurrent.

whole = images.reshape(1, n, 784)
W_all = normal(784, h) / 28
one_step = [rnn_forward(whole, W_all, W, b_h, H_0)[-1] for W in (W_hh, normal(h, h))]

assert torch.equal(*one_step)

# %%
# One unit
# --------
# The smallest network has one unit, so that each part is one number. It gets an impulse
# at step 5, and then silence.


def respond(w_hh: float, w_xh: float = 1.0, b: float = 0.0, n_time=40) -> torch.Tensor:
    """Return the state of one unit, which starts at rest, around an impulse."""
    x = torch.zeros(n_time, 1, 1).double()
    x[4] = 1
    parts = (torch.tensor([[w]]).double() for w in (w_xh, w_hh))
    states = rnn_forward(
        x, *parts, torch.tensor([b]).double(), torch.zeros(1, 1).double()
    )
    return states[1:].flatten()


styles = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
panels = {
    "$w_{hh}$: how long it lasts": [
        (f"$w_{{hh}}$ = {w}", {"w_hh": w}) for w in (0.0, 0.5, 0.9, 1.0, 1.5)
    ],
    "$w_{xh}$: how strongly it enters": [
        (f"$w_{{xh}}$ = {w}", {"w_hh": 0.9, "w_xh": w}) for w in (0.1, 0.5, 2.0, 10.0)
    ],
    "$b_h$: where the unit rests": [
        (f"$b_h$ = {b}", {"w_hh": 1.5, "w_xh": 3.0, "b": b})
        for b in (-0.1, -0.2, -0.3, -0.6)
    ],
}
steps = torch.arange(1, 41)
fig, axes = plt.subplots(1, 3, figsize=(8.4, 3.4), layout="constrained", sharey=True)
for ax, (title, curves) in zip(axes, panels.items(), strict=True):
    for (label, parts), style in zip(curves, styles, strict=False):
        ax.plot(steps, respond(**parts), linestyle=style, label=label)
    ax.set(title=title, xlabel="step $t$", ylim=(-1.05, 1.05))
    ax.legend(fontsize=8, loc="center right" if "b_h" in title else "lower right")
fig.suptitle("One unit after an impulse at step 5")
axes[0].set_ylabel("state $h_t$ of the unit")
plt.show()

# %%
# **Left.** With :math:`w_{hh} = 0` the impulse is gone one step later. Between -1 and 1
# it fades at least geometrically, because :math:`|\tanh a| \le |a|`. At exactly 1 it
# still fades, but only as :math:`\sqrt{3 / (2t)}`: tanh takes off :math:`h^3/3` at each
# step.
# Above 1 the rest position 0 is unstable, and the state moves to where
# :math:`h = \tanh(w_{hh} h)`. There it stays: one bit, for ever.
#
# **Middle.** A small impulse is passed on in proportion. A large one is cut off at 1,
# so that what is remembered of it is its sign and little more.
#
# **Right.** The bias moves the balance. The unit with :math:`w_{hh} = 1.5` rests low;
# the impulse lifts it up. If the bias pulls too hard, the upper position ceases to
# exist and the unit falls back. With :math:`h^* = \sqrt{1 - 1/w}` it exists as long as
# :math:`|b_h| < w h^* - \operatorname{artanh} h^*`: there
# :math:`h \mapsto \tanh(w h + b_h)` touches the diagonal.

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
print(f"largest bias that leaves both positions: {limit:.4f}")
print("last state:", {f"b = -{b}": round(end, 2) for b, end in ends.items()})

assert abs(slow / sqrt(1.5 / 4995) - 1) < 0.01
assert residual < 1e-6
assert upper > 0.8
assert all((end > 0) == (b < limit) for b, end in ends.items())

# %%
# Many units
# ----------
# Sixteen units read a faint random signal, one number a step. On the left nothing is
# carried over: every unit shows a copy of the present. In the middle :math:`W_{hh}` is
# a queue: unit :math:`i + 1` takes over what unit :math:`i` held, so that the recent
# past stands in the state, a step a unit. On the right :math:`W_{hh}` is 0.9 times a
# random orthogonal matrix: the past is there too, but mixed.
#
# The signal is periodic, and has all frequencies in equal strength: so its copies at
# different delays are *exactly* uncorrelated, as those of an endless random signal are.

queue = torch.diag(torch.ones(h - 1).double(), 1)  # row i, column i + 1
first = torch.eye(h)[:1].double()  # the signal enters at unit 1
networks = {
    "$W_{hh} = 0$": (torch.ones(1, h).double(), torch.zeros(h, h).double()),
    "a queue": (first, queue),
    "random, mixed": (normal(1, h) / 4, 0.9 * W_hh),
}
period = 4001
phases = 2 * torch.pi * torch.rand(period // 2, generator=generator).double()
spectrum = torch.cat([torch.ones(1), torch.polar(torch.ones_like(phases), phases)])
signal = period**0.5 * torch.fft.irfft(spectrum, n=period)  # of standard deviation 1


def read(W_xh: torch.Tensor, W_hh: torch.Tensor, strength: float) -> torch.Tensor:
    """Return the states of the second period, when the start is forgotten."""
    twice = strength * signal.repeat(2)[:, None, None]
    return rnn_forward(twice, W_xh, W_hh, 0 * b_h, H_0[:1])[-period:, 0]


fig, axes = plt.subplots(
    2, 3, figsize=(8.4, 4), layout="constrained", sharex=True, height_ratios=(1, 3)
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
axes[0, 0].set_ylabel("signal")
axes[1, 0].set_ylabel("unit")
fig.colorbar(below.images[0], ax=axes[1], label="state / largest")
plt.show()

# %%
# How much is remembered?
# -----------------------
# Ask the state for the input :math:`k` steps ago: fit the best linear read-out, by
# least squares, and take the share of the variance that it explains. These shares add
# up to the number of units at most, over all :math:`k`: the delayed signals are
# orthogonal, as vectors over time; a share is the squared length of the projection of
# one of them, made a unit vector, on the space that the :math:`h` states span; and such
# projections on a space of :math:`h` dimensions add up to :math:`h` at most. This is
# Jaeger's theorem.

delays = range(48)
delayed = torch.stack([signal.roll(k) for k in delays], 1)


def recalled(states: torch.Tensor) -> torch.Tensor:
    """Return the explained share of the variance of each delayed signal."""
    readout = torch.linalg.lstsq(states / states.std(), delayed).solution
    error = delayed - states / states.std() @ readout
    return 1 - error.square().mean(0) / delayed.square().mean(0)


strengths = (0.01, 1.0)
memory = {
    (title, strength): recalled(read(*parts, strength))
    for title, parts in networks.items()
    for strength in strengths
}

fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained", sharey=True)
for ax, strength in zip(axes, strengths, strict=True):
    for title, style in zip(networks, ("^:", "o-", "s--"), strict=True):
        ax.plot(memory[title, strength], style, markersize=4, label=title)
    ax.set(title=f"signal of s.d. {strength:g}", xlabel="delay $k$ (steps)")
fig.suptitle("What is recalled of the input some steps ago")
axes[0].set_ylabel("share of $x_{t-k}$ recalled")
axes[0].legend()
plt.show()

for (title, strength), shares in memory.items():
    print(f"{title:14} s.d. {strength:<4g}: {shares.sum():5.2f} inputs in {h} units")

# %%
# A faint signal stays where tanh is a straight line, and both networks with a memory
# hold sixteen inputs: the queue the last sixteen, the mixed one most of the recent ones
# and something of older ones. A strong signal is bent at every step, and less of it can
# be read off: what tanh adds to the network is paid for in memory.

zero_memory = memory["$W_{hh} = 0$", 0.01]
queue_memory = memory["a queue", 0.01]
mixed = [memory["random, mixed", strength].sum() for strength in strengths]
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
# What a *linear* read-out can tell of *uncorrelated* inputs is one measure of memory,
# and these weights were set by hand or drawn. Whether training finds such weights is
# another question: the gradient has to reach back as far as the memory does.
