r"""Beyond the training length: small transformers that need to know positions.

The sequences of two tasks are generated from a seed. In *offset* the answer at each
position is the token a fixed number of positions earlier. In *latest* some tokens are
marked, and the answer is the last marked token so far, which may be the token itself.
Networks are trained on sequences of one length, and tested on eight times that length.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dian.attention.transformer import TokenTransformer
from dian.positions.registry import ENCODINGS, encoding
from dian.positions.rotary import RotaryEmbedding
from dian.positions.rotary_scaling import (
    ntk_aware,
    position_interpolation,
    yarn,
    yarn_attention_factor,
)
from dian.positions.sinusoidal import frequencies
from dian.runs.experiment import Experiment, Job, Outcome
from dian.training.loop import OPTIMIZERS, Training
from dian.training.loss import cross_entropy

FACTORS = (1, 2, 4, 8)
"""Test lengths, in units of the training length. The accuracy of each is that of the
positions which it adds to the previous length."""
N_TOKEN, SHARE_MARKED = 16, 1 / 8
N_TRAIN, N_TEST = 9600, 50


class Sequences(NamedTuple):
    """Tokens, the answer at each position, and whether there is one."""

    tokens: Tensor
    answers: Tensor
    asked: Tensor

    def first(self, n: int) -> "Sequences":
        """Return the first ``n`` sequences."""
        return Sequences(*(part[:n] for part in self))


Split = tuple[Sequences, Sequences]


@dataclass(frozen=True)
class Settings:
    """The hyperparameters: two small layers with causal attention.

    ``length`` is the training length; with YaRN, pairs that complete more than ``fast``
    rotations within it keep their frequency.
    """

    task: str
    encoding: str
    length: int = 64
    steps_back: int = 3
    d_model: int = 64
    n_head: int = 4
    n_layer: int = 2
    batch_size: int = 16
    clip: float = 1.0
    optimizer: str = "adam"
    learning_rate: float = 3e-3
    epochs: int = 1
    schedule: str = "one-cycle"
    fast: float = 8.0


def make_sequences(
    task: str, n: int, length: int, steps_back: int, generator: torch.Generator
) -> Sequences:
    """Draw ``n`` sequences of random tokens, and find the answers."""
    tokens = torch.randint(N_TOKEN, (n, length), generator=generator)
    positions = torch.arange(length).expand(n, length)
    if task == "offset":
        source = positions - steps_back
        return Sequences(tokens, tokens.roll(steps_back, 1), source >= 0)
    marked = torch.rand(n, length, generator=generator) < SHARE_MARKED
    source = torch.where(marked, positions, -1).cummax(1).values
    answers = tokens.gather(1, source.clamp(min=0))
    return Sequences(tokens + N_TOKEN * marked, answers, source >= 0)


def make_data(settings: Settings, quick: bool, seed: int = 12_345) -> Split:
    """Draw the training and test sequences, the same in every run."""
    generator = torch.Generator().manual_seed(seed)
    n_train, n_test = (320, 5) if quick else (N_TRAIN, N_TEST)
    length = QUICK["length"] if quick else settings.length
    draw = partial(make_sequences, settings.task)
    return (
        draw(n_train, length, settings.steps_back, generator),
        draw(n_test, FACTORS[-1] * length, settings.steps_back, generator),
    )


def smoke_settings(settings: Settings, split: Split) -> tuple[Settings, Split]:
    """Reduce a run to two epochs of 25 steps, with an incomplete last batch."""
    train, test = split
    few = train.first(25 * settings.batch_size - 1), test.first(2)
    return replace(settings, epochs=2), few


def network(
    settings: Settings, generator: torch.Generator | None = None
) -> TokenTransformer:
    """Build the network; most rows of a table of learned positions are not trained."""
    d_model, n_head = settings.d_model, settings.n_head
    longest = FACTORS[-1] * settings.length
    positions = encoding(
        settings.encoding, d_model, n_head, n_position=longest, generator=generator
    )
    return TokenTransformer(
        2 * N_TOKEN,
        N_TOKEN,
        d_model=d_model,
        n_head=n_head,
        n_layer=settings.n_layer,
        causal=True,
        generator=generator,
        **positions,
    )


def run(settings: Settings, split: Split, job: Job) -> Outcome:
    """Train one network; the seed sets initial weights and the order of the data."""
    train, test = (
        Sequences(*(part.to(job.device) for part in sequences)) for sequences in split
    )
    generator = torch.Generator().manual_seed(job.seed)
    model = network(settings, generator).to(job.device, job.dtype)
    training = Training(
        model,
        lambda tokens, answers, asked: cross_entropy(model(tokens), answers, asked),
        train,
        optimizer=OPTIMIZERS[settings.optimizer](
            model.parameters(), lr=settings.learning_rate
        ),
        schedule=settings.schedule,
        max_norm=settings.clip,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        generator=generator,
    )
    outcome = Outcome(series={"train/loss": []})
    for step in job.follow(training, outcome=outcome):
        if step.epoch_loss is not None:
            outcome.series["train/loss"].append(step.epoch_loss)
    outcome.losses = training.losses
    outcome.metrics = {"train/loss": outcome.series["train/loss"][-1]}
    outcome.weights = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    evaluate(model, test, settings, outcome)
    return outcome


def evaluate(
    model: nn.Module, test: Sequences, settings: Settings, outcome: Outcome
) -> None:
    """Add the accuracy at each position, and in each range of positions.

    A rotary network is evaluated again with each method of scaling its frequencies, by
    the factor that the length needs.
    """
    methods = {"plain": None}
    if settings.encoding == "rotary":
        methods |= {
            "interpolated": position_interpolation,
            "ntk": ntk_aware,
            "yarn": partial(
                yarn,
                original_max_positions=settings.length,
                beta_fast=settings.fast,
            ),
        }
    omega = frequencies(settings.d_model // settings.n_head)
    for name, method in methods.items():
        accuracy = torch.empty(FACTORS[-1] * settings.length)
        begin = 0
        for factor in FACTORS:
            end = factor * settings.length
            if method is not None:
                scale = yarn_attention_factor(float(factor)) if name == "yarn" else 1.0
                set_rope_frequencies(model, method(omega, float(factor)), scale)
            hits, asked = hits_by_position(model, test, end)
            hits, asked = hits[:, begin:], asked[:, begin:]
            mean = hits.sum() / asked.sum()
            outcome.metrics[f"{name}/accuracy/{factor}"] = mean.item()
            accuracy[begin:end] = (hits.sum(0) / asked.sum(0).clamp(min=1)).cpu()
            begin = end
        outcome.arrays[name] = accuracy


def set_rope_frequencies(model: TokenTransformer, omega: Tensor, factor: float) -> None:
    """Set frequencies and attention factor of all layers."""
    for layer in model.encoder.layers:
        rotary = RotaryEmbedding(2 * len(omega), omega=omega, attention_factor=factor)
        layer.attention.rotate = rotary.rotate


@torch.no_grad()
def hits_by_position(
    model: nn.Module, test: Sequences, length: int, batch_size: int = 10
) -> tuple[Tensor, Tensor]:
    """Return where predictions are correct, and where there is an answer."""
    model.eval()
    asked = test.asked[:, :length]
    predicted = torch.cat(
        [model(part).argmax(-1) for part in test.tokens[:, :length].split(batch_size)]
    )
    return (predicted == test.answers[:, :length]) & asked, asked


QUICK = {"length": 16}
EXPERIMENTS = tuple(
    Experiment(
        name=f"{task}-{name}",
        settings=Settings(task, name),
        quick=replace(Settings(task, name), **QUICK),
        data=partial(make_data, Settings(task, name)),
        build=network,
        run=run,
        smoke_settings=smoke_settings,
    )
    for task in ("offset", "latest")
    for name in ENCODINGS
)
