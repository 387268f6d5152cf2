r"""Conversion between bytes and the range [-1, 1] of the diffusion process."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def from_bytes(images: UInt8[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Scale bytes to [-1, 1], where the noise has the size of the images.

    Raises
    ------
    TypeError
        If the images are no bytes.

    Examples
    --------
    >>> import torch
    >>> from_bytes(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([-1.0000, -0.6000,  1.0000])
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be bytes (uint8), got {images.dtype}")
    return images / 127.5 - 1


def to_bytes(x: Float[Tensor, "*n"]) -> UInt8[Tensor, "*n"]:
    """Scale back from [-1, 1] to the nearest bytes; what lies outside is cut off.

    Raises
    ------
    ValueError
        If an entry is no number: it would become a black pixel.

    Examples
    --------
    >>> import torch
    >>> to_bytes(torch.tensor([-1.0, -0.6, 1.2]))
    tensor([  0,  51, 255], dtype=torch.uint8)
    """
    if x.isnan().any():
        raise ValueError(
            f"x must hold numbers, got NaN in {x.isnan().sum()} of {x.numel()} entries"
        )
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
