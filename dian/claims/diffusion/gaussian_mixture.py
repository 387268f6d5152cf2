r"""Chapter 4: data whose optimal denoiser has a closed form.

Integrals over one dimension are sums over a fine grid, which for smooth densities that
vanish at both ends are accurate to nearly all digits.
"""

import cmath
import math

import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import complex_step, holds, largest, normal, relative
from dian.diffusion import gaussian_mixture
from dian.diffusion import schedule as noise_schedule

HO = "Ho et al., Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239"
STEPS = (1, 10, 200, 500, 1000)


def two(gaussian_mixture) -> tuple:
    """Return two different Gaussians on a line that overlap a little."""
    tensors = ([0.3, 0.7], [[-0.6], [0.5]], [0.02, 0.04])
    return gaussian_mixture.Mixture(
        *(torch.tensor(x, dtype=torch.float64) for x in tensors)
    )


def three(gaussian_mixture) -> tuple:
    """Return three Gaussians in three dimensions."""
    weight, spread = torch.tensor([0.5, 0.2, 0.3]), torch.tensor([0.1, 0.4, 0.02])
    [mean] = normal(3, (3, 3))
    return gaussian_mixture.Mixture(weight.double(), mean, spread.double())


def normal_density(x: Tensor, mean, variance) -> Tensor:
    """The density of one Gaussian."""
    return (
        torch.exp(-((x - mean) ** 2) / (2 * variance)) / (2 * math.pi * variance) ** 0.5
    )


def clean_by_sums(data, x: Tensor, a: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of x_0 given x_t, by Bayes' rule on a grid of clean values."""
    w, m, s2 = data
    clean = torch.arange(-3, 3, 0.01, dtype=torch.float64)
    prior = sum(w[k] * normal_density(clean, m[k], s2[k]) for k in range(len(w)))
    likely = normal_density(x[:, None], math.sqrt(a) * clean, 1 - a)
    weight = prior * likely
    weight = weight / weight.sum(1, keepdim=True)
    mean = weight @ clean
    return mean, (weight * (clean - mean[:, None]) ** 2).sum(1)


@claim(
    "D13",
    "The optimal denoiser of a Gaussian mixture",
    equations=(
        "eq-diffusion-best-epsilon",
        "eq-diffusion-mixture-score",
        "eq-diffusion-tweedie",
    ),
    kinds="C Q",
    tolerance=1e-9,
    source="calculated; Robbins, An empirical Bayes approach to statistics, 1956, for "
    "the mean of x_0",
    subjects=(gaussian_mixture,),
    mutants=(
        Mutant("the weights of the components are left out", "log_parts",
               "mixture.weight.log() - 0.5 * (square / v + normalised)",
               "-0.5 * (square / v + normalised)"),
        Mutant("the variance does not grow", "noised",
               "a * mixture.variance + 1 - a", "mixture.variance + 1 - a"),
        Mutant("the mean does not shrink", "noised",
               "a[..., None].sqrt() * mixture.mean", "mixture.mean"),
        Mutant("the densities are not normalized", "log_parts",
               "(square / v + normalised)", "(square / v)"),
        Mutant("the noise is not scaled", "optimal_epsilon",
               "(1 - alpha_bar[..., None]).sqrt()", "1 - alpha_bar[..., None]"),
        Mutant("the gain is the same for all components", "posterior_x0",
               "alpha_bar[..., None].sqrt() * mixture.variance",
               "alpha_bar[..., None].sqrt() * mixture.variance.mean()"),
        Mutant("the variance between the components is left out", "posterior_x0",
               "(variance_k + between)", "variance_k"),
        Mutant("Tweedie's formula with half of the score", "best_prediction",
               "x + (1 - a) * slope", "x + (1 - a) * slope / 2", module=__name__),
    ),
)  # fmt: skip
def best_prediction() -> float:
    """The score by complex steps; conditional means by Bayes' rule on a grid."""
    schedule = noise_schedule.linear_schedule()
    residuals = []
    data = three(gaussian_mixture)
    w, m, s2 = data
    [points] = normal(1, (5, 3))
    for t in STEPS:
        a = schedule.alpha_bar[t].item()

        def log_density(x: Tensor, a: float = a) -> Tensor:
            v = a * s2 + 1 - a
            square = ((x[..., None, :] - math.sqrt(a) * m) ** 2).sum(-1)
            exponent = -square / (2 * v) - 1.5 * torch.log(2 * math.pi * v)
            return torch.log((w * torch.exp(exponent)).sum(-1)).sum()

        a_t = schedule.alpha_bar[t].expand(5)
        slope = complex_step(log_density, math.sqrt(a) * points)
        x = math.sqrt(a) * points
        residuals += [
            relative(gaussian_mixture.score(data, x, a_t), slope),
            *unflattened(data, x, a_t, slope),
            relative(
                gaussian_mixture.optimal_epsilon(data, x, a_t),
                -math.sqrt(1 - a) * slope,
            ),
            relative(
                gaussian_mixture.posterior_x0(data, x, a_t).mean,
                (x + (1 - a) * slope) / a**0.5,
            ),
            abs(
                gaussian_mixture.log_parts(data, x, a_t).logsumexp(-1).sum()
                - log_density(x)
            ),
        ]
    line = two(gaussian_mixture)
    x = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64)
    for t in (20, 200, 500, 1000):
        a_t = schedule.alpha_bar[t]
        mean, variance = clean_by_sums(line, x, a_t.item())
        found = gaussian_mixture.posterior_x0(line, x[:, None], a_t.expand(31))
        noise = (x - a_t.sqrt() * mean) / (1 - a_t).sqrt()
        epsilon = gaussian_mixture.optimal_epsilon(line, x[:, None], a_t.expand(31))
        residuals += [
            relative(found.mean[:, 0], mean),
            relative(found.variance, variance),
            relative(epsilon[:, 0], noise),
        ]
    return largest(residuals)


def unflattened(data, x: Tensor, a_t: Tensor, slope: Tensor) -> list[float]:
    """Compare with the results for one more batch axis, and for none."""
    a, noise = a_t[0], (1 - a_t[0]).sqrt()
    mean = (x + noise**2 * slope) / a.sqrt()
    model = gaussian_mixture.optimal_denoiser(data, torch.stack([a, a]))
    t = torch.ones(len(x), dtype=torch.int64)
    return [
        relative(gaussian_mixture.score(data, x[None], a_t[None])[0], slope),
        relative(gaussian_mixture.score(data, x[0], a), slope[0]),
        relative(gaussian_mixture.optimal_epsilon(data, x[0], a), -noise * slope[0]),
        relative(gaussian_mixture.posterior_x0(data, x[None], a_t[None]).mean[0], mean),
        relative(gaussian_mixture.posterior_x0(data, x[0], a).mean, mean[0]),
        relative(model(x, t), -noise * slope),
        holds(model(x.float(), t).dtype == torch.float32),
    ]


@claim(
    "D13b",
    "The irreducible loss",
    equations=("eq-diffusion-floor", "eq-diffusion-excess"),
    kinds="E Q M",
    tolerance=1e-9,
    source="calculated",
    subjects=(gaussian_mixture,),
    mutants=(
        Mutant("the components are drawn with equal probabilities", "draw",
               "mixture.weight", "torch.ones_like(mixture.weight)"),
        Mutant("the standard deviation is the variance", "draw",
               "mixture.variance[part, None].sqrt() * z",
               "mixture.variance[part, None] * z"),
        Mutant("the noise is not scaled", "optimal_epsilon",
               "(1 - alpha_bar[..., None]).sqrt()", "1 - alpha_bar[..., None]"),
        Mutant("the spread of the means is not in the covariance", "moments",
               "spread + (w @ s2) * torch.eye(len(mean)).to(m)",
               "0 * spread + (w @ s2) * torch.eye(len(mean)).to(m)"),
        Mutant("the angles of the ring are doubled", "ring",
               "torch.arange(n, dtype=torch.float64) * 2",
               "torch.arange(n, dtype=torch.float64) * 4"),
        Mutant("the mean in place of the deviation from it", "moments",
               "(w[:, None] * (m - mean)).T @ (m - mean)", "(w[:, None] * m).T @ m"),
        Mutant("the irreducible loss without its 1", "floor",
               "1 - (1 - a) * square", "(1 - a) * square", module=__name__),
    ),
)  # fmt: skip
def floor() -> float:
    """Closed form for a Gaussian; for two, samples within 5 standard errors of it."""
    schedule = noise_schedule.linear_schedule()
    residuals = []
    h = 0.002
    x = torch.arange(-9, 9, h, dtype=torch.float64)[:, None]
    one, line, n = gaussian_mixture.gaussian(0.4, 0.09), two(gaussian_mixture), 40_000
    mean, covariance = gaussian_mixture.moments(line)
    x_0 = gaussian_mixture.draw(line, n, torch.Generator().manual_seed(0))
    residuals += [
        holds(bool(abs(x_0.mean() - mean) < 5 * (covariance / n).sqrt())),
        holds(bool(abs(x_0.var() / covariance - 1) < 5 * (2 / n) ** 0.5)),
        *moments_by_sums(line, mean, covariance, x, h),
        *on_a_circle(),
    ]
    for t in STEPS:
        a_t = schedule.alpha_bar[t]
        a = a_t.item()
        for data in (one, line):
            everywhere = a_t.expand(len(x))
            q = gaussian_mixture.log_parts(data, x, everywhere).logsumexp(-1).exp()
            square = (
                gaussian_mixture.score(data, x, everywhere)[:, 0] ** 2 * q
            ).sum().item() * h
            least = 1 - (1 - a) * square
            if data is one:
                residuals.append(abs(least - a * 0.09 / (a * 0.09 + 1 - a)))
        # the optimal prediction has the minimum loss, any other one its excess
        noise = torch.randn(n, 1, generator=torch.Generator().manual_seed(t)).double()
        x_t = a**0.5 * x_0 + (1 - a) ** 0.5 * noise
        best = gaussian_mixture.optimal_epsilon(line, x_t, a_t.expand(n))
        loss, other = (best - noise) ** 2, (best + 0.3 * x_t - noise) ** 2
        excess = other - loss - (0.3 * x_t) ** 2
        residuals += [
            holds(bool(abs(loss.mean() - least) < 5 * loss.std() / n**0.5)),
            holds(bool(abs(excess.mean()) < 5 * excess.std() / n**0.5)),
        ]
    return largest(residuals)


def moments_by_sums(data, mean, covariance, x: Tensor, h: float) -> list[float]:
    """Mean and variance of data on a line from their density."""
    density = sum(
        w * normal_density(x[:, 0], m, s2)
        for w, [m], s2 in zip(*(table.tolist() for table in data), strict=True)
    )
    first = (density * x[:, 0]).sum() * h
    second = (density * (x[:, 0] - first) ** 2).sum() * h
    return [abs(mean[0] - first), abs(covariance[0, 0] - second)]


def on_a_circle() -> list[float]:
    """Compare the centers of a ring with roots of unity; check its covariance."""
    n, radius, s2 = 5, 0.7, 0.02
    ring = gaussian_mixture.ring(n, radius, s2)
    roots = [radius * cmath.exp(2j * math.pi * k / n) for k in range(n)]
    roots = torch.view_as_real(torch.tensor(roots, dtype=torch.complex128))
    mean, covariance = gaussian_mixture.moments(ring)
    round_ = (radius**2 / 2 + s2) * torch.eye(2, dtype=torch.float64)
    far = gaussian_mixture.gaussian(0.5, 2.0, d=3)
    return [
        relative(ring.mean, roots),
        mean.abs().max(),
        relative(covariance, round_),
        relative(far.mean, 0 * far.mean + 0.5),
        abs(far.variance - 2),
        holds(far.mean.shape == (1, 3)),
    ]
