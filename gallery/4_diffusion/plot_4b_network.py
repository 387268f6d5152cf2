r"""
A U-Net that is conditioned on the timestep, and its EMA weights
================================================================

**Question.** A single network removes the noise of all timesteps. What does it consist
of, how is it conditioned on the timestep, and why do samples come from averaged
weights?

**Answer.** It is a U-Net: residual blocks on a downsampling and an upsampling path,
joined by skip connections, with self-attention at 14 by 14 pixels and in the middle, at
the lowest resolution. Every block receives a timestep embedding; with wrong timesteps a
trained network has a larger loss. The weights fluctuate from step to step of training.
An exponential moving average (EMA) smooths them, and samples come from this average.
With the decay of the paper, half of the average still consists of the initial weights
after 6,931 steps.

**Source.** Ho, Jain and Abbeel, *Denoising Diffusion Probabilistic Models*, 2020
(arXiv:2006.11239), appendix B. **Cost.** Seconds on a CPU, no download.
"""

# %%
# The architecture
# ----------------
# The U-Net of the figure halves the resolution twice, so that its deepest layers see
# the whole image, and doubles it again. A skip connection leads from every layer of the
# downsampling path to a block of the upsampling path. It carries the fine details,
# which the low resolution has lost.

import math

import matplotlib.pyplot as plt
import numpy as np
import torch

from dian import data
from dian.diffusion.ema import EMA
from dian.diffusion.process import training_loss
from dian.diffusion.schedule import linear_schedule
from dian.diffusion.unet import PRESETS, UNet
from dian.figures import diffusion_diagrams
from dian.figures.tables import markdown_table
from dian.positions.sinusoidal import sinusoidal_encoding

fig, ax = plt.subplots(figsize=(7, 5.5), layout="constrained")
diffusion_diagrams.unet(ax, PRESETS["small"], 28)
ax.set_title("The U-Net of the preset small")
fig.set_label(
    "The U-Net of the preset small, one of those in the table below. Each number is "
    "the number of channels; the resolution decreases downwards. Skip connections "
    "join layers of the same resolution."
)
plt.show()

# %%
# The timestep embedding
# ----------------------
# The number :math:`t` itself would be a poor input, because it ranges from 1 to 1,000.
# Therefore each timestep is encoded by sines and cosines of decreasing frequency, and
# this encoding passes through two layers, equation :eq:`eq-unet-step`. The frequencies
# differ slightly from those of *Attention Is All You Need*: the lowest is exactly
# 1/10000. The authors' code counts timesteps from 0, so :math:`t - 1` is encoded.

T, w = 1000, PRESETS["small"].width
base = 10_000 ** (w / (w - 2))
code = sinusoidal_encoding(torch.arange(T), w, base, torch.float64)

fig, (left, right) = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
style = {"aspect": "auto", "cmap": "RdBu", "vmin": -1, "vmax": 1}
left.imshow(code.T.numpy(), extent=(1, T, w, 0), **style)
left.set(title="Timestep encodings", xlabel="timestep t", ylabel="feature")
for t in (1, 250, 700):
    distance = (code - code[t - 1]).norm(dim=1)
    right.plot(np.arange(1, T + 1), distance.numpy(), label=f"from t = {t}")
right.set(title="Distances", xlabel="timestep t", ylabel="distance of encodings")
right.set(ylim=(0, 6.8))
right.legend(loc="upper right")
fig.set_label(
    "Left: the sinusoidal encoding of each timestep, one column each, from -1 (red) "
    "to 1 (blue). Right: its distance from the encodings of three timesteps, which is "
    "smallest at the timestep itself."
)
plt.show()

# %%
# No two timesteps have the same encoding, as the smallest distance between two
# encodings shows:

apart = torch.cdist(code, code) + 9 * torch.eye(T, dtype=torch.float64)
print(f"smallest distance between two of {T} encodings: {apart.min():.3f}")
assert apart.min() > 0.05
assert math.isclose(base ** (-(w / 2 - 1) * 2 / w), 1e-4)

# %%
# A residual block
# ----------------
# A residual block adds the projected timestep embedding at every pixel alike,
#
# .. math::
#    :label: eq-unet-block
#
#    h = K_1 * s(n(x)) + W e, \qquad y = S x + K_2 * s(n(h)),
#
# where :math:`x` is the input, :math:`y` the output and :math:`e` the timestep
# embedding with its projection :math:`W`. :math:`K_1` and :math:`K_2` are 3 by 3
# convolutions, :math:`n` is GroupNorm, :math:`s` is SiLU, and :math:`S` is the
# identity, or a 1 by 1 convolution if the number of channels changes. Biases are
# omitted. All :math:`K_2` are initialized to zero, as are the last layers of attention
# and of the network. Therefore a block is the identity or a linear map at first, and
# the initial prediction is zero.

sizes, printed = {}, []
for name, config in PRESETS.items():
    network = UNet(name, generator=torch.Generator().manual_seed(0))
    sizes[name] = n = sum(p.numel() for p in network.parameters())
    widths = [config.width * m for m in config.multipliers]
    printed.append((name, f"{n:,}", ", ".join(map(str, widths))))
    if name == "cifar10":
        assert n == 35_746_307
    else:
        x = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert not network(x, torch.tensor([500])).any()
header = ("preset", "weights", "channels of the resolution levels")
print(markdown_table(header, printed))
assert sizes["base"] > 8 * sizes["small"]

# %%
# The network ``patches`` first joins each block of 2 by 2 pixels into one pixel with
# four channels, so that its highest resolution is 14 by 14. The network ``cifar10`` is
# that of the paper. With the same weights its output is the same as that of the library
# *diffusers*; the tests compare five digits.
#
# Does the timestep matter?
# -------------------------
# The smallest network is trained on the bundled sample for a few seconds.

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

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(np.arange(1, len(losses) + 1), losses, label="each step")
ax.axhline(1, color="gray", linestyle=":", label="predicts zero")
ax.set(xlabel="training step", ylabel="loss per pixel", ylim=(0, 1.2))
ax.legend()
fig.set_label(
    "Training loss of the smallest network on the bundled sample. It starts "
    "at the loss of the prediction zero."
)
plt.show()

# %%
# The loss begins at 1, the variance of the noise that is to be predicted. Then the
# network is evaluated twice on the same noisy test images: with the right timesteps,
# and with timesteps that are shifted by half of the chain.


def told(change):
    """Return the network with changed timesteps."""
    return lambda x_t, t: network(x_t, change(t))


with torch.no_grad():
    right_step, wrong_step = (
        training_loss(schedule, model, test, generator=torch.Generator().manual_seed(1))
        for model in (told(lambda t: t), told(lambda t: (t - 1 + T // 2) % T + 1))
    )
apart = wrong_step - right_step
error = apart.std() / math.sqrt(len(test))
print(
    f"test loss: {right_step.mean():.3f} with the right timestep, "
    f"{wrong_step.mean():.3f} with a wrong one\n"
    f"difference, image by image: {apart.mean():.4f} ± {error:.4f} (standard error)"
)
assert abs(losses[0] - 1) < 0.05
assert np.mean(losses[-10:]) < 0.25
assert wrong_step.mean() > 1.02 * right_step.mean()
assert apart.mean() > 2 * error

# %%
# EMA weights
# -----------
# The weights of a network fluctuate from step to step, because each batch is a random
# selection. Averaging reduces these fluctuations. On the page
# :ref:`sphx_glr_gallery_4_diffusion_plot_6_ablations.py`, samples from the raw weights
# have about twice the Fréchet distance after a short training run with a constant
# learning rate; if the learning rate decays to zero, the difference may be smaller.
# Therefore an exponential moving average is kept besides the weights that are trained,
# equation :eq:`eq-ema`. It starts from the initial weights. If the weights were a
# constant 1 from the first step on and 0 before, the average after :math:`n` steps
# would be
#
# .. math::
#    :label: eq-ema-constant
#
#    \bar\theta_n = (1 - \mu) \sum_{k=1}^{n} \mu^{\,n-k} = 1 - \mu^n .
#
# The remainder, :math:`\mu^n`, is the fraction of the initial weights. So the decay
# :math:`\mu` has to fit the length of the training run: 0.9999, chosen for the 800,000
# steps of the paper, would keep too much of the initial weights in a run of a few
# thousand steps.

steps = 4_000
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for mu, style in ((0.999, "-"), (0.9995, "--"), (0.9999, ":")):
    ema = EMA([("w", torch.zeros(1, dtype=torch.float64))], mu)
    reached = []
    for _ in range(steps):
        ema.update([("w", torch.ones(1, dtype=torch.float64))])
        reached.append(ema.average["w"].item())
    n = np.arange(1, steps + 1)
    ax.plot(n, 1 - np.array(reached), style, label=f"μ = {mu}")
    assert np.allclose(reached, 1 - mu**n, atol=1e-9)
ax.set(xlabel="training steps n", ylabel="fraction of the initial weights")
ax.legend()
fig.set_label(
    r"The fraction of the initial weights in the EMA weights after $n$ "
    r"training steps, for three decays $\mu$."
)
plt.show()

half = math.log(0.5) / math.log(0.9999)
print(f"μ = 0.9999: the initial weights are half of the average at step {half:,.0f}")
assert round(half) == 6931

# %%
# Limits
# ------
# The loss at wrong timesteps is that of a network trained for ninety steps. It shows
# that the timestep is used, and not how much a fully trained network depends on it.
