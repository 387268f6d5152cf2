"""The study's network with one thing changed, and torch's own layers in its place."""

from dataclasses import dataclass, replace
from functools import partial

import torch

from dian import data
from dian.experiments.classification import Split, classify, read, smoke_settings
from dian.rnn.initialization import INITS
from dian.rnn.networks import RNNClassifier, TorchClassifier
from dian.runs.experiment import Experiment, Outcome
from dian.training.clipping import clip_by_norm
from dian.training.schedules import SCHEDULES


@dataclass(frozen=True)
class Settings:
    """As in the study; ``clip`` may be nothing, ``cell`` may name a layer of torch."""

    cell: str = "dian"
    activation: str = "tanh"
    init: str = "xavier"
    h: int = 128
    batch_size: int = 256
    clip: float | None = 1.0
    learning_rate: float = 0.2
    epochs: int = 30
    schedule: str = "cosine"


# The record of `rnn-logistic` was made when the sigmoid had another name.
ACTIVATION_NAMES = {"logistic": "sigmoid"}


def network(settings: Settings, generator: torch.Generator) -> torch.nn.Module:
    """Make the network: ours, or one with a layer of torch, started as torch does."""
    if settings.cell != "dian":
        return TorchClassifier(settings.cell, h=settings.h, generator=generator)
    return RNNClassifier(
        h=settings.h,
        activation=ACTIVATION_NAMES.get(settings.activation, settings.activation),
        init=INITS[settings.init],
        generator=generator,
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
    clip = None
    if settings.clip is not None:
        clip = partial(clip_by_norm, max_norm=settings.clip)
    return classify(
        model,
        split,
        device,
        dtype,
        optimizer=torch.optim.SGD(model.parameters(), lr=settings.learning_rate),
        schedule=SCHEDULES[settings.schedule],
        clip=clip,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        generator=generator,
        after_step=after_step,
        checkpoint=checkpoint,
    )


VARIANTS = {
    "rnn-no-clipping": Settings(clip=None),
    "rnn-relu": Settings(activation="relu"),
    "rnn-logistic": Settings(activation="logistic"),
    "rnn-orthogonal": Settings(init="orthogonal"),
    "torch-rnn": Settings(cell="rnn"),
    "torch-lstm": Settings(cell="lstm"),
    "torch-gru": Settings(cell="gru"),
}

EXPERIMENTS = tuple(
    Experiment(
        name=name,
        settings=settings,
        quick=replace(settings, epochs=2, batch_size=32),
        data=read,
        checksums=data.CHECKSUMS,
        run=run,
        smoke_settings=smoke_settings,
    )
    for name, settings in VARIANTS.items()
)
