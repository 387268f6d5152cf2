"""Ablations of the network of the study, and PyTorch's layers in its place."""

from dataclasses import dataclass

import torch
from torch import nn

from dian.experiments.classification import Recipe, classifiers
from dian.experiments.rnn.torch_layers import TorchClassifier
from dian.rnn.initialization import INITS
from dian.rnn.networks import RNNClassifier

# The record of `rnn-logistic` was made when the sigmoid had another name.
ACTIVATION_NAMES = {"logistic": "sigmoid"}


@dataclass(frozen=True)
class Settings(Recipe):
    """As in the study; ``cell`` may name a layer of torch, ``clip`` may be None."""

    cell: str = "dian"
    activation: str = "tanh"
    init: str = "xavier"
    h: int = 128
    batch_size: int = 256
    clip: float | None = 1.0
    learning_rate: float = 0.2
    epochs: int = 30
    schedule: str = "cosine"


def network(settings: Settings, generator: torch.Generator | None = None) -> nn.Module:
    """Build the network: ours, or one with a layer of torch and its initialization."""
    if settings.cell != "dian":
        return TorchClassifier(settings.cell, 28, settings.h, 10, generator=generator)
    return RNNClassifier(
        28,
        settings.h,
        10,
        activation=ACTIVATION_NAMES.get(settings.activation, settings.activation),
        init=INITS[settings.init],
        generator=generator,
    )


EXPERIMENTS = classifiers(
    network,
    {
        "rnn-no-clipping": Settings(clip=None),
        "rnn-relu": Settings(activation="relu"),
        "rnn-logistic": Settings(activation="logistic"),
        "rnn-orthogonal": Settings(init="orthogonal"),
        "torch-rnn": Settings(cell="rnn"),
        "torch-lstm": Settings(cell="lstm"),
        "torch-gru": Settings(cell="gru"),
    },
    quick={"epochs": 2, "batch_size": 32},
)
