"""What the figure ``denoise`` needs beside the U-Net: its schedule, and a result."""

import math

import torch

from dian.data import CLASSES
from dian.diffusion.guidance import condition
from dian.diffusion.pixels import to_bytes
from dian.diffusion.sampling import Denoiser, ddim_sample
from dian.diffusion.schedule import NoiseSchedule, linear_schedule
from dian.runs.record import Record, load
from dian_sphinx.live.offered import evaluations, networks
from dian_sphinx.live.packed import packed
from dian_sphinx.live.pictures import joined, still
from dian_sphinx.wording import mark

SHOWN = (1, 5, 9, 13, 16, 18, 20)
RESULT = mark(
    "From noise to an image in 20 DDIM steps. Top, the noisy image after steps 1, 5, "
    "9, 13, 16, 18 and 20. Bottom, the predicted clean image."
)
RESULT_OF_CLASS = mark(
    "From noise to an image of the class {name} in 20 DDIM steps. Top, the noisy image "
    "after steps 1, 5, 9, 13, 16, 18 and 20. Bottom, the predicted clean image."
)
CLASS = CLASSES.index("Ankle boot")
"""The class that is generated first, if the network has classes."""


def script(name: str) -> str:
    """Write the noise schedule of a diffusion model, and what its network takes."""
    record = load(name)
    schedule, null_class = schedule_of(record), record.model().null_class
    facts = {
        "T": schedule.T,
        "beta": schedule.beta.tolist(),
        "alphaBar": schedule.alpha_bar.tolist(),
        "predicts": record.settings["target"],
        "nullClass": null_class,
        "class": None if null_class is None else CLASS,
        "recorded": recorded_distances(name),
    }
    return packed(name, {}, **facts)


def schedule_of(record: Record) -> NoiseSchedule:
    """Return the noise schedule of a recorded model."""
    s = record.settings
    return linear_schedule(s["T"], s["beta_1"], s["beta_T"])


def recorded_distances(name: str) -> dict[str, str]:
    """Return the Fréchet distance, with its standard error, of what can be generated.

    The key is the guidance weight, or ``none`` for images without a class, and the
    number of DDIM steps, such as ``none 50``.
    """
    found = {}
    for record in map(load, evaluations(name)):
        model = record.settings["models"].split()[0]
        settings = {
            f"guided-{w}": f"{float(w):g} {record.settings['guided_steps']}"
            for w in record.settings.get("guidance", "").split()
        }
        for steps in (10, 20, 50, 100):
            settings[f"ddim-{steps}/both"] = f"none {steps}"
            settings[f"{model}/ddim-{steps}"] = f"none {steps}"
            # Without guidance more images are compared here than there.
            settings[f"{model}/class-ddim-{steps}"] = f"0 {steps}"
        for prefix, key in settings.items():
            if f"{prefix}/frechet" in record.content["metrics"]:
                metrics = f"{prefix}/frechet", f"{prefix}/frechet_error"
                found[key] = with_error(*map(record.value, metrics))
    return found


def with_error(value: float, error: float) -> str:
    """Write a number with its standard error, which gets one digit.

    >>> with_error(52.34, 3.21), with_error(2.367, 0.0962)
    ('52 ± 3', '2.4 ± 0.1')
    """
    digits = max(0, -math.floor(math.log10(float(f"{error:.0e}"))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def recorded_result() -> dict:
    """Draw an image from noise, in 20 DDIM steps."""
    record = load(next(iter(networks("denoise"))))
    model, said, values, steps = record.model(), RESULT, {}, []
    if model.null_class is not None:
        model = condition(model, torch.tensor([CLASS]))
        said, values = RESULT_OF_CLASS, {"name": CLASSES[CLASS]}
    ddim_sample(
        schedule_of(record),
        Denoiser(model, record.settings["target"]),
        torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(3)),
        steps=20,
        callback=lambda t, x, x_0: steps.append((x, x_0)),
    )
    noisy, clean = (
        joined([255 - to_bytes(steps[n - 1][k])[0, 0].numpy() for n in SHOWN])
        for k in (0, 1)
    )
    return still(joined([noisy, clean], axis=0), said, **values)
