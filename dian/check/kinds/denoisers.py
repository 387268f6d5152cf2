"""Contract of a network that predicts the noise.

Networks differ in their architecture, so that there is no output to compare with. What
is checked holds for every denoising network, whatever its weights are.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dian.check.adapters import Fault
from dian.check.contract import (
    Argument,
    Case,
    Contract,
    Convention,
    Function,
    Mistake,
    Option,
    Outputs,
    Property,
    converting,
)
from dian.claims.compare import normal
from dian.diffusion.unet import UNet, UNetConfig

SHAPES = {
    "1 x 28 x 28": (1, 28, 28), "1 x 32 x 32": (1, 32, 32), "3 x 32 x 32": (3, 32, 32),
    "1 x 64 x 64": (1, 64, 64), "3 x 64 x 64": (3, 64, 64), "784": (784,), "2": (2,),
}  # fmt: skip
"""Shapes of an image that are tried, in this order."""
STEPS = (250, 600, 3)
"""Timesteps of the three images that each check predicts."""
SHAPE = "the output has another shape"
UNCONDITIONED = "no timestep embedding"
EXCHANGED = "an image gets the timestep of another one"
RELATIVE = 1e-6
"""Below this part of the output, two predictions count as the same."""


def draw() -> dict[str, Tensor]:
    """Return three noisy images and a timestep for each."""
    (x_t,) = normal(11, (3, *SHAPES["1 x 28 x 28"]))
    return {"x_t": x_t, "t": torch.tensor(STEPS)}


def _of_shape(shape: tuple[int, ...]):
    """Wrap a network of images of this shape: fill them with the same numbers."""

    def wrap(function: Function) -> Function:
        def wrapped(x_t, t) -> Outputs:
            flat, size = x_t.flatten(1), torch.Size(shape).numel()
            repeated = flat.repeat(1, -(-size // flat.shape[1]))[:, :size]
            (found, *_) = function(x_t=repeated.reshape(len(x_t), *shape), t=t)
            return (found, torch.tensor(shape))

        return wrapped

    return wrap


def _rows(f: Function, **changed: Tensor) -> Tensor:
    """Return the predictions for the three images, a row for each."""
    found, shape = f(**{**draw(), **changed})
    if found.shape[1:] != torch.Size(shape.tolist()):
        raise Fault("shape", f"the output has shape {tuple(found.shape)}")
    return found.flatten(1)


def _apart(a: Tensor, b: Tensor) -> float:
    """Return the largest difference in relation to the largest number."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).item()


def _differ(a: Tensor, b: Tensor) -> float:
    """Return a residual that is 0 if two predictions differ, and 1 if not."""
    return float(_apart(a, b) < RELATIVE)


def _same_shape(f: Function) -> float:
    _rows(f)
    return 0.0


def _finite(f: Function) -> float:
    found = [_rows(f, t=torch.full((3,), t)) for t in (1, 1000)]
    return float(not all(x.isfinite().all() for x in found))


def _conditioned(f: Function) -> float:
    return _differ(_rows(f, t=torch.full((3,), 900)), _rows(f, t=torch.full((3,), 20)))


def _own_timestep(f: Function) -> float:
    """The second timestep changes, and so does the second prediction."""
    return _differ(_rows(f, t=torch.tensor([250, 20, 3]))[1], _rows(f)[1])


def _other_timesteps(f: Function) -> float:
    """The second timestep changes, and the others predictions do not."""
    changed = _rows(f, t=torch.tensor([250, 20, 3]))
    return _apart(changed[[0, 2]], _rows(f)[[0, 2]])


def _bytes(f: Function) -> float:
    """Timesteps 256 apart differ."""
    return _differ(_rows(f, t=torch.full((3,), 700)), _rows(f, t=torch.full((3,), 444)))


def _image(f: Function) -> float:
    x = draw()["x_t"]
    return _differ(_rows(f, x_t=x.flip(2)), _rows(f))


def _independent(f: Function) -> float:
    """Another image changes, and the prediction for this one does not."""
    x = draw()["x_t"].clone()
    x[0] = 2 * x[0] + 1
    return _apart(_rows(f, x_t=x)[1:], _rows(f)[1:])


def module_as_function(module: Any) -> Callable:
    """Return the function of a module, or of a class that is made without arguments.

    Small random numbers are added to all parameters, because layers that start at zero
    would hide what comes before them.
    """
    network = module
    if inspect.isclass(module):
        try:
            network = module()
        except Exception as error:
            line = " ".join(str(error).split())[:120]
            said = f"cannot be made without arguments: {line}"
            raise Fault("module", f"{said}; give a module that was made") from None
    network = network.eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.05 * noise.to(parameter))
    dtypes = {p.dtype for p in network.parameters()} or {torch.float64}

    def predict(x_t, t):
        if x_t.dtype not in dtypes:
            raise TypeError(f"the parameters are {dtypes}, and the images {x_t.dtype}")
        return network(x_t, t)

    return predict


def _small() -> UNet:
    """Our own network, without a weight that is zero."""
    network = UNet(
        UNetConfig(channels=1, width=8, multipliers=(1, 2), blocks=1, groups=4)
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return network.double().eval()


def _ours() -> Function:
    network = _small()

    def predict(x_t, t) -> Outputs:
        with torch.no_grad():
            return (network(x_t, t),)

    return predict


def _wrong(change: Callable[[Function, Tensor, Tensor], Tensor]) -> Function:
    """Our own network, called in a wrong way."""
    ours = _ours()
    return lambda x_t, t: (change(lambda x, s: ours(x, s)[0], x_t, t),)


def denoiser() -> Contract:
    """Return the contract of a denoising network."""
    source = "D17"
    return Contract(
        kind="denoiser",
        title="Denoising network",
        arguments=(
            Argument("x_t", "batch ...", "noisy images", ("x", "xt", "sample", "img")),
            Argument("t", "batch", "timestep of each image, integers up to 1000",
                     ("timestep", "timesteps", "time", "steps", "step")),
        ),
        returns=(("epsilon", "batch ...", "the predicted noise"),),
        ours=(_ours(),),
        conventions=(
            Convention("images", tuple(
                Option(f"images of {name}", _of_shape(shape))
                for name, shape in SHAPES.items()
            )),
            Convention("timesteps", (
                Option("integer timesteps"),
                Option("timesteps as numbers", converting(t=lambda t: t.double())),
                Option("timesteps of shape (batch, 1)", converting(
                    t=lambda t: t.double()[:, None])),
            )),
        ),
        probe=Case("three images", draw()),
        properties=(
            Property(source, "predicts a number for each entry of the image",
                     law=_same_shape, mistake=SHAPE),
            Property(source, "is finite at the first and the last timestep",
                     law=_finite, mistake="the output is not finite",
                     follows=(SHAPE,)),
            Property(source, "depends on the image", law=_image,
                     mistake="the image is ignored", follows=(SHAPE,)),
            Property(source, "depends on the timestep", law=_conditioned,
                     mistake=UNCONDITIONED, follows=(SHAPE,)),
            Property(source, "uses no timestep of another image", law=_other_timesteps,
                     mistake=EXCHANGED, follows=(SHAPE,)),
            Property(source, "uses the timestep of each image", law=_own_timestep,
                     mistake="an image does not get its own timestep",
                     follows=(SHAPE, UNCONDITIONED, EXCHANGED)),
            Property(source, "tells timesteps apart that differ by 256", law=_bytes,
                     mistake="the timestep is stored in 8 bits",
                     follows=(SHAPE, UNCONDITIONED)),
            Property(source, "does not mix the images of a batch", law=_independent,
                     mistake="the images of a batch are mixed", follows=(SHAPE,)),
        ),
        chapter="diffusion_training",
        pitfalls="gallery/4_diffusion/plot_9_how_it_breaks",
        ledger=(),
        mistakes=(
            Mistake(UNCONDITIONED, _wrong(lambda f, x, t: f(x, 0 * t + 1))),
            Mistake(EXCHANGED,
                    _wrong(lambda f, x, t: f(x, t.roll(1)))),
            Mistake("an image does not get its own timestep",
                    _wrong(lambda f, x, t: f(x, t[:1].expand_as(t)))),
            Mistake("the timestep is stored in 8 bits",
                    _wrong(lambda f, x, t: f(x, t % 256))),
            Mistake("the images of a batch are mixed",
                    _wrong(lambda f, x, t: f(x - x.mean(0), t))),
            Mistake(SHAPE,
                    _wrong(lambda f, x, t: f(x, t).mean(1))),
            Mistake("the output is not finite",
                    _wrong(lambda f, x, t: f(x, t) / (t - 1).view(-1, 1, 1, 1))),
            Mistake("the image is ignored", _wrong(lambda f, x, t: f(0 * x, t))),
        ),
        module=module_as_function,
        made=True,
        notes=(
            "A module of `torch.nn.Module`, or a class that is made without arguments, "
            "is accepted as well; small random numbers are added to its parameters.",
            "Networks differ in their architecture and weights, so that the outputs "
            "are not compared with those of the report.",
        ),
    )  # fmt: skip
