r"""Chapter 4: denoising diffusion.

Every statement is checked at every timestep of long and short schedules, because an
index that is off by one changes little at T = 1000, and much at T = 7. The expected
values are computed step by step from :math:`\beta_1` and :math:`\beta_T` alone.
"""

import math

import sympy
import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.claims.diffusion.by_hand import evenly, posterior_mean, recursion
from dian.diffusion import likelihood, process, sampling
from dian.diffusion import schedule as noise_schedule

HO = "Ho et al., Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239"
CHAINS = [(1000, 1e-4, 0.02), (50, 2e-3, 0.4), (7, 0.1, 0.6)]


@claim(
    "D1",
    "Many forward steps are one",
    equations=(
        "eq-diffusion-step",
        "eq-diffusion-marginal",
        "eq-diffusion-between",
    ),
    kinds="S E",
    tolerance=1e-10,
    source=f"{HO}, equations 2 and 4",
    assumptions="the noise of each step is independent and Gaussian",
    subjects=(process,),
    mutants=(
        Mutant("a sum in place of a product", "make_schedule",
               "alpha.cumprod(0)", "1 - beta.cumsum(0)", module=noise_schedule),
        Mutant("the schedule starts one step late", "make_schedule",
               "[beta.new_zeros(1), beta]", "[beta, beta.new_zeros(1)]",
               module=noise_schedule),
        Mutant("the noise is not under the root", "signal_and_noise",
               "(1 - schedule.alpha_bar).sqrt()", "1 - schedule.alpha_bar"),
        Mutant("the step before", "at_step",
               "table.to(x.device)[t]", "table.to(x.device)[t - 1]",
               module=noise_schedule),
        Mutant("the step before, for an int", "at_step",
               "return table[t].item()", "return table[max(t - 1, 0)].item()",
               module=noise_schedule),
        Mutant("signal and noise are exchanged", "q_sample",
               "signal * x_0 + noise * epsilon", "noise * x_0 + signal * epsilon"),
        Mutant("variance in place of deviation in the induction", "forward",
               "a * v + 1 - a", "a * v + sympy.sqrt(1 - a)", module=__name__),
    ),
)  # fmt: skip
def forward() -> float:
    """The induction step by symbols; the closed form against the recursion."""
    a, a_bar = sympy.symbols("alpha abar", positive=True)
    v = 1 - a_bar
    induction = sympy.simplify((a * v + 1 - a) - (1 - a * a_bar)) == 0
    residuals = [holds(bool(induction))]
    for T, first, last in CHAINS:
        schedule = noise_schedule.linear_schedule(T, first, last)
        beta = evenly(T, first, last)
        factor, variance = recursion(beta)
        t = torch.arange(T + 1)
        x_0, epsilon = normal(T, (T + 1, 2), (T + 1, 2))
        found = process.q_sample(schedule, x_0, t, epsilon)
        expected = factor[:, None] * x_0 + variance.sqrt()[:, None] * epsilon
        residuals += [
            relative(found, expected),
            relative(schedule.beta, beta),
            relative(schedule.alpha, 1 - beta),
        ]
        for s in (0, 1, T // 2, T):  # one timestep for all images
            found = process.q_sample(schedule, x_0, s, epsilon)
            expected = factor[s] * x_0 + variance[s].sqrt() * epsilon
            residuals.append(relative(found, expected))
        # and from any step s on: the same recursion, begun at s
        for s in (1, T // 3, T - 1):
            onward, spread = recursion(torch.cat([variance[:1], beta[s + 1 :]]))
            a = schedule.alpha_bar[s:] / schedule.alpha_bar[s]
            residuals += [relative(a.sqrt(), onward), relative(1 - a, spread)]
    return largest(residuals)


@claim(
    "D6",
    "The mean of a reverse step, from the noise",
    equations=("eq-diffusion-clean", "eq-diffusion-mean"),
    kinds="S E",
    tolerance=1e-10,
    source=f"{HO}, equations 10 and 15",
    subjects=(process, sampling),
    mutants=(
        Mutant("the image is divided by alpha-bar", "predict_x0",
               "(x_t - noise * epsilon) / signal",
               "(x_t - noise * epsilon) / signal**2"),
        Mutant("the noise is not scaled", "predict_x0",
               "(x_t - noise * epsilon) / signal", "(x_t - epsilon) / signal"),
        Mutant("the image is not scaled", "predict_epsilon",
               "signal * x_0", "x_0"),
        Mutant("the root of alpha is missing", "reverse_mean",
               "(x_t - beta / noise * epsilon) / alpha**0.5",
               "(x_t - beta / noise * epsilon) / alpha", module=sampling),
        Mutant("the noise is added", "reverse_mean",
               "x_t - beta / noise * epsilon", "x_t + beta / noise * epsilon",
               module=sampling),
        Mutant("the root of 1 - alpha-bar is missing", "reverse_mean",
               "beta / noise * epsilon", "beta / noise**2 * epsilon",
               module=sampling),
        Mutant("the root of 1 - alpha-bar is missing in the formula", "reparametrised",
               "b / sympy.sqrt(1 - a_bar) * e", "b / (1 - a_bar) * e", module=__name__),
    ),
)  # fmt: skip
def reparametrised() -> float:
    """Compare both forms of the posterior mean, by symbols and at every timestep."""
    a_before, b, x, e = sympy.symbols("before beta x_t epsilon", positive=True)
    a_bar = a_before * (1 - b)
    x_0 = (x - sympy.sqrt(1 - a_bar) * e) / sympy.sqrt(a_bar)
    c_0 = sympy.sqrt(a_before) * b / (1 - a_bar)
    c_1 = sympy.sqrt(1 - b) * (1 - a_before) / (1 - a_bar)
    mean = (x - b / sympy.sqrt(1 - a_bar) * e) / sympy.sqrt(1 - b)
    residuals = [holds(sympy.simplify(c_0 * x_0 + c_1 * x - mean) == 0)]
    for T, first, last in CHAINS:
        schedule = noise_schedule.linear_schedule(T, first, last)
        beta = evenly(T, first, last)
        factor, variance = recursion(beta)
        t = torch.arange(1, T + 1)
        x_0, epsilon = normal(T, (T, 2), (T, 2))
        x_t = factor[t, None] * x_0 + variance[t, None].sqrt() * epsilon
        mean = posterior_mean(beta, t, x_0, x_t)
        residuals += [
            relative(process.predict_x0(schedule, x_t, t, epsilon), x_0),
            relative(process.predict_epsilon(schedule, x_t, t, x_0), epsilon),
            relative(sampling.reverse_mean(schedule, x_t, t, epsilon), mean),
        ]
        for s in (1, 2, T):  # one timestep for all images, as the samplers ask
            clean, noisy, noise = (x[s - 1 : s] for x in (x_0, x_t, epsilon))
            mean = posterior_mean(beta, torch.tensor([s]), clean, noisy)
            residuals += [
                relative(sampling.reverse_mean(schedule, noisy, s, noise), mean),
                relative(process.predict_x0(schedule, noisy, s, noise), clean),
            ]
    return largest(residuals)


@claim(
    "D7",
    "Prediction parameterizations",
    equations=("eq-diffusion-v", "eq-diffusion-score", "eq-diffusion-losses"),
    kinds="S E",
    tolerance=1e-8,
    source="Salimans and Ho, Progressive Distillation, 2022, arXiv:2202.00512; "
    f"{HO}, section 3.2",
    subjects=(process,),
    mutants=(
        Mutant("v with the wrong sign", "training_target",
               "signal * epsilon - noise * x_0", "signal * epsilon + noise * x_0"),
        Mutant("signal and noise swapped in v", "predict_x0",
               "signal * x_t - noise * prediction",
               "noise * x_t - signal * prediction"),
        Mutant("the score is not divided by the noise", "training_target",
               "return -epsilon / noise", "return -epsilon"),
        Mutant("the noise is not squared in Tweedie's formula", "predict_x0",
               "epsilon = -noise * prediction", "epsilon = -prediction"),
        Mutant("the posterior mean without x_t", "training_target",
               "at_step(c_0, t, x_0) * x_0 + at_step(c_1, t, x_0) * x_t",
               "at_step(c_0, t, x_0) * x_0 + at_step(c_1, t, x_0) * x_0"),
        Mutant("the mean is not multiplied by the root of alpha", "predict_x0",
               "(x_t - root * prediction) * noise / beta",
               "(x_t - prediction) * noise / beta"),
        Mutant("the loss of v is that of epsilon", "targets",
               "1 + snr", "snr", module=__name__),
    ),
)  # fmt: skip
def targets() -> float:
    """Each prediction type determines the image; squared errors have known ratios."""
    residuals = []
    for T, first, last in CHAINS:
        schedule = noise_schedule.linear_schedule(T, first, last)
        beta = evenly(T, first, last)
        t = torch.arange(1, T + 1)
        x_0, epsilon, wrong = normal(T, (T, 2), (T, 2), (T, 2))
        factor, variance = (x[t, None] for x in recursion(beta))
        x_t = factor * x_0 + variance.sqrt() * epsilon
        snr = factor**2 / variance
        before = recursion(beta)[0][t - 1, None]
        expected = {
            "epsilon": epsilon,
            "x_0": x_0,
            "v": factor * epsilon - variance.sqrt() * x_0,
            "mu": posterior_mean(beta, t, x_0, x_t),
            "score": -(x_t - factor * x_0) / variance,
        }
        # The error of each, if the error of the corresponding image is `wrong`.
        square = {
            "epsilon": snr,
            "x_0": 1,
            "v": 1 + snr,
            "mu": (before * beta[t, None] / variance) ** 2,
            "score": snr / variance,
        }
        off_noise = (x_t - factor * (x_0 + wrong)) / variance.sqrt()
        for name in process.PREDICTION_TYPES:
            y = process.training_target(schedule, x_0, t, epsilon, name)
            off = process.training_target(schedule, x_0 + wrong, t, off_noise, name) - y
            residuals += [
                relative(y, expected[name]),
                relative(process.predict_x0(schedule, x_t, t, y, name), x_0),
                (off**2 / (square[name] * wrong**2) - 1).abs().max(),
            ]
        v, score, alpha = expected["v"], expected["score"], 1 - beta[t, None]
        residuals += [
            relative(variance.sqrt() * x_t + factor * v, epsilon),
            relative(expected["mu"], (x_t + beta[t, None] * score) / alpha.sqrt()),
        ]
    return largest(residuals)


@claim(
    "D8a",
    "Algorithm 1",
    equations=("eq-diffusion-training",),
    kinds="I G M",
    tolerance=1e-10,
    source=f"{HO}, Algorithm 1 and equation 14",
    subjects=(process, likelihood),
    mutants=(
        Mutant("timestep 0 is drawn, and T is not", "draw_training_noise",
               "torch.randint(1, T + 1, x_0.shape[:1], generator=generator, "
               "device=place)",
               "torch.randint(0, T, x_0.shape[:1], generator=generator, device=place)"),
        Mutant("T is not drawn", "draw_training_noise", "T + 1", "T"),
        Mutant("uniform noise", "standard_normal",
               "torch.randn(like.shape, generator=generator, dtype=dtype, "
               "device=place)",
               "torch.rand(like.shape, generator=generator, dtype=dtype, "
               "device=place)"),
        Mutant("the model is called with the timestep before", "training_loss",
               "model(q_sample(schedule, x_0, t, epsilon), t)",
               "model(q_sample(schedule, x_0, t, epsilon), t - 1)"),
        Mutant("the model is called with the clean image", "training_loss",
               "model(q_sample(schedule, x_0, t, epsilon), t)", "model(x_0, t)"),
        Mutant("the absolute error", "training_loss",
               "error.square().flatten(1)", "error.abs().flatten(1)"),
        Mutant("a sum over the entries", "training_loss",
               "error.square().flatten(1).mean(1)", "error.square().flatten(1).sum(1)"),
        Mutant("one timestep for the whole batch", "draw_training_noise",
               "torch.randint(1, T + 1, x_0.shape[:1], generator=generator, "
               "device=place)",
               "torch.randint(1, T + 1, x_0.shape[:1], generator=generator, "
               "device=place)[:1].expand(len(x_0))"),
        Mutant("the prediction type is ignored", "training_loss",
               "training_target(schedule, clean, t, epsilon, prediction_type)",
               "training_target(schedule, clean, t, epsilon)"),
        Mutant("the weight of the step before", "training_loss",
               "at_step(weight, t, loss)", "at_step(weight, t - 1, loss)"),
        Mutant("the weight is ignored", "training_loss",
               "loss if weight is None else at_step(weight, t, loss) * loss", "loss"),
        Mutant("draws that are given are ignored", "training_loss",
               "draws or draw_training_noise(schedule, x_0, generator)",
               "draw_training_noise(schedule, x_0, generator)"),
        Mutant("half of the gradient is missing", "training_loss",
               "error.square()", "error * error.detach()"),
        Mutant("the bound's weight of epsilon for every type", "bound_weight",
               "torch.ones_like(beta)",
               "beta**2 / (alpha * (1 - alpha_bar))", module=likelihood),
    ),
)  # fmt: skip
def algorithm_1() -> float:
    """Compare loss and gradient of every target and weight; check t and epsilon."""
    beta = evenly(7, 0.1, 0.6)
    return largest([*drawn_by_generator(beta), *draws_given(beta)])


def drawn_by_generator(beta: Tensor) -> list[float]:
    """Timesteps and noise, seen from the inputs of the model."""
    T, n, d = len(beta) - 1, 7000, 3
    schedule = noise_schedule.linear_schedule(T, beta[1].item(), beta[-1].item())
    factor, variance = recursion(beta)
    shown = []

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        shown.append((x_t, t))
        return torch.sin(x_t) * t[:, None]

    (x_0,) = normal(1, (n, d))
    generator = torch.Generator().manual_seed(0)
    found = process.training_loss(schedule, model, x_0, generator=generator)
    [(x_t, t)] = shown
    epsilon = (x_t - factor[t, None] * x_0) / variance[t, None].sqrt()
    expected = ((epsilon - torch.sin(x_t) * t[:, None]) ** 2).sum(1) / d
    counts = t.bincount(minlength=T + 1)
    spread = math.sqrt(n / T * (1 - 1 / T))  # the standard error of each count
    entries = n * d
    return [
        relative(found, expected),
        holds(bool(counts[0] == 0 and len(counts) == T + 1)),
        holds(bool(((counts[1:] - n / T).abs() < 5 * spread).all())),
        holds(bool(abs(epsilon.mean()) < 5 / entries**0.5)),
        holds(bool(abs(epsilon.var() - 1) < 5 * (2 / entries) ** 0.5)),
        holds(bool(abs((epsilon**4).mean() - 3) < 5 * (96 / entries) ** 0.5)),
    ]


def draws_given(beta: Tensor) -> list[float]:
    """Compare every target with and without weights, as the recorded runs call it."""
    T, d = len(beta) - 1, 6
    schedule = noise_schedule.linear_schedule(T, beta[1].item(), beta[-1].item())
    factor, variance = recursion(beta)
    t = torch.tensor([*range(T, 0, -1), *range(1, T + 1)])
    x_0, epsilon = normal(2, (2 * T, 1, 2, 3), (2 * T, 1, 2, 3))
    a, v = (x[t].view(-1, 1, 1, 1) for x in (factor, variance))
    x_t = a * x_0 + v.sqrt() * epsilon
    weights = {  # half of the squared error of the mean over beta_t
        "epsilon": beta / (2 * (1 - beta) * variance),
        "mu": 1 / (2 * beta),
    }
    target = {
        "epsilon": epsilon,
        "x_0": x_0,
        "v": a * epsilon - v.sqrt() * x_0,
        "mu": posterior_mean(beta, t, x_0, x_t),
        "score": -epsilon / v.sqrt(),
    }
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    guess = torch.sin(x_t) * t.view(-1, 1, 1, 1)
    residuals = []
    for name, y in target.items():
        error = y - 0.7 * guess
        tables = [(None, 1 + 0 * beta), (2 + torch.arange(T + 1.0).double() ** 2,) * 2]
        if name in weights:
            tables.append((likelihood.bound_weight(schedule, name), weights[name]))
        for given, weight in tables:
            loss = process.training_loss(
                schedule,
                lambda x, at: scale * torch.sin(x) * at.view(-1, 1, 1, 1),
                x_0,
                prediction_type=name,
                weight=given,
                draws=(t, epsilon),
            )
            [slope] = torch.autograd.grad(loss.mean(), scale)
            expected = weight[t] * (error**2).flatten(1).sum(1) / d
            by_scale = weight[t] * (-2 * error * guess).flatten(1).sum(1) / d
            residuals += [
                relative(loss.detach(), expected),
                relative(slope, by_scale.mean()),
            ]
    return residuals
