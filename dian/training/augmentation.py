"""Data augmentation: random changes of images that keep their class.

Axis names: ``batch`` images, each of ``row`` by ``column`` pixels. The random numbers
are drawn on the CPU, so that they are the same on every device.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from dian.errors import require_whole

Images = Float[Tensor, "batch row column"]


def random_horizontal_flip(
    images: Images, generator: torch.Generator | None = None
) -> Images:
    """Mirror each image left to right with probability 1/2.

    >>> images = torch.tensor([[[0.0, 1.0]]] * 4)
    >>> random_horizontal_flip(images, torch.Generator().manual_seed(0))[:, 0].int()
    tensor([[1, 0],
            [0, 1],
            [1, 0],
            [1, 0]], dtype=torch.int32)
    """
    chosen = torch.rand(len(images), 1, 1, generator=generator) < 0.5
    return torch.where(chosen.to(images.device), images.flip(-1), images)


def random_shift(
    images: Images, max_shift: int, generator: torch.Generator | None = None
) -> Images:
    """Shift each image vertically and horizontally by up to ``max_shift`` pixels.

    Shifts are uniform integers. Pixels from outside the image are 0.

    Examples
    --------
    >>> random_shift(torch.ones(1, 2, 3), 1, torch.Generator().manual_seed(0)).int()
    tensor([[[0, 1, 1],
             [0, 0, 0]]], dtype=torch.int32)
    """
    require_whole("max_shift", max_shift, 0)
    n_image, n_row, n_column = images.shape
    corners = torch.randint(2 * max_shift + 1, (2, n_image), generator=generator)
    down, right = corners.to(images.device)
    # All windows of the padded image are views; only the chosen one is copied.
    windows = pad(images, [max_shift] * 4).unfold(1, n_row, 1).unfold(2, n_column, 1)
    return windows[torch.arange(n_image, device=images.device), down, right]
