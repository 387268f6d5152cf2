"""Noise schedules: the signal-to-noise ratio, and the signal left at the end."""

import math

import torch

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest
from dian.claims.diffusion.by_hand import evenly, recursion
from dian.claims.diffusion.process import CHAINS
from dian.diffusion import likelihood
from dian.diffusion import schedule as noise_schedule


@claim(
    "D2",
    "Signal-to-noise ratio",
    equations=("eq-diffusion-snr",),
    kinds="E",
    tolerance=1e-10,
    source="Kingma et al., Variational Diffusion Models, 2021, arXiv:2107.00630, "
    "section 3.1",
    subjects=(noise_schedule,),
    mutants=(
        Mutant("a ratio of amplitudes", "signal_to_noise",
               "schedule.alpha_bar / (1 - schedule.alpha_bar)",
               "schedule.alpha_bar.sqrt() / (1 - schedule.alpha_bar).sqrt()"),
        Mutant("alpha in place of its product", "signal_to_noise",
               "schedule.alpha_bar / (1 - schedule.alpha_bar)",
               "schedule.alpha / (1 - schedule.alpha_bar)"),
        Mutant("a schedule in float32", "linear_schedule",
               "torch.float64", "torch.float32"),
    ),
)  # fmt: skip
def snr() -> float:
    """Squared factor over variance of the recursion; it falls at every step."""
    residuals = []
    for T, first, last in CHAINS:
        schedule = noise_schedule.linear_schedule(T, first, last)
        found = noise_schedule.signal_to_noise(schedule)
        factor, variance = recursion(evenly(T, first, last))
        expected = factor[1:] ** 2 / variance[1:]
        residuals += [
            ((found[1:] / expected) - 1).abs().max(),
            holds(bool((found[:-1] > found[1:]).all())),
        ]
    return largest(residuals)


CHAINS_USED = [
    (1000, 1e-4, 0.02),  # of the paper, and of the recorded run
    (250, 4e-4, 0.08),  # of the ablations
    (500, 2e-4, 0.04),
]
"""Schedules after which nothing is left of an image."""
CHAINS_TOO_SHORT = [(500, 1e-4, 0.02), (300, 1e-4, 0.02), (100, 1e-4, 0.02)]
"""The ends of a thousand steps in fewer steps."""


@claim(
    "D15",
    "The signal left at the end",
    equations=("eq-diffusion-left",),
    kinds="E",
    tolerance=1e-10,
    source="the definition; schedule of Ho et al., 2020, section 4",
    subjects=(noise_schedule,),
    mutants=(
        Mutant("the schedule ends at half", "linear_schedule",
               "torch.linspace(beta_start, beta_end, T, dtype=torch.float64)",
               "torch.linspace(beta_start, beta_end / 2, T, dtype=torch.float64)"),
        Mutant("a geometric schedule", "linear_schedule",
               "torch.linspace(beta_start, beta_end, T, dtype=torch.float64)",
               "torch.logspace(math.log10(beta_start), math.log10(beta_end), T, "
               "dtype=torch.float64)"),
        Mutant("one step too few", "linear_schedule",
               "torch.linspace(beta_start, beta_end, T, dtype=torch.float64)",
               "torch.linspace(beta_start, beta_end, T - 1, dtype=torch.float64)"),
        Mutant("the divergence without its logarithm", "left",
               "a * square - a - log(1 - a)", "a * square - a", module=__name__),
    ),
)  # fmt: skip
def left() -> float:
    """The last product, from a sum of logarithms, is small for the chains in use."""
    residuals = []
    for T, first, last in CHAINS_USED + CHAINS_TOO_SHORT:
        beta = [first + (last - first) * i / (T - 1) for i in range(T)]
        a = math.exp(math.fsum(math.log1p(-b) for b in beta))
        schedule = noise_schedule.linear_schedule(T, first, last)
        square, log = 0.49, math.log  # of the entry x_0
        nats = 0.5 * (a * square - a - log(1 - a))
        x_0 = torch.full((1, 1), 0.7, dtype=torch.float64)
        found = likelihood.prior_term(schedule, x_0).item()
        little = (T, first, last) in CHAINS_USED
        residuals += [
            abs(schedule.alpha_bar[-1].item() / a - 1),
            abs(found / nats - 1),
            holds((schedule.alpha_bar[-1].sqrt().item() < 0.02) == little),
        ]
    return largest(residuals)


COSINES = [(1000, 0.008, 0.999), (50, 0.008, 0.999), (7, 0.02, 0.5), (1, 0.008, 0.9)]
"""T, s and the largest beta: as in the paper, shorter, and where many are capped."""


@claim(
    "D19b",
    "The cosine schedule",
    equations=("eq-diffusion-cosine",),
    kinds="I E",
    tolerance=1e-10,
    source="Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, "
    "2021, arXiv:2102.09672, equation 17",
    subjects=(noise_schedule,),
    mutants=(
        Mutant("the cosine is not squared", "cosine_schedule",
               "torch.cos((time + s) / (1 + s) * math.pi / 2) ** 2",
               "torch.cos((time + s) / (1 + s) * math.pi / 2)"),
        Mutant("no offset", "cosine_schedule", "(time + s) / (1 + s)", "time"),
        Mutant("the offset is not divided out", "cosine_schedule",
               "(time + s) / (1 + s)", "time + s", raises="ValueError"),
        Mutant("a sine", "cosine_schedule",
               "torch.cos((time + s) / (1 + s) * math.pi / 2)",
               "torch.sin((time + s) / (1 + s) * math.pi / 2)",
               raises="ValueError"),
        Mutant("a quarter of the angle", "cosine_schedule",
               "(time + s) / (1 + s) * math.pi / 2",
               "(time + s) / (1 + s) * math.pi / 4"),
        Mutant("no cap", "cosine_schedule",
               "(1 - f[1:] / f[:-1]).clamp(max=max_beta)", "1 - f[1:] / f[:-1]",
               raises="ValueError"),
        Mutant("a cap below", "cosine_schedule",
               "(1 - f[1:] / f[:-1]).clamp(max=max_beta)",
               "(1 - f[1:] / f[:-1]).clamp(max=max_beta / 2)"),
        Mutant("the ratio to f(0) in place of the timestep before", "cosine_schedule",
               "(1 - f[1:] / f[:-1])", "(1 - f[1:] / f[0])"),
    ),
)  # fmt: skip
def cosine() -> float:
    """Every table with plain numbers: alpha-bar is f(t) / f(0) until a beta is capped.

    The square of a cosine is computed from the cosine of the double angle.
    """
    residuals = []
    for T, s, cap in COSINES:
        found = noise_schedule.cosine_schedule(T, s, cap)
        f = [1 + math.cos((t / T + s) / (1 + s) * math.pi) for t in range(T + 1)]
        beta = [0.0] + [min(1 - f[t] / f[t - 1], cap) for t in range(1, T + 1)]
        capped = [t for t in range(1, T + 1) if beta[t] == cap]
        free = capped[0] if capped else T + 1
        alpha_bar = [x / f[0] for x in f[:free]]
        for _ in capped:
            alpha_bar.append(alpha_bar[-1] * (1 - cap))
        for table, expected in [(found.beta, beta), (found.alpha_bar, alpha_bar)]:
            expected = torch.tensor(expected, dtype=torch.float64)
            residuals.append((table - expected).abs().max())
        residuals.append(holds(capped == [*range(free, T + 1)]))
    default, paper = (
        noise_schedule.cosine_schedule(*x) for x in ((), (1000, 0.008, 0.999))
    )
    residuals.append((default.beta - paper.beta).abs().max())
    # half of the variance of the image is left in the middle, in the limit of s to 0
    middle = noise_schedule.cosine_schedule(1000, 1e-12).alpha_bar[500].item()
    return largest([*residuals, abs(middle - 0.5)])
