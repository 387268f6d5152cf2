"""The ways in which a trained diffusion model is sampled for a record."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dian.diffusion.pixels import to_bytes
from dian.diffusion.process import Model, q_sample, standard_normal
from dian.diffusion.sampling import ddim_sample, ddpm_sample, evenly_spaced_timesteps
from dian.diffusion.schedule import NoiseSchedule

SHOWN = 10
"""Samples whose way, and whose nearest neighbours, a record holds."""


@dataclass(frozen=True)
class Sampler:
    """A trained model with what it takes to sample from it."""

    schedule: NoiseSchedule
    model: Model
    target: str
    chunk: int
    seed: int
    device: torch.device
    dtype: torch.dtype

    def parts(self, n: int, seed: int) -> Iterator[tuple[Tensor, torch.Generator]]:
        """Draw the starts of ``n`` images in parts: the same for all ways from them."""
        generator = torch.Generator(self.device).manual_seed(seed)
        for begin in range(0, n, self.chunk):
            shape = min(self.chunk, n - begin), 1, 28, 28
            like = torch.empty(shape, device=self.device, dtype=self.dtype)
            yield standard_normal(like, generator), generator

    def ddpm_sample(self, n: int, *, variance="beta", clip=1.0, callback=None):
        """Sample ``n`` images in T steps; the callback is shown the first part."""
        images = []
        for x_T, generator in self.parts(n, self.seed):
            options = {"variance": variance, "clip": clip, "target": self.target}
            if not images:
                options["callback"] = callback
            x = ddpm_sample(
                self.schedule, self.model, x_T, generator=generator, **options
            )
            images.append(x)
        return to_images(torch.cat(images), self.dtype)

    def ddim(self, n: int, steps: int) -> Tensor:
        """Sample ``n`` images in few steps, with no noise but the first."""
        path = evenly_spaced_timesteps(len(self.schedule.beta) - 1, steps)
        options = {"steps": path, "eta": 0.0, "clip": 1.0, "target": self.target}
        images = [
            ddim_sample(self.schedule, self.model, x_T, **options)
            for x_T, _ in self.parts(n, self.seed)
        ]
        return to_images(torch.cat(images), self.dtype)

    def interpolate_pairs(self, x: Tensor, y: Tensor, t: int, n: int) -> Tensor:
        """Go from images to others by way of step ``t``, in ``n`` images for each pair.

        All of them share the noise, so that nothing changes along the way but what is
        mixed: section 4.4 of Ho et al., 2020.
        """
        generator = torch.Generator(self.device).manual_seed(self.seed)
        share = torch.linspace(0, 1, n, device=self.device, dtype=self.dtype)
        mixed = x[:, None] + share[:, None, None, None] * (y - x)[:, None]
        shape = mixed.shape

        def same(step: int) -> Tensor:
            drawn = standard_normal(x, generator)
            return drawn[:, None].expand(shape).flatten(0, 1)

        # With the same noise it does not matter which comes first, noise or mixing.
        steps = torch.full((len(x) * n,), t, device=self.device)
        x_t = q_sample(self.schedule, mixed.flatten(0, 1), steps, same(t))
        options = {"variance": "beta", "clip": 1.0, "target": self.target}
        found = ddpm_sample(
            self.schedule, self.model, x_t, start=t, noise=same, **options
        )
        return to_images(found, self.dtype).unflatten(0, (len(x), n))


class TrajectoryRecorder:
    """Watch the first images on their way from noise, at eleven steps."""

    def __init__(self, T: int):
        self.T = T
        self.at = sorted({max(1, round(T * i / 10)) for i in range(11)})
        self.seen: list[tuple[Tensor, Tensor]] = []

    def look(self, t: int, x: Tensor, x_0: Tensor) -> None:
        """Keep what comes after step ``t``, and the image that it was made of."""
        if t in self.at:
            self.seen.append((x[:SHOWN], x_0[:SHOWN]))

    def arrays(self) -> dict[str, Tensor]:
        """Return both as bytes, the noisiest first, and the steps."""
        x, x_0 = (torch.stack(part) for part in zip(*self.seen, strict=True))
        return {
            "path/x": to_bytes(x[:, :, 0]).cpu(),
            "path/x_0": to_bytes(x_0[:, :, 0]).cpu(),
            "path/t": torch.tensor(self.at[::-1]),
        }


def to_images(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn samples into images from 0 to 1 with 256 grey values, as the data have."""
    return to_bytes(x[:, 0]).to(dtype) / 255


def as_bytes(images: Tensor) -> Tensor:
    """Turn images from 0 to 1 into bytes on the CPU, for a record."""
    return (images * 255).round().to("cpu", torch.uint8)
