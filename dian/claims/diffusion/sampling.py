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
from dian.claims.diffusion import by_hand
from dian.claims.diffusion.by_hand import evenly, guess, predicting, recursion
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
    return lambda x_T, noise, **more: sampling.ddpm_sample(
        schedule, denoiser, x_T, noise=noise, **options, **more
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
        Mutant("the root of alpha is missing", "reverse_mean",
               "(x_t - beta / noise * epsilon) / alpha**0.5",
               "x_t - beta / noise * epsilon"),
        Mutant("alpha-bar of the step before", "reverse_mean",
               "_, noise = signal_and_noise(schedule, t, x_t, first=1)",
               "noise = at_step((1 - "
               "schedule.alpha_bar.roll(1)).clamp(min=schedule.beta[1].item()).sqrt()"
               ", t, x_t)"),
        Mutant("the root of 1 - alpha-bar is missing", "reverse_mean",
               "beta / noise * epsilon", "beta / noise**2 * epsilon"),
        Mutant("stops one step early", "ddpm_sample",
               "range(T, 0, -1)", "range(T, 1, -1)"),
        Mutant("clips at half of the argument clip", "Denoiser.__call__",
               "x_0.clamp(-self.clip, self.clip)",
               "x_0.clamp(-self.clip / 2, self.clip / 2)"),
        Mutant("clips from below only", "Denoiser.__call__",
               "x_0.clamp(-self.clip, self.clip)", "x_0.clamp(-self.clip)"),
        Mutant("the callback gets the image before clipping", "Denoiser.__call__",
               "Denoised(x_0.to(dtype), epsilon.to(dtype))",
               "Denoised(predict_x0(schedule, x_t, t, prediction, "
               "self.prediction_type).to(dtype), epsilon.to(dtype))"),
        Mutant("the argument start is ignored", "ddpm_sample",
               "schedule.T if start is None else start", "schedule.T"),
        Mutant("the argument variance is ignored", "ddpm_sample",
               "reverse_variance(schedule, variance)", "reverse_variance(schedule)"),
        Mutant("the same noise at every step", "ddpm_sample",
               "standard_normal(like, generator)",
               "standard_normal(like, torch.Generator().manual_seed(5))"),
        Mutant("the prediction type is ignored", "Denoiser.__call__",
               "predict_x0(schedule, x_t, t, prediction, self.prediction_type)",
               "predict_x0(schedule, x_t, t, prediction)"),
        Mutant("the callback gets the predicted image in place of x", "ddpm_sample",
               "callback(t, x, x_0)", "callback(t, x_0, x_0)"),
    ),
)  # fmt: skip
def ddpm_sample() -> float:
    """Against a loop over plain numbers; both forms of the mean; the callback."""
    T, first, last = 7, 0.1, 0.6
    schedule = noise_schedule.linear_schedule(T, first, last)
    x_T, z = normal(0, (5, 2), (T + 1, 5, 2))
    beta = [0.0] + [first + (last - first) * i / (T - 1) for i in range(T)]
    residuals = [*parts_share_a_generator(schedule, beta), *last_steps()]
    for variance in ("beta", "beta_tilde"):
        for clip, start in [(None, None), (1.0, None), (0.8, None), (0.8, 4)]:
            by_entry = [
                by_hand.ddpm(beta, x, draws.tolist(), start or T, clip, variance)
                for x, draws in zip(x_T.flatten().tolist(), z.flatten(1).T, strict=True)
            ]
            for name in process.PREDICTION_TYPES:
                shown = []
                found = sampling.ddpm_sample(
                    schedule,
                    sampling.Denoiser(predicting(name, beta), name, clip),
                    x_T,
                    variance=variance,
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


def parts_share_a_generator(schedule, beta: list[float]) -> list[float]:
    """Compare sampling in parts with one generator, as in recorded runs."""
    T, residuals = schedule.T, []
    ours, own = (torch.Generator().manual_seed(6) for _ in range(2))
    for n in (2, 2, 1):
        x_T = torch.randn(n, 1, 3, generator=ours, dtype=torch.float64)
        found = sampling.ddpm_sample(schedule, guess, x_T, generator=ours)
        begin = torch.randn(n, 1, 3, generator=own, dtype=torch.float64)
        z = torch.zeros(T + 1, n, 1, 3, dtype=torch.float64)
        for t in range(T, 1, -1):
            z[t] = torch.randn(n, 1, 3, generator=own, dtype=torch.float64)
        expected = [
            by_hand.ddpm(beta, x, draws.tolist(), T, 1.0)[-1][1]
            for x, draws in zip(begin.flatten().tolist(), z.flatten(1).T, strict=True)
        ]
        expected = torch.tensor(expected, dtype=torch.float64)
        residuals.append(relative(found.flatten(), expected))
    return residuals


def last_steps() -> list[float]:
    """The variance at t = 1, where beta-tilde is 0: that of t = 2, if there is one."""
    residuals = []
    for b in ([0.3], [0.3, 0.5]):
        schedule = noise_schedule.make_schedule(b)
        found = sampling.reverse_variance(schedule, "beta_tilde")
        tilde = 0.3 / (1 - 0.7 * 0.5) * 0.5 if len(b) == 2 else 0.3
        expected = torch.tensor([0, tilde, tilde][: len(b) + 1], dtype=found.dtype)
        residuals.append(relative(found, expected))
    return residuals


@claim(
    "D8c",
    "A mixture of two noisy images",
    equations=("eq-diffusion-interpolation",),
    kinds="I",
    tolerance=1e-12,
    source=f"{HO}, section 4.4, with the same noise for both images",
    subjects=(sampling,),
    mutants=(
        Mutant("the weight is that of the first image", "interpolate",
               "(1 - weight) * x_t + weight * y_t",
               "weight * x_t + (1 - weight) * y_t"),
        Mutant("each image gets its own noise", "interpolate",
               "q_sample(schedule, image, t, epsilon)",
               "q_sample(schedule, image, t, standard_normal(wide, generator))"),
        Mutant("mixed at the step before", "interpolate",
               "q_sample(schedule, image, t, epsilon)",
               "q_sample(schedule, image, t - 1, epsilon)"),
        Mutant("the reverse process begins at T", "interpolate",
               "{'variance': variance, 'start': t, 'generator': generator}",
               "{'variance': variance, 'generator': generator}"),
        Mutant("the argument variance is ignored", "interpolate",
               "{'variance': variance, 'start': t, 'generator': generator}",
               "{'start': t, 'generator': generator}"),
        Mutant("the argument weight is ignored", "interpolate",
               "(1 - weight) * x_t + weight * y_t", "0.5 * x_t + 0.5 * y_t"),
    ),
)  # fmt: skip
def interpolation() -> float:
    """Two images, one noise, and Algorithm 2 from the mixture on, by plain numbers."""
    T, first, last = 7, 0.1, 0.6
    schedule = noise_schedule.linear_schedule(T, first, last)
    beta = evenly(T, first, last)
    factor, noise = recursion(beta)
    x_0, y_0 = normal(8, (3, 2), (3, 2))
    residuals = []
    for t, weight, variance in [(5, 0.3, "beta_tilde"), (2, 0.5, "beta")]:
        options = {"weight": weight, "variance": variance}
        found = sampling.interpolate(
            schedule,
            guess,
            x_0,
            y_0,
            t=t,
            generator=torch.Generator().manual_seed(1),
            **(options if weight != 0.5 else {}),  # the defaults
        )
        own = torch.Generator().manual_seed(1)
        draws = [torch.randn(3, 2, generator=own, dtype=torch.float64)
                 for _ in range(t)]  # fmt: skip
        mean = (1 - weight) * x_0 + weight * y_0
        mixed = factor[t] * mean + noise[t].sqrt() * draws[0]
        z = torch.zeros(T + 1, 3, 2, dtype=torch.float64)
        for step, drawn in zip(range(t, 1, -1), draws[1:], strict=True):
            z[step] = drawn
        expected = [
            by_hand.ddpm(beta.tolist(), x, own.tolist(), t, 1.0, variance)[-1][1]
            for x, own in zip(mixed.flatten().tolist(), z.flatten(1).T, strict=True)
        ]
        expected = torch.tensor(expected, dtype=torch.float64).view(3, 2)
        residuals.append(relative(found, expected))
    return largest(residuals)


@claim(
    "D12a",
    "DDIM keeps the marginals",
    equations=("eq-diffusion-ddim", "eq-diffusion-ddim-variance"),
    kinds="E I",
    tolerance=1e-10,
    source=f"{SONG}, equations 7, 12 and 16",
    subjects=(sampling,),
    mutants=(
        Mutant("the old noise is not reduced by the new one", "ddim_sample",
               "max(1 - a_s - variance, 0)", "max(1 - a_s, 0)"),
        Mutant("eta is not squared", "ddim_sample", "eta**2", "eta"),
        Mutant("the noise of the prediction before it was clipped", "Denoiser.__call__",
               "predict_epsilon(schedule, x_t, t, x_0)",
               "predict_epsilon(schedule, x_t, t, predict_x0(schedule, x_t, t, "
               "prediction, self.prediction_type))"),
        Mutant("steps between neighboring timesteps", "ddim_sample",
               "alpha_bar[s], alpha_bar[t]", "alpha_bar[t - 1], alpha_bar[t]"),
        Mutant("noise is drawn that is not used", "ddim_sample",
               "variance > 0", "variance >= 0"),
        Mutant("the root of alpha-bar is missing", "ddim_sample",
               "a_s**0.5 * x_0", "a_s * x_0"),
        Mutant("the same noise at every step", "ddim_sample",
               "standard_normal(like, generator)",
               "standard_normal(like, torch.Generator().manual_seed(5))"),
        Mutant("the timesteps start one too late", "evenly_spaced_timesteps",
               "range(1, n + 1)", "range(2, n + 2)", raises="ValueError"),
        Mutant("the last n timesteps, not evenly spaced", "evenly_spaced_timesteps",
               "round(i * T / n)", "T - n + i"),
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
    return largest([*residuals, *ddim_loops()])


def ddim_loops() -> list[float]:
    """Whole runs against a loop over numbers, clipped and not, with and without noise.

    The records have eta = 0, clipping at 1, and a number of steps that divides T.
    """
    T, first, last = 12, 0.05, 0.5
    schedule = noise_schedule.linear_schedule(T, first, last)
    beta = evenly(T, first, last)
    factor, variance = (x.tolist() for x in recursion(beta))
    (x_T,) = normal(2, (3, 1, 2))
    residuals = []
    for steps, tau in [(4, [3, 6, 9, 12]), (12, [*range(1, 13)]), ([2, 7], [2, 7])]:
        for name, eta, clip in [
            ("epsilon", 0.0, 1.0), ("mu", 0.0, 1.0), ("v", 0.4, None),
            ("epsilon", 1.0, 0.6),
        ]:  # fmt: skip
            ours, own = (torch.Generator().manual_seed(1) for _ in range(2))
            found = sampling.ddim_sample(
                schedule,
                sampling.Denoiser(predicting(name, beta.tolist()), name, clip),
                x_T,
                steps=steps,
                eta=eta,
                generator=ours,
            )
            x = x_T
            for t, s in zip(tau[::-1], [*tau[-2::-1], 0], strict=True):
                image = (x - variance[t] ** 0.5 * guess(x, torch.tensor([t]))) / factor[
                    t
                ]
                image = image if clip is None else image.clamp(-clip, clip)
                noise = (x - factor[t] * image) / variance[t] ** 0.5
                # of the posterior of a chain with a single step from s to t
                b = 1 - factor[t] ** 2 / factor[s] ** 2
                new = eta**2 * variance[s] / variance[t] * b
                x = factor[s] * image + abs(variance[s] - new) ** 0.5 * noise
                if new:
                    z = torch.randn(x.shape, generator=own, dtype=torch.float64)
                    x = x + new**0.5 * z
            # nothing is drawn that is not used
            same = torch.equal(ours.get_state(), own.get_state())
            residuals += [relative(found, x), holds(same)]
    return residuals


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
    "The cost of few DDIM steps",
    equations=("eq-diffusion-ddim-oracle",),
    kinds="E",
    tolerance=1e-10,
    source=f"the samplers of {SONG}, on data N(0, 1)",
    assumptions="the optimal denoiser of the data",
    subjects=(sampling,),
    mutants=(
        Mutant("the last n timesteps, not evenly spaced", "evenly_spaced_timesteps",
               "round(i * T / n)", "T - n + i"),
        Mutant("the last step is left out", "ddim_sample", "[0, *steps]", "steps"),
        Mutant("noise is added although eta is 0", "ddim_sample",
               "eta**2", "(eta + 0.1)**2"),
        Mutant("the model is called with the timestep before", "Denoiser.__call__",
               "as_steps(t, x_t)", "as_steps(t, x_t) - 1"),
    ),
)  # fmt: skip
def few_steps() -> float:
    """The variance of samples is a product of squared cosines; a point mass is hit."""
    schedule = noise_schedule.linear_schedule()
    factor, noise = recursion(evenly(1000, 1e-4, 0.02))
    angle = torch.atan2(noise.sqrt(), factor)
    unit, point = (
        gaussian_mixture.gaussian(0.0, 1.0),
        gaussian_mixture.gaussian(0.3, 0.0),
    )
    one = torch.ones(1, 1, dtype=torch.float64)
    residuals = []
    model = gaussian_mixture.optimal_denoiser(unit, schedule.alpha_bar)
    denoiser = sampling.Denoiser(model, clip=None)
    for n in (10, 20, 50, 100):  # those of the records
        variance = sampling.ddim_sample(schedule, denoiser, one, steps=n).item() ** 2
        turned = angle[torch.arange(0, 1001, 1000 // n)].diff().cos()
        residuals.append(abs(variance - turned.prod().item() ** 2))
    for n in (10, 50):
        model = gaussian_mixture.optimal_denoiser(point, schedule.alpha_bar)
        denoiser = sampling.Denoiser(model, clip=None)
        found = sampling.ddim_sample(schedule, denoiser, one, steps=n)
        residuals.append(relative(found, 0.3 * one))
    return largest(residuals)


@claim(
    "D14a",
    "A sampling run on Gaussian data",
    equations=("eq-diffusion-unit-oracle", "eq-diffusion-mean-oracle"),
    kinds="E",
    tolerance=1e-10,
    source="calculated; see the derivation on the page",
    assumptions="Gaussian data and their optimal denoiser",
    subjects=(sampling,),
    mutants=(
        Mutant("the model is called with the timestep before", "Denoiser.__call__",
               "as_steps(t, x_t)", "as_steps(t, x_t) - 1"),
        Mutant("alpha-bar of the step before", "reverse_mean",
               "_, noise = signal_and_noise(schedule, t, x_t, first=1)",
               "noise = at_step((1 - "
               "schedule.alpha_bar.roll(1)).clamp(min=schedule.beta[1].item()).sqrt()"
               ", t, x_t)"),
        Mutant("no timestep embedding", "Denoiser.__call__",
               "as_steps(t, x_t)", "0 * as_steps(t, x_t) + schedule.T // 2"),
        Mutant("the root of 1 - alpha-bar is missing", "reverse_mean",
               "beta / noise * epsilon", "beta / noise**2 * epsilon"),
        Mutant("the root of alpha is missing", "reverse_mean",
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
        Mutant("beta-tilde although beta is chosen", "reverse_variance",
               "return schedule.beta", "return posterior(schedule).beta_tilde"),
    ),
)  # fmt: skip
def gaussian_oracle() -> float:
    """Mean and variance of the samples, computed with unit vectors."""
    T, first, _ = SHORT
    beta, schedule = evenly(*SHORT), noise_schedule.linear_schedule(*SHORT)
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
    factor, noise = recursion(beta)
    snr = (factor[-1] ** 2 / noise[-1]).item()
    for m, s2 in [(0.4, 0.09), (-0.7, 0.5)]:
        data = gaussian_mixture.gaussian(m, s2)
        for variance in ("beta", "beta_tilde"):
            sample = sampler_for(sampling, schedule, data, variance=variance)
            offset, slope, draws = affine(sample, T)
            expected = by_hand.affine(beta, m, s2, variance)
            residuals += [
                abs(offset - m + m * s2 * snr / (1 + s2 * snr)),
                *(abs(x - y) for x, y in zip((offset, slope), expected, strict=False)),
                relative(draws, expected[2]),
            ]
    return largest(residuals)


def grid_moments(sampling, schedule, data, variance: str) -> tuple[float, float]:
    """Mean and variance of the samples of Algorithm 2 in one dimension, on a grid."""
    sigma = sampling.reverse_variance(schedule, variance).sqrt().tolist()
    reach, h = 6.0, min(0.9 * min(sigma[2:]), 0.04)
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
    "The error of a sampler on a mixture",
    equations=("eq-diffusion-grid",),
    kinds="Q M",
    tolerance=1e-6,
    source="calculated on a grid",
    assumptions="the optimal denoiser of the data; no clipping",
    subjects=(sampling, gaussian_mixture),
    mutants=(
        Mutant("beta-tilde although beta is chosen", "reverse_variance",
               "return schedule.beta",
               "return posterior(schedule).beta_tilde.clamp(min=5e-4)"),
        Mutant("the root of alpha is missing", "reverse_mean",
               "(x_t - beta / noise * epsilon) / alpha**0.5",
               "x_t - beta / noise * epsilon"),
        Mutant("the noise of another step", "reverse_mean",
               "schedule[:2]", "(schedule.beta.roll(1), schedule.alpha)"),
        Mutant("variance in place of deviation", "ddpm_sample",
               "reverse_variance(schedule, variance).sqrt()",
               "reverse_variance(schedule, variance)"),
        Mutant("the weights of the components are left out", "log_parts",
               "mixture.weight.log() - 0.5 * (square / v + normalised)",
               "-0.5 * (square / v + normalised)", module=gaussian_mixture),
        Mutant("the wrong kernel in the reverse density", "moments_backward",
               "(y - mean) / sigma", "(y + mean) / sigma", module=by_hand),
    ),
)  # fmt: skip
def mixture_oracle() -> float:
    """The density carried forward on a grid, the moments carried back, and draws."""
    weight, means, spread = [0.3, 0.7], [-0.6, 0.5], [0.02, 0.04]
    tensors = (weight, [[m] for m in means], spread)
    data = gaussian_mixture.Mixture(
        *(torch.tensor(x, dtype=torch.float64) for x in tensors)
    )
    residuals = []
    for chain, variance in [
        ((100, 1e-4, 0.2), "beta"), ((20, 1e-3, 0.4), "beta"),
        ((20, 1e-3, 0.4), "beta_tilde"),
    ]:  # fmt: skip
        schedule = noise_schedule.linear_schedule(*chain)
        found = grid_moments(sampling, schedule, data, variance)
        expected = by_hand.moments_backward(evenly(*chain), tensors, variance)
        residuals += [abs(x - y) for x, y in zip(found, expected, strict=True)]
        if schedule.T > 50:
            continue
        sample = sampler_for(sampling, schedule, data, variance=variance)
        generator = torch.Generator().manual_seed(0)
        x_T = torch.randn(10_000, 1, generator=generator, dtype=torch.float64)
        x_0 = sample(x_T, None, generator=generator)
        square = (x_0 - expected[0]) ** 2
        residuals += [
            holds(bool(abs(x.mean() - y) < 5 * x.std() / len(x) ** 0.5))
            for x, y in zip((x_0, square), expected, strict=True)
        ]
    return largest(residuals)
