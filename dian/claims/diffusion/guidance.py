r"""Chapter 4: classifier-free guidance, on data for which it has a closed form.

The components of a mixture are the classes, so the exact noise is known with and
without a class. With Gaussian data a sampling run is a linear map, whose slope is the
standard deviation of the samples.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import complex_step, holds, largest, normal, relative
from dian.diffusion import gaussian_mixture, guidance, sampling
from dian.diffusion import schedule as noise_schedule

HO = "Ho and Salimans, Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598"
BRADLEY = "Bradley and Nakkiran, Classifier-Free Guidance is a Predictor-Corrector, "
BRADLEY += "2024, arXiv:2408.09000, for the difference between samples and density"
WEIGHTS = (-1.0, 0.0, 0.5, 3.0)
NULL = 10


def double(x) -> Tensor:
    """The numbers in float64."""
    return torch.tensor(x, dtype=torch.float64)


def exact_model(parts: list, whole, alpha_bar: Tensor):
    """Return the optimal noise for a class, or for all if it is the null class."""

    def model(x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        out = torch.full_like(x_t, torch.nan)
        for label, data in [*enumerate(parts), (NULL, whole)]:
            chosen = y == label
            a = alpha_bar[t[chosen]]
            out[chosen] = gaussian_mixture.optimal_epsilon(data, x_t[chosen], a)
        return out

    return model


@claim(
    "D22a",
    "Classifier-free guidance of a mixture",
    equations=(
        "eq-diffusion-guidance",
        "eq-diffusion-guided-score",
        "eq-diffusion-guided-mixture",
    ),
    kinds="C M",
    tolerance=1e-10,
    source=f"{HO}, equation 6 and Algorithm 1",
    assumptions="the exact noise, with and without the class",
    subjects=(guidance,),
    mutants=(
        Mutant("the guidance scale in place of the weight", "guide",
               "(1 + w) * given - w * free", "w * given + (1 - w) * free"),
        Mutant("class and null class are exchanged", "guide",
               "(1 + w) * given - w * free", "(1 + w) * free - w * given"),
        Mutant("the weights do not sum to 1", "guide",
               "(1 + w) * given - w * free", "given - w * free"),
        Mutant("both calls get the class", "guide",
               "torch.full_like(y, null_class)", "y"),
        Mutant("without guidance the class is ignored", "guide",
               "return condition(model, y)",
               "return condition(model, torch.full_like(y, null_class))"),
        Mutant("the kept labels are dropped, and the others kept", "drop_labels",
               "torch.rand(y.shape, generator=generator, device=device) < rate",
               "torch.rand(y.shape, generator=generator, device=device) >= rate"),
        Mutant("all labels of a batch are dropped, or none", "drop_labels",
               "torch.rand(y.shape, generator=generator, device=device)",
               "torch.rand(1, generator=generator, device=device).expand(y.shape)"),
        Mutant("a dropped label is the first class", "drop_labels",
               "y.masked_fill(dropped.to(y.device), null_class)",
               "y.masked_fill(dropped.to(y.device), 0)"),
    ),
)  # fmt: skip
def guided_mixture() -> float:
    """The gradient of ln N_k + w ln r_k, by complex steps; the rate of dropping."""
    weight, [mean] = double([0.5, 0.2, 0.3]), normal(3, (3, 2))
    variance = double([0.3, 0.5, 0.2])
    whole = gaussian_mixture.Mixture(weight, mean, variance)
    parts = [
        gaussian_mixture.Mixture(double([1.0]), m[None], v[None])
        for m, v in zip(mean, variance, strict=True)
    ]
    schedule = noise_schedule.linear_schedule(20, 1e-3, 0.4)
    model = exact_model(parts, whole, schedule.alpha_bar)
    y = torch.tensor([2, 0, 1, 1, 0])
    [x] = normal(1, (5, 2))
    residuals = []
    for step in (1, 8, 20):
        a = schedule.alpha_bar[step].item()
        v, m = a * variance + 1 - a, a**0.5 * mean
        for w in WEIGHTS:

            def log_guided(x: Tensor, m: Tensor = m, v: Tensor = v, w: float = w):
                square = ((x[:, None] - m) ** 2).sum(-1)
                density = torch.exp(-square / (2 * v)) / v  # in two dimensions
                of_class = density[torch.arange(len(y)), y]
                share = weight[y] * of_class / (density * weight).sum(1)
                return (torch.log(of_class) + w * torch.log(share)).sum()

            guided = guidance.guide(model, y, NULL, w)
            found = guided(x, torch.full((len(x),), step))
            slope = complex_step(log_guided, x)
            residuals.append(relative(found, -math.sqrt(1 - a) * slope))
    return largest([*residuals, dropped(20_000, 0.1)])


def dropped(n: int, rate: float) -> float:
    """A fraction of each class is dropped, one image at a time."""
    y = torch.arange(n) % 4
    found = guidance.drop_labels(y, rate, NULL, torch.Generator().manual_seed(0))
    lost = (found == NULL).view(-1, 4).double()
    each, error = n // 4, math.sqrt(rate * (1 - rate))
    pairs = (lost[:, 0] * lost[:, 1]).mean()  # of neighbors
    return holds(
        bool((lost.mean(0) - rate).abs().max() < 5 * error / each**0.5)
        and bool(abs(pairs - rate**2) < 5 * rate / each**0.5)
        and bool(((found == y) | (found == NULL)).all())
    )


@claim(
    "D22b",
    "Classifier-free guidance of Gaussian data",
    equations=(
        "eq-diffusion-guided-gaussian",
        "eq-diffusion-guided-flow",
        "eq-diffusion-guided-order",
    ),
    kinds="E Q",
    tolerance=1e-9,
    source=f"derived on the page; {BRADLEY}",
    assumptions="Gaussian data, with and without the class, and the exact noise; for "
    "the samples: no clipping, DDIM with eta = 0, mean 0",
    subjects=(guidance, sampling),
    mutants=(
        Mutant("the guidance scale in place of the weight", "guide",
               "(1 + w) * given - w * free", "w * given + (1 - w) * free"),
        Mutant("the weights do not sum to 1", "guide",
               "(1 + w) * given - w * free", "given - w * free"),
        Mutant("both calls get the class", "guide",
               "torch.full_like(y, null_class)", "y"),
        Mutant("the model is called with the timestep before", "Denoiser.__call__",
               "as_steps(t, x_t)", "as_steps(t, x_t) - 1", module=sampling),
        Mutant("DDIM adds a little noise", "ddim_sample",
               "eta**2", "(eta + 0.01)**2", module=sampling),
        Mutant("without the weight in the exponent", "flow_variance",
               "(s2_c / s2_u) ** w", "(s2_c / s2_u)", module=__name__),
    ),
)  # fmt: skip
def guided_gaussian() -> float:
    """Moments of the guided density by sums; the slope of a sampling run."""
    schedule = noise_schedule.linear_schedule(50, 1e-4, 0.2)
    m_c, s2_c, m_u, s2_u = 0.4, 0.25, -0.2, 0.8
    h = 0.01
    grid = torch.arange(-12, 12, h, dtype=torch.float64)
    residuals = []
    for step, w in [(1, 0.5), (10, 3.0), (30, 1.0)]:
        a = schedule.alpha_bar[step].item()
        v_c, v_u = a * s2_c + 1 - a, a * s2_u + 1 - a
        log_c = -((grid - a**0.5 * m_c) ** 2) / (2 * v_c)
        log_u = -((grid - a**0.5 * m_u) ** 2) / (2 * v_u)
        p = ((1 + w) * log_c - w * log_u).softmax(0)
        mean = (p * grid).sum()
        variance = (p * (grid - mean) ** 2).sum()
        # the score is a line: it crosses 0 at the mean, with slope -1 / variance
        class_data = gaussian_mixture.gaussian(m_c, s2_c)
        all_data = gaussian_mixture.gaussian(m_u, s2_u)
        model = exact_model([class_data], all_data, schedule.alpha_bar)
        guided = guidance.guide(model, torch.tensor([0, 0]), NULL, w)
        x = double([[0.0], [1.0]])
        score = -guided(x, torch.tensor([step] * 2))[:, 0] / (1 - a) ** 0.5
        precision = (1 + w) / v_c - w / v_u
        printed = a**0.5 * (m_c + w * (m_c - m_u) / (v_u * precision))
        residuals += [
            abs(1 / variance - precision) / precision,
            abs(mean - printed),
            abs(score[0] - score[1] - precision) / precision,
            abs(score[0] / precision - printed),
        ]
    return largest([*residuals, *sampled(w=1.5)])


def flow_variance(s2_c: float, s2_u: float, w: float) -> float:
    """Return the variance of the samples in the limit of many steps."""
    return s2_c * (s2_c / s2_u) ** w


def sampled(w: float) -> list[float]:
    """Each step of a run by hand; many steps; the order of the three variances."""
    s2_c, s2_u = 0.25, 0.8
    one, label = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0])
    class_data = gaussian_mixture.gaussian(0.0, s2_c)
    all_data = gaussian_mixture.gaussian(0.0, s2_u)
    residuals, far = [], []
    for T in (60, 120, 240):
        # the signal left at the end is negligible: a tenth of that of the runs
        schedule = noise_schedule.linear_schedule(T, 0.1 / T, 40 / T)
        model = exact_model([class_data], all_data, schedule.alpha_bar)
        guided = guidance.guide(model, label, NULL, w)
        denoiser = sampling.Denoiser(guided, clip=None)
        slope = sampling.ddim_sample(schedule, denoiser, one, steps=T).item()
        beta = [0.1 / T + (39.9 / T) * i / (T - 1) for i in range(T)]
        signal = [1.0]
        for b in beta:
            signal.append(signal[-1] * (1 - b))
        sigma = [math.sqrt(1 / a - 1) for a in signal]
        by_hand = 1 / math.sqrt(signal[-1])
        for s, t in reversed([*pairwise(range(T + 1))]):
            of_c, of_u = (sigma[t] / (s2 + sigma[t] ** 2) for s2 in (s2_c, s2_u))
            by_hand *= 1 + (sigma[s] - sigma[t]) * ((1 + w) * of_c - w * of_u)
        residuals.append(abs(slope / by_hand - 1))
        far.append(slope**2)
    # two steps of Richardson's extrapolation leave 0.2 %; the density is at 180 %
    near = [2 * b - a for a, b in pairwise(far)]
    limit = (4 * near[1] - near[0]) / 3
    samples, tilted = (
        flow_variance(s2_c, s2_u, w),
        1 / ((1 + w) / s2_c - w / s2_u),
    )
    residuals += [
        holds(abs(limit / samples - 1) < 5e-3),
        holds(samples < tilted * 0.9),
        holds(tilted < s2_c * 0.9),
    ]
    for ratio in (0.1, 0.5, 0.9):
        for weight in (0.1, 1.0, 5.0):
            of_samples = flow_variance(ratio, 1.0, weight) / ratio
            of_density = 1 / (1 + weight * (1 - ratio))
            residuals.append(holds(of_samples < of_density < 1))
    return residuals
