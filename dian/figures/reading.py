"""A recurrent network reads an image row by row: what it predicts on the way."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dian.errors import require

UNREAD = 0.25
"""How much of its brightness a row keeps before it is read."""


def rows_read(ax: Axes, image: Float[np.ndarray, "row column"], n: int) -> None:
    """Draw an image of which the first rows have been read; the rest is dimmed.

    Parameters
    ----------
    ax
        Axes to draw on.
    image
        Gray values from 0 to 1.
    n
        The number of rows that have been read.

    Examples
    --------
    >>> ax = Figure().subplots()
    >>> rows_read(ax, np.ones((3, 2)), 1)
    >>> ax.images[0].get_array()[:, 0].tolist()
    [1.0, 0.25, 0.25]
    """
    require(0 <= n <= len(image), f"expected 0 to {len(image)} rows, got n={n}")
    shown = image.copy()
    shown[n:] *= UNREAD
    ax.imshow(shown, cmap="gray", vmin=0, vmax=1)
    if n < len(image):
        ax.axhline(n - 0.5, color="#d55e00", lw=2.5)
    ax.set(xticks=[], yticks=[])


def most_likely(
    ax: Axes,
    probs: Float[np.ndarray, "num_classes"],
    classes: Sequence[str],
    k: int = 3,
) -> None:
    """Draw the largest class probabilities as bars, with the names above them.

    Parameters
    ----------
    ax
        Axes to draw on.
    probs
        The probability of each class.
    classes
        The names of the classes.
    k
        The number of bars.

    Examples
    --------
    >>> ax = Figure().subplots()
    >>> most_likely(ax, np.array([0.1, 0.7, 0.2]), ["Bag", "Coat", "Boot"], 2)
    >>> [text.get_text() for text in ax.texts]
    ['Coat 70 %', 'Boot 20 %']
    """
    best = np.argsort(-probs, kind="stable")[:k]
    colors = ["#0072b2"] + ["#9db8c9"] * (k - 1)
    ax.barh(range(k), probs[best], height=0.32, color=colors, align="edge")
    for place, i in enumerate(best):
        words = f"{classes[i]} {100 * probs[i]:.0f} %"
        ax.text(0, place - 0.06, words, va="bottom", fontsize=11)
    ax.set(xlim=(0, 1), ylim=(k - 0.55, -0.55))
    ax.axis("off")


def row_by_row(
    figure: Figure,
    image: Float[np.ndarray, "row column"],
    probs: Float[np.ndarray, "step num_classes"],
    steps: Sequence[int],
    classes: Sequence[str],
) -> None:
    """Draw an image after some rows, and the most likely classes below each.

    Parameters
    ----------
    figure
        Figure to draw on.
    image
        Gray values from 0 to 1.
    probs
        The class probabilities after each of the ``steps``.
    steps
        Numbers of rows that have been read.
    classes
        The names of the classes.

    Examples
    --------
    >>> figure = Figure()
    >>> row_by_row(figure, np.ones((2, 2)), np.eye(2), [1, 2], ["Bag", "Coat"])
    >>> [ax.get_title() for ax in figure.axes[:2]]
    ['1 row read', '2 rows read']
    """
    require(len(probs) == len(steps), "expected the probabilities after each step")
    n_bar = min(3, len(classes))
    top, bottom = figure.subplots(2, len(steps), height_ratios=[1.5, 1], squeeze=False)
    for above, below, n, p in zip(top, bottom, steps, probs, strict=True):
        rows_read(above, image, n)
        above.set_title(f"{n} row read" if n == 1 else f"{n} rows read", fontsize=12)
        most_likely(below, p, classes, n_bar)
