"""`recurrence` against a readable loop, autograd, and torch's own network."""

import inspect
import math
import re

import pytest
import torch
from torch import nn

from dian.rnn.recurrence import (
    ACTIVATIONS,
    RNN,
    output_backward,
    output_forward,
    rnn,
    rnn_backward,
    rnn_forward,
)
from dian.training.clipping import clip_by_norm
from dian.training.loss import cross_entropy_backward

# Distinct primes: a swapped or merged axis cannot pass by luck.
TIME, BATCH, D, H, Q = 7, 5, 3, 11, 2
EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture
def inputs(generator):
    """X, W_xh, W_hh, b_h, H_0 in float64; nothing symmetric, nothing zero."""

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return (
        normal(TIME, BATCH, D),
        normal(D, H),
        normal(H, H) / H**0.5,
        normal(H),
        normal(BATCH, H),
    )


def states_by_loops(X, W_xh, W_hh, b_h, H_0):
    """One number at a time, in plain Python arithmetic."""
    states = [H_0.tolist()]
    for X_t in X.tolist():
        state = []
        for row, last in zip(X_t, states[-1], strict=True):
            new = []
            for j in range(H):
                a = b_h[j].item()
                a += sum(row[i] * W_xh[i, j].item() for i in range(D))
                a += sum(last[i] * W_hh[i, j].item() for i in range(H))
                new.append(math.tanh(a))
            state.append(new)
        states.append(state)
    return torch.tensor(states, dtype=torch.float64)


PLAIN = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "identity": lambda A: A,
}


def differentiable(X, W_xh, W_hh, b_h, H_0, phi=torch.tanh):
    """The recurrence as autograd can follow it."""
    states = [H_0]
    for X_t in X:
        states.append(phi(X_t @ W_xh + states[-1] @ W_hh + b_h))
    return torch.stack(states[1:])


def test_forward_equals_the_loop(inputs):
    expected = states_by_loops(*inputs)
    torch.testing.assert_close(rnn_forward(*inputs), expected, rtol=0, atol=1e-13)


def test_the_comparison_can_fail(inputs):
    X, W_xh, W_hh, b_h, H_0 = inputs
    transposed = rnn_forward(X, W_xh, W_hh.T, b_h, H_0)
    assert (transposed - states_by_loops(*inputs)).abs().max() > 1e-2


def test_forward_equals_torch(inputs):
    X, W_xh, W_hh, b_h, H_0 = inputs
    theirs = nn.RNN(D, H).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(W_xh.T)
        theirs.weight_hh_l0.copy_(W_hh.T)
        # Only the sum of the two biases matters.
        theirs.bias_ih_l0.copy_(b_h - 1)
        theirs.bias_hh_l0.fill_(1)
        output, last = theirs(X, H_0[None])
    states = rnn_forward(*inputs)
    torch.testing.assert_close(states[1:], output, rtol=0, atol=1e-14)
    torch.testing.assert_close(states[-1], last[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("rows", [1, 2 * BATCH + 1, 10**6])
def test_how_many_steps_are_worked_on_together_changes_nothing(
    inputs, generator, monkeypatch, rows
):
    G = torch.randn(TIME, BATCH, H, generator=generator, dtype=torch.float64)
    expected = rnn_backward(G, G[2], inputs[0], rnn_forward(*inputs), *inputs[1:3])
    monkeypatch.setattr("dian.rnn.recurrence.ROWS", rows)
    states = rnn_forward(*inputs)
    torch.testing.assert_close(states, states_by_loops(*inputs), **EXACT)
    found = rnn_backward(G, G[2], inputs[0], states, *inputs[1:3])
    for ours, others in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, others, **EXACT)


def test_inputs_may_lie_in_memory_batch_first(inputs, generator):
    G = torch.randn(TIME, BATCH, H, generator=generator, dtype=torch.float64)
    X, *others = inputs
    states = rnn_forward(*inputs)
    expected = rnn_backward(G, None, X, states, *others[:2])
    turned = X.transpose(0, 1).contiguous().transpose(0, 1)
    torch.testing.assert_close(rnn_forward(turned, *others), states, **EXACT)
    found = rnn_backward(G, None, turned, states, *others[:2])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_forward_changes_none_of_its_arguments(inputs):
    before = [x.clone() for x in inputs]
    rnn_forward(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))


@pytest.mark.parametrize("activation", PLAIN)
@pytest.mark.parametrize("reads", ["states", "last", "both"])
def test_backward_equals_autograd(generator, inputs, reads, activation):
    G = torch.randn(TIME, BATCH, H, generator=generator, dtype=torch.float64)
    grads = None if reads == "last" else G, None if reads == "states" else G[2]
    leaves = [x.clone().requires_grad_() for x in inputs]
    states = differentiable(*leaves, PLAIN[activation])
    read = [(x, g) for x, g in zip((states, states[-1]), grads, strict=True)]
    loss = sum((x * g).sum() for x, g in read if g is not None)
    expected = torch.autograd.grad(loss, leaves)

    X, W_xh, W_hh, _, _ = inputs
    before = G.clone()
    H_t = rnn_forward(*inputs, activation)
    gradients = rnn_backward(*grads, X, H_t, W_xh, W_hh, activation)
    for name, ours, theirs in zip(gradients._fields, gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT, msg=name)
    assert torch.equal(G, before)


@pytest.mark.parametrize("activation", PLAIN)
def test_gradients_reach_autograd(inputs, activation):
    """With tolerances that a gradient wrong by 0.05 % does not pass."""
    leaves = [x.requires_grad_() for x in inputs]

    def unrolled(*leaves):
        return rnn(*leaves, activation)

    assert torch.autograd.gradcheck(unrolled, leaves, rtol=1e-6, atol=1e-8)


def test_data_get_no_gradient(inputs):
    """It would be thrown away, and costs a product of all steps."""
    X, W_xh, W_hh, *_ = inputs
    H = rnn_forward(*inputs)
    E = torch.ones_like(H[0])
    without = rnn_backward(None, E, X, H, W_xh, W_hh, need_input_grad=False)
    assert without.X is None
    whole = rnn_backward(None, E, X, H, W_xh, W_hh)
    assert all(torch.equal(a, b) for a, b in zip(without[1:], whole[1:], strict=True))


def test_derivatives_are_functions_of_the_states():
    A = torch.linspace(-5, 5, 101, dtype=torch.float64, requires_grad=True)
    for name, (apply_, derivative, max_slope) in ACTIVATIONS.items():
        expected = torch.autograd.grad(PLAIN[name](A).sum(), A)[0]
        found = derivative(apply_(A.detach().clone()))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14, msg=name)
        assert found.max() == max_slope


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_ten_steps_of_descent_are_those_of_torch(activation):
    """Our gradients, our loss and our clipping, against autograd through nn.RNN."""
    generator = torch.Generator().manual_seed(0)
    ours = RNN(D, H, activation=activation, generator=generator).double()
    head = nn.Linear(H, Q).double()
    theirs, peer = nn.RNN(D, H, nonlinearity=activation).double(), nn.Linear(H, Q)
    peer.double().load_state_dict(head.state_dict())
    W_hq = nn.Parameter(head.weight.detach().T.clone())
    b_q = nn.Parameter(head.bias.detach().clone())
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.W_xh.T)
        theirs.weight_hh_l0.copy_(ours.W_hh.T)
        # Of the two biases of torch one stays at zero: else their sum would move twice.
        theirs.bias_ih_l0.zero_()
        theirs.bias_hh_l0.zero_().requires_grad_(False)
    mine = [*ours.parameters(), W_hq, b_q]
    other = [p for p in [*theirs.parameters(), *peer.parameters()] if p.requires_grad]
    optimizers = [torch.optim.SGD(p, lr=0.5) for p in (mine, other)]
    for _ in range(10):
        X = torch.randn(TIME, BATCH, D, generator=generator, dtype=torch.float64)
        labels = torch.randint(Q, (BATCH,), generator=generator)
        _, last = ours(X)
        G = cross_entropy_backward((last @ W_hq + b_q).detach(), labels)
        out = output_backward(G, last.detach(), W_hq.detach())
        W_hq.grad, b_q.grad = out.W_hq, out.b_q
        ours.zero_grad()
        last.backward(out.H)
        clip_by_norm(mine, max_norm=0.3)
        optimizers[0].step()

        optimizers[1].zero_grad()
        loss = nn.functional.cross_entropy(peer(theirs(X)[1][0]), labels)
        loss.backward()
        norm = torch.cat([p.grad.flatten() for p in other]).norm()
        for parameter in other:
            parameter.grad *= min(1.0, 0.3 / norm)
        optimizers[1].step()
    for found, expected in (
        (ours.W_xh.T, theirs.weight_ih_l0),
        (ours.W_hh.T, theirs.weight_hh_l0),
        (ours.b_h, theirs.bias_ih_l0),
        (W_hq.T, peer.weight),
        (b_q, peer.bias),
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("cut", [1, 3, TIME - 1])
def test_a_cut_sequence_gives_the_whole_gradient(generator, inputs, cut):
    X, W_xh, W_hh, b_h, H_0 = inputs
    G = torch.randn(TIME, BATCH, H, generator=generator, dtype=torch.float64)
    whole = rnn_backward(G, None, X, rnn_forward(*inputs), W_xh, W_hh)
    first = rnn_forward(X[:cut], W_xh, W_hh, b_h, H_0)
    second = rnn_forward(X[cut:], W_xh, W_hh, b_h, first[-1])
    late = rnn_backward(G[cut:], None, X[cut:], second, W_xh, W_hh)
    early = rnn_backward(G[:cut], late.H_0, X[:cut], first, W_xh, W_hh)
    for name in ("W_xh", "W_hh", "b_h"):
        together = getattr(early, name) + getattr(late, name)
        torch.testing.assert_close(together, getattr(whole, name))
    torch.testing.assert_close(torch.cat([early.X, late.X]), whole.X)
    torch.testing.assert_close(early.H_0, whole.H_0)


def test_the_layer_starts_at_zero_and_from_its_generator():
    layers = [
        RNN(D, H, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    assert torch.equal(layers[0].W_hh, layers[1].W_hh)
    assert not torch.equal(layers[0].W_hh, layers[2].W_hh)
    X = torch.zeros(TIME, BATCH, D)
    states, last = layers[0](X)
    assert not states.any()
    assert not last.any()
    states, last = layers[0](X, torch.ones(BATCH, H))
    assert torch.equal(states[-1], last)
    assert last.any()


def test_a_learned_initial_state_gets_the_gradient_of_the_whole_batch(generator):
    layer = RNN(D, H, learnable_h0=True, generator=generator).double()
    nn.init.normal_(layer.h_0, generator=generator)
    X = torch.randn(TIME, BATCH, D, generator=generator, dtype=torch.float64)
    states, last = layer(X)
    (states.square().sum() + last.sum()).backward()
    leaf = layer.h_0.detach().clone().requires_grad_()
    weights = [layer.W_xh.detach(), layer.W_hh.detach(), layer.b_h.detach()]
    plain = differentiable(X, *weights, leaf.expand(BATCH, H))
    (plain.square().sum() + plain[-1].sum()).backward()
    torch.testing.assert_close(layer.h_0.grad, leaf.grad, rtol=0, atol=1e-12)
    assert "h_0" in layer.state_dict()
    assert "h_0" not in RNN(D, H).state_dict()


def test_the_initialization_of_the_recurrent_weights_is_an_argument(generator):
    layer = RNN(D, H, init=nn.init.orthogonal_, generator=generator)
    torch.testing.assert_close(layer.W_hh @ layer.W_hh.T, torch.eye(H))


def test_the_order_of_time_in_memory_does_not_matter(generator, inputs):
    """Images come with time as their second axis."""
    X, *rest = inputs
    swapped = X.transpose(0, 1).contiguous().transpose(0, 1)
    assert not swapped.is_contiguous()
    leaves = [x.clone().requires_grad_() for x in rest]
    gradients = []
    for x in (X, swapped):
        states, _ = rnn(x, *leaves)
        gradients.append(torch.autograd.grad(states.square().sum(), leaves))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("batch", [(BATCH,), (TIME, BATCH)])
def test_output_backward_equals_autograd(generator, batch):
    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    H_t, W_hq, b_q, G = normal(*batch, H), normal(H, Q), normal(Q), normal(*batch, Q)
    leaves = [x.requires_grad_() for x in (H_t, W_hq, b_q)]
    expected = torch.autograd.grad(output_forward(*leaves), leaves, G)
    ours = output_backward(G, H_t.detach(), W_hq.detach())
    for found, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(found, theirs, rtol=1e-12, atol=1e-12)


def test_the_last_state_of_padded_sequences(generator):
    layer = RNN(D, H, generator=generator)
    X = torch.randn(TIME, BATCH, D, generator=generator)
    lengths = torch.tensor([7, 2, 5, 1, 3])
    states, last = layer(X, lengths=lengths)
    for i, n in enumerate(lengths.tolist()):
        assert torch.equal(last[i], states[n - 1, i])


def forward_with(**changes):
    """Call the function that a user calls, without the shape checks of the tests."""
    names = ("X", "W_xh", "W_hh", "b_h", "H_0")
    shapes = ((TIME, BATCH, D), (D, H), (H, H), (H,), (BATCH, H))
    given = {n: torch.ones(x) for n, x in zip(names, shapes, strict=True)}
    return inspect.unwrap(rnn_forward)(**given | changes)


def backward_with(grad_states=None, grad_last_state=None, H_t=None):
    H_t = torch.ones(TIME + 1, BATCH, H) if H_t is None else H_t
    X, W_xh, W_hh = torch.ones(TIME, BATCH, D), torch.ones(D, H), torch.ones(H, H)
    given = (grad_states, grad_last_state, X, H_t, W_xh, W_hh)
    return inspect.unwrap(rnn_backward)(*given)


ones = torch.ones
ELSEWHERE = torch.zeros(H, device="meta")
ERRORS = {
    "X must be (time, batch, d) with a step or more, got (7, 5)": lambda: forward_with(
        X=ones(TIME, BATCH)
    ),
    "got (0, 5, 3)": lambda: forward_with(X=ones(0, BATCH, D)),
    "W_xh must be torch.float32 of shape (3, 11) on cpu, got torch.float32 of shape "
    "(11, 3) on cpu": lambda: forward_with(W_xh=ones(H, D)),
    "W_hh must be torch.float32 of shape (11, 11)": lambda: forward_with(
        W_hh=ones(1, H)
    ),
    "H_0 must be torch.float32 of shape (5, 11)": lambda: forward_with(H_0=ones(1, H)),
    "b_h must be torch.float32 of shape (11,) on cpu, got torch.float64": lambda: (
        forward_with(b_h=ones(H).double())
    ),
    "b_h must be torch.float32 of shape (11,) on cpu, got torch.float32 of shape (11,) "
    "on meta": lambda: forward_with(b_h=ELSEWHERE),
    "activation must be one of tanh, sigmoid, relu, identity, got 'logistic'": lambda: (
        forward_with(activation="logistic")
    ),
    "got 'silu'": lambda: RNN(D, H, activation="silu"),
    "grad_states must be torch.float32 of shape (7, 5, 11)": lambda: backward_with(
        grad_states=ones(TIME + 1, BATCH, H)
    ),
    "grad_last_state must be torch.float32 of shape (5, 11)": lambda: backward_with(
        grad_last_state=ones(1, H)
    ),
    "H must be torch.float32 of shape (8, 5, 11)": lambda: backward_with(
        H_t=ones(TIME, BATCH, H)
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_arguments(message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ERRORS[message]()
