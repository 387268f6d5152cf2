r"""Chapter 1: the optimizers of the recorded runs, and the loop that calls them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative, worst
from dian.training import clipping, loop, optimizers

N_STEP = 11
SHAPES = ((3,), (2, 5))

ADAM = "Kingma and Ba, Adam: a method for stochastic optimization, 2015, "
ADAM += "arXiv:1412.6980, algorithm 1"
ADAMW = "Loshchilov and Hutter, Decoupled weight decay regularization, 2019, "
ADAMW += "arXiv:1711.05101"


def gradients(seed: int) -> list[Tensor]:
    """An initial value and ``N_STEP`` gradients, some of them tiny."""
    theta, *grads = normal(seed, *(N_STEP + 1) * [SHAPES[1]])
    return [theta, *(10.0 ** (-3 * (t % 3)) * g for t, g in enumerate(grads))]


def closed_form(
    theta: Tensor, grads: list[Tensor], rates: list[float], decay: float
) -> list[Tensor]:
    """Adam's parameters after each step, from sums over all gradients so far."""
    path = []
    for t, rate in enumerate(rates, start=1):
        seen = list(enumerate(grads[:t], start=1))
        m = sum(0.1 * 0.9 ** (t - s) * g for s, g in seen) / (1 - 0.9**t)
        v = sum(0.001 * 0.999 ** (t - s) * g**2 for s, g in seen) / (1 - 0.999**t)
        theta = theta - rate * decay * theta - rate * m / (v**0.5 + 1e-8)
        path.append(theta)
    return path


def heavy_ball(
    theta: Tensor, grads: list[Tensor], rates: list[float], momentum: float
) -> list[Tensor]:
    """The parameters of SGD, from sums over all gradients so far."""
    path = []
    for t, rate in enumerate(rates):
        theta = theta - rate * sum(
            momentum ** (t - s) * g for s, g in enumerate(grads[: t + 1])
        )
        path.append(theta)
    return path


def by_torch(make: Callable, theta: Tensor, grads, rates) -> list[Tensor]:
    """The same from an optimizer of torch, whose rate is set before each step."""
    parameter, path = nn.Parameter(theta.clone()), []
    optimizer = make([parameter])
    for grad, rate in zip(grads, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = grad.clone()
        optimizer.step()
        path.append(parameter.detach().clone())
    return path


def by_us(step: Callable, state, theta: Tensor, grads, rates, **options):
    """The same from one of our functions."""
    path = []
    for grad, rate in zip(grads, rates, strict=True):
        theta, state = step(theta, grad, state, lr=rate, **options)
        path.append(theta)
    return path


@claim(
    "R20a",
    "SGD, Adam and AdamW",
    equations=("eq-sgd", "eq-adam", "eq-adam-first-step"),
    kinds="I E",
    tolerance=1e-12,
    source=f"{ADAM}; {ADAMW}",
    assumptions="eq-adam-first-step: no weight decay, and entries far above epsilon",
    subjects=(optimizers, loop, clipping),
    mutants=(
        Mutant("the velocity is an average", "sgd_step",
               "momentum * velocity + grad",
               "momentum * velocity + (1 - momentum) * grad"),
        Mutant("no correction of the first moment", "adam_step",
               "m / (1 - beta_1**step)", "m"),
        Mutant("no correction of the second moment", "adam_step",
               "v / (1 - beta_2**step)", "v"),
        Mutant("the step is counted from 0", "adam_step",
               "(beta_1, beta_2), step = betas, step + 1",
               "(beta_1, beta_2), step = betas, step + 2"),
        Mutant("epsilon inside the root", "adam_step",
               "v_hat.sqrt() + eps", "(v_hat + eps).sqrt()"),
        Mutant("the moments are exchanged", "adam_step",
               "betas, step + 1", "betas[::-1], step + 1"),
        Mutant("the weight decay is added to the gradient", "adam_step",
               "m = beta_1 * m + (1 - beta_1) * grad",
               "grad = grad + weight_decay * theta\n"
               "m = beta_1 * m + (1 - beta_1) * grad"),
        Mutant("the weight decay ignores the learning rate", "adam_step",
               "1 - lr * weight_decay", "1 - weight_decay"),
        Mutant("AdamW without weight decay", "OPTIMIZERS",
               "torch.optim.AdamW", "torch.optim.Adam", module=loop),
        Mutant("Adam with the weight decay of AdamW", "OPTIMIZERS",
               "torch.optim.Adam", "torch.optim.AdamW", module=loop),
        Mutant("the gradients add up", "Training._step",
               "self.optimizer.zero_grad()", "None", module=loop),
        Mutant("the schedule is one step ahead", "Training._step",
               "len(self.losses) / total", "(len(self.losses) + 1) / total",
               module=loop),
        Mutant("the factors of the schedule add up", "Training._step",
               "rate * self.schedule(len(self.losses) / total)",
               "group['lr'] * self.schedule(len(self.losses) / total)", module=loop),
        Mutant("the gradient is not clipped", "Training._step",
               "self.max_norm is not None", "False", module=loop),
        Mutant("each tensor is clipped separately", "clip_by_norm",
               "torch._foreach_mul_(gradients, max_norm / norm)",
               "[g.mul_(min(1, max_norm / g.norm())) for g in gradients]",
               module=clipping),
    ),
)  # fmt: skip
def updates() -> float:
    """Compare several steps with PyTorch's, and with sums over all gradients."""
    theta, *grads = gradients(0)
    rates = [0.1 / (1 + t) for t in range(N_STEP)]
    step, residuals = optimizers.adam_step, []
    for name, decay in (("adam", 0.0), ("adamw", 0.01)):
        expected = closed_form(theta, grads, rates, decay)
        # The calls of the recorded runs: on a CPU, and as on a GPU
        for options in ({}, {"fused": True}):
            found = by_torch(
                lambda p, name=name, options=options: loop.OPTIMIZERS[name](
                    p, lr=1.0, **options
                ),
                theta, grads, rates,
            )  # fmt: skip
            residuals.append(worst(found, expected))
        found = by_us(step, None, theta, grads, rates, weight_decay=decay)
        residuals.append(worst(found, expected))
    plain = by_us(optimizers.sgd_step, 0 * theta, theta, grads, rates)
    residuals.append(worst(plain, heavy_ball(theta, grads, rates, 0.0)))
    for momentum in (0.0, 0.9):
        expected = heavy_ball(theta, grads, rates, momentum)
        options = {"momentum": momentum} if momentum else {}
        found = by_torch(
            lambda p, options=options: loop.OPTIMIZERS["sgd"](p, lr=1.0, **options),
            theta, grads, rates,
        )  # fmt: skip
        ours = by_us(
            optimizers.sgd_step, 0 * theta, theta, grads, rates, momentum=momentum
        )
        residuals += [worst(found, expected), worst(ours, expected)]
    # The first step is the rate times the sign, whatever the size of the gradient
    for size in (1.0, 1e6, 1e12):
        first, _ = step(theta, size * grads[0].sign(), None, lr=0.1)
        bound = 1e-8 / size + 1e-15
        error = (first - (theta - 0.1 * grads[0].sign())).abs().max()
        residuals.append(holds(error <= bound))
    return largest([*residuals, *map(trained, RECIPES)])


def cycle(p: float) -> float:
    """The factor of one cycle, in one formula for each of its parts."""
    if p < 0.3:
        return 0.52 - 0.48 * math.cos(math.pi * p / 0.3)
    return 0.5 + 0.5 * math.cos(math.pi * (p - 0.3) / 0.7)


RECIPES = (
    ("sgd", "cosine", 0.2, lambda p: 0.5 + 0.5 * math.cos(math.pi * p)),
    ("adam", "constant", 0.05, lambda p: 1.0),
    ("adamw", "one-cycle", 0.05, cycle),
)
"""What the recorded runs combine: optimizer, schedule and rate; and its factors."""


def trained(recipe: tuple) -> float:
    """The loop makes the steps of the closed form: scheduled, and clipped together."""
    name, schedule, rate, factor = recipe
    starts, targets = normal(4, *SHAPES), normal(5, *SHAPES)
    model = nn.ParameterList([nn.Parameter(x.clone()) for x in starts])

    def loss_fn(_: Tensor) -> Tensor:
        pairs = zip(model, targets, strict=True)
        return sum(((theta - x) ** 2).sum() for theta, x in pairs) / 2

    training = loop.Training(
        model,
        loss_fn,
        (torch.zeros(3),),  # one batch an epoch
        optimizer=loop.OPTIMIZERS[name](model.parameters(), lr=rate),
        schedule=schedule,
        max_norm=1.0,
        batch_size=3,
        epochs=N_STEP,
    )
    path = [[x.detach().clone() for x in model] for _ in training]
    flat = [torch.cat([x.flatten() for x in xs]) for xs in (starts, targets, *path)]
    theta, target, *found = flat
    rates, grads, residuals = [], [], []
    start = theta
    for t, after in enumerate(found):
        grad = theta - target
        grads.append(grad / max(1.0, grad.norm().item()))
        rates.append(rate * factor(t / N_STEP))
        if name == "sgd":
            theta = heavy_ball(start, grads, rates, 0.0)[-1]
        else:
            theta = closed_form(start, grads, rates, 0.01 * (name == "adamw"))[-1]
        residuals.append(relative(after, theta))
    return largest(residuals)
