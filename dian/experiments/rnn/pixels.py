"""Long-term dependencies: each image as a sequence of 784 pixels.

Le, Jaitly and Hinton, *A simple way to initialize recurrent networks of rectified
linear units*, 2015, arXiv:1504.00941, did so with MNIST. The full runs are meant for a
GPU; those called ``small`` see fewer images in fewer epochs, and are meant for a CPU.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from dian.experiments.classification import Recipe, classifiers, smoke_settings
from dian.rnn.initialization import INITS
from dian.rnn.networks import RNNClassifier, as_sequence


@dataclass(frozen=True)
class Settings(Recipe):
    """The hyperparameters.

    ``input_scale`` multiplies the initial input weights: where nothing is forgotten,
    784 pixels add up.
    """

    activation: str = "tanh"
    init: str = "xavier"
    input_scale: float = 1.0
    h: int = 128
    images: int = 60_000
    batch_size: int = 128
    clip: float = 1.0
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    epochs: int = 60
    schedule: str = "cosine"


class PixelClassifier(RNNClassifier):
    """A classifier of images that reads one pixel at each step."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of each image."""
        return super().forward(as_sequence(images, d=1))


def network(
    settings: Settings, generator: torch.Generator | None = None
) -> PixelClassifier:
    """Build the network."""
    model = PixelClassifier(
        1,
        settings.h,
        10,
        activation=settings.activation,
        init=INITS[settings.init],
        generator=generator,
    )
    with torch.no_grad():
        model.rnn.W_xh *= settings.input_scale
    return model


FULL = {
    "rnn-pixels-tanh": Settings(),
    "rnn-pixels-orthogonal": Settings(init="orthogonal"),
    # With the learning rate of the others its loss jumps to hundreds, and stays there.
    "rnn-pixels-identity": Settings(
        activation="relu", init="identity", input_scale=0.01, learning_rate=1e-4
    ),
}
SMALL = {
    f"{name}-small": replace(settings, h=64, images=10_000, epochs=20)
    for name, settings in FULL.items()
}
EXPERIMENTS = classifiers(
    network,
    FULL | SMALL,
    quick={"h": 16, "images": 1_000, "batch_size": 100, "epochs": 1},
    # Through 784 time steps rounding errors grow tenfold with every one or two steps of
    # training: from 1e-16 to 1e-11 in twelve steps, and to 1e-4 in fifty.
    smoke_settings=partial(smoke_settings, n_batch=6),
)
