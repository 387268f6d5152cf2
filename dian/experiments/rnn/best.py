"""The best plain recurrent network, and recipes that differ from it in one thing.

A candidate is trained once on the first 50,000 training images and judged on the last
10,000, so that a recipe can be chosen without the test images. The best network is
trained on all 60,000, with five seeds; how it does on the test images changes nothing.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from dian import data
from dian.experiments.classification import (
    Split,
    classify,
    hold_out,
    read,
    smoke_settings,
)
from dian.rnn.initialization import INITS
from dian.rnn.networks import RNNClassifier
from dian.runs.experiment import Experiment, Outcome
from dian.training.augmentation import random_horizontal_flip, random_shift
from dian.training.clipping import clip_by_norm
from dian.training.loop import OPTIMIZERS
from dian.training.schedules import SCHEDULES


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen; images are flipped, and shifted by ``shifts``."""

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


def augment(images: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    """Change the images of a batch as the settings say."""
    if settings.flips:
        images = random_horizontal_flip(images, generator)
    return random_shift(images, settings.shifts, generator)


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
    """Train one network; everything random comes from the seed."""
    generator = torch.Generator().manual_seed(seed)
    model = RNNClassifier(
        h=settings.h,
        layers=settings.layers,
        bidirectional=settings.bidirectional,
        activation=settings.activation,
        init=INITS[settings.init],
        readout=settings.readout,
        dropout=settings.dropout,
        generator=generator,
    ).to(device, dtype)
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
        smoothing=settings.smoothing,
        augment=partial(augment, settings=settings, generator=generator),
        judged="validation" if settings.held_out else "test",
        after_step=after_step,
        checkpoint=checkpoint,
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


def _experiment(name: str, settings: Settings, n_seed: int) -> Experiment:
    return Experiment(
        name=name,
        settings=settings,
        quick=replace(
            settings, h=32, epochs=3, held_out=200 if settings.held_out else 0
        ),
        data=read,
        checksums=data.CHECKSUMS,
        run=run,
        smoke_settings=smoke_settings,
        n_seed=n_seed,
    )


EXPERIMENTS = (
    _experiment("rnn-best", BEST, 5),
    *(_experiment(name, settings, 1) for name, settings in CANDIDATES.items()),
)
