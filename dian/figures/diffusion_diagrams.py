"""Diagrams of diffusion models: the two chains, and a U-Net."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from dian.diffusion.unet import UNetConfig

FORWARD, REVERSE, SKIP = "#0072b2", "#a04000", "0.45"
PLAIN, BLOCK, ATTENTION = "#ececec", "#cfe3f1", "#fbe0c8"
"""Fill colors of convolutions, residual blocks, and blocks with attention."""
LEVEL = 2.1
"""Distance between two resolution levels."""


def chain(ax: Axes, images: Sequence[np.ndarray], names: Sequence[str]) -> None:
    r"""Draw the forward process above a row of images, and the reverse one below.

    Parameters
    ----------
    ax
        Axes to draw on.
    images
        Gray images, from the clean one to pure noise.
    names
        Their names in TeX without dollars; the empty name leaves a gap with dots.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> names = ["x_0", "", "x_{t-1}", "x_t", "", "x_T"]
    >>> chain(ax, [np.zeros((2, 2))] * 6, names)
    >>> [text.get_text() for text in ax.texts if "mid" in text.get_text()]
    ['$q(x_t \\mid x_{t-1})$', '$p_\\theta(x_{t-1} \\mid x_t)$']
    """
    for i, (image, name) in enumerate(zip(images, names, strict=True)):
        x = 1.6 * i
        if name:
            box = (x - 0.5, x + 0.5, -0.5, 0.5)
            ax.imshow(image, cmap="gray_r", vmin=-2, vmax=2, extent=box, zorder=2)
            ax.plot(
                [x - 0.5, x + 0.5, x + 0.5, x - 0.5, x - 0.5],
                [-0.5, -0.5, 0.5, 0.5, -0.5],
                color="black",
                linewidth=0.8,
                zorder=3,
            )
            ax.text(x, -0.62, f"${name}$", ha="center", va="top", fontsize=12)
        else:
            ax.text(x, 0, r"$\cdots$", ha="center", va="center", fontsize=16)
        if i == 0:
            continue
        for y, bend, color, style in (
            (0.2, 1, FORWARD, "-"),
            (-0.2, -1, REVERSE, "--"),
        ):
            ends = [(x - 1.05, y), (x - 0.55, y)]
            start, end = ends if bend == 1 else ends[::-1]
            _arrow(ax, start, end, color, style)
        if name and names[i - 1]:
            step = rf"q({name} \mid {names[i - 1]})"
            back = rf"p_\theta({names[i - 1]} \mid {name})"
            middle = {"x": x - 0.8, "ha": "center"}
            ax.text(y=0.62, s=f"${step}$", va="bottom", color=FORWARD, **middle)
            ax.text(y=-1.0, s=f"${back}$", va="top", color=REVERSE, **middle)
    end = 1.6 * (len(images) - 1)
    ax.text(0, 0.62, "data", ha="center", va="bottom")
    ax.text(end, 0.62, "noise", ha="center", va="bottom")
    ax.text(end / 2, 1.25, "forward process, fixed", color=FORWARD, ha="center")
    ax.text(end / 2, -1.7, "reverse process, learned", color=REVERSE, ha="center")
    ax.set(xlim=(-0.7, end + 0.7), ylim=(-1.9, 1.7), aspect="equal")
    ax.axis("off")


def unet(ax: Axes, config: UNetConfig, size: int) -> None:
    """Draw a U-Net: its resolution levels, their blocks, and the skip connections.

    Parameters
    ----------
    ax
        Axes to draw on.
    config
        The architecture.
    size
        Rows and columns of an image.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dian.diffusion.unet import PRESETS
    >>> ax = Figure().subplots()
    >>> unet(ax, PRESETS["small"], 28)
    >>> [text.get_text() for text in ax.texts if "pixels" in text.get_text()]
    ['28 x 28 pixels', '14 x 14 pixels', '7 x 7 pixels']
    >>> sum("skip" in str(a.get_gid()) for a in ax.texts)  # as the network has
    6
    """
    widths = [config.width * m for m in config.multipliers]
    n, lowest = config.blocks + 1, len(widths) - 1
    inner = 1.3  # of the boxes next to the middle
    ends = {}
    for level, c in enumerate(widths):
        y = -LEVEL * level
        color = ATTENTION if level in config.attention else BLOCK
        before = widths[max(level - 1, 0)]
        entry = "conv" if level == 0 else "down"
        left = [(entry, PLAIN, before)] + [("block", color, c)] * config.blocks
        right = [("block", color, c)] * n
        # From the outside to the middle on the left, and back on the right.
        places = [-inner - 1.1 * (n - 1 - i) for i in range(n)]
        mirrored = [-x for x in reversed(places)]
        for x, (word, fill, channels) in zip(
            places + mirrored, left + right, strict=True
        ):
            _box(ax, x, y, word, fill, channels)
        for row in (places, mirrored):
            for x, following in pairwise(row):
                _arrow(ax, (x + 0.4, y), (following - 0.4, y))
        for i, x in enumerate(places):
            height = y + 0.55 + 0.2 * (n - 1 - i)
            x -= 0.2  # beside the arrows between the levels
            ax.plot([x, x, -x], [y + 0.32, height, height], color=SKIP, linewidth=1)
            _arrow(ax, (-x, height), (-x, y + 0.32), SKIP, gid="skip")
        pixels = f"{size >> level} x {size >> level} pixels"
        ax.text(places[0] - 0.6, y, pixels, ha="right", va="center", fontsize=9)
        ends[level] = places[-1], places[0]
    for level in range(lowest):
        y = -LEVEL * level
        inside, outside = ends[level]
        # Down from the last block of a level, up from the last one below.
        below, turn = y - LEVEL + 0.32, y - 0.75
        _path(
            ax, [(inside, y - 0.32), (inside, turn), (outside, turn), (outside, below)]
        )
        inside, outside = -inside, -outside
        _path(
            ax, [(outside, below), (outside, turn), (inside, turn), (inside, y - 0.32)]
        )
        ax.text((inside + outside) / 2, turn + 0.08, "up", fontsize=8, ha="center")
    y = -LEVEL * lowest
    for x, fill in ((-0.5, ATTENTION), (0.5, BLOCK)):
        _box(ax, x, y - 1.2, "block", fill, widths[-1])
    _path(ax, [(-inner, y - 0.32), (-inner, y - 1.2), (-0.9, y - 1.2)])
    _arrow(ax, (-0.1, y - 1.2), (0.1, y - 1.2))
    _path(ax, [(0.9, y - 1.2), (inner, y - 1.2), (inner, y - 0.32)])
    outside = -ends[0][1]
    ax.text(-outside - 1.3, 0.75, "$x_t$", ha="center", va="center", fontsize=12)
    _path(ax, [(-outside - 1.1, 0.75), (-outside, 0.75), (-outside, 0.32)])
    ax.text(outside + 1.0, 0, r"$\epsilon_\theta(x_t, t)$", va="center", fontsize=12)
    _arrow(ax, (outside + 0.4, 0), (outside + 0.95, 0))
    colors = {
        "convolution": PLAIN,
        "residual block": BLOCK,
        "with attention": ATTENTION,
    }
    for i, (word, fill) in enumerate(colors.items()):
        x = -outside - 1.2 + 2.4 * i
        ax.plot(x, y - 1.9, "s", color=fill, markeredgecolor="black", markersize=9)
        ax.text(x + 0.2, y - 1.9, word, va="center", fontsize=9)
    note = (
        "Numbers: channels. Gray: skip connections. Every block is given the timestep."
    )
    ax.text(-outside - 1.3, y - 2.4, note, va="center", fontsize=9)
    ax.set(xlim=(-outside - 2.6, outside + 2.6), ylim=(y - 2.6, 1.0))
    ax.axis("off")


def _box(ax: Axes, x: float, y: float, word: str, color: str, channels: int) -> None:
    """Draw one layer, with its channels below its name."""
    box = FancyBboxPatch(
        (x - 0.36, y - 0.28),
        0.72,
        0.56,
        "round,pad=0.04",
        fc=color,
        ec="black",
        zorder=3,
    )
    ax.add_patch(box)
    ax.text(x, y, f"{word}\n{channels}", ha="center", va="center", fontsize=8, zorder=4)


def _path(ax: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Draw an arrow with corners."""
    ax.plot(*zip(*points[:-1], strict=True), color="black", linewidth=1)
    _arrow(ax, *points[-2:])


def _arrow(ax: Axes, start, end, color="black", style="-", gid=None) -> None:
    arrow = {"arrowstyle": "-|>", "color": color, "linestyle": style}
    arrow |= {"shrinkA": 0, "shrinkB": 0, "linewidth": 1}
    ax.annotate("", end, start, arrowprops=arrow, gid=gid)
