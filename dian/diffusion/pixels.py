"""Two floating-point views of the bytes of an image: [0, 1] and [-1, 1]."""

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from dian.errors import require
from dian.numerics import at_least_float32


def unit(pixels: UInt8[Tensor, "*n"]) -> Float32[Tensor, "*n"]:
    """Scale bytes to [0, 1], the range in which classifiers see them.

    >>> unit(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    if pixels.dtype != torch.uint8:
        raise TypeError(f"pixels must be bytes (torch.uint8), got {pixels.dtype}")
    return pixels / 255


def signed(pixels: UInt8[Tensor, "*n"]) -> Float32[Tensor, "*n"]:
    """Scale bytes to [-1, 1], the range of :math:`x_0` in the diffusion process.

    >>> signed(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([-1.0000, -0.6000,  1.0000])
    """
    return 2 * unit(pixels) - 1


def to_bytes(x: Float[Tensor, "*n"]) -> UInt8[Tensor, "*n"]:
    """Scale [-1, 1] to the nearest bytes; values outside are clamped.

    >>> to_bytes(torch.tensor([-1.0, -0.6, 1.2]))
    tensor([  0,  51, 255], dtype=torch.uint8)
    """
    missing = x.isnan().sum()
    require(missing == 0, f"x must hold numbers, got NaN in {missing} pixels")
    x = at_least_float32(x)
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
