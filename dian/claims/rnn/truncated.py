r"""Chapter 1: the bias of truncated backpropagation through time."""

from itertools import product
from unittest.mock import patch

import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.claims.rnn.recurrence import BATCH, TIME, D, H, Q, plain_states
from dian.claims.rnn.vanishing import excess, unrolled
from dian.rnn import recurrence, truncated
from dian.training import loss

WILLIAMS = "Williams and Peng, An efficient gradient-based algorithm for on-line "
WILLIAMS += "training of recurrent network trajectories, 1990"


@claim(
    "R12",
    "Truncated backpropagation through time",
    equations=("eq-truncated", "eq-truncation-bias", "eq-truncated-chunks"),
    kinds="G E H M",
    tolerance=1e-10,
    source=WILLIAMS,
    assumptions="the bias falls with K if gamma sigma is below 1",
    subjects=(truncated, recurrence),
    mutants=(
        Mutant("the state is carried over without detaching it", "chunks",
               "state = last.detach()", "state = last", module=__name__,
               raises="RuntimeError"),
        Mutant("one step too many", "kept_terms",
               "terms[-K:].sum(0)", "terms[-K - 1 :].sum(0)", module=__name__),
        Mutant("H_t for H_{t-1}", "gradient_terms",
               "H[:-1].transpose", "H[1:].transpose"),
        Mutant("the bound is taken at another lag", "truncation_bound",
               "(n_time - k)", "(n_time - k + K)"),
        Mutant("the bound leaves out the first step", "truncation_bound",
               "torch.arange(1, n_time - K + 1)",
               "torch.arange(1, n_time - K + 1)[1:]"),
        Mutant("the spectral radius in place of the norm", "truncation_bound",
               "torch.linalg.matrix_norm(W_hh, 2)",
               "torch.linalg.eigvals(W_hh).abs().max()"),
        Mutant("the bound omits the derivative of the last step",
               "truncation_bound",
               "(max_slope * sigma) ** (n_time - k).to(sizes) * max_slope * sizes",
               "(max_slope * sigma) ** (n_time - k).to(sizes) * sizes"),
        Mutant("the whole past is read at every step", "chunks",
               "start = (t - 1) // K * K", "start = 0", module=__name__),
        Mutant("the state restarts at each block of steps", "rnn_forward",
               "rows = _rows(X[part])", "state, rows = H_0, _rows(X[part])",
               module=recurrence),
    ),
)  # fmt: skip
def kept_terms() -> float:
    """A detached state keeps the last terms; the bias is the rest, and is bounded."""
    residuals = []
    (E,) = normal(1, (BATCH, H))
    for gain, K in product((0.2, 1.0), (1, 3, TIME)):
        (X, W_xh, W_hh, b_h, _), states, derivatives = unrolled(
            recurrence, "tanh", gain
        )
        leaf = W_hh.clone().requires_grad_()
        late = plain_states(X[TIME - K :], W_xh, leaf, b_h, states[TIME - K])
        (late[-1] * E).sum().backward()
        terms = truncated.gradient_terms(E, derivatives, states, W_hh)
        kept = terms[-K:].sum(0)
        residuals.append(relative(kept, leaf.grad))
        bound = truncated.truncation_bound(E, states, W_hh, K, 1.0)
        residuals.append(excess((terms.sum(0) - kept).norm(), bound))
    whole = recurrence.rnn_backward(None, E, X, states, W_xh, W_hh).W_hh
    residuals.append(relative(terms.sum(0), whole))  # K = T
    return largest([*residuals, reached_bound(), chunks(), constant_bias()])


def reached_bound() -> float:
    """Without input, a multiple of the identity reaches the bound; shear does not.

    The bound is linear in gamma, which is 1 for the network, so that twice gamma at
    half the norm must give twice the bound. For a geometric sequence of states it is
    the sum of a geometric series, which shows that it is of the order of
    ``(gamma sigma) ** K``.
    """
    E, H_0 = torch.ones(2, 1, 2, dtype=torch.float64)
    zero = torch.zeros(TIME, 1, 2, dtype=torch.float64)
    residuals, c = [], 0.7
    matrices = [[c, 0.0], [0.0, c]], [[0.5, 10.0], [0.0, 0.5]]
    for W_hh, K in product(matrices, (1, 2, 5)):
        W = torch.tensor(W_hh, dtype=torch.float64)
        states = recurrence.rnn_forward(
            zero, zero[0, [0, 0]], W, zero[0, 0], H_0, "identity"
        )
        terms = truncated.gradient_terms(E, torch.ones_like(zero), states, W)
        bias = terms[:-K].sum(0).norm()
        bound = truncated.truncation_bound(E, states, W, K, 1.0)
        steeper = truncated.truncation_bound(E, states, W / 2, K, 2.0)
        gap = bias / bound - 1
        diagonal = W_hh[0][1] == 0
        residuals += [gap.abs() if diagonal else gap.clamp(min=0)]
        residuals.append(abs(steeper / bound - 2))
        # states of constant length: 2 is the product of both lengths
        series = 2 * c**K * (1 - c ** (TIME - K)) / (1 - c)
        constant = truncated.truncation_bound(E, torch.ones_like(states), W, K, 1.0)
        residuals += [abs(constant / series - 1)] if diagonal else []
    return largest(residuals)


def chunks() -> float:
    """Carrying a detached state keeps the pairs of steps that share a chunk."""
    K, (G,) = 3, normal(2, (TIME, BATCH, H))
    (X, W_xh, W_hh, b_h, H_0), states, derivatives = unrolled(recurrence, "tanh")
    leaf, state = W_hh.clone().requires_grad_(), H_0
    for chunk, part in zip(X.split(K), G.split(K), strict=True):
        # in blocks of two steps, as the long sequences of the recorded runs
        with patch.object(recurrence, "ROWS", 2 * BATCH):
            H_chunk, last = recurrence.rnn(chunk, W_xh, leaf, b_h, state)
            (H_chunk * part).sum().backward()
        state = last.detach()
    kept = torch.zeros_like(W_hh)
    for t in range(1, TIME + 1):
        start = (t - 1) // K * K
        terms = truncated.gradient_terms(
            G[t - 1], derivatives[:t], states[: t + 1], W_hh
        )
        kept += terms[start:].sum(0)
    return relative(leaf.grad, kept)


def constant_bias(n: int = 32, size: int = 64) -> float:
    """More data do not average the bias away: it is many standard errors from 0."""
    X, W_xh, W_hh, b_h, W_hq = normal(
        3, (TIME, n * size, D), (D, H), (H, H), (H,), (H, Q)
    )
    W_hh /= H**0.5
    states = recurrence.rnn_forward(X, W_xh, W_hh, b_h, X.new_zeros(n * size, H))
    derivatives = recurrence.ACTIVATIONS["tanh"].derivative(states[1:])
    G = loss.softmax(states[-1] @ W_hq)
    G[:, 0] -= 1  # all of one class
    parts = zip(derivatives.split(size, 1), states.split(size, 1), strict=True)
    biases: list[Tensor] = [
        truncated.gradient_terms(E, D_, S, W_hh)[:-1].sum(0)
        for E, (D_, S) in zip((G @ W_hq.T).split(size), parts, strict=True)
    ]
    of_each = torch.stack(biases)
    errors = of_each.std(0) / n**0.5
    return holds(bool((of_each.mean(0).abs() / errors).max() > 10))
