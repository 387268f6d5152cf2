r"""Chapter 4: the samplers, on data for which the optimal network is known.

With Gaussian data the optimal network is linear, and the whole sampling chain is an
affine map of :math:`x_T` and of each draw of noise. Zeros and unit vectors in their
place give its coefficients to the last digit: Monte Carlo would miss an error of 1e-4.
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


def affine(sample: Callable, T: int) -> tuple[float, float, Tensor]:
    """Offset, and coefficients of x_T and of each draw of noise, of a sampler."""
    x_T = torch.zeros(T + 2, 1, dtype=torch.float64)
    x_T[1] = 1

    def noise(t: int) -> Tensor:
        z = torch.zeros_like(x_T)
        z[t + 1] = 1
        return z

    offset, start, *draws = sample(x_T, noise)[:, 0]
    draws = torch.stack(draws) - offset
    return offset.item(), (start - offset).item(), draws


def sampler_for(sampling, schedule, data, **options) -> Callable:
    """Algorithm 2 with the optimal network for some data."""
    model = gaussian_mixture.optimal_denoiser(data, schedule.alpha_bar)
    denoiser = sampling.Denoiser(model, clip=None)
    return lambda x_T, noise: sampling.ddpm_sample(
        schedule, denoiser, x_T, noise=noise, **options
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
               "(x_t - beta / noise * epsilon) / alpha**0.5",
               "x_t - beta / noise * epsilon"),
        Mutant("alpha-bar of the step before", "reverse_mean",
               "_, noise = signal_and_noise(schedule, t, x_t, first=1)",
               "noise = at_step((1 - "
               "schedule.alpha_bar.roll(1)).clamp(min=schedule.beta[1].item()).sqrt()"
               ", t, x_t)"),
        Mutant("the root is lost under the noise", "reverse_mean",
               "beta / noise * epsilon", "beta / noise**2 * epsilon"),
        Mutant("stops one step early", "ddpm_sample",
               "range(T, 0, -1)", "range(T, 1, -1)"),
        Mutant("clips at half of what was asked", "Denoiser.__call__",
               "x_0.clamp(-self.clip, self.clip)",
               "x_0.clamp(-self.clip / 2, self.clip / 2)"),
        Mutant("clips below alone", "Denoiser.__call__",
               "x_0.clamp(-self.clip, self.clip)", "x_0.clamp(-self.clip)"),
        Mutant("shows the image before it is clipped", "Denoiser.__call__",
               "Denoised(x_0.to(dtype), epsilon.to(dtype))",
               "Denoised(predict_x0(schedule, x_t, t, prediction, "
               "self.prediction_type).to(dtype), epsilon.to(dtype))"),
        Mutant("begins at T whatever was asked", "ddpm_sample",
               "schedule.T if start is None else start", "schedule.T"),
    ),
)  # fmt: skip
def ddpm_sample() -> float:
    """Against a loop over plain numbers; both forms of the mean; the callback."""
    T, first, last = 7, 0.1, 0.6
    schedule = noise_schedule.linear_schedule(T, first, last)
    x_T, z = normal(0, (5, 2), (T + 1, 5, 2))
    beta = [0.0] + [first + (last - first) * i / (T - 1) for i in range(T)]

    def model(x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * torch.sin(3 * x) - 0.1 * t[:, None].to(x)

    def model_of_x_0(x: Tensor, t: Tensor) -> Tensor:
        return process.predict_x0(schedule, x, t, model(x, t))

    residuals = []
    for clip, start in [(None, None), (0.8, None), (0.8, 4)]:
        by_entry = [
            by_hand(beta, x, draws.tolist(), start or T, clip)
            for x, draws in zip(x_T.flatten().tolist(), z.flatten(1).T, strict=True)
        ]
        for network, prediction_type in [(model, "epsilon"), (model_of_x_0, "x_0")]:
            shown = []
            found = sampling.ddpm_sample(
                schedule,
                sampling.Denoiser(network, prediction_type, clip),
                x_T,
                start=start,
                noise=lambda t: z[t],
                callback=lambda *step, shown=shown: shown.append(step),
            )
            residuals.append(holds(len(shown) == len(by_entry[0])))
            for (t, x, x_0), *steps in zip(shown, *by_entry, strict=False):
                expected = torch.tensor(steps, dtype=torch.float64)
                residuals += [
                    holds(bool((expected[:, 0] == t).all())),
                    relative(x.flatten(), expected[:, 1]),
                    relative(x_0.flatten(), expected[:, 2]),
                ]
            residuals.append(relative(found, x))
    return largest(residuals)


def by_hand(
    beta: list[float], x: float, z: list[float], start: int, clip: float | None
) -> list[tuple[int, float, float]]:
    """Algorithm 2 for one number: t, x_{t-1} and the predicted x_0 of every step."""
    a_bar = [math.prod(1 - b for b in beta[: t + 1]) for t in range(len(beta))]
    seen = []
    for t in range(start, 0, -1):
        b, a, before = beta[t], a_bar[t], a_bar[t - 1]
        # far from the noise of any clean image, so that the clipping matters
        epsilon = 0.5 * math.sin(3 * x) - 0.1 * t
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
               "max(1 - a_s - variance, 0)", "max(1 - a_s, 0)"),
        Mutant("eta is not squared", "ddim_sample", "eta**2", "eta"),
        Mutant("the noise of the prediction before it was clipped", "Denoiser.__call__",
               "predict_epsilon(schedule, x_t, t, x_0)",
               "predict_epsilon(schedule, x_t, t, predict_x0(schedule, x_t, t, "
               "prediction, self.prediction_type))"),
        Mutant("walks on neighbouring steps", "ddim_sample",
               "alpha_bar[s], alpha_bar[t]", "alpha_bar[t - 1], alpha_bar[t]"),
    ),
)  # fmt: skip
def ddim() -> float:
    """Two moments of x_s under q; at eta = 1 the posterior, also with skipped steps."""
    residuals = []
    schedule = noise_schedule.linear_schedule(50, 1e-4, 0.2)
    x_0, x_t = normal(0, (3, 2), (3, 2))

    def one_image(x: Tensor, t: Tensor) -> Tensor:
        return x_0[: len(x)]

    def one_step(x: Tensor, z: float, **options) -> Tensor:
        shown = []
        sampling.ddim_sample(
            schedule, sampling.Denoiser(one_image, "x_0", clip=None), x,
            noise=lambda _: z + 0 * x,
            callback=lambda *step: shown.append(step), **options,
        )  # fmt: skip
        return shown[0][1]

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
    """A clipped image and its noise together make up x_t."""
    shown = []
    sampling.ddim_sample(
        schedule, sampling.Denoiser(lambda x, t: 3 + 0 * x, "x_0", clip=0.5), x_t,
        steps=[20, 50], callback=lambda *step: shown.append(step),
    )  # fmt: skip
    (_, x_s, x_0), _ = shown
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
        Mutant("the last step back is left out", "ddim_sample", "[0, *steps]", "steps"),
        Mutant("noise where there should be none", "ddim_sample",
               "eta**2", "(eta + 0.1)**2"),
        Mutant("the model is asked about the step before", "Denoiser.__call__",
               "as_steps(t, x_t)", "as_steps(t, x_t) - 1"),
    ),
)  # fmt: skip
def few_steps() -> float:
    """The variance of samples is a product of squared cosines; a point mass is hit."""
    schedule = noise_schedule.linear_schedule()
    angle = schedule.alpha_bar.sqrt().acos()
    unit, point = (
        gaussian_mixture.gaussian(0.0, 1.0),
        gaussian_mixture.gaussian(0.3, 0.0),
    )
    one = torch.ones(1, 1, dtype=torch.float64)
    residuals = []
    for n, printed in [(10, 0.68785), (50, None), (1000, 0.99625)]:
        model = gaussian_mixture.optimal_denoiser(unit, schedule.alpha_bar)
        denoiser = sampling.Denoiser(model, clip=None)
        variance = sampling.ddim_sample(schedule, denoiser, one, steps=n).item() ** 2
        turned = angle[torch.arange(0, 1001, 1000 // n)].diff().cos()
        residuals.append(abs(variance - turned.prod().item() ** 2))
        if printed:
            residuals.append(holds(bool(abs(variance - printed) < 5e-6)))
        model = gaussian_mixture.optimal_denoiser(point, schedule.alpha_bar)
        denoiser = sampling.Denoiser(model, clip=None)
        found = sampling.ddim_sample(schedule, denoiser, one, steps=n)
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
        Mutant("the model is asked about the step before", "Denoiser.__call__",
               "as_steps(t, x_t)", "as_steps(t, x_t) - 1"),
        Mutant("alpha-bar of the step before", "reverse_mean",
               "_, noise = signal_and_noise(schedule, t, x_t, first=1)",
               "noise = at_step((1 - "
               "schedule.alpha_bar.roll(1)).clamp(min=schedule.beta[1].item()).sqrt()"
               ", t, x_t)"),
        Mutant("no time embedding", "Denoiser.__call__",
               "as_steps(t, x_t)", "0 * as_steps(t, x_t) + schedule.T // 2"),
        Mutant("the root under the noise is lost", "reverse_mean",
               "beta / noise * epsilon", "beta / noise**2 * epsilon"),
        Mutant("the root of alpha is lost", "reverse_mean",
               "(x_t - beta / noise * epsilon) / alpha**0.5",
               "x_t - beta / noise * epsilon"),
        Mutant("variance in place of deviation", "ddpm_sample",
               "reverse_variance(schedule, variance).sqrt()",
               "reverse_variance(schedule, variance)"),
        Mutant("the variance of the whole noise", "reverse_variance",
               "return schedule.beta", "return 1 - schedule.alpha_bar"),
        Mutant("noise at the last step too", "ddpm_sample",
               "noise(t) if t > 1 else 0", "noise(t)"),
        Mutant("stops one step early", "ddpm_sample",
               "range(T, 0, -1)", "range(T, 1, -1)"),
        Mutant("beta-tilde where beta was asked for", "reverse_variance",
               "return schedule.beta", "return posterior(schedule).beta_tilde"),
    ),
)  # fmt: skip
def gaussian_oracle() -> float:
    """Mean and variance of the samples, computed with unit vectors."""
    T, first, last = SHORT
    schedule = noise_schedule.linear_schedule(T, first, last)
    # N(0, 1): mean 0 and variance 1 - beta_1, since the last step adds no noise
    unit = sampler_for(sampling, schedule, gaussian_mixture.gaussian(0.0, 1.0))
    offset, slope, draws = affine(unit, T)
    residuals = [abs(offset), abs(slope**2 + (draws**2).sum() - (1 - first))]
    # a point mass is hit from everywhere, with either variance
    for variance in ("beta", "beta_tilde"):
        point = gaussian_mixture.gaussian(0.3, 0.0)
        sample = sampler_for(sampling, schedule, point, variance=variance)
        offset, slope, draws = affine(sample, T)
        residuals += [abs(offset - 0.3), abs(slope), draws.abs().max()]
    # N(m, s^2): sampling starts at N(0, 1), not where the forward process ends
    snr = noise_schedule.signal_to_noise(schedule)[-1].item()
    for m, s2 in [(0.4, 0.09), (-0.7, 0.5)]:
        sample = sampler_for(sampling, schedule, gaussian_mixture.gaussian(m, s2))
        offset, _, _ = affine(sample, T)
        residuals.append(abs(offset - m + m * s2 * snr / (1 + s2 * snr)))
    return largest(residuals)


def grid_moments(sampling, schedule, data, variance: str) -> tuple[float, float]:
    """Mean and variance of the samples of Algorithm 2 in one dimension, on a grid."""
    sigma = sampling.reverse_variance(schedule, variance).sqrt().tolist()
    reach, h = 6.0, 0.9 * min(sigma[2:])
    grid = torch.arange(-reach, reach, h, dtype=torch.float64)
    p = torch.exp(-(grid**2) / 2) * h / math.sqrt(2 * math.pi)
    model = gaussian_mixture.optimal_denoiser(data, schedule.alpha_bar)
    for step in range(schedule.T, 0, -1):
        epsilon = model(grid[:, None], torch.full((len(grid),), step))
        mean = sampling.reverse_mean(schedule, grid[:, None], step, epsilon)[:, 0]
        if step == 1:
            break
        # the mass of each point goes to all points within 6 deviations of its mean
        width = math.ceil(6 * sigma[step] / h)
        near = ((mean + reach) / h).round().long()[:, None]
        near = near + torch.arange(-width, width + 1)
        far = (near.double() * h - reach - mean[:, None]) / sigma[step]
        mass = torch.exp(-(far**2) / 2) * h / (sigma[step] * math.sqrt(2 * math.pi))
        near = near.clamp(0, len(p) - 1).flatten()
        p = torch.zeros_like(p).index_add(0, near, (mass * p[:, None]).flatten())
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
               "(x_t - beta / noise * epsilon) / alpha**0.5",
               "x_t - beta / noise * epsilon"),
        Mutant("the noise of another step", "reverse_mean",
               "schedule[:2]", "(schedule.beta.roll(1), schedule.alpha)"),
    ),
)  # fmt: skip
def mixture_oracle() -> float:
    """The moments of the table: the sampler is right, but not exact."""
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
