"""The figures of the report: arrays in, matplotlib Axes out."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Integer, UInt8
from matplotlib.axes import Axes
from matplotlib.image import AxesImage, imsave

from dian.errors import require, require_whole


def curve_with_spread(
    ax: Axes,
    x: Float[np.ndarray, "n"] | Int[np.ndarray, "n"],
    runs: Float[np.ndarray, "n_seed n"],
    label: str,
    **style,
) -> None:
    """Draw the mean of several runs as a line, and their range as a band.

    Parameters
    ----------
    ax
        Axes to draw on.
    x
        Horizontal coordinates.
    runs
        One row per seed.
    label
        The name of the line in the legend.
    **style
        Passed to :meth:`matplotlib.axes.Axes.plot`.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> curve_with_spread(ax, np.arange(3), np.eye(2, 3), "two runs")
    >>> ax.lines[0].get_ydata()
    array([0.5, 0.5, 0. ])
    """
    (line,) = ax.plot(x, runs.mean(0), label=label, **style)
    band = {"color": line.get_color(), "alpha": 0.25, "linewidth": 0}
    ax.fill_between(x, runs.min(0), runs.max(0), **band)


def confusion(ax: Axes, C: Integer[np.ndarray, "c c"], classes: Sequence[str]) -> None:
    """Draw a confusion matrix as percentages of each target class (row).

    The row of a class without items is empty.

    Parameters
    ----------
    ax
        Axes to draw on.
    C
        Counts; rows are target classes, columns are predicted classes.
    classes
        The names of the classes.
    """
    percent = 100 * C / C.sum(1, keepdims=True).clip(1)
    ax.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(percent):
        if round(value):  # no label if it would be 0
            color = "white" if value > 55 else "black"
            text = {"ha": "center", "va": "center", "fontsize": 8}
            ax.text(j, i, f"{value:.0f}", color=color, **text)
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    ax.set_yticks(range(len(classes)), classes)
    ax.set(xlabel="predicted", ylabel="true")


def attention(
    ax: Axes,
    P: Float[np.ndarray, "n_query n_key"],
    title: str = "",
    largest: float | None = None,
) -> AxesImage:
    """Draw attention weights as a heat map: one row per query.

    Parameters
    ----------
    ax
        Axes to draw on.
    P
        The attention weights.
    title
        Title of the axes.
    largest
        The weight with the darkest color. Default: the maximum.

    Returns
    -------
    image
        The image, for a color bar.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> attention(Figure().subplots(), np.eye(3)).get_clim()
    (0.0, 1.0)
    """
    image = ax.imshow(P, cmap="Blues", vmin=0, vmax=largest or P.max())
    ax.set_title(title, fontsize=9)
    ax.set(xlabel="key", ylabel="query")
    ax.locator_params(integer=True)
    return image


def predictions(
    axes: Iterable[Axes],
    images: Float[np.ndarray, "n row column"],
    target: Integer[np.ndarray, "n"],
    preds: Integer[np.ndarray, "n"],
    classes: Sequence[str],
) -> None:
    """Show images with their predicted classes, and the target class if it differs.

    Parameters
    ----------
    axes
        One for each image.
    images, target, preds
        The images in [0, 1], their classes, and the predicted classes.
    classes
        The names of the classes.
    """
    for ax, image, t, p in zip(axes, images, target, preds, strict=True):
        ax.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        right = t == p
        # Not by color alone: a wrong prediction has a cross and the target class.
        title = f"✓ {classes[p]}" if right else f"✗ {classes[p]}\n({classes[t]})"
        ax.set_title(title, fontsize=8, color="#1a7f37" if right else "#c0392b")


def unrolled(ax: Axes, n_time: int, backward: bool = False) -> None:
    """Draw a recurrent network unrolled in time, optionally with its backward pass.

    Parameters
    ----------
    ax
        Axes to draw on.
    n_time
        Number of time steps.
    backward
        Whether to draw the gradients, against the arrows.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> unrolled(ax, 2)
    >>> labels = [text.get_text() for text in ax.texts]
    >>> [label for label in labels if label and "W" not in label]
    ['$H_0$', '$X_1$', '$H_1$', '$O_1$', '$X_2$', '$H_2$', '$O_2$']
    """
    nodes = {"H_0": (0, 0)}
    edges = []  # from, to, weights, and gradient
    for t in range(1, n_time + 1):
        nodes |= {f"X_{t}": (t, -1), f"H_{t}": (t, 0), f"O_{t}": (t, 1)}
        edges += [
            (f"H_{t - 1}", f"H_{t}", "W_{hh}", rf"\delta_{t} W_{{hh}}^\top"),
            (f"X_{t}", f"H_{t}", "W_{xh}", rf"\delta_{t} W_{{xh}}^\top"),
            (f"H_{t}", f"O_{t}", "W_{hq}", rf"G_{t} W_{{hq}}^\top"),
        ]
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white"}
    for name, (x, y) in nodes.items():
        ax.text(x, y, f"${name}$", bbox=box, ha="center", va="center")
    for start, end, matrix, gradient in edges:
        _edge(ax, nodes[start], nodes[end], f"${matrix}$", 1, "black", "-")
        if backward:
            _edge(ax, nodes[end], nodes[start], f"${gradient}$", -1, "#a04000", "--")
    ax.set(xlim=(-0.3, n_time + 0.6), ylim=(-1.35, 1.35))
    ax.axis("off")


def _edge(ax: Axes, start, end, name: str, side: int, color: str, style: str) -> None:
    """Draw an arrow on one side of a line, with its name beside it."""
    level = start[1] == end[1]
    dx, dy = (0, 0.06 * side) if level else (-0.03 * side, 0)
    arrow = {"arrowstyle": "-|>", "color": color, "linestyle": style}
    ax.annotate(
        "",
        (end[0] + dx, end[1] + dy),
        (start[0] + dx, start[1] + dy),
        arrowprops=arrow | {"shrinkA": 15, "shrinkB": 15},
    )
    x, y = (start[0] + end[0]) / 2 + 2 * dx, (start[1] + end[1]) / 2 + 2 * dy
    place = ("center", "bottom" if side > 0 else "top")
    if not level:
        place = ("right" if side > 0 else "left", "center")
    ax.text(x, y, name, color=color, ha=place[0], va=place[1])


def image_grid(
    ax: Axes, images: UInt8[np.ndarray, "n_row n_column row column"]
) -> None:
    """Show a grid of small images, black on white.

    Parameters
    ----------
    ax
        Axes to draw on; title and labels are left to the caller.
    images
        Bytes; 0 is the background.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> image_grid(ax, np.zeros((2, 3, 28, 28), np.uint8))
    >>> ax.images[0].get_array().shape
    (56, 84)
    """
    n_row, n_column, row, column = images.shape
    whole = images.swapaxes(1, 2).reshape(n_row * row, n_column * column)
    ax.imshow(whole, cmap="gray_r", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def save_grid(
    images: UInt8[np.ndarray, "n *channel row column"]
    | Float[np.ndarray, "n *channel row column"],
    path: str | Path,
    columns: int = 4,
) -> None:
    """Write images to a PNG file, in rows of ``columns`` images.

    Parameters
    ----------
    images
        Bytes, or numbers in [0, 1], of shape ``(n, row, column)``, ``(n, 1, row,
        column)`` or ``(n, 3, row, column)``: an array, or a tensor on the CPU.
    path
        The file.
    columns
        Number of images in a row. The rest of the last row is black.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from matplotlib.image import imread
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_grid(np.ones((6, 28, 28)), f"{folder}/grid.png")
    ...     imread(f"{folder}/grid.png").shape
    (56, 112, 4)
    """
    require_whole("columns", columns, 1)
    images = np.asarray(images)
    x = images[:, None] if images.ndim == 3 else images
    fits = x.ndim == 4 and x.shape[1] in (1, 3) and x.size
    shapes = "(n, row, column) or (n, 1 or 3, row, column)"
    require(fits, f"images must be {shapes}, none empty, got {images.shape}")
    if x.dtype != np.uint8:
        low, high = x.min(), x.max()
        in_range = low >= 0 and high <= 1
        require(
            in_range, f"images must be in [0, 1] or bytes, got {low:.3g}..{high:.3g}"
        )
        x = np.round(255 * x).astype(np.uint8)
    n, channels, row, column = x.shape
    columns = min(n, columns)
    empty = np.zeros((-n % columns, channels, row, column), np.uint8)
    grid = np.concatenate([x, empty]).reshape(-1, columns, channels, row, column)
    whole = grid.transpose(0, 3, 1, 4, 2).reshape(-1, columns * column, channels)
    imsave(path, whole.repeat(3 // channels, axis=-1))


def speedups(
    ax: Axes,
    names: Sequence[str],
    ratios: Sequence[float],
    goals: Sequence[float],
    limits: Sequence[float | None],
) -> None:
    """Draw the speedup of each case over its baseline, with goal and limit.

    Parameters
    ----------
    ax
        Axes to draw on.
    names, ratios, goals
        Name, measured speedup and required speedup of each case; 1 is the same speed.
    limits
        Speedup at the limit of the hardware, or ``None``.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> speedups(ax, ["one", "two"], [2.0, 1.0], [1.5, 1.5], [3.0, None])
    >>> [text.get_text() for text in ax.texts]
    ['2 ✓', '1 ✗']
    """
    places = np.arange(len(names))[::-1]
    for place, ratio, goal, limit in zip(places, ratios, goals, limits, strict=True):
        met = ratio >= goal  # shown by the mark, not by color alone
        color = "#0072b2" if met else "#d55e00"
        ax.barh(place, ratio - 1, left=1, height=0.6, color=color)
        ax.plot([goal, goal], [place - 0.4, place + 0.4], color="black", linewidth=2)
        if limit is not None:
            ends = [place - 0.4, place + 0.4]
            ax.plot([limit, limit], ends, color="gray", linestyle=":", linewidth=2)
        mark = "✓" if met else "✗"
        ax.text(
            1.01,  # in a separate column, where no line crosses it
            place,
            f"{ratio:.3g} {mark}",
            transform=ax.get_yaxis_transform(),
            va="center",
            fontsize=8,
        )
    ax.axvline(1, color="black", linewidth=0.8)
    ax.plot([], [], color="black", linewidth=2, label="goal")
    ax.plot([], [], color="gray", linestyle=":", linewidth=2, label="limit")
    ax.set_xscale("log")
    ax.set_yticks(places, names, fontsize=8)
    ax.set(xlabel="times as fast (logarithmic)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="lower right")
