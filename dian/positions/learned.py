r"""Learned positional embeddings: one trainable vector per position."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dian.errors import require


class LearnedPositions(nn.Module):
    """A table with one trainable vector per position.

    The vectors of neighboring positions are not related, and positions beyond the table
    have none.

    Parameters
    ----------
    n_position
        Number of positions, from 0 on.
    d
        Features of a vector.
    generator
        The random-number generator of the initialization, which is normal with a
        standard deviation of 0.02.

    Notes
    -----
    As in Gehring et al., *Convolutional sequence to sequence learning*, 2017,
    arXiv:1705.03122, and in row E of Table 3 of Vaswani et al., 2017.

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
        """Return the vectors of these positions."""
        outside = positions[(positions < 0) | (positions >= len(self.P))]
        require(
            not outside.numel() and not positions.is_floating_point(),
            f"positions must be integers from 0 to {len(self.P) - 1}, the last learned "
            f"one, got {outside.tolist() or positions.dtype}",
        )
        return self.P[positions.long()]


class AddLearned(nn.Module):
    """Add :class:`LearnedPositions` to a batch of sequences.

    >>> AddLearned(LearnedPositions(5, 4))(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, positions: LearnedPositions):
        super().__init__()
        self.positions = positions

    def forward(self, X: Float[Tensor, "batch n D"]) -> Float[Tensor, "batch n D"]:
        """Return the sum; the positions are 0, 1, ..., n - 1."""
        return X + self.positions(torch.arange(X.shape[1], device=X.device))
