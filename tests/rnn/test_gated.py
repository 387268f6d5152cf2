"""`dian.rnn.gated` against torch's layers, autograd and differences."""

import inspect

import pytest
import torch
from torch import nn

from dian.rnn import gated

TIME, BATCH, D, H = 7, 5, 3, 11


def draws(generator, *shapes, dtype=torch.float64):
    return [torch.randn(*s, generator=generator, dtype=dtype) for s in shapes]


@pytest.fixture
def lstm(generator):
    shapes = (TIME, BATCH, D), (D, 4 * H), (H, 4 * H), (4 * H,), (BATCH, H), (BATCH, H)
    return draws(generator, *shapes)


@pytest.fixture
def gru(generator):
    shapes = (TIME, BATCH, D), (D, 3 * H), (H, 3 * H), (3 * H,), (3 * H,), (BATCH, H)
    return draws(generator, *shapes)


def layer_of(make, W_xh, W_hh, b_x, b_h):
    layer = make(D, H).to(W_xh.dtype)
    with torch.no_grad():
        for parameter, value in zip(
            layer.parameters(), (W_xh.T, W_hh.T, b_x, b_h), strict=True
        ):
            parameter.copy_(value)
    return layer


def test_the_lstm_is_that_of_torch_in_float32(lstm):
    X, W_xh, W_hh, b_h, H_0, c_0 = (x.float() for x in lstm)
    theirs = layer_of(nn.LSTM, W_xh, W_hh, b_h, 0 * b_h)
    expected, (H_T, c_T) = theirs(X, (H_0[None], c_0[None]))
    states = gated.lstm_forward(X, W_xh, W_hh, b_h, H_0, c_0)
    torch.testing.assert_close(states.H[1:], expected)
    torch.testing.assert_close(states.H[-1], H_T[0])
    torch.testing.assert_close(states.c[-1], c_T[0])


def test_the_gates_are_in_the_order_of_their_names(lstm):
    """A large bias opens one gate after the other."""
    X, W_xh, W_hh, _, H_0, c_0 = lstm
    zero = torch.zeros_like(W_xh), torch.zeros_like(W_hh)
    for k, name in enumerate("ifgo"):
        b = torch.full((4 * H,), -50.0).double()
        b[k * H : (k + 1) * H] = 50
        gates = gated.lstm_forward(X, *zero, b, H_0, c_0).gates.chunk(4, -1)
        for other, gate in zip("ifgo", gates, strict=True):
            closed = -1.0 if other == "g" else 0.0
            expected = 1.0 if other == name else closed
            torch.testing.assert_close(gate, torch.full_like(gate, expected))


@pytest.mark.parametrize("n_time", [1, TIME])
def test_the_gradients_by_hand_are_those_of_autograd(lstm, generator, n_time):
    X, *rest = lstm
    leaves = [x.clone().requires_grad_() for x in (X[:n_time], *rest)]
    (G,) = draws(generator, (n_time, BATCH, H))
    states = gated.lstm_forward(*leaves)
    (states.H[1:] * G).sum().backward()
    values = gated.LSTMStates(*(x.detach() for x in states))
    found = gated.lstm_backward(G, X[:n_time], values, rest[0], rest[1])
    by_name = zip(("X", "W_xh", "W_hh", "b_h"), leaves[:4], strict=True)
    for name, leaf in by_name:
        torch.testing.assert_close(getattr(found, name), leaf.grad)
    torch.testing.assert_close(found.H[0], leaves[4].grad)
    torch.testing.assert_close(found.c[0], leaves[5].grad)


def test_the_jacobian_of_the_cell_is_what_a_small_change_makes(lstm):
    """Central differences; the change reaches the hidden state of its step, too."""
    X, W_xh, W_hh, b_h, H_0, c_0 = lstm
    states = gated.lstm_forward(X, W_xh, W_hh, b_h, H_0, c_0)
    found = gated.cell_jacobian(states, W_hh)
    assert found.shape == (TIME - 1, BATCH, H, H)
    t, n, step = 4, 2, 1e-6
    o = states.gates[t - 1].chunk(4, -1)[3]
    for j in range(H):
        ends = []
        for sign in (1, -1):
            c = states.c[t].clone()
            c[n, j] += sign * step
            after = gated.lstm_forward(X[t : t + 1], W_xh, W_hh, b_h, o * c.tanh(), c)
            ends.append(after.c[-1, n])
        expected = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(
            found[t - 1, n, :, j], expected, rtol=1e-7, atol=1e-8
        )


def test_the_gru_is_that_of_torch_with_its_gradients(gru, generator):
    X, *weights, H_0 = gru
    theirs = layer_of(nn.GRU, *weights)
    (G,) = draws(generator, (TIME, BATCH, H))
    leaves = [x.clone().requires_grad_() for x in gru]
    states = gated.gru_forward(*leaves)
    expected, _ = theirs(X, H_0[None])
    torch.testing.assert_close(states[1:], expected)
    for output in (states[1:], expected):
        (output * G).sum().backward()
    for leaf, parameter in zip(leaves[1:5], theirs.parameters(), strict=True):
        mine = leaf.grad.T if leaf.ndim == 2 else leaf.grad
        torch.testing.assert_close(mine, parameter.grad)


def test_a_sequence_can_be_cut_in_two(lstm, gru):
    X, *weights, H_0, c_0 = lstm
    whole = gated.lstm_forward(*lstm)
    early = gated.lstm_forward(X[:3], *weights, H_0, c_0)
    late = gated.lstm_forward(X[3:], *weights, early.H[-1], early.c[-1])
    torch.testing.assert_close(late.H[-1], whole.H[-1])
    X, *weights, H_0 = gru
    late = gated.gru_forward(
        X[3:], *weights, gated.gru_forward(X[:3], *weights, H_0)[-1]
    )
    torch.testing.assert_close(late[-1], gated.gru_forward(*gru)[-1])


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, torch.zeros(0, 5, 3), r"X must be \(time, batch, d\) .* got \(0, 5, 3\)"),
        (0, torch.zeros(5, 3), r"X must be \(time, batch, d\) .* got \(5, 3\)"),
        (
            1,
            torch.zeros(3, 33).double(),
            r"W_xh must be .* \(3, 44\), got .* \(3, 33\)",
        ),
        (2, torch.zeros(44, 11).double(), r"W_hh must be .* \(11, 44\), got .*"),
        (3, torch.zeros(11).double(), r"b_h must be .* \(44,\), got .* \(11,\)"),
        (3, torch.zeros(44), r"b_h must be torch.float64 .* got torch.float32"),
        (4, torch.zeros(11), r"H_0 must be \(batch, h\), got .* \(11,\)"),
        (4, torch.zeros(1, 11).double(), r"H_0 must be .* \(5, 11\), got .* \(1, 11\)"),
        (5, torch.zeros(1, 11).double(), r"c_0 must be .* \(5, 11\), got .* \(1, 11\)"),
    ],
)
def test_wrong_arguments(as_users_run, lstm, at, value, message):
    lstm[at] = value
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(gated.lstm_forward)(*lstm)


def test_gradients_of_another_shape(as_users_run, lstm):
    states = gated.lstm_forward(*lstm)
    with pytest.raises(ValueError, match=r"grad_states must be .* \(7, 5, 11\), got"):
        inspect.unwrap(gated.lstm_backward)(
            torch.zeros(TIME, BATCH, 1).double(), lstm[0], states, *lstm[1:3]
        )
