"""What the network predicts and how its loss is weighted, each with three seeds.

Four training runs of the same budget: the network predicts the noise or the mean of the
reverse step, and the loss is weighted simply or as in the bound (Ho et al., 2020,
table 2). Little is evaluated here. A record holds the EMA weights of all seeds,
and :mod:`dian.experiments.diffusion.paired_evaluation` compares them with common noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dian.data import CHECKSUMS
from dian.diffusion.unet import UNet
from dian.experiments.diffusion import ddpm, evaluation
from dian.experiments.diffusion.evaluation import Data
from dian.runs.experiment import Experiment, Job, Outcome

AVERAGED = "weights/averaged"
"""The array with the EMA weights of each seed, as one vector."""
RAW = "weights/raw"
"""The array with the weights that are not averaged, if they are kept."""


@dataclass(frozen=True)
class Settings(ddpm.Settings):
    """The hyperparameters; ``keep_raw`` also records the weights without averaging."""

    keep_raw: bool = False


class WatchingJob(Job):
    """A job that keeps the network which is trained in it."""

    network: nn.Module

    def follow(self, training, **parts):
        """Yield the steps, as every job does."""
        self.network = training.model
        return super().follow(training, **parts)


def build_unet(settings: Settings, generator: torch.Generator | None = None) -> UNet:
    """Build the network, like the other diffusion experiments."""
    return ddpm.build_unet(settings, generator)


def run(settings: Settings, data: Data, job: Job) -> Outcome:
    """Train one network, and add the weights of this seed to the arrays."""
    watching = WatchingJob(**vars(job))
    outcome = ddpm.run(settings, data, watching)
    named = watching.network.named_parameters()
    averaged = [outcome.weights[name] for name, _ in named]
    # As vectors, which are recorded for every seed; the weights are those of the first.
    outcome.arrays[AVERAGED] = _vector(averaged)
    if settings.keep_raw:
        raw = [p.detach() for p in watching.network.parameters()]
        outcome.arrays[RAW] = _vector(raw)
    return outcome


def _vector(weights: Sequence[Tensor]) -> Tensor:
    """Return all weights as one vector, whatever their layout in memory."""
    return torch.cat([w.flatten() for w in weights]).cpu().half()


# A quarter of the timesteps, which end in as much noise: minutes on a GPU.
OBJECTIVE = Settings(
    network="small",
    T=250,
    beta_1=4e-4,
    beta_T=0.08,
    batch_size=64,
    learning_rate=1e-3,
    epochs=3,
    warm_up=100,
    ema=0.998,
    flips=False,
    compiled=True,
    samples=50,
    others=50,
    variants=False,
    ddim="",
    bound_images=4,
    chunk=100,
)

CHOICES = {
    "epsilon-simple": {"keep_raw": True},
    "epsilon-bound": {"weighting": "bound"},
    "mu-simple": {"target": "mu"},
    "mu-bound": {"target": "mu", "weighting": "bound"},
}
"""The first is the recipe of Ho et al.; its weights are sampled in more ways."""


def _quick(settings: Settings) -> Settings:
    """Return settings for a dry run on the bundled sample."""
    size = {"network": "tiny", "epochs": 2, "batch_size": 32, "warm_up": 10, "T": 50}
    noise = {"beta_1": 2e-3, "beta_T": 0.4, "ema": 0.9}
    return replace(
        settings, **size, **noise, samples=20, others=10, bound_images=2, chunk=20
    )


EXPERIMENTS = tuple(
    Experiment(
        name=f"ddpm-objective-{name}",
        settings=settings,
        quick=_quick(settings),
        data=evaluation.read,
        build=build_unet,
        run=run,
        smoke_settings=ddpm.smoke_settings,
        checksums=CHECKSUMS | evaluation.checksums(),
        n_seed=3,
    )
    for name, settings in {
        name: replace(OBJECTIVE, **changes) for name, changes in CHOICES.items()
    }.items()
)
