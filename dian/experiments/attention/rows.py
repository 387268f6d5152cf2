"""A transformer that reads an image as 28 rows: with and without their positions."""

from dataclasses import dataclass, replace
from functools import partial

import torch

from dian import data
from dian.attention.transformer import RowTransformer
from dian.experiments.classification import (
    Split,
    classify,
    hold_out,
    read,
    smoke_settings,
)
from dian.positions.registry import encoding
from dian.runs.experiment import Experiment, Outcome
from dian.training.clipping import clip_by_norm
from dian.training.loop import OPTIMIZERS
from dian.training.schedules import SCHEDULES


@dataclass(frozen=True)
class Settings:
    """Two small layers; ``held_out`` training images are judged instead of the test."""

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


def network(settings: Settings, generator: torch.Generator) -> RowTransformer:
    """Make the network, with our own backward pass of attention."""
    shape = {"d_model": settings.d_model, "n_head": settings.n_head}
    of_rows = encoding(settings.encoding, **shape, generator=generator)
    return RowTransformer(
        **shape, n_layer=settings.n_layer, generator=generator, **of_rows
    )


def run(
    settings: Settings,
    split: Split,
    seed: int,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    after_step=None,
    checkpoint=None,
) -> Outcome:
    """Train one network; start weights and order of the data come from the seed."""
    generator = torch.Generator().manual_seed(seed)
    model = network(settings, generator).to(device, dtype)
    optimizer = OPTIMIZERS[settings.optimizer]
    return classify(
        model,
        hold_out(split, settings.held_out) if settings.held_out else split,
        device,
        dtype,
        optimizer=optimizer(model.parameters(), lr=settings.learning_rate),
        schedule=SCHEDULES[settings.schedule],
        clip=partial(clip_by_norm, max_norm=settings.clip),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        generator=generator,
        judged="validation" if settings.held_out else "test",
        after_step=after_step,
        checkpoint=checkpoint,
    )


EXPERIMENTS = tuple(
    Experiment(
        name=f"rows-{name}",
        settings=Settings(name),
        quick=replace(Settings(name), epochs=2, batch_size=32),
        data=read,
        checksums=data.CHECKSUMS,
        run=run,
        smoke_settings=smoke_settings,
    )
    for name in ("none", "sinusoidal", "rotary")
)
