"""Samples of given classes, with classifier-free guidance, and their evaluation."""

from dataclasses import replace

import torch
from torch import Tensor

from dian.data import CLASSES
from dian.diffusion.guidance import ConditionalModel, guide
from dian.diffusion.pixels import to_bytes
from dian.diffusion.sampling import ddim_sample
from dian.experiments.diffusion.evaluation import Evaluator
from dian.experiments.diffusion.samplers import Sampler

SHOWN_CLASSES = 10 * len(CLASSES)
"""Guided samples that a record holds: ten of each class."""


def sample_classes(
    sampler: Sampler, model: ConditionalModel, labels: Tensor, w: float, steps: int
) -> Tensor:
    """Sample an image of each class in ``labels`` by DDIM, as bytes.

    The noise does not depend on ``w``: one image can be compared across weights.
    """
    images, given = [], labels.to(sampler.device).split(sampler.chunk)
    for (x_T, _), y in zip(sampler.parts(len(labels)), given, strict=True):
        guided = guide(model, y, len(CLASSES), w)
        denoiser = replace(sampler.denoiser, model=guided)
        x = ddim_sample(sampler.schedule, denoiser, x_T, steps=steps)
        images.append(to_bytes(x[:, 0]))
    return torch.cat(images)


def evaluate_guidance(
    sampler: Sampler,
    model: ConditionalModel,
    evaluator: Evaluator,
    *,
    weights: str,
    n: int,
    steps: int = 50,
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Evaluate ``n`` samples, as many of each class, for each guidance weight.

    The accuracy is the fraction of samples that the feature classifier assigns to the
    class that was asked for. For comparison, as many training images are evaluated.
    """
    metrics, arrays = {}, {}
    labels = torch.arange(n) % len(CLASSES)
    for weight in weights.split():
        images = sample_classes(sampler, model, labels, float(weight), steps)
        found = evaluator(images)
        found["accuracy"] = accuracy(evaluator, images, labels)
        metrics |= {f"guided-{weight}/{key}": value for key, value in found.items()}
        arrays[f"guided-{weight}/samples"] = images[:SHOWN_CLASSES].cpu()
    found = evaluator(evaluator.train[:n])
    metrics |= {f"real/{key}": value for key, value in found.items()}
    return metrics, arrays


@torch.no_grad()
def accuracy(evaluator: Evaluator, images: Tensor, labels: Tensor) -> float:
    """Return the fraction of images that the feature classifier assigns to a label."""
    parts = evaluator.parts(images)
    found = torch.cat([evaluator.network(x).argmax(1) for x in parts])
    return (found.cpu() == labels).double().mean().item()
