"""What the figure ``denoise`` needs beside the U-Net: its schedule, and a result."""

import torch

from dian.diffusion.pixels import to_bytes
from dian.diffusion.sampling import Denoiser, ddim_sample
from dian.diffusion.schedule import NoiseSchedule, linear_schedule
from dian.runs.record import Record, load
from dian_sphinx.live.offered import DENOISERS, evaluations
from dian_sphinx.live.packed import packed
from dian_sphinx.live.pictures import joined, still
from dian_sphinx.wording import mark

SHOWN = (1, 5, 9, 13, 16, 18, 20)
RESULT = mark(
    "From noise to an image in 20 DDIM steps. Top, the noisy image after steps 1, 5, "
    "9, 13, 16, 18 and 20. Bottom, the predicted clean image."
)


def script(name: str) -> str:
    """Write the noise schedule of a diffusion model, and what its network takes."""
    record = load(name)
    schedule = schedule_of(record)
    facts = {
        "T": schedule.T,
        "beta": schedule.beta.tolist(),
        "alphaBar": schedule.alpha_bar.tolist(),
        "predicts": record.settings["target"],
        "nullClass": record.model().null_class,
        "recorded": recorded_distances(name),
    }
    return packed(name, {}, **facts)


def schedule_of(record: Record) -> NoiseSchedule:
    """Return the noise schedule of a recorded model."""
    s = record.settings
    return linear_schedule(s["T"], s["beta_1"], s["beta_T"])


def recorded_distances(name: str) -> dict[int, tuple[float, float]]:
    """Return Fréchet distance and standard error by the number of DDIM steps.

    Only of images that the page can generate, too: without guidance.
    """
    found = {}
    for record in map(load, evaluations(name)):
        if "guidance" in record.settings:
            continue
        ways = record.settings["ways"].split()
        for steps in (10, 20, 50, 100):
            if f"ddim-{steps}" in ways:
                metric = f"ddim-{steps}/both/frechet"
                pair = record.value(metric), record.value(f"{metric}_error")
                found[steps] = tuple(round(float(v), 2) for v in pair)
    return found


def recorded_result() -> dict:
    """Draw an image from noise, in 20 DDIM steps."""
    record = load(next(iter(DENOISERS)))
    steps = []
    ddim_sample(
        schedule_of(record),
        Denoiser(record.model(), record.settings["target"]),
        torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(3)),
        steps=20,
        callback=lambda t, x, x_0: steps.append((x, x_0)),
    )
    noisy, clean = (
        joined([255 - to_bytes(steps[n - 1][k])[0, 0].numpy() for n in SHOWN])
        for k in (0, 1)
    )
    return still(joined([noisy, clean], axis=0), RESULT)
