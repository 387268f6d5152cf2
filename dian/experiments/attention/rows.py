"""A transformer that reads an image as 28 rows, with and without encoded positions."""

from dataclasses import dataclass

import torch

from dian.attention.transformer import RowTransformer
from dian.experiments.classification import Recipe, classifiers
from dian.positions.registry import encoding


@dataclass(frozen=True)
class Settings(Recipe):
    """The hyperparameters."""

    encoding: str
    d_model: int = 64
    n_head: int = 4
    n_layer: int = 2
    batch_size: int = 256
    clip: float = 1.0
    optimizer: str = "adamw"
    learning_rate: float = 4e-3
    epochs: int = 8
    schedule: str = "one-cycle"
    held_out: int = 0


def network(
    settings: Settings, generator: torch.Generator | None = None
) -> RowTransformer:
    """Build the network, with our own backward pass of attention."""
    shape = {"d_model": settings.d_model, "n_head": settings.n_head}
    of_rows = encoding(settings.encoding, **shape, generator=generator)
    return RowTransformer(
        **shape, n_layer=settings.n_layer, generator=generator, **of_rows
    )


EXPERIMENTS = classifiers(
    network,
    {f"rows-{name}": Settings(name) for name in ("none", "sinusoidal", "rotary")},
    quick={"epochs": 2, "batch_size": 32},
)
