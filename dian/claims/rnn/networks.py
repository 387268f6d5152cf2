r"""Chapter 1: backpropagation through layers and both directions.

The network is the one of the recorded runs. The check makes the blocks of the
recurrence small, so that several run, and draws the dropout masks itself.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import complex_step, holds, largest, normal, relative, worst
from dian.rnn import networks, recurrence
from dian.training import dropout, loss

TIME, BATCH, D, H, Q = 5, 2, 4, 3, 7
LENGTHS = [3, 5]
LABELS = torch.tensor([4, 6])
RATE = 0.1


class Variant(NamedTuple):
    """Options of a network."""

    n_layer: int
    bidirectional: bool
    readout: str
    dropout: bool
    padded: bool = False


BEST = Variant(n_layer=2, bidirectional=True, readout="mean", dropout=True)
"""That of the recorded run ``rnn-recipe-best``."""


def variants() -> Iterator[Variant]:
    """With one to three layers, one or two directions, both readouts, and padding."""
    options = itertools.product((1, 2, 3), (False, True), ("last", "mean"))
    yield from (Variant(*option, dropout=option[1]) for option in options)
    yield BEST._replace(dropout=False)
    yield BEST._replace(bidirectional=False)
    yield BEST._replace(padded=True)
    yield BEST._replace(readout="last", padded=True)


class Cell(NamedTuple):
    """The parameters of one layer in one direction, in the order of the module."""

    W_xh: Tensor
    W_hh: Tensor
    b_h: Tensor
    h_0: Tensor


def network(variant: Variant) -> networks.RNNClassifier:
    """Build the network of a variant; no parameter is zero, no matrix symmetric."""
    model = networks.RNNClassifier(
        D,
        H,
        Q,
        num_layers=variant.n_layer,
        bidirectional=variant.bidirectional,
        readout=variant.readout,
        dropout=RATE * variant.dropout,
        learnable_h0=True,
    ).double()
    parameters = list(model.parameters())
    for parameter, value in zip(
        parameters, normal(1, *(p.shape for p in parameters)), strict=True
    ):
        parameter.data.copy_(value / H**0.5)
    return model


def masks(variant: Variant) -> list[Tensor]:
    """One for each layer but the first, and one for the output layer."""
    shape = (BATCH, 2 * H if variant.bidirectional else H)
    return normal(2, *variant.n_layer * [shape]) if variant.dropout else []


def cells_of(parameters: Sequence[Tensor]) -> list[Cell]:
    """Group the parameters of all layers and directions, from the bottom to the top."""
    return [Cell(*group) for group in zip(*4 * [iter(parameters[2:])], strict=True)]


def plain_logits(parameters, x: Tensor, variant: Variant, Z: Sequence[Tensor]):
    """The network by loops over sequences and steps, without code of the library."""
    W_hq, b_q, logits = *parameters[:2], []
    for n, sequence in enumerate(x):
        inputs = list(sequence[: LENGTHS[n] if variant.padded else TIME])
        cells = iter(cells_of(parameters))
        for layer in range(variant.n_layer):
            if layer and Z:
                inputs = [row * Z[layer - 1][n] for row in inputs]
            forwards, backwards = [], []
            cell = next(cells)
            state = cell.h_0
            for row in inputs:
                state = torch.tanh(row @ cell.W_xh + state @ cell.W_hh + cell.b_h)
                forwards.append(state)
            if variant.bidirectional:
                cell = next(cells)
                state = cell.h_0
                for row in inputs[::-1]:
                    state = torch.tanh(row @ cell.W_xh + state @ cell.W_hh + cell.b_h)
                    backwards.insert(0, state)
                ends = torch.cat([forwards[-1], backwards[0]])
                inputs = [
                    torch.cat(two) for two in zip(forwards, backwards, strict=True)
                ]
            else:
                ends, inputs = forwards[-1], forwards
        read = ends if variant.readout == "last" else sum(inputs) / len(inputs)
        logits.append((read * Z[-1][n] if Z else read) @ W_hq + b_q)
    return torch.stack(logits)


def plain_loss(logits: Tensor) -> Tensor:
    """The cross-entropy, also of complex logits."""
    normalizer = logits.exp().sum(-1).log()
    return (normalizer - logits[torch.arange(BATCH), LABELS]).mean()


class Unrolled(NamedTuple):
    """One direction of one layer: its steps in the order in which it takes them."""

    cell: Cell
    steps: list[int]
    inputs: list[Tensor]
    states: list[Tensor]


def unroll(cell: Cell, inputs: list[Tensor], steps: list[int]) -> Unrolled:
    """Store the states by their time step, and the initial state."""
    states = TIME * [None] + [cell.h_0.expand(BATCH, H)]
    before = states[-1]
    for t in steps:
        before = torch.tanh(inputs[t] @ cell.W_xh + before @ cell.W_hh + cell.b_h)
        states[t] = before
    return Unrolled(cell, steps, inputs, states)


def backward(run: Unrolled, G: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """BPTT in one direction: the gradients of the cell, and of its inputs by time."""
    W_xh, W_hh, _, _ = run.cell
    grads = [torch.zeros_like(p) for p in run.cell]
    of_inputs, Gamma_next = TIME * [None], torch.zeros(BATCH, H).double()
    for i in reversed(range(TIME)):
        t = run.steps[i]
        before = run.states[run.steps[i - 1] if i else TIME]
        delta = (G[t] + Gamma_next) * (1 - run.states[t] ** 2)
        grads[0] += run.inputs[t].T @ delta
        grads[1] += before.T @ delta
        grads[2] += delta.sum(0)
        of_inputs[t], Gamma_next = delta @ W_xh.T, delta @ W_hh.T
    grads[3] += Gamma_next.sum(0)
    return grads, of_inputs


def by_hand(parameters, x: Tensor, variant: Variant, Z: Sequence[Tensor]):
    """The gradients of all parameters and of x by the equations of the chapter."""
    W_hq, b_q = parameters[:2]
    n_direction = 2 if variant.bidirectional else 1
    orders = [list(range(TIME)), list(range(TIME))[::-1]][:n_direction]
    cells, layers, inputs = iter(cells_of(parameters)), [], list(x.transpose(0, 1))
    for layer in range(variant.n_layer):
        if layer and Z:
            inputs = [X_t * Z[layer - 1] for X_t in inputs]
        layers.append([unroll(next(cells), inputs, steps) for steps in orders])
        inputs = [torch.cat([r.states[t] for r in layers[-1]], -1) for t in range(TIME)]
    ends = [run.states[run.steps[-1]] for run in layers[-1]]
    read = torch.cat(ends, -1) if variant.readout == "last" else sum(inputs) / TIME
    scaled = read * Z[-1] if Z else read

    P = (scaled @ W_hq + b_q).softmax(-1)
    G_q = (P - torch.eye(Q).double()[LABELS]) / BATCH
    of_read = G_q @ W_hq.T * (Z[-1] if Z else 1)
    found = []
    G = TIME * [of_read / TIME]
    for layer in reversed(range(variant.n_layer)):
        of_inputs, of_cells = [], []
        for d, run in enumerate(layers[layer]):
            half = slice(d * H, (d + 1) * H)
            direct = [G_t[:, half] for G_t in G]
            if layer == variant.n_layer - 1 and variant.readout == "last":
                direct = [of_read[:, half] * (t == run.steps[-1]) for t in range(TIME)]
            grads, below = backward(run, direct)
            of_cells += grads
            of_inputs.append(below)
        found = of_cells + found
        G = [sum(parts) for parts in zip(*of_inputs, strict=True)]
        if layer and Z:
            G = [G_t * Z[layer - 1] for G_t in G]
    return [scaled.T @ G_q, G_q.sum(0), *found, torch.stack(G, 1)]


def given(Z: Sequence[Tensor]):
    """Return a replacement of ``dropout_mask`` that returns these masks in turn.

    What is not asked for as in the recorded run is NaN, which no residual survives.
    """
    queue = iter(Z)

    def mask(like, rate, generator=None):
        Z_next = next(queue, None)
        expected = Z_next is not None and like.shape == Z_next.shape and rate == RATE
        return Z_next if expected else torch.full_like(like, torch.nan)

    return mask, queue


def production(model, x: Tensor, variant: Variant, Z: Sequence[Tensor]):
    """Logits, and gradients as in training: by our autograd function, in blocks."""
    leaf, (mask, queue) = x.clone().requires_grad_(), given(Z)
    lengths = torch.tensor(LENGTHS) if variant.padded else None
    with (
        mock.patch.object(recurrence, "ROWS", 2 * BATCH),
        mock.patch.object(networks, "dropout_mask", mask),
    ):
        logits = model(leaf, lengths=lengths)
        loss.cross_entropy(logits, LABELS).backward()
        tested = model.eval()(x, lengths=lengths).detach()
    unused = next(queue, None) is None
    leaves = [*model.parameters(), leaf]
    # None is how autograd says zero
    grads = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in leaves]
    return logits.detach(), tested, grads, holds(unused)


@claim(
    "R18",
    "Backpropagation through layers and directions",
    equations=(
        "eq-stacked-forward",
        "eq-readout",
        "eq-readout-gradient",
        "eq-stacked-bptt",
        "eq-shared-dropout",
    ),
    kinds="I G C M",
    tolerance=1e-12,
    source="Schuster and Paliwal, Bidirectional recurrent neural networks, 1997; "
    "Gal and Ghahramani, A theoretically grounded application of dropout in recurrent "
    "neural networks, 2016, arXiv:1512.05287",
    subjects=(networks, recurrence, dropout),
    mutants=(
        Mutant("the states of the second direction are not reversed back",
               "StackedRNN.forward", "_reversed(others, lengths)", "others"),
        Mutant("both directions read forward", "StackedRNN.forward",
               "_reversed(X, lengths)", "X"),
        Mutant("the last state of the second direction is taken at time T",
               "StackedRNN.forward", "torch.cat([last, first], -1)",
               "torch.cat([last, states[-1, :, last.shape[1]:]], -1)"),
        Mutant("the directions are exchanged in the last state", "StackedRNN.forward",
               "torch.cat([last, first], -1)", "torch.cat([first, last], -1)"),
        Mutant("no gradient reaches the layer below", "StackedRNN.forward",
               "X = states", "X = states.detach()"),
        Mutant("a new dropout mask at each step", "StackedRNN.forward",
               "dropout_mask(X[0], self.dropout, self.generator)",
               "dropout_mask(X, self.dropout, self.generator)"),
        Mutant("dropout in evaluation", "StackedRNN.forward",
               "n and self.dropout and self.training", "n and self.dropout"),
        Mutant("dropout of the input", "StackedRNN.forward",
               "n and self.dropout and self.training",
               "self.dropout and self.training"),
        Mutant("no dropout before the output layer", "RNNClassifier.forward",
               "self.dropout and self.training", "False"),
        Mutant("the readout takes both directions at time T", "RNNClassifier.forward",
               "last if self.readout == 'last' else _mean(states, lengths)",
               "states[-1] if self.readout == 'last' else _mean(states, lengths)"),
        Mutant("the sum of the states for their mean", "_mean",
               "states.mean(0)", "states.sum(0)"),
        Mutant("the mean over the batch", "_mean",
               "states.mean(0)", "states.mean(1)", raises="ValueError"),
        Mutant("the mean of a padded sequence is over all steps", "_mean",
               "(states * inside[..., None]).sum(0) / lengths[:, None]",
               "(states * inside[..., None]).mean(0)"),
        Mutant("the second direction reads the padding first", "_reversed",
               "torch.where(t < lengths, lengths - 1 - t, t)",
               "(len(X) - 1 - t).expand(-1, len(lengths))"),
        Mutant("an image is read column by column", "as_sequence",
               "images.reshape(len(images), -1, d)",
               "images.transpose(1, 2).reshape(len(images), -1, d)"),
        Mutant("a step may cross from one row to the next", "as_sequence",
               "not images.shape[2] % d or not d % images.shape[2]", "True"),
        Mutant("the blocks are processed from first to last",
               "rnn_backward", "reversed(_parts(*X.shape[:2]))",
               "_parts(*X.shape[:2])", module=recurrence),
        Mutant("the gradient of the recurrent weights is that of one block",
               "rnn_backward", "grad_W_hh.addmm_(H[:-1][part].flatten(0, 1).T, rows)",
               "grad_W_hh = H[:-1][part].flatten(0, 1).T @ rows", module=recurrence),
        Mutant("the gradient of the last state counts twice",
               "_BackpropagationThroughTime.backward",
               "_, W_xh, W_hh, _, _, X, H = ctx.saved_tensors",
               "_, W_xh, W_hh, _, _, X, H = ctx.saved_tensors\n"
               "if grad_last_state is not None: grad_last_state = 2 * grad_last_state",
               module=recurrence),
        Mutant("no gradient with respect to the inputs",
               "_BackpropagationThroughTime.backward",
               "ctx.needs_input_grad[0]", "False", module=recurrence),
        Mutant("dropout keeps the entries that it should drop", "dropout_mask",
               "torch.rand(like.shape, generator=generator, device=device) >= rate",
               "torch.rand(like.shape, generator=generator, device=device) < rate",
               module=dropout),
        Mutant("dropout does not scale the kept entries", "dropout_mask",
               "kept.to(like) / (1 - rate)", "kept.to(like)", module=dropout),
        Mutant("dropout ignores its generator", "dropout_mask",
               "torch.rand(like.shape, generator=generator, device=device)",
               "torch.rand(like.shape, device=device)", module=dropout),
    ),
)  # fmt: skip
def layers_and_directions() -> float:
    """The network equals a loop over time steps, and its gradients the equations."""
    residuals = [factors(), reading_order()]
    for variant in variants():
        model, Z = network(variant), masks(variant)
        (x,) = normal(3, (BATCH, TIME, D))
        parameters = [p.detach().clone() for p in model.parameters()]
        logits, tested, grads, unused = production(model, x, variant, Z)
        leaves = [p.clone().requires_grad_() for p in (*parameters, x)]
        expected = plain_logits(leaves[:-1], leaves[-1], variant, Z)
        auto = torch.autograd.grad(plain_loss(expected), leaves)
        residuals += [
            unused,
            relative(logits, expected.detach()),
            relative(tested, plain_logits(parameters, x, variant, ())),
            worst(grads, auto),
        ]
        if not variant.padded:
            residuals.append(worst(grads, by_hand(parameters, x, variant, Z)))
        if variant == BEST:
            residuals.append(stepped(parameters, x, Z, grads))
    return largest(residuals)


def stepped(parameters, x: Tensor, Z: Sequence[Tensor], grads) -> float:
    """W_hh of the first layer, in both directions, by the complex step."""
    residuals = []
    for i in (3, 7):  # after W_hq and b_q, four parameters for each cell

        def f(W: Tensor, i: int = i) -> Tensor:
            changed = [p.to(W.dtype) for p in parameters]
            changed[i] = W
            return plain_loss(plain_logits(changed, x.to(W.dtype), BEST, Z))

        residuals.append(relative(grads[i], complex_step(f, parameters[i])))
    return largest(residuals)


def reading_order() -> float:
    """Pixels, parts of rows and whole rows: each in its place, none across two rows."""
    (images,) = normal(4, (BATCH, 4, 6))
    residuals = []
    for d in (1, 3, 6, 12):
        found = networks.as_sequence(images, d)
        pixels = [images[:, k // 6, k % 6] for k in range(24)]
        steps = [torch.stack(pixels[k : k + d], -1) for k in range(0, 24, d)]
        residuals.append(relative(found, torch.stack(steps, 1)))
    for d in (4, 8, 5):
        try:
            networks.as_sequence(images, d)
            residuals.append(holds(False))
        except ValueError:
            residuals.append(0.0)
    return largest(residuals)


def factors(n: int = 10_000) -> float:
    """A dropout mask is 0 or 1/(1-p), at a rate within 5 standard errors of p."""
    like = torch.zeros(n, 1).double()
    generator = torch.Generator().manual_seed(0)
    Z, again = (
        dropout.dropout_mask(like, RATE, generator.manual_seed(seed)) for seed in (0, 0)
    )
    dropped = Z == 0
    error = (RATE * (1 - RATE) / n) ** 0.5
    return largest(
        [
            relative(Z[~dropped], torch.full_like(Z[~dropped], 10 / 9)),
            holds(abs(dropped.double().mean().item() - RATE) < 5 * error),
            holds(torch.equal(Z, again)),
        ]
    )
