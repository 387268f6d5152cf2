r"""
DDIM solves an ordinary differential equation
=============================================

**Question.** DDIM generates images without adding noise. Which sample belongs to a
given start :math:`x_T`, and how many network calls does it take to compute it
accurately?

**Answer.** In the limit of many steps, each point follows the probability-flow ODE,
which has the same densities as the noisy reverse process. DDIM is Euler's method for
this ODE. Heun's method needs two network calls per step. With timesteps that are closer
together near the data, it is nevertheless more than five times as accurate as DDIM for
the same number of calls, about 60. With seven calls it is less accurate than DDIM.

**Source.** Song et al., *Score-Based Generative Modeling through Stochastic
Differential Equations*, 2021 (arXiv:2011.13456); Karras et al., *Elucidating the Design
Space of Diffusion-Based Generative Models*, 2022 (arXiv:2206.00364). **Cost.** Seconds
on a CPU, no download.
"""

# %%
# Two processes, the same densities
# ---------------------------------
# The data are a mixture of two Gaussians on a line, so the noise can be predicted
# exactly. The left panel solves the probability-flow ODE :eq:`eq-diffusion-flow` by
# DDIM with all 1,000 timesteps from eleven quantiles of :math:`x_T`. The right panel
# runs Algorithm 2 :eq:`eq-diffusion-sampling`, a discretization of the reverse SDE
# :eq:`eq-diffusion-reverse-sde`, from the same points. The background is the density of
# :math:`x_t`.

import matplotlib.pyplot as plt
import numpy as np
import torch

from dian.diffusion import gaussian_mixture
from dian.diffusion.sampling import Denoiser, ddim_sample, ddpm_sample
from dian.diffusion.schedule import linear_schedule
from dian.diffusion.score import ode_sample
from dian.figures.tables import markdown_table

T = 1000
schedule = linear_schedule(T)
data = gaussian_mixture.Mixture(
    torch.tensor([0.3, 0.7]).double(),
    torch.tensor([[-0.6], [0.5]]).double(),
    torch.tensor([0.02, 0.04]).double(),
)
model = gaussian_mixture.optimal_denoiser(data, schedule.alpha_bar)
denoiser = Denoiser(model, clip=None)


def quantiles(n):
    """Return n equally probable points of a standard normal distribution."""
    middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.special.ndtri(middle)[:, None]


def paths_of(sample, x_T, **options):
    """Return x_T and the points after each step."""
    paths = [x_T]
    sample(
        schedule, denoiser, x_T, callback=lambda t, x, x_0: paths.append(x), **options
    )
    return torch.stack(paths)[..., 0]


x_T = quantiles(11)
generator = torch.Generator().manual_seed(0)
flow = paths_of(ddim_sample, x_T, steps=T)
noisy = paths_of(ddpm_sample, x_T, generator=generator)

x = torch.linspace(-2.5, 2.5, 200, dtype=torch.float64)
alpha_bar = schedule.alpha_bar[:, None].expand(-1, len(x))
points = x.expand(T + 1, -1)[..., None]
log_q = gaussian_mixture.log_parts(data, points, alpha_bar).logsumexp(-1)

fig, axes = plt.subplots(1, 2, figsize=(7, 4), sharey=True, layout="constrained")
for ax, paths, title in (
    (axes[0], flow, "Probability-flow ODE"),
    (axes[1], noisy, "Reverse SDE"),
):
    extent = (0, T, x[0].item(), x[-1].item())
    ax.imshow(
        log_q.exp().T.numpy(), origin="lower", extent=extent, aspect="auto",
        cmap="Blues", vmax=1,
    )  # fmt: skip
    ax.plot(np.arange(T, -1, -1), paths.numpy(), color="black", linewidth=0.7)
    ax.set(title=title, xlabel="timestep t", xlim=(T, 0), ylim=(-2.5, 2.5))
axes[0].set_ylabel("x")
fig.set_label(
    "Paths from noise (left) to data (right) for a mixture of two "
    "Gaussians, over the density of $x_t$. The probability-flow ODE keeps "
    "the order of the points; the reverse SDE does not."
)
plt.show()

# %%
# Time runs from noise on the left to data on the right. The paths of the ODE are smooth
# and do not cross: the order of the points is kept, and three of the eleven points end
# in the smaller component. The paths of the SDE cross many times, and where such a path
# ends depends on the noise that is added, and hardly on its start.

assert (flow[-1].diff() > 0).all()
assert (flow[-1] < 0).sum() == 3
assert (noisy[-1].diff() < 0).any()

# %%
# Both processes turn noise into the same distribution. The table compares its mean and
# variance with those of the samples, from two thousand quantiles of :math:`x_T`. The
# remaining difference is the discretization error of a thousand steps, and for the SDE
# also chance:

many = quantiles(2000)
drawn = {"ODE": ddim_sample(schedule, denoiser, many, steps=T)}
drawn["SDE"] = ddpm_sample(schedule, denoiser, many, generator=generator)
mean, covariance = gaussian_mixture.moments(data)
printed = [("data", f"{mean.item():.3f}", f"{covariance.item():.3f}")]
for name, samples in drawn.items():
    printed.append((name, f"{samples.mean():.3f}", f"{samples.var():.3f}"))
    assert abs(samples.mean() - mean) < 0.03
    assert abs(samples.var() / covariance - 1) < 0.07
print(markdown_table(("samples of", "mean", "variance"), printed))
start_and_end = torch.corrcoef(torch.stack([many, drawn["SDE"]])[..., 0])[0, 1]
assert abs(start_and_end) < 0.1  # the SDE forgets its start

# %%
# Accuracy for the same number of network calls
# ---------------------------------------------
# For Gaussian data the ODE has the solution :eq:`eq-diffusion-flow-gaussian`. The error
# is the root mean square over a hundred quantiles of :math:`x_T`. *Even* timesteps are
# those of DDIM; *quadratic* ones, proportional to the squares 1, 4, 9, ..., are closer
# together near the data, where the noise level :math:`\bar\sigma` of
# :eq:`eq-diffusion-flow-coordinates` grows by the largest factor per timestep.

m, s2 = 0.3, 0.25
gaussian = gaussian_mixture.gaussian(m, s2)
exact_model = gaussian_mixture.optimal_denoiser(gaussian, schedule.alpha_bar)
gaussian_denoiser = Denoiser(exact_model, clip=None)
x_T = quantiles(100)
a = schedule.alpha_bar[-1]
exact = m + (s2 / (a * s2 + 1 - a)).sqrt() * (x_T - a.sqrt() * m)
SPACING = {"even": 1, "quadratic": 2}


level = ((1 - schedule.alpha_bar) / schedule.alpha_bar).sqrt()
growth = level[2:] / level[1:-1]
assert growth.argmax() == 0


def error_of(method, power, n):
    """Return the number of network calls and the error of n steps."""
    steps = sorted({max(1, round(T * (i / n) ** power)) for i in range(1, n + 1)})
    x_0 = ode_sample(schedule, gaussian_denoiser, x_T, steps=steps, method=method)
    calls = len(steps) if method == "euler" else 2 * len(steps) - 1
    return calls, (x_0 - exact).square().mean().sqrt().item()


fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
errors = {}
for method, label, color in (("euler", "DDIM", "C0"), ("heun", "Heun", "C1")):
    for (name, power), line in zip(SPACING.items(), ("--", "-"), strict=True):
        curve = [error_of(method, power, n) for n in (4, 8, 16, 32, 64)]
        errors[method, name] = curve
        calls, values = zip(*curve, strict=True)
        ax.loglog(calls, values, f"o{line}", color=color, label=f"{label}, {name}")
ax.set(xlabel="network calls", ylabel="root mean square error")
ax.legend()
fig.set_label(
    "Error of two methods against the number of network calls, for evenly "
    "spaced timesteps and for timesteps that are closer together near the "
    "data. Heun's method gains most from the latter."
)
plt.show()

# %%
# On logarithmic axes a method of first order has the slope -1, a method of second order
# the slope -2. The table has the slope between the last two points of each curve,
# without its sign. For Heun's method with quadratic timesteps it is not exactly 2,
# because the timesteps are rounded to integers.
#
# Heun's method needs a prediction at the end of each step. At :math:`t = 0` there is
# none, so the last step is one of Euler's method. With even timesteps it leads from
# :math:`t = T / n` to 0 and limits the accuracy.

printed = []
for (method, name), curve in errors.items():
    (calls, before), (more, after) = curve[-2:]
    order = np.log(before / after) / np.log(more / calls)
    label = {"euler": "DDIM", "heun": "Heun"}[method]
    printed.append((label, name, f"{order:.2f}", f"{after:.1e}", more))
    if (method, name) == ("heun", "quadratic"):
        assert abs(order - 2) < 0.35  # rounding timesteps to integers changes it
    elif method == "euler":
        assert abs(order - 1) < 0.1
header = ("method", "timesteps", "order", "error", "network calls")
print(markdown_table(header, printed))
assert errors["heun", "quadratic"][-2][1] < errors["euler", "quadratic"][-1][1] / 5
assert errors["heun", "quadratic"][-2][0] == errors["euler", "quadratic"][-1][0] == 63
assert errors["heun", "quadratic"][0][0] == 7
assert errors["heun", "quadratic"][0][1] > errors["euler", "quadratic"][0][1]  # 4 calls

# %%
# Limits
# ------
# The noise is known exactly here. The prediction of a trained network has an error of
# its own, which more accurate integration cannot remove, so the curves of a real model
# would level off. The samples of the page
# :ref:`sphx_glr_gallery_4_diffusion_plot_7_fast_sampling.py` clip the predicted image,
# which is not part of the ODE.
