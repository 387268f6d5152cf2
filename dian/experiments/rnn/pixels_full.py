"""Pixel by pixel with all training images, on a CPU, and an LSTM for comparison.

The initializations are those of :mod:`dian.experiments.rnn.pixels`, in a network half
as wide as that of the runs for a GPU, and for fewer epochs.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from dian.experiments.classification import Recipe, classifiers, smoke_settings
from dian.experiments.rnn import pixels
from dian.experiments.rnn.gated_layers import GatedClassifier
from dian.rnn.networks import as_sequence


@dataclass(frozen=True)
class Settings(Recipe):
    """The hyperparameters; ``cell`` is ``rnn`` or that of a gated layer."""

    cell: str = "rnn"
    activation: str = "tanh"
    init: str = "orthogonal"
    input_scale: float = 1.0
    h: int = 64
    batch_size: int = 128
    clip: float = 1.0
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    epochs: int = 12
    schedule: str = "cosine"


class GatedPixelClassifier(GatedClassifier):
    """A classifier of images that reads one pixel at each step."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of each image."""
        return super().forward(as_sequence(images, d=1))


def network(settings: Settings, generator: torch.Generator | None = None) -> nn.Module:
    """Build the network."""
    if settings.cell == "rnn":
        shared = ("activation", "init", "input_scale", "h")
        options = {name: getattr(settings, name) for name in shared}
        return pixels.network(pixels.Settings(**options), generator)
    return GatedPixelClassifier(settings.cell, 1, settings.h, 10, generator=generator)


EXPERIMENTS = classifiers(
    network,
    {
        "rnn-pixels-full-orthogonal": Settings(),
        # The rest of its recipe is that of `rnn-pixels-identity`.
        "rnn-pixels-full-identity": Settings(
            activation="relu", init="identity", input_scale=0.01, learning_rate=1e-4
        ),
        "rnn-pixels-full-lstm": Settings(cell="lstm"),
    },
    quick={"h": 16, "batch_size": 100, "epochs": 1},
    n_seed=3,
    # Rounding errors grow with every step of training, see `rnn/pixels.py`.
    smoke_settings=partial(smoke_settings, n_batch=6),
)
