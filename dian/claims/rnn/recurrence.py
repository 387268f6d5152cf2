r"""Chapter 1: the recurrent network, its loss, and backpropagation through time.

Sizes are distinct primes, biases and initial states are not zero, matrices are not
symmetric and masks not uniform, so that no swapped axis or missing term is hidden.
"""

import functools
import math
from collections.abc import Callable
from unittest.mock import patch

import sympy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dian.claims import Mutant, claim
from dian.claims.compare import complex_step, holds, largest, normal, relative, worst
from dian.rnn import networks, recurrence
from dian.training import loss

TIME, BATCH, D, H, Q = 7, 5, 3, 11, 2

ELMAN = "Elman, Finding structure in time, 1990"
WERBOS = "Werbos, Backpropagation through time, 1990"


def example(seed: int = 0) -> tuple[list[Tensor], Tensor, Tensor]:
    """X, W_xh, W_hh, b_h, H_0, W_hq and b_q; labels; and a mask."""
    tensors = normal(
        seed, (TIME, BATCH, D), (D, H), (H, H), (H,), (BATCH, H), (H, Q), (Q,)
    )
    tensors[2] /= H**0.5  # else every tanh would be saturated
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(Q, (TIME, BATCH), generator=generator)
    mask = torch.rand(TIME, BATCH, generator=generator) < 0.6
    return tensors, labels, mask


PLAIN = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "identity": lambda A: A,
}


def plain_states(X, W_xh, W_hh, b_h, H_0, phi=torch.tanh) -> Tensor:
    """The recurrence written for autograd to follow: H_1 to H_T."""
    states = [H_0]
    for X_t in X:
        states.append(phi(X_t @ W_xh + states[-1] @ W_hh + b_h))
    return torch.stack(states[1:])


def in_blocks(check: Callable[[], float]) -> Callable[[], float]:
    """Run a check with one step in a block, with two, and with the whole sequence.

    The library processes a sequence in blocks of steps. A sequence of a recorded run
    has up to 98 of them; the small sequences of a check would fit into one.
    """

    @functools.wraps(check)
    def checked() -> float:
        residuals = []
        for rows in (BATCH, 2 * BATCH, recurrence.ROWS):
            with patch.object(recurrence, "ROWS", rows):
                residuals.append(check())
        return largest(residuals)

    return checked


@claim(
    "R1",
    "Forward pass",
    equations=("eq-rnn-forward",),
    kinds="I",
    tolerance=1e-12,
    source=ELMAN,
    subjects=(recurrence,),
    mutants=(
        Mutant("the bias is added twice", "rnn_forward",
               "torch.addmm(b_h, rows, W_xh, out=H[1:][part].flatten(0, 1))",
               "torch.addmm(2 * b_h, rows, W_xh, out=H[1:][part].flatten(0, 1))"),
        Mutant("the state enters through the transposed matrix", "rnn_forward",
               "A.addmm_(state, W_hh)", "A.addmm_(state, W_hh.T)"),
        Mutant("sigmoid in place of tanh", "ACTIVATIONS",
               "torch.tanh_", "torch.sigmoid_"),
        Mutant("the initial state is ignored", "rnn_forward", "H[0] = H_0", "H[0] = 0"),
        Mutant("the state restarts at each block of steps", "rnn_forward",
               "rows = _rows(X[part])", "state, rows = H_0, _rows(X[part])"),
        Mutant("each block reads the first inputs", "rnn_forward",
               "rows = _rows(X[part])", "rows = _rows(X[:part.stop - part.start])"),
        Mutant("the last block is left out when it is shorter", "_parts",
               "range(0, n_time, n)", "range(0, n_time - n + 1, n)"),
        Mutant("ReLU is the identity in the backward pass", "ACTIVATIONS",
               "torch.relu_", "torch.abs_"),
        Mutant("tanh for the sigmoid", "ACTIVATIONS",
               "torch.sigmoid_", "torch.tanh_"),
        Mutant("the output has no bias", "output_forward",
               "H @ W_hq + b_q", "H @ W_hq"),
        Mutant("the state after the end of a sequence", "state_at_end",
               "lengths.long() - 1", "lengths.long() % len(states)"),
    ),
)  # fmt: skip
@in_blocks
def forward() -> float:
    """The states equal those of torch.nn.RNN, whose two biases add up to ours.

    Activations that PyTorch does not offer are compared with a loop.
    """
    (X, W_xh, W_hh, b_h, H_0, W_hq, b_q), _, _ = example()
    network = X, W_xh, W_hh, b_h, H_0
    head = nn.Linear(H, Q).double()
    head.load_state_dict({"weight": W_hq.T, "bias": b_q})
    residuals = []
    for activation, phi in PLAIN.items():
        if activation in ("tanh", "relu"):
            peer = nn.RNN(D, H, nonlinearity=activation).double()
            weights = peer.state_dict()
            weights["weight_ih_l0"], weights["weight_hh_l0"] = W_xh.T, W_hh.T
            weights["bias_ih_l0"], weights["bias_hh_l0"] = b_h - 1, torch.ones(H)
            peer.load_state_dict(weights)
            expected = peer(X, H_0[None])[0].detach()
        else:
            expected = plain_states(*network, phi)
        # images lie in memory with the batch first
        swapped = X.transpose(0, 1).contiguous().transpose(0, 1)
        for x in (X, swapped):
            states = recurrence.rnn_forward(x, *network[1:], activation)
            found = recurrence.output_forward(states[1:], W_hq, b_q)
            outputs = head(expected).detach()
            residuals.append(
                worst([states[0], states[1:], found], [H_0, expected, outputs])
            )
        # sequences of different lengths, each with its own last state
        lengths = torch.tensor([3, 7, 1, 2, 6])
        last = torch.stack([expected[n - 1, i] for i, n in enumerate(lengths.tolist())])
        found = recurrence.state_at_end(states[1:], lengths)
        residuals.append(relative(found, last))
    return largest(residuals)


@claim(
    "R2",
    "Number of parameters",
    equations=("eq-rnn-parameters",),
    kinds="E",
    tolerance=0.0,
    source=ELMAN,
    subjects=(networks,),
    mutants=(
        Mutant("one bias for all classes", "RNNClassifier.__init__",
               "torch.zeros(num_classes)", "torch.zeros(1)"),
        Mutant("the two biases of torch are counted", "parameters",
               "h * (d + h + 1)", "h * (d + h + 2)", module=__name__),
    ),
)  # fmt: skip
def parameters() -> float:
    """The formula counts our parameters; torch.nn.RNN has a second bias, h more."""
    residuals = []
    for d, h, q in [(28, 128, 10), (D, H, Q), (1, 1, 1)]:
        expected = h * (d + h + 1) + q * (h + 1)
        ours = sum(p.numel() for p in networks.RNNClassifier(d, h, q).parameters())
        peer = [nn.RNN(d, h), nn.Linear(h, q)]
        theirs = sum(p.numel() for module in peer for p in module.parameters())
        residuals += [abs(ours - expected), abs(theirs - h - expected)]
    return largest(residuals)


@claim(
    "R3",
    "Cross-entropy, masked",
    equations=("eq-cross-entropy",),
    kinds="I",
    tolerance=1e-12,
    source="Goodfellow et al., Deep Learning, 2016, section 6.2.2",
    assumptions="at least one position counts",
    subjects=(loss,),
    mutants=(
        Mutant("divided by all positions, masked or not", "cross_entropy",
               "return nll.mean()",
               "return nll.sum() / (nll if mask is None else mask).numel()"),
        Mutant("summed over time, averaged over the batch", "cross_entropy",
               "return nll.mean()", "return nll.sum(0).mean()"),
        Mutant("only the ignored positions are counted", "_counted",
               "target.long() != ignore_index", "target.long() == ignore_index",
               raises="ValueError"),
        Mutant("the mask is ignored where an index is given", "_counted",
               "kept if mask is None else mask & kept", "kept"),
        Mutant("the largest logit is not put back", "cross_entropy",
               "torch.log(torch.exp(logits - shift).sum(-1)) + shift[..., 0]",
               "torch.log(torch.exp(logits - shift).sum(-1))"),
    ),
)  # fmt: skip
def cross_entropy() -> float:
    """The loss equals PyTorch's, with and without a mask, and for the last step."""
    _, labels, mask = example()
    (logits,) = normal(1, (TIME, BATCH, Q))
    last = torch.zeros_like(mask)
    last[-1] = True
    residuals = []
    for m in (None, mask, last):
        ignored = labels if m is None else labels.where(m, -100)
        expected = F.cross_entropy(logits.flatten(0, 1), ignored.flatten())
        residuals.append(relative(loss.cross_entropy(logits, labels, m), expected))
        if m is not None:
            found = loss.cross_entropy(logits, ignored, ignore_index=-100)
            residuals.append(relative(found, expected))
            found = loss.cross_entropy(logits, labels, m, ignore_index=1)
            both = labels.where(m & (labels != 1), -100)
            expected = F.cross_entropy(logits.flatten(0, 1), both.flatten())
            residuals.append(relative(found, expected))
    # many-to-one is the same as never computing the other steps
    expected = loss.cross_entropy(logits[-1], labels[-1])
    residuals.append(relative(loss.cross_entropy(logits, labels, last), expected))
    return largest(residuals)


@claim(
    "R4",
    "Gradient of softmax and cross-entropy",
    equations=(
        "eq-softmax-gradient",
        "eq-softmax-hessian",
        "eq-smoothed-gradient",
        "eq-weighted-gradient",
    ),
    kinds="S G C",
    tolerance=1e-12,
    source="Goodfellow et al., Deep Learning, 2016, section 6.2.2",
    subjects=(loss,),
    mutants=(
        Mutant("the sign is missing", "cross_entropy_backward",
               "softmax(logits) - y", "y - softmax(logits)"),
        Mutant("divided by all positions, masked or not", "cross_entropy_backward",
               "gradient / mask.sum()", "gradient / mask.numel()"),
        Mutant("the softmax overflows", "softmax", "logits - shift", "logits"),
        Mutant("the Hessian without its second term", "softmax_gradient",
               "sympy.diag(*p) - p * p.T", "sympy.diag(*p)", module=__name__),
        Mutant("smoothing takes from the label and gives nothing to the others",
               "cross_entropy_backward",
               "torch.full_like(logits, even)", "torch.zeros_like(logits)"),
        Mutant("smoothing leaves the label out", "cross_entropy_backward",
               "even = label_smoothing / logits.shape[-1]",
               "even = label_smoothing / (logits.shape[-1] - 1)"),
        Mutant("class weights are divided by their number", "variants",
               "w[labels].sum()", "w.sum()", module=__name__),
    ),
)  # fmt: skip
def softmax_gradient() -> float:
    """Compare p - y with SymPy, autograd and complex steps, for logits up to 10,000."""
    o = sympy.Matrix(sympy.symbols("o1:4", real=True))
    p = o.applyfunc(sympy.exp) / sum(o.applyfunc(sympy.exp))
    nll = -sympy.log(p[1])
    y = sympy.Matrix([0, 1, 0])
    gradient = sympy.Matrix([nll.diff(x) for x in o]) - (p - y)
    hessian = sympy.hessian(nll, list(o)) - (sympy.diag(*p) - p * p.T)
    symbolic = all(sympy.simplify(x) == 0 for x in [*gradient, *hessian])

    _, labels, mask = example()
    (logits,) = normal(1, (TIME, BATCH, Q))
    found = loss.cross_entropy_backward(logits, labels, mask)
    leaf = logits.clone().requires_grad_()
    F.cross_entropy(leaf.flatten(0, 1), labels.where(mask, -100).flatten()).backward()
    stepped = complex_step(lambda x: loss.cross_entropy(x, labels, mask), logits)
    huge = loss.cross_entropy_backward(1e4 * logits, labels, mask)
    return largest(
        [
            holds(symbolic),
            *(relative(found, other) for other in (leaf.grad, stepped)),
            relative(found.sum(-1), torch.zeros(TIME, BATCH, dtype=torch.float64)),
            # the norm of a row of p - y is at most the square root of 2
            holds(huge.norm(dim=-1).max().item() * mask.sum().item() <= 2**0.5 + 1e-12),
            # a uniform prediction has a loss of log C; shifts of all logits cancel
            abs(loss.cross_entropy(0 * logits, labels) - math.log(Q)),
            relative(loss.cross_entropy_backward(logits + 3, labels, mask), found),
            variants(loss, logits, labels, mask),
        ]
    )


def variants(loss, logits: Tensor, labels: Tensor, mask: Tensor) -> float:
    """The gradients with smoothed labels and with weighted classes, by autograd."""
    leaf, ignored = logits.clone().requires_grad_(), labels.where(mask, -100)
    flat = leaf.flatten(0, 1)
    w = torch.linspace(0.3, 2, Q, dtype=torch.float64)
    smoothed = {"label_smoothing": 0.3}
    smooth = F.cross_entropy(flat, ignored.flatten(), **smoothed)
    weighted = F.cross_entropy(flat, labels.flatten(), w)
    expected = [torch.autograd.grad(x, leaf)[0] for x in (smooth, weighted)]
    one_hot = F.one_hot(labels, Q)
    by_class = w[labels][..., None] * (loss.softmax(logits) - one_hot)
    return largest(
        [
            relative(
                loss.cross_entropy(logits, labels, mask, **smoothed), smooth.detach()
            ),
            relative(
                loss.cross_entropy_backward(logits, labels, mask, **smoothed),
                expected[0],
            ),
            relative(by_class / w[labels].sum(), expected[1]),
        ]
    )


def by_hand(recurrence, loss, tensors, labels, mask) -> list[Tensor]:
    """All seven gradients of the masked loss, from the formulas of the report."""
    X, W_xh, W_hh, b_h, H_0, W_hq, b_q = tensors
    states = recurrence.rnn_forward(X, W_xh, W_hh, b_h, H_0)
    logits = recurrence.output_forward(states[1:], W_hq, b_q)
    G = loss.cross_entropy_backward(logits, labels, mask)
    out = recurrence.output_backward(G, states[1:], W_hq)
    return [
        *recurrence.rnn_backward(out.H, None, X, states, W_xh, W_hh),
        out.W_hq,
        out.b_q,
    ]


def by_autograd(tensors, labels, mask) -> list[Tensor]:
    """The same from autograd, through a recurrence and a loss that are not ours."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    *recurrent, W_hq, b_q = leaves
    logits = plain_states(*recurrent) @ W_hq + b_q
    ignored = labels.where(mask, -100)
    F.cross_entropy(logits.flatten(0, 1), ignored.flatten()).backward()
    return [x.grad for x in leaves]


@claim(
    "R5",
    "Backpropagation through time",
    equations=("eq-bptt-states", "eq-bptt-weights", "eq-bptt-output", "eq-bptt-inputs"),
    kinds="G C E",
    tolerance=1e-10,
    source=WERBOS,
    subjects=(recurrence, loss),
    mutants=(
        Mutant("the sign of the square is flipped", "ACTIVATIONS",
               "torch.addcmul(H.new_ones(()), H, H, value=-1)",
               "torch.addcmul(H.new_ones(()), H, H, value=1)"),
        Mutant("the derivative of tanh of the previous step", "rnn_backward",
               "derivative(H[1:][part])", "derivative(H[:-1][part])"),
        Mutant("the derivative with H in place of H squared", "ACTIVATIONS",
               "torch.addcmul(H.new_ones(()), H, H, value=-1)", "1 - H"),
        Mutant("the derivative with A in place of H", "ACTIVATIONS",
               "torch.addcmul(H.new_ones(()), H, H, value=-1)",
               "1 - torch.atanh(H) ** 2"),
        Mutant("H_t for H_{t-1}", "rnn_backward", "H[:-1]", "H[1:]"),
        Mutant("no gradient from the next step", "rnn_backward",
               "torch.mm(delta_t, W_hh_T, out=Gamma)", "Gamma.zero_()"),
        Mutant("the recurrent matrix is not transposed", "rnn_backward",
               "torch.mm(delta_t, W_hh_T, out=Gamma)",
               "torch.mm(delta_t, W_hh, out=Gamma)"),
        Mutant("the bias gets the mean", "rnn_backward",
               "grad_b_h += rows.sum(0)", "grad_b_h += rows.mean(0)"),
        Mutant("the gradient of the initial state is delta_1", "rnn_backward",
               "RNNGradients(grad_X, grad_W_xh, grad_W_hh, grad_b_h, H_0=Gamma)",
               "RNNGradients(grad_X, grad_W_xh, grad_W_hh, grad_b_h, H_0=delta[0])"),
        Mutant("the loss of a masked batch is divided by all positions",
               "cross_entropy_backward",
               "gradient / mask.sum()", "gradient / mask.numel()", module=loss),
        Mutant("a learnable initial state gets no gradient", "RNN.forward",
               "h_0.expand(X.shape[1], -1)", "h_0.detach().expand(X.shape[1], -1)"),
        Mutant("the gradient from the next chunk is dropped", "rnn_backward",
               "Gamma += grad_last_state", "pass"),
        Mutant("the blocks are processed from first to last", "rnn_backward",
               "reversed(_parts(*X.shape[:2]))", "_parts(*X.shape[:2])"),
        Mutant("no gradient from block to block", "rnn_backward",
               "delta = derivative(H[1:][part])",
               "delta, Gamma = derivative(H[1:][part]), Gamma * (part.stop == len(X))"),
        Mutant("only the first block gives a gradient of W_hh", "rnn_backward",
               "grad_W_hh.addmm_(H[:-1][part].flatten(0, 1).T, rows)",
               "torch.mm(H[:-1][part].flatten(0, 1).T, rows, out=grad_W_hh)"),
        Mutant("only the first block gives a gradient of W_xh", "rnn_backward",
               "grad_W_xh.addmm_(_rows(X[part]).T, rows)",
               "torch.mm(_rows(X[part]).T, rows, out=grad_W_xh)"),
        Mutant("the gradient of the last state is doubled",
               "_BackpropagationThroughTime.backward", "grad_last_state",
               "None if grad_last_state is None else 2 * grad_last_state"),
        Mutant("the gradient of all states is dropped",
               "_BackpropagationThroughTime.backward", "grad_states", "None"),
        Mutant("the last state is the previous one",
               "_BackpropagationThroughTime.forward", "H[-1].clone()", "H[-2].clone()"),
        Mutant("second derivatives without the sign of the bias", "_plain",
               "X_t @ W_xh + states[-1] @ W_hh + b_h",
               "X_t @ W_xh + states[-1] @ W_hh - b_h"),
        Mutant("second derivatives without the recurrence", "_plain",
               "X_t @ W_xh + states[-1] @ W_hh + b_h", "X_t @ W_xh + H_0 @ W_hh + b_h"),
    ),
)  # fmt: skip
@in_blocks
def bptt() -> float:
    """Compute seven gradients in three ways, and for a sequence in two parts."""
    tensors, labels, mask = example()
    found = by_hand(recurrence, loss, tensors, labels, mask)
    residuals = []
    for m in (mask, torch.ones_like(mask)):
        hand, auto = (
            by_hand(recurrence, loss, tensors, labels, m),
            by_autograd(tensors, labels, m),
        )
        residuals.append(worst(hand, auto))

    X, W_xh, W_hh, b_h, H_0, W_hq, b_q = tensors

    def loss_fn(W: Tensor) -> Tensor:
        complex_ = [x.to(torch.complex128) for x in (X, W_xh, W, b_h, H_0, W_hq, b_q)]
        states = recurrence.rnn_forward(*complex_[:5])
        logits = recurrence.output_forward(states[1:], *complex_[5:])
        return loss.cross_entropy(logits, labels, mask)

    residuals.append(relative(found[2], complex_step(loss_fn, W_hh)))

    (G,) = normal(2, (TIME, BATCH, H))
    cut = 3
    whole = recurrence.rnn_backward(
        G, None, X, recurrence.rnn_forward(X, W_xh, W_hh, b_h, H_0), W_xh, W_hh
    )
    early = recurrence.rnn_forward(X[:cut], W_xh, W_hh, b_h, H_0)
    late = recurrence.rnn_forward(X[cut:], W_xh, W_hh, b_h, early[-1])
    second = recurrence.rnn_backward(G[cut:], None, X[cut:], late, W_xh, W_hh)
    first = recurrence.rnn_backward(G[:cut], second.H_0, X[:cut], early, W_xh, W_hh)
    residuals.append(relative(first.W_hh + second.W_hh, whole.W_hh))

    layer = recurrence.RNN(D, H, learnable_h0=True).double()
    (layer(X)[0] * G).sum().backward()
    states = recurrence.rnn_forward(X, *parameters_of(layer), H_0.new_zeros(BATCH, H))
    rows = recurrence.rnn_backward(G, None, X, states, *parameters_of(layer)[:2]).H_0
    learned = layer.h_0.grad
    if learned is None:  # autograd's way to say zero
        learned = torch.zeros_like(layer.h_0)
    residuals.append(relative(learned, rows.sum(0)))
    return largest([*residuals, through_autograd(tensors, G)])


def through_autograd(tensors, G: Tensor) -> float:
    """The function that networks call, read at all states, at the last, and at both.

    Its gradients are compared, and the gradients of their squared length.
    """
    residuals = []
    for of_states, of_last in ((1, 0), (0, 1), (1, 1)):
        sides = []
        for unroll in (recurrence.rnn, plain_states):
            leaves = [x.clone().requires_grad_() for x in tensors[:5]]
            states = unroll(*leaves)
            states, last = states if isinstance(states, tuple) else (states, states[-1])
            # a factor of 0 would send zeros back where autograd sends nothing
            read = [(states * G).sum()] * of_states + [(last * G[2]).sum()] * of_last
            gradients = torch.autograd.grad(sum(read), leaves, retain_graph=True)
            graph = torch.autograd.grad(sum(read), leaves, create_graph=True)
            second = torch.autograd.grad(sum(g.square().sum() for g in graph), leaves)
            found = states, last, *gradients, *second
            sides.append([x.detach() for x in found])
        residuals.append(worst(*sides))
    return largest(residuals)


def parameters_of(layer) -> list[Tensor]:
    """W_xh, W_hh and b_h of a layer, as data."""
    return [layer.W_xh.detach(), layer.W_hh.detach(), layer.b_h.detach()]


@claim(
    "R6",
    "BPTT of a many-to-one network",
    equations=("eq-many-to-one",),
    kinds="G E",
    tolerance=1e-10,
    source=WERBOS,
    subjects=(recurrence, networks, loss),
    mutants=(
        Mutant("the recurrent matrix is not transposed", "rnn_backward",
               "torch.mm(delta_t, W_hh_T, out=Gamma)",
               "torch.mm(delta_t, W_hh, out=Gamma)"),
        Mutant("only the last step is differentiated", "rnn_backward",
               "torch.mm(delta_t, W_hh_T, out=Gamma)", "Gamma.zero_()"),
        Mutant("the gradient of the last state is doubled",
               "_BackpropagationThroughTime.backward",
               "grad_last_state", "2 * grad_last_state"),
        Mutant("the last state is the previous one",
               "_BackpropagationThroughTime.forward", "H[-1].clone()", "H[-2].clone()"),
        Mutant("no gradient from block to block", "rnn_backward",
               "delta = derivative(H[1:][part])",
               "delta, Gamma = derivative(H[1:][part]), Gamma * (part.stop == len(X))"),
        Mutant("the blocks are processed from first to last", "rnn_backward",
               "reversed(_parts(*X.shape[:2]))", "_parts(*X.shape[:2])"),
        Mutant("only the first block gives a gradient of W_hh", "rnn_backward",
               "grad_W_hh.addmm_(H[:-1][part].flatten(0, 1).T, rows)",
               "torch.mm(H[:-1][part].flatten(0, 1).T, rows, out=grad_W_hh)"),
        Mutant("the mean of all states is read, not the last one",
               "RNNClassifier.forward", "self.readout == 'last'",
               "self.readout == 'mean'", module=networks),
        Mutant("pixels are read column by column", "as_sequence",
               "images.reshape(len(images), -1, d)",
               "images.mT.reshape(len(images), -1, d)", module=networks),
    ),
)  # fmt: skip
@in_blocks
def many_to_one() -> float:
    """The recursion equals autograd, and BPTT with all but the last step masked.

    So do the classifiers of the recorded runs, row by row and pixel by pixel.
    """
    tensors, labels, _ = example()
    last = torch.zeros_like(labels, dtype=torch.bool)
    last[-1] = True
    X, W_xh, W_hh, b_h, H_0, W_hq, b_q = tensors
    states = recurrence.rnn_forward(X, W_xh, W_hh, b_h, H_0)
    logits = recurrence.output_forward(states[-1], W_hq, b_q)
    G = loss.cross_entropy_backward(logits, labels[-1])
    out = recurrence.output_backward(G, states[-1], W_hq)
    short = recurrence.rnn_backward(None, out.H, X, states, W_xh, W_hh)
    found = [*short, out.W_hq, out.b_q]
    return largest(
        [
            worst(found, by_autograd(tensors, labels, last)),
            worst(found, by_hand(recurrence, loss, tensors, labels, last)),
            *(trained(d, labels[-1]) for d in (D, 1)),
        ]
    )


def trained(d: int, labels: Tensor) -> float:
    """Gradients of a classifier of images as the runs compute them, by autograd."""
    images, *values = normal(3, (BATCH, TIME, D), (d, H), (H, H), (H,), (H, Q), (Q,))
    values[1] /= H**0.5
    model = networks.RNNClassifier(d, H, Q).double()
    names = ("rnn.W_xh", "rnn.W_hh", "rnn.b_h", "W_hq", "b_q")
    model.load_state_dict(dict(zip(names, values, strict=True)))
    ours = loss.cross_entropy(model(networks.as_sequence(images, d)), labels)
    ours.backward()
    found = [dict(model.named_parameters())[k].grad for k in model.state_dict()]

    leaves = {k: v.clone().requires_grad_() for k, v in model.state_dict().items()}
    steps = images.unbind(1) if d == D else images.flatten(1).T[..., None]
    start = torch.zeros(BATCH, H, dtype=torch.float64)
    recurrent = (leaves[f"rnn.{name}"] for name in ("W_xh", "W_hh", "b_h"))
    last = plain_states(steps, *recurrent, start)[-1]
    expected = F.cross_entropy(last @ leaves["W_hq"] + leaves["b_q"], labels)
    expected.backward()
    gradients = [leaf.grad for leaf in leaves.values()]
    return worst([ours.detach(), *found], [expected.detach(), *gradients])
