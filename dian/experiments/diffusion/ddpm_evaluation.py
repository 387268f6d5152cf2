"""Evaluation of recorded diffusion models, with an error for every number.

Nothing is trained. The recorded samples are compared with real images. Where a
comparison needs more, the recorded weights are used again: for the bound of each test
image, with the same noise for all models, and to sample one model by several methods
from the same initial noise.

Each distance has a standard error, and so has each difference, from the same halves:
:func:`dian.diffusion.sample_metrics.half_sample_errors`. The references are as many
real training images, unchanged and with every second one mirrored, because a model that
was trained with flips samples mirrored images. For the same reason each set is compared
with the test images (``test``), and with the test images and their mirror images
together (``both``).
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dian.data import CHECKSUMS
from dian.diffusion import sample_metrics
from dian.diffusion.likelihood import total_bits, variational_bound
from dian.diffusion.pixels import signed
from dian.diffusion.sampling import Denoiser
from dian.diffusion.schedule import linear_schedule
from dian.errors import DianError
from dian.experiments.diffusion import ddpm, evaluation
from dian.experiments.diffusion.evaluation import Evaluator
from dian.experiments.diffusion.samplers import Sampler
from dian.experiments.diffusion.set_comparison import add_distances, imbalance
from dian.runs.experiment import Experiment, Job, Outcome
from dian.runs.record import load


@dataclass(frozen=True)
class Settings:
    """Which models are evaluated, and on how many images.

    ``models`` are names of records that begin with ``prefix``, separated by spaces;
    differences are taken from the first. ``ways`` are methods that sample the first
    model again, ``ddpm`` (Algorithm 2) or ``ddim-`` and a number of steps; differences
    are taken from the first of them. Each set has ``n`` images, ``references`` sets of
    real images are drawn, and ``draws`` halves for an error.
    """

    prefix: str
    models: str
    ways: str
    n: int = 200
    references: int = 100
    draws: int = 100
    bound_images: int = 64

    def records(self) -> dict[str, str]:
        """Return the name of each model's record."""
        return {key: self.prefix + key for key in self.models.split()}


class Model(NamedTuple):
    """What the record of a trained model holds."""

    settings: ddpm.Settings
    weights: dict[str, Tensor]
    samples: Tensor


class Data(NamedTuple):
    """The models, and the images and networks with which they are evaluated."""

    shared: evaluation.Data
    models: dict[str, Model]


def read_models(settings: Settings, quick: bool) -> Data:
    """Read the images, the networks that compare them, and the recorded models."""
    models = {}
    for key, name in settings.records().items():
        record = load(name)
        samples = torch.from_numpy(record.arrays["samples"][0])
        model = Model(ddpm.Settings(**record.settings), record.weights, samples)
        models[key] = _short(model) if quick else model
    return Data(evaluation.read(quick), models)


def _short(model: Model) -> Model:
    """Give a model five timesteps, which end in nearly as much noise as all."""
    short = replace(model.settings, T=5, beta_1=0.1, beta_T=0.9)
    return model._replace(settings=short)


def checksums(names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of every file that the evaluation of these records reads."""
    found = CHECKSUMS | evaluation.checksums()
    for name in names:
        # One that is missing or damaged is reported when it is read.
        with suppress(DianError):
            files = load(name).content["files"]
            found |= {f"{name}/{file}": digest for file, digest in files.items()}
    return found


def no_network(settings: object, generator: torch.Generator | None = None) -> nn.Module:
    """Return a network without parameters: an evaluation trains none."""
    return nn.Identity()


def run(settings: Settings, data: Data, job: Job) -> Outcome:
    """Evaluate all models; the seed decides all randomness."""
    outcome = Outcome()
    evaluator = Evaluator(data.shared, job.device, job.dtype)
    targets = _targets(evaluator, settings.n)
    recorded = {key: model.samples[: settings.n] for key, model in data.models.items()}
    first = next(iter(data.models.values()))
    again = {way: _sample(first, way, settings, job) for way in settings.ways.split()}
    for group in filter(None, (recorded, again)):
        _compare(evaluator, targets, group, settings, outcome)
    _compare_real(evaluator, targets, settings, outcome)
    _bits(evaluator, data.models, settings, job, outcome)
    outcome.arrays |= {f"samples/{way}": images[:10] for way, images in again.items()}
    return outcome


class Target(NamedTuple):
    """Features of the images that samples are compared with."""

    every: Tensor
    """All of them, for the Fréchet distance and the KID."""
    kernel: Tensor
    """The mean of the kernel over all pairs of them."""
    one: Tensor
    """As many as there are samples, for precision and recall."""

    def distances(self, X: Tensor) -> Tensor:
        """Return all metrics of the features of some images."""
        between = sample_metrics.kernel_mean(X, self.every)
        values = (
            sample_metrics.frechet_distance(X, self.every),
            sample_metrics.kernel_mean(X) + self.kernel - 2 * between,
            # Not `precision_recall`, which wants as many: X may be half of the samples.
            sample_metrics.in_manifold(X, self.one).double().mean(),
            sample_metrics.in_manifold(self.one, X).double().mean(),
        )
        return torch.stack(values)


def _targets(evaluator: Evaluator, n: int) -> dict[str, Target]:
    real, mirrored = evaluator.real, evaluator.features(evaluator.test.flip(-1))
    alternate = real.clone()
    alternate[1::2] = mirrored[1::2]
    found = {}
    for name, every, one in (
        ("test", real, real),
        ("both", torch.cat([real, mirrored]), alternate),
    ):
        found[name] = Target(every, sample_metrics.kernel_mean(every), one[:n])
    return found


def _sample(model: Model, way: str, settings: Settings, job: Job) -> Tensor:
    """Sample a model again, in all ways from the same noise."""
    trained = model.settings
    sampler = Sampler(
        linear_schedule(trained.T, trained.beta_1, trained.beta_T).to(job.device),
        Denoiser(_network(model, job), trained.target),
        settings.n,  # at once: Algorithm 2 draws noise between two parts
        job.seed + 1,  # other noise than that of the recorded samples
        job.device,
        job.dtype,
    )
    if way.startswith("ddim-"):
        steps = min(int(way.removeprefix("ddim-")), trained.T)
        return sampler.ddim(settings.n, steps).cpu()
    return sampler.ddpm(settings.n).cpu()


def _network(model: Model, job: Job) -> nn.Module:
    network = ddpm.build_unet(model.settings)
    network.load_state_dict(model.weights)
    return network.to(job.device, job.dtype).eval().requires_grad_(False)


def _compare(
    evaluator: Evaluator,
    targets: dict[str, Target],
    group: dict[str, Tensor],
    settings: Settings,
    outcome: Outcome,
) -> None:
    """Add the distances of some sets of images, and their differences from the first.

    The errors come from halves of the samples. The test images are always the same, as
    they are for real images, so their choice is no part of a comparison.
    """
    features = [evaluator.features(images) for images in group.values()]
    for name, target in targets.items():

        def statistic(half: Tensor, target: Target = target) -> Tensor:
            table = torch.stack([target.distances(X[half]) for X in features])
            return torch.stack([table, table - table[0]])

        errors = sample_metrics.half_sample_errors(
            statistic,
            settings.n,
            draws=settings.draws,
            generator=torch.Generator().manual_seed(0),  # the same for all groups
        )
        value, difference = statistic(torch.arange(settings.n))
        tables = {"": value, "_error": errors[0]}
        tables |= {"_difference": difference, "_difference_error": errors[1]}
        for suffix, table in tables.items():
            for key, row in zip(group, table.tolist(), strict=True):
                add_distances(outcome, f"{key}/{name}", suffix, row)
    for key, images in group.items():
        outcome.arrays[f"{key}/classes"] = count = evaluator.classes(images)
        outcome.metrics[f"{key}/imbalance"] = imbalance(count)


def _compare_real(
    evaluator: Evaluator,
    targets: dict[str, Target],
    settings: Settings,
    outcome: Outcome,
) -> None:
    """Add the means and deviations of the distances of sets of training images."""
    train = evaluator.train[: settings.references * settings.n]
    mirrored = train.clone()
    mirrored[1::2] = mirrored[1::2].flip(-1)
    for key, images in (("real", train), ("real_mirrored", mirrored)):
        sets = images.split(settings.n)
        features = evaluator.features(images).split(settings.n)
        for name, target in targets.items():
            rows = torch.stack([target.distances(X) for X in features])
            outcome.arrays[f"{key}/{name}"] = rows
            add_distances(outcome, f"{key}/{name}", "", rows.mean(0).tolist())
            add_distances(outcome, f"{key}/{name}", "_sd", rows.std(0).tolist())
        counts = torch.stack([evaluator.classes(part) for part in sets])
        spread = torch.tensor([imbalance(count) for count in counts])
        outcome.metrics[f"{key}/imbalance"] = spread.mean().item()
        outcome.metrics[f"{key}/imbalance_sd"] = spread.std().item()


def _bits(
    evaluator: Evaluator,
    models: dict[str, Model],
    settings: Settings,
    job: Job,
    outcome: Outcome,
) -> None:
    """Add the bound of each test image, with the same noise for every model."""
    x = signed(evaluator.test[: settings.bound_images, None]).to(job.dtype)
    rows = {}
    for key, model in models.items():
        trained = model.settings
        bound = variational_bound(
            linear_schedule(trained.T, trained.beta_1, trained.beta_T).to(job.device),
            Denoiser(_network(model, job), trained.target),
            x,
            generator=torch.Generator(job.device).manual_seed(job.seed),
        )
        rows[key] = total_bits(bound, x[0].numel()).double().cpu()
    bits = torch.stack([*rows.values()])
    outcome.arrays["bits"] = bits
    for suffix, values in (("", bits), ("_difference", bits - bits[0])):
        error = values.std(1) / settings.bound_images**0.5
        for key, mean, se in zip(rows, values.mean(1), error, strict=True):
            outcome.metrics[f"{key}/bits{suffix}"] = mean.item()
            outcome.metrics[f"{key}/bits{suffix}_error"] = se.item()


def smoke_settings(settings: Settings, data: Data) -> tuple[Settings, Data]:
    """Make an evaluation small, for a replay: a few images of everything."""
    shared = data.shared
    few = shared._replace(train=shared.train[:24], test=shared.test[:12])
    models = {key: _short(model) for key, model in data.models.items()}
    size = {"n": 8, "references": 3, "draws": 3, "bound_images": 3}
    return replace(settings, **size), Data(few, models)


EXPERIMENTS = tuple(
    Experiment(
        name=name,
        settings=settings,
        quick=replace(settings, n=20, references=5, draws=5, bound_images=4),
        data=partial(read_models, settings),
        build=no_network,
        run=run,
        smoke_settings=smoke_settings,
        checksums=checksums(settings.records().values()),
        n_seed=1,
    )
    for name, settings in {
        "ddpm-fashion-mnist-small-evaluation": Settings(
            "ddpm-fashion-mnist-",
            "small",
            "ddim-100 ddim-50 ddim-20 ddim-10",
        ),
    }.items()
)
