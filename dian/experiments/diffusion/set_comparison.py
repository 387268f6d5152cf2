"""Comparison of sets of samples with real images, with an error for every number.

All functions add their results to an outcome. Sets of samples are bytes, by their name.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dian.data import CLASSES
from dian.diffusion import sample_metrics
from dian.experiments.diffusion.distances import METRICS, Reference, SampleDistances
from dian.experiments.diffusion.evaluation import Evaluator
from dian.experiments.diffusion.guided import accuracy
from dian.experiments.diffusion.samplers import SHOWN
from dian.runs.experiment import Outcome

KEPT = 100
"""Samples of each set that a record holds: they are the first, and not chosen."""
SEARCHED = 1000
"""Samples of which the nearest training images are searched for."""


def compare(
    evaluator: Evaluator,
    sets: dict[str, Tensor],
    bases: dict[str, str],
    draws: int,
    outcome: Outcome,
) -> None:
    """Add the distances of some sets of as many samples, and their differences.

    The errors come from halves of the samples. The test images are always the same, as
    they are for real images, so their choice is no part of a comparison.
    """
    names = [*sets]
    n = len(sets[names[0]])
    reference = Reference(evaluator.real, n)
    measured = [
        SampleDistances(evaluator.features(images), reference)
        for images in sets.values()
    ]
    base = [names.index(bases[name]) for name in names]

    def statistic(half: Tensor) -> Tensor:
        table = torch.stack([distances(half) for distances in measured])
        return torch.stack([table, table - table[base]])

    errors = sample_metrics.half_sample_errors(
        statistic,
        n,
        draws=draws,
        generator=torch.Generator().manual_seed(0),
    )
    value, difference = statistic(torch.arange(n))
    tables = {"": value, "_error": errors[0]}
    tables |= {"_difference": difference, "_difference_error": errors[1]}
    for suffix, table in tables.items():
        for name, row in zip(names, table.tolist(), strict=True):
            add_distances(outcome, name, suffix, row)
    for name, images in sets.items():
        outcome.arrays[f"{name}/classes"] = count = evaluator.classes(images)
        outcome.metrics[f"{name}/imbalance"] = imbalance(count)
        outcome.arrays[f"{name}/samples"] = images[:KEPT].cpu()


def add_distances(
    outcome: Outcome, prefix: str, suffix: str, row: Sequence[float]
) -> None:
    """Add all metrics of one set of samples, in the order of ``METRICS``."""
    named = zip(METRICS, row, strict=True)
    outcome.metrics |= {f"{prefix}/{key}{suffix}": value for key, value in named}


def imbalance(count: Tensor) -> float:
    """Return the total variation distance of some classes from a uniform distribution.

    >>> imbalance(torch.tensor([20, 0] + 8 * [10]))
    0.1
    """
    return ((count.double() / count.sum() - 0.1).abs().sum() / 2).item()


def compare_real(
    evaluator: Evaluator, n: int, name: str, references: int, outcome: Outcome
) -> None:
    """Add the means and deviations of the distances of sets of training images."""
    sets = evaluator.train[: references * n].split(n)
    sets = [images for images in sets if len(images) == n]
    reference, every = Reference(evaluator.real, n), torch.arange(n)
    features = map(evaluator.features, sets)
    rows = torch.stack([SampleDistances(X, reference)(every) for X in features])
    outcome.arrays[f"{name}/distances"] = rows
    add_distances(outcome, name, "", rows.mean(0).tolist())
    add_distances(outcome, name, "_sd", rows.std(0).tolist())
    counts = [imbalance(evaluator.classes(images)) for images in sets]
    outcome.metrics[f"{name}/imbalance"] = sum(counts) / len(counts)


def search_neighbors(evaluator: Evaluator, images: Tensor, outcome: Outcome) -> None:
    """Search for samples that are copies of training images."""
    n = min(SEARCHED, len(images), len(evaluator.test))
    distance, index = evaluator.neighbors(images[:n].to(evaluator.train.device))
    of_test, _ = evaluator.neighbors(evaluator.test[:n])
    for name, found in (("samples", distance), ("test", of_test)):
        outcome.metrics[f"nearest/{name}"] = found.quantile(0.5).item()
        outcome.arrays[f"nearest/{name}"] = found.float()
    outcome.arrays["nearest/index"] = index
    closest = distance.argsort()[:SHOWN]  # those that resemble a training image most
    outcome.arrays["nearest/closest"] = closest
    outcome.arrays["nearest/closest_samples"] = images[closest].cpu()
    outcome.arrays["nearest/closest_images"] = evaluator.train[index[closest]].cpu()


def measure_accuracy(
    evaluator: Evaluator, sets: dict[str, Tensor], test: Tensor, outcome: Outcome
) -> None:
    """Add how many samples the classifier assigns to the class that was asked for."""
    groups = {
        name: (images, torch.arange(len(images)) % len(CLASSES))
        for name, images in sets.items()
    }
    groups["test"] = evaluator.test, test.cpu()
    for name, (images, labels) in groups.items():
        p = accuracy(evaluator, images, labels)
        outcome.metrics[f"{name}/accuracy"] = p
        outcome.metrics[f"{name}/accuracy_error"] = (p * (1 - p) / len(labels)) ** 0.5
