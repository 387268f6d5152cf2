"""Time a step of training of a U-Net on a GPU: which precision and layout pay.

    python scripts/time_unet.py [base] [128]

prints milliseconds for each way of calling it, of which
``dian.experiments.diffusion.ddpm`` has the settings ``precision``, ``channels_last``
and ``compiled``.
"""

import sys
import time
from dataclasses import replace

import torch

from dian.diffusion.process import training_loss
from dian.experiments.diffusion.ddpm import BASE, DiffusionModel
from dian.runs.environment import make_deterministic, select_device
from dian.runs.experiment import Job
from dian.training.clipping import clip_by_norm


def milliseconds(settings, device: torch.device, batch: int, steps: int = 50) -> float:
    """Return the mean time of a step, after a few to warm up."""
    generator = torch.Generator().manual_seed(0)
    model = DiffusionModel(settings, Job(device=device), generator)
    network, fused = model.network, device.type == "cuda"
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4, fused=fused)
    generator = torch.Generator(device).manual_seed(0)
    x_0 = torch.empty(batch, 1, 28, 28, device=device).uniform_(-1, 1)
    for step in range(steps + 5):
        if step == 5:
            begin = time.perf_counter()
        loss = training_loss(model.schedule, model.raw, x_0, generator=generator).mean()
        optimizer.zero_grad()
        loss.item()  # as the training loop does
        loss.backward()
        clip_by_norm(network.parameters(), settings.clip)
        optimizer.step()
        model.ema.update(network.named_parameters())
    loss.item()
    return 1000 * (time.perf_counter() - begin) / steps


def main(name: str = "base", batch: str = "128") -> None:
    """Print a line for each way."""
    make_deterministic()
    device = select_device("auto")
    ways = [
        {"precision": precision, "channels_last": last, "compiled": compiled}
        for compiled in (False, True)
        for precision in ("float32", "bfloat16")
        for last in (False, True)
    ]
    for way in ways if device.type == "cuda" else ways[::2][:2]:
        settings = replace(BASE, network=name, **way)
        steps = 50 if device.type == "cuda" else 3
        print(f"{milliseconds(settings, device, int(batch), steps):8.2f} ms", way)


if __name__ == "__main__":
    main(*sys.argv[1:])
