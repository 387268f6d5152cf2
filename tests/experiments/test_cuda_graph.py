"""The CUDA graph is replayed in training alone, and for one size of batch."""

import pytest
import torch
from torch import nn

from dian.experiments.cuda_graph import TrainingGraph


@pytest.fixture
def captured(monkeypatch):
    """Stand in for a GPU: remember what is captured, and mark what is replayed."""
    calls = []

    def capture(module, examples):
        calls.append([x.shape for x in examples])
        return lambda *inputs: module(*inputs) + 100

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    return calls


def test_one_graph_is_captured_and_replayed_in_training(captured):
    network, x = nn.Linear(3, 1), torch.ones(4, 3)
    graph = TrainingGraph(network)
    assert torch.equal(graph(x), network(x) + 100)
    assert torch.equal(graph(2 * x), network(2 * x) + 100)
    assert captured == [[(4, 3)]]


def test_other_calls_are_those_of_the_network(captured):
    network, x = nn.Linear(3, 1), torch.ones(4, 3)
    graph = TrainingGraph(network)
    graph(x)
    assert torch.equal(graph(x[:2]), network(x[:2]))  # the last batch of an epoch
    with torch.no_grad():
        assert torch.equal(graph(x), network(x))
    network.eval()
    assert torch.equal(graph(x), network(x))
    assert len(captured) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_replays_have_the_gradients_of_ordinary_calls():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).cuda()
    graph, found = TrainingGraph(network), {}
    for x in torch.randn(3, 4, 3, device="cuda"):
        for name, call in (("replayed", graph), ("ordinary", network)):
            network.zero_grad()
            call(x).square().sum().backward()
            found[name] = [p.grad.clone() for p in network.parameters()]
        torch.testing.assert_close(*found.values(), rtol=0, atol=1e-6)
