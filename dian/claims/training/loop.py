"""Chapter 1: how a network starts, and the steps that train it."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from dian import data
from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, relative
from dian.claims.rnn.recurrence import plain_states
from dian.rnn import networks
from dian.runs.record import load
from dian.training import loop, loss

SIDE, H, N_IMAGE, N_CLASS = 7, 31, 13, 10


@claim(
    "R17",
    "Start-up checks",
    equations=("eq-start-loss",),
    kinds="E M T",
    tolerance=0.02,
    source="Karpathy, A recipe for training neural networks, 2019",
    assumptions="labels independent of the start weights, and small logits: the next "
    "term of the expansion is left out. The residual is in nats, of the mean over 60 "
    "networks",
    subjects=(networks, loop, loss),
    mutants=(
        Mutant("the bias of the output does not start at zero",
               "RNNClassifier.__init__",
               "torch.zeros(num_classes)", "torch.arange(1.0 * num_classes)"),
        Mutant("the output weights are normal, of four times the variance",
               "RNNClassifier.__init__", "xavier_(self.W_hq, generator=generator)",
               "nn.init.xavier_normal_(self.W_hq, 2.0, generator)"),
        Mutant("only the classes that are wrong are counted", "start_losses",
               "(1 - 1 / N_CLASS) / 2 * variance", "variance * 2", module=__name__),
        Mutant("the images do not reach the network", "RNNClassifier.forward",
               "time_first(x, self.input_size)",
               "time_first(0 * x, self.input_size)"),
        Mutant("no step is made", "Training._step",
               "self.optimizer.step()", "None", module=loop),
        Mutant("a loss that is not finite does not stop", "Training._step",
               "not math.isfinite(self.losses[-1])", "False", module=loop),
        Mutant("the loss is a sum", "cross_entropy",
               "return nll.mean()", "return nll.sum()", module=loss),
    ),
)  # fmt: skip
def start() -> float:
    """The first loss is predicted, one batch is learned by heart, a NaN stops the run.

    The first loss of the recorded run, of five networks, is near the logarithm too.
    """
    generator = torch.Generator().manual_seed(0)
    model = networks.RNNClassifier(SIDE, H, N_CLASS, generator=generator)
    images = torch.rand(N_IMAGE, SIDE, SIDE, generator=generator)
    labels = torch.randint(N_CLASS, (N_IMAGE,), generator=generator)

    def losses_of(epochs: int, factor: float = 1.0) -> list[float]:
        training = loop.Training(
            model,
            lambda x, y: factor * loss.cross_entropy(model(x), y),
            (images, labels),
            optimizer=torch.optim.Adam(model.parameters(), lr=1e-2),
            batch_size=N_IMAGE,
            epochs=epochs,
            generator=generator,
        )
        return [step.loss for step in training]

    losses = losses_of(100)
    try:
        losses_of(1, factor=math.nan)
        stopped = False
    except FloatingPointError as error:  # at the loss, not after the last step
        stopped = "the loss is" in str(error)
    record = load("rnn-fashion-mnist").series
    recorded = np.concatenate([v.ravel() for k, v in record.items() if "loss" in k])
    excess = record["test/loss"][:, 0] - math.log(N_CLASS)
    return largest(
        [
            start_losses(),
            holds(bool((excess > 0).all() and (excess < 0.5).all())),
            holds(losses[-1] < 0.01),
            holds(bool(np.isfinite(recorded).all())),
            holds(stopped),
        ]
    )


def start_losses(n_network: int = 60) -> float:
    """The first loss of networks of the study's shape, and its expansion.

    It is averaged over all labels, since a label is independent of the weights. The
    variance of a logit follows from the length of the last state, which a recurrence
    that is not ours computes, and from the variance of Xavier weights.
    """
    images = data.sample("train")[:50].unit()
    h, gaps = 128, []
    for seed in range(n_network):
        generator = torch.Generator().manual_seed(seed)
        model = networks.RNNClassifier(28, h, N_CLASS, generator=generator)
        with torch.no_grad():
            logits = model(images)
            layer = model.rnn
            weights = layer.W_xh, layer.W_hh, layer.b_h
            zero = torch.zeros(len(images), h)
            last = plain_states(images.unbind(1), *weights, zero)[-1]
        found = [
            loss.cross_entropy(logits, torch.full((len(images),), label))
            for label in range(N_CLASS)
        ]
        variance = last.square().sum(1).mean() * 2 / (h + N_CLASS)
        expected = math.log(N_CLASS) + (1 - 1 / N_CLASS) / 2 * variance
        gaps.append(torch.stack(found).mean() - expected)
    return abs(torch.stack(gaps).mean().item())


def least_squares(seed: int) -> tuple[nn.Module, tuple[Tensor, ...], Callable]:
    """A linear model in float64 with its data, and the gradient of its loss."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(11, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(11, 1, generator=generator, dtype=torch.float64)
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.ones(1, 3))

    def gradient(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return 2 * (x @ w.T - y).T @ x / len(x)

    return model, (x, y), gradient


OPTIONS = {"epochs": 3, "batch_size": 4}
RATE, MAX_NORM = 0.3, 0.8


def training_run(model: nn.Module, batch: tuple[Tensor, ...], modes: list):
    """A run with every option of a recorded one: schedule, clipping, augmentation."""

    def loss_fn(x: Tensor, y: Tensor) -> Tensor:
        modes.append(model.training)
        return (model(x) - y).square().mean()

    return loop.Training(
        model,
        loss_fn,
        batch,
        optimizer=torch.optim.SGD(model.parameters(), lr=RATE),
        generator=torch.Generator().manual_seed(7),
        schedule="cosine",
        max_norm=MAX_NORM,
        transform=lambda x, y: (x + 0.1, 2 * y),
        **OPTIONS,
    )


@claim(
    "R22",
    "The training loop: steps of gradient descent",
    equations=("eq-training-step",),
    kinds="I E",
    tolerance=1e-10,
    source="Goodfellow et al., Deep Learning, 2016, algorithm 8.1, for the step; "
    "Pascanu et al., 2013, arXiv:1211.5063, for clipping",
    subjects=(loop,),
    mutants=(
        Mutant("the schedule is one step ahead", "Training._step",
               "self.schedule(len(self.losses) / total)",
               "self.schedule((len(self.losses) + 1) / total)"),
        Mutant("the schedule is that of each epoch", "Training._step",
               "self.schedule(len(self.losses) / total)",
               "self.schedule(self.done / self.steps_per_epoch)"),
        Mutant("the rate of the last step is scaled again", "Training._step",
               "group['lr'] = rate * self.schedule(len(self.losses) / total)",
               "group['lr'] *= self.schedule(len(self.losses) / total)"),
        Mutant("gradients add up over the steps", "Training._step",
               "self.optimizer.zero_grad()", "None"),
        Mutant("nothing is clipped", "Training._step",
               "self.max_norm is not None", "False"),
        Mutant("the batch is not transformed", "Training._step",
               "self.transform(*batch)", "batch"),
        Mutant("every epoch has the same order", "Training.__iter__",
               "self.epoch, self.done, self.order = (self.epoch + 1, 0, None)",
               "self.epoch, self.done = self.epoch + 1, 0"),
        Mutant("the items are not shuffled", "Training._batches",
               "torch.randperm(len(self.data[0]), generator=self.generator)",
               "torch.arange(len(self.data[0]))"),
        Mutant("the targets keep their order", "Training._batches",
               "tuple(part[index] for part in self.data)",
               "(self.data[0][index], self.data[1][:len(index)])"),
        Mutant("a smaller last batch is no step", "Training.steps_per_epoch",
               "math.ceil(len(self.data[0]) / self.batch_size)",
               "len(self.data[0]) // self.batch_size"),
        Mutant("one epoch less", "Training.__iter__",
               "self.epoch <= self.epochs", "self.epoch < self.epochs"),
        Mutant("the network stays in evaluation mode", "Training._step",
               "self.model.train()", "None"),
        Mutant("the loss of an epoch is that of its last step", "Training._step",
               "sum(recent) / len(recent)", "recent[-1]"),
        Mutant("the loss of an epoch is that of all steps so far", "Training._step",
               "self.losses[-self.steps_per_epoch:]", "self.losses"),
        Mutant("a resumed run begins its epoch again", "Training._batches",
               "self.order.split(self.batch_size)[self.done:]",
               "self.order.split(self.batch_size)"),
        Mutant("the order is not part of the state", "POSITION",
               "('losses', 'epoch', 'done', 'order')", "('losses', 'epoch', 'done')"),
        Mutant("the generator is not part of the state", "Training.load_state_dict",
               "self.generator.set_state(state['generator'])", "None"),
    ),
)  # fmt: skip
def steps() -> float:
    """A run equals a loop written from the formula, also if it was interrupted."""
    model, batch, gradient = least_squares(0)
    modes: list[bool] = []
    training, told = training_run(model, batch, modes), []
    for step in training:
        told.append((step.loss, step.grad_norm or 0.0, step.epoch_loss or 0.0))
        model.eval()  # as an evaluation between two steps leaves it
    w, expected = by_formula(batch, gradient)
    if len(told) != len(expected):
        return math.inf
    found = torch.tensor(told, dtype=torch.float64)
    return largest(
        [
            relative(model.weight.detach(), w),
            relative(found, torch.tensor(expected, dtype=torch.float64)),
            holds(all(modes)),
            *(resumed(batch, n_step, w) for n_step in (2, 3, 4)),
        ]
    )


def by_formula(batch: tuple[Tensor, ...], gradient) -> tuple[Tensor, list[tuple]]:
    """The steps of the equation, with the order that the generator gives."""
    x, y = batch
    w, told = torch.ones(1, 3, dtype=torch.float64), []
    generator = torch.Generator().manual_seed(7)
    for _ in range(3):
        of_epoch = []
        for index in torch.randperm(11, generator=generator).split(4):
            inputs, targets = x[index] + 0.1, 2 * y[index]
            of_epoch.append((inputs @ w.T - targets).square().mean().item())
            g = gradient(w, inputs, targets)
            norm = g.square().sum().sqrt().item()
            scale = (1 + math.cos(math.pi * len(told) / 9)) / 2
            w = w - RATE * scale * min(1.0, MAX_NORM / norm) * g
            told.append((of_epoch[-1], norm, 0.0))
        told[-1] = (*told[-1][:2], sum(of_epoch) / 3)
    return w, told


def resumed(batch: tuple[Tensor, ...], n_step: int, w: Tensor) -> float:
    """Stop after some steps, and go on from the state in a new run."""
    begun = training_run(least_squares(0)[0], batch, [])
    for _ in zip(range(n_step), begun, strict=False):
        pass
    # before the generator draws again
    state = {k: v for k, v in begun.state_dict().items() if k != "model"}
    state["model"] = {k: v.clone() for k, v in begun.model.state_dict().items()}
    model, *_ = least_squares(0)
    rest = training_run(model, batch, [])
    rest.load_state_dict(state)
    for _ in rest:
        pass
    return relative(model.weight.detach(), w)
