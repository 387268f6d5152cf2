r"""Chapter 4: a learned variance, and the hybrid loss that trains it."""

import math

import torch

from dian.claims import Mutant, claim
from dian.claims.compare import largest, normal, relative
from dian.diffusion import learned_variance, likelihood
from dian.diffusion import schedule as noise_schedule

NICHOL = (
    "Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021, "
)
NICHOL += "arXiv:2102.09672"
T, FIRST, LAST = 6, 0.1, 0.6


def tables() -> tuple[list[float], list[float], list[float]]:
    """beta, alpha-bar and beta-tilde, as plain numbers from index 0 to T."""
    beta = [0.0] + [FIRST + (LAST - FIRST) * i / (T - 1) for i in range(T)]
    signal = [math.prod(1 - b for b in beta[: t + 1]) for t in range(T + 1)]
    tilde = [0.0, 0.0]
    for t in range(2, T + 1):
        tilde.append((1 - signal[t - 1]) / (1 - signal[t]) * beta[t])
    tilde[1] = tilde[2]
    return beta, signal, tilde


def divergence(m_1: float, v_1: float, m_2: float, v_2: float) -> float:
    """The divergence of two Gaussians, as a sum over a fine grid."""
    reach = 9 * math.sqrt(v_1)
    x = torch.linspace(m_1 - reach, m_1 + reach, 4001, dtype=torch.float64)
    p, q = (
        -((x - m) ** 2) / (2 * v) - 0.5 * math.log(2 * math.pi * v)
        for m, v in ((m_1, v_1), (m_2, v_2))
    )
    return torch.trapezoid(p.exp() * (p - q), x).item()


def decoded(x: float, mean: float, variance: float) -> float:
    """Return -ln of the probability of the bin of a byte that is neither 0 nor 255."""
    low, high = (
        0.5 * math.erfc(-(x + d / 255 - mean) / math.sqrt(2 * variance))
        for d in (-1, 1)
    )
    return -math.log(high - low)


@claim(
    "D22c",
    "A learned variance and the hybrid loss",
    equations=(
        "eq-diffusion-learned-variance",
        "eq-diffusion-hybrid",
        "eq-diffusion-hybrid-gradient",
    ),
    kinds="Q G",
    tolerance=1e-9,
    source=f"{NICHOL}, equations 15 and 16",
    subjects=(learned_variance, likelihood),
    mutants=(
        Mutant("the two fixed variances are exchanged", "interpolate_variance",
               "u * beta + (1 - u) * beta_tilde", "(1 - u) * beta + u * beta_tilde"),
        Mutant("interpolated on a linear scale", "interpolate_variance",
               "(u * beta + (1 - u) * beta_tilde).exp()",
               "u * (beta + 0 * u).exp() + (1 - u) * (beta_tilde + 0 * u).exp()"),
        Mutant("the bound trains the mean, too", "hybrid_loss",
               "predicted.detach()", "predicted"),
        Mutant("one term in place of the whole bound", "hybrid_loss",
               "bound_weight * schedule.T * term", "bound_weight * term"),
        Mutant("the bound is not scaled", "hybrid_loss",
               "bound_weight * schedule.T * term", "schedule.T * term"),
        Mutant("the divergence at the first step, too", "hybrid_loss",
               "torch.where(first, -decoder(x_0, mean, variance).to(term), term)",
               "term"),
        Mutant("the sign of the last term", "hybrid_loss",
               "-decoder(x_0, mean, variance).to(term)",
               "decoder(x_0, mean, variance).to(term)"),
        Mutant("the divergence with its arguments exchanged", "hybrid_loss",
               "gaussian_kl(true_mean, beta_tilde, mean, variance)",
               "gaussian_kl(mean, variance, true_mean, beta_tilde)"),
        Mutant("the variance of the step before", "hybrid_loss",
               "interpolate_variance(schedule, t, u.to(x_t.dtype))",
               "interpolate_variance(schedule, (t - 1).clamp(min=1), "
               "u.to(x_t.dtype))"),
    ),
)  # fmt: skip
def hybrid() -> float:
    """Divergences by sums; gradients with respect to both outputs, in closed form."""
    beta, signal, tilde = tables()
    schedule = noise_schedule.linear_schedule(T, FIRST, LAST)
    t, weight = torch.tensor([1, 2, 3, T, 1]), 0.05
    n, d = len(t), 3
    x_0 = normal(0, (n, d))[0].clamp(-0.9, 0.9)
    epsilon, predicted, u = normal(1, (n, d), (n, d), (n, d))
    predicted = (epsilon + 0.3 * predicted).requires_grad_()
    u.requires_grad_()
    loss = learned_variance.hybrid_loss(
        schedule,
        lambda x_t, t: (predicted, u),
        x_0,
        bound_weight=weight,
        draws=(t, epsilon),
    )
    by_noise, by_u = torch.autograd.grad(loss.sum(), (predicted, u))
    residuals, expected = [], torch.zeros(n, d, dtype=torch.float64)
    slope = torch.zeros(n, d, dtype=torch.float64)
    for i, step in enumerate(t.tolist()):
        b, a, spread = beta[step], signal[step], tilde[step]
        for j in range(d):
            e, guess = epsilon[i, j].item(), predicted[i, j].item()
            x_t = math.sqrt(a) * x_0[i, j].item() + math.sqrt(1 - a) * e
            true_mean, mean = (
                (x_t - b / math.sqrt(1 - a) * noise) / math.sqrt(1 - b)
                for noise in (e, guess)
            )
            share = u[i, j].item()
            variance = b**share * spread ** (1 - share)
            found = learned_variance.interpolate_variance(
                schedule, step, u[i : i + 1, j : j + 1].detach()
            )
            residuals.append(abs(found.item() - variance))
            if step == 1:
                term = decoded(x_0[i, j].item(), mean, variance)
            else:
                term = divergence(true_mean, spread, mean, variance)
                off = spread + (true_mean - mean) ** 2
                slope[i, j] = 0.5 * math.log(b / spread) * (1 - off / variance)
            expected[i, j] = (e - guess) ** 2 + weight * T * term
    later = t > 1
    residuals += [
        relative(loss.detach(), expected.mean(1)),
        relative(by_noise, (2 * (predicted - epsilon) / d).detach()),
        relative(by_u[later], (weight * T * slope / d)[later]),
    ]
    return largest(residuals)
