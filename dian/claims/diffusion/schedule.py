"""Noise schedules: the signal-to-noise ratio, and the signal left at the end."""

import math

import torch

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest
from dian.claims.diffusion.process import CHAINS, evenly, recursion
from dian.diffusion import likelihood
from dian.diffusion import schedule as noise_schedule
from dian.diffusion.schedule import NoiseSchedule


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


LEFT = {
    # T, first, last: what is left of the amplitude, and L_T in nats where x_0^2 = 1
    (1000, 1e-4, 0.02): (0.00635, 2.02e-5),
    (500, 1e-4, 0.02): (0.0797, 3.19e-3),
    (500, 2e-4, 0.04): (0.00614, 1.88e-5),
    (300, 1e-4, 0.02): (0.219, 2.46e-2),
    (100, 1e-4, 0.02): (0.603, 0.226),
}
"""What the page prints, to three digits."""


@claim(
    "D15",
    "What is left of the image at the end",
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
    """The last product, by the sum of logarithms; and the numbers of the table."""
    residuals = []
    for (T, first, last), printed in LEFT.items():
        beta = [first + (last - first) * i / (T - 1) for i in range(T)]
        a = math.exp(math.fsum(math.log1p(-b) for b in beta))
        found = noise_schedule.linear_schedule(T, first, last).alpha_bar[-1].item()
        square, log = 1.0, math.log  # of the entry x_0
        nats = 0.5 * (a * square - a - log(1 - a))
        x_0 = torch.ones(1, 1, dtype=torch.float64)
        schedule = NoiseSchedule(*noise_schedule.linear_schedule(T, first, last))
        residuals += [
            abs(found / a - 1),
            abs(nats - likelihood.prior_term(schedule, x_0).item()),
        ]
        for value, digits in zip((a**0.5, nats), printed, strict=True):
            unit = 10 ** (math.floor(math.log10(digits)) - 2)
            residuals.append(holds(bool(abs(value - digits) < unit)))
    return largest(residuals)
