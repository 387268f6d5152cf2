"""What all diffusion models are judged by: samples, their distances, and the bound."""

import time
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dian.data import Images
from dian.diffusion import sample_metrics
from dian.diffusion.feature_network import ConvNet
from dian.diffusion.likelihood import (
    bits_per_dimension,
    rate_distortion,
    variational_bound,
)
from dian.diffusion.process import Model
from dian.errors import DianError
from dian.experiments.classification import read as read_images
from dian.experiments.diffusion.samplers import (
    SHOWN,
    Sampler,
    TrajectoryRecorder,
    as_bytes,
)
from dian.rnn.networks import RNNClassifier
from dian.runs import record as records

FEATURES = "feature-classifier"
"""The record of the classifier in whose features samples are compared with data."""
READER = "rnn-fashion-mnist"
"""The record of the network that tells the class of a sample."""
KEPT = 200
"""Samples that a record holds."""


class Data(NamedTuple):
    """The images, and the weights of the two networks that judge samples."""

    train: Images
    test: Images
    features: dict[str, Tensor]
    reader: dict[str, Tensor]


def read(quick: bool) -> Data:
    """Read everything; in a trial an untrained network gives the features.

    Raises
    ------
    DianError
        If the classifier that gives the features is not recorded yet.
    """
    train, test = read_images(quick)
    if quick:
        features = ConvNet(generator=torch.Generator().manual_seed(0)).state_dict()
    elif FEATURES in records.names():
        features = records.load(FEATURES).weights
    else:
        raise DianError(
            f"no record {FEATURES!r}, in whose features samples are judged; run: "
            f"python -m dian train {FEATURES}"
        )
    return Data(train, test, features, records.load(READER).weights)


def checksums() -> dict[str, str]:
    """Return the SHA-256 of the weights of both networks, as far as they are there."""
    found = {}
    for name in (FEATURES, READER):
        # Of one that is missing or damaged, `read` tells when it is needed.
        with suppress(DianError):
            files = records.load(name).content["files"]
            found[f"{name}/weights.safetensors"] = files["weights.safetensors"]
    return found


class Evaluator:
    """Compare samples with the test images, in the features of the classifier.

    Parameters
    ----------
    data
        Everything that is read.
    device, dtype
        Where, and in what type.
    """

    def __init__(self, data: Data, device: torch.device, dtype: torch.dtype):
        self.network = ConvNet()
        self.reader = RNNClassifier(h=len(data.reader["rnn.b_h"]))
        self.network.load_state_dict(data.features)
        self.reader.load_state_dict(data.reader)
        for network in (self.network, self.reader):
            network.to(device, dtype).eval()
        self.train = data.train.images.to(device, dtype)
        self.test = data.test.images.to(device, dtype)
        self.real = self.features(self.test)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the features of images from 0 to 1, of one channel."""
        return torch.cat([self.network.features(part) for part in images.split(1000)])

    @torch.no_grad()
    def classes(self, images: Tensor) -> Tensor:
        """Return how many images the recurrent network takes for each class."""
        found = [self.reader(part).argmax(1) for part in images.split(1000)]
        return torch.cat(found).bincount(minlength=10).cpu()

    def __call__(self, images: Tensor, real: Tensor | None = None) -> dict[str, float]:
        """Tell how far images are from the test images; ``real`` are their features."""
        X = self.features(images) if real is None else real
        n = min(len(X), len(self.real))
        precision, recall = sample_metrics.precision_recall(X[:n], self.real[:n])
        share = self.classes(images).double() / len(images)
        return {
            "frechet": sample_metrics.frechet_distance(X, self.real).item(),
            "kernel": sample_metrics.mmd2_unbiased(X, self.real).item(),
            "precision": precision,
            "recall": recall,
            # Half the sum of what each class has too much or too little.
            "imbalance": (share - 0.1).abs().sum().item() / 2,
        }

    def floor(self, n: int) -> dict[str, float]:
        """Return the same for the first ``n`` training images: real against real."""
        return self(self.train[:n])

    def neighbours(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest training image of each, by pixels: distances, positions."""
        found = [
            sample_metrics.nearest(part.flatten(1), self.train.flatten(1))
            for part in images.split(100)
        ]
        distance, index = (torch.cat(parts) for parts in zip(*found, strict=True))
        return distance[:, 0].cpu(), index[:, 0].cpu()


def evaluate_all(
    sampler: Sampler, raw: Model, exact: Model, judge: Evaluator, settings: Any
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Sample in every way, and judge each.

    Parameters
    ----------
    sampler
        With the averaged weights.
    raw
        The model with the weights as the last step left them.
    exact
        The model with averaged weights, not in bfloat16, for the bound.
    judge
        What compares.
    settings
        How many samples, and in which ways.

    Returns
    -------
    metrics, arrays
        Numbers, and larger results.
    """
    metrics: dict[str, float] = {}
    arrays: dict[str, Tensor] = {}

    def add(way: str, found: dict[str, float]) -> None:
        metrics.update({f"{way}/{key}": value for key, value in found.items()})

    few = settings.others
    path = TrajectoryRecorder(len(sampler.schedule.beta) - 1)
    images = sampler.ddpm_sample(settings.samples, callback=path.look)
    arrays |= {"samples": as_bytes(images[:KEPT]), "classes": judge.classes(images)}
    arrays |= path.arrays()
    add("all", judge(images))
    add("all-floor", judge.floor(settings.samples))
    add("averaged", judge(images[:few]))
    add("floor", judge.floor(few))
    _neighbours(judge, images, metrics, arrays)
    if settings.variants:
        before = Sampler(**vars(sampler) | {"model": raw})
        for way, found in (
            ("raw", before.ddpm_sample(few)),
            ("beta_tilde", sampler.ddpm_sample(few, variance="beta_tilde")),
            ("no_clip", sampler.ddpm_sample(few, clip=None)),
        ):
            add(way, judge(found))
            arrays[f"samples/{way}"] = as_bytes(found[:SHOWN])
    for steps in map(int, settings.ddim.split()):
        begin = time.perf_counter()
        found = sampler.ddim(few, steps)
        arrays[f"ddim-{steps}/samples"] = as_bytes(found[:SHOWN])  # waits for the GPU
        seconds = time.perf_counter() - begin
        arrays[f"ddim-{steps}/seconds"] = torch.tensor(seconds)
        add(f"ddim-{steps}", judge(found))
    _bound(sampler, exact, judge, settings, metrics, arrays)
    x = 2 * judge.test[:SHOWN, None] - 1
    half = len(x) // 2
    middle = sampler.interpolate_pairs(x[:half], x[half : 2 * half], path.T // 2, n=9)
    arrays["between"] = as_bytes(middle)
    arrays["between/ends"] = as_bytes(judge.test[: 2 * half])
    return metrics, arrays


def _neighbours(judge: Evaluator, images: Tensor, metrics: dict, arrays: dict) -> None:
    """Look for samples that are copies of training images."""
    n = min(KEPT, len(images), len(judge.test))
    distance, index = judge.neighbours(images[:n])
    of_test, _ = judge.neighbours(judge.test[:n])
    metrics["nearest/samples"] = distance.quantile(0.5).item()
    metrics["nearest/test"] = of_test.quantile(0.5).item()
    arrays["nearest/distance"] = distance.float()
    arrays["nearest/distance_test"] = of_test.float()
    arrays["nearest/index"] = index
    arrays["nearest/images"] = as_bytes(judge.train[index[:SHOWN]])


def _bound(sampler, exact, judge, settings, metrics: dict, arrays: dict) -> None:
    """Add bits per dimension, and rate and distortion by step, on test images."""
    x = 2 * judge.test[: settings.bound_images, None] - 1
    d = x[0].numel()
    for variance in ("beta", "beta_tilde"):
        generator = torch.Generator(sampler.device).manual_seed(sampler.seed)
        options = {"variance": variance, "clip": 1.0, "target": sampler.target}
        parts = [
            variational_bound(
                sampler.schedule, exact, part, generator=generator, **options
            )
            for part in x.split(sampler.chunk)
        ]
        prior, *tables = (torch.cat(p, -1).cpu() for p in zip(*parts, strict=True))
        bound = type(parts[0])(prior, *tables)
        bits = bits_per_dimension(bound.prior + bound.terms.sum(0), d)
        metrics[f"bits/{variance}"] = bits.mean().item()
        metrics[f"bits/{variance}_error"] = bits.std().item() / len(bits) ** 0.5
        if variance == "beta":
            rate, distortion = rate_distortion(bound, d)
            metrics["bits/prior"] = bits_per_dimension(bound.prior, d).mean().item()
            metrics["bits/last"] = bits_per_dimension(bound.terms[1], d).mean().item()
            arrays["rate"], arrays["distortion"] = rate.float(), distortion.float()
