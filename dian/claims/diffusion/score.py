r"""Chapter 4: score matching, and diffusion in continuous time.

Everything is compared on mixtures of Gaussians on a line, whose densities, scores and
distribution functions are written out here. Expectations are sums over fine grids.
"""

import math
from itertools import pairwise

import sympy
import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import complex_step, holds, largest, normal, relative
from dian.diffusion import process, sampling, score
from dian.diffusion import schedule as noise_schedule

SONG = "Song et al., Score-Based Generative Modeling through Stochastic Differential "
SONG += "Equations, 2021, arXiv:2011.13456"
VINCENT = "Vincent, A Connection Between Score Matching and Denoising Autoencoders, "
VINCENT += "2011"
KARRAS = "Karras et al., Elucidating the Design Space of Diffusion-Based Generative "
KARRAS += "Models, 2022, arXiv:2206.00364"
WEIGHT, MEAN, VARIANCE = (0.3, 0.7), (-0.6, 0.5), (0.02, 0.04)


def parts(x: Tensor, a: float) -> list[tuple[Tensor, Tensor, float]]:
    """Weighted density, distance from the mean and variance of each part at x_t."""
    found = []
    for w, m, s2 in zip(WEIGHT, MEAN, VARIANCE, strict=True):
        off, v = x - math.sqrt(a) * m, a * s2 + 1 - a
        density = torch.exp(-(off**2) / (2 * v)) / math.sqrt(2 * math.pi * v)
        found.append((w * density, off, v))
    return found


def density_and_score(x: Tensor, a: float) -> tuple[Tensor, Tensor]:
    """The density of x_t, and the derivative of its logarithm."""
    q = sum(p for p, _, _ in parts(x, a))
    return q, sum(-p * off / v for p, off, v in parts(x, a)) / q.clamp(min=1e-300)


@claim(
    "D20a",
    "The training loss is weighted score matching",
    equations=("eq-diffusion-score-matching", "eq-diffusion-simple-score"),
    kinds="Q",
    tolerance=1e-9,
    source=f"{VINCENT}; Song and Ermon, Generative Modeling by Estimating Gradients of "
    "the Data Distribution, 2019, arXiv:1907.05600",
    assumptions="the densities are smooth and vanish at infinity",
    subjects=(process,),
    mutants=(
        Mutant("the sign of the score", "training_target",
               "-epsilon / noise", "epsilon / noise"),
        Mutant("the noise is not divided by its deviation", "training_target",
               "-epsilon / noise", "-epsilon"),
        Mutant("the variance in place of the deviation", "training_target",
               "-epsilon / noise", "-epsilon / noise**2"),
        Mutant("the noise is not scaled", "q_sample",
               "signal * x_0 + noise * epsilon", "signal * x_0 + epsilon"),
        Mutant("the weight of the step before", "training_loss",
               "at_step(weight, t, loss)", "at_step(weight, t - 1, loss)"),
        Mutant("a tenth too much noise", "signal_and_noise",
               "(1 - schedule.alpha_bar).sqrt()",
               "(1.1 * (1 - schedule.alpha_bar)).sqrt()"),
    ),
)  # fmt: skip
def score_matching() -> float:
    """The loss that trains, summed over images and noise, against the true score."""
    T, first, last, h = 10, 0.01, 0.5, 0.02
    schedule = noise_schedule.linear_schedule(T, first, last)
    beta = [first + (last - first) * i / (T - 1) for i in range(T)]
    clean = torch.arange(-2, 2, h, dtype=torch.float64)
    noise = torch.arange(-7, 7, 5 * h, dtype=torch.float64)
    x_0, epsilon = (
        part.flatten() for part in torch.meshgrid(clean, noise, indexing="ij")
    )
    data = sum(p for p, _, _ in parts(x_0, 1.0))
    mass = data * torch.exp(-(epsilon**2) / 2) / math.sqrt(2 * math.pi) * 5 * h**2
    x = torch.arange(-9, 9, h, dtype=torch.float64)
    weight = 1 - schedule.alpha_bar
    residuals = []
    for step in (1, 4, T):
        a = math.prod(1 - b for b in beta[:step])

        def guess(x_t: Tensor, t: Tensor) -> Tensor:
            return 0.5 * torch.sin(2 * x_t) - 0.1 * x_t * t[0]

        def as_noise(x_t: Tensor, t: Tensor, a: float = a) -> Tensor:
            return -math.sqrt(1 - a) * guess(x_t, t)

        t = torch.full((len(x_0),), step)
        draws = {"draws": (t, epsilon[:, None])}
        of_score, weighted, simple = (
            (process.training_loss(schedule, model, x_0[:, None], **options) * mass)
            .sum()
            .item()
            for model, options in (
                (guess, {"prediction_type": "score"} | draws),
                (guess, {"prediction_type": "score", "weight": weight} | draws),
                (as_noise, draws),
            )
        )
        q, true = density_and_score(x, a)
        far = ((guess(x, t) - true) ** 2 * q).sum().item() * h
        least = 1 / (1 - a) - (true**2 * q).sum().item() * h
        residuals += [
            abs(of_score / (far + least) - 1),
            abs(simple / ((1 - a) * (far + least)) - 1),
            abs(weighted / simple - 1),
        ]
    return largest(residuals)


@claim(
    "D20b",
    "The forward process in continuous time",
    equations=("eq-diffusion-sde", "eq-diffusion-sde-marginal"),
    kinds="S C Q",
    tolerance=1e-9,
    source=f"{SONG}, section 3.4 and appendix B",
    assumptions="beta is a linear function of time",
    subjects=(score, noise_schedule),
    mutants=(
        Mutant("the slope is not halved", "alpha_bar_at",
               "time**2 / 2 * (beta_max - beta_min)",
               "time**2 * (beta_max - beta_min)"),
        Mutant("the first rate is left out", "alpha_bar_at",
               "-time * beta_min - time**2 / 2 * (beta_max - beta_min)",
               "-(time**2 / 2 * (beta_max - beta_min))"),
        Mutant("half of the rate, as for the amplitude", "alpha_bar_at",
               "(-time * beta_min - time**2 / 2 * (beta_max - beta_min)).exp()",
               "((-time * beta_min - time**2 / 2 * (beta_max - beta_min)) / 2).exp()"),
        Mutant("the rate grows from 0", "beta_at",
               "beta_min + time * (beta_max - beta_min)", "time * beta_max"),
        Mutant("the chain takes the ends in the other order", "linear_schedule",
               "torch.linspace(beta_start, beta_end, T, dtype=torch.float64)",
               "torch.linspace(beta_end, beta_start, T, dtype=torch.float64)",
               module=noise_schedule),
    ),
)  # fmt: skip
def continuous() -> float:
    """One step to first order; the integral of the rate; the limit of chains."""
    b, n = sympy.symbols("beta n", positive=True)
    step = sympy.series(sympy.sqrt(1 - b * n), n, 0, 2).removeO()
    residuals = [holds(sympy.simplify(step - 1 + b * n / 2) == 0)]
    time = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    ends = (0.3, 12.0)
    fine = torch.linspace(0, 1, 4001, dtype=torch.float64)
    rate = score.beta_at(fine, *ends)
    for i in (1000, 2800, 4000):  # the trapezoid rule is exact for a line
        area = torch.trapezoid(rate[: i + 1], fine[: i + 1]).item()
        found = score.alpha_bar_at(fine[i], *ends)
        residuals.append(abs(found.item() / math.exp(-area) - 1))
    # variance 1 - alpha-bar: dv = beta (1 - v) dt
    slope = complex_step(lambda t: score.alpha_bar_at(t, *ends).sum(), time)
    decay = -score.beta_at(time, *ends) * score.alpha_bar_at(time, *ends)
    residuals.append(relative(slope, decay))
    # twice as many steps halve the distance from the limit, at any time
    for part in (0.25, 1.0):
        logs = []
        for T in (2000, 4000, 8000):
            chain = noise_schedule.linear_schedule(T, ends[0] / T, ends[1] / T)
            logs.append(chain.alpha_bar[round(part * T)].log().item())
        limit = score.alpha_bar_at(torch.tensor(part).double(), *ends).log().item()
        near = [2 * y - x for x, y in pairwise(logs)]
        residuals += [
            holds(abs((4 * near[1] - near[0]) / 3 - limit) < 1e-7),
            holds(1.9 < (logs[0] - limit) / (logs[1] - limit) < 2.1),
        ]
    return largest(residuals)


@claim(
    "D20c",
    "The probability-flow ODE and the reverse SDE",
    equations=(
        "eq-diffusion-continuity",
        "eq-diffusion-flow",
        "eq-diffusion-reverse-sde",
    ),
    kinds="N E",
    tolerance=1e-8,
    source=f"{SONG}, equations 6 and 13; Anderson, Reverse-time diffusion equation "
    "models, 1982",
    assumptions="the density is that of a mixture of Gaussians",
    subjects=(score, sampling),
    mutants=(
        Mutant("twice the score, as in the reverse SDE", "flow_velocity",
               "-beta / 2 * (x + score)", "-beta / 2 * (x + 2 * score)"),
        Mutant("the sign of the score", "flow_velocity",
               "-beta / 2 * (x + score)", "-beta / 2 * (x - score)"),
        Mutant("without the factor 1/2", "flow_velocity",
               "-beta / 2 * (x + score)", "-beta * (x + score)"),
        Mutant("the drift is missing", "flow_velocity",
               "-beta / 2 * (x + score)", "-beta / 2 * score"),
        Mutant("half of the noise is removed", "reverse_mean",
               "x_t - beta / noise * epsilon", "x_t - beta / noise * epsilon / 2",
               module=sampling),
        Mutant("the root of alpha is missing", "reverse_mean",
               "(x_t - beta / noise * epsilon) / alpha**0.5",
               "x_t - beta / noise * epsilon", module=sampling),
    ),
)  # fmt: skip
def reverse_processes() -> float:
    """The flux of probability, by distribution functions; Algorithm 2 in the limit."""
    x = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64)
    ends, h = (0.1, 20.0), 3e-4
    residuals = []
    for time in (0.05, 0.3, 0.8):

        def below(shift: int, time: float = time) -> Tensor:
            a = math.exp(-area(time + shift * h, *ends))
            total = 0
            for w, m, s2 in zip(WEIGHT, MEAN, VARIANCE, strict=True):
                off, v = x - math.sqrt(a) * m, a * s2 + 1 - a
                total = total + w * torch.special.erfc(-off / math.sqrt(2 * v)) / 2
            return total

        # a derivative of sixth order in h
        rate = (
            45 * (below(1) - below(-1)) - 9 * (below(2) - below(-2))
            + below(3) - below(-3)
        ) / (60 * h)  # fmt: skip
        a = math.exp(-area(time, *ends))
        q, slope = density_and_score(x, a)
        beta = 0 * x + ends[0] + time * (ends[1] - ends[0])
        residuals.append(relative(score.flow_velocity(beta, x, slope) * q, -rate))
        residuals += limit_of_steps(x, time, ends)
    return largest(residuals)


def area(time: float, first: float, last: float) -> float:
    """The integral of the rate from 0 to a time."""
    return first * time + (last - first) * time**2 / 2


def limit_of_steps(x: Tensor, time: float, ends: tuple) -> list[float]:
    """T times one step of Algorithm 2, as T grows; the noise of a step is exact."""
    beta = ends[0] + time * (ends[1] - ends[0])
    drift = []
    for T in (4000, 8000, 16000):
        chain = noise_schedule.linear_schedule(T, ends[0] / T, ends[1] / T)
        step = round(time * T)
        a = chain.alpha_bar[step].item()
        _, slope = density_and_score(x, a)
        epsilon = -math.sqrt(1 - a) * slope
        mean = sampling.reverse_mean(chain, x[:, None], step, epsilon[:, None])[:, 0]
        drift.append(T * (mean - x))
    near = [2 * b - a for a, b in pairwise(drift)]
    limit = (4 * near[1] - near[0]) / 3
    _, slope = density_and_score(x, math.exp(-area(time, *ends)))
    return [holds(relative(limit, beta * (x / 2 + slope)) < 1e-5)]


@claim(
    "D20d",
    "DDIM is Euler's method for the probability-flow ODE",
    equations=(
        "eq-diffusion-flow-coordinates",
        "eq-diffusion-flow-euler",
        "eq-diffusion-flow-gaussian",
    ),
    kinds="S I E",
    tolerance=1e-10,
    source=f"{SONG}, section 4.3; {KARRAS}, Algorithm 1, for Heun's method; Song, Meng "
    "and Ermon, Denoising Diffusion Implicit Models, 2021, arXiv:2010.02502",
    assumptions="for the last equation: Gaussian data and the exact noise",
    subjects=(score, sampling),
    mutants=(
        Mutant("the coordinates are not scaled back", "ode_sample",
               "signal[t] * x_bar", "x_bar"),
        Mutant("the start is not scaled", "ode_sample",
               "x / signal[steps[-1]]", "x"),
        Mutant("sigma is the deviation of x_t", "ode_sample",
               "(1 / schedule.alpha_bar - 1).sqrt()",
               "(1 - schedule.alpha_bar).sqrt()"),
        Mutant("one slope in place of the mean of two", "ode_sample",
               "step * (first + slope(after, s)) / 2", "step * first"),
        Mutant("the second slope alone", "ode_sample",
               "step * (first + slope(after, s)) / 2", "step * slope(after, s)"),
        Mutant("the second slope at the first time", "ode_sample",
               "slope(after, s)", "slope(after, t)"),
        Mutant("the argument method is ignored", "ode_sample",
               "method == 'heun' and s > 0", "s > 0"),
        Mutant("DDIM with noise", "ddim_sample",
               "eta**2", "(eta + 0.1)**2", module=sampling),
    ),
)  # fmt: skip
def euler() -> float:
    """In symbols; against DDIM and a loop over plain numbers; the exact solution."""
    x, e, a, b = sympy.symbols("x epsilon a b", positive=True)
    clean = (x - sympy.sqrt(1 - a) * e) / sympy.sqrt(a)
    after = sympy.sqrt(b) * clean + sympy.sqrt(1 - b) * e
    step = sympy.sqrt(1 / b - 1) - sympy.sqrt(1 / a - 1)
    gap = after / sympy.sqrt(b) - x / sympy.sqrt(a) - step * e
    residuals = [holds(sympy.simplify(gap) == 0)]
    # along the flow, d(x_bar) = epsilon d(sigma), where d(alpha-bar) = -beta alpha-bar
    beta, s, t = sympy.symbols("beta score t")
    signal = sympy.Function("signal", positive=True)(t)
    x_of_t = sympy.Function("x")(t)
    known = {
        signal.diff(t): -beta * signal,
        x_of_t.diff(t): -beta / 2 * (x_of_t + s),
    }
    by_time = [
        f.diff(t).subs(known)
        for f in (x_of_t / sympy.sqrt(signal), sympy.sqrt(1 / signal - 1))
    ]
    slope = by_time[0] / by_time[1] + sympy.sqrt(1 - signal) * s
    half = slope.subs(signal, 1 / (1 + sympy.Symbol("sigma", positive=True) ** 2))
    residuals.append(holds(sympy.simplify(half) == 0))
    return largest([*residuals, *by_loops(), *on_gaussian_data()])


def by_loops() -> list[float]:
    """Both methods with a model that is no exact one, with and without clipping."""
    T, first, last = 12, 0.02, 0.4
    chain = noise_schedule.linear_schedule(T, first, last)
    beta = [first + (last - first) * i / (T - 1) for i in range(T)]
    signal = [math.prod(1 - b for b in beta[:t]) for t in range(T + 1)]
    [x_T] = normal(0, (5, 1))

    def epsilon(x: float, t: int, clip: float | None) -> float:
        a, guess = signal[t], math.sin(2 * x) + 0.05 * t
        clean = (x - math.sqrt(1 - a) * guess) / math.sqrt(a)
        clean = clean if clip is None else min(max(clean, -clip), clip)
        return (x - math.sqrt(a) * clean) / math.sqrt(1 - a)

    def by_hand(x: float, steps: list[int], clip: float | None) -> float:
        for s, t in reversed([*pairwise([0, *steps])]):
            x_bar, step = (
                x / math.sqrt(signal[t]),
                math.sqrt(1 / signal[s] - 1) - math.sqrt(1 / signal[t] - 1),
            )
            slope = epsilon(x, t, clip)
            if s:
                there = math.sqrt(signal[s]) * (x_bar + step * slope)
                slope = (slope + epsilon(there, s, clip)) / 2
            x = math.sqrt(signal[s]) * (x_bar + step * slope)
        return x

    residuals = []
    for clip in (None, 0.7):
        denoiser = sampling.Denoiser(
            lambda x, t: torch.sin(2 * x) + 0.05 * t[:, None].double(), clip=clip
        )
        for steps in (4, [1, 2, 7, 11]):
            whole = [3, 6, 9, 12] if steps == 4 else steps
            options = {"steps": steps}
            plain = score.ode_sample(chain, denoiser, x_T, method="euler", **options)
            heun = score.ode_sample(chain, denoiser, x_T, method="heun", **options)
            expected = [[by_hand(x, whole, clip)] for x in x_T[:, 0].tolist()]
            residuals += [
                relative(plain, sampling.ddim_sample(chain, denoiser, x_T, **options)),
                relative(heun, torch.tensor(expected, dtype=torch.float64)),
            ]
    return residuals


def on_gaussian_data() -> list[float]:
    """Twice as many steps: half of Euler's error, a quarter of Heun's."""
    T, m, s2 = 1000, 0.3, 0.25
    chain = noise_schedule.linear_schedule(T)
    beta = [1e-4 + (0.02 - 1e-4) * i / (T - 1) for i in range(T)]
    a_T = math.prod(1 - b for b in beta)
    v_T = a_T * s2 + 1 - a_T
    x_T = torch.tensor([[1.5], [-0.7]], dtype=torch.float64)
    exact = m + math.sqrt(s2 / v_T) * (x_T - math.sqrt(a_T) * m)

    def model(x: Tensor, t: Tensor) -> Tensor:
        a = chain.alpha_bar[t][:, None]
        return (1 - a).sqrt() * (x - a.sqrt() * m) / (a * s2 + 1 - a)

    denoiser = sampling.Denoiser(model, clip=None)
    residuals = []
    for method, order in (("euler", 1), ("heun", 2)):
        errors = []
        for n in (16, 32, 64):
            # closer together near the data, where the last step is Euler's
            steps = [round(T * (i / n) ** 2) for i in range(1, n + 1)]
            steps = sorted({max(1, t) for t in steps})
            found = score.ode_sample(chain, denoiser, x_T, steps=steps, method=method)
            errors.append((found - exact).abs().max().item())
        ratio = (errors[0] - errors[1]) / (errors[1] - errors[2])
        residuals.append(holds(abs(math.log2(ratio) - order) < 0.15))
        residuals.append(holds(errors[-1] < (0.03 if order == 1 else 0.002)))
    return residuals
