r"""Chapter 4: the variational bound, term by term, and what it is worth as a code.

With Gaussian data and the exact reverse process the bound is an equality. Expectations
are computed by Gaussian quadrature, which is exact here, since every term is a
polynomial of degree two in the image and the noise.
"""

import math

import sympy
import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.diffusion import gaussian_mixture, likelihood, process
from dian.diffusion import schedule as noise_schedule
from dian.diffusion.sampling import Denoiser

HO = "Ho et al., Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239"
SHORT = 20, 1e-3, 0.4


def gauss_hermite(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights for the mean over N(0, 1): the method of Golub and Welsch."""
    off = torch.arange(1, n, dtype=torch.float64).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, vectors[0] ** 2


def exact_terms(likelihood, schedule, m: float, s2: float, variance=None) -> Tensor:
    """All terms of the bound for scalar data N(m, s^2) and the optimal model.

    Entry t is L_{t-1}, entry T + 1 is L_T, all in nats; entry 0 is empty.
    """
    T = schedule.T
    data = gaussian_mixture.gaussian(m, s2)
    c_0, _, beta_tilde = process.posterior(schedule)
    if variance is None:  # the exact one, with the remaining variance of x_0
        nothing = torch.zeros(T + 1, 1, dtype=torch.float64)
        left = gaussian_mixture.posterior_x0(data, nothing, schedule.alpha_bar).variance
        variance = beta_tilde + c_0**2 * left
    nodes, weights = gauss_hermite(4)
    x_0 = (m + math.sqrt(s2) * nodes).repeat_interleave(4).repeat(T)[:, None]
    epsilon = nodes.repeat(4).repeat(T)[:, None]
    t = torch.arange(1, T + 1).repeat_interleave(16)
    model = gaussian_mixture.optimal_denoiser(data, schedule.alpha_bar)
    found = likelihood.bound_term(
        schedule,
        Denoiser(model, clip=None),
        x_0,
        t,
        epsilon,
        variance=variance,
        decoder=likelihood.log_density,
    )
    both = torch.outer(weights, weights).flatten()
    terms = found.nats.view(T, 16) @ both
    prior = likelihood.prior_term(schedule, x_0[:16]) @ both
    return torch.cat([terms.new_zeros(1), terms, prior[None]])


@claim(
    "D4",
    "Divergence of two Gaussians",
    equations=("eq-diffusion-kl",),
    kinds="Q I",
    tolerance=1e-10,
    source="Kingma and Welling, Auto-Encoding Variational Bayes, 2014, "
    "arXiv:1312.6114, appendix B, for a standard normal prior",
    subjects=(likelihood,),
    mutants=(
        Mutant("the two are swapped", "gaussian_kl",
               "ratio = variance_1 / variance_2", "ratio = variance_2 / variance_1"),
        Mutant("the half is lost", "gaussian_kl", "0.5", "1.0"),
        Mutant("the distance is not squared", "gaussian_kl",
               "(mean_1 - mean_2) ** 2 / variance_2", "(mean_1 - mean_2) / variance_2"),
        Mutant("the distance by the other variance", "gaussian_kl",
               "(mean_1 - mean_2) ** 2 / variance_2",
               "(mean_1 - mean_2) ** 2 / variance_1"),
    ),
)  # fmt: skip
def kl() -> float:
    """By a sum over a grid, and by torch.distributions."""
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
    assumptions="for the equality: Gaussian data and the exact way back",
    subjects=(likelihood,),
    mutants=(
        Mutant("the divergence is taken the other way round", "bound_term",
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
        Mutant("the model is asked about the step before", "bound_term",
               "denoiser(schedule, x_t, t)",
               "denoiser(schedule, x_t, (t - 1).clamp(1))"),
        Mutant("the half of the decoder's logarithm", "log_density",
               "(2 * math.pi * variance).log()", "2 * (2 * math.pi * variance).log()"),
    ),
)  # fmt: skip
def bound() -> float:
    """All terms add up to the entropy of the data and the divergence of q(x_T)."""
    residuals = []
    T, first, last = SHORT
    schedule = noise_schedule.linear_schedule(T, first, last)
    a = schedule.alpha_bar[-1].item()
    for m, s2 in [(0.0, 1.0), (0.4, 0.09), (-0.7, 0.5)]:
        entropy = 0.5 * math.log(2 * math.pi * math.e * s2)
        v = a * s2 + 1 - a
        start = 0.5 * (v + a * m**2 - 1 - math.log(v))
        total = exact_terms(likelihood, schedule, m, s2).sum()
        residuals.append(abs(total - entropy - start))
        # with another variance it is a bound: equal where the other is the exact one
        beta = exact_terms(likelihood, schedule, m, s2, "beta").sum() - total
        tilde = exact_terms(likelihood, schedule, m, s2, "beta_tilde").sum() - total
        residuals += [
            abs(beta) if s2 == 1 else holds(bool(beta > 1e-3)),
            holds(bool(tilde > 1e-3)),
        ]
    return largest(residuals)


@claim(
    "D6b",
    "The weight of each step",
    equations=("eq-diffusion-weight", "eq-diffusion-weight-snr"),
    kinds="S E",
    tolerance=1e-8,
    source=f"{HO}, equations 8 and 12; Kingma et al., 2021, arXiv:2107.00630, for the "
    "ratio",
    subjects=(likelihood,),
    mutants=(
        Mutant("the two is lost", "bound_weight",
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
    T, d = 20, 3
    schedule = noise_schedule.linear_schedule(T, 1e-3, 0.4)
    t = torch.arange(2, T + 1)
    x_0, epsilon = normal(0, (T - 1, d), (T - 1, d))
    x_t = process.q_sample(schedule, x_0, t, epsilon)
    for variance in ("beta", "beta_tilde"):
        sigma2 = {"beta": schedule.beta, "beta_tilde": None}[variance]
        tilde = process.posterior(schedule).beta_tilde
        sigma2 = (tilde if sigma2 is None else sigma2)[t]
        rest = d / 2 * ((sigma2 / tilde[t]).log() - 1 + tilde[t] / sigma2)
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
    # on the chain of the paper: falls, and rises again
    weight = likelihood.bound_weight(noise_schedule.linear_schedule())
    lowest = weight[1:].argmin().item() + 1
    residuals.append(holds(bool(lowest == 349)))
    for t, digits in [(1, 0.5), (100, 0.0101), (349, 0.00497), (1000, 0.0102)]:
        residuals.append(holds(bool(abs(weight[t] / digits - 1) < 5e-3)))
    return largest(residuals)


@claim(
    "D10",
    "The last step, to bytes",
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
        Mutant("bits that are nats", "bits_per_dimension",
               "nats / (d * math.log(2))", "nats / d"),
    ),
)  # fmt: skip
def decoder() -> float:
    """256 probabilities sum to 1 and stay finite; small bins hold their density."""
    residuals = []
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
        holds(bool(abs(math.log2(127.5) - 6.994) < 5e-4)),
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
    assumptions="the exact way back",
    subjects=(likelihood,),
    mutants=(
        Mutant("what is to come is counted as sent", "rate_distortion",
               "terms.sum() - terms.cumsum(0)", "terms.cumsum(0)"),
        Mutant("one step too much is counted", "rate_distortion",
               "terms.sum() - terms.cumsum(0)",
               "terms.sum() - terms.cumsum(0) + terms"),
        Mutant("the prior is free", "rate_distortion",
               "bound.prior.mean() + after", "after"),
        Mutant("the distortion is squared", "rate_distortion",
               "bound.square.mean(1).sqrt()", "bound.square.mean(1)"),
        Mutant("the derivative without its half", "slope_of_information",
               "0.5 * mmse", "mmse", module=__name__),
    ),
)  # fmt: skip
def coding() -> float:
    """Rates are mutual informations, on Shannon's curve; I-MMSE for the derivative."""
    residuals = []
    T, first, last = SHORT
    schedule = noise_schedule.linear_schedule(T, first, last)
    snr = noise_schedule.signal_to_noise(schedule)[1:]
    for m, s2 in [(0.0, 1.0), (0.4, 0.09)]:
        *terms, prior = exact_terms(likelihood, schedule, m, s2)
        square = s2 / (1 + s2 * snr)
        square = torch.cat([square.new_zeros(1), square])[:, None]
        one = likelihood.Bound(prior[None], torch.stack(terms)[:, None], square)
        rate, distortion = likelihood.rate_distortion(one, d=1)
        information = 0.5 * torch.log1p(s2 * snr)
        sent = (rate[1:] - rate[-1]) * math.log(2)
        shannon = 0.5 * torch.log(s2 / distortion[1:] ** 2)
        residuals += [
            relative(sent, information - information[-1]),
            relative(information, shannon),
            abs(rate[-1] * math.log(2) - prior),
            abs(rate[0] * math.log(2) - prior - sum(terms)),
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
