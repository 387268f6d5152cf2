"""`dian.rnn.networks` against torch's own networks, and at its edges."""

import inspect

import pytest
import torch
from torch import nn

from dian.rnn.initialization import orthogonal_
from dian.rnn.networks import (
    CELLS,
    RNNClassifier,
    StackedRNN,
    TorchClassifier,
    as_sequence,
)
from dian.training.dropout import dropout

TIME, BATCH, D, H, Q = 7, 5, 3, 11, 2


def peer_of(ours, d, layers, bidirectional, activation):
    """torch.nn.RNN with the weights of a StackedRNN."""
    theirs = nn.RNN(
        d, H, layers, nonlinearity=activation, bidirectional=bidirectional
    ).double()
    with torch.no_grad():
        for n, directions in enumerate(ours.layers):
            for layer, end in zip(directions, ("", "_reverse"), strict=False):
                getattr(theirs, f"weight_ih_l{n}{end}").copy_(layer.W_xh.T)
                getattr(theirs, f"weight_hh_l{n}{end}").copy_(layer.W_hh.T)
                getattr(theirs, f"bias_ih_l{n}{end}").copy_(layer.b_h)
                getattr(theirs, f"bias_hh_l{n}{end}").zero_()
    return theirs


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_stack_equals_torch(generator, layers, bidirectional, activation):
    """Outputs, last states, and the gradients of every weight and of the inputs."""
    ours = StackedRNN(
        D,
        H,
        layers=layers,
        bidirectional=bidirectional,
        activation=activation,
        generator=generator,
    ).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    theirs = peer_of(ours, D, layers, bidirectional, activation)
    X = torch.randn(TIME, BATCH, D, generator=generator, dtype=torch.float64)
    inputs = [X.clone().requires_grad_() for _ in range(2)]
    states, last = ours(inputs[0])
    output, h_n = theirs(inputs[1])
    top = torch.cat(h_n.unbind()[-(2 if bidirectional else 1) :], -1)
    torch.testing.assert_close(states, output, rtol=0, atol=1e-10)
    torch.testing.assert_close(last, top, rtol=0, atol=1e-10)

    G = torch.randn(states.shape, generator=generator, dtype=torch.float64)
    for a, b in ((states, last), (output, top)):
        ((a * G).sum() + b.square().sum()).backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=0, atol=1e-10)
    expected = dict(theirs.named_parameters())
    for n, directions in enumerate(ours.layers):
        for layer, end in zip(directions, ("", "_reverse"), strict=False):
            for found, name in (
                (layer.W_xh.grad.T, f"weight_ih_l{n}{end}"),
                (layer.W_hh.grad.T, f"weight_hh_l{n}{end}"),
                (layer.b_h.grad, f"bias_ih_l{n}{end}"),
            ):
                theirs_ = expected[name].grad
                torch.testing.assert_close(found, theirs_, rtol=0, atol=1e-10)


def test_the_defaults_are_the_recorded_network():
    """Its parameters have the names in the records, and start with the same numbers."""
    g = torch.Generator().manual_seed(0)
    model = RNNClassifier(28, H, Q, generator=g)
    again = torch.Generator().manual_seed(0)
    expected = {
        "rnn.W_xh": nn.init.xavier_uniform_(torch.empty(28, H), generator=again),
        "rnn.W_hh": nn.init.xavier_uniform_(torch.empty(H, H), generator=again),
        "rnn.b_h": torch.zeros(H),
        "W_hq": nn.init.xavier_uniform_(torch.empty(H, Q), generator=again),
        "b_q": torch.zeros(Q),
    }
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    # and nothing else was drawn
    assert torch.equal(torch.rand(3, generator=g), torch.rand(3, generator=again))


def test_the_readout_is_the_last_state_or_the_mean(generator):
    images = torch.rand(BATCH, 28, 28, generator=generator)
    for readout in ("last", "mean"):
        model = RNNClassifier(h=H, bidirectional=True, readout=readout)
        states, last = model.rnn(as_sequence(images, 28))
        read = last if readout == "last" else states.mean(0)
        torch.testing.assert_close(model(images), read @ model.W_hq + model.b_q)
    with pytest.raises(ValueError, match="readout must be 'last' or 'mean', got 'max'"):
        RNNClassifier(readout="max")


def test_the_options_reach_every_layer(generator):
    model = RNNClassifier(
        h=H, layers=2, activation="relu", init=orthogonal_, learnable_h0=True
    )
    for (layer,) in model.rnn.layers:
        assert layer.activation == "relu"
        torch.testing.assert_close(layer.W_hh @ layer.W_hh.T, torch.eye(H))
        assert layer.h_0.shape == (H,)


def test_pixels_come_in_the_order_in_which_one_reads():
    images = torch.arange(2 * 12.0).view(2, 3, 4)
    rows = as_sequence(images, 4)
    assert rows[1].tolist() == images[:, 1].tolist()
    pixels = as_sequence(images, 1)
    assert pixels[5].flatten().tolist() == [5.0, 17.0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 28, 28), r"images must be .* got \(0, 28, 28\)"),
        (torch.zeros(3, 28), r"got \(3, 28\)"),
        (torch.zeros(3, 5, 5), r"steps of 28 pixels .* got \(3, 5, 5\)"),
        (torch.zeros(3, 28, 21), r"steps of 28 pixels .* got \(3, 28, 21\)"),
        (torch.full((3, 28, 28), torch.nan), "finite, got NaN or infinity in image 0"),
        (torch.stack([torch.zeros(28, 28), torch.full((28, 28), torch.inf)]), "age 1"),
    ],
)
def test_bad_images(images, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(as_sequence)(images, 28)


def test_dropout_is_one_mask_for_all_steps_and_keeps_the_mean(generator):
    X = torch.ones(TIME, BATCH, 997)
    dropped = dropout(X, 0.3, generator)
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
    # within 5 standard errors
    error = (0.3 / 0.7 / (BATCH * 997)) ** 0.5
    assert dropped[0].mean().item() == pytest.approx(1, abs=5 * error)
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\), got 1"):
        dropout(X, 1.0)


def test_dropout_is_for_training_and_from_the_generator(generator):
    images = torch.rand(BATCH, 28, 28, generator=generator)
    model = RNNClassifier(h=H, layers=2, dropout=0.5, generator=generator)
    generator.manual_seed(1)
    first = model(images)
    assert not torch.equal(model(images), first)
    generator.manual_seed(1)
    assert torch.equal(model(images), first)
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_of_torch_starts_from_the_generator_alone(cell):
    before = torch.get_rng_state()
    first, second = (
        TorchClassifier(cell, h=H, generator=torch.Generator().manual_seed(0))
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    bound = H**-0.5
    for parameter in first.rnn.parameters():
        assert 0.5 * bound < parameter.abs().max() <= bound
    assert first(torch.zeros(BATCH, 28, 28)).shape == (BATCH, 10)


def test_an_unknown_cell():
    with pytest.raises(ValueError, match="cell must be one of rnn, lstm, gru, got 'lt"):
        TorchClassifier("ltsm")
