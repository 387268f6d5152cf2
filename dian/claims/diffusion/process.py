r"""Chapter 4: denoising diffusion.

Every statement is checked at every timestep of long and short schedules: an index that
is off by one changes little at T = 1000, and much at T = 7.
"""

import math

import sympy
import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.diffusion import process
from dian.diffusion import schedule as noise_schedule

HO = "Ho et al., Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239"
CHAINS = [(1000, 1e-4, 0.02), (50, 2e-3, 0.4), (7, 0.1, 0.6)]


def evenly(T: int, first: float, last: float) -> Tensor:
    """0, then beta_1 to beta_T on a straight line."""
    steps = torch.arange(T, dtype=torch.float64)
    beta = first + (last - first) * steps / (T - 1)
    return torch.cat([beta.new_zeros(1), beta])


def recursion(beta: Tensor) -> tuple[Tensor, ...]:
    """Factor and variance of x_t given x_0, step by step, never in one product."""
    factor, variance = [1.0], [0.0]
    for b in beta[1:].tolist():
        factor.append(factor[-1] * (1 - b) ** 0.5)
        variance.append((1 - b) * variance[-1] + b)
    return torch.tensor([factor, variance], dtype=beta.dtype).unbind()


@claim(
    "D1",
    "Many steps of noise are one",
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
        factor, variance = recursion(evenly(T, first, last))
        t = torch.arange(T + 1)
        x_0, epsilon = normal(T, (T + 1, 2), (T + 1, 2))
        found = process.q_sample(schedule, x_0, t, epsilon)
        expected = factor[:, None] * x_0 + variance.sqrt()[:, None] * epsilon
        residuals.append(relative(found, expected))
        # and from any step s on: the same recursion, begun at s
        for s in (1, T // 3, T - 1):
            onward, spread = recursion(
                torch.cat([variance[:1], schedule.beta[s + 1 :]])
            )
            a = schedule.alpha_bar[s:] / schedule.alpha_bar[s]
            residuals += [relative(a.sqrt(), onward), relative(1 - a, spread)]
    return largest(residuals)


@claim(
    "D3",
    "Posterior of a step back",
    equations=("eq-diffusion-posterior",),
    kinds="S E",
    tolerance=1e-10,
    source=f"{HO}, equations 6 and 7",
    assumptions="the noise of each step is independent and Gaussian",
    subjects=(process,),
    mutants=(
        Mutant("alpha-bar of this step in the mean", "posterior",
               "before.sqrt() * beta", "alpha_bar.sqrt() * beta"),
        Mutant("the root of alpha is lost", "posterior",
               "alpha.sqrt() * (1 - before)", "alpha * (1 - before)"),
        Mutant("beta in place of beta-tilde", "posterior",
               "(1 - before) / noise * beta", "beta"),
        Mutant("the square is completed with the wrong sign", "posterior",
               "a / b + 1 / v", "a / b - 1 / v", module=__name__),
    ),
)  # fmt: skip
def posterior() -> float:
    """Completing the square, by symbols and at every step; and what follows from it."""
    a, a_bar, b, v = sympy.symbols("alpha abar beta v", positive=True)
    # q(x_t | x_{t-1}) q(x_{t-1} | x_0) in x_{t-1}: precisions add up
    precision = a / b + 1 / v
    exact = {a: 1 - b, v: 1 - a_bar}
    tilde = (1 - a_bar) / (1 - a_bar * (1 - b)) * b
    symbolic = sympy.simplify((1 / precision).subs(exact) - tilde) == 0
    residuals = [holds(bool(symbolic))]
    for T, first, last in CHAINS:
        schedule = noise_schedule.linear_schedule(T, first, last)
        c_0, c_1, beta_tilde = (x[1:] for x in process.posterior(schedule))
        beta, alpha, alpha_bar = (x[1:] for x in schedule)
        before = schedule.alpha_bar[:-1]
        # Bayes with numbers; the first step has a prior without width, so from t = 2.
        total = alpha[1:] / beta[1:] + 1 / (1 - before[1:])
        residuals += [
            relative(beta_tilde[1:], 1 / total),
            relative(c_0[1:], before[1:].sqrt() / (1 - before[1:]) / total),
            relative(c_1[1:], alpha[1:].sqrt() / beta[1:] / total),
            # the mean of x_{t-1}, and its variance, come out right
            relative(c_0 + c_1 * alpha_bar.sqrt(), before.sqrt()),
            relative(c_1**2 * (1 - alpha_bar) + beta_tilde, 1 - before),
            beta_tilde[0].abs(),
            holds(bool((beta_tilde <= beta).all())),
        ]
    return largest(residuals)


@claim(
    "D6",
    "The mean of a step back, from the noise",
    equations=("eq-diffusion-clean", "eq-diffusion-mean"),
    kinds="S E",
    tolerance=1e-10,
    source=f"{HO}, equations 10 and 15",
    subjects=(process,),
    mutants=(
        Mutant("the image is divided by alpha-bar", "predict_x0",
               "(x_t - noise * epsilon) / signal",
               "(x_t - noise * epsilon) / signal**2"),
        Mutant("the noise is not scaled", "predict_x0",
               "(x_t - noise * epsilon) / signal", "(x_t - epsilon) / signal"),
        Mutant("another step's noise is taken out", "predict_epsilon",
               "signal * x_0", "x_0"),
        Mutant("the root of 1 - alpha-bar is lost", "reparametrised",
               "b / sympy.sqrt(1 - a_bar) * e", "b / (1 - a_bar) * e", module=__name__),
    ),
)  # fmt: skip
def reparametrised() -> float:
    """The mean of the reverse step in x_0 is that in epsilon, symbolically and not."""
    a_before, b, x, e = sympy.symbols("before beta x_t epsilon", positive=True)
    a_bar = a_before * (1 - b)
    x_0 = (x - sympy.sqrt(1 - a_bar) * e) / sympy.sqrt(a_bar)
    c_0 = sympy.sqrt(a_before) * b / (1 - a_bar)
    c_1 = sympy.sqrt(1 - b) * (1 - a_before) / (1 - a_bar)
    mean = (x - b / sympy.sqrt(1 - a_bar) * e) / sympy.sqrt(1 - b)
    residuals = [holds(sympy.simplify(c_0 * x_0 + c_1 * x - mean) == 0)]
    for T, first, last in CHAINS:
        schedule = noise_schedule.linear_schedule(T, first, last)
        t = torch.arange(1, T + 1)
        x_0, epsilon = normal(T, (T, 2), (T, 2))
        x_t = process.q_sample(schedule, x_0, t, epsilon)
        beta, alpha, alpha_bar = (table[t, None] for table in schedule)
        c_0, c_1, _ = (table[t, None] for table in process.posterior(schedule))
        back = process.predict_x0(schedule, x_t, t, epsilon)
        residuals += [
            relative(back, x_0),
            relative(process.predict_epsilon(schedule, x_t, t, x_0), epsilon),
            relative(
                c_0 * back + c_1 * x_t,
                (x_t - beta / (1 - alpha_bar).sqrt() * epsilon) / alpha.sqrt(),
            ),
        ]
    return largest(residuals)


@claim(
    "D7",
    "What a network may predict",
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
        Mutant("the noise is not squared in the formula of Tweedie", "predict_x0",
               "epsilon = -noise * prediction", "epsilon = -prediction"),
        Mutant("the mean of the step back without x_t", "training_target",
               "at_step(c_0, t, x_0) * x_0 + at_step(c_1, t, x_0) * x_t",
               "at_step(c_0, t, x_0) * x_0 + at_step(c_1, t, x_0) * x_0"),
        Mutant("the loss of v is that of epsilon", "targets",
               "1 + snr", "snr", module=__name__),
    ),
)  # fmt: skip
def targets() -> float:
    """Each prediction type gives the image back; errors differ by the ratios."""
    residuals = []
    for T, first, last in CHAINS:
        schedule = noise_schedule.linear_schedule(T, first, last)
        t = torch.arange(1, T + 1)
        x_0, epsilon, wrong = normal(T, (T, 2), (T, 2), (T, 2))
        x_t = process.q_sample(schedule, x_0, t, epsilon)
        snr = noise_schedule.signal_to_noise(schedule)[t, None]
        beta, alpha, alpha_bar = (table[t, None] for table in schedule)
        c_0 = process.posterior(schedule).c_0[t, None]
        true = {
            name: process.training_target(schedule, x_0, t, epsilon, name)
            for name in process.PREDICTION_TYPES
        }
        # The error of each, if the error of the corresponding image is `wrong`.
        square = {
            "epsilon": snr,
            "x_0": 1,
            "v": 1 + snr,
            "mu": c_0**2,
            "score": snr / (1 - alpha_bar),
        }
        for name, y in true.items():
            back = process.predict_x0(schedule, x_t, t, y, name)
            noise = process.predict_epsilon(schedule, x_t, t, x_0 + wrong)
            off = process.training_target(schedule, x_0 + wrong, t, noise, name) - y
            residuals += [
                relative(back, x_0),
                (off**2 / (square[name] * wrong**2) - 1).abs().max(),
            ]
        v = alpha_bar.sqrt() * epsilon - (1 - alpha_bar).sqrt() * x_0
        score = -(x_t - alpha_bar.sqrt() * x_0) / (1 - alpha_bar)
        residuals += [
            relative(true["v"], v),
            relative((1 - alpha_bar).sqrt() * x_t + alpha_bar.sqrt() * v, epsilon),
            relative((1 - alpha_bar) * true["score"], (1 - alpha_bar) * score),
            relative(true["mu"], (x_t + beta * true["score"]) / alpha.sqrt()),
        ]
    return largest(residuals)


@claim(
    "D8a",
    "Algorithm 1",
    equations=("eq-diffusion-training",),
    kinds="I M",
    tolerance=1e-10,
    source=f"{HO}, Algorithm 1 and equation 14",
    subjects=(process,),
    mutants=(
        Mutant("step 0 is drawn, and T is not", "draw_training_noise",
               "torch.randint(1, T + 1, x_0.shape[:1], generator=generator, "
               "device=place)",
               "torch.randint(0, T, x_0.shape[:1], generator=generator, device=place)"),
        Mutant("T is not drawn", "draw_training_noise", "T + 1", "T"),
        Mutant("uniform noise", "standard_normal",
               "torch.randn(like.shape, generator=generator, dtype=dtype, "
               "device=place)",
               "torch.rand(like.shape, generator=generator, dtype=dtype, "
               "device=place)"),
        Mutant("the model is shown the step before", "training_loss",
               "model(q_sample(schedule, x_0, t, epsilon), t)",
               "model(q_sample(schedule, x_0, t, epsilon), t - 1)"),
        Mutant("the model is shown the clean image", "training_loss",
               "model(q_sample(schedule, x_0, t, epsilon), t)", "model(x_0, t)"),
        Mutant("the absolute error", "training_loss",
               "error.square().flatten(1)", "error.abs().flatten(1)"),
        Mutant("one step for the whole batch", "draw_training_noise",
               "torch.randint(1, T + 1, x_0.shape[:1], generator=generator, "
               "device=place)",
               "torch.randint(1, T + 1, x_0.shape[:1], generator=generator, "
               "device=place)[:1].expand(len(x_0))"),
    ),
)  # fmt: skip
def algorithm_1() -> float:
    """The loss, computed again from the inputs of the model; timesteps and noise."""
    T, n, d = 7, 7000, 3
    schedule = noise_schedule.linear_schedule(T, 0.1, 0.6)
    factor, variance = recursion(evenly(T, 0.1, 0.6))
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
    return largest(
        [
            relative(found, expected),
            holds(bool(counts[0] == 0 and len(counts) == T + 1)),
            holds(bool(((counts[1:] - n / T).abs() < 5 * spread).all())),
            holds(bool(abs(epsilon.mean()) < 5 / entries**0.5)),
            holds(bool(abs(epsilon.var() - 1) < 5 * (2 / entries) ** 0.5)),
            holds(bool(abs((epsilon**4).mean() - 3) < 5 * (96 / entries) ** 0.5)),
        ]
    )
