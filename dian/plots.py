"""The figures of the report: arrays in, matplotlib Axes out."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes


def curve_with_spread(
    ax: Axes,
    x: Float[np.ndarray, "n"] | Int[np.ndarray, "n"],
    runs: Float[np.ndarray, "n_seed n"],
    label: str,
    **style,
) -> None:
    """Draw the mean of several runs as a line, from smallest to largest as a band.

    Parameters
    ----------
    ax
        Where to draw.
    x
        What the runs are drawn against.
    runs
        One row for each seed.
    label
        The name of the line in the legend.
    **style
        Passed on to :meth:`matplotlib.axes.Axes.plot`.

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


def confusion(
    ax: Axes, C: Int[np.ndarray, "n_class n_class"], classes: Sequence[str]
) -> None:
    """Draw a confusion matrix: rows are the true classes, and each row sums to 100 %.

    Parameters
    ----------
    ax
        Where to draw.
    C
        Counts; row is the true class, column the predicted one.
    classes
        The names of the classes.
    """
    share = 100 * C / C.sum(1, keepdims=True)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for (i, j), value in np.ndenumerate(share):
        if value >= 0.5:
            color = "white" if value > 55 else "black"
            text = {"ha": "center", "va": "center", "fontsize": 8}
            ax.text(j, i, f"{value:.0f}", color=color, **text)
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    ax.set_yticks(range(len(classes)), classes)
    ax.set(xlabel="predicted", ylabel="true")


def predictions(
    axes: Sequence[Axes],
    images: Float[np.ndarray, "n row column"],
    true: Int[np.ndarray, "n"],
    predicted: Int[np.ndarray, "n"] | UInt8[np.ndarray, "n"],
    classes: Sequence[str],
) -> None:
    """Show images under what they were taken for; a wrong guess also tells the truth.

    Parameters
    ----------
    axes
        One for each image.
    images, true, predicted
        The images, their classes, and the classes they were given.
    classes
        The names of the classes.
    """
    for ax, image, t, p in zip(axes, images, true, predicted, strict=True):
        ax.imshow(image, cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        right = t == p
        # Not by colour alone: a wrong guess carries a cross and the right answer.
        title = f"✓ {classes[p]}" if right else f"✗ {classes[p]}\n({classes[t]})"
        ax.set_title(title, fontsize=8, color="#1a7f37" if right else "#c0392b")
