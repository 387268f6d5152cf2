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

from dian.diffusion.ema import EMA
from dian.diffusion.process import training_loss
from dian.diffusion.schedule import linear_schedule
from dian.experiments.diffusion.ddpm import BASE, called, clip_together, make
from dian.runs import environment as machine


def milliseconds(settings, device: torch.device, batch: int, steps: int = 50) -> float:
    """Return the mean time of a step, after a few to warm up."""
    network = make(settings, torch.Generator().manual_seed(0), device, torch.float32)
    model = called(network, settings, device, torch.float32, settings.compiled)
    fused = device.type == "cuda"
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4, fused=fused)
    ema = EMA(network.named_parameters(), settings.ema)
    schedule = linear_schedule().to(device)
    generator = torch.Generator(device).manual_seed(0)
    x_0 = torch.rand(batch, 1, 28, 28, device=device) * 2 - 1
    for step in range(steps + 5):
        if step == 5:
            begin = time.perf_counter()
        loss = training_loss(schedule, model, x_0, generator=generator).mean()
        optimizer.zero_grad()
        loss.item()  # as the training loop does
        loss.backward()
        clip_together(network.parameters(), settings.clip)
        optimizer.step()
        ema.update(network.named_parameters())
    loss.item()
    return 1000 * (time.perf_counter() - begin) / steps


def main(name: str = "base", batch: str = "128") -> None:
    """Print a line for each way."""
    machine.make_deterministic()
    device = machine.device("auto")
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
