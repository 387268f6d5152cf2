"""The classifier in whose features the samples of a diffusion model are evaluated."""

from dataclasses import dataclass

import torch

from dian.diffusion.feature_network import ConvNet
from dian.experiments.classification import Recipe, classifiers


@dataclass(frozen=True)
class Settings(Recipe):
    """The hyperparameters; images are mirrored at random."""

    flips = True  # no field: the record was made without it

    shifts: int = 1
    smoothing: float = 0.0
    batch_size: int = 128
    clip: float = 1.0
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    epochs: int = 15
    schedule: str = "one-cycle"


def network(settings: Settings, generator: torch.Generator | None = None) -> ConvNet:
    """Build the network."""
    return ConvNet(generator=generator)


EXPERIMENTS = classifiers(
    network,
    {"feature-classifier": Settings()},
    quick={"epochs": 2, "batch_size": 32},
    n_seed=1,  # its weights define a distance; nothing is claimed about its recipe
)
