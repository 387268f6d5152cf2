r"""Chapter 4: denoising diffusion.

Every statement is checked at every step of a long chain and of a short one: at T = 1000
an index that is off by one changes little, at T = 7 much.
"""

import sympy
import torch
from torch import Tensor

from dian import diffusion
from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative

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
    equations=("eq-diffusion-step", "eq-diffusion-marginal"),
    kinds="S E",
    tolerance=1e-10,
    source=f"{HO}, equations 2 and 4",
    assumptions="the noise of each step is independent and Gaussian",
    subjects=(diffusion,),
    mutants=(
        Mutant("a sum in place of a product", "alpha.cumprod(0)", "1 - beta.cumsum(0)"),
        Mutant("the schedule starts one step late", "beta.new_zeros(1), beta",
               "beta, beta.new_zeros(1)"),
        Mutant("the noise is not under the root",
               "(1 - schedule.alpha_bar).sqrt(), t, x_0)\n    return signal",
               "(1 - schedule.alpha_bar), t, x_0)\n    return signal"),
        Mutant("the step before", "table.to(x.device)[t]", "table.to(x.device)[t - 1]"),
        Mutant("variance in place of deviation in the induction", "a * v + 1 - a",
               "a * v + sympy.sqrt(1 - a)", module=__name__),
    ),
)  # fmt: skip
def forward(diffusion) -> float:
    """The induction step by symbols; the closed form against the recursion."""
    a, a_bar = sympy.symbols("alpha abar", positive=True)
    v = 1 - a_bar
    induction = sympy.simplify((a * v + 1 - a) - (1 - a * a_bar)) == 0
    residuals = [holds(induction)]
    for T, first, last in CHAINS:
        schedule = diffusion.linear_schedule(T, first, last)
        factor, variance = recursion(evenly(T, first, last))
        t = torch.arange(T + 1)
        x_0, epsilon = normal(T, (T + 1, 2), (T + 1, 2))
        found = diffusion.diffuse(schedule, x_0, t, epsilon)
        expected = factor[:, None] * x_0 + variance.sqrt()[:, None] * epsilon
        residuals.append(relative(found, expected))
    return largest(residuals)


@claim(
    "D2",
    "Signal-to-noise ratio",
    equations=("eq-diffusion-snr",),
    kinds="E",
    tolerance=1e-10,
    source="Kingma et al., Variational Diffusion Models, 2021, arXiv:2107.00630, "
    "section 3.1",
    subjects=(diffusion,),
    mutants=(
        Mutant("a ratio of amplitudes", "alpha_bar / (1 - schedule.alpha_bar)",
               "alpha_bar.sqrt() / (1 - schedule.alpha_bar).sqrt()"),
        Mutant("alpha in place of its product", "return schedule.alpha_bar / (",
               "return schedule.alpha / ("),
        Mutant("a schedule in float32", "T, dtype=torch.float64",
               "T, dtype=torch.float32"),
    ),
)  # fmt: skip
def snr(diffusion) -> float:
    """Squared factor over variance of the recursion; it falls at every step."""
    residuals = []
    for T, first, last in CHAINS:
        schedule = diffusion.linear_schedule(T, first, last)
        found = diffusion.signal_to_noise(schedule)
        factor, variance = recursion(evenly(T, first, last))
        expected = factor[1:] ** 2 / variance[1:]
        residuals += [
            ((found[1:] / expected) - 1).abs().max(),
            holds(bool((found[:-1] > found[1:]).all())),
        ]
    return largest(residuals)


@claim(
    "D3",
    "Posterior of a step back",
    equations=("eq-diffusion-posterior",),
    kinds="S E",
    tolerance=1e-10,
    source=f"{HO}, equations 6 and 7",
    assumptions="the noise of each step is independent and Gaussian",
    subjects=(diffusion,),
    mutants=(
        Mutant("alpha-bar of this step in the mean", "before.sqrt() * beta",
               "alpha_bar.sqrt() * beta"),
        Mutant("the root of alpha is lost", "alpha.sqrt() * (1 - before)",
               "alpha * (1 - before)"),
        Mutant("beta in place of beta-tilde", "(1 - before) / noise * beta,", "beta,"),
        Mutant("the square is completed with the wrong sign", "a / b + 1 / v",
               "a / b - 1 / v", module=__name__),
    ),
)  # fmt: skip
def posterior(diffusion) -> float:
    """Completing the square, by symbols and at every step; and what follows from it."""
    a, a_bar, b, v = sympy.symbols("alpha abar beta v", positive=True)
    # q(x_t | x_{t-1}) q(x_{t-1} | x_0) in x_{t-1}: precisions add up
    precision = a / b + 1 / v
    exact = {a: 1 - b, v: 1 - a_bar}
    tilde = (1 - a_bar) / (1 - a_bar * (1 - b)) * b
    symbolic = sympy.simplify((1 / precision).subs(exact) - tilde) == 0
    residuals = [holds(symbolic)]
    for T, first, last in CHAINS:
        schedule = diffusion.linear_schedule(T, first, last)
        c_0, c_1, beta_tilde = (x[1:] for x in diffusion.posterior(schedule))
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
