"""`dian.rnn.truncated`: the terms of the gradient, and the bias of truncated BPTT."""

import inspect

import pytest
import torch

from dian.rnn.initialization import orthogonal_
from dian.rnn.recurrence import ACTIVATIONS, rnn, rnn_backward, rnn_forward
from dian.rnn.truncated import gradient_terms, truncation_bound

TIME, BATCH, D, H = 7, 5, 3, 11
EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture
def network(generator):
    """X, W_xh, W_hh, b_h, H_0 in float64; nothing symmetric, nothing zero."""

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    X, W_xh, W_hh = normal(TIME, BATCH, D), normal(D, H), normal(H, H) / H**0.5
    return X, W_xh, W_hh, normal(H), normal(BATCH, H)


def states_and_derivatives(network):
    states = rnn_forward(*network)
    return states, ACTIVATIONS["tanh"].derivative(states[1:])


@pytest.mark.parametrize("rows", [BATCH, 2 * BATCH, 1024])
def test_truncated_bptt_detaches_the_state_at_each_boundary(network, monkeypatch, rows):
    """Each chunk starts from the carried state, and no gradient crosses a boundary."""
    monkeypatch.setattr("dian.rnn.recurrence.ROWS", rows)
    X, W_xh, W_hh, b_h, H_0 = network
    whole = rnn_forward(*network)
    leaf, state, cut = W_hh.clone().requires_grad_(), H_0, 3
    expected = torch.zeros_like(W_hh)
    for chunk, start in zip(X.split(cut), range(0, TIME, cut), strict=True):
        states, last = rnn(chunk, W_xh, leaf, b_h, state)
        expected_states = whole[start + 1 : start + 1 + len(chunk)]
        torch.testing.assert_close(states.detach(), expected_states, **EXACT)
        states.square().sum().backward()
        state = last.detach()
        again = W_hh.clone().requires_grad_()
        part, plain = whole[start], []
        for X_t in chunk:
            part = torch.tanh(X_t @ W_xh + part @ again + b_h)
            plain.append(part)
        torch.stack(plain).square().sum().backward()
        expected += again.grad
    torch.testing.assert_close(leaf.grad, expected, **EXACT)


def test_the_terms_add_up_to_the_gradient(network, generator):
    X, W_xh, W_hh, _, _ = network
    states, derivatives = states_and_derivatives(network)
    E = torch.randn(BATCH, H, generator=generator, dtype=torch.float64)
    whole = rnn_backward(None, E, X, states, W_xh, W_hh)
    terms = gradient_terms(E, derivatives, states, W_hh)
    assert terms.shape == (TIME, H, H)
    torch.testing.assert_close(terms.sum(0), whole.W_hh)


@pytest.mark.parametrize("K", [1, 3, TIME])
def test_truncation_after_K_steps_keeps_the_last_K_terms(network, generator, K):
    X, W_xh, W_hh, b_h, _ = network
    states, derivatives = states_and_derivatives(network)
    E = torch.randn(BATCH, H, generator=generator, dtype=torch.float64)
    leaf = W_hh.clone().requires_grad_()
    _, last = rnn(X[TIME - K :], W_xh, leaf, b_h, states[TIME - K])
    (last * E).sum().backward()
    terms = gradient_terms(E, derivatives, states, W_hh)
    torch.testing.assert_close(terms[-K:].sum(0), leaf.grad, **EXACT)


def test_the_bound_of_the_bias_is_above_it_and_falls(network):
    E = torch.ones(BATCH, H, dtype=torch.float64)
    W_hh = orthogonal_(torch.empty(H, H, dtype=torch.float64), 0.7)
    X, W_xh, _, b_h, H_0 = network
    states, derivatives = states_and_derivatives((X, W_xh, W_hh, b_h, H_0))
    terms = gradient_terms(E, derivatives, states, W_hh)
    bounds = [truncation_bound(E, states, W_hh, K, 1.0) for K in range(TIME + 1)]
    for K, bound in enumerate(bounds):
        assert terms[: TIME - K].sum(0).norm() <= bound
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[TIME] == 0


@pytest.mark.parametrize("K", [-1, TIME + 1])
def test_a_truncation_length_out_of_range_is_refused(K):
    states = torch.ones(TIME + 1, BATCH, H)
    with pytest.raises(ValueError, match=f"K must be a whole number, 0 to 7, got {K}"):
        inspect.unwrap(truncation_bound)(states[0], states, torch.eye(H), K, 1.0)


def test_weights_that_are_not_finite_are_refused():
    states = torch.ones(TIME + 1, BATCH, H)
    with pytest.raises(ValueError, match="W_hh must be finite"):
        truncation_bound(states[0], states, torch.full((H, H), torch.nan), 2, 1.0)
