"""Denoising diffusion learns Fashion-MNIST: the recipe of Ho et al.

*Denoising Diffusion Probabilistic Models*, 2020, arXiv:2006.11239. Warm-up and
gradient clipping, which are in their code and not in their text, are hyperparameters
here. Clipping of the predicted image and the variance of the reverse steps do not
affect training: each choice is evaluated with the same weights.

The runs ``ddpm-conditional-...`` train a network that is also given the class of an
image, with labels dropped at random: Ho and Salimans, *Classifier-Free Diffusion
Guidance*, 2022, arXiv:2207.12598. The same weights sample with and without a class.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dian.data import CHECKSUMS, CLASSES, Images
from dian.diffusion.ema import EMA
from dian.diffusion.guidance import condition, drop_labels
from dian.diffusion.likelihood import bound_weight
from dian.diffusion.process import Model, draw_training_noise, training_loss
from dian.diffusion.sampling import Denoiser
from dian.diffusion.schedule import NoiseSchedule, linear_schedule
from dian.diffusion.unet import UNet
from dian.experiments.cuda_graph import TrainingGraph
from dian.experiments.diffusion.evaluation import (
    Data,
    Evaluator,
    checksums,
    evaluate_all,
    read,
)
from dian.experiments.diffusion.guided import evaluate_guidance
from dian.experiments.diffusion.samplers import SHOWN, Sampler
from dian.runs.experiment import Experiment, Job, Outcome
from dian.training.augmentation import random_horizontal_flip
from dian.training.loop import OPTIMIZERS, Training
from dian.training.schedules import SCHEDULES, linear_warm_up


@dataclass(frozen=True)
class Settings:
    """The hyperparameters, and how much is evaluated.

    ``weighting`` is ``simple`` or ``bound``; ``warm_up`` counts steps; ``precision`` is
    that of training and sampling, but not of the bound; ``channels_last`` and
    ``compiled``, training by a CUDA graph, have an effect on a GPU only. Algorithm 2
    makes ``samples`` images, each other method ``others``, ``chunk`` of them at a time.
    The loss after an epoch is that of the first ``chunk`` test images, the bound that
    of the first ``bound_images``.

    The last four are None in runs without classes: ``label_dropout`` is the fraction of
    labels dropped in training, ``guidance`` lists the guidance weights with which
    images are sampled after it. ``progress`` is how many samples are evaluated for each
    of these, and for the Fréchet distance after 1, 2, 4, ... epochs. The last
    ``held_out`` training images take the place of the test images: hyperparameters are
    chosen by them.
    """

    network: str = "base"
    target: str = "epsilon"
    weighting: str = "simple"
    T: int = 1000
    beta_1: float = 1e-4
    beta_T: float = 0.02
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 2e-4
    epochs: int = 45
    schedule: str = "constant"
    warm_up: int = 1000
    clip: float = 1.0
    ema: float = 0.9995
    flips: bool = True
    precision: str = "bfloat16"
    channels_last: bool = True
    compiled: bool = False
    samples: int = 5000
    others: int = 1500
    variants: bool = True
    ddim: str = "10 20 50 100 200 500 1000"
    bound_images: int = 500
    chunk: int = 1000
    label_dropout: float | None = None
    guidance: str | None = None
    progress: int | None = None
    held_out: int | None = None


class StatefulGenerator(torch.Generator):
    """A generator that a checkpoint can save."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state."""
        return {"state": self.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore a state."""
        self.set_state(state["state"])


class DiffusionModel:
    """A network in training, the EMA of its weights, and the models that use them."""

    def __init__(self, settings: Settings, job: Job, generator: torch.Generator):
        self.settings, self.job = settings, job
        self.network = self._place(build_unet(settings, generator))
        self.averaged_network = self._place(build_unet(settings, None)).eval()
        self.ema = EMA(self.network.named_parameters(), settings.ema)
        self.raw = self._with_precision(
            self.network, settings.precision, settings.compiled
        )
        self.averaged = self._with_precision(self.averaged_network, settings.precision)
        self.exact = self._with_precision(self.averaged_network, "float32")
        self.schedule = linear_schedule(
            settings.T, settings.beta_1, settings.beta_T
        ).to(job.device)
        self.weight = None
        if settings.weighting == "bound":
            self.weight = bound_weight(self.schedule, settings.target)

    def loss(
        self, model: Model, x_0: Tensor, t: Tensor, epsilon: Tensor, *y: Tensor
    ) -> Tensor:
        """Return the mean loss of some images; ``y`` are their classes, if given."""
        model = condition(model, *y) if y else model
        options = {"prediction_type": self.settings.target, "weight": self.weight}
        draws = (t, epsilon)
        return training_loss(self.schedule, model, x_0, draws=draws, **options).mean()

    def update_averaged(self) -> None:
        """Copy the EMA weights into their network, and set both to evaluation."""
        self.network.eval()
        self.averaged_network.load_state_dict(self.ema.average)

    def sampler(self) -> Sampler:
        """Return the sampler with the EMA weights."""
        job, settings = self.job, self.settings
        where = (settings.chunk, job.seed, job.device, job.dtype)
        denoiser = Denoiser(self.averaged, settings.target)
        return Sampler(self.schedule, denoiser, *where)

    def _place(self, network: UNet) -> UNet:
        network = network.to(self.job.device, self.job.dtype)
        if self.settings.channels_last and self.job.device.type == "cuda":
            network = network.to(memory_format=torch.channels_last)
        return network

    def _with_precision(
        self, network: nn.Module, precision: str, compiled: bool = False
    ) -> Model:
        mixed = precision == "bfloat16" and self.job.dtype == torch.float32
        kind = self.job.device.type
        options = {"dtype": torch.bfloat16, "enabled": mixed}
        if compiled and kind == "cuda":
            network = TrainingGraph(network)
            options["cache_enabled"] = False

        def model(x_t: Tensor, t: Tensor, *y: Tensor) -> Tensor:
            with torch.autocast(kind, **options):
                return network(x_t, t, *y).to(x_t.dtype)

        return model


def build_unet(settings: Settings, generator: torch.Generator | None = None) -> UNet:
    """Build the network; its initial weights are the same on every device."""
    classes = {} if settings.label_dropout is None else {"num_classes": len(CLASSES)}
    return UNet(settings.network, generator=generator, **classes)


def run(settings: Settings, data: Data, job: Job) -> Outcome:
    """Train one network, and evaluate its samples; the seed decides all randomness."""
    generator = torch.Generator().manual_seed(job.seed)
    noise = StatefulGenerator(job.device)
    noise.manual_seed(job.seed)
    model = DiffusionModel(settings, job, generator)
    if n := settings.held_out:
        data = data._replace(train=data.train[:-n], test=data.train[-n:])
    train, test = (_tensors(part, settings, job) for part in (data.train, data.test))
    evaluator = Evaluator(data, job.device, job.dtype)
    training = Training(
        model.network,
        lambda *batch: model.loss(model.raw, *batch),
        train,
        optimizer=OPTIMIZERS[settings.optimizer](
            model.network.parameters(),
            lr=settings.learning_rate,
            fused=job.device.type == "cuda",
        ),
        schedule=warmup_schedule(settings, len(data.train)),
        max_norm=settings.clip,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        generator=generator,
        transform=_transform(settings, model.schedule, generator, noise),
    )
    outcome = Outcome(series={"train/loss": [], "test/loss": [], "test/loss_raw": []})
    parts = {"noise": noise, "ema": model.ema, "outcome": outcome}
    for step in job.follow(training, **parts):
        model.ema.update(model.network.named_parameters())
        if step.epoch_loss is not None:
            outcome.series["train/loss"].append(step.epoch_loss)
            few = [part[: settings.chunk] for part in test]
            _evaluate_epoch(model, few, step.epoch, evaluator, outcome)
    outcome.losses = training.losses
    _evaluate(model, evaluator, outcome)
    return outcome


def _tensors(images: Images, settings: Settings, job: Job) -> tuple[Tensor, ...]:
    """Return the images as the network takes them, and their classes if it does."""
    x_0 = images.signed().unsqueeze(1).to(job.device, job.dtype)
    if settings.label_dropout is None:
        return (x_0,)
    return x_0, images.labels.to(job.device)


def _transform(
    settings: Settings,
    schedule: NoiseSchedule,
    generator: torch.Generator,
    noise: torch.Generator,
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return a function from images to the arguments of the loss."""

    def transform(x_0: Tensor, *y: Tensor) -> tuple[Tensor, ...]:
        if settings.flips:
            x_0 = random_horizontal_flip(x_0[:, 0], generator)[:, None]
        draws = draw_training_noise(schedule, x_0, noise)
        rate, null_class = settings.label_dropout, len(CLASSES)
        y = [drop_labels(labels, rate, null_class, generator) for labels in y]
        return x_0, *draws, *y

    return transform


@torch.no_grad()
def _evaluate_epoch(
    model: DiffusionModel,
    test: Sequence[Tensor],
    epoch: int,
    evaluator: Evaluator,
    outcome: Outcome,
) -> None:
    """Append the loss on some test images, and after some epochs also samples."""
    settings, job, (x_0, *y) = model.settings, model.job, test
    model.update_averaged()
    for key, network in (("test/loss", model.averaged), ("test/loss_raw", model.raw)):
        same = torch.Generator(job.device).manual_seed(job.seed)  # in each epoch
        draws = draw_training_noise(model.schedule, x_0, same)
        outcome.series[key].append(model.loss(network, x_0, *draws, *y).item())
    if not (math.log2(epoch).is_integer() or epoch == settings.epochs):
        return
    n = settings.progress or SHOWN
    images = model.sampler().ddim(n, min(50, settings.T))
    seen = {"progress": images[:SHOWN][None].cpu()}
    if settings.progress:
        seen["progress/epoch"] = torch.tensor([epoch])
        seen["progress/frechet"] = torch.tensor([evaluator(images)["frechet"]])
    for key, rows in seen.items():
        before = outcome.arrays.get(key, rows[:0])
        outcome.arrays[key] = torch.cat([before, rows])


def _evaluate(model: DiffusionModel, evaluator: Evaluator, outcome: Outcome) -> None:
    """Add the measurements after training, and the EMA weights."""
    job, settings = model.job, model.settings
    model.update_averaged()
    outcome.metrics = {key: row[-1] for key, row in outcome.series.items()}
    results = [
        evaluate_all(model.sampler(), model.raw, model.exact, evaluator, settings)
    ]
    if settings.guidance:
        options = {"n": settings.progress, "steps": min(50, settings.T)}
        options["weights"] = settings.guidance
        sampler = model.sampler()
        results.append(evaluate_guidance(sampler, model.averaged, evaluator, **options))
    for metrics, arrays in results:
        outcome.metrics |= metrics
        outcome.arrays |= arrays
    # Half as many bytes; a replay, in float64, compares the weights as they are.
    kind = torch.float16 if job.dtype == torch.float32 else job.dtype
    outcome.weights = {k: w.to("cpu", kind) for k, w in model.ema.average.items()}


def warmup_schedule(settings: Settings, n_samples: int) -> Callable[[float], float]:
    """Return the factor of the learning rate: it rises linearly in the first steps.

    >>> settings = Settings(batch_size=1, epochs=1, warm_up=4)
    >>> [warmup_schedule(settings, 8)(done / 8) for done in range(8)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    n_step = settings.epochs * math.ceil(n_samples / settings.batch_size)
    return linear_warm_up(SCHEDULES[settings.schedule], settings.warm_up, n_step)


def smoke_settings(settings: Settings, data: Data) -> tuple[Settings, Data]:
    """Make a whole run small, for a replay: a few steps of everything."""
    few = data._replace(train=data.train[:11], test=data.test[:12])
    # Five steps that end in nearly as much noise as a thousand do.
    short = {"T": 5, "beta_1": 0.1, "beta_T": 0.9, "ddim": "2 5", "warm_up": 2}
    size = {"batch_size": 4, "epochs": 2, "samples": 8, "others": 6}
    size |= {"bound_images": 3, "chunk": 5}
    if settings.label_dropout is not None:
        size |= {"progress": 6, "held_out": settings.held_out and 4}
    return replace(settings, **short, **size), few


def _quick(settings: Settings) -> Settings:
    """Return settings for a dry run on the bundled sample."""
    size = {"network": "tiny", "epochs": 2, "batch_size": 32, "warm_up": 10}
    short = {"T": 50, "beta_1": 2e-3, "beta_T": 0.4, "ddim": "5 10 50", "ema": 0.9}
    evaluated = {"samples": 20, "others": 10, "bound_images": 8}
    if settings.label_dropout is not None:
        evaluated |= {"progress": 20, "held_out": settings.held_out and 20}
    return replace(settings, **size, **short, **evaluated)


BASE = Settings()

SMALL = replace(
    BASE,
    network="small",
    batch_size=64,
    epochs=6,
    learning_rate=1e-3,
    schedule="cosine",
    warm_up=500,
    ema=0.999,
    samples=300,
    others=150,
    ddim="10 20 50 100",
    bound_images=32,
    chunk=100,
)

# Evaluated at little cost: more samples can be drawn from the recorded weights.
CONDITIONAL = replace(
    SMALL,
    network="patches",
    epochs=32,
    flips=False,
    samples=50,
    others=50,
    variants=False,
    ddim="",
    bound_images=16,
    chunk=500,
    label_dropout=0.1,
    guidance="0 1",
    progress=1000,
)

# For a GPU, which computes the step of a larger batch in about the same time. One core
# would take hours.
LONG = replace(
    CONDITIONAL, batch_size=500, epochs=64, learning_rate=1.5e-3, compiled=True
)

# Epochs of 50,000 images for each candidate network: about the same computing time.
TRIALS = {"small": 7, "wide": 4, "patches": 5}
TRIAL = replace(
    CONDITIONAL, samples=32, others=32, bound_images=8, guidance="0", held_out=10_000
)

EXPERIMENTS_BY_NAME = {
    "ddpm-fashion-mnist-base": BASE,
    "ddpm-fashion-mnist-small": SMALL,
    "ddpm-conditional-long": LONG,
    **{
        f"ddpm-conditional-trial-{network}": replace(
            TRIAL, network=network, epochs=epochs
        )
        for network, epochs in TRIALS.items()
    },
}

EXPERIMENTS = tuple(
    Experiment(
        name=name,
        settings=settings,
        quick=_quick(settings),
        data=read,
        build=build_unet,
        run=run,
        smoke_settings=smoke_settings,
        checksums=CHECKSUMS | checksums(),
        n_seed=1,
    )
    for name, settings in EXPERIMENTS_BY_NAME.items()
)
