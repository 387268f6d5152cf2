"""How all classifiers of Fashion-MNIST are trained, and evaluated after each epoch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dian import data
from dian.runs.experiment import Experiment, Job, Outcome
from dian.training import metrics
from dian.training.augmentation import random_horizontal_flip, random_shift
from dian.training.loop import OPTIMIZERS, Training
from dian.training.loss import cross_entropy

Split = tuple[data.Images, data.Images]
Build = Callable[[Any, torch.Generator | None], nn.Module]


class Recipe:
    """Hyperparameters that a family of experiments may leave out of its settings.

    The settings of a family are a dataclass that inherits from this class, and declares
    those that it has a value for, and ``batch_size``, ``learning_rate``, ``epochs``.
    The others keep the neutral values below, and are no fields: they are not recorded.
    """

    optimizer = "sgd"  # without momentum
    schedule = "constant"
    clip = None  # the maximum norm of the gradient
    smoothing = 0.0  # of the labels
    flips = False  # mirror each image with probability 1/2
    shifts = 0  # move each image by up to so many pixels
    images = None  # train on the first so many images; None: on all
    held_out = 0  # evaluate on the last so many training images, not on the test images


def load_splits(quick: bool) -> Split:
    """Load the training and the test images; ``quick`` means the bundled sample."""
    source = data.sample if quick else data.fashion_mnist
    return source("train"), source("test")


def training_and_evaluation(settings: Recipe, split: Split) -> Split:
    """Return the images to train on, and those to evaluate on.

    With ``held_out``, hyperparameters can be chosen by the score on training images
    that were held out, and not by that on the test images.
    """
    train, test = split
    train = train[: settings.images]
    if n := settings.held_out:
        return train[:-n], train[-n:]
    return train, test


def smoke_settings(
    settings: Recipe, split: Split, n_batch: int = 25
) -> tuple[Recipe, Split]:
    """Make a whole run small, for a replay: two epochs of ``n_batch`` steps each.

    It includes all parts of a run: the schedule from its beginning to its end, a last
    batch that is smaller, and the evaluation after each epoch.
    """
    train, test = split
    n = n_batch * settings.batch_size - 1 + settings.held_out
    return replace(settings, epochs=2), (train[:n], test[:1000])


def run(build: Build, settings: Any, split: Split, job: Job) -> Outcome:
    """Train one network; all randomness comes from the seed.

    The evaluation chooses nothing: the last epoch is the result, whatever it is.
    """
    generator = torch.Generator().manual_seed(job.seed)
    model = build(settings, generator).to(job.device, job.dtype)
    train, test = (
        (part.unit().to(job.device, job.dtype), part.labels.to(job.device))
        for part in training_and_evaluation(settings, split)
    )

    def augment(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if settings.flips:
            images = random_horizontal_flip(images, generator)
        if settings.shifts:
            images = random_shift(images, settings.shifts, generator)
        return images, labels

    def loss_fn(images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(model(images), labels, label_smoothing=settings.smoothing)

    optimizer = OPTIMIZERS[settings.optimizer]
    training = Training(
        model,
        loss_fn,
        train,
        optimizer=optimizer(model.parameters(), lr=settings.learning_rate),
        schedule=settings.schedule,
        max_norm=settings.clip,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        generator=generator,
        transform=augment,
    )
    outcome = Outcome(series={"train/loss": []})
    name = "validation" if settings.held_out else "test"
    outcome.arrays["predictions_before"] = _evaluate(model, *test, name, outcome)
    for step in job.follow(training, outcome=outcome):
        if step.epoch_loss is not None:
            outcome.series["train/loss"].append(step.epoch_loss)
            outcome.arrays["predictions"] = _evaluate(model, *test, name, outcome)
    outcome.losses = training.losses
    outcome.metrics = {key: values[-1] for key, values in outcome.series.items()}
    outcome.weights = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    return outcome


def _evaluate(
    model: nn.Module, images: Tensor, labels: Tensor, name: str, outcome: Outcome
) -> Tensor:
    """Append loss and metrics to the series, and return the predictions."""
    loss, predicted = evaluate(model, images, labels)
    C = metrics.confusion_matrix(
        target=labels, preds=predicted, num_classes=len(data.CLASSES)
    )
    for key, value in ({"loss": loss} | metrics.summary(C)).items():
        outcome.series.setdefault(f"{name}/{key}", []).append(value)
    outcome.arrays["confusion"] = C.int().cpu()
    return predicted.to("cpu", torch.uint8)


@torch.no_grad()
def evaluate(
    model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 1000
) -> tuple[float, Tensor]:
    """Return the mean loss over all images, and the predicted class of each."""
    model.eval()
    loss, predicted = 0.0, []
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        logits = model(x)
        loss += cross_entropy(logits, y).item() * len(y)
        predicted.append(logits.argmax(1))
    return loss / len(images), torch.cat(predicted)


def classifiers(
    build: Build,
    named: Mapping[str, Recipe],
    *,
    quick: Mapping[str, Any],
    n_seed: int = 5,
    smoke_settings: Callable[[Any, Split], tuple[Any, Split]] = smoke_settings,
) -> tuple[Experiment, ...]:
    """Return a family of experiments.

    Parameters
    ----------
    build
        Builds the network from settings and a generator.
    named
        The settings of each experiment.
    quick
        What is different in a dry run on the bundled sample.
    n_seed
        How many seeds a record holds.
    smoke_settings
        Reduces settings and data to those of a replay.
    """
    return tuple(
        Experiment(
            name=name,
            settings=settings,
            quick=_quick(settings, quick),
            data=load_splits,
            build=build,
            run=partial(run, build),
            smoke_settings=smoke_settings,
            checksums=data.CHECKSUMS,
            n_seed=n_seed,
        )
        for name, settings in named.items()
    )


def _quick(settings: Any, changes: Mapping[str, Any]) -> Any:
    """Return settings for the sample, which has fewer images than are held out."""
    held_out = {"held_out": 200} if settings.held_out else {}
    return replace(settings, **changes, **held_out)
