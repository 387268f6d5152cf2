"""The ways in which a trained diffusion model is sampled for a record."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dian.diffusion.pixels import to_bytes
from dian.diffusion.process import q_sample, standard_normal
from dian.diffusion.sampling import Denoiser, ddim_sample, ddpm_sample
from dian.diffusion.schedule import NoiseSchedule

SHOWN = 10
"""Samples of which a record keeps the trajectory and the nearest training image."""


@dataclass(frozen=True)
class Sampler:
    """A trained model with all that is needed to sample images, as bytes."""

    schedule: NoiseSchedule
    denoiser: Denoiser
    chunk: int
    seed: int
    device: torch.device
    dtype: torch.dtype

    def parts(self, n: int) -> Iterator[tuple[Tensor, torch.Generator]]:
        """Draw the initial noise of ``n`` images in parts.

        A sampler that adds noise draws it from the same generator. So the first part
        starts from the same noise for all ways to sample, and later ones do not.
        """
        generator = torch.Generator(self.device).manual_seed(self.seed)
        for begin in range(0, n, self.chunk):
            shape = min(self.chunk, n - begin), 1, 28, 28
            like = torch.empty(shape, device=self.device, dtype=self.dtype)
            yield standard_normal(like, generator), generator

    def ddpm(self, n: int, *, variance: str = "beta", callback=None) -> Tensor:
        """Sample ``n`` images in T steps; the callback is given the first part."""
        images = []
        for x_T, generator in self.parts(n):
            options = {"variance": variance, "generator": generator}
            if not images:
                options["callback"] = callback
            x = ddpm_sample(self.schedule, self.denoiser, x_T, **options)
            images.append(to_bytes(x[:, 0]))
        return torch.cat(images)

    def ddim(self, n: int, steps: int) -> Tensor:
        """Sample ``n`` images in few steps, without new noise."""
        images = [
            to_bytes(ddim_sample(self.schedule, self.denoiser, x_T, steps=steps)[:, 0])
            for x_T, _ in self.parts(n)
        ]
        return torch.cat(images)

    def interpolate_pairs(self, x: Tensor, y: Tensor, t: int, n: int) -> Tensor:
        """Interpolate between pairs of images at timestep ``t``, with ``n`` weights.

        All images of a pair share all noise, so that nothing but the weight changes
        from one to the next: section 4.4 of Ho et al., 2020.
        """
        generator = torch.Generator(self.device).manual_seed(self.seed)
        weight = torch.linspace(0, 1, n, device=self.device, dtype=self.dtype)
        mixed = x[:, None] + weight[:, None, None, None] * (y - x)[:, None]
        shape = mixed.shape

        def same(step: int) -> Tensor:
            drawn = standard_normal(x, generator)
            return drawn[:, None].expand(shape).flatten(0, 1)

        # With the same noise it does not matter which comes first, noise or mixing.
        x_t = q_sample(self.schedule, mixed.flatten(0, 1), t, same(t))
        x_0 = ddpm_sample(self.schedule, self.denoiser, x_t, start=t, noise=same)
        return to_bytes(x_0[:, 0]).unflatten(0, (len(x), n))


class TrajectoryRecorder:
    """Record the first images of a sampling run at eleven timesteps."""

    def __init__(self, T: int):
        self.at = sorted({max(1, round(T * i / 10)) for i in range(11)})
        self.seen: list[tuple[Tensor, Tensor]] = []

    def record_step(self, t: int, x: Tensor, x_0: Tensor) -> None:
        """Keep the images after step ``t``, and the predicted clean ones."""
        if t in self.at:
            self.seen.append((x[:SHOWN], x_0[:SHOWN]))

    def arrays(self) -> dict[str, Tensor]:
        """Return both as bytes, the noisiest first, and the timesteps."""
        x, x_0 = (torch.stack(part) for part in zip(*self.seen, strict=True))
        return {
            "path/x": to_bytes(x[:, :, 0]).cpu(),
            "path/x_0": to_bytes(x_0[:, :, 0]).cpu(),
            "path/t": torch.tensor(self.at[::-1]),
        }
