"""The network of the study: a recurrent network reads Fashion-MNIST row by row."""

from dataclasses import dataclass

import torch

from dian.experiments.classification import Recipe, classifiers
from dian.rnn.networks import RNNClassifier


@dataclass(frozen=True)
class Settings(Recipe):
    """The hyperparameters; the optimizer is SGD without momentum."""

    h: int = 128
    batch_size: int = 256
    clip: float = 1.0
    learning_rate: float = 0.2
    epochs: int = 30
    schedule: str = "cosine"


def network(
    settings: Settings, generator: torch.Generator | None = None
) -> RNNClassifier:
    """Build the network."""
    return RNNClassifier(28, settings.h, 10, generator=generator)


EXPERIMENTS = classifiers(
    network,
    {"rnn-fashion-mnist": Settings()},
    # An epoch of the sample, 1,000 images, would be four batches of 256.
    quick={"epochs": 5, "batch_size": 32},
)
