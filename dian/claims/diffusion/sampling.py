r"""Chapter 4: the samplers, on data for which the best network is known.

With Gaussian data the best network is linear, and the whole walk is an affine map of
its start and of each draw of noise. Zeros and unit vectors in their place read it off
the code that samples, to the last digit: no Monte Carlo would see an error of 1e-4.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.diffusion import gaussian_mixture, process, sampling
from dian.diffusion import schedule as noise_schedule

HO = "Ho et al., Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239"
SONG = "Song, Meng and Ermon, Denoising Diffusion Implicit Models, 2021, "
SONG += "arXiv:2010.02502"
SHORT = 50, 1e-4, 0.2  # on a long chain an index that is off by one changes 1 %


def affine(walk: Callable, T: int) -> tuple[float, float, Tensor]:
    """Offset, slope by the start, and factor of each draw of noise, of a walk."""
    x_T = torch.zeros(T + 2, 1, dtype=torch.float64)
    x_T[1] = 1

    def noise(t: int) -> Tensor:
        z = torch.zeros_like(x_T)
        z[t + 1] = 1
        return z

    offset, start, *draws = walk(x_T, noise)[:, 0]
    draws = torch.stack(draws) - offset
    return offset.item(), (start - offset).item(), draws


def walk_of(sampling, schedule, data, **options) -> Callable:
    """Algorithm 2 with the best network for some data."""
    model = gaussian_mixture.optimal_denoiser(data, schedule.alpha_bar)
    options = {"clip": None, "variance": "beta"} | options
    return lambda x_T, noise: sampling.ddpm_sample(
        schedule, model, x_T, noise=noise, **options
    )


@claim(
    "D8b",
    "Algorithm 2",
    equations=("eq-diffusion-sampling", "eq-diffusion-clipped"),
    kinds="I",
    tolerance=1e-12,
    source=f"{HO}, Algorithm 2; the clipping is in the authors' code alone",
    subjects=(sampling,),
    mutants=(
        Mutant("the root of alpha is lost", "reverse_mean",
               "return inner / at_step(alpha.sqrt(), t, x_t)", "return inner"),
        Mutant("alpha-bar of the step before", "reverse_mean",
               "at_step((1 - alpha_bar).sqrt(), t, x_t)",
               "at_step((1 - alpha_bar).sqrt(), t - 1, x_t)"),
        Mutant("the root is lost under the noise", "reverse_mean",
               "(1 - alpha_bar).sqrt()", "1 - alpha_bar"),
        Mutant("stops one step early", "ddpm_sample",
               "range(start or T, 0, -1)", "range(start or T, 1, -1)"),
        Mutant("clips at half of what was asked", "clipped",
               "x_0.clamp(-clip, clip)", "x_0.clamp(-clip / 2, clip / 2)"),
        Mutant("clips below alone", "clipped",
               "x_0.clamp(-clip, clip)", "x_0.clamp(-clip)"),
        Mutant("shows the image before it is clipped", "ddpm_sample",
               "clipped(x_0, clip)", "x_0"),
        Mutant("begins at T whatever was asked", "ddpm_sample", "start or T", "T"),
    ),
)  # fmt: skip
def ddpm_sample() -> float:
    """Against a loop over plain numbers; both forms of the mean; the callback."""
    T, first, last = 7, 0.1, 0.6
    schedule = noise_schedule.linear_schedule(T, first, last)
    x_T, z = normal(0, (5, 2), (T + 1, 5, 2))
    beta = [0.0] + [first + (last - first) * i / (T - 1) for i in range(T)]
    a_bar = [math.prod(1 - b for b in beta[: t + 1]) for t in range(T + 1)]

    def network(x, t):  # far from any clean image, so that clipping has work
        return 0.5 * math.sin(3 * x) - 0.1 * t

    def model(x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * torch.sin(3 * x) - 0.1 * t[:, None].to(x)

    def model_of_x_0(x: Tensor, t: Tensor) -> Tensor:
        return process.predict_x0(schedule, x, t, model(x, t))

    def by_hand(x: float, z: list[float], start: int, clip: float | None):
        seen = []
        for t in range(start, 0, -1):
            b, a, before = beta[t], a_bar[t], a_bar[t - 1]
            epsilon = network(x, t)
            x_0 = (x - math.sqrt(1 - a) * epsilon) / math.sqrt(a)
            if clip is None:
                mean = (x - b / math.sqrt(1 - a) * epsilon) / math.sqrt(1 - b)
            else:
                x_0 = min(max(x_0, -clip), clip)
                mean = math.sqrt(before) * b * x_0
                mean = (mean + math.sqrt(1 - b) * (1 - before) * x) / (1 - a)
            x = mean + (math.sqrt(b) * z[t] if t > 1 else 0)
            seen.append((t, x, x_0))
        return seen

    residuals = []
    for clip, start in [(None, None), (0.8, None), (0.8, 4)]:
        by_entry = [
            by_hand(x, draws.tolist(), start or T, clip)
            for x, draws in zip(x_T.flatten().tolist(), z.flatten(1).T, strict=True)
        ]
        for network_, target in [(model, "epsilon"), (model_of_x_0, "x_0")]:
            told = []
            found = sampling.ddpm_sample(
                schedule,
                network_,
                x_T,
                clip=clip,
                variance="beta",
                target=target,
                start=start,
                noise=lambda t: z[t],
                callback=lambda *step, told=told: told.append(step),
            )
            residuals.append(holds(len(told) == len(by_entry[0])))
            for (t, x, x_0), *steps in zip(told, *by_entry, strict=False):
                expected = torch.tensor(steps, dtype=torch.float64)
                residuals += [
                    holds(bool((expected[:, 0] == t).all())),
                    relative(x.flatten(), expected[:, 1]),
                    relative(x_0.flatten(), expected[:, 2]),
                ]
            residuals.append(relative(found, x))
    return largest(residuals)


@claim(
    "D12a",
    "A family with the same marginals",
    equations=("eq-diffusion-ddim", "eq-diffusion-ddim-variance"),
    kinds="E I",
    tolerance=1e-10,
    source=f"{SONG}, equations 7, 12 and 16",
    subjects=(sampling,),
    mutants=(
        Mutant("the new noise is not taken from the old", "ddim_sample",
               "(1 - a_s - variance).clamp", "(1 - a_s).clamp"),
        Mutant("eta is not squared", "ddim_sample", "eta**2", "eta"),
        Mutant("the noise of the prediction before it was clipped", "ddim_sample",
               "epsilon = predict_epsilon(schedule, x, t, x_0)",
               "epsilon = predict_epsilon(schedule, x, t, predict_x0(schedule, x, t, "
               "model(x, t), target))"),
        Mutant("walks on neighbouring steps", "ddim_sample",
               "path[i - 1], path[i]", "path[i] - 1, path[i]"),
    ),
)  # fmt: skip
def ddim() -> float:
    """Two moments of x_s under q; at eta = 1 the posterior, with steps left out too."""
    residuals = []
    schedule = noise_schedule.linear_schedule(50, 1e-4, 0.2)
    x_0, x_t = normal(0, (3, 2), (3, 2))

    def one_image(x: Tensor, t: Tensor) -> Tensor:
        return x_0[: len(x)]

    def one_step(x: Tensor, z: float, **options) -> Tensor:
        told = []
        sampling.ddim_sample(
            schedule, one_image, x, clip=None, target="x_0",
            noise=lambda _: z + 0 * x,
            callback=lambda *step: told.append(step), **options,
        )  # fmt: skip
        return told[0][1]

    for s, t in [(0, 1), (1, 2), (17, 18), (3, 40), (20, 50)]:
        for eta in (0.0, 0.3, 1.0):
            options = {"steps": [s, t] if s else [t], "eta": eta}
            both, image = (
                one_step(x_t, 0.0, **options),
                one_step(0 * x_t, 0.0, **options),
            )
            a_s, a_t = schedule.alpha_bar[s], schedule.alpha_bar[t]
            by_x_t = ((both - image) / x_t)[0, 0]
            by_x_0 = (image / x_0)[0, 0]
            variance = (one_step(x_t, 1.0, **options) - both)[0, 0] ** 2
            residuals += [
                # x_t = sqrt(a_t) x_0 + noise leads to x_s = sqrt(a_s) x_0 + noise
                abs(by_x_0 + by_x_t * a_t.sqrt() - a_s.sqrt()),
                abs(by_x_t**2 * (1 - a_t) + variance - (1 - a_s)),
            ]
            # the posterior of a chain whose step leads from s to t at once
            beta = 1 - a_t / a_s
            tilde = (1 - a_s) / (1 - a_t) * beta
            residuals.append(abs(variance - eta**2 * tilde))
            if eta == 1:
                residuals.append(abs(by_x_0 - a_s.sqrt() * beta / (1 - a_t)))
    residuals.append(clipped_noise(sampling, schedule, x_t))
    return largest(residuals)


def clipped_noise(sampling, schedule, x_t: Tensor) -> float:
    """A clipped image and its noise make up x_t."""
    told = []
    sampling.ddim_sample(
        schedule, lambda x, t: 3 + 0 * x, x_t, steps=[20, 50], eta=0.0, clip=0.5,
        target="x_0", callback=lambda *step: told.append(step),
    )  # fmt: skip
    (_, x_s, x_0), _ = told
    a_s, a_t = schedule.alpha_bar[20], schedule.alpha_bar[50]
    epsilon = (x_t - a_t.sqrt() * 0.5) / (1 - a_t).sqrt()
    expected = a_s.sqrt() * 0.5 + (1 - a_s).sqrt() * epsilon
    return max(relative(x_s, expected), relative(x_0, 0 * x_0 + 0.5))


@claim(
    "D12b",
    "What few steps cost",
    equations=("eq-diffusion-ddim-oracle",),
    kinds="E",
    tolerance=1e-10,
    source=f"the samplers of {SONG}, on data N(0, 1)",
    assumptions="the model is the best for its data",
    subjects=(sampling,),
    mutants=(
        Mutant("the last steps are the nearest to the end", "evenly_spaced_timesteps",
               "round(i * T / n)", "T - n + i"),
        Mutant("the last step back is left out", "ddim_sample",
               "range(len(path) - 1, 0, -1)", "range(len(path) - 1, 1, -1)"),
        Mutant("noise where there should be none", "ddim_sample",
               "eta**2", "(eta + 0.1)**2"),
        Mutant("the model is asked about the step before", "ddim_sample",
               "model(x, t)", "model(x, t - 1)"),
    ),
)  # fmt: skip
def few_steps() -> float:
    """The variance that comes out is a product of squared cosines; a point is found."""
    schedule = noise_schedule.linear_schedule()
    angle = schedule.alpha_bar.sqrt().acos()
    unit, point = (
        gaussian_mixture.gaussian(0.0, 1.0),
        gaussian_mixture.gaussian(0.3, 0.0),
    )
    one = torch.ones(1, 1, dtype=torch.float64)
    residuals = []
    for n, printed in [(10, 0.68785), (50, None), (1000, 0.99625)]:
        options = {
            "steps": sampling.evenly_spaced_timesteps(1000, n),
            "eta": 0.0,
            "clip": None,
        }
        model = gaussian_mixture.optimal_denoiser(unit, schedule.alpha_bar)
        variance = sampling.ddim_sample(schedule, model, one, **options).item() ** 2
        turned = angle[torch.arange(0, 1001, 1000 // n)].diff().cos()
        residuals.append(abs(variance - turned.prod().item() ** 2))
        if printed:
            residuals.append(holds(bool(abs(variance - printed) < 5e-6)))
        model = gaussian_mixture.optimal_denoiser(point, schedule.alpha_bar)
        found = sampling.ddim_sample(schedule, model, one, **options)
        residuals.append(relative(found, 0.3 * one))
    return largest(residuals)


@claim(
    "D14a",
    "The whole walk on Gaussian data",
    equations=("eq-diffusion-unit-oracle", "eq-diffusion-mean-oracle"),
    kinds="E",
    tolerance=1e-10,
    source="calculated; see the derivation on the page",
    assumptions="Gaussian data, and the best model for them",
    subjects=(sampling,),
    mutants=(
        Mutant("the model is asked about the step before", "ddpm_sample",
               "prediction = model(x, t)", "prediction = model(x, t - 1)"),
        Mutant("alpha-bar of the step before", "reverse_mean",
               "1 - alpha_bar", "(1 - alpha_bar.roll(1)).clamp(min=beta[1])"),
        Mutant("no time embedding", "ddpm_sample",
               "prediction = model(x, t)", "prediction = model(x, 0 * t + T // 2)"),
        Mutant("the root under the noise is lost", "reverse_mean",
               "(1 - alpha_bar).sqrt()", "1 - alpha_bar"),
        Mutant("the root of alpha is lost", "reverse_mean",
               "return inner / at_step(alpha.sqrt(), t, x_t)", "return inner"),
        Mutant("variance in place of deviation", "ddpm_sample",
               "reverse_variance(schedule, variance).sqrt()",
               "reverse_variance(schedule, variance)"),
        Mutant("the variance of the whole noise", "reverse_variance",
               "return schedule.beta", "return 1 - schedule.alpha_bar"),
        Mutant("noise at the last step too", "ddpm_sample",
               "noise(step) if step > 1 else torch.zeros_like(x)", "noise(step)"),
        Mutant("stops one step early", "ddpm_sample",
               "range(start or T, 0, -1)", "range(start or T, 1, -1)"),
        Mutant("beta-tilde where beta was asked for", "reverse_variance",
               "return schedule.beta", "return posterior(schedule).beta_tilde"),
    ),
)  # fmt: skip
def gaussian_oracle() -> float:
    """Mean and variance of what comes out, read off with unit vectors."""
    T, first, last = SHORT
    schedule = noise_schedule.linear_schedule(T, first, last)
    # N(0, 1): mean 0 and variance 1 - beta_1, since the last step adds no noise
    unit = walk_of(sampling, schedule, gaussian_mixture.gaussian(0.0, 1.0))
    offset, slope, draws = affine(unit, T)
    residuals = [abs(offset), abs(slope**2 + (draws**2).sum() - (1 - first))]
    # a point is hit from everywhere, with either variance
    for variance in ("beta", "beta_tilde"):
        point = gaussian_mixture.gaussian(0.3, 0.0)
        walk = walk_of(sampling, schedule, point, variance=variance)
        offset, slope, draws = affine(walk, T)
        residuals += [abs(offset - 0.3), abs(slope), draws.abs().max()]
    # N(m, s^2): the walk starts at N(0, 1), and not where the images end
    snr = noise_schedule.signal_to_noise(schedule)[-1].item()
    for m, s2 in [(0.4, 0.09), (-0.7, 0.5)]:
        walk = walk_of(sampling, schedule, gaussian_mixture.gaussian(m, s2))
        offset, _, _ = affine(walk, T)
        residuals.append(abs(offset - m + m * s2 * snr / (1 + s2 * snr)))
    return largest(residuals)


def grid_moments(sampling, schedule, data, variance: str) -> tuple[float, float]:
    """Mean and variance of what Algorithm 2 makes of N(0, 1), on a grid, in 1-D."""
    sigma = sampling.reverse_variance(schedule, variance).sqrt().tolist()
    reach, h = 6.0, 0.9 * min(sigma[2:])
    grid = torch.arange(-reach, reach, h, dtype=torch.float64)
    p = torch.exp(-(grid**2) / 2) * h / math.sqrt(2 * math.pi)
    model = gaussian_mixture.optimal_denoiser(data, schedule.alpha_bar)
    for step in range(len(schedule.beta) - 1, 0, -1):
        t = torch.full((len(grid),), step)
        prediction = model(grid[:, None], t)
        mean = sampling.reverse_mean(schedule, grid[:, None], t, prediction, clip=None)[
            :, 0
        ]
        if step == 1:
            break
        # the mass of each point goes to all points within 6 deviations of its mean
        width = math.ceil(6 * sigma[step] / h)
        near = ((mean + reach) / h).round().long()[:, None]
        near = near + torch.arange(-width, width + 1)
        far = (near.double() * h - reach - mean[:, None]) / sigma[step]
        share = torch.exp(-(far**2) / 2) * h / (sigma[step] * math.sqrt(2 * math.pi))
        near = near.clamp(0, len(p) - 1).flatten()
        p = torch.zeros_like(p).index_add(0, near, (share * p[:, None]).flatten())
    first = (p * mean).sum()
    return first.item(), (p * (mean - first) ** 2).sum().item()


@claim(
    "D14b",
    "What a step costs on a mixture",
    equations=("eq-diffusion-grid",),
    kinds="Q",
    tolerance=5e-6,
    source="calculated on a grid",
    assumptions="the best model for the data; no clipping",
    subjects=(sampling,),
    mutants=(
        Mutant("beta-tilde where beta was asked for", "reverse_variance",
               "return schedule.beta",
               "return posterior(schedule).beta_tilde.clamp(min=5e-4)"),
        Mutant("the root of alpha is lost", "reverse_mean",
               "return inner / at_step(alpha.sqrt(), t, x_t)", "return inner"),
        Mutant("the noise of another step", "reverse_mean",
               "at_step(beta, t, x_t) / shrink",
               "at_step(beta.roll(1), t, x_t) / shrink"),
    ),
)  # fmt: skip
def mixture_oracle() -> float:
    """The moments of the table: the walk is right and still not exact."""
    tensors = ([0.3, 0.7], [[-0.6], [0.5]], [0.02, 0.04])
    data = gaussian_mixture.Mixture(
        *(torch.tensor(x, dtype=torch.float64) for x in tensors)
    )
    schedule = noise_schedule.linear_schedule(100, 1e-4, 0.2)
    mean, variance = grid_moments(sampling, schedule, data, "beta")
    true_mean, true_variance = gaussian_mixture.moments(data)
    return largest(
        [
            abs(mean - 0.16755),
            abs(variance - 0.29012),
            abs(true_mean.item() - 0.17),
            abs(true_variance.item() - 0.2881),
        ]
    )
