"""`dian.rnn.vanishing` against central differences, BPTT and closed forms."""

import pytest
import torch

from dian.rnn import vanishing
from dian.rnn.initialization import orthogonal_
from dian.rnn.recurrence import ACTIVATIONS, rnn_backward, rnn_forward

TIME, BATCH, D, H = 7, 5, 3, 11


@pytest.fixture
def network(generator):
    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    X, W_xh, b_h, H_0 = (
        normal(TIME, BATCH, D),
        normal(D, H),
        normal(H),
        normal(BATCH, H),
    )
    return X, W_xh, normal(H, H) / H**0.5, b_h, H_0


def derivatives_of(network, activation="tanh"):
    states = rnn_forward(*network, activation)
    return states, ACTIVATIONS[activation].derivative(states[1:])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_jacobian_is_what_a_small_change_makes(network, activation):
    """Central differences of the network itself, entry by entry."""
    X, W_xh, W_hh, b_h, H_0 = network
    _, derivatives = derivatives_of(network, activation)
    n, step = 1, 1e-6
    found = vanishing.jacobian(derivatives[:, n], W_hh)
    expected = torch.zeros_like(found)
    for j in range(H):
        ends = []
        for sign in (1, -1):
            start = H_0.clone()
            start[n, j] += sign * step
            ends.append(rnn_forward(X, W_xh, W_hh, b_h, start, activation)[-1, n])
        expected[:, j] = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)


def test_no_step_is_the_identity(network):
    _, derivatives = derivatives_of(network)
    W_hh = network[2]
    assert torch.equal(
        vanishing.jacobian(derivatives[:0, 0], W_hh), torch.eye(H).double()
    )


def test_the_longest_lag_reaches_the_initial_state(network, generator):
    X, W_xh, W_hh, _, _ = network
    states, derivatives = derivatives_of(network)
    E = torch.randn(BATCH, H, generator=generator, dtype=torch.float64)
    lags = vanishing.gradient_by_lag(E, derivatives, W_hh)
    assert torch.equal(lags[0], E)
    whole = rnn_backward(None, E, X, states, W_xh, W_hh)
    torch.testing.assert_close(lags[-1], whole.H_0)


def test_bounds_are_above_and_in_order(network):
    W_hh = network[2]
    _, derivatives = derivatives_of(network, "sigmoid")
    tight, loose = vanishing.lag_bounds(derivatives[:, 0], W_hh, 0.25)
    for k in range(TIME + 1):
        J = vanishing.jacobian(derivatives[TIME - k :, 0], W_hh)
        norm = torch.linalg.matrix_norm(J, 2)
        assert norm <= tight[k] * (1 + 1e-12)
        assert tight[k] <= loose[k] * (1 + 1e-12)


def test_the_variance_factor_is_exact_for_a_linear_network(generator):
    """The mean over random matrices; here of the linear network, over many vectors."""
    W_hh = orthogonal_(torch.empty(H, H, dtype=torch.float64), 1.3, generator)
    derivatives = torch.ones(TIME, BATCH, H, dtype=torch.float64)
    E = torch.randn(BATCH, H, generator=generator, dtype=torch.float64)
    sizes = vanishing.gradient_by_lag(E, derivatives, W_hh).norm(dim=-1)
    growth = vanishing.gradient_variance_factor(derivatives, W_hh).item()
    assert growth == pytest.approx(1.3**2)
    torch.testing.assert_close(sizes[-1], sizes[0] * growth ** (TIME / 2))


def test_a_sigmoid_network_as_a_tanh_network(network):
    X, U, V, c, _ = network
    s_0 = torch.rand(BATCH, H, dtype=torch.float64)
    s = rnn_forward(X, U, V, c, s_0, "sigmoid")
    h = rnn_forward(X, *vanishing.sigmoid_as_tanh(U, V, c), 2 * s_0 - 1)
    torch.testing.assert_close(h, 2 * s - 1, rtol=0, atol=1e-14)
