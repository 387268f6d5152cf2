"""Hyperparameters for networks that read an image row by row, and the best of them.

A candidate is trained once on the first 50,000 training images and evaluated on the
last 10,000, so that the hyperparameters are chosen without the test images. The chosen
ones are then used with all 60,000 images and several seeds, also with gated layers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dian.diffusion.ema import EMA
from dian.errors import require, require_one_of
from dian.experiments import classification
from dian.experiments.classification import Recipe, Split, classifiers
from dian.experiments.rnn.gated_layers import GatedClassifier
from dian.rnn.initialization import INITS
from dian.rnn.networks import RNNClassifier
from dian.runs.experiment import Experiment, Job, Outcome


@dataclass(frozen=True)
class Settings(Recipe):
    """The hyperparameters.

    ``cell`` is ``rnn``, ``gru`` or ``lstm``; ``activation`` is that of ``rnn``. What a
    step reads is named in :data:`READS`. ``erasing`` is the probability that a
    rectangle of an image is erased, ``ema`` the decay of the average of the weights,
    which is evaluated; 0 evaluates the weights themselves.
    """

    cell: str = "rnn"
    h: int = 128
    layers: int = 2
    bidirectional: bool = True
    activation: str = "tanh"
    init: str = "orthogonal"
    readout: str = "mean"
    reads: str = "row"
    dropout: float = 0.1
    smoothing: float = 0.0
    flips: bool = True
    shifts: int = 1
    erasing: float = 0.0
    ema: float = 0.0
    batch_size: int = 128
    clip: float = 1.0
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    epochs: int = 30
    schedule: str = "one-cycle"
    held_out: int = 0


def _with_columns(images: Tensor) -> Tensor:
    """Let step t read row t and column t."""
    return torch.cat([images, images.transpose(1, 2)], 2)


READS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "row": (28, lambda images: images),
    "row and column": (56, _with_columns),
}
"""What a step reads, the number of its pixels, and how they are arranged."""


class RowNetwork(nn.Module):
    """A recurrent classifier, and what it reads at each step of an image."""

    def __init__(self, classifier: nn.Module, arrange: Callable[[Tensor], Tensor]):
        super().__init__()
        self.classifier, self.arrange = classifier, arrange

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of each image."""
        return self.classifier(self.arrange(images))


def network(settings: Settings, generator: torch.Generator | None = None) -> RowNetwork:
    """Build the network."""
    require_one_of("reads", settings.reads, READS)
    n_in, arrange = READS[settings.reads]
    options = {
        "num_layers": settings.layers,
        "bidirectional": settings.bidirectional,
        "init": INITS[settings.init],
        "readout": settings.readout,
        "dropout": settings.dropout,
        "generator": generator,
    }
    if settings.cell == "rnn":
        options["activation"] = settings.activation
        classifier = RNNClassifier(n_in, settings.h, 10, **options)
    else:
        classifier = GatedClassifier(settings.cell, n_in, settings.h, 10, **options)
    return RowNetwork(classifier, arrange)


def random_erasing(
    images: Tensor, rate: float, generator: torch.Generator | None = None
) -> Tensor:
    """Set a random rectangle of some images to 0, with probability ``rate`` each.

    Its sides are a quarter to a half of those of the image. Zhong et al., *Random
    erasing data augmentation*, 2020, arXiv:1708.04896.

    >>> images = torch.ones(1, 8, 8)
    >>> erased = random_erasing(images, 1.0, torch.Generator().manual_seed(0))
    >>> 4 <= (erased == 0).sum() <= 16
    tensor(True)
    """
    require(0 <= rate <= 1, f"rate must be in [0, 1], got {rate}")
    n = len(images)
    chosen = torch.rand(n, generator=generator) < rate
    inside = chosen.to(images.device)[:, None, None]
    for axis, size in ((1, images.shape[1]), (2, images.shape[2])):
        sides = torch.randint(size // 4, size // 2 + 1, (n,), generator=generator)
        first = torch.rand(n, generator=generator) * (size - sides + 1)
        first, pixel = first.long()[:, None], torch.arange(size)
        covered = (pixel >= first) & (pixel < first + sides[:, None])
        shape = (n, size, 1) if axis == 1 else (n, 1, size)
        inside = inside & covered.view(shape).to(images.device)
    return images.masked_fill(inside, 0.0)


@dataclass
class RecipeJob(Job):
    """A job that erases rectangles in training, and evaluates the EMA weights."""

    erasing: float = 0.0
    ema: float = 0.0

    def follow(self, training: Any, **parts: Any):
        """Yield the steps; after an epoch, the network holds the average meanwhile."""
        if self.erasing:
            training.transform = self._erase(training.transform, training.generator)
        if not self.ema:
            yield from super().follow(training, **parts)
            return
        named = dict(training.model.named_parameters())
        ema = EMA(named.items(), self.ema)
        for step in super().follow(training, ema=ema, **parts):
            ema.update(named.items())
            if step.epoch_loss is None:
                yield step
                continue
            trained = {name: p.detach().clone() for name, p in named.items()}
            _copy(ema.average, named)
            yield step
            if step.number < step.total:  # the last average is the result
                _copy(trained, named)

    def _erase(self, transform: Callable, generator: torch.Generator) -> Callable:
        def erase(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            images, labels = transform(images, labels)
            return random_erasing(images, self.erasing, generator), labels

        return erase


@torch.no_grad()
def _copy(values: dict[str, Tensor], parameters: dict[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


def run(settings: Settings, split: Split, job: Job) -> Outcome:
    """Train one network; all randomness comes from the seed."""
    job = RecipeJob(**vars(job), erasing=settings.erasing, ema=settings.ema)
    return classification.run(network, settings, split, job)


CANDIDATE = Settings(epochs=60, held_out=10_000)
CANDIDATES = {
    "rnn-recipe": CANDIDATE,
    "rnn-recipe-columns": replace(CANDIDATE, reads="row and column"),
    "rnn-recipe-averaged": replace(CANDIDATE, ema=0.999),
    "rnn-recipe-erased": replace(CANDIDATE, erasing=0.25),
    "rnn-recipe-smoothed": replace(CANDIDATE, smoothing=0.1),
    # In fewer epochs, so that each takes about as long as the others.
    "rnn-recipe-wide": replace(CANDIDATE, h=256, epochs=30),
    "rnn-recipe-deep": replace(CANDIDATE, layers=3, epochs=40),
}
"""The first is the reference; the others change what their names say."""


CHOSEN = CANDIDATES["rnn-recipe"]
"""The recipe of the runs with all 60,000 training images."""
BEST = {"rnn-recipe-best": replace(CHOSEN, held_out=0)}
# One gated layer has about as many parameters as two plain ones, and takes about as
# long: 23 s (GRU) and 26 s (LSTM) instead of 25 s for 50,000 images on one core.
GATED = {
    f"{cell}-recipe-best": replace(CHOSEN, held_out=0, cell=cell, layers=1)
    for cell in ("gru", "lstm")
}


def _experiments(named: dict[str, Settings], n_seed: int) -> list[Experiment]:
    quick = {"h": 16, "epochs": 2}
    family = classifiers(network, named, quick=quick, n_seed=n_seed)
    return [replace(experiment, run=run) for experiment in family]


EXPERIMENTS = (
    *_experiments(CANDIDATES, n_seed=1),
    *_experiments(BEST, n_seed=5),
    *_experiments(GATED, n_seed=3),
)
