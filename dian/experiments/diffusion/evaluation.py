"""Evaluation of diffusion models: samples, their distances to data, and the bound."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dian.data import Images
from dian.diffusion import sample_metrics
from dian.diffusion.feature_network import ConvNet
from dian.diffusion.likelihood import (
    Bound,
    bits_per_dimension,
    rate_distortion,
    total_bits,
    variational_bound,
)
from dian.diffusion.pixels import signed, to_bytes, unit
from dian.diffusion.process import Model
from dian.errors import DianError
from dian.experiments.classification import load_splits
from dian.experiments.diffusion.samplers import SHOWN, Sampler, TrajectoryRecorder
from dian.rnn.networks import RNNClassifier
from dian.runs.record import load, record_names

FEATURES = "feature-classifier"
"""The record of the classifier in whose features samples are compared with data."""
READER = "rnn-fashion-mnist"
"""The record of the network that classifies samples."""
KEPT = 200
"""Samples that a record holds."""


class Data(NamedTuple):
    """The images, and the weights of the two networks that evaluate samples."""

    train: Images
    test: Images
    features: dict[str, Tensor]
    reader: dict[str, Tensor]


def read(quick: bool) -> Data:
    """Read everything; in a dry run the features are those of an untrained network."""
    train, test = load_splits(quick)
    if quick:
        features = ConvNet(generator=torch.Generator().manual_seed(0)).state_dict()
    elif FEATURES in record_names():
        features = load(FEATURES).weights
    else:
        raise DianError(
            f"no record {FEATURES!r}, in whose features samples are compared; run: "
            f"python -m dian train {FEATURES}"
        )
    return Data(train, test, features, load(READER).weights)


def checksums() -> dict[str, str]:
    """Return the SHA-256 of the weights of both networks, if they are recorded."""
    found = {}
    for name in (FEATURES, READER):
        # One that is missing or damaged is reported by `read`, when it is needed.
        with suppress(DianError):
            files = load(name).content["files"]
            found[f"{name}/weights.safetensors"] = files["weights.safetensors"]
    return found


class Evaluator:
    """Compare samples with the test images, in the features of the classifier.

    All images are bytes.

    Parameters
    ----------
    data
        As read by :func:`read`.
    device, dtype
        Where the networks run, and in which precision.
    """

    def __init__(self, data: Data, device: torch.device, dtype: torch.dtype):
        self.network = ConvNet()
        self.reader = RNNClassifier(28, len(data.reader["rnn.b_h"]), 10)
        self.network.load_state_dict(data.features)
        self.reader.load_state_dict(data.reader)
        for network in (self.network, self.reader):
            network.to(device, dtype).eval()
        self.device, self.dtype = device, dtype
        self.train = to_bytes(data.train.signed()).to(device)
        self.test = to_bytes(data.test.signed()).to(device)
        self.real = self.features(self.test)

    def parts(self, images: Tensor, n: int = 1000) -> Iterator[Tensor]:
        """Yield ``n`` images at a time as the networks take them."""
        for part in images.split(n):
            yield unit(part.to(self.device)).to(self.dtype)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the features of images."""
        return torch.cat([self.network.features(x) for x in self.parts(images)])

    @torch.no_grad()
    def classes(self, images: Tensor) -> Tensor:
        """Return how many images the recurrent network assigns to each class."""
        found = [self.reader(x).argmax(1) for x in self.parts(images)]
        return torch.cat(found).bincount(minlength=10).cpu()

    def __call__(self, images: Tensor) -> dict[str, float]:
        """Return the distances between images and the test images."""
        X = self.features(images)
        n = min(len(X), len(self.real))
        precision, recall = sample_metrics.precision_recall(X[:n], self.real[:n])
        fraction = self.classes(images).double() / len(images)
        return {
            "frechet": sample_metrics.frechet_distance(X, self.real).item(),
            "kernel": sample_metrics.mmd2_unbiased(X, self.real).item(),
            "precision": precision,
            "recall": recall,
            # total variation distance from a uniform distribution of classes
            "imbalance": (fraction - 0.1).abs().sum().item() / 2,
        }

    def neighbors(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest training image of each, by pixels: distances, positions."""
        train = unit(self.train).to(self.dtype).flatten(1)
        found = [
            sample_metrics.nearest(x.flatten(1), train) for x in self.parts(images, 100)
        ]
        distance, index = (torch.cat(parts) for parts in zip(*found, strict=True))
        return distance[:, 0].cpu(), index[:, 0].cpu()


def evaluate_all(
    sampler: Sampler, raw: Model, exact: Model, evaluator: Evaluator, settings: Any
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Sample in every way, and evaluate each.

    Parameters
    ----------
    sampler
        With the EMA weights.
    raw
        The model with the raw weights.
    exact
        The model with the EMA weights, not in bfloat16, for the bound.
    evaluator
        Compares the samples with data.
    settings
        How many samples, and in which ways.

    Returns
    -------
    metrics, arrays
        Numbers, and larger results.
    """
    metrics: dict[str, float] = {}
    arrays: dict[str, Tensor] = {}

    def add(way: str, images: Tensor) -> None:
        found = evaluator(images)
        metrics.update({f"{way}/{key}": value for key, value in found.items()})

    few, T = settings.others, sampler.schedule.T
    trajectory = TrajectoryRecorder(T)
    images = sampler.ddpm(settings.samples, callback=trajectory.record_step)
    arrays["samples"] = images[:KEPT].cpu()
    arrays["classes"] = evaluator.classes(images)
    arrays |= trajectory.arrays()
    add("all", images)
    add("all-floor", evaluator.train[: settings.samples])
    add("averaged", images[:few])
    add("floor", evaluator.train[:few])
    _neighbors(evaluator, images, metrics, arrays)
    if settings.variants:
        for way, changes, variance in (
            ("raw", {"model": raw}, "beta"),
            ("beta_tilde", {}, "beta_tilde"),
            ("no_clip", {"clip": None}, "beta"),
        ):
            changed = replace(sampler, denoiser=replace(sampler.denoiser, **changes))
            found = changed.ddpm(few, variance=variance)
            add(way, found)
            arrays[f"samples/{way}"] = found[:SHOWN].cpu()
    for steps in map(int, settings.ddim.split()):
        begin = time.perf_counter()
        found = sampler.ddim(few, steps)
        arrays[f"ddim-{steps}/samples"] = found[:SHOWN].cpu()  # waits for the GPU
        seconds = time.perf_counter() - begin
        arrays[f"ddim-{steps}/seconds"] = torch.tensor(seconds)
        add(f"ddim-{steps}", found)
    _bound(sampler, exact, evaluator, settings, metrics, arrays)
    ends = evaluator.test[: 2 * (min(SHOWN, len(evaluator.test)) // 2)]
    x, y = signed(ends[:, None]).to(sampler.dtype).chunk(2)
    arrays["between"] = sampler.interpolate_pairs(x, y, T // 2, n=9).cpu()
    arrays["between/ends"] = ends.cpu()
    return metrics, arrays


def _neighbors(
    evaluator: Evaluator, images: Tensor, metrics: dict, arrays: dict
) -> None:
    """Search for samples that are copies of training images."""
    n = min(KEPT, len(images), len(evaluator.test))
    distance, index = evaluator.neighbors(images[:n])
    of_test, _ = evaluator.neighbors(evaluator.test[:n])
    metrics["nearest/samples"] = distance.quantile(0.5).item()
    metrics["nearest/test"] = of_test.quantile(0.5).item()
    arrays["nearest/distance"] = distance.float()
    arrays["nearest/distance_test"] = of_test.float()
    arrays["nearest/index"] = index
    arrays["nearest/images"] = evaluator.train[index[:SHOWN]].cpu()


def _bound(sampler, exact, evaluator, settings, metrics: dict, arrays: dict) -> None:
    """Add bits per dimension, and rate and distortion, on test images."""
    x = signed(evaluator.test[: settings.bound_images, None]).to(sampler.dtype)
    d, denoiser = x[0].numel(), replace(sampler.denoiser, model=exact)
    for variance in ("beta", "beta_tilde"):
        options = {
            "variance": variance,
            "generator": torch.Generator(sampler.device).manual_seed(sampler.seed),
        }
        parts = [
            variational_bound(sampler.schedule, denoiser, part, **options)
            for part in x.split(sampler.chunk)
        ]
        bound = Bound(*(torch.cat(p, -1).cpu() for p in zip(*parts, strict=True)))
        bits = total_bits(bound, d)
        metrics[f"bits/{variance}"] = bits.mean().item()
        metrics[f"bits/{variance}_error"] = bits.std().item() / len(bits) ** 0.5
        if variance == "beta":
            rate, distortion = rate_distortion(bound, d)
            metrics["bits/prior"] = bits_per_dimension(bound.prior, d).mean().item()
            metrics["bits/last"] = bits_per_dimension(bound.terms[1], d).mean().item()
            arrays["rate"], arrays["distortion"] = rate.float(), distortion.float()
