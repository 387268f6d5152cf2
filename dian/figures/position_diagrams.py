"""Diagrams of positional encodings: where they enter attention, and rotated pairs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.patches import Circle

MATRIX, ENCODING = "#d6e6f2", "#f7e3d3"
"""Fill colors of matrices, and of the places where a position can enter."""
HAND, FIRST = "#0072b2", "0.6"


def encoding_places(ax: Axes) -> None:
    """Draw one attention head, and the three places where positions can enter.

    Parameters
    ----------
    ax
        Axes to draw on.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> encoding_places(ax)
    >>> names = [text.get_text().partition("(")[0].strip() for text in ax.texts]
    >>> [name for name in names if name[:1].isdigit()]
    ['1 add a vector', '2 rotate $Q$ and $K$', '3 add a bias']
    """
    boxes = {
        "X": (0, 2, "embeddings\n$n \\times D$"),
        "Q": (2.6, 3, "queries $Q$\n$n \\times d$"),
        "K": (2.6, 2, "keys $K$\n$n \\times d$"),
        "V": (2.6, 0.7, "values $V$\n$n \\times d$"),
        "S": (5.3, 2.5, "scores\n$n \\times n$"),
        "P": (7.6, 2.5, "weights\n$n \\times n$"),
        "O": (9.6, 1.4, "output\n$n \\times d$"),
    }
    for x, y, words in boxes.values():
        _box(ax, x, y, words, MATRIX)
    arrows = [
        ("X", "Q", "$W_Q$", (-0.1, 0.2)),
        ("X", "K", "$W_K$", (0, 0.17)),
        ("X", "V", "$W_V$", (-0.1, -0.25)),
        ("Q", "S", "", (0, 0)),
        ("K", "S", "", (0, 0)),
        ("S", "P", "softmax", (0, 0.17)),
        ("P", "O", "", (0, 0)),
        ("V", "O", "average", (0, -0.25)),
    ]
    for start, end, words, shift in arrows:
        begin, stop = boxes[start][:2], boxes[end][:2]
        style = {"arrowstyle": "-|>", "shrinkA": 30, "shrinkB": 30, "color": "black"}
        ax.annotate("", stop, begin, arrowprops=style, zorder=0)
        middle = [(a + b) / 2 + c for a, b, c in zip(begin, stop, shift, strict=True)]
        ax.text(*middle, words, ha="center", va="center", fontsize=9)
    places = [
        (0, 3.9, "1 add a vector\n(sinusoidal, learned)", (0, 2.4)),
        (2.6, 3.9, "2 rotate $Q$ and $K$\n(RoPE)", (2.6, 3.4)),
        (5.3, 3.9, "3 add a bias\n(ALiBi, causal mask)", (5.3, 2.9)),
    ]
    for x, y, words, to in places:
        _box(ax, x, y, words, ENCODING)
        style = {"arrowstyle": "-|>", "shrinkA": 16, "color": "#a04000"}
        ax.annotate("", to, (x, y), arrowprops=style, zorder=0)
    ax.set(xlim=(-1.2, 10.4), ylim=(0.2, 4.4))
    ax.axis("off")


def rotated_pairs(
    axes: Shaped[np.ndarray, "position pair"],
    omega: Sequence[float],
    positions: Sequence[int],
) -> None:
    """Draw each pair of features as a hand that its position rotates.

    Parameters
    ----------
    axes
        Axes to draw on: one row for each position, and one column for each pair.
    omega
        Frequency of each pair, in radians per position.
    positions
        Position of each row.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> axes = Figure().subplots(2, 3)
    >>> rotated_pairs(axes, [1.0, 0.1, 0.01], [0, 5])
    >>> axes[1, 0].lines[-1].get_xydata().round(2)[1]
    array([ 0.28, -0.96])
    """
    for row, m in zip(axes, positions, strict=True):
        for ax, w in zip(row, omega, strict=True):
            ax.add_patch(Circle((0, 0), 1, fill=False, color="0.8"))
            ax.plot([0, 1], [0, 0], ":", color=FIRST)
            ax.plot([0, np.cos(m * w)], [0, np.sin(m * w)], color=HAND, lw=2.5)
            limits = (-1.15, 1.15)
            ax.set(xlim=limits, ylim=limits, aspect="equal", xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        row[0].set_ylabel(f"m = {m}", rotation=0, ha="right", va="center")
    for i, (ax, w) in enumerate(zip(axes[0], omega, strict=True)):
        ax.set_title(f"pair {i}\n{w:.3g} rad / position", fontsize=9)


def _box(ax: Axes, x, y, words: str, color: str) -> None:
    box = {"boxstyle": "round,pad=0.35", "facecolor": color, "edgecolor": "0.4"}
    ax.text(x, y, words, bbox=box, ha="center", va="center", fontsize=9)
