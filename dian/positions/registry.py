r"""The positional encodings by name, as arguments of a transformer encoder.

Positions can enter a transformer in three places: as vectors added to the input
(``encode``), as a rotation of queries and keys (``rotate``), or as a bias added to the
attention scores (``bias``).
"""

from collections.abc import Callable

import torch

from dian.errors import require_one_of, require_whole
from dian.positions.alibi import AlibiBias
from dian.positions.learned import AddLearned, LearnedPositions
from dian.positions.rotary import RotaryEmbedding
from dian.positions.sinusoidal import AddSinusoidal

ENCODINGS = ("none", "learned", "sinusoidal", "rotary", "alibi")
"""The names of the positional encodings."""


def encoding(
    name: str,
    d_model: int,
    n_head: int,
    *,
    n_position: int | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Callable]:
    r"""Return the arguments of an encoder that set its positional encoding.

    The values are modules, or methods of modules, and can be pickled.

    Parameters
    ----------
    name
        One of :data:`ENCODINGS`.
    d_model, n_head
        Model dimension and number of heads of the encoder.
    n_position, generator
        Number of positions of the learned encoding, and the random-number generator of
        its initialization.

    Examples
    --------
    >>> encoding("alibi", 64, 4)
    {'bias': AlibiBias()}
    >>> encoding("none", 64, 4)
    {}
    """
    require_one_of("name", name, ENCODINGS)
    if name == "sinusoidal":
        return {"encode": AddSinusoidal()}
    if name == "learned":
        require_whole("n_position", n_position, 1)
        positions = LearnedPositions(n_position, d_model, generator)
        return {"encode": AddLearned(positions)}
    if name == "rotary":
        return {"rotate": RotaryEmbedding(d_model // n_head).rotate}
    return {"bias": AlibiBias(n_head)} if name == "alibi" else {}
