"""The classifier in whose features samples of a diffusion model are judged."""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from dian import data
from dian.diffusion.feature_network import ConvNet
from dian.experiments.classification import Split, classify, read, smoke_settings
from dian.runs.experiment import Experiment, Outcome
from dian.training.augmentation import random_horizontal_flip, random_shift
from dian.training.clipping import clip_by_norm
from dian.training.loop import OPTIMIZERS
from dian.training.schedules import SCHEDULES


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen; images are flipped, and shifted by ``shifts``."""

    shifts: int = 1
    smoothing: float = 0.0
    batch_size: int = 128
    clip: float = 1.0
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    epochs: int = 15
    schedule: str = "one-cycle"


def augment(images: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    """Change the images of a batch as the settings say."""
    return random_shift(
        random_horizontal_flip(images, generator), settings.shifts, generator
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
    """Train one network; everything random comes from the seed."""
    generator = torch.Generator().manual_seed(seed)
    model = ConvNet(generator=generator).to(device, dtype)
    optimizer = OPTIMIZERS[settings.optimizer]
    return classify(
        model,
        split,
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
        after_step=after_step,
        checkpoint=checkpoint,
    )


EXPERIMENTS = (
    Experiment(
        name="feature-classifier",
        settings=Settings(),
        quick=replace(Settings(), epochs=2, batch_size=32),
        data=read,
        checksums=data.CHECKSUMS,
        run=run,
        smoke_settings=smoke_settings,
        n_seed=1,  # its weights are a yardstick; nothing is claimed of its recipe
    ),
)
