"""Recorded networks at work: generate images, classify images."""

import warnings

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dian.data import CLASSES, sample
from dian.diffusion.guidance import guide
from dian.diffusion.pixels import to_bytes, unit
from dian.diffusion.process import standard_normal
from dian.diffusion.sampling import Denoiser, ddim_sample
from dian.diffusion.schedule import linear_schedule
from dian.errors import DianError, require, require_whole
from dian.runs.environment import select_device
from dian.runs.record import Record, load, record_names


@torch.no_grad()
def generate(
    name: str | Record = "ddpm-fashion-mnist-small",
    n: int = 16,
    *,
    steps: int = 50,
    eta: float = 0.0,
    label: int | str | None = None,
    guidance: float = 0.0,
    seed: int = 0,
    device: str = "auto",
) -> UInt8[Tensor, "n 1 28 28"]:
    """Sample images from a recorded diffusion model.

    Parameters
    ----------
    name
        The record, or its name.
    n
        Number of images.
    steps
        Number of steps of the DDIM sampler.
    eta
        0 is deterministic given the initial noise; 1 adds the noise of DDPM.
    label
        The class of all images, as a number or a name of :data:`dian.data.CLASSES`, for
        a class-conditional network. Default: no class is given.
    guidance
        The guidance weight :math:`w` of classifier-free guidance, see
        :mod:`dian.diffusion.guidance`; 0 for none.
    seed
        Seed of all noise.
    device
        ``cpu``, ``cuda``, or ``auto``: a GPU if there is one.

    Returns
    -------
    Tensor
        Grey values from 0 (background) to 255.

    Examples
    --------
    >>> generate(n=2, steps=2).shape
    torch.Size([2, 1, 28, 28])
    >>> generate("ddpm-conditional-long", n=1, steps=2, label="Bag", guidance=1.0).shape
    torch.Size([1, 1, 28, 28])
    """
    require_whole("n", n, 1)
    require_whole("seed", seed, 0, 2**64 - 1)
    record = _load(name, "settings/beta_T", "a diffusion model")
    settings = record.settings
    schedule = linear_schedule(settings["T"], settings["beta_1"], settings["beta_T"])
    to = select_device(device)
    network = record.model(device=to.type)
    if label is not None:
        y = torch.full((n,), _class_number(label), device=to)
        require(
            network.null_class is not None,
            f"label must be None: {record.name} was trained without classes",
        )
        network = guide(network, y, network.null_class, guidance)
    else:
        require(guidance == 0, f"guidance needs a label, got {guidance} without one")
    denoiser = Denoiser(network, settings["target"])
    # Drawn on the CPU, so that the images are the same on every device.
    generator, like = torch.Generator().manual_seed(seed), torch.empty(n, 1, 28, 28)

    def noise(t: int) -> Tensor:
        return standard_normal(like, generator).to(to)

    x_T, options = noise(schedule.T), {"steps": steps, "eta": eta, "noise": noise}
    return to_bytes(ddim_sample(schedule, denoiser, x_T, **options)).cpu()


def _class_number(label: int | str) -> int:
    """Return the number of a class, given by its number or its name.

    >>> _class_number("Ankle boot"), _class_number("9"), _class_number(9)
    (9, 9, 9)
    """
    if isinstance(label, str):
        names = [name.casefold() for name in CLASSES]
        if label.casefold() in names:
            return names.index(label.casefold())
        known = label.isdecimal() and int(label) < len(CLASSES)
        require(known, f"label must be one of {', '.join(CLASSES)}, got {label!r}")
    require_whole("label", number := int(label), 0, len(CLASSES) - 1)
    return number


@torch.no_grad()
def classify(
    name: str | Record, images: UInt8[Tensor, "n 28 28"]
) -> Float[Tensor, "n num_classes"]:
    """Return the class probabilities that a recorded classifier gives to images.

    Parameters
    ----------
    name
        The record, or its name.
    images
        Grey values from 0 (background) to 255.

    Examples
    --------
    >>> from dian.data import CLASSES, sample
    >>> CLASSES[classify("rnn-recipe-best", sample("test")[:1].images).argmax()]
    'Ankle boot'
    """
    # Not by its accuracy, which the evaluation of samples has as well.
    model = _load(name, "test/f1", "a classifier of images").model()
    return torch.softmax(model(unit(images)), dim=1)


def read_image(source: str) -> tuple[UInt8[Tensor, "28 28"], int | None]:
    """Read an image file, or take an image of the bundled test sample with its label.

    Parameters
    ----------
    source
        The path of an image of 28 x 28 pixels, light on dark as in Fashion-MNIST, or
        the number of an image in the test sample. Colors become grey values, and
        transparent pixels are put on black.
    """
    if source.isdecimal():
        test = sample("test")
        if int(source) >= len(test):
            raise DianError(f"the test sample has {len(test)} images, got no. {source}")
        return test[int(source)]
    large = Image.DecompressionBombWarning
    try:
        with (
            warnings.catch_warnings(action="error", category=large),
            Image.open(source) as file,
        ):
            _check_image(source, file)
            canvas = Image.new("RGBA", file.size, "black")
            canvas.alpha_composite(file.convert("RGBA"))
    except (large, Image.DecompressionBombError):
        raise DianError(f"{source}: expected 28 x 28 pixels, got too many") from None
    except OSError as error:  # no such file, or no image
        raise DianError(f"{source}: {error.strerror or 'not an image file'}") from None
    return torch.from_numpy(np.array(canvas.convert("L"))), None


def _check_image(source: str, file: Image.Image) -> None:
    if file.size != (28, 28):
        size = " x ".join(map(str, reversed(file.size)))
        raise DianError(f"{source}: expected an image of 28 x 28 pixels, got {size}")
    if file.mode.startswith(("I", "F")):  # Pillow would clip its numbers to 255
        raise DianError(f"{source}: expected 8 bits per value, got mode {file.mode}")


def _load(name: str | Record, value: str, kind: str) -> Record:
    """Load a record that must hold a kind of network, known by one of its values."""
    record = name if isinstance(name, Record) else load(name)
    if value in record.values():
        return record
    fitting = [other for other in record_names() if value in load(other).values()]
    raise DianError(
        f"record {record.name} is not {kind}; these are: {', '.join(fitting)}"
    )
