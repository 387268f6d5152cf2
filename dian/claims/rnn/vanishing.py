r"""Chapter 1: how far back a gradient reaches.

Sizes and checks are as in :mod:`dian.claims.rnn.recurrence`. Statements about all
activations are checked for all four; bounds over gains and inputs that make them tight
and loose.
"""

import math
from functools import partial
from itertools import product

import sympy
import torch
from torch import Tensor
from torch.autograd.functional import jacobian as by_autograd

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.claims.rnn.recurrence import (
    BATCH,
    PLAIN,
    TIME,
    D,
    H,
    in_blocks,
    plain_states,
)
from dian.rnn import initialization, recurrence, truncated, vanishing

PASCANU = "Pascanu et al., On the difficulty of training recurrent neural networks, "
PASCANU += "2013, arXiv:1211.5063"
HOCHREITER = "Hochreiter, Untersuchungen zu dynamischen neuronalen Netzen, 1991"


def unrolled(recurrence, activation: str, gain: float = 1.0, spread: float = 1.0):
    """Arguments of a network, its states, and the derivatives at them."""
    X, W_xh, W_hh, b_h, H_0 = normal(
        0, (TIME, BATCH, D), (D, H), (H, H), (H,), (BATCH, H)
    )
    network = (spread * X, W_xh, gain / H**0.5 * W_hh, b_h, H_0)
    states = recurrence.rnn_forward(*network, activation)
    return network, states, recurrence.ACTIVATIONS[activation].derivative(states[1:])


@claim(
    "R7",
    "Product of Jacobians",
    equations=("eq-jacobian-product", "eq-gradient-terms"),
    kinds="G E",
    tolerance=1e-10,
    source=f"{PASCANU}, equations 3 to 5",
    subjects=(vanishing, truncated, recurrence),
    mutants=(
        Mutant("the recurrent matrix is not transposed", "jacobian",
               "W_hh.T @ product", "W_hh @ product"),
        Mutant("multiplied in the wrong order", "jacobian",
               "D_s[:, None] * (W_hh.T @ product)",
               "product @ (D_s[:, None] * W_hh.T)"),
        Mutant("the derivative scales the columns", "jacobian", "D_s[:, None]", "D_s"),
        Mutant("H_t for H_{t-1}", "gradient_terms",
               "H[:-1].transpose", "H[1:].transpose", module=truncated),
        Mutant("the derivative of the last factor is left out", "gradient_terms",
               "delta = Gamma * derivatives", "delta = Gamma", module=truncated),
        Mutant("one lag too far", "gradient_terms",
               "gradient_by_lag(grad_last_state, derivatives, W_hh)[:-1]",
               "gradient_by_lag(grad_last_state, derivatives, W_hh)[1:]",
               module=truncated),
        Mutant("the gradient is multiplied by the matrix, not its transpose",
               "gradient_by_lag", "W_hh.T", "W_hh"),
    ),
)  # fmt: skip
def jacobians() -> float:
    """Compare the product of Jacobians, and the sum over all steps, with autograd."""
    (E,) = normal(1, (BATCH, H))
    residuals = []
    for activation, phi in PLAIN.items():
        (X, W_xh, W_hh, b_h, H_0), states, derivatives = unrolled(
            recurrence, activation
        )
        for k, t in [(0, 1), (2, 6), (0, TIME)]:

            def last(h_k, k=k, t=t, phi=phi, network=(X, W_xh, W_hh, b_h)):
                part = (network[0][k:t, :1], *network[1:])
                return plain_states(*part, h_k[None], phi)[-1, 0]

            found = vanishing.jacobian(derivatives[k:t, 0], W_hh)
            residuals.append(relative(found, by_autograd(last, states[k, 0])))
        Gamma = vanishing.gradient_by_lag(E, derivatives, W_hh)
        whole = vanishing.jacobian(derivatives[:, 0], W_hh)
        residuals.append(relative(Gamma[-1, 0], E[0] @ whole))
        leaf = W_hh.clone().requires_grad_()
        (plain_states(X, W_xh, leaf, b_h, H_0, phi)[-1] * E).sum().backward()
        terms = truncated.gradient_terms(E, derivatives, states, W_hh)
        residuals.append(relative(terms.sum(0), leaf.grad))
    return largest(residuals)


def norms_by_lag(vanishing, derivatives: Tensor, W_hh: Tensor) -> Tensor:
    """The norm of the Jacobian of the last state, for each lag from 0 on."""
    parts = (derivatives[len(derivatives) - k :] for k in range(len(derivatives) + 1))
    jacobians = torch.stack([vanishing.jacobian(part, W_hh) for part in parts])
    return torch.linalg.matrix_norm(jacobians, 2)


def excess(norms: Tensor, bound: Tensor) -> Tensor:
    """The largest relative excess of values over a bound, or 0."""
    return ((norms - bound) / bound.clamp(min=1e-300)).max().clamp(min=0)


@claim(
    "R8",
    "Upper bounds on the gradient by lag",
    equations=("eq-jacobian-bound",),
    kinds="H E",
    tolerance=1e-10,
    source=f"{PASCANU}, section 2.1; {HOCHREITER}",
    subjects=(vanishing, recurrence),
    mutants=(
        Mutant("the mean derivative in place of the largest", "lag_bounds",
               "derivatives.amax(1)", "derivatives.mean(1)"),
        Mutant("from the first step on in place of the last", "lag_bounds",
               "(sigma * derivatives.amax(1)).flip(0)", "sigma * derivatives.amax(1)"),
        Mutant("the spectral radius in place of the norm", "lag_bounds",
               "torch.linalg.matrix_norm(W_hh, 2)",
               "torch.linalg.eigvals(W_hh).abs().max()"),
        Mutant("the Frobenius norm: a bound, but not this one", "lag_bounds",
               "torch.linalg.matrix_norm(W_hh, 2)", "torch.linalg.matrix_norm(W_hh)"),
        Mutant("gamma of the sigmoid is too small", "ACTIVATIONS",
               "Activation(torch.sigmoid_, lambda H: H * (1 - H), 0.25)",
               "Activation(torch.sigmoid_, lambda H: H * (1 - H), 0.2)",
               module=recurrence),
    ),
)  # fmt: skip
def bounds() -> float:
    """Both bounds hold at every lag, and c Q attains both; above 1 some vanish."""
    residuals = []
    for activation, gain, spread in product(PLAIN, (0.3, 1.0, 3.0), (0.01, 1.0)):
        network, _, derivatives = unrolled(recurrence, activation, gain, spread)
        W_hh, max_slope = network[2], recurrence.ACTIVATIONS[activation].max_slope
        tight, loose = vanishing.lag_bounds(derivatives[:, 0], W_hh, max_slope)
        norms = norms_by_lag(vanishing, derivatives[:, 0], W_hh)
        residuals += [excess(norms, tight), excess(tight, loose)]
        if (activation, gain, spread) == ("tanh", 1.0, 1.0):
            # gamma sigma above 1 is not enough to explode
            residuals.append(holds(bool(loose[1] > 1 and norms[-1] < 0.1)))

    # c Q, and one derivative for all units: both bounds are attained.
    rotation, _ = torch.linalg.qr(normal(1, (H, H))[0])
    derivative = torch.linspace(0.5, 1, TIME, dtype=torch.float64)
    tight, loose = vanishing.lag_bounds(
        derivative[:, None].expand(-1, H), 1.3 * rotation, 1.0
    )
    for bound, factors in ((tight, derivative), (loose, torch.ones_like(derivative))):
        norms = norms_by_lag(vanishing, factors[:, None].expand(-1, H), 1.3 * rotation)
        residuals.append(relative(norms, bound))
    return largest(residuals)


@claim(
    "R9",
    "The linear network",
    equations=("eq-linear-jacobian", "eq-power-norms", "eq-transient"),
    kinds="E",
    tolerance=1e-10,
    source="Horn and Johnson, Matrix Analysis, 2013, section 5.6",
    assumptions="equality needs a normal matrix, as c times an orthogonal one is",
    subjects=(vanishing, recurrence),
    mutants=(
        Mutant("the recurrent matrix is not transposed", "jacobian",
               "W_hh.T @ product", "W_hh @ product"),
        Mutant("not linear", "ACTIVATIONS",
               "lambda A: A", "torch.tanh_", module=recurrence),
        Mutant("its derivative is not 1", "ACTIVATIONS",
               "torch.ones_like", "torch.zeros_like", module=recurrence),
        Mutant("no transient: the corner decays like the diagonal", "linear",
               "k * corner * a ** (k - 1)", "corner * a ** (k - 1)", module=__name__),
    ),
)  # fmt: skip
def linear() -> float:
    """The Jacobian is a power of the matrix, whose norm may grow before it decays."""
    (X, W_xh, W_hh, b_h, H_0), states, derivatives = unrolled(recurrence, "identity")
    (change,) = normal(1, (BATCH, H))
    moved = recurrence.rnn_forward(X, W_xh, W_hh, b_h, H_0 + change, "identity")
    power = torch.linalg.matrix_power(W_hh, TIME)
    residuals = [
        relative(vanishing.jacobian(derivatives[:, 0], W_hh), power.T),
        relative(moved[-1] - states[-1], change @ power),
    ]
    rho = torch.linalg.eigvals(W_hh).abs().max()
    ks = torch.arange(TIME + 1)
    norms = norms_by_lag(vanishing, derivatives[:, 0], W_hh)
    residuals += [excess(rho**ks, norms), excess(norms, norms[1] ** ks)]
    # The norm of a high power tells the spectral radius, and no longer the norm.
    high = torch.linalg.matrix_norm(torch.linalg.matrix_power(W_hh / rho, 1000), 2)
    residuals.append(holds(bool(abs(high ** (1 / 1000) - 1) < 0.01)))

    a, corner = 0.5, 10.0
    sheared = torch.tensor([[a, corner], [0.0, a]], dtype=torch.float64)
    ones = torch.ones(10, 2, dtype=torch.float64)
    for k in range(1, 11):
        b = k * corner * a ** (k - 1)
        # the norm of [[x, b], [0, x]], x = a^k
        expected = (b + math.hypot(b, 2 * a**k)) / 2
        found = torch.linalg.matrix_norm(vanishing.jacobian(ones[:k], sheared), 2)
        residuals.append(abs(found - expected) / expected)
    return largest(residuals)


@claim(
    "R10",
    "Derivatives of the activations",
    equations=("eq-activation-slopes", "eq-tanh-logistic"),
    kinds="S G",
    tolerance=1e-10,
    source="LeCun et al., Efficient BackProp, 1998, section 4.4",
    subjects=(recurrence,),
    mutants=(
        Mutant("the derivative of tanh for the sigmoid", "ACTIVATIONS",
               "H * (1 - H)", "1 - H * H"),
        Mutant("gamma of the sigmoid", "ACTIVATIONS",
               "Activation(torch.sigmoid_, lambda H: H * (1 - H), 0.25)",
               "Activation(torch.sigmoid_, lambda H: H * (1 - H), 1.0)"),
        Mutant("ReLU has a derivative at 0", "ACTIVATIONS", "(H > 0)", "(H >= 0)"),
        Mutant("the derivative of tanh for every activation", "rnn_backward",
               "_activation(activation).derivative", "_activation('tanh').derivative"),
        Mutant("half of the factor between tanh and sigmoid", "derivatives",
               "4 * slope.subs(a, 2 * a)", "2 * slope.subs(a, 2 * a)", module=__name__),
        Mutant("the gradient of the inputs is that of another block", "rnn_backward",
               "torch.mm(rows, W_xh.T, out=grad_X[part].flatten(0, 1))",
               "torch.mm(rows, W_xh.T, out=grad_X[:len(rows) // X.shape[1]].flatten(0, "
               "1))"),
    ),
)  # fmt: skip
def derivatives() -> float:
    """Compare the derivatives with SymPy and autograd, and with their suprema."""
    a = sympy.symbols("a", real=True)
    logistic = 1 / (1 + sympy.exp(-a))
    tanh, slope = sympy.tanh(a), sympy.diff(logistic, a)
    zeros = [
        tanh.diff(a) - (1 - tanh**2),
        slope - logistic * (1 - logistic),
        # so it is 1/4 at most, and at 0 alone
        sympy.Rational(1, 4) - slope - (logistic - sympy.Rational(1, 2)) ** 2,
        tanh - (2 * logistic.subs(a, 2 * a) - 1),
        tanh.diff(a) - 4 * slope.subs(a, 2 * a),
    ]
    symbolic = [sympy.simplify(x.rewrite(sympy.exp)) == 0 for x in zeros]
    residuals = [holds(all(symbolic))]

    A = torch.linspace(-20, 20, 401, dtype=torch.float64)
    (G,) = normal(1, (TIME, BATCH, H))
    for activation, phi in PLAIN.items():
        ours, leaf = recurrence.ACTIVATIONS[activation], A.clone().requires_grad_()
        phi(leaf).sum().backward()
        found = ours.derivative(ours.apply_(A.clone()))
        max_slope = torch.tensor(ours.max_slope, dtype=torch.float64)
        residuals += [relative(found, leaf.grad), relative(found.max(), max_slope)]
        network, states, _ = unrolled(recurrence, activation)
        leaves = [x.clone().requires_grad_() for x in network]
        auto = torch.autograd.grad(plain_states(*leaves, phi), leaves, G)
        residuals.append(backward_in_blocks(G, network, states, activation, auto))
    return largest(residuals)


def backward_in_blocks(G, network, states, activation: str, expected) -> float:
    """Compare the hand-derived gradients with others, for each block size."""
    X, W_xh, W_hh, *_ = network

    @in_blocks
    def compared() -> float:
        hand = recurrence.rnn_backward(G, None, X, states, W_xh, W_hh, activation)
        return largest(map(relative, hand, expected))

    return compared()


@claim(
    "R11a",
    "A sigmoid network is a tanh network in other units",
    equations=("eq-logistic-as-tanh",),
    kinds="E",
    tolerance=1e-12,
    source="LeCun et al., Efficient BackProp, 1998, section 4.4",
    subjects=(vanishing, recurrence),
    mutants=(
        Mutant("half the recurrent matrix", "sigmoid_as_tanh",
               "U / 2, V / 4, c / 2 + V.sum(0) / 4",
               "U / 2, V / 2, c / 2 + V.sum(0) / 4"),
        Mutant("the input matrix as it was", "sigmoid_as_tanh",
               "U / 2, V / 4, c / 2 + V.sum(0) / 4", "U, V / 4, c / 2 + V.sum(0) / 4"),
        Mutant("the bias is not changed for h = 2 s - 1", "sigmoid_as_tanh",
               "c / 2 + V.sum(0) / 4", "c / 2"),
        Mutant("the rows are summed", "sigmoid_as_tanh", "V.sum(0)", "V.sum(1)"),
    ),
)  # fmt: skip
def units() -> float:
    """The states of both networks satisfy h = 2 s - 1 at every step."""
    X, U, V, c, s_0 = normal(0, (TIME, BATCH, D), (D, H), (H, H), (H,), (BATCH, H))
    s_0 = s_0.sigmoid()
    s = recurrence.rnn_forward(X, U, V, c, s_0, "sigmoid")
    h = recurrence.rnn_forward(
        X, *vanishing.sigmoid_as_tanh(U, V, c), 2 * s_0 - 1, "tanh"
    )
    return relative(2 * s - 1, h)


STARTS = {
    "uniform_": {},
    "xavier_": {},
    "orthogonal_": {},
    "orthogonal_ 5/3": {"gain": 5 / 3},
    "gaussian_ 2": {"gain": 2.0},
}
STEPS, WIDTH, BACK = 60, 128, 40


@claim(
    "R11b",
    "Decay of the gradient with tanh and random weights",
    equations=("eq-growth-law",),
    kinds="M",
    tolerance=0.02,
    source="Schoenholz et al., Deep information propagation, 2017, arXiv:1611.01232",
    assumptions="gradient independence: a large random matrix, as if drawn again at "
    "every step, and a stationary mean squared derivative; not the identity. The "
    "residual is a rate per step, of the mean over five matrices of width 128",
    subjects=(vanishing, initialization, recurrence),
    mutants=(
        Mutant("the derivative is not squared", "gradient_variance_factor",
               "derivatives.square().mean()", "derivatives.mean()"),
        Mutant("the number of units is ignored", "gradient_variance_factor",
               "W_hh.square().sum() / len(W_hh)", "W_hh.square().sum()"),
        Mutant("the gradient is not multiplied by the derivative", "gradient_by_lag",
               "Gamma[-1] * D_t", "Gamma[-1]"),
        Mutant("the predicted rate without its half", "decay",
               "vanishing.gradient_variance_factor(derivatives, W_hh).log() / 2",
               "vanishing.gradient_variance_factor(derivatives, W_hh).log()",
               module=__name__),
        Mutant("the Jacobian of the previous step", "gradient_by_lag",
               "Gamma[-1] * D_t", "Gamma[-1] * D_t.roll(1, -1).square()"),
    ),
)  # fmt: skip
def law() -> float:
    """Ten networks follow the predicted rate; the identity does not."""

    def mean(start: str, spread: float) -> tuple[float, float]:
        runs = [
            decay(vanishing, initialization, recurrence, start, spread, seed)
            for seed in range(5)
        ]
        return tuple(torch.tensor(runs).double().mean(0).tolist())

    found = {key: mean(*key) for key in product(STARTS, (0.1, 1.0))}
    measured, _ = found["orthogonal_", 1.0]
    alone, expected = mean("identity_", 0.1)
    return largest(
        [
            *(abs(slope - law) for slope, law in found.values()),
            # sigma = 1 and tanh: in 40 steps a factor of about 10^8 is lost
            holds(1e7 < math.exp(-40 * measured) < 1e9),
            holds(abs(alone - expected) > 0.02),
        ]
    )


def decay(
    vanishing, initialization, recurrence, start: str, spread: float, seed: int
) -> tuple:
    """The fitted rate of the logarithm of the gradient, and the predicted one."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    empty = torch.empty(WIDTH, WIDTH, dtype=torch.float64)
    fill = getattr(initialization, start.split()[0])
    W_hh = fill(empty, **STARTS.get(start, {}), generator=generator)
    X, H_0 = spread * draw(STEPS, 16, WIDTH), empty.new_zeros(16, WIDTH)
    I, b_h = torch.eye(WIDTH).double(), empty.new_zeros(WIDTH)  # noqa: E741
    states = recurrence.rnn_forward(X, I, W_hh, b_h, H_0)
    derivatives = recurrence.ACTIVATIONS["tanh"].derivative(states[1:])[-BACK:]
    Gamma = vanishing.gradient_by_lag(draw(16, WIDTH), derivatives, W_hh)
    size = Gamma.square().sum(-1).mean(-1).log() / 2
    lag = torch.arange(BACK + 1).double() - BACK / 2
    law = vanishing.gradient_variance_factor(derivatives, W_hh).log() / 2
    return (lag @ size / lag.square().sum()).item(), law.item()
