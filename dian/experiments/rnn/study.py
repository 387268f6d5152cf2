"""The study's network: a plain recurrent network reads Fashion-MNIST row by row."""

from dataclasses import dataclass, replace
from functools import partial

import torch

from dian import data
from dian.experiments.classification import Split, classify, read, smoke_settings
from dian.rnn.networks import RNNClassifier
from dian.runs.experiment import Experiment, Outcome
from dian.training.clipping import clip_by_norm
from dian.training.schedules import SCHEDULES


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen; the optimiser is SGD without momentum."""

    h: int = 128
    batch_size: int = 256
    clip: float = 1.0
    learning_rate: float = 0.2
    epochs: int = 30
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
    model = RNNClassifier(h=settings.h, generator=generator).to(device, dtype)
    return classify(
        model,
        split,
        device,
        dtype,
        optimizer=torch.optim.SGD(model.parameters(), lr=settings.learning_rate),
        schedule=SCHEDULES[settings.schedule],
        clip=partial(clip_by_norm, max_norm=settings.clip),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        generator=generator,
        after_step=after_step,
        checkpoint=checkpoint,
    )


EXPERIMENTS = (
    Experiment(
        name="rnn-fashion-mnist",
        settings=Settings(),
        # A sample of 1,000 images has four batches of 256 an epoch: smaller ones, so
        # that a trial of a few epochs learns something.
        quick=replace(Settings(), epochs=5, batch_size=32),
        data=read,
        checksums=data.CHECKSUMS,
        run=run,
        smoke_settings=smoke_settings,
    ),
)
