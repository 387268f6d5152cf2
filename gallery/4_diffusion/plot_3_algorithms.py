r"""
A network learns the conditional mean of the noise
==================================================

**Question.** Training and sampling of a diffusion model are six lines each. What does a
network learn from them, and how good is it, compared with the optimal prediction?

**Answer.** It learns the conditional mean of the noise given :math:`x_t`, and not the
noise itself. For a ring of eight Gaussians this mean has a closed form, and a network
with 11,202 weights comes close to it. Its loss exceeds the irreducible loss by exactly
its mean squared distance from the optimum. Its samples cover all eight Gaussians; those
of the optimal denoiser are closer to the data.

**Source.** Algorithms 1 and 2 of Ho, Jain and Abbeel, *Denoising Diffusion
Probabilistic Models*, 2020 (arXiv:2006.11239). **Cost.** Seconds on a CPU, no
download.
"""

# %%
# Algorithm 1: training
# ---------------------
# Draw an image, a timestep and noise. The network is given the noisy image and the
# timestep, and predicts the noise.
#
# 1. Repeat:
# 2. draw :math:`x_0` from the data,
# 3. :math:`t` uniformly from :math:`1, \dots, T`,
# 4. and :math:`\epsilon \sim \mathcal N(0, I)`;
# 5. take a gradient descent step on :math:`\lVert \epsilon - \epsilon_\theta(
#    \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\; \epsilon,\ t) \rVert^2`;
# 6. until converged.
#
# The body of the library's function follows. Its comments have the numbers of the
# lines; lines 1, 2 and 6, and the gradient step of line 5, are left to the caller.

import inspect

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from dian.diffusion.gaussian_mixture import (
    Mixture,
    draw,
    log_parts,
    optimal_denoiser,
    optimal_epsilon,
    posterior_x0,
    ring,
    score,
)
from dian.diffusion.process import q_sample, training_loss
from dian.diffusion.sampling import Denoiser, ddpm_sample
from dian.diffusion.schedule import linear_schedule
from dian.figures.interactive import Interactive
from dian.figures.tables import markdown_table
from dian.positions.sinusoidal import sinusoidal_encoding


def show(function) -> None:
    """Print the body of a function, without its docstring."""
    source = inspect.getsource(inspect.unwrap(function))
    print(inspect.cleandoc(source.split('"""')[2]))


show(training_loss)

# %%
# Algorithm 2: sampling
# ---------------------
# Start from pure noise. Each step removes a part of the predicted noise, and adds a
# little new noise, except at the last step.
#
# 1. Draw :math:`x_T \sim \mathcal N(0, I)`.
# 2. For :math:`t = T, \dots, 1`:
# 3. draw :math:`z \sim \mathcal N(0, I)` if :math:`t > 1`, and take :math:`z = 0`
#    otherwise;
# 4. :math:`x_{t-1} = \frac{1}{\sqrt{\alpha_t}} \bigl( x_t - \frac{1 - \alpha_t}
#    {\sqrt{1 - \bar\alpha_t}}\, \epsilon_\theta(x_t, t) \bigr) + \sigma_t z`.
# 5. End of the loop.
# 6. Return :math:`x_0`.

show(ddpm_sample)

# %%
# The data and the optimal prediction
# -----------------------------------
# The data are eight isotropic Gaussians on a circle. After :math:`t` steps of noise
# each is still a Gaussian, so the density of :math:`x_t` and its score have closed
# forms, equation :eq:`eq-diffusion-mixture-score`. The optimal prediction, the
# conditional mean of the noise, is the score up to a negative factor, equation
# :eq:`eq-diffusion-best-epsilon`. Therefore :math:`-\epsilon^*` points towards regions
# of high density, at every noise level. The code below also checks Tweedie's formula
# :eq:`eq-diffusion-tweedie` for the clean image.

T, d = 100, 2
schedule = linear_schedule(T, 0.1 / T, 20 / T)
data = ring(8, radius=0.8, variance=0.02)

axis = np.linspace(-1.8, 1.8, 17)
grid = torch.tensor(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2))
fig, axes = plt.subplots(1, 3, figsize=(7, 4), layout="constrained", sharey=True)
for ax, t in zip(axes, (3, 15, 60), strict=True):
    a = schedule.alpha_bar[t].expand(len(grid))
    points = draw(data, 800, torch.Generator().manual_seed(t))
    z = torch.randn(800, 2, generator=torch.Generator().manual_seed(t)).double()
    x_t = q_sample(schedule, points, t, z)
    field = -optimal_epsilon(data, grid, a)
    ax.plot(*x_t.T.numpy(), ".", markersize=2, alpha=0.5)
    ax.quiver(*grid.T.numpy(), *field.T.numpy(), color="black", width=0.004)
    ax.set(title=f"t = {t}", aspect="equal", xlim=(-1.9, 1.9), ylim=(-1.9, 1.9))
    optimal = posterior_x0(data, grid, a).mean
    slope = score(data, grid, a)
    by_tweedie = (grid + (1 - a[:, None]) * slope) / a[:, None].sqrt()
    assert (optimal - by_tweedie).abs().max() < 1e-9
fig.suptitle(r"Noisy data, and the field $-\epsilon^*$, which points to the data")
fig.set_label(
    r"Data with the noise of three timesteps, and the field $-\epsilon^*$, the "
    r"optimal prediction of the noise with the sign reversed. The arrows point "
    r"towards the data."
)
plt.show()

# %%
# On a line all of this fits into one figure. The data are two Gaussians, at -0.6 and at
# 0.5. The curve above is the density of :math:`x_t`, and the arrow is the score at a
# point: it points uphill. The curve below is :math:`\mathbb E[x_0 \mid x_t = x]`, the
# estimate of the clean point that corresponds to the optimal prediction of the noise.
# At the first timesteps it is nearly :math:`x` itself (the dashed line), because there
# is little noise to remove. In the middle it steps from one Gaussian to the other. Near
# the end it is nearly constant, the mean of all data.

two = Mixture(
    torch.tensor([0.3, 0.7]).double(),
    torch.tensor([[-0.6], [0.5]]).double(),
    torch.tensor([0.02, 0.04]).double(),
)
line = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)[:, None]
shown_at = [*range(1, 20), *range(20, T + 1, 5)]
of_line = {"density": [], "score": [], "clean": []}
for t in shown_at:
    a = schedule.alpha_bar[t].expand(len(line))
    density = log_parts(two, line, a).logsumexp(-1).exp()
    slope, clean = score(two, line, a), posterior_x0(two, line, a).mean
    by_tweedie = (line + (1 - a[:, None]) * slope) / a[:, None].sqrt()
    assert (clean - by_tweedie).abs().max() < 1e-9
    for key, values in zip(of_line, (density, slope, clean), strict=True):
        of_line[key].append([round(value, 4) for value in values.flatten().tolist()])

Interactive(
    "mixture",
    "The density of a noisy point for two Gaussians on a line, with the score as an "
    "arrow, and the mean of the clean point given the noisy one. Choose a timestep and "
    "the noisy point.",
    x=[round(value, 2) for value in line.flatten().tolist()],
    steps=shown_at,
    **of_line,
)

# %%
# Training
# --------
# The network has three hidden layers. The timestep enters through the sinusoidal
# encoding of the chapter on positions. The point also enters through a few sines and
# cosines, without which so small a network learns fine structure slowly. Each training
# step takes the gradient of Algorithm 1.


class Network(nn.Module):
    """Predict the noise from a point and its timestep."""

    def __init__(self, width: int = 64, code: int = 32):
        super().__init__()
        self.code = code
        self.layers = nn.Sequential(
            nn.Linear(5 * d + code, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, d),
        )

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the predicted noise."""
        half, whole = torch.pi / 2 * x, torch.pi * x
        waves = [x, half.sin(), half.cos(), whole.sin(), whole.cos()]
        code = sinusoidal_encoding(t, self.code)
        return self.layers(torch.cat([*waves, code], 1))


generator = torch.Generator().manual_seed(0)
model = Network()
for parameter in model.parameters():  # from our generator, and not the global one
    bound = 1 / parameter.shape[-1] ** 0.5
    nn.init.uniform_(parameter, -bound, bound, generator=generator)
n_weight = sum(p.numel() for p in model.parameters())
n_step = 3000
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_step)
losses = []
for _ in range(n_step):
    x_0 = draw(data, 256, generator).float()
    loss = training_loss(schedule, model, x_0, generator=generator).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    decay.step()
    losses.append(loss.item())
print(
    f"{n_weight} weights; first loss {losses[0]:.2f}, last {np.mean(losses[-100:]):.3f}"
)

assert n_weight == 11_202

# %%
# The irreducible loss
# --------------------
# The noise cannot be predicted exactly, only its conditional mean. The loss that
# remains is the irreducible loss, equation :eq:`eq-diffusion-floor`. The loss of any
# other network is larger by its mean squared distance from the optimum, equation
# :eq:`eq-diffusion-excess`. Both sides of this equation are measured here.

best = optimal_denoiser(data, schedule.alpha_bar)
n = 4000
shown = [*range(1, 20, 2), *range(20, T + 1, 5)]
floor, reached, excess, off, error = [], [], [], [], []
for t in shown:
    steps = torch.full((n,), t)
    x_0 = draw(data, n, generator).float()
    epsilon = torch.randn(n, d, generator=generator)
    x_t = q_sample(schedule, x_0, t, epsilon)
    with torch.no_grad():
        predicted = model(x_t, steps)
    ideal = best(x_t, steps)
    loss, least = ((epsilon - y).square().mean(1) for y in (predicted, ideal))
    distance = (predicted - ideal).square().mean(1)
    z = torch.randn(10 * n, d, generator=generator).double()
    wide = q_sample(schedule, draw(data, 10 * n, generator), t, z)
    slope = score(data, wide, schedule.alpha_bar[t].expand(10 * n))
    floor.append((1 - (1 - schedule.alpha_bar[t]) * slope.square().mean()).item())
    reached.append(loss.mean().item())
    excess.append((loss - least).mean().item())
    off.append(distance.mean().item())
    error.append(((loss - least - distance).std() / n**0.5).item())

fig, (left, right) = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
left.plot(shown, reached, label="the network")
left.plot(shown, floor, "k--", label="irreducible loss")
left.axhline(1, color="gray", linestyle=":", label="predicts zero")
left.set(xlabel="timestep t", ylabel="MSE per coordinate", ylim=(0, 1.1))
left.legend()
right.errorbar(
    shown, excess, yerr=2 * np.array(error), fmt=".", label="excess of the loss"
)
right.plot(shown, off, label="squared distance")
right.set(xlabel="timestep t", ylabel="MSE per coordinate")
right.legend()
fig.set_label(
    "Left: the loss of a trained network at each timestep and the "
    "irreducible loss. Right: their difference, the excess, is the squared "
    "distance of the network from the optimal denoiser; error bars are two "
    "standard errors."
)
plt.show()

print(
    f"mean over timesteps: loss {np.mean(reached):.4f}, irreducible "
    f"{np.mean(floor):.4f}"
)
print(f"squared distance: mean {np.mean(off):.4f}, largest {np.max(off):.4f}")
assert np.all(np.abs(np.array(excess) - off) < 5 * np.array(error))
assert np.mean(off) < 0.02
assert np.argmax(off) < 5
assert np.max(off) < 0.1
assert np.median(off) < 0.01
assert np.mean(reached) > np.mean(floor)

# %%
# Sampling
# --------
# Algorithm 2 runs once with the network and once with the optimal denoiser, both times
# with :math:`\sigma_t^2 = \beta_t`. The predicted :math:`\hat x_0` is not clipped,
# because these data are not images.

n = 2000
x_T = torch.randn(n, d, generator=torch.Generator().manual_seed(1))
drawn = {"data": draw(data, n, generator).float()}
for name, predict in [("network", model), ("optimal denoiser", best)]:
    drawn[name] = ddpm_sample(
        schedule,
        Denoiser(predict, clip=None),
        x_T,
        generator=torch.Generator().manual_seed(2),
    )

fig, axes = plt.subplots(1, 3, figsize=(7, 4), layout="constrained", sharey=True)
near, printed = {}, []
for ax, (name, points) in zip(axes, drawn.items(), strict=True):
    ax.plot(*points.T.numpy(), ".", markersize=2, alpha=0.5)
    ax.set(title=name, aspect="equal", xlim=(-1.3, 1.3), ylim=(-1.3, 1.3))
    distance = torch.cdist(points.double(), data.mean)
    within = distance.min(1).values < 3 * data.variance[0].sqrt()
    fraction = distance.argmin(1).bincount(minlength=8) / n
    near[name] = within.double().mean().item()
    span = f"{fraction.min():.3f} to {fraction.max():.3f}"
    printed.append((name, f"{near[name]:.3f}", span))
    assert fraction.min() > 0.08
    assert fraction.max() < 0.17
fig.set_label(
    "The data, and samples by Algorithm 2, with the network and with the "
    "optimal denoiser. Both find all eight Gaussians; the samples of the "
    "network are more blurred."
)
plt.show()

header = ("samples of", "near a center", "fraction at each center")
print(markdown_table(header, printed))
assert near["network"] > 0.9
assert near["network"] < near["optimal denoiser"]
assert near["optimal denoiser"] > 0.97

# %%
# Limits
# ------
# In two dimensions a small network can come close to the optimum everywhere. For images
# neither the optimal prediction nor the irreducible loss is known, and models have to
# be evaluated in other ways: by likelihood, and by distances between sets of samples.
