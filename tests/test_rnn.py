"""`dian.rnn` against a loop one can check by eye, autograd, and torch's own network."""

import inspect
import math

import pytest
import torch
from torch import nn

from dian.rnn import (
    RNN,
    output_backward,
    output_forward,
    rnn,
    rnn_backward,
    rnn_forward,
)

# Distinct primes: a swapped or merged axis cannot pass by luck.
TIME, BATCH, D, H, Q = 7, 5, 3, 11, 2


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


def differentiable(X, W_xh, W_hh, b_h, H_0):
    """The recurrence as autograd can follow it."""
    states = [H_0]
    for X_t in X:
        states.append(torch.tanh(X_t @ W_xh + states[-1] @ W_hh + b_h))
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


def test_forward_changes_none_of_its_arguments(inputs):
    before = [x.clone() for x in inputs]
    rnn_forward(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))


@pytest.mark.parametrize("reads", ["states", "last", "both"])
def test_backward_equals_autograd(generator, inputs, reads):
    G = torch.randn(TIME, BATCH, H, generator=generator, dtype=torch.float64)
    E = torch.randn(BATCH, H, generator=generator, dtype=torch.float64)
    leaves = [x.clone().requires_grad_() for x in inputs]
    plain = differentiable(*leaves)
    loss = (plain * G).sum() * (reads != "last") + (plain[-1] * E).sum() * (
        reads != "states"
    )
    expected = torch.autograd.grad(loss, leaves)

    X, W_xh, W_hh, _, _ = inputs
    kept = [x.clone() for x in (G, E)]
    gradients = rnn_backward(
        None if reads == "last" else G,
        None if reads == "states" else E,
        X,
        rnn_forward(*inputs),
        W_xh,
        W_hh,
    )
    for name, ours, theirs in zip(gradients._fields, gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12, msg=name)
    assert torch.equal(G, kept[0])
    assert torch.equal(E, kept[1])


def test_gradients_reach_autograd(inputs):
    """With tolerances that a gradient wrong by 0.05 % does not pass."""
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(rnn, leaves, rtol=1e-6, atol=1e-8)


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


def wrong(inputs, position, value):
    return [value if i == position else x for i, x in enumerate(inputs)]


@pytest.mark.parametrize(
    ("position", "shape", "message"),
    [
        (0, (TIME, BATCH), r"X must be \(time, batch, d\)"),
        (0, (0, BATCH, D), "none empty"),
        (0, (TIME, 0, D), "none empty"),
        (1, (H, D), r"W_xh must have shape \(3, 11\) here, got \(11, 3\)"),
        (2, (1, H), r"W_hh must have shape \(11, 11\)"),
        (4, (1, H), r"H_0 must have shape \(5, 11\) here, got \(1, 11\)"),
    ],
)
def test_shapes_that_disagree(inputs, position, shape, message):
    # Without the shape checker that the tests wrap round every function of dian,
    # so that this is the error that a user sees.
    plain = inspect.unwrap(rnn_forward)
    with pytest.raises(ValueError, match=message):
        plain(*wrong(inputs, position, torch.zeros(shape, dtype=torch.float64)))


def test_dtypes_that_disagree(inputs):
    plain = inspect.unwrap(rnn_forward)
    with pytest.raises(ValueError, match=r"b_h must have the dtype torch\.float64"):
        plain(*wrong(inputs, 3, torch.zeros(H)))


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
