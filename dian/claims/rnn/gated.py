r"""Chapter 1: LSTM and GRU, their gradients, and the effect of their gates.

Sizes are distinct, biases and initial states not zero, and the weights of the gates
differ: a swapped gate or axis cannot go unnoticed.
"""

import math

import torch
from torch import Tensor, nn

from dian.claims import Mutant, claim
from dian.claims.compare import complex_step, holds, largest, normal, relative, worst
from dian.rnn import gated

TIME, BATCH, D, H = 7, 5, 3, 4

LSTM = "Hochreiter and Schmidhuber, Long short-term memory, 1997"
FORGET = "Gers et al., Learning to forget: continual prediction with LSTM, 2000"
GRU = "Cho et al., Learning phrase representations using RNN encoder-decoder, 2014, "
GRU += "arXiv:1406.1078"


def lstm_example() -> list[Tensor]:
    """X, W_xh, W_hh, b_h, H_0 and c_0."""
    shapes = (TIME, BATCH, D), (D, 4 * H), (H, 4 * H), (4 * H,), (BATCH, H), (BATCH, H)
    return normal(0, *shapes)


def gru_example() -> list[Tensor]:
    """X, W_xh, W_hh, b_x, b_h and H_0."""
    shapes = (TIME, BATCH, D), (D, 3 * H), (H, 3 * H), (3 * H,), (3 * H,), (BATCH, H)
    return normal(1, *shapes)


def layer_of_torch(make, W_xh: Tensor, W_hh: Tensor, b_x: Tensor, b_h: Tensor):
    """Return a layer or a cell of torch, in float64, with these weights."""
    layer = make(len(W_xh), len(W_hh)).double()
    values = (W_xh.T, W_hh.T, b_x, b_h)
    for parameter, value in zip(layer.parameters(), values, strict=True):
        parameter.data.copy_(value)
    return layer


@claim(
    "R19a",
    "LSTM and GRU: the forward pass",
    equations=("eq-lstm", "eq-gru"),
    kinds="I",
    tolerance=1e-12,
    source=f"{LSTM}; {FORGET}; {GRU}",
    subjects=(gated,),
    mutants=(
        Mutant("input and forget gate exchanged", "lstm_forward",
               "f * c[-1] + i * g", "i * c[-1] + f * g"),
        Mutant("coupled gates", "lstm_forward",
               "f * c[-1] + i * g", "f * c[-1] + (1 - f) * g"),
        Mutant("a sigmoid for the candidate", "lstm_forward",
               "A_g.tanh()", "A_g.sigmoid()"),
        Mutant("the hidden state without the second tanh", "lstm_forward",
               "o * c[-1].tanh()", "o * c[-1]"),
        Mutant("the output gate reads the cell before the update", "lstm_forward",
               "o * c[-1].tanh()", "o * c[-2].tanh()"),
        Mutant("the recurrent weights are left out", "lstm_forward",
               "X_t @ W_xh + H[-1] @ W_hh + b_h", "X_t @ W_xh + b_h"),
        Mutant("the update gate is replaced by its complement", "gru_forward",
               "z * H[-1] + (1 - z) * n", "(1 - z) * H[-1] + z * n"),
        Mutant("the reset gate skips the bias of the candidate", "gru_forward",
               "(x_n + r * h_n).tanh()",
               "(x_n + r * (h_n - b_h[-len(W_hh):]) + b_h[-len(W_hh):]).tanh()"),
        Mutant("the reset gate scales the input, too", "gru_forward",
               "x_n + r * h_n", "r * (x_n + h_n)"),
        Mutant("reset and update gate exchanged", "gru_forward",
               "(x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()",
               "(x_z + h_z).sigmoid(), (x_r + h_r).sigmoid()"),
        Mutant("one bias for both parts of the candidate", "gru_forward",
               "(H[-1] @ W_hh + b_h).chunk(3, -1)", "(H[-1] @ W_hh).chunk(3, -1)"),
    ),
)  # fmt: skip
def forward() -> float:
    """Hidden and cell states equal those of torch.nn.LSTM and torch.nn.GRU."""
    X, W_xh, W_hh, b_h, H_0, c_0 = lstm_example()
    peer = layer_of_torch(nn.LSTM, W_xh, W_hh, b_h - 1, torch.ones(4 * H))
    with torch.no_grad():
        expected, (_, c_T) = peer(X, (H_0[None], c_0[None]))
        # Every cell state, by stopping after every step
        cells = [peer(X[:t], (H_0[None], c_0[None]))[1][1][0] for t in range(1, TIME)]
    found = gated.lstm_forward(X, W_xh, W_hh, b_h, H_0, c_0)
    residuals = [
        relative(found.H[1:], expected),
        relative(found.c[1:], torch.stack([*cells, c_T[0]])),
        worst([found.H[0], found.c[0]], [H_0, c_0]),
    ]
    X, W_xh, W_hh, b_x, b_h, H_0 = gru_example()
    peer = layer_of_torch(nn.GRU, W_xh, W_hh, b_x, b_h)
    with torch.no_grad():
        expected, _ = peer(X, H_0[None])
    states = gated.gru_forward(X, W_xh, W_hh, b_x, b_h, H_0)
    return largest([*residuals, worst([states[0], states[1:]], [H_0, expected])])


def followed(inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The LSTM by gates, for autograd: its states retain their gradients."""
    X, W_xh, W_hh, b_h, h, c = inputs
    gates = [slice(k * H, (k + 1) * H) for k in range(4)]
    hidden, cells = [], []
    for X_t in X:
        i, f, g, o = (X_t @ W_xh[:, k] + h @ W_hh[:, k] + b_h[k] for k in gates)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        cells.append(c)
        hidden.append(h)
    return hidden, cells


@claim(
    "R19b",
    "Backpropagation through an LSTM",
    equations=("eq-lstm-bptt",),
    kinds="G C",
    tolerance=1e-12,
    source=f"{LSTM}; {FORGET}",
    subjects=(gated,),
    mutants=(
        Mutant("no gradient through the forget gate", "lstm_backward",
               "kappa * f[t]", "0 * kappa"),
        Mutant("the forget gate of the previous step", "lstm_backward",
               "kappa * f[t]", "kappa * f[t - 1]"),
        Mutant("no gradient through the gates", "lstm_backward",
               "delta @ W_hh.T, kappa * f[t]", "0 * grad_states[t], kappa * f[t]"),
        Mutant("the cell state is not reached through the hidden state",
               "lstm_backward", "from_c + Gamma * dH_dc[t]",
               "from_c + grad_states[t] * dH_dc[t]"),
        Mutant("the derivative of tanh at the cell state is left out",
               "lstm_backward", "o * (1 - tanh_c * tanh_c)", "o"),
        Mutant("the forget gate has read c_t in place of c_{t-1}", "lstm_backward",
               "c[:-1] * f * (1 - f)", "c[1:] * f * (1 - f)"),
        Mutant("the derivative of a sigmoid at the candidate", "lstm_backward",
               "i * (1 - g * g)", "i * g * (1 - g)"),
        Mutant("the output gate gets the gradient of the cell", "lstm_backward",
               "torch.cat([kappa, kappa, kappa, Gamma], -1)",
               "torch.cat([kappa, kappa, kappa, kappa], -1)"),
        Mutant("H_t for H_{t-1}", "lstm_backward",
               "H[:-1].flatten(0, 1).T", "H[1:].flatten(0, 1).T"),
        Mutant("the bias gets the mean", "lstm_backward",
               "rows.sum(0)", "rows.mean(0)"),
    ),
)  # fmt: skip
def backward() -> float:
    """Compare all gradients with autograd, and that of W_hh with complex steps."""
    inputs = lstm_example()
    X, W_xh, W_hh, *_ = inputs
    (G,) = normal(2, (TIME, BATCH, H))
    found = gated.lstm_backward(G, X, gated.lstm_forward(*inputs), W_xh, W_hh)
    leaves = [x.clone().requires_grad_() for x in inputs]
    hidden, cells = followed(leaves)
    auto = torch.autograd.grad(
        (torch.stack(hidden) * G).sum(), [*leaves, *hidden, *cells]
    )
    weights, states = auto[:6], auto[6:]
    of_H = torch.stack([weights[4], *states[:TIME]])
    of_c = torch.stack([weights[5], *states[TIME:]])

    def loss(W: Tensor) -> Tensor:
        changed = [x.to(W.dtype) for x in inputs]
        changed[2] = W
        return (torch.stack(followed(changed)[0]) * G).sum()

    return largest(
        [
            worst(found, [*weights[:4], of_H, of_c]),
            relative(found.W_hh, complex_step(loss, W_hh)),
        ]
    )


@claim(
    "R19c",
    "Jacobians of LSTM and GRU",
    equations=("eq-lstm-jacobian", "eq-gru-jacobian", "eq-constant-error"),
    kinds="G E",
    tolerance=1e-12,
    source=f"{LSTM}; {FORGET}; {GRU}",
    assumptions="eq-constant-error: no gate reads the hidden state",
    subjects=(gated,),
    mutants=(
        Mutant("the forget gate alone", "cell_jacobian",
               "torch.diag_embed(f) + K * dH_dc[..., None, :]",
               "torch.diag_embed(f) + 0 * K"),
        Mutant("without the forget gate", "cell_jacobian",
               "torch.diag_embed(f) + K * dH_dc[..., None, :]",
               "K * dH_dc[..., None, :]"),
        Mutant("the output gate of the wrong step", "cell_jacobian",
               "gates[:-1].chunk(4, -1)[3]", "gates[1:].chunk(4, -1)[3]"),
        Mutant("the recurrent weights are not transposed", "cell_jacobian",
               "slope[..., :, None] * W.T", "slope[..., :, None] * W"),
        Mutant("rows and columns are exchanged", "cell_jacobian",
               "K * dH_dc[..., None, :]", "K * dH_dc[..., :, None]"),
        Mutant("no gradient through the forget gate", "lstm_backward",
               "kappa * f[t]", "0 * kappa"),
        Mutant("the forget gate of the previous step", "lstm_backward",
               "kappa * f[t]", "kappa * f[t - 1]"),
        Mutant("the update gate is replaced by its complement", "gru_jacobian",
               "torch.diag(z)", "torch.diag(1 - z)", module=__name__),
        Mutant("the reset gate is constant", "gru_jacobian",
               "r[:, None] * W_n.T + (a * r * (1 - r))[:, None] * W_r.T",
               "r[:, None] * W_n.T", module=__name__),
    ),
)  # fmt: skip
def jacobians() -> float:
    """Compare the Jacobians with autograd, and their product with forget gates."""
    X, W_xh, W_hh, b_h, *start = lstm_example()
    states = gated.lstm_forward(X, W_xh, W_hh, b_h, *start)
    found = gated.cell_jacobian(states, W_hh)
    cell = layer_of_torch(nn.LSTMCell, W_xh, W_hh, b_h, torch.zeros(4 * H))
    residuals = []
    for t in range(1, TIME):
        # The output gate of the step before is H / tanh(c), whatever we say it is.
        o = states.H[t] / states.c[t].tanh()
        for n in range(BATCH):

            def step(c: Tensor, t: int = t, n: int = n, o: Tensor = o) -> Tensor:
                return cell(X[t, n], (o[n] * c.tanh(), c))[1]

            expected = torch.autograd.functional.jacobian(step, states.c[t, n])
            residuals.append(relative(found[t - 1, n], expected))
    return largest([*residuals, carousel(X, W_xh, W_hh, b_h, start), gru()])


def carousel(X, W_xh, W_hh, b_h, start) -> float:
    """Without recurrent weights the gradient of c_k is that of c_T times all f_t."""
    (G,) = normal(3, (TIME, BATCH, H))
    G[:-1] = 0
    residuals = []
    for shift in (0.0, 800.0):  # the second shuts no forget gate: f = 1
        b = b_h.clone()
        b[H : 2 * H] += shift
        states = gated.lstm_forward(X, W_xh, 0 * W_hh, b, *start)
        found = gated.lstm_backward(G, X, states, W_xh, 0 * W_hh).c
        f = torch.sigmoid(X @ W_xh[:, H : 2 * H] + b[H : 2 * H])
        last = states.c[-1].clone().requires_grad_()
        o = torch.sigmoid(X[-1] @ W_xh[:, 3 * H :] + b[3 * H :])
        (of_last,) = torch.autograd.grad((G[-1] * o * last.tanh()).sum(), last)
        expected = [of_last * f[t:].prod(0) for t in range(TIME + 1)]
        residuals.append(relative(found, torch.stack(expected)))
        residuals.append(holds(not shift or torch.equal(found[0], found[-1])))
        # With recurrent weights the forget gates are not all
        states = gated.lstm_forward(X, W_xh, W_hh, b, *start)
        found = gated.lstm_backward(G, X, states, W_xh, W_hh).c
        product = found[-1] * states.gates[..., H : 2 * H].prod(0)
        residuals.append(holds(relative(found[0], product) > 0.01))
    return largest(residuals)


def gru() -> float:
    """The Jacobian of the page, by autograd through torch's cell and our function."""
    X, *weights, H_0 = gru_example()
    cell = layer_of_torch(nn.GRUCell, *weights)
    residuals = []
    for x, h in zip(X[0], H_0, strict=True):

        def ours(h: Tensor, x: Tensor = x) -> Tensor:
            return gated.gru_forward(x[None, None], *weights, h[None])[-1, 0]

        found = gru_jacobian(x, h, *weights)
        for step in (lambda h, x=x: cell(x, h), ours):
            expected = torch.autograd.functional.jacobian(step, h)
            residuals.append(relative(found, expected))
    return largest(residuals)


def gru_jacobian(x, h, W_xh, W_hh, b_x, b_h) -> Tensor:
    """The derivative of h_t with respect to h_{t-1} for one sequence."""
    W_r, W_z, W_n = W_hh.chunk(3, -1)
    of_x, of_h = (x @ W_xh + b_x).chunk(3), (h @ W_hh + b_h).chunk(3)
    r, z = torch.sigmoid(of_x[0] + of_h[0]), torch.sigmoid(of_x[1] + of_h[1])
    a = of_h[2]
    n = torch.tanh(of_x[2] + r * a)
    of_n = r[:, None] * W_n.T + (a * r * (1 - r))[:, None] * W_r.T
    return (
        torch.diag(z)
        + ((h - n) * z * (1 - z))[:, None] * W_z.T
        + ((1 - z) * (1 - n**2))[:, None] * of_n
    )


@claim(
    "R19d",
    "Time scale of the forget gate",
    equations=("eq-forget-bias",),
    kinds="E",
    tolerance=1e-12,
    source=f"{FORGET}; Jozefowicz et al., An empirical exploration of recurrent "
    "network architectures, 2015",
    assumptions="weights of zero: the gates are what their biases make them",
    subjects=(gated,),
    mutants=(
        Mutant("no gradient through the forget gate", "lstm_backward",
               "kappa * f[t]", "0 * kappa"),
        Mutant("input and forget gate exchanged", "lstm_forward",
               "f * c[-1] + i * g", "i * c[-1] + f * g"),
        Mutant("the forget gate is a tanh", "lstm_forward",
               "A_f.sigmoid()", "A_f.tanh()"),
        Mutant("the logarithm of f without its sign", "time_scale",
               "1 / math.log1p(math.exp(-b))", "1 / math.log1p(math.exp(b))",
               module=__name__),
        Mutant("the time in which f halves", "time_scale",
               "1 / math.log1p(math.exp(-b))",
               "math.log(2) / math.log1p(math.exp(-b))", module=__name__),
    ),
)  # fmt: skip
def forget_bias() -> float:
    """A gradient decays as e^(-k/tau), with tau between e^b and e^b + 1/2."""
    X, W_xh, W_hh, b_h, _, c_0 = (0 * x for x in lstm_example())
    G = torch.zeros(TIME, BATCH, H).double()
    G[-1] = 1.0
    residuals = []
    for b in (0.0, 1.0, 3.0, 5.0):
        bias = b_h.clone()
        bias[H : 2 * H] = b
        states = gated.lstm_forward(X, W_xh, W_hh, bias, c_0, c_0 + 1)
        of_c = gated.lstm_backward(G, X, states, W_xh, W_hh).c
        tau = time_scale(b)
        decay = torch.exp(-torch.arange(TIME, -1, -1).double() / tau)
        residuals += [
            relative(of_c / of_c[-1], decay[:, None, None].expand_as(of_c)),
            # The cell state itself is forgotten at the same rate
            relative(states.c, decay.flip(0)[:, None, None].expand_as(of_c)),
            holds(math.exp(b) < tau < math.exp(b) + 0.5),
        ]
    return largest(residuals)


def time_scale(b: float) -> float:
    """The number of steps after which a fraction 1/e remains."""
    return 1 / math.log1p(math.exp(-b))
