r"""Learned positional embeddings: one trainable vector per position."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class LearnedPositions(nn.Module):
    """A vector for each position, learnt like any weight.

    Nothing ties the vector of one position to that of the next, and there is none for
    a position behind the last.

    Parameters
    ----------
    n_position
        How many positions there are; the first is 0.
    d
        Width of a vector.
    generator
        The source of the start, which is normal with a standard deviation of 0.02.

    Notes
    -----
    As in Gehring et al., *Convolutional sequence to sequence learning*, 2017,
    arXiv:1705.03122, and in one row of Table 3 of Vaswani et al.

    Examples
    --------
    >>> import torch
    >>> LearnedPositions(5, 4)(torch.arange(3)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self, n_position: int, d: int, generator: torch.Generator | None = None
    ):
        super().__init__()
        self.P = nn.Parameter(0.02 * torch.randn(n_position, d, generator=generator))

    def forward(self, positions: Int[Tensor, "*n"]) -> Float[Tensor, "*n d"]:
        """Return the vectors of these positions, or refuse what the table has not."""
        if positions.is_floating_point():
            raise TypeError(f"positions must be integers, got {positions.dtype}")
        if positions.numel():
            first, last = positions.min().item(), positions.max().item()
            if first < 0 or last >= len(self.P):
                raise ValueError(
                    f"positions must be from 0 to {len(self.P) - 1}, the last that was "
                    f"learnt, got {first if first < 0 else last}"
                )
        return self.P[positions]
