"""Chapter 1: dropout."""

import torch

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest
from dian.rnn import networks
from dian.training import dropout

RATE, N = 0.3, 99_991
"""0.3 and not one half, which would hide that the rate is exchanged for its rest."""


@claim(
    "R23",
    "Dropout",
    equations=("eq-dropout",),
    kinds="E M",
    tolerance=5.0,
    source="Srivastava et al., Dropout: a simple way to prevent neural networks from "
    "overfitting, 2014, with the scaling in training; Gal and Ghahramani, 2016, "
    "arXiv:1512.05287, for one mask at all timesteps",
    assumptions="masks from the generator, independent of the features. The residual "
    "counts standard errors",
    subjects=(dropout, networks),
    mutants=(
        Mutant("what is kept is not scaled", "dropout_mask",
               "kept.to(like) / (1 - rate)", "kept.to(like)"),
        Mutant("scaled by the rate", "dropout_mask",
               "kept.to(like) / (1 - rate)", "kept.to(like) / rate"),
        Mutant("kept with the probability of being dropped", "dropout_mask",
               "torch.rand(like.shape, generator=generator, device=device) >= rate",
               "torch.rand(like.shape, generator=generator, device=device) < rate"),
        Mutant("the same draw for all features", "dropout_mask",
               "torch.rand(like.shape, generator=generator, device=device)",
               "torch.rand((), generator=generator, device=device).expand(like.shape)"),
        Mutant("a mask of its own for every timestep", "StackedRNN.forward",
               "dropout_mask(X[0], self.dropout, self.generator)",
               "dropout_mask(X, self.dropout, self.generator)", module=networks),
        Mutant("dropout between layers in evaluation", "StackedRNN.forward",
               "n and self.dropout and self.training", "n and self.dropout",
               module=networks),
        Mutant("no dropout between layers", "StackedRNN.forward",
               "n and self.dropout and self.training", "False", module=networks),
        Mutant("the inputs are dropped, too", "StackedRNN.forward",
               "n and self.dropout and self.training",
               "self.dropout and self.training", module=networks),
        Mutant("dropout before the output layer in evaluation", "RNNClassifier.forward",
               "self.dropout and self.training", "self.dropout", module=networks),
        Mutant("no dropout before the output layer", "RNNClassifier.forward",
               "self.dropout and self.training", "False", module=networks),
    ),
)  # fmt: skip
def masks() -> float:
    """Two values in the right shares, independent; and where a network applies them."""
    like = torch.empty(N, dtype=torch.float64)
    factors = dropout.dropout_mask(like, RATE, torch.Generator().manual_seed(0))
    zeros = (factors == 0).double()
    # of the share of zeros, and of the correlation of neighbours
    error = (RATE * (1 - RATE) / N) ** 0.5
    neighbours = (zeros[1:] - RATE) @ (zeros[:-1] - RATE) / (RATE * (1 - RATE))
    return largest(
        [
            abs(zeros.mean() - RATE) / error,
            # the mean of a factor is 1
            abs(factors.mean() - 1) / (RATE / (1 - RATE) / N) ** 0.5,
            abs(neighbours) / N**0.5,
            holds(bool(((zeros > 0) | ((factors * 0.7 - 1).abs() < 1e-12)).all())),
            in_a_network(),
        ]
    )


def in_a_network(h: int = 409, n: int = 11) -> float:
    """Two layers that pass features on, so that the logits count what was dropped."""
    generator = torch.Generator().manual_seed(0)
    model = networks.RNNClassifier(
        h, h, h, num_layers=2, dropout=RATE, activation="identity", generator=generator
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for (layer,) in model.rnn.layers:
            layer.W_xh.copy_(torch.eye(h))
        model.W_hq.copy_(torch.eye(h))
        ones = torch.ones(n, 3, h)
        states, _ = model.rnn(ones.transpose(0, 1))
        logits = model(ones).double()
        model.eval()
        evaluated = model(ones)
    one, error = states[0] * 0.7, (2 * RATE * (1 - RATE) / (n * h)) ** 0.5
    # Kept between the layers and before the output: with probability 0.7 each.
    kept_twice = (logits > 0).double().mean() - 0.7**2
    return largest(
        [
            holds(torch.equal(states, states[:1].expand_as(states))),
            holds(bool(((one == 0) | ((one - 1).abs() < 1e-6)).all())),
            holds(torch.equal(evaluated, torch.ones_like(evaluated))),
            abs((one == 0).double().mean() - RATE) / error,
            abs(kept_twice) / error,
            holds(bool(((logits == 0) | ((logits * 0.49 - 1).abs() < 1e-6)).all())),
        ]
    )
