"""`dian.rnn.networks` against torch's own networks, and at its edges."""

import inspect

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from dian.experiments.rnn.torch_layers import CELLS, TorchClassifier
from dian.rnn.initialization import orthogonal_
from dian.rnn.networks import (
    RNNClassifier,
    StackedRNN,
    as_sequence,
)
from dian.rnn.recurrence import state_at_end
from dian.runs.record import load

TIME, BATCH, D, H, Q = 7, 5, 3, 11, 2
LENGTHS = torch.tensor([7, 2, 5, 1, 3])


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
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "padded"])
def test_a_stack_equals_torch(generator, layers, bidirectional, activation, lengths):
    """Outputs, last states, and the gradients of every weight and of the inputs."""
    options = {"num_layers": layers, "bidirectional": bidirectional}
    ours = StackedRNN(D, H, activation=activation, generator=generator, **options)
    ours = ours.double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    theirs = peer_of(ours, D, layers, bidirectional, activation)
    X = torch.randn(TIME, BATCH, D, generator=generator, dtype=torch.float64)
    inputs = [X.clone().requires_grad_() for _ in range(2)]
    states, last = ours(inputs[0], lengths)
    if lengths is None:
        output, h_n = theirs(inputs[1])
    else:
        packed = pack_padded_sequence(inputs[1], lengths, enforce_sorted=False)
        packed, h_n = theirs(packed)
        output, _ = nn.utils.rnn.pad_packed_sequence(packed, total_length=TIME)
        states = states.where((output != 0).any(-1, keepdim=True), 0)
    top = torch.cat(h_n.unbind()[-(2 if bidirectional else 1) :], -1)
    close = {"rtol": 1e-9, "atol": 1e-10}
    torch.testing.assert_close(states, output, **close)
    torch.testing.assert_close(last, top, **close)

    G = torch.randn(states.shape, generator=generator, dtype=torch.float64)
    for a, b in ((states, last), (output, top)):
        ((a * G).sum() + b.square().sum()).backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, **close)
    expected = dict(theirs.named_parameters())
    for n, directions in enumerate(ours.layers):
        for layer, end in zip(directions, ("", "_reverse"), strict=False):
            for found, name in (
                (layer.W_xh.grad.T, f"weight_ih_l{n}{end}"),
                (layer.W_hh.grad.T, f"weight_hh_l{n}{end}"),
                (layer.b_h.grad, f"bias_ih_l{n}{end}"),
            ):
                torch.testing.assert_close(found, expected[name].grad, **close)


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_does_not_matter(generator, readout, bidirectional):
    """The logits of a padded batch are those of each sequence alone."""
    options = {"bidirectional": bidirectional, "readout": readout}
    model = RNNClassifier(D, H, Q, generator=generator, **options)
    x = torch.randn(BATCH, TIME, D, generator=generator)
    found = model(x, lengths=LENGTHS)
    alone = [model(x[i : i + 1, :n]) for i, n in enumerate(LENGTHS.tolist())]
    torch.testing.assert_close(found, torch.cat(alone))
    assert not torch.allclose(found, model(x))


def test_the_initialization_of_a_recorded_network():
    """Parameters in the order and with the numbers of the records' generator."""
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


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("rnn-fashion-mnist", lambda h: RNNClassifier(28, h, 10)),
        ("torch-lstm", lambda h: TorchClassifier("lstm", 28, h, 10)),
    ],
)
def test_the_weights_of_a_record_fit(name, build):
    record = load(name)
    model = build(record.settings["h"])
    found = {key: value.shape for key, value in record.weights.items()}
    assert found == {key: value.shape for key, value in model.state_dict().items()}


def test_the_readout_is_the_last_state_or_the_mean(generator):
    images = torch.rand(BATCH, 28, 28, generator=generator)
    for readout in ("last", "mean"):
        model = RNNClassifier(28, H, Q, bidirectional=True, readout=readout)
        states, last = model.rnn(images.transpose(0, 1))
        read = last if readout == "last" else states.mean(0)
        torch.testing.assert_close(model(images), read @ model.W_hq + model.b_q)


def test_the_options_reach_every_layer():
    options = {"activation": "relu", "init": orthogonal_, "learnable_h0": True}
    model = RNNClassifier(28, H, Q, num_layers=2, **options)
    for (layer,) in model.rnn.layers:
        assert layer.activation == "relu"
        torch.testing.assert_close(layer.W_hh @ layer.W_hh.T, torch.eye(H))
        assert layer.h_0.shape == (H,)


def test_images_are_cut_in_reading_order():
    images = torch.arange(2 * 12.0).view(2, 3, 4)
    assert torch.equal(as_sequence(images, 4), images)
    assert as_sequence(images, 2)[1, 3].tolist() == [18.0, 19.0]
    assert as_sequence(images, 12)[1].tolist() == [list(range(12, 24))]


def test_dropout_shares_a_mask_over_time(generator):
    """Between two layers that pass their inputs on, all steps lose the same units."""
    network = StackedRNN(H, H, num_layers=2, dropout=0.4, generator=generator)
    for (layer,), *_ in zip(network.layers, strict=True):
        nn.init.zeros_(layer.W_hh)
        nn.init.eye_(layer.W_xh)
    states, _ = network(torch.ones(TIME, BATCH, H))
    assert torch.equal(states, states[:1].expand_as(states))
    assert 0 < (states[0] == 0).float().mean() < 1
    network.eval()
    states, _ = network(torch.ones(TIME, BATCH, H))
    torch.testing.assert_close(states, torch.full_like(states, 1.0).tanh().tanh())


def test_dropout_is_for_training_and_from_the_generator(generator):
    images = torch.rand(BATCH, 28, 28, generator=generator)
    model = RNNClassifier(28, H, Q, dropout=0.5, generator=generator)
    generator.manual_seed(1)
    first = model(images)
    assert not torch.equal(model(images), first)
    generator.manual_seed(1)
    assert torch.equal(model(images), first)
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_of_torch_is_initialized_by_the_generator_alone(cell):
    before = torch.get_rng_state()
    first, second = (
        TorchClassifier(cell, D, H, Q, generator=torch.Generator().manual_seed(0))
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    bound = H**-0.5
    for parameter in first.rnn.parameters():
        assert 0.5 * bound < parameter.abs().max() <= bound
    x = torch.ones(BATCH, TIME, D)
    expected = first.rnn(x.transpose(0, 1))[0][-1] @ first.W_hq + first.b_q
    torch.testing.assert_close(first(x), expected)


def classify(model, x, lengths=None):
    # Without the shape checks of the tests, so that this is what a user sees.
    return inspect.unwrap(type(model).forward)(
        model, x, *[lengths][: lengths is not None]
    )


MODEL, PEER = RNNClassifier(3, H, Q), TorchClassifier("gru", 3, H, Q)
ONES, NAN = torch.ones(4, 30, 3), torch.full((4, 30, 3), torch.nan)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: classify(MODEL, torch.ones(4, 30, 6)),
            r"\(batch, time, 3\).* 30, 6\)",
        ),
        (lambda: classify(PEER, torch.ones(4, 30, 6)), r"\(batch, time, 3\).* 30, 6\)"),
        (lambda: classify(MODEL, torch.ones(4, 3)), r"got \(4, 3\)"),
        (lambda: classify(MODEL, torch.ones(0, 30, 3)), "none empty"),
        (lambda: classify(MODEL, ONES.byte()), "floating-point numbers, got torch.uin"),
        (
            lambda: classify(MODEL, NAN),
            r"x must be finite, got NaN or infinity in x\[0\]",
        ),
        (lambda: classify(PEER, NAN), "x must be finite"),
        (lambda: at_end(torch.tensor([30, 30, 30])), "be 4 numbers from 1 to 30"),
        (lambda: classify(MODEL, ONES, torch.tensor([0, 1, 1, 1])), "from 1 to 30"),
        (lambda: at_end(torch.tensor([31, 1, 1, 1])), "from 1 to 30, .* got"),
        (lambda: at_end([1, 2, 3, 4]), r"lengths must be a tensor, got \[1, 2, 3, 4\]"),
        (lambda: RNNClassifier(3, H, Q, num_layers=0), "num_layers .* at least 1, got"),
        (lambda: RNNClassifier(3, H, Q, dropout=5.0), r"dropout .* \[0, 1\), got 5.0"),
        (lambda: StackedRNN(3, H, num_layers=0), "num_layers .* at least 1, got 0"),
        (lambda: RNNClassifier(3, H, Q, init="foo"), "such as uniform_, .* got 'foo'"),
        (lambda: RNNClassifier(3, H, Q, readout="max"), "one of last, mean, got 'max'"),
        (lambda: TorchClassifier("ltsm", 3, H, Q), "rnn, lstm, gru, got 'ltsm'"),
        (lambda: cut(torch.zeros(0, 28, 28)), r"images must be .* got \(0, 28, 28\)"),
        (lambda: cut(torch.zeros(3, 28)), r"got \(3, 28\)"),
        (lambda: cut(torch.zeros(3, 5, 5)), r"steps of 28 pixels .* got \(3, 5, 5\)"),
        (lambda: cut(torch.zeros(3, 28, 21)), r"steps of 28 pixels .* got \(3, 28, 21"),
    ],
)
def test_wrong_arguments(as_users_run, call, message):
    with pytest.raises(ValueError, match=message):
        call()


def cut(images):
    return inspect.unwrap(as_sequence)(images, 28)


def at_end(lengths):
    return inspect.unwrap(state_at_end)(ONES.transpose(0, 1), lengths)


def test_one_layer_one_step_and_one_image_are_enough():
    assert len(StackedRNN(D, H).layers) == 1
    network = StackedRNN(D, H, num_layers=2, dropout=0.5)
    states, last = network(torch.ones(1, BATCH, D))
    assert torch.equal(states[0], last)
    assert as_sequence(torch.zeros(1, 4, 6), 3).shape == (1, 8, 3)
