r"""
Guided samples are narrower than the guided density
===================================================

**Question.** Classifier-free guidance extrapolates from the prediction without a class
to the one with it. Which distribution do the samples have?

**Answer.** Guidance moves the samples of a class away from the other class and makes
their distribution narrower; both effects grow with the guidance weight :math:`w`. The
samples do not have the guided density, the density whose score is the guided score of
the data: they are farther from the other class, and narrower still. For Gaussian data
their variance is known in closed form.

**Source.** Ho and Salimans, *Classifier-Free Diffusion Guidance*, 2022
(arXiv:2207.12598); Bradley and Nakkiran, *Classifier-Free Guidance is a
Predictor-Corrector*, 2024 (arXiv:2408.09000). **Cost.** Seconds on a CPU, no download.
"""

# %%
# Two overlapping classes
# -----------------------
# Each class is a Gaussian on a line, and the noise is predicted exactly, with and
# without the class. The *guided density* is the one whose score is the guided score
# :eq:`eq-diffusion-guided-mixture` at :math:`t = 0`: the density of the class times
# :math:`r_k(x)^w`, where :math:`r_k(x)` is the probability of class :math:`k` given
# :math:`x`. The samples are computed from two thousand quantiles of :math:`x_T` instead
# of random numbers.

import matplotlib.pyplot as plt
import torch

from dian.diffusion import gaussian_mixture
from dian.diffusion.guidance import guide
from dian.diffusion.sampling import Denoiser, ddim_sample
from dian.diffusion.schedule import linear_schedule
from dian.figures.tables import markdown_table

T, NULL, N = 1000, 2, 2000
schedule = linear_schedule(T)
WEIGHTS = (0.0, 1.0, 4.0)


def quantiles(n):
    """Return n equally probable points of a standard normal distribution."""
    middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.special.ndtri(middle)[:, None]


def conditional_model(parts, whole):
    """Return the optimal prediction of the noise, given a class or the null class."""
    models = [
        gaussian_mixture.optimal_denoiser(data, schedule.alpha_bar)
        for data in (*parts, whole)
    ]

    def model(x_t, t, y):
        out = torch.empty_like(x_t)
        for label in y.unique():
            out[y == label] = models[label](x_t[y == label], t[y == label])
        return out

    return model


def samples_of(model, label, w):
    """Sample one class, by DDIM with all timesteps."""
    x_T = quantiles(N)
    y = torch.full((N,), label)
    denoiser = Denoiser(guide(model, y, NULL, w), clip=None)
    return ddim_sample(schedule, denoiser, x_T, steps=T)[:, 0]


means, variance = (-0.35, 0.35), 0.09
classes = [gaussian_mixture.gaussian(m, variance) for m in means]
whole = gaussian_mixture.Mixture(
    torch.tensor([0.5, 0.5]).double(),
    torch.tensor(means).double()[:, None],
    torch.tensor([variance, variance]).double(),
)
model = conditional_model(classes, whole)
x = torch.linspace(-1.6, 1.8, 681, dtype=torch.float64)
log_parts = gaussian_mixture.log_parts(whole, x[:, None], torch.ones(len(x)).double())
log_r = log_parts.log_softmax(1)[:, 1]

fig, axes = plt.subplots(1, 3, figsize=(7, 4), sharey=True, layout="constrained")
found = {}
printed = []
for ax, w in zip(axes, WEIGHTS, strict=True):
    samples = found[w] = samples_of(model, 1, w)
    density = (log_parts[:, 1] + w * log_r).exp()
    density = density / torch.trapezoid(density, x)
    ax.hist(samples.numpy(), 60, density=True, color="C1", alpha=0.5, label="samples")
    ax.plot(x, density, color="black", label="guided density")
    ax.plot(x, log_parts[:, 0].exp() * 2, "--", color="C0", label="other class")
    ax.set(title=f"w = {w:g}", xlabel="x", xlim=(-1.6, 1.8))
    mean = torch.trapezoid(density * x, x)
    deviation = torch.trapezoid(density * (x - mean) ** 2, x).sqrt()
    numbers = samples.mean(), mean, samples.std(), deviation
    printed.append((f"{w:g}", *(f"{number:.3f}" for number in numbers)))
    if w > 0:
        assert samples.mean() > mean + 0.1
        assert samples.std() < 0.9 * deviation
axes[0].set_ylabel("density")
axes[0].legend(fontsize=8)
fig.set_label(
    "Samples of one class for three guidance weights $w$, the guided density, "
    "whose score is the guided score, and the other class. Guidance moves "
    "samples away from the other class."
)
plt.show()
header = ("weight w", "mean", "mean of the density", "s.d.", "s.d. of the density")
print(markdown_table(header, printed))

# %%
# Without guidance (:math:`w = 0`) the samples have the density of their class. With
# guidance they leave the region where the classes overlap. The table compares them with
# the guided density: their mean is farther from the other class, and their standard
# deviation is smaller.

assert abs(found[0.0].mean() - means[1]) < 0.01
assert abs(found[0.0].std() - variance**0.5) < 0.01
for less, more in ((0.0, 1.0), (1.0, 4.0)):
    assert found[more].mean() > found[less].mean()
    assert found[more].std() < found[less].std()
    assert (found[more] < 0).sum() < (found[less] < 0).sum()

# %%
# Gaussian data: three variances
# ------------------------------
# If the data of the class and all data are Gaussians around 0 with the variances
# :math:`s_y^2 = 0.25` and :math:`s^2 = 1`, the samples have the variance
# :eq:`eq-diffusion-guided-flow`, which falls exponentially with :math:`w`. The variance
# of the guided density is larger, and falls only like :math:`1 / w` for large
# :math:`w`: see :eq:`eq-diffusion-guided-order`. The third variance is that of samples
# of a thousand DDIM steps.

s2_y, s2 = 0.25, 1.0
model = conditional_model(
    [gaussian_mixture.gaussian(0.0, s2_y)] * 2, gaussian_mixture.gaussian(0.0, s2)
)
w = torch.linspace(0, 4, 81, dtype=torch.float64)
by_flow = s2_y * (s2_y / s2) ** w
by_density = s2_y / (1 + w * (1 - s2_y / s2))
measured = {}
for weight in (0.0, 0.5, 1.0, 2.0, 3.0, 4.0):
    # The run is linear: the square of its slope is the variance of the samples.
    y = torch.zeros(1, dtype=torch.int64)
    denoiser = Denoiser(guide(model, y, NULL, weight), clip=None)
    one = torch.ones(1, 1, dtype=torch.float64)
    slope = ddim_sample(schedule, denoiser, one, steps=T).item()
    measured[weight] = slope**2

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.semilogy(w, by_density, color="black", label="guided density")
ax.semilogy(w, by_flow, color="C1", label="samples, many steps")
ax.semilogy([*measured], [*measured.values()], "o", color="C1", label="1000 steps")
ax.set(xlabel="guidance weight w", ylabel="variance")
ax.legend()
fig.set_label(
    "Three variances against the guidance weight: that of the guided density, "
    "that of guided samples in the limit of many steps, and that of samples with "
    "a thousand steps. Samples are narrower than the guided density."
)
plt.show()

# %%
# The variance of samples of a thousand steps lies on the curve for many steps. The
# remaining difference, at most a few percent, is a discretization error: DDIM is
# Euler's method with a finite number of steps.

printed = []
for weight, value in measured.items():
    limit = s2_y * (s2_y / s2) ** weight
    printed.append((f"{weight:g}", f"{value:.5f}", f"{limit:.5f}"))
    assert abs(value / limit - 1) < 0.05
print(markdown_table(("weight w", "variance", "variance in the limit"), printed))
assert (by_flow <= by_density).all()

# %%
# Limits
# ------
# The predictions are exact here. A trained network is less accurate where it has seen
# few images, and guidance multiplies the difference of two predictions, errors
# included. For images, the predicted image is often clipped as well, so that samples
# stay in the range of the data even with a large guidance weight.
