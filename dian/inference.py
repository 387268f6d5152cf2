"""Recorded networks at work: generate images, classify images."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dian.data import sample
from dian.diffusion.pixels import to_bytes
from dian.diffusion.process import standard_normal
from dian.diffusion.sampling import Denoiser, ddim_sample
from dian.diffusion.schedule import linear_schedule
from dian.errors import DianError
from dian.runs.record import Record, load, record_names


@torch.no_grad()
def generate(
    name: str = "ddpm-fashion-mnist-small",
    n: int = 16,
    *,
    steps: int = 50,
    eta: float = 0.0,
    seed: int = 0,
    device: str | None = None,
) -> UInt8[Tensor, "n 1 28 28"]:
    """Sample images from a recorded diffusion model.

    Parameters
    ----------
    name
        The name of the record.
    n
        Number of images.
    steps
        Number of steps of the DDIM sampler.
    eta
        0 is deterministic given the initial noise; 1 adds the noise of DDPM.
    seed
        Seed of all noise.
    device
        ``cpu`` or ``cuda``. Default: a GPU if there is one.

    Returns
    -------
    Tensor
        Grey values from 0 (background) to 255.

    Examples
    --------
    >>> generate(n=2, steps=2).shape
    torch.Size([2, 1, 28, 28])
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    record = _load(name, "settings/beta_T", "a diffusion model")
    settings = record.settings
    schedule = linear_schedule(settings["T"], settings["beta_1"], settings["beta_T"])
    generator = torch.Generator(device).manual_seed(seed)
    x_T = standard_normal(torch.empty(n, 1, 28, 28, device=device), generator)
    denoiser = Denoiser(record.model(device=device), settings["target"])
    x_0 = ddim_sample(
        schedule.to(device), denoiser, x_T, steps=steps, eta=eta, generator=generator
    )
    return to_bytes(x_0).cpu()


@torch.no_grad()
def classify(name: str, images: UInt8[Tensor, "n 28 28"]) -> Float[Tensor, "n n_class"]:
    """Return the class probabilities that a recorded classifier gives to images.

    Parameters
    ----------
    name
        The name of the record.
    images
        Grey values from 0 (background) to 255.

    Examples
    --------
    >>> from dian.data import CLASSES, sample
    >>> CLASSES[classify("rnn-best", sample("test")[:1].images).argmax()]
    'Ankle boot'
    """
    model = _load(name, "test/accuracy", "a classifier of images").model()
    return torch.softmax(model(images / 255), dim=1)


def read_image(source: str) -> tuple[UInt8[Tensor, "28 28"], int | None]:
    """Read an image file, or take an image of the bundled test sample with its label.

    Parameters
    ----------
    source
        The path of an image of 28 x 28 pixels, light on dark as in Fashion-MNIST, or
        the number of an image in the test sample.
    """
    if source.isdecimal():
        test = sample("test")
        if int(source) >= len(test):
            raise DianError(f"the test sample has {len(test)} images, got no. {source}")
        return test[int(source)]
    try:
        with Image.open(source) as file:
            pixels = torch.from_numpy(np.array(file.convert("L")))
    except OSError as error:  # no such file, or no image
        raise DianError(f"{source}: {error.strerror or 'not an image file'}") from None
    if pixels.shape != (28, 28):
        size = " x ".join(map(str, pixels.shape))
        raise DianError(f"{source}: expected an image of 28 x 28 pixels, got {size}")
    return pixels, None


def _load(name: str, value: str, kind: str) -> Record:
    """Load a record that must hold a kind of network, known by one of its values."""
    record = load(name)
    if value in record.values():
        return record
    fitting = [other for other in record_names() if value in load(other).values()]
    raise DianError(f"record {name} is not {kind}; these are: {', '.join(fitting)}")
