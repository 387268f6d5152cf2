"""Denoising diffusion learns Fashion-MNIST: the recipe of Ho et al., and its parts.

*Denoising Diffusion Probabilistic Models*, 2020, arXiv:2006.11239. What their code does
and their text does not say is a setting here: warm-up, clipping of gradients. What
changes the samples and not the training, clipping and the variance, is judged in each
way from the same weights.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dian import data as images_of
from dian.diffusion.ema import EMA
from dian.diffusion.likelihood import bound_weight
from dian.diffusion.process import Model, training_loss
from dian.diffusion.schedule import linear_schedule
from dian.diffusion.unet import PRESETS, UNet
from dian.experiments.classification import subset
from dian.experiments.diffusion.evaluation import (
    Data,
    Evaluator,
    checksums,
    evaluate_all,
    read,
)
from dian.experiments.diffusion.samplers import SHOWN, Sampler, as_bytes
from dian.runs.experiment import Experiment, Outcome
from dian.training.augmentation import random_horizontal_flip
from dian.training.loop import OPTIMIZERS, fit
from dian.training.schedules import SCHEDULES


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen.

    ``weighting`` is ``simple`` or ``bound``; ``warm_up`` counts steps; ``precision`` is
    that of training and sampling, but not of the bound; ``channels_last`` and
    ``compiled`` concern a GPU alone. ``samples`` images are made by Algorithm 2,
    ``others`` in each other way, ``chunk`` of them at a time. The loss after an epoch
    is that of the first ``chunk`` test images, the bound that of the first
    ``bound_images``.
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


class StatefulGenerator:
    """A source of random numbers whose state a checkpoint can keep."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state."""
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self.generator.set_state(state["state"])


def run(
    settings: Settings,
    data: Data,
    seed: int,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    after_step: Callable[[int, int, float], None] | None = None,
    checkpoint=None,
) -> Outcome:
    """Train one network, and judge its samples; all that is random is from the seed."""
    generator = torch.Generator().manual_seed(seed)
    chance = StatefulGenerator(torch.Generator(device).manual_seed(seed))
    network = build_unet(settings, generator, device, dtype)
    shadow = build_unet(
        settings, None, device, dtype
    ).eval()  # gets the averaged weights
    ema = EMA(network.named_parameters(), settings.ema)
    schedule = linear_schedule(settings.T, settings.beta_1, settings.beta_T).to(device)
    outcome = Outcome(series={"train/loss": [], "test/loss": [], "test/loss_raw": []})
    train, test = (s.images.to(device, dtype) for s in (data.train, data.test))
    weight = None
    if settings.weighting == "bound":
        weight = bound_weight(schedule, settings.target)

    def loss_on(model: Model, images: Tensor, source: torch.Generator) -> Tensor:
        x_0 = 2 * images.unsqueeze(1) - 1
        options = {"target": settings.target, "weight": weight}
        return training_loss(schedule, model, x_0, generator=source, **options).mean()

    learner = with_precision(network, settings, device, dtype, settings.compiled)
    averaged = with_precision(shadow, settings, device, dtype)

    def loss_fn(index: Tensor) -> Tensor:
        batch = train[index]
        batch = random_horizontal_flip(batch, generator) if settings.flips else batch
        return loss_on(learner, batch, chance.generator)

    def after_each(done: int, total: int, loss: float) -> None:
        ema.update(network.named_parameters())
        if checkpoint is not None and done == total:
            checkpoint.every = 0.0  # the judging takes minutes: save before it, too
        if after_step is not None:
            after_step(done, total, loss)

    def sampler(model: Model) -> Sampler:
        how = (settings.target, settings.chunk, seed, device, dtype)
        return Sampler(schedule, model, *how)

    @torch.no_grad()
    def after_epoch(epoch: int, loss: float) -> None:
        network.eval()
        shadow.load_state_dict(ema.average)
        outcome.series["train/loss"].append(loss)
        for key, model in (("test/loss", averaged), ("test/loss_raw", learner)):
            same = torch.Generator(device).manual_seed(seed)  # in each epoch
            value = loss_on(model, test[: settings.chunk], same).item()
            outcome.series[key].append(value)
        if math.log2(epoch).is_integer() or epoch == settings.epochs:
            seen = as_bytes(sampler(averaged).ddim(SHOWN, min(50, settings.T)))[None]
            before = outcome.arrays.get("progress", seen[:0])
            outcome.arrays["progress"] = torch.cat([before, seen])

    optimizer = OPTIMIZERS[settings.optimizer]
    outcome.losses = fit(
        network,
        loss_fn,
        len(train),
        optimizer=optimizer(
            network.parameters(),
            lr=settings.learning_rate,
            fused=device.type == "cuda",
        ),
        schedule=warmup_schedule(settings, len(train)),
        clip=lambda parameters: clip_together(parameters, settings.clip),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        generator=generator,
        after_step=after_each,
        after_epoch=after_epoch,
        checkpoint=checkpoint,
        keep={"chance": chance, "ema": ema, "outcome": outcome},
    )
    network.eval()
    shadow.load_state_dict(ema.average)
    exact = with_precision(
        shadow, replace(settings, precision="float32"), device, dtype
    )
    metrics, arrays = evaluate_all(
        sampler(averaged), learner, exact, Evaluator(data, device, dtype), settings
    )
    outcome.metrics = {key: row[-1] for key, row in outcome.series.items()} | metrics
    outcome.arrays |= arrays
    # Half as many bytes; a replay, in float64, compares them as they are.
    kind = torch.float16 if dtype == torch.float32 else dtype
    outcome.weights = {name: w.to("cpu", kind) for name, w in ema.average.items()}
    return outcome


def build_unet(
    settings: Settings,
    generator: torch.Generator | None,
    device: torch.device,
    dtype: torch.dtype,
) -> UNet:
    """Make the network, with start weights that are the same on every device."""
    network = UNet(PRESETS[settings.network], generator).to(device, dtype)
    if settings.channels_last and device.type == "cuda":
        network = network.to(memory_format=torch.channels_last)
    return network


def with_precision(
    network: nn.Module,
    settings: Settings,
    device: torch.device,
    dtype: torch.dtype,
    compiled: bool = False,
) -> Model:
    """Return how the network is called: with which precision, and compiled or not."""
    mixed = settings.precision == "bfloat16" and dtype == torch.float32
    if compiled and device.type == "cuda":
        network = torch.compile(network)

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            return network(x_t, t).to(x_t.dtype)

    return model


def warmup_schedule(settings: Settings, n_samples: int) -> Callable[[float], float]:
    """Return the factor of the learning rate: it rises evenly in the first steps.

    >>> settings = Settings(batch_size=1, epochs=1, warm_up=4)
    >>> [warmup_schedule(settings, 8)(done / 8) for done in range(8)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    n_step = settings.epochs * math.ceil(n_samples / settings.batch_size)
    factor = SCHEDULES[settings.schedule]

    def at(progress: float) -> float:
        if not settings.warm_up:
            return factor(progress)
        done = round(progress * n_step)
        return factor(progress) * min(1.0, (done + 1) / settings.warm_up)

    return at


def clip_together(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Shorten the gradient to length ``max_norm`` if it is longer, in place.

    The same as :func:`dian.training.clipping.clip_by_norm`, but it waits for a GPU once
    and not for the norm of each parameter.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack(torch._foreach_norm(gradients, 2, torch.float64)).norm().item()
    if not math.isfinite(norm):
        raise ValueError(
            f"the gradient is not finite: its norm is {norm}, expected a number; lower "
            "the learning rate"
        )
    if norm > max_norm:
        torch._foreach_mul_(gradients, max_norm / norm)
    return norm


def smoke_settings(settings: Settings, data: Data) -> tuple[Settings, Data]:
    """Make a whole run small, for a replay: a few steps of everything."""
    few = data._replace(
        train=subset(data.train, slice(11)), test=subset(data.test, slice(12))
    )
    # Five steps that end in as much noise as a thousand do, nearly.
    short = {"T": 5, "beta_1": 0.1, "beta_T": 0.9, "ddim": "2 5", "warm_up": 2}
    size = {"batch_size": 4, "epochs": 2, "samples": 8, "others": 6}
    size |= {"bound_images": 3, "chunk": 5}
    return replace(settings, **short, **size), few


def _trial(settings: Settings) -> Settings:
    """Make settings for a trial of seconds on the bundled sample."""
    size = {"network": "tiny", "epochs": 2, "batch_size": 32, "warm_up": 10}
    short = {"T": 50, "beta_1": 2e-3, "beta_T": 0.4, "ddim": "5 10 50", "ema": 0.9}
    judged = {"samples": 20, "others": 10, "bound_images": 8}
    return replace(settings, **size, **short, **judged)


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

ABLATION = replace(
    BASE,
    network="small",
    epochs=22,
    learning_rate=5e-4,
    ema=0.999,
    samples=3000,
    others=3000,
    variants=False,
    ddim="",
    bound_images=500,
    chunk=3000,
)

# A chain of a quarter as many steps, which ends in as much noise, and one pass over the
# data: what one core does in some minutes.
ABLATION_SMALL = replace(
    ABLATION,
    T=250,
    beta_1=4e-4,
    beta_T=0.08,
    batch_size=64,
    epochs=1,
    learning_rate=1e-3,
    warm_up=100,
    ema=0.99,
    samples=200,
    others=100,
    bound_images=16,
    chunk=100,
)

CHOICES = {
    "reference": {"variants": True},
    "epsilon-bound": {"weighting": "bound"},
    "mu-bound": {"target": "mu", "weighting": "bound"},
    "mu-simple": {"target": "mu"},
    "no-warm-up": {"warm_up": 0},
    "no-flips": {"flips": False},
}
"""What each ablation changes; of the reference, other ways to sample are judged."""

EXPERIMENTS_BY_NAME = {
    "ddpm-fashion-mnist-base": BASE,
    "ddpm-fashion-mnist-small": SMALL,
    **{f"ddpm-ablation-{k}": replace(ABLATION, **v) for k, v in CHOICES.items()},
    **{
        f"ddpm-ablation-small-{k}": replace(ABLATION_SMALL, **v)
        for k, v in CHOICES.items()
    },
}

EXPERIMENTS = tuple(
    Experiment(
        name=name,
        settings=settings,
        quick=_trial(settings),
        data=read,
        checksums=images_of.CHECKSUMS | checksums(),
        run=run,
        smoke_settings=smoke_settings,
        n_seed=1,
    )
    for name, settings in EXPERIMENTS_BY_NAME.items()
)
