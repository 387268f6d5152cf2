"""The recipe that all classifiers of Fashion-MNIST share: train, and judge by epoch."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dian import data
from dian.runs.checkpoint import Checkpoint
from dian.runs.experiment import Outcome
from dian.training import metrics
from dian.training.loop import fit
from dian.training.loss import cross_entropy

Split = tuple[data.Images, data.Images]


def read(quick: bool) -> Split:
    """Read the training and the test images; ``quick`` means the bundled sample."""
    source = data.sample if quick else data.fashion_mnist
    return source("train"), source("test")


def subset(images: data.Images, chosen: slice) -> data.Images:
    """Take some of the images."""
    return data.Images(
        images.images[chosen], images.labels[chosen], images.index[chosen]
    )


def hold_out(split: Split, n: int) -> Split:
    """Take out the last ``n`` training images, to be judged instead of the test images.

    A recipe is chosen by what it scores on them, and never by the test images.
    """
    train, _ = split
    return subset(train, slice(None, -n)), subset(train, slice(-n, None))


def smoke_settings(settings: Any, split: Split) -> tuple[Any, Split]:
    """Make a whole run small, for a replay: two epochs of 25 steps each.

    It goes through all that a run goes through: the schedule from its beginning to
    its end, an epoch with a last batch that is smaller, and the judging after each.
    """
    train, test = split
    n = 25 * settings.batch_size - 1 + getattr(settings, "held_out", 0)
    few = subset(train, slice(n)), subset(test, slice(1000))
    return replace(settings, epochs=2), few


def classify(
    model: nn.Module,
    split: Split,
    device: torch.device,
    dtype: torch.dtype,
    *,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[float], float],
    clip: Callable[[Iterable[nn.Parameter]], object] | None,
    batch_size: int,
    epochs: int,
    generator: torch.Generator,
    smoothing: float = 0.0,
    augment: Callable[[Tensor], Tensor] | None = None,
    judged: str = "test",
    after_step: Callable[[int, int, float], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Train a classifier on one split, and judge it on the other after each epoch.

    The test images choose nothing: the last epoch is the result, whatever it is.
    What was judged, the test images or others, is the first part of the name of each
    number. In training alone, labels are smoothed and images augmented.
    """
    train, test = ((s.images.to(device, dtype), s.labels.to(device)) for s in split)
    images, labels = train
    outcome = Outcome(series={"train/loss": []})

    def judge() -> Tensor:
        loss, predicted = evaluate(model, *test)
        C = metrics.confusion_matrix(test[1], predicted, n_class=len(data.CLASSES))
        for name, value in ({"loss": loss} | metrics.summary(C)).items():
            outcome.series.setdefault(f"{judged}/{name}", []).append(value)
        outcome.arrays["confusion"] = C.int().cpu()
        return predicted.to("cpu", torch.uint8)

    def loss_fn(index: Tensor) -> Tensor:
        batch = images[index] if augment is None else augment(images[index])
        return cross_entropy(model(batch), labels[index], smoothing=smoothing)

    def after_epoch(epoch: int, loss: float) -> None:
        outcome.series["train/loss"].append(loss)
        outcome.arrays["predictions"] = judge()

    outcome.arrays["predictions_before"] = judge()
    outcome.losses = fit(
        model,
        loss_fn,
        len(images),
        optimizer=optimizer,
        schedule=schedule,
        clip=clip,
        batch_size=batch_size,
        epochs=epochs,
        generator=generator,
        after_step=after_step,
        after_epoch=after_epoch,
        checkpoint=checkpoint,
        keep={"outcome": outcome},
    )
    outcome.metrics = {
        name: values[-1] for name, values in outcome.series.items() if values
    }
    outcome.weights = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    return outcome


@torch.no_grad()
def evaluate(
    model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 1000
) -> tuple[float, Tensor]:
    """Return the mean loss over all images, and the class predicted for each."""
    model.eval()
    loss, predicted = 0.0, []
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        logits = model(x)
        loss += cross_entropy(logits, y).item() * len(y)
        predicted.append(logits.argmax(1))
    return loss / len(images), torch.cat(predicted)
