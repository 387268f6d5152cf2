"""Evaluation of recorded diffusion models by samples of their weights, in parts.

Nothing is trained. Every model is sampled from the same noise in the same ways, and
codes the same images with the same noise, so that differences are paired. Each distance
and each difference has a standard error, from the same halves of the samples
(:func:`dian.diffusion.sample_metrics.half_sample_errors`); as references serve disjoint
sets of as many training images. A part that is sampled is saved, so that an
interruption costs a part at most.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from dian.data import CLASSES
from dian.diffusion.guidance import condition
from dian.diffusion.likelihood import (
    Bound,
    rate_distortion,
    total_bits,
    variational_bound,
)
from dian.diffusion.pixels import signed
from dian.diffusion.process import Model as Predictor
from dian.diffusion.sampling import Denoiser
from dian.diffusion.schedule import linear_schedule
from dian.errors import DianError
from dian.experiments.diffusion import evaluation, objective
from dian.experiments.diffusion.ddpm_evaluation import checksums, no_network
from dian.experiments.diffusion.evaluation import Evaluator
from dian.experiments.diffusion.guided import sample_classes
from dian.experiments.diffusion.samplers import Sampler
from dian.experiments.diffusion.set_comparison import (
    KEPT,
    compare,
    compare_real,
    measure_accuracy,
    search_neighbors,
)
from dian.experiments.parts import Parts
from dian.runs.experiment import Experiment, Job, Outcome
from dian.runs.record import load


@dataclass(frozen=True)
class Settings:
    """Which models are sampled, in which ways, and how many images are compared.

    ``models`` are names of records that begin with ``prefix``, separated by spaces.
    Each is sampled in all ``ways``, the first also in the ``variants``. A way is
    ``ddpm`` (Algorithm 2), ``ddim-`` and a number of steps, or Algorithm 2 with one
    change: ``beta_tilde``, ``no_clip``, or ``raw`` for the weights without averaging.
    With ``class-`` before it, the network is given a class, and the classes take turns.
    Differences of another model are taken from the first in the same way, those of the
    first from its first way.

    Each set has ``n`` images, which are sampled ``chunk`` at a time. The first model
    also samples ``guided`` images of given classes, by ``guided_steps`` of DDIM, for
    each of the guidance weights in ``guidance``. At most ``references`` sets of real
    images are compared, and an error comes from ``draws`` halves. The bound is that of
    ``bound_images`` test images; it is all that is computed if there are no ``ways``.
    If training images were ``held_out`` when the models were trained, they take the
    place of the test images.
    """

    prefix: str
    models: str
    ways: str
    variants: str = ""
    n: int = 5000
    chunk: int = 1000
    guidance: str = ""
    guided: int = 1000
    guided_steps: int = 50
    references: int = 20
    draws: int = 100
    bound_images: int = 500
    held_out: int = 0
    precision: str = "bfloat16"

    def records(self) -> dict[str, str]:
        """Return the name of each model's record."""
        return {key: self.prefix + key for key in self.models.split()}


class Model(NamedTuple):
    """What the record of a trained model holds."""

    settings: objective.Settings
    weights: dict[str, Tensor]
    vectors: dict[str, Tensor]
    """The weights of every seed, if they are recorded."""


class Data(NamedTuple):
    """What all models are compared with, and the models."""

    shared: evaluation.Data
    models: dict[str, Model]


def read_models(settings: Settings, quick: bool) -> Data:
    """Read the images, the networks that compare them, and the recorded models."""
    models = {}
    for key, name in settings.records().items():
        record = load(name)
        vectors = {
            array: torch.from_numpy(record.arrays[array])
            for array in (objective.AVERAGED, objective.RAW)
            if array in record.arrays
        }
        trained = objective.Settings(**record.settings)
        model = Model(trained, record.weights, vectors)
        models[key] = _short(model) if quick else model
    return Data(evaluation.read(quick), models)


def _short(model: Model) -> Model:
    """Give a model five timesteps, which end in nearly as much noise as all."""
    return model._replace(settings=replace(model.settings, T=5, beta_1=0.1, beta_T=0.9))


def run(settings: Settings, data: Data, job: Job) -> Outcome:
    """Sample all models, and compare the samples; the seed decides all randomness."""
    shared = data.shared
    if n := settings.held_out:
        shared = shared._replace(train=shared.train[:-n], test=shared.train[-n:])
    evaluator = Evaluator(shared, job.device, job.dtype)
    parts = Parts(_tasks(settings, data.models, evaluator, job))
    for _ in job.follow(parts):
        pass
    outcome, results = Outcome(), _joined(parts.results)
    _compare_all(settings, results, evaluator, shared.test.labels, outcome)
    if settings.bound_images:
        _bits(settings, data.models, results, outcome)
    outcome.arrays["real"] = evaluator.test[:KEPT].cpu()
    return outcome


def _compare_all(
    settings: Settings,
    results: dict[str, Tensor],
    evaluator: Evaluator,
    test_labels: Tensor,
    outcome: Outcome,
) -> None:
    """Compare the samples of all ways, and those of given classes."""
    bases, how = _first_of(settings), (settings.draws, outcome)
    if sets := {name: results[name] for name in bases}:
        compare(evaluator, sets, bases, *how)
        compare_real(evaluator, settings.n, "real", settings.references, outcome)
        search_neighbors(evaluator, next(iter(sets.values())), outcome)
    if weights := settings.guidance.split():
        first = settings.models.split()[0]
        sets = {f"guided-{w}": results[f"{first}/guided-{w}"] for w in weights}
        compare(evaluator, sets, dict.fromkeys(sets, f"guided-{weights[0]}"), *how)
        n = settings.guided
        compare_real(evaluator, n, "real_guided", settings.references, outcome)
        measure_accuracy(evaluator, sets, test_labels, outcome)


def _first_of(settings: Settings) -> dict[str, str]:
    """Return the set that each set of samples is compared with."""
    first, *others = settings.models.split()
    ways = settings.ways.split()
    found = {
        f"{first}/{way}": f"{first}/{ways[0]}"
        for way in (*ways, *settings.variants.split())
    }
    return found | {f"{key}/{way}": f"{first}/{way}" for key in others for way in ways}


def _tasks(
    settings: Settings, models: dict[str, Model], evaluator: Evaluator, job: Job
) -> dict[str, Callable[[], Tensor]]:
    """Return what computes each part of each result."""
    tasks = {}
    first = settings.models.split()[0]

    def add(name: str, total: int, compute: Callable[..., Tensor], *given) -> None:
        for number, begin in enumerate(range(0, total, settings.chunk)):
            part = range(begin, min(begin + settings.chunk, total))
            tasks[f"{name}/{number}"] = partial(compute, *given, part, job)

    for name in _first_of(settings):
        key, way = name.split("/")
        add(name, settings.n, _sample, models[key], way, settings)
    for w in settings.guidance.split():
        name = f"{first}/guided-{w}"
        add(name, settings.guided, _sample_guided, models[first], float(w), settings)
    for key, model in models.items():
        add(f"{key}/bits", settings.bound_images, _bound, model, evaluator)
    return tasks


def _joined(results: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join the parts of each result, along the images."""
    found: dict[str, list[Tensor]] = {}
    for name, part in results.items():
        found.setdefault(name.rpartition("/")[0], []).append(part)
    return {name: torch.cat(parts) for name, parts in found.items()}


def _sampler(
    model: Model, way: str, settings: Settings, part: range, job: Job
) -> Sampler:
    """Return what samples a part: noise depends on the part and the seed alone."""
    trained, where = model.settings, (job.device, job.dtype)
    weights = objective.RAW if way == "raw" else objective.AVERAGED
    network = _network(model, weights, job, settings.precision)
    clip = None if way == "no_clip" else 1.0
    return Sampler(
        linear_schedule(trained.T, trained.beta_1, trained.beta_T).to(job.device),
        Denoiser(network, trained.target, clip=clip),
        len(part),
        1_000_000 * (job.seed + 1) + part.start,
        *where,
    )


def _network(model: Model, weights: str, job: Job, precision: str) -> Predictor:
    """Return a recorded network, with the weights of the seed if there are several."""
    network = objective.build_unet(model.settings).requires_grad_(False)
    if weights in model.vectors:
        vector = model.vectors[weights][job.seed].float()
        vector_to_parameters(vector, network.parameters())
    elif weights == objective.AVERAGED:
        network.load_state_dict(model.weights)
    else:
        raise DianError(f"the record holds no {weights}; leave out the way 'raw'")
    network = network.to(job.device, job.dtype).eval()
    # A fifth faster in float32 on a CPU with AVX2; with AMX it makes no difference.
    network = network.to(memory_format=torch.channels_last)
    mixed = precision == "bfloat16" and job.dtype == torch.float32

    def predict(x_t: Tensor, t: Tensor, *y: Tensor) -> Tensor:
        with torch.autocast(job.device.type, torch.bfloat16, enabled=mixed):
            return network(x_t, t, *y).to(x_t.dtype)

    return predict


def _sample(
    model: Model, way: str, settings: Settings, part: range, job: Job
) -> Tensor:
    """Sample a part of a set, as bytes."""
    sampler = _sampler(model, way, settings, part, job)
    if way.startswith("class-"):
        y, way = _labels(part).to(job.device), way.removeprefix("class-")
        given = condition(sampler.denoiser.model, y)
        sampler = replace(sampler, denoiser=replace(sampler.denoiser, model=given))
    if way.startswith("ddim-"):
        steps = min(int(way.removeprefix("ddim-")), model.settings.T)
        return sampler.ddim(len(part), steps).cpu()
    variance = "beta_tilde" if way == "beta_tilde" else "beta"
    return sampler.ddpm(len(part), variance=variance).cpu()


def _sample_guided(
    model: Model, w: float, settings: Settings, part: range, job: Job
) -> Tensor:
    """Sample a part of a set with guidance; the classes take turns."""
    sampler = _sampler(model, "guided", settings, part, job)
    labels, network = _labels(part), sampler.denoiser.model
    steps = min(settings.guided_steps, model.settings.T)
    return sample_classes(sampler, network, labels, w, steps).cpu()


def _labels(part: range) -> Tensor:
    """Return the class of each image of a part."""
    return torch.tensor(part) % len(CLASSES)


def _bound(model: Model, evaluator: Evaluator, part: range, job: Job) -> Tensor:
    """Return all terms of the bound of some test images, a row for each image."""
    x = signed(evaluator.test[part.start : part.stop, None]).to(job.dtype)
    trained = model.settings
    bound = variational_bound(
        linear_schedule(trained.T, trained.beta_1, trained.beta_T).to(job.device),
        Denoiser(_network(model, objective.AVERAGED, job, "float32"), trained.target),
        x,
        generator=torch.Generator(job.device).manual_seed(job.seed + part.start),
    )
    return torch.cat([bound.prior[None], bound.terms, bound.square]).T.cpu()


def _bits(
    settings: Settings,
    models: dict[str, Model],
    results: dict[str, Tensor],
    outcome: Outcome,
) -> None:
    """Add the bits of each test image, and rate and distortion of the first model."""
    rows, d = [], 28 * 28
    for key, model in models.items():
        n = model.settings.T + 1
        prior, terms, square = results[f"{key}/bits"].T.split([1, n, n])
        bound = Bound(prior[0], terms, square)
        rows.append(total_bits(bound, d).double())
        if len(rows) == 1:
            rate, distortion = rate_distortion(bound, d)
            outcome.arrays["rate"] = rate.float()
            outcome.arrays["distortion"] = distortion.float()
    outcome.arrays["bits"] = bits = torch.stack(rows)
    for suffix, values in (("", bits), ("_difference", bits - bits[0])):
        error = values.std(1) / settings.bound_images**0.5
        for key, mean, se in zip(models, values.mean(1), error, strict=True):
            outcome.metrics[f"{key}/bits{suffix}"] = mean.item()
            outcome.metrics[f"{key}/bits{suffix}_error"] = se.item()


def smoke_settings(settings: Settings, data: Data) -> tuple[Settings, Data]:
    """Make an evaluation small, for a replay: a few images of everything."""
    shared = data.shared
    few = shared._replace(train=shared.train[:36], test=shared.test[:12])
    models = {key: _short(model) for key, model in data.models.items()}
    size = {"n": 8, "chunk": 5, "references": 3, "draws": 3}
    size |= {"guided": 8, "guided_steps": 2}
    size |= {"held_out": settings.held_out and 12}
    size["bound_images"] = settings.bound_images and 3
    return replace(settings, **size), Data(few, models)


def _quick(settings: Settings) -> Settings:
    """Return settings for a dry run on the bundled sample."""
    size = {"n": 20, "chunk": 10, "references": 5, "draws": 5, "guided": 20}
    size |= {"bound_images": settings.bound_images and 4}
    return replace(settings, **size, held_out=settings.held_out and 200)


OBJECTIVE = Settings(
    "ddpm-objective-",
    " ".join(objective.CHOICES),
    ways="ddpm",
    variants="beta_tilde no_clip raw ddim-100 ddim-50 ddim-20 ddim-10",
    n=500,
    bound_images=200,
)
CONDITIONAL = Settings(
    "ddpm-conditional-",
    "long",
    ways="class-ddim-50",
    chunk=250,
    bound_images=0,
    precision="float32",  # bfloat16 is fast on a CPU with AMX only
)
EVALUATIONS = {
    "ddpm-objective-evaluation": OBJECTIVE,
    # Of one model, in runs of a few hours on one core each, so that one can be repeated
    # without the others. Each sampled image starts from the same noise in all of them.
    "ddpm-conditional-long-evaluation": replace(CONDITIONAL, guidance="0 0.5 1 2 4"),
    "ddpm-conditional-long-steps": replace(
        CONDITIONAL, ways="class-ddim-100", variants="ddim-50 ddim-100"
    ),
    "ddpm-conditional-long-bits": replace(CONDITIONAL, ways="", bound_images=500),
    "ddpm-conditional-long-ancestral": replace(CONDITIONAL, ways="class-ddpm"),
    "ddpm-conditional-trials-evaluation": Settings(
        "ddpm-conditional-trial-",
        "small wide patches",
        ways="ddim-50",
        n=1000,
        bound_images=50,
        held_out=10_000,
    ),
}

EXPERIMENTS = tuple(
    Experiment(
        name=name,
        settings=settings,
        quick=_quick(settings),
        data=partial(read_models, settings),
        build=no_network,
        run=run,
        smoke_settings=smoke_settings,
        checksums=checksums(settings.records().values()),
        n_seed=3 if name.startswith("ddpm-objective") else 1,
    )
    for name, settings in EVALUATIONS.items()
)
