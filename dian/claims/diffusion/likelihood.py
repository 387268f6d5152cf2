r"""Chapter 4: the variational bound, term by term, and as the length of a code.

With Gaussian data and the exact reverse process the bound is an equality. Each term is
then a polynomial of degree two in the image and in the noise, so that its expectation
is the mean over four pairs: one standard deviation below and above in each of them.
"""

import math
from unittest.mock import patch

import mpmath
import sympy
import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.claims.diffusion import by_hand
from dian.claims.diffusion.by_hand import evenly, recursion
from dian.diffusion import gaussian_mixture, likelihood, pixels, posterior, process
from dian.diffusion import schedule as noise_schedule
from dian.diffusion.likelihood import Bound
from dian.diffusion.sampling import Denoiser
from dian.diffusion.schedule import NoiseSchedule

HO = "Ho et al., Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239"
SHORT = 20, 1e-3, 0.4
GAUSSIANS = [(0.0, 1.0), (0.4, 0.09), (-0.7, 0.5)]
"""Mean and variance of data for which the bound is known."""


def exact_bound(schedule: NoiseSchedule, m: float, s2: float, variance=None) -> Bound:
    """The bound of N(m, s^2) and the optimal model; means are expectations.

    The four images are one standard deviation from the mean, and so is their noise.
    """
    data = gaussian_mixture.gaussian(m, s2)
    if variance is None:  # that of the exact reverse process
        nothing = torch.zeros(schedule.T + 1, 1, dtype=torch.float64)
        left = gaussian_mixture.posterior_x0(data, nothing, schedule.alpha_bar).variance
        variance = posterior.optimal_variance(schedule, left)
    model = gaussian_mixture.optimal_denoiser(data, schedule.alpha_bar)
    signs = torch.tensor([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]]).double()
    above, noise = signs[..., None]
    with patch.object(likelihood, "standard_normal", lambda *_: noise):
        return likelihood.variational_bound(
            schedule,
            Denoiser(model, clip=None),
            m + math.sqrt(s2) * above,
            variance=variance,
            decoder=likelihood.log_density,
        )


def whole(bound: Bound) -> Tensor:
    """The expectation of all terms together, in nats."""
    return (bound.prior + bound.terms.sum(0)).mean()


@claim(
    "D4",
    "KL divergence of two Gaussians",
    equations=("eq-diffusion-kl",),
    kinds="Q I",
    tolerance=1e-10,
    source="Kingma and Welling, Auto-Encoding Variational Bayes, 2014, "
    "arXiv:1312.6114, appendix B, for a standard normal prior",
    subjects=(likelihood,),
    mutants=(
        Mutant("the two variances are exchanged", "gaussian_kl",
               "ratio = variance_1 / variance_2", "ratio = variance_2 / variance_1"),
        Mutant("the factor 1/2 is missing", "gaussian_kl", "0.5", "1.0"),
        Mutant("the distance is not squared", "gaussian_kl",
               "(mean_1 - mean_2) ** 2 / variance_2", "(mean_1 - mean_2) / variance_2"),
        Mutant("the distance is divided by the other variance", "gaussian_kl",
               "(mean_1 - mean_2) ** 2 / variance_2",
               "(mean_1 - mean_2) ** 2 / variance_1"),
    ),
)  # fmt: skip
def kl() -> float:
    """Compare with a sum over a grid, and with torch.distributions."""
    residuals = []
    x = torch.arange(-15, 15, 0.01, dtype=torch.float64)
    for numbers in [(0.0, 1.0, 0.0, 1.0), (0.3, 0.5, -0.4, 1.2), (-1.0, 1.4, 0.5, 0.6)]:
        m_1, s_1, m_2, s_2 = torch.tensor(numbers, dtype=torch.float64)
        found = likelihood.gaussian_kl(m_1, s_1**2, m_2, s_2**2)
        p, q = (torch.distributions.Normal(m, s) for m, s in [(m_1, s_1), (m_2, s_2)])
        log_p, log_q = (
            -((x - m) ** 2) / (2 * s**2) - torch.log(s * math.sqrt(2 * math.pi))
            for m, s in [(m_1, s_1), (m_2, s_2)]
        )
        residuals += [
            abs(found - torch.distributions.kl_divergence(p, q)),
            abs(found - 0.01 * (log_p.exp() * (log_p - log_q)).sum()),
        ]
    return largest(residuals)


@claim(
    "D5",
    "The variational bound",
    equations=("eq-diffusion-bound", "eq-diffusion-bound-exact"),
    kinds="E Q",
    tolerance=1e-10,
    source=f"{HO}, equations 3 and 5",
    assumptions="for the equality: Gaussian data and the exact reverse process",
    subjects=(likelihood,),
    mutants=(
        Mutant("the divergence with its arguments exchanged", "bound_term",
               "gaussian_kl(true_mean, beta_tilde, mean, sigma2)",
               "gaussian_kl(mean, sigma2, true_mean, beta_tilde)"),
        Mutant("beta in the place of beta-tilde", "bound_term",
               "at_step(posterior(schedule).beta_tilde, t, x_t)",
               "at_step(schedule.beta, t, x_t)"),
        Mutant("the first step has no decoder", "bound_term",
               "first = t == 1", "first = t == 0"),
        Mutant("the second step is decoded, too", "bound_term",
               "first = t == 1", "first = t <= 2"),
        Mutant("the prior's variance is that of the image", "prior_term", "1 - a", "a"),
        Mutant("the image is not scaled in the prior", "prior_term",
               "a.sqrt() * x_0", "x_0"),
        Mutant("the model is called with the timestep before", "bound_term",
               "denoiser(schedule, x_t, t)",
               "denoiser(schedule, x_t, (t - 1).clamp(1))"),
        Mutant("the decoder's logarithm without the factor 1/2", "log_density",
               "(2 * math.pi * variance).log()", "2 * (2 * math.pi * variance).log()"),
        Mutant("the factor of the image is not squared", "optimal_variance",
               "c_0**2 * mmse", "c_0 * mmse", module=posterior),
    ),
)  # fmt: skip
def bound() -> float:
    """All terms add up to the entropy of the data and the divergence of q(x_T)."""
    residuals = []
    beta, schedule = evenly(*SHORT), noise_schedule.linear_schedule(*SHORT)
    factor, noise = recursion(beta)
    tilde = (noise[:-1] / noise[1:] * beta[1:]).clone()
    tilde[0] = tilde[1]  # what the decoder has at t = 1
    for m, s2 in GAUSSIANS:
        entropy = 0.5 * math.log(2 * math.pi * math.e * s2)
        total = whole(exact_bound(schedule, m, s2))
        residuals.append(abs(total - entropy - by_hand.start(beta, m, s2)))
        # with another variance it is a bound, above by a divergence in every step
        before = (factor**2 * s2 + noise)[:-1]
        star = before * beta[1:] / ((1 - beta[1:]) * before + beta[1:])
        for name, other in [("beta", beta[1:]), ("beta_tilde", tilde)]:
            above = (star / other - 1 - (star / other).log()).sum() / 2
            found = whole(exact_bound(schedule, m, s2, name)) - total
            residuals.append(abs(found - above))
    return largest(residuals)


@claim(
    "D6b",
    "The weight of each timestep",
    equations=(
        "eq-diffusion-weight",
        "eq-diffusion-weight-snr",
        "eq-diffusion-first-step",
    ),
    kinds="S E",
    tolerance=1e-8,
    source=f"{HO}, equations 8 and 12; Kingma et al., 2021, arXiv:2107.00630, for the "
    "ratio",
    subjects=(likelihood,),
    mutants=(
        Mutant("the factor 2 is missing", "bound_weight",
               "(2 * reverse_variance(schedule, variance))",
               "reverse_variance(schedule, variance)"),
        Mutant("beta is not squared", "bound_weight",
               "beta**2 / (alpha * (1 - alpha_bar))",
               "beta / (alpha * (1 - alpha_bar))"),
        Mutant("alpha-bar in place of alpha", "bound_weight",
               "beta**2 / (alpha * (1 - alpha_bar))",
               "beta**2 / (alpha_bar * (1 - alpha_bar))"),
        Mutant("the weight of v is that of x_0", "bound_weight",
               "posterior(schedule).c_0 ** 2 * (1 - alpha_bar)",
               "posterior(schedule).c_0 ** 2"),
        Mutant("mu is not divided by the variance", "bound_weight",
               "torch.ones_like(beta)", "2 * reverse_variance(schedule, variance)"),
        Mutant("the ratio of this step and the next", "weights",
               "before / (1 - before)", "a_bar / (1 - a_bar)", module=__name__),
    ),
)  # fmt: skip
def weights() -> float:
    """Weight times squared error is the divergence, for every prediction type."""
    before, b = sympy.symbols("before beta", positive=True)
    a_bar = before * (1 - b)
    tilde = (1 - before) / (1 - a_bar) * b
    weight = b**2 / (2 * tilde * (1 - b) * (1 - a_bar))
    ratio = (before / (1 - before)) / (a_bar / (1 - a_bar))
    residuals = [holds(sympy.simplify(weight - (ratio - 1) / 2) == 0)]
    (T, *_), d = SHORT, 3
    beta, schedule = evenly(*SHORT), noise_schedule.linear_schedule(*SHORT)
    factor, noise = recursion(beta)
    t = torch.arange(2, T + 1)
    tilde = noise[t - 1] / noise[t] * beta[t]
    x_0, epsilon = normal(0, (T - 1, d), (T - 1, d))
    x_t = factor[t, None] * x_0 + noise[t, None].sqrt() * epsilon
    for variance in ("beta", "beta_tilde", "table"):
        sigma2 = {"beta": beta[t], "beta_tilde": tilde, "table": 2 * tilde}[variance]
        if variance == "table":
            variance = torch.cat([beta[:2], sigma2])
        rest = d / 2 * ((sigma2 / tilde).log() - 1 + tilde / sigma2)
        for target in process.PREDICTION_TYPES:
            true = process.training_target(schedule, x_0, t, epsilon, target)
            wrong = true + torch.sin(5 * x_t)
            found = likelihood.bound_term(
                schedule,
                Denoiser(lambda x, t, wrong=wrong: wrong, target, clip=None),
                x_0,
                t,
                epsilon,
                variance=variance,
            ).nats
            weight = likelihood.bound_weight(schedule, target, variance)[t]
            expected = weight * ((true - wrong) ** 2).sum(1) + rest
            residuals.append(((found - expected) / expected).abs().max())
    residuals.append(first_step())
    # on the chain of the paper: the weight of epsilon falls, and rises again
    beta = evenly(1000, 1e-4, 0.02)
    noise = recursion(beta)[1]
    expected = (beta / (2 * (1 - beta) * noise))[1:]
    weight = likelihood.bound_weight(noise_schedule.linear_schedule())[1:]
    lowest = expected.argmin()
    residuals += [
        ((weight / expected) - 1).abs().max(),
        likelihood.bound_weight(schedule)[0].abs(),
        holds(bool((expected.diff()[:lowest] < 0).all())),
        holds(bool((expected.diff()[lowest:] > 0).all())),
    ]
    return largest(residuals)


def first_step() -> float:
    """Compare the term of t = 1 with the density at x_0, and a bin with its density.

    The error of the midpoint rule is at most the second derivative times width^3 / 24.
    """
    beta, d = evenly(*SHORT), 3
    schedule = noise_schedule.linear_schedule(*SHORT)
    b = beta[1].item()
    variance, t = beta[1], torch.ones(6, dtype=torch.int64)
    x_0, epsilon = normal(5, (6, d), (6, d))
    x_0 = 0.2 * x_0
    wrong = epsilon + 0.3 * torch.sin(7 * x_0)
    model = Denoiser(lambda *_: wrong, clip=None)

    def nats(decoder) -> Tensor:
        return likelihood.bound_term(
            schedule, model, x_0, t, epsilon, variance="beta", decoder=decoder
        ).nats

    square = ((epsilon - wrong) ** 2).sum(1)
    weight = likelihood.bound_weight(schedule)[1]
    expected = weight * square + d / 2 * (2 * math.pi * variance).log()
    # x_0 is off by this many standard deviations, at most
    z2 = 2 * weight * (epsilon - wrong).square().amax()
    width = 2 / 255
    bin_error = d * width**2 / (24 * b) * (1 + z2)
    off = nats(likelihood.discrete_log_probability) - (expected - d * math.log(width))
    return largest(
        [
            relative(weight, 1 / (2 * (1 - b)) * torch.ones_like(weight)),
            relative(nats(likelihood.log_density), expected),
            holds(bool((off.abs() < 2 * bin_error).all() and bin_error < 0.05)),
        ]
    )


@claim(
    "D10",
    "The discretized likelihood of bytes",
    equations=("eq-diffusion-decoder", "eq-diffusion-bits"),
    kinds="E",
    tolerance=1e-10,
    source=f"{HO}, equation 13",
    subjects=(likelihood,),
    mutants=(
        Mutant("the lower end is closed", "discrete_log_probability",
               "-1 + 1 / 255", "-9"),
        Mutant("the upper end is closed", "discrete_log_probability",
               "1 - 1 / 255", "9"),
        Mutant("bins half as wide", "discrete_log_probability",
               "(x - 1 / 255 - mu)", "(x - mu)"),
        Mutant("no reflection", "discrete_log_probability",
               "over = lower + upper > 0", "over = lower > torch.inf"),
        Mutant("a floor under the probability, as in the authors' code",
               "discrete_log_probability",
               "log_b + torch.log(-torch.expm1(log_a - log_b))",
               "(log_b.exp() - log_a.exp()).clamp(min=1e-12).log()"),
        Mutant("1/256 in place of 1/255", "discrete_log_probability",
               "(x + 1 / 255 - mu)", "(x + 1 / 256 - mu)"),
        Mutant("the variance in place of the deviation", "discrete_log_probability",
               "(x_0.double(), mean.double(), variance.double().sqrt())",
               "(x_0.double(), mean.double(), variance.double())"),
        Mutant("nats in place of bits", "bits_per_dimension",
               "nats / (d * math.log(2))", "nats / d"),
    ),
)  # fmt: skip
def decoder() -> float:
    """Probabilities sum to 1, have finite logs, and match densities in narrow bins."""
    residuals = by_many_digits()
    every = 2 * torch.arange(256, dtype=torch.float64) / 255 - 1
    for sigma in (1e-4, 1e-3, 0.01, 0.1, 0.5):
        for mu in (-1.0, -0.3, 0.0, 0.501, 1.2):
            mean, variance = (
                torch.full_like(every, mu),
                torch.tensor(sigma**2, dtype=torch.float64),
            )
            logs = likelihood.discrete_log_probability(every, mean, variance)
            mirrored = likelihood.discrete_log_probability(-every, -mean, variance)
            residuals += [
                abs(logs.exp().sum() - 1),
                holds(bool(torch.isfinite(logs).all())),
                holds(bool(torch.isfinite(mirrored).all())),
                (mirrored / logs.clamp(max=-1e-300) - 1).abs()[logs < -1e-3].max(),
            ]
    # Mills' bounds far out, where the probability itself is 0 to the computer
    far = likelihood.discrete_log_probability(
        every[:1], every[-1:], torch.tensor(0.01**2, dtype=torch.float64)
    ).item()
    z = (2 - 1 / 255) / 0.01
    tail = -(z**2) / 2 - 0.5 * math.log(2 * math.pi) - math.log(z)
    residuals.append(holds(bool(tail - 1 / z**2 < far < tail)))
    # a wide Gaussian: a bin of 2/255 holds its density, so log2(127.5) bits more
    x, mean = every[100:101], every[90:91]
    variance = torch.tensor(0.5**2, dtype=torch.float64)
    discrete = likelihood.discrete_log_probability(x, mean, variance)
    density = likelihood.log_density(x, mean, variance)
    more = likelihood.bits_per_dimension(density - discrete, 1).item()
    residuals += [
        holds(bool(abs(more - math.log2(127.5)) < 5e-5)),
    ]
    # no Gaussian beats 8 bits on bytes that are uniformly random
    for sigma in (0.3, 0.6, 1.0):
        logs = likelihood.discrete_log_probability(
            every, 0 * every, torch.tensor(sigma**2, dtype=torch.float64)
        )
        residuals.append(
            holds(bool(likelihood.bits_per_dimension(-logs.mean(), 1) >= 8))
        )
    return largest(residuals)


def by_many_digits() -> list[float]:
    """Compare some bins with a computation in 60 digits."""
    residuals = []
    code = torch.tensor([0, 1, 77, 254, 255], dtype=torch.uint8)
    x = pixels.signed(code)  # float32, as in the recorded runs
    for sigma, mu in [(0.01, -0.3), (0.1, 1.2), (0.5, 0.501)]:
        mean, variance = torch.tensor([mu, sigma**2], dtype=torch.float64)
        found = likelihood.discrete_log_probability(x, mean.expand(5), variance)
        with mpmath.workdps(60):
            for one, log_p in zip(x.tolist(), found.tolist(), strict=True):
                half, mid, wide = mpmath.mpf(1) / 255, mean.item(), variance.item()
                wide = mpmath.sqrt(wide)
                low = -mpmath.inf if one == -1 else (one - half - mid) / wide
                high = mpmath.inf if one == 1 else (one + half - mid) / wide
                if low + high > 0:
                    low, high = -high, -low
                p = mpmath.ncdf(high) - mpmath.ncdf(low)
                residuals.append(abs(log_p / float(mpmath.log(p)) - 1))
    return residuals


@claim(
    "D11",
    "Progressive coding",
    equations=(
        "eq-diffusion-rate",
        "eq-diffusion-shannon",
        "eq-diffusion-immse",
    ),
    kinds="E Q",
    tolerance=1e-6,
    source=f"{HO}, section 4.3; Guo, Shamai and Verdu, 2005, arXiv:cs/0412108, for the "
    "derivative",
    assumptions="the exact reverse process",
    subjects=(likelihood,),
    mutants=(
        Mutant("the rate counts the later messages", "rate_distortion",
               "terms.sum() - terms.cumsum(0)", "terms.cumsum(0)"),
        Mutant("one message too many is counted", "rate_distortion",
               "terms.sum() - terms.cumsum(0)",
               "terms.sum() - terms.cumsum(0) + terms"),
        Mutant("the term L_T is left out", "rate_distortion",
               "bound.prior.mean() + after", "after"),
        Mutant("the distortion is squared", "rate_distortion",
               "bound.square.mean(1).sqrt()", "bound.square.mean(1)"),
        Mutant("the distortion of the mean in place of the image", "bound_term",
               "(x_0 - x_0_hat).square()", "(x_0 - mean).square()"),
        Mutant("the distortion of the noise", "bound_term",
               "(x_0 - x_0_hat).square()", "(epsilon - epsilon_hat).square()"),
        Mutant("the derivative without the factor 1/2", "slope_of_information",
               "0.5 * mmse", "mmse", module=__name__),
    ),
)  # fmt: skip
def coding() -> float:
    """Rates are mutual informations, on Shannon's curve; I-MMSE for the derivative."""
    residuals = []
    beta, schedule = evenly(*SHORT), noise_schedule.linear_schedule(*SHORT)
    factor, noise = recursion(beta)
    for m, s2 in GAUSSIANS:
        one = exact_bound(schedule, m, s2)
        rate, distortion = likelihood.rate_distortion(one, d=1)
        nats = rate * math.log(2)
        # of two Gaussians: the entropy of x_t less that of its noise, and regression
        v = factor**2 * s2 + noise
        information = 0.5 * (v / noise).log()[1:]
        mmse = s2 - factor**2 * s2**2 / v
        rest = by_hand.start(beta, m, s2)
        entropy = 0.5 * math.log(2 * math.pi * math.e * s2)
        residuals += [
            holds(len(rate) == len(distortion) == len(beta)),
            relative(nats[1:], information + rest),
            relative(nats[1:] - nats[-1], information - information[-1]),
            relative(distortion[1:] ** 2, mmse[1:]),
            relative(nats[1:] - rest, 0.5 * (s2 / distortion[1:] ** 2).log()),
            abs(nats[0] - entropy - rest),
            abs(distortion[0]),
            relative(3 * likelihood.rate_distortion(one, d=3).rate, rate),
        ]
    residuals += [slope_of_information(a) for a in (0.9, 0.5, 0.05)]
    return largest(residuals)


def slope_of_information(a: float) -> float:
    """The derivative of I(x_0; x_t) for two Gaussians, against half the MMSE."""
    tensors = ([0.3, 0.7], [[-0.6], [0.5]], [0.02, 0.04])
    data = gaussian_mixture.Mixture(
        *(torch.tensor(x, dtype=torch.float64) for x in tensors)
    )
    h = 0.002
    x = torch.arange(-7, 7, h, dtype=torch.float64)[:, None]

    def information(snr: float) -> float:
        a = torch.tensor(snr / (1 + snr), dtype=torch.float64)
        log_q = gaussian_mixture.log_parts(data, x, a.expand(len(x))).logsumexp(-1)
        noise = 0.5 * torch.log(2 * math.pi * math.e * (1 - a))
        return (-(log_q.exp() * log_q).sum() * h - noise).item()

    snr = a / (1 - a)
    d = 1e-4 * snr
    slope = (information(snr + d) - information(snr - d)) / (2 * d)
    a_t = torch.full((len(x),), a, dtype=torch.float64)
    q = gaussian_mixture.log_parts(data, x, a_t).logsumexp(-1).exp()
    mmse = (q * gaussian_mixture.posterior_x0(data, x, a_t).variance).sum().item() * h
    return abs(slope / (0.5 * mmse) - 1)


@claim(
    "D19a",
    "The estimate of the whole bound",
    equations=("eq-diffusion-bound-sum", "eq-diffusion-bits"),
    kinds="I E M",
    tolerance=1e-9,
    source=f"{HO}, equations 5 and 13",
    subjects=(likelihood,),
    mutants=(
        Mutant("the last step is left out", "variational_bound",
               "schedule.T + 1", "schedule.T", raises="ValueError"),
        Mutant("the last term is left out of the sum", "total_bits",
               "bound.terms.sum(0)", "bound.terms[:-1].sum(0)"),
        Mutant("a term in the middle is left out", "total_bits",
               "bound.terms.sum(0)", "(bound.terms.sum(0) - bound.terms[3])"),
        Mutant("the first step is left out", "total_bits",
               "bound.terms.sum(0)", "bound.terms[2:].sum(0)"),
        Mutant("the prior is left out", "total_bits",
               "bound.prior + bound.terms.sum(0)", "bound.terms.sum(0)"),
        Mutant("the mean over the steps", "total_bits",
               "bound.terms.sum(0)", "bound.terms.mean(0)"),
        Mutant("the same noise at every step", "variational_bound",
               "standard_normal(x_0, generator)",
               "standard_normal(x_0, torch.Generator().manual_seed(5))"),
        Mutant("the argument variance is ignored", "variational_bound",
               "reverse_variance(schedule, variance)", "reverse_variance(schedule)"),
        Mutant("a density where bytes are decoded", "variational_bound",
               "{'variance': reverse_variance(schedule, variance), "
               "'decoder': decoder}",
               "{'variance': reverse_variance(schedule, variance), "
               "'decoder': log_density}"),
        Mutant("the distortion of the mean in place of the image", "bound_term",
               "(x_0 - x_0_hat).square()", "(x_0 - mean).square()"),
        Mutant("the distortion is a sum", "bound_term",
               "(x_0 - x_0_hat).square().flatten(1).mean(1)",
               "(x_0 - x_0_hat).square().flatten(1).sum(1)"),
        Mutant("the noise before the image was clipped", "bound_term",
               "reverse_mean(schedule, x_t, t, epsilon_hat)",
               "reverse_mean(schedule, x_t, t, Denoiser(denoiser.model, "
               "denoiser.prediction_type, None)(schedule, x_t, t).epsilon)"),
        Mutant("the divergence per dimension", "bound_term",
               "gaussian_kl(true_mean, beta_tilde, mean, sigma2).flatten(1).sum(1)",
               "gaussian_kl(true_mean, beta_tilde, mean, sigma2).flatten(1).mean(1)"),
        Mutant("all images are decoded as the first one", "bound_term",
               "decoder(x_0[first], mean[first], sigma2[first])",
               "decoder(x_0[:1].expand_as(x_0), mean, sigma2)"),
    ),
)  # fmt: skip
def whole_bound() -> float:
    """Compare with plain numbers, in parts that share one generator; check the mean."""
    residuals = [gaussian_sum()]
    T, first, last = 6, 0.02, 0.5
    beta = evenly(T, first, last)
    schedule = noise_schedule.linear_schedule(T, first, last)
    code = torch.tensor([[0, 255, 31], [1, 128, 254], [9, 9, 200], [77, 5, 250],
                         [255, 0, 99]], dtype=torch.uint8)  # fmt: skip
    x_0 = pixels.signed(code).double()[:, None, None]
    d = x_0[0].numel()
    models = {
        "epsilon": lambda x, t: (
            0.8 * torch.sin(2 * x) + 0.1 * t.double().view(-1, 1, 1, 1)
        ),
        "mu": lambda x, t: 0.9 * x + 0.05 * t.double().view(-1, 1, 1, 1),
    }
    for variance in ("beta", "beta_tilde"):
        for name, model in models.items():
            generator = torch.Generator().manual_seed(3)
            parts = [
                likelihood.variational_bound(
                    schedule,
                    Denoiser(model, name),
                    part,
                    variance=variance,
                    generator=generator,
                )
                for part in x_0.split(2)
            ]
            found = Bound(*(torch.cat(x, -1) for x in zip(*parts, strict=True)))
            expected = by_hand.bound(beta, x_0, name, variance)
            prior, terms, square = expected
            bits = (prior + terms.sum(0)) / (d * math.log(2))
            rate, distortion = likelihood.rate_distortion(found, d)
            later = [terms[t + 1 :].sum(0) for t in range(T + 1)]
            sent = (prior + torch.stack(later)).mean(1) / (d * math.log(2))
            residuals += [
                *(relative(x, y) for x, y in zip(found, expected, strict=True)),
                relative(likelihood.total_bits(found, d), bits),
                relative(rate, sent),
                relative(distortion**2, square.mean(1)),
            ]
    return largest(residuals)


def gaussian_sum() -> float:
    """Compare the mean over images with the exact bound, within 5 standard errors."""
    n, beta = 20_000, evenly(*SHORT)
    schedule = noise_schedule.linear_schedule(*SHORT)
    m, s2 = 0.4, 0.09
    x_0 = m + math.sqrt(s2) * normal(4, (n, 1))[0]
    data = gaussian_mixture.gaussian(m, s2)
    left = s2 * recursion(beta)[1] / (recursion(beta)[0] ** 2 * (s2 - 1) + 1)
    bound = likelihood.variational_bound(
        schedule,
        Denoiser(
            gaussian_mixture.optimal_denoiser(data, schedule.alpha_bar), clip=None
        ),
        x_0,
        variance=posterior.optimal_variance(schedule, left),
        decoder=likelihood.log_density,
        generator=torch.Generator().manual_seed(0),
    )
    total = likelihood.total_bits(bound, d=1) * math.log(2)
    entropy = 0.5 * math.log(2 * math.pi * math.e * s2)
    error = total.std() / n**0.5
    off = abs(total.mean() - entropy - by_hand.start(beta, m, s2))
    return holds(bool(off < 5 * error))


@claim(
    "D19c",
    "A weighted loss as a sum of bounds on noisy data",
    equations=("eq-diffusion-elbo-view",),
    kinds="E",
    tolerance=1e-9,
    source="Kingma and Gao, Understanding Diffusion Objectives as the ELBO with Simple "
    "Data Augmentation, 2023, arXiv:2303.00848, in continuous time",
    assumptions="the variance is beta-tilde, so that the bound has no constants",
    subjects=(likelihood, process),
    mutants=(
        Mutant("beta is not squared in the weights", "bound_weight",
               "beta**2 / (alpha * (1 - alpha_bar))",
               "beta / (alpha * (1 - alpha_bar))"),
        Mutant("the rate counts the later messages", "rate_distortion",
               "terms.sum() - terms.cumsum(0)", "terms.cumsum(0)"),
        Mutant("one message too many is counted", "rate_distortion",
               "terms.sum() - terms.cumsum(0)",
               "terms.sum() - terms.cumsum(0) + terms"),
        Mutant("the loss of another step", "training_loss",
               "model(q_sample(schedule, x_0, t, epsilon), t)",
               "model(q_sample(schedule, x_0, t, epsilon), (t - 1).clamp(1))",
               module=process),
        Mutant("the terms of the next step", "bound_term",
               "at_step(posterior(schedule).beta_tilde, t, x_t)",
               "at_step(posterior(schedule).beta_tilde.roll(-1), t, x_t)"),
        Mutant("the factors in place of their differences", "elbo_view",
               "omega.diff(prepend=omega[:1] * 0)", "omega", module=__name__),
    ),
)  # fmt: skip
def elbo_view() -> float:
    """The unweighted loss, by Algorithm 1, is a sum of rates times gains of omega."""
    beta, schedule = evenly(*SHORT), noise_schedule.linear_schedule(*SHORT)
    T, residuals = schedule.T, []
    factor, noise = recursion(beta)
    omega = 1 / likelihood.bound_weight(schedule, variance="beta_tilde")[2:]
    gains = omega.diff(prepend=omega[:1] * 0)
    for m, s2 in GAUSSIANS:
        one = exact_bound(schedule, m, s2, "beta_tilde")
        nats = likelihood.rate_distortion(one, d=1).rate * math.log(2)
        above = torch.tensor([1.0, 1.0, -1.0, -1.0]).double()[:, None].repeat(T - 1, 1)
        epsilon = torch.tensor([1.0, -1.0]).double().repeat(2 * (T - 1))[:, None]
        t = torch.arange(2, T + 1).repeat_interleave(4)
        data = gaussian_mixture.gaussian(m, s2)
        loss = process.training_loss(
            schedule,
            gaussian_mixture.optimal_denoiser(data, schedule.alpha_bar),
            m + math.sqrt(s2) * above,
            draws=(t, epsilon),
        )
        simple = loss.view(-1, 4).mean(1).sum()
        bounds = nats[1:-1] - nats[-1]
        residuals.append(abs(simple - gains @ bounds))
        # the bound of the noisy data is above their negative log-likelihood
        mean, variance = by_hand.marginal_of_the_model(beta, m, s2)
        v = noise[1:]
        apart = v + factor[1:] ** 2 * s2 + (factor[1:] * m - mean) ** 2
        least = 0.5 * ((variance / v).log() - 1 + apart / variance)
        residuals += [
            (least - nats[1:]).clamp(min=0).max(),
            abs(least[-1] - nats[-1]),
        ]
    # on the long chain the gains are positive, and then negative
    chain = noise_schedule.linear_schedule()
    long = 1 / likelihood.bound_weight(chain, variance="beta_tilde")[2:]
    gains = long.diff()
    peak = long.argmax().item()
    residuals += [
        holds(1000 / 4 < peak < 1000 / 2),
        holds(bool((gains[:peak] > 0).all() and (gains[peak:] < 0).all())),
    ]
    return largest(residuals)
