r"""
The network that is told the step, and the average of its weights
=================================================================

**Question.** One network removes the noise of all steps. What is it made of, how does
it know which step it is at, and why do samples come from weights that were never
trained?

**Answer.** It is a U-Net: blocks of two convolutions at falling resolution and a way
across from each block down to one up, with attention between the pixels at 14 by 14 and
once more in the middle, where the resolution is lowest. Every block is told the step,
by the sinusoidal code of the chapter on positions. The network begins by predicting
nothing, and so loses 1 per pixel; a trained one that is told wrong steps does worse
than one that is told the right ones. Samples come from an exponential average of the
weights, which forgets where it began only slowly: the paper's would still be half its
random start after 6,931 steps.

**Source.** Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models*, 2020
(arXiv:2006.11239), appendix B. **Cost.** Seconds on a CPU, no download.
"""

# %%
# The step in a code
# ------------------
# A number as such would be a poor input, with 1,000 on the same wire as 1. Each step is
# turned into sines and cosines of falling frequency, and goes through two layers,
#
# .. math::
#    :label: eq-unet-step
#
#    e = s(W_2\, s(W_1\, PE(t - 1))), \qquad
#    \omega_i = 10000^{-i / (w/2 - 1)}, \qquad i = 0, \dots, w/2 - 1,
#
# with :math:`s(z) = z\,\sigma(z)`. The frequencies differ a little from those of
# *Attention Is All You Need*: they reach 1/10000 itself. The authors' code counts steps
# from 0, so what is encoded is :math:`t - 1`.

import math

import matplotlib.pyplot as plt
import numpy as np
import torch

from dian import data
from dian.diffusion.ema import EMA
from dian.diffusion.process import training_loss
from dian.diffusion.schedule import linear_schedule
from dian.diffusion.unet import PRESETS, UNet
from dian.positions.sinusoidal import sinusoidal_encoding

T, w = 1000, PRESETS["small"].width
base = 10_000 ** (w / (w - 2))
code = sinusoidal_encoding(torch.arange(T), w, base, torch.float64)

fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained")
style = {"aspect": "auto", "cmap": "RdBu", "vmin": -1, "vmax": 1}
left.imshow(code.T.numpy(), extent=(1, T, w, 0), **style)
left.set(title="The code of each step", xlabel="step t", ylabel="feature")
for t in (1, 250, 700):
    distance = (code - code[t - 1]).norm(dim=1)
    right.plot(np.arange(1, T + 1), distance.numpy(), label=f"from step {t}")
right.set(title="How far apart steps are", xlabel="step t", ylabel="distance of codes")
right.legend()
plt.show()

# %%
# No two steps have the same code: the two that are most alike are still apart.

apart = torch.cdist(code, code) + 9 * torch.eye(T, dtype=torch.float64)
print(f"least distance between two of {T} codes: {apart.min():.3f}")
assert apart.min() > 0.05
assert math.isclose(base ** (-(w / 2 - 1) * 2 / w), 1e-4)

# %%
# A block
# -------
# What a block adds to the image depends on the step at every pixel alike,
#
# .. math::
#    :label: eq-unet-block
#
#    h = K_1 * s(n(x)) + W e, \qquad y = S x + K_2 * s(n(h)),
#
# where :math:`K` are convolutions of 3 by 3, :math:`n` brings groups of channels to
# mean 0 and deviation 1, and :math:`S` is the identity, or a map of the channels of
# each pixel if their number changes. All :math:`K_2` start at zero, as do the last
# layers of attention and of the network: at the beginning a block adds nothing, and
# the prediction is zero.

sizes = {}
for name, config in PRESETS.items():
    network = UNet(name, generator=torch.Generator().manual_seed(0))
    sizes[name] = n = sum(p.numel() for p in network.parameters())
    widths = [config.width * m for m in config.multipliers]
    print(f"{name:8} {n:>11,} weights, channels of the levels {widths}")
    if name == "cifar10":
        assert n == 35_746_307
    else:
        x = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert not network(x, torch.tensor([500])).any()
assert sizes["base"] > 8 * sizes["small"]

# %%
# The first of them is the paper's. With the same weights it gives the same output as
# that of the library *diffusers*, which the tests compare to five digits.
#
# Told the wrong step
# -------------------
# The smallest network learns from the bundled sample for a few seconds.

schedule = linear_schedule(T)
train, test = (data.sample(s).signed()[:, None] for s in ("train", "test"))
generator = torch.Generator().manual_seed(0)
network = UNet("tiny", generator=generator)
optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
losses = []
for _ in range(90):
    batch = train[torch.randint(len(train), (16,), generator=generator)]
    loss = training_loss(schedule, network, batch, generator=generator).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.plot(np.arange(1, len(losses) + 1), losses, label="each step")
ax.axhline(1, color="gray", linestyle=":", label="predicts zero")
ax.set(xlabel="step of training", ylabel="loss per pixel", ylim=(0, 1.2))
ax.legend()
plt.show()

# %%
# The loss begins at 1, the variance of the noise that is to be found. Then the same
# network sees the same noisy test images twice: once with their steps, and once with
# steps that are wrong by half of all steps.


def told(change):
    """Return the network, with what it is told of the step changed."""
    return lambda x_t, t: network(x_t, change(t))


with torch.no_grad():
    right_step, wrong_step = (
        training_loss(
            schedule, model, test, generator=torch.Generator().manual_seed(1)
        ).mean()
        for model in (told(lambda t: t), told(lambda t: (t - 1 + T // 2) % T + 1))
    )
print(f"test loss: {right_step:.3f} at the right step, {wrong_step:.3f} at a wrong one")
assert abs(losses[0] - 1) < 0.05
assert np.mean(losses[-10:]) < 0.25
assert wrong_step > 1.02 * right_step

# %%
# The average of the weights
# --------------------------
# Beside the weights :math:`\theta` that are trained, an average is kept,
#
# .. math::
#    :label: eq-ema
#
#    \bar\theta \leftarrow \mu\, \bar\theta + (1 - \mu)\, \theta ,
#
# from the start weights on. It is a sum over all steps in which the past fades: from 0
# on a constant 1 it reaches, after :math:`n` steps,
#
# .. math::
#    :label: eq-ema-constant
#
#    \bar\theta_n = (1 - \mu) \sum_{k=1}^{n} \mu^{\,n-k} = 1 - \mu^n .
#
# What is missing, :math:`\mu^n`, is the share of the start weights. So :math:`\mu` has
# to go with the length of the training: 0.9999, for the 800,000 steps of the paper,
# would keep too much of the start in a training of a few thousand.

steps = 4_000
fig, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for mu, style in ((0.999, "-"), (0.9995, "--"), (0.9999, ":")):
    ema = EMA([("w", torch.zeros(1, dtype=torch.float64))], mu)
    reached = []
    for _ in range(steps):
        ema.update([("w", torch.ones(1, dtype=torch.float64))])
        reached.append(ema.average["w"].item())
    n = np.arange(1, steps + 1)
    ax.plot(n, 1 - np.array(reached), style, label=f"μ = {mu}")
    assert np.allclose(reached, 1 - mu**n, atol=1e-9)
ax.set(xlabel="steps n", ylabel="share of the start weights")
ax.legend()
plt.show()

half = math.log(0.5) / math.log(0.9999)
print(f"with μ = 0.9999 half of the start is left after {half:,.0f} steps")
assert round(half) == 6931
