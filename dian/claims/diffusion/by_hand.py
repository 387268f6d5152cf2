r"""The formulas of diffusion in plain numbers, which the claims compare with.

Nothing here imports the library. The schedule is known by :math:`\beta_1` and
:math:`\beta_T` alone, products are recursions over the timesteps, and means and
variances come from Bayes' rule and regression, in the order of the definitions.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def evenly(T: int, first: float, last: float) -> Tensor:
    """Return 0, and then beta_1 to beta_T, evenly spaced."""
    steps = torch.arange(T, dtype=torch.float64)
    beta = first + (last - first) * steps / (T - 1)
    return torch.cat([beta.new_zeros(1), beta])


def recursion(beta: Tensor) -> tuple[Tensor, ...]:
    """Return factor and variance of x_t given x_0, by a recursion over the steps."""
    factor, variance = [1.0], [0.0]
    for b in beta[1:].tolist():
        factor.append(factor[-1] * (1 - b) ** 0.5)
        variance.append((1 - b) * variance[-1] + b)
    return torch.tensor([factor, variance], dtype=beta.dtype).unbind()


def posterior_mean(beta: Tensor, t: Tensor, x_0: Tensor, x_t: Tensor) -> Tensor:
    """Return the mean of x_{t-1} given x_0 and x_t, weighted by precisions."""
    factor, variance = recursion(beta)
    wide = [-1, *[1] * (x_0.ndim - 1)]
    tables = ((factor, t - 1), (variance, t - 1), (beta, t))
    before, v, b = (table[i].view(wide) for table, i in tables)
    # of the two variances the first is 0 at t = 1, so multiply by it
    return (b * before * x_0 + v * (1 - b).sqrt() * x_t) / (b + v * (1 - b))


def start(beta: Tensor, m: float, s2: float) -> float:
    """Return the divergence of q(x_T) from N(0, 1), for data N(m, s^2)."""
    factor, variance = (x[-1].item() for x in recursion(beta))
    v = factor**2 * s2 + variance
    return 0.5 * (v + factor**2 * m**2 - 1 - math.log(v))


def marginal_of_the_model(beta: Tensor, m: float, s2: float) -> tuple[Tensor, Tensor]:
    """Return mean and variance of x_1 to x_T if sampled with beta-tilde."""
    factor, noise = (x.tolist() for x in recursion(beta))
    moments = [(0.0, 1.0)]
    for t in range(len(beta) - 1, 1, -1):
        mean, variance = moments[0]
        v, before = (factor[s] ** 2 * s2 + noise[s] for s in (t, t - 1))
        gain = math.sqrt(1 - beta[t].item()) * before / v
        mean = factor[t - 1] * m + gain * (mean - factor[t] * m)
        added = noise[t - 1] / noise[t] * beta[t].item()
        moments.insert(0, (mean, gain**2 * variance + added))
    mean, variance = torch.tensor(moments, dtype=torch.float64).T
    return mean, variance


def bound(beta: Tensor, x_0: Tensor, name: str, variance: str) -> tuple[Tensor, ...]:
    """Return L_T, the other terms and the squared errors of every image.

    The noise is drawn in the order of the library: for each pair of images, for each
    timestep.
    """
    T, generator = len(beta) - 1, torch.Generator().manual_seed(3)
    factor, noise = (x.tolist() for x in recursion(beta))
    prior, terms = [], torch.zeros(2, T + 1, len(x_0), dtype=torch.float64)
    for begin in range(0, len(x_0), 2):
        part = x_0[begin : begin + 2]
        for t in range(1, T + 1):
            epsilon = torch.randn(part.shape, generator=generator, dtype=torch.float64)
            for i, (image, z) in enumerate(zip(part, epsilon, strict=True), begin):
                pairs = zip(image.flatten().tolist(), z.flatten().tolist(), strict=True)
                each = [one_entry(beta, t, x, e, name, variance) for x, e in pairs]
                nats, square = zip(*each, strict=True)
                terms[0, t, i] = sum(nats)
                terms[1, t, i] = sum(square) / len(square)
    for image in x_0.flatten(1).tolist():
        mean = [factor[-1] * x for x in image]
        prior.append(sum(divergence(m, noise[-1], 0, 1) for m in mean))
    return torch.tensor(prior, dtype=torch.float64), *terms


def one_entry(
    beta: Tensor, t: int, x: float, epsilon: float, name: str, variance: str
) -> tuple[float, float]:
    """Return the term of one entry, and the squared error of the clipped image."""
    factor, noise = (table.tolist() for table in recursion(beta))
    b, v, before = beta[t].item(), noise[t], noise[t - 1]
    c_0, c_1 = factor[t - 1] * b / v, math.sqrt(1 - b) * before / v
    x_t = factor[t] * x + math.sqrt(v) * epsilon
    if name == "epsilon":
        guess = 0.8 * math.sin(2 * x_t) + 0.1 * t
        image = (x_t - math.sqrt(v) * guess) / factor[t]
    else:  # the image that belongs to a mean
        image = (0.9 * x_t + 0.05 * t - c_1 * x_t) / c_0
    image = min(max(image, -1.0), 1.0)
    mean, tilde = c_0 * image + c_1 * x_t, before / v * b
    sigma2 = b
    if variance == "beta_tilde":
        sigma2 = tilde if t > 1 else noise[1] / noise[2] * beta[2].item()
    if t > 1:
        nats = divergence(c_0 * x + c_1 * x_t, tilde, mean, sigma2)
    else:
        nats = -math.log(mass(x, mean, math.sqrt(2 * sigma2)))
    return nats, (x - image) ** 2


def divergence(m_1: float, v_1: float, m_2: float, v_2: float) -> float:
    """Return the divergence of two Gaussians, in nats."""
    return 0.5 * (math.log(v_2 / v_1) - 1 + (v_1 + (m_1 - m_2) ** 2) / v_2)


def mass(x: float, mean: float, width: float) -> float:
    """The Gaussian mass in the bin of one byte, by the complementary error function."""
    above = math.inf if x == 1 else (x + 1 / 255 - mean) / width
    below = -math.inf if x == -1 else (x - 1 / 255 - mean) / width
    if above + below < 0:
        above, below = -below, -above
    return 0.5 * (math.erfc(below) - math.erfc(above))


def guess(x: Tensor, t: Tensor) -> Tensor:
    """Predict noise that no image has, so that the clipping matters."""
    return 0.5 * torch.sin(3 * x) - 0.1 * t.view(-1, *[1] * (x.ndim - 1)).to(x)


def predicting(name: str, beta: list[float]) -> Callable:
    """Return a model that predicts the same noise in another parameterization."""
    double = torch.tensor(beta, dtype=torch.float64)
    factor, variance = recursion(double)

    def model(x: Tensor, t: Tensor) -> Tensor:
        a, v = (y[t].view(-1, *[1] * (x.ndim - 1)) for y in (factor, variance))
        epsilon = guess(x, t)
        x_0 = (x - v.sqrt() * epsilon) / a
        return {
            "epsilon": epsilon,
            "x_0": x_0,
            "v": a * epsilon - v.sqrt() * x_0,
            "mu": posterior_mean(double, t, x_0, x),
            "score": -epsilon / v.sqrt(),
        }[name]

    return model


def ddpm(
    beta: list[float],
    x: float,
    z: list[float],
    start: int,
    clip: float | None,
    variance: str = "beta",
) -> list[tuple[int, float, float]]:
    """Algorithm 2 for one number: t, x_{t-1} and the predicted x_0 of every step."""
    a_bar = [math.prod(1 - b for b in beta[: t + 1]) for t in range(len(beta))]
    seen = []
    for t in range(start, 0, -1):
        b, a, before = beta[t], a_bar[t], a_bar[t - 1]
        epsilon = 0.5 * math.sin(3 * x) - 0.1 * t
        x_0 = (x - math.sqrt(1 - a) * epsilon) / math.sqrt(a)
        if clip is None:
            mean = (x - b / math.sqrt(1 - a) * epsilon) / math.sqrt(1 - b)
        else:
            x_0 = min(max(x_0, -clip), clip)
            mean = math.sqrt(before) * b * x_0
            mean = (mean + math.sqrt(1 - b) * (1 - before) * x) / (1 - a)
        added = b if variance == "beta" else (1 - before) / (1 - a) * b
        x = mean + (math.sqrt(added) * z[t] if t > 1 else 0)
        seen.append((t, x, x_0))
    return seen


def affine(
    beta: Tensor, m: float, s2: float, variance: str
) -> tuple[float, float, Tensor]:
    """Offset and coefficients for data N(m, s^2), by regression of x_{t-1} on x_t."""
    factor, noise = (x.tolist() for x in recursion(beta))
    offset, slope, draws = 0.0, 1.0, torch.zeros(len(beta) - 1, dtype=torch.float64)
    for t in range(len(beta) - 1, 0, -1):
        b = beta[t].item()
        v, before = (factor[s] ** 2 * s2 + noise[s] for s in (t, t - 1))
        gain = math.sqrt(1 - b) * before / v  # Cov(x_{t-1}, x_t) / Var(x_t)
        offset = factor[t - 1] * m + gain * (offset - factor[t] * m)
        slope, draws = gain * slope, gain * draws
        if t > 1:
            added = b if variance == "beta" else noise[t - 1] / noise[t] * b
            draws[t - 1] = math.sqrt(added)
    return offset, slope, draws


def moments_backward(beta: Tensor, data: tuple, variance: str) -> tuple[float, float]:
    """Mean and variance of the samples: the means of x_0 and x_0^2 given x_t.

    They are functions of x_t on a grid, and are carried from t = 1 to T; the optimal
    image is written out, and so is the mean of the posterior.
    """
    factor, noise = (x.tolist() for x in recursion(beta))
    weight, means, spread = data
    variances = [b.item() for b in beta]
    if variance == "beta_tilde":
        variances = [0, *(noise[t - 1] / noise[t] * b
                          for t, b in enumerate(variances) if t)]  # fmt: skip
    h = min(0.8 * min(variances[2:]) ** 0.5, 0.04)
    x = torch.arange(-6, 6 + h, h, dtype=torch.float64)
    given = None
    for t in range(1, len(beta)):
        a, v, b = factor[t], noise[t], beta[t].item()
        parts, images = [], []
        for w, [m], s2 in zip(weight, means, spread, strict=True):
            whole = a**2 * s2 + v
            parts.append(w * torch.exp(-((x - a * m) ** 2) / (2 * whole)) / whole**0.5)
            images.append(m + a * s2 / whole * (x - a * m))
        image = sum(p * y for p, y in zip(parts, images, strict=True)) / sum(parts)
        mean = factor[t - 1] * b * image + (1 - b) ** 0.5 * noise[t - 1] * x
        mean = mean / v
        if given is None:
            given = torch.stack([mean, mean**2], 1)
            continue
        sigma, y, mean = variances[t] ** 0.5, x[None], mean[:, None]
        kernel = torch.exp(-(((y - mean) / sigma) ** 2) / 2)
        given = kernel @ given * h / (sigma * math.sqrt(2 * math.pi))
    start = torch.exp(-(x**2) / 2) * h / math.sqrt(2 * math.pi)
    first, second = (start @ given).tolist()
    return first, second - first**2
