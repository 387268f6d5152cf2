r"""How positions enter a transformer: from a name to the functions that it calls.

There are three places. Something is added to the input (``encode``), queries and keys
are turned (``rotate``), or something is added to the scores (``bias``).
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dian.positions.alibi import alibi_bias
from dian.positions.learned import LearnedPositions
from dian.positions.rotary import rotate
from dian.positions.sinusoidal import frequencies, sinusoidal_encoding


class AddLearned(nn.Module):
    """Add a learnt vector to each position, see :class:`.LearnedPositions`."""

    def __init__(
        self, n_position: int, d: int, generator: torch.Generator | None = None
    ):
        super().__init__()
        self.positions = LearnedPositions(n_position, d, generator)

    def forward(self, X: Float[Tensor, "batch n D"]) -> Float[Tensor, "batch n D"]:
        """Return the sum; a position that was not learnt is refused."""
        return X + self.positions(torch.arange(X.shape[1], device=X.device))


def add_sinusoidal(X: Float[Tensor, "batch n D"]) -> Float[Tensor, "batch n D"]:
    """Add :func:`dian.positions.sinusoidal.sinusoidal_encoding` to the input.

    >>> add_sinusoidal(torch.zeros(1, 2, 2))
    tensor([[[0.0000, 1.0000],
             [0.8415, 0.5403]]])
    """
    places = torch.arange(X.shape[1], device=X.device)
    return X + sinusoidal_encoding(places, X.shape[2], dtype=X.dtype)


def encoding(
    name: str,
    d_model: int,
    n_head: int,
    *,
    n_position: int | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Callable[..., Any]]:
    r"""Return the arguments of an encoder that determine how it encodes positions.

    Parameters
    ----------
    name
        One of :data:`ENCODINGS`.
    d_model, n_head
        As of the encoder.
    n_position
        How many positions a learnt encoding has.
    generator
        The source of its start.

    Raises
    ------
    ValueError
        If the name is unknown, or a learnt encoding is not told its length.

    Examples
    --------
    >>> sorted(encoding("rotary", 64, 4))
    ['rotate']
    >>> encoding("none", 64, 4)
    {}
    """
    if name not in ENCODINGS:
        raise ValueError(f"name must be one of {', '.join(ENCODINGS)}, got {name!r}")
    if name == "sinusoidal":
        return {"encode": add_sinusoidal}
    if name == "learned":
        if n_position is None:
            raise ValueError("n_position must be given for learned positions, got None")
        return {"encode": AddLearned(n_position, d_model, generator)}
    if name == "rotary":
        omega = frequencies(d_model // n_head)
        return {"rotate": lambda x, offset: rotate(x, omega, offset=offset)}
    if name == "alibi":
        return {"bias": lambda n, m: _alibi(n, m, n_head)}
    return {}


ENCODINGS = ("none", "learned", "sinusoidal", "rotary", "alibi")
"""The names of the positional encodings; the modules beside this one define them."""


def _alibi(n: int, m: int, n_head: int) -> Float[Tensor, "head n m"]:
    """Return the bias of the last n of m positions."""
    return alibi_bias(torch.arange(m - n, m), torch.arange(m), n_head)
