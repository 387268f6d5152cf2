"""A long memory is needed: each image as 784 steps of one pixel.

Le, Jaitly and Hinton, *A simple way to initialize recurrent networks of rectified
linear units*, 2015, arXiv:1504.00941, did so with MNIST. The full runs are meant for a
GPU; those called ``small`` see fewer images less often, and are meant for a CPU.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch

from dian import data
from dian.experiments.classification import (
    Split,
    classify,
    read,
    smoke_settings,
    subset,
)
from dian.rnn.initialization import INITS
from dian.rnn.networks import RNNClassifier
from dian.runs.experiment import Experiment, Outcome
from dian.training.clipping import clip_by_norm
from dian.training.loop import OPTIMIZERS
from dian.training.schedules import SCHEDULES


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen.

    ``images`` is how many are trained on. ``input_scale`` shortens the start of the
    input weights: where nothing is forgotten, 784 pixels add up.
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
    model = RNNClassifier(
        d=1,
        h=settings.h,
        activation=settings.activation,
        init=INITS[settings.init],
        generator=generator,
    ).to(device, dtype)
    with torch.no_grad():
        model.rnn.W_xh *= settings.input_scale
    optimizer = OPTIMIZERS[settings.optimizer]
    train, test = split
    return classify(
        model,
        (subset(train, slice(settings.images)), test),
        device,
        dtype,
        optimizer=optimizer(model.parameters(), lr=settings.learning_rate),
        schedule=SCHEDULES[settings.schedule],
        clip=partial(clip_by_norm, max_norm=settings.clip),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        generator=generator,
        after_step=after_step,
        checkpoint=checkpoint,
    )


def few_steps(settings: Settings, split: Split) -> tuple[Settings, Split]:
    """Make a whole run small, for a replay: two epochs of six steps each.

    Through 784 time steps rounding grows tenfold with each or every other step of
    training: from 1e-16 to 1e-11 in these twelve, and to 1e-4 in fifty.
    """
    small, (train, test) = smoke_settings(settings, split)
    return small, (subset(train, slice(6 * settings.batch_size - 1)), test)


STARTS = {
    "rnn-pixels-tanh": Settings(),
    "rnn-pixels-orthogonal": Settings(init="orthogonal"),
    # At the rate of the others its loss leaps to hundreds, and it learns nothing.
    "rnn-pixels-identity": Settings(
        activation="relu", init="identity", input_scale=0.01, learning_rate=1e-4
    ),
}


def _experiment(name: str, settings: Settings) -> Experiment:
    return Experiment(
        name=name,
        settings=settings,
        quick=replace(settings, h=16, images=1_000, batch_size=100, epochs=1),
        data=read,
        checksums=data.CHECKSUMS,
        run=run,
        smoke_settings=few_steps,
    )


EXPERIMENTS = tuple(
    experiment
    for name, full in STARTS.items()
    for experiment in (
        _experiment(name, full),
        _experiment(f"{name}-small", replace(full, h=64, images=10_000, epochs=20)),
    )
)
