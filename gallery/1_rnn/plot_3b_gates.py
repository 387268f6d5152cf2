r"""
A gate keeps the gradient only if it starts open
================================================

**Question.** How much farther back does the gradient of an LSTM or a GRU reach than
that of a tanh network, and what decides it?

**Answer.** At initialization the bias of the forget gate decides. With a bias of 0 the
gates are half open, and after 100 steps the LSTM and the GRU have lost the gradient, as
the tanh network has. With a forget bias of 1 the decay is much slower, and with 3 about
a third or more of the gradient is left.

**Source.** Hochreiter and Schmidhuber, *Long short-term memory*, 1997, for the cell;
Gers, Schmidhuber and Cummins, *Learning to forget*, 2000, for the forget gate; Cho et
al., 2014 (arXiv:1406.1078), for the GRU; Jozefowicz, Zaremba and Sutskever, *An
empirical exploration of recurrent network architectures*, 2015, for the forget bias.
**Cost.** Seconds on a CPU, no download.
"""

# %%
# What is measured
# ----------------
# Each network has 64 units and reads 130 steps of independent standard normal inputs. A
# random gradient arrives at the last hidden state, and we backpropagate it to the
# *input* of each earlier step: this is what training would need in order to learn that
# an early input mattered, and it has the same units in all networks. The weights of
# every gate are drawn alike: Gaussian input weights that give each pre-activation unit
# variance, and orthogonal recurrent weights. All biases are zero, except that of the
# forget gate. In a GRU, the update gate takes this role.

from functools import partial

import matplotlib.pyplot as plt
import torch

from dian.rnn import gated
from dian.rnn.initialization import orthogonal_
from dian.rnn.recurrence import rnn_backward, rnn_forward

h, n_time, n_batch, back = 64, 130, 8, 100
lags, seeds = torch.arange(back + 1), range(3)
N_GATE = {"tanh": 1, "LSTM": 4, "GRU": 3}
# In the order of the gates, the forget gate and the update gate are both second.
SECOND = slice(h, 2 * h)


def example(network: str, bias: float, seed: int):
    """Return inputs, input weights, recurrent weights, and biases."""
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    n_gate, X = N_GATE[network], normal(n_time, n_batch, h)
    W_xh = normal(h, n_gate * h) / h**0.5
    blocks = [torch.empty(h, h).double() for _ in range(n_gate)]
    W_hh = torch.cat([orthogonal_(W, generator=generator) for W in blocks], 1)
    b = torch.zeros(n_gate * h).double()
    b[SECOND] = bias
    return X, W_xh, W_hh, b


def last_only(seed: int):
    """Return a gradient that arrives at the last of all hidden states."""
    generator = torch.Generator().manual_seed(1000 + seed)
    G = torch.zeros(n_time, n_batch, h).double()
    G[-1] = torch.randn(n_batch, h, generator=generator, dtype=torch.float64)
    return G


def gradient_of_inputs(network: str, bias: float, seed: int):
    """Backpropagate from the last hidden state to the input of every step."""
    X, W_xh, W_hh, b = example(network, bias, seed)
    G, zero = last_only(seed), torch.zeros(n_batch, h).double()
    if network == "tanh":
        H = rnn_forward(X, W_xh, W_hh, b, zero)
        return rnn_backward(G, None, X, H, W_xh, W_hh).X
    if network == "LSTM":
        states = gated.lstm_forward(X, W_xh, W_hh, b, zero, zero)
        return gated.lstm_backward(G, X, states, W_xh, W_hh).X
    H = gated.gru_forward(X.requires_grad_(), W_xh, W_hh, b, 0 * b, zero)
    return torch.autograd.grad((H[1:] * G).sum(), X)[0]


def by_lag(gradient: torch.Tensor) -> torch.Tensor:
    """Return the root mean square length for each lag, 1 at lag 0."""
    squares = gradient.flip(0)[: back + 1].square().sum(-1).mean(-1)
    return (squares / squares[0]).sqrt()


# %%
# The forget bias decides
# -----------------------

networks = [
    ("tanh", 0.0, "k-"),
    ("LSTM", 0.0, "C0--"),
    ("LSTM", 1.0, "C0-."),
    ("LSTM", 3.0, "C0-"),
    ("GRU", 0.0, "C1--"),
    ("GRU", 3.0, "C1-"),
]
left = {}
fig, ax = plt.subplots(figsize=(6.8, 4.2), layout="constrained")
for network, bias, style in networks:
    curves = [by_lag(gradient_of_inputs(network, bias, seed)) for seed in seeds]
    curve = torch.stack(curves).log().mean(0).exp()
    name = network if network == "tanh" else f"{network}, bias {bias:g}"
    ax.semilogy(lags, curve, style, label=name)
    left[network, bias] = torch.stack(curves)[:, back]
    print(f"{name:12} left at lags 10, 40, 100:", end="")
    print(*(f"{curve[k]:8.0e}" for k in (10, 40, 100)))
ax.set_title("Length of the gradient with respect to the input")
ax.set(xlabel="lag $k$ (steps)", ylabel="length of the gradient / at lag 0")
ax.set_ylim(1e-21, 10)
ax.legend(fontsize=9)
plt.show()

# %%
# Three of the six networks lose the gradient at about the same rate: tanh, and both
# gated networks with biases of zero. A forget gate of about 1/2 halves the gradient at
# each step, and the paths through the other gates do not make up for it. The same
# weights with a forget bias of 3 keep the gradient over all 100 steps.
#
# So it is not the gate as such that prevents vanishing gradients. A gate makes the
# decay *adjustable*: its bias sets the time scale at initialization, and training can
# change it for each unit and each step.

for seed in seeds:
    assert max(left[n, 0.0][seed] for n in N_GATE) < 1e-15
    assert 1e-11 < left["LSTM", 1.0][seed] < 1e-6
    assert left["LSTM", 3.0][seed] > 0.3
    assert 1e-4 < left["GRU", 3.0][seed] < 0.1

# %%
# The path through the cell state
# -------------------------------
# The Jacobian of the cell state, :eq:`eq-lstm-jacobian`, has two terms: the forget gate
# itself, and everything that passes through the hidden state and the gates that read
# it. Along the first path alone, the gradient of the cell state is multiplied by the
# forget gates of all steps between, :eq:`eq-constant-error`. We compare this product
# with the whole gradient with respect to the cell state.

fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained")
kept, sizes = {}, {}
for i, bias in enumerate((0.0, 1.0, 3.0)):
    X, W_xh, W_hh, b = example("LSTM", bias, seed=0)
    zero = torch.zeros(n_batch, h).double()
    states = gated.lstm_forward(X, W_xh, W_hh, b, zero, zero)
    found = gated.lstm_backward(last_only(0), X, states, W_xh, W_hh)
    f = states.gates[..., SECOND]
    # kappa_T times f_T f_{T-1} ..., one factor for each step back
    direct = [found.c[-1]]
    for f_t in f.flip(0):
        direct.append(direct[-1] * f_t)
    whole, direct = by_lag(found.c), by_lag(torch.stack(direct[::-1]))
    axes[0].semilogy(lags, whole, f"C{i}-", label=f"bias {bias:g}")
    axes[0].semilogy(lags, direct, f"C{i}:")
    kept[bias], sizes[bias] = (whole, direct), states.c[-1].square().mean().sqrt()
    print(f"bias {bias:g}: mean forget gate {f.mean():.2f}, ", end="")
    print(f"cell states of size {sizes[bias]:.1f}; left at lag 40: ", end="")
    print(f"{whole[40]:.0e}, through the forget gates alone {direct[40]:.0e}")
axes[0].set_title("Whole gradient (lines), direct path (dots)")
axes[0].set(xlabel="lag $k$ (steps)", ylabel="gradient of the cell state / at lag 0")
axes[0].set_ylim(1e-21, 100)
axes[0].legend(fontsize=9)

biases = torch.linspace(-2, 5, 71, dtype=torch.float64)
tau = 1 / torch.log1p(torch.exp(-biases))
axes[1].semilogy(biases, tau, "k-", label=r"$1/\ln(1 + e^{-b})$")
axes[1].semilogy(biases, biases.exp(), "k:", label="$e^b$")
axes[1].set_title("Time scale of the forget gate")
axes[1].set(xlabel="bias $b$ of the forget gate", ylabel=r"time scale $\tau$ (steps)")
axes[1].legend(fontsize=9)
plt.show()

for whole, direct in kept.values():
    assert (whole[40] > direct[40]).all()
assert kept[3.0][0][40] > 3 * kept[3.0][1][40]
assert ((biases.exp() < tau) & (tau < biases.exp() + 0.5)).all()
assert sizes[3.0] > 2 * sizes[0.0]

# %%
# The direct path is a lower limit here, not the whole: with a forget bias of 3, random
# recurrent weights carry back more than the forget gates do. Its decay follows the
# forget gate. If the inputs were zero, the gate would be :math:`\sigma(b)`, and the
# share :math:`1/e` would be left after :math:`\tau \approx e^b` steps,
# :eq:`eq-forget-bias`: with a bias of 0 after 1.4 steps, with 1 after 3, and with 3
# after 21.
#
# Limits
# ------
# This is the gradient at initialization, with one scale of inputs and weights. A large
# forget bias has a price: the cell state sums up many inputs and grows, so that
# :math:`\tanh c_t` saturates and the network starts with a memory that is hard to
# clear. And a gradient that arrives is necessary for learning long dependencies, not
# sufficient. In the recorded runs, which read images in 28 steps with biases close to
# zero, the LSTM and the GRU are not ahead of the tanh network: see
# :ref:`sphx_glr_gallery_1_rnn_plot_5b_choices.py`.
