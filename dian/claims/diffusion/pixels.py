"""Chapter 4: bytes and the range [-1, 1] of the diffusion process."""

import torch

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest
from dian.claims.diffusion.process import HO
from dian.diffusion import pixels, process
from dian.diffusion import schedule as noise_schedule


@claim(
    "D16",
    "Scaling bytes to [-1, 1] and back",
    equations=("eq-diffusion-scaling",),
    kinds="E M",
    tolerance=1e-6,
    source=f"{HO}, section 3.3",
    subjects=(pixels, process),
    mutants=(
        Mutant("scaled to [0, 1]", "signed", "2 * unit(pixels) - 1", "unit(pixels)"),
        Mutant("scaled twice", "signed",
               "2 * unit(pixels) - 1", "2 * (2 * unit(pixels) - 1) - 1"),
        Mutant("truncated in place of rounded", "to_bytes",
               "((x.clamp(-1, 1) + 1) * 127.5).round()",
               "(x.clamp(-1, 1) + 1) * 127.5"),
        Mutant("divided by 256", "unit", "pixels / 255", "pixels / 256"),
        Mutant("a factor of 128", "to_bytes", "127.5", "128"),
        Mutant("wraps around in place of being clamped", "to_bytes",
               "x.clamp(-1, 1) + 1", "x + 1"),
    ),
)  # fmt: skip
def scaling() -> float:
    """All 256 bytes come back; values outside are clamped; a zero model has loss 1."""
    every = torch.arange(256, dtype=torch.uint8)
    scaled = pixels.signed(every)
    outside = pixels.to_bytes(torch.tensor([-3.0, -1.01, 1.01, 3.0]))
    nudged = [pixels.to_bytes(scaled + part / 255) for part in (-0.9, 0.9)]
    generator = torch.Generator().manual_seed(0)
    loss = process.training_loss(
        noise_schedule.linear_schedule(),
        lambda x_t, t: torch.zeros_like(x_t),
        scaled.expand(1000, 256),
        generator=generator,
    ).mean()
    return largest(
        [
            (scaled.double() - (2 * every.double() / 255 - 1)).abs().max(),
            holds(torch.equal(pixels.to_bytes(scaled), every)),
            *(holds(torch.equal(part, every)) for part in nudged),
            (pixels.unit(every).double() - every.double() / 255).abs().max(),
            holds(outside.tolist() == [0, 0, 255, 255]),
            holds(bool(abs(loss.item() - 1) < 5 * (2 / 256_000) ** 0.5)),
        ]
    )
