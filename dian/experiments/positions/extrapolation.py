r"""Beyond the training length: small transformers that need to know where things are.

Two tasks, which are made here from a seed. In *offset* the answer at each position is
the token that stood a fixed number of positions before. In *latest* some tokens are
marked, and the answer is the last of these, which may be the token itself. Networks are
trained with texts of one length, and tested with eight times as much.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from dian.attention.transformer import TokenTransformer
from dian.positions.registry import ENCODINGS, encoding
from dian.positions.rotary import rotate
from dian.positions.rotary_scaling import (
    ntk_aware,
    position_interpolation,
    yarn,
    yarn_factor,
)
from dian.positions.sinusoidal import frequencies
from dian.runs.checkpoint import Checkpoint
from dian.runs.experiment import Experiment, Outcome
from dian.training.clipping import clip_by_norm
from dian.training.loop import OPTIMIZERS, fit
from dian.training.loss import cross_entropy
from dian.training.schedules import SCHEDULES

FACTORS = (1, 2, 4, 8)
"""Lengths of the test, in units of the training length. One is judged by the positions
that the one before has not."""
N_TOKEN, SHARE_MARKED = 16, 1 / 8
N_TRAIN, N_TEST = 9600, 50


@dataclass(frozen=True)
class Texts:
    """Tokens, the right answer at each position, and where there is one."""

    tokens: Tensor
    answers: Tensor
    asked: Tensor


Split = tuple[Texts, Texts]


@dataclass(frozen=True)
class Settings:
    """Two small layers with causal attention; ``length`` is that of the training."""

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
    """Turns within the training length from which YaRN leaves a pair alone."""


def make_texts(
    task: str, n_text: int, length: int, steps_back: int, generator: torch.Generator
) -> Texts:
    """Draw texts of random tokens, and find the answers."""
    tokens = torch.randint(N_TOKEN, (n_text, length), generator=generator)
    places = torch.arange(length).expand(n_text, length)
    if task == "offset":
        source = places - steps_back
        return Texts(tokens, tokens.roll(steps_back, 1), source >= 0)
    marked = torch.rand(n_text, length, generator=generator) < SHARE_MARKED
    source = torch.where(marked, places, -1).cummax(1).values
    answers = tokens.gather(1, source.clamp(min=0))
    return Texts(tokens + N_TOKEN * marked, answers, source >= 0)


def make_data(quick: bool, settings: Settings, seed: int = 12_345) -> Split:
    """Draw the texts of the training and those of the test, the same in every run."""
    generator = torch.Generator().manual_seed(seed)
    n_train, n_test = (320, 5) if quick else (N_TRAIN, N_TEST)
    make = partial(make_texts, settings.task)
    back, length = settings.steps_back, settings.length
    return (
        make(n_train, length, back, generator),
        make(n_test, FACTORS[-1] * length, back, generator),
    )


def smoke_settings(settings: Settings, split: Split) -> tuple[Settings, Split]:
    """Make a whole run small: two epochs of 25 steps, the last batch incomplete."""
    (train, test), n = split, 25 * settings.batch_size - 1
    few = Texts(train.tokens[:n], train.answers[:n], train.asked[:n])
    some = Texts(test.tokens[:2], test.answers[:2], test.asked[:2])
    return replace(settings, epochs=2), (few, some)


def network(settings: Settings, generator: torch.Generator) -> TokenTransformer:
    """Make the network; learned positions have rows that no training ever touches."""
    d_model, n_head = settings.d_model, settings.n_head
    longest = FACTORS[-1] * settings.length
    ways = encoding(
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
        **ways,
    )


def run(
    settings: Settings,
    split: Split,
    seed: int,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    after_step=None,
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Train one network; start weights and order of the texts come from the seed."""
    train, test = (
        Texts(t.tokens.to(device), t.answers.to(device), t.asked.to(device))
        for t in split
    )
    generator = torch.Generator().manual_seed(seed)
    model = network(settings, generator).to(device, dtype)
    outcome = Outcome(series={"train/loss": []})

    def loss_fn(i: Tensor) -> Tensor:
        return cross_entropy(model(train.tokens[i]), train.answers[i], train.asked[i])

    outcome.losses = fit(
        model,
        loss_fn,
        len(train.tokens),
        optimizer=OPTIMIZERS[settings.optimizer](
            model.parameters(), lr=settings.learning_rate
        ),
        schedule=SCHEDULES[settings.schedule],
        clip=partial(clip_by_norm, max_norm=settings.clip),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        generator=generator,
        after_step=after_step,
        after_epoch=lambda _, loss: outcome.series["train/loss"].append(loss),
        checkpoint=checkpoint,
        keep={"outcome": outcome},
    )
    outcome.metrics = {"train/loss": outcome.series["train/loss"][-1]}
    outcome.weights = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    judge(model, test, settings, outcome)
    return outcome


def judge(model: nn.Module, test: Texts, settings: Settings, outcome: Outcome) -> None:
    """Tell how often each position is right, and each stretch of positions.

    A rotary network is judged once more with each way to stretch its frequencies, by
    as much as the length asks for.
    """
    ways = {"plain": None}
    if settings.encoding == "rotary":
        ways |= {
            "interpolated": position_interpolation,
            "ntk": ntk_aware,
            "yarn": partial(
                yarn, original_max_positions=settings.length, fast=settings.fast
            ),
        }
    omega = frequencies(settings.d_model // settings.n_head)
    for name, stretched in ways.items():
        right = torch.empty(FACTORS[-1] * settings.length)
        begin = 0
        for factor in FACTORS:
            end = factor * settings.length
            if stretched is not None:
                scale = yarn_factor(float(factor)) if name == "yarn" else 1.0
                turn_by(model, stretched(omega, scale=float(factor)), scale)
            hits, asked = correct(model, test, end)
            hits, asked = hits[:, begin:], asked[:, begin:]
            share = hits.sum() / asked.sum()
            outcome.metrics[f"{name}/accuracy/{factor}"] = share.item()
            right[begin:end] = (hits.sum(0) / asked.sum(0).clamp(min=1)).cpu()
            begin = end
        outcome.arrays[name] = right


def turn_by(model: TokenTransformer, omega: Tensor, factor: float) -> None:
    """Have all layers turn by these frequencies, and scale what they turn."""
    for layer in model.encoder.layers:
        layer.attention.rotate = lambda x, offset: (
            factor * rotate(x, omega, offset=offset)
        )


@torch.no_grad()
def correct(
    model: nn.Module, test: Texts, length: int, batch_size: int = 10
) -> tuple[Tensor, Tensor]:
    """Return where the first positions of each text are right, and where asked."""
    model.eval()
    asked = test.asked[:, :length]
    guessed = torch.cat(
        [model(part).argmax(-1) for part in test.tokens[:, :length].split(batch_size)]
    )
    return (guessed == test.answers[:, :length]) & asked, asked


def _experiment(settings: Settings) -> Experiment:
    return Experiment(
        name=f"{settings.task}-{settings.encoding}",
        settings=settings,
        quick=replace(settings, length=16),
        data=partial(_read, settings),
        checksums={},
        run=run,
        smoke_settings=smoke_settings,
    )


def _read(settings: Settings, quick: bool) -> Split:
    return make_data(quick, replace(settings, length=16) if quick else settings)


EXPERIMENTS = tuple(
    _experiment(Settings(task, name))
    for task in ("offset", "latest")
    for name in ENCODINGS
)
