"""The best plain recurrent network, and candidates that differ in one choice.

A candidate is trained once on the first 50,000 training images and evaluated on the
last 10,000, so that the hyperparameters are chosen without the test images. The best
network is trained on all 60,000, with five seeds.
"""

from dataclasses import dataclass, replace

import torch

from dian.experiments.classification import Recipe, classifiers
from dian.rnn.initialization import INITS
from dian.rnn.networks import RNNClassifier


@dataclass(frozen=True)
class Settings(Recipe):
    """The hyperparameters."""

    h: int = 128
    layers: int = 2
    bidirectional: bool = True
    activation: str = "tanh"
    init: str = "orthogonal"
    readout: str = "mean"
    dropout: float = 0.1
    smoothing: float = 0.0
    flips: bool = True
    shifts: int = 1
    batch_size: int = 128
    clip: float = 1.0
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    epochs: int = 30
    schedule: str = "one-cycle"
    held_out: int = 0


def network(
    settings: Settings, generator: torch.Generator | None = None
) -> RNNClassifier:
    """Build the network."""
    return RNNClassifier(
        28,
        settings.h,
        10,
        num_layers=settings.layers,
        bidirectional=settings.bidirectional,
        activation=settings.activation,
        init=INITS[settings.init],
        readout=settings.readout,
        dropout=settings.dropout,
        generator=generator,
    )


BEST = Settings()
CANDIDATE = replace(BEST, held_out=10_000)
CANDIDATES = {
    "rnn-best-candidate": CANDIDATE,
    "rnn-best-candidate-relu": replace(CANDIDATE, activation="relu"),
    "rnn-best-candidate-last": replace(CANDIDATE, readout="last"),
    "rnn-best-candidate-forward": replace(CANDIDATE, bidirectional=False),
    "rnn-best-candidate-smoothed": replace(CANDIDATE, smoothing=0.1),
    "rnn-best-candidate-plain": replace(CANDIDATE, flips=False, shifts=0, dropout=0.0),
}
QUICK = {"h": 32, "epochs": 3}
EXPERIMENTS = (
    *classifiers(network, {"rnn-best": BEST}, quick=QUICK),
    *classifiers(network, CANDIDATES, quick=QUICK, n_seed=1),
)
