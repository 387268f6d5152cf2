"""Diagrams of attention, of multi-head attention, of an encoder layer, of decoding."""

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

FORWARD = "black"
BACKWARD = "#a04000"
COLORS = ("#cfe3f1", "#fbe0c8", "#cfe8df", "#ecdbe6")
"""Light colors, one for each head."""
LINES = ("#0072b2", "#d55e00", "#007a5a", "#a8578a")
"""The same hues, dark enough for lines."""


def head(ax: Axes, backward: bool = False) -> None:
    r"""Draw one attention head with the shapes of its matrices.

    Parameters
    ----------
    ax
        Axes to draw on.
    backward
        Whether to draw the gradients, against the arrows.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> head(ax)
    >>> [text.get_text() for text in ax.texts if len(text.get_text()) == 3]
    ['$Q$', '$K$', '$V$', '$S$', '$P$', '$O$']
    """
    places = {"Q": (0, 3), "K": (0, 1.8), "V": (0, 0), "S": (2.6, 2.4)}
    places |= {"P": (5.2, 2.4), "O": (7.6, 0.9)}
    shapes = {"Q": r"n \times d_k", "K": r"m \times d_k", "V": r"m \times d_v"}
    shapes |= {"S": r"n \times m", "P": r"n \times m", "O": r"n \times d_v"}
    for name, place in places.items():
        _matrix(ax, place, f"${name}$", f"${shapes[name]}$")
    arrows = [
        ("Q", "S", "", r"$\bar Q = \bar S K / \sqrt{d_k}$", (1.15, 3.2)),
        ("K", "S", "", r"$\bar K = \bar S^\top Q / \sqrt{d_k}$", (1.2, 1.4)),
        ("S", "P", "softmax", r"$\bar S = P \odot (\bar P - D\,1^\top)$", (3.9, 1.75)),
        ("P", "O", "", r"$\bar P = \bar O V^\top$", (7.3, 2.0)),
        ("V", "O", "", r"$\bar V = P^\top \bar O$", (4.2, -0.05)),
    ]
    for start, end, word, gradient, place in arrows:
        shift = 0.07 if backward else 0.0
        _arrow(ax, places[start], places[end], shift=shift)
        if word:
            x = (places[start][0] + places[end][0]) / 2
            ax.text(x, places[start][1] + 0.16, word, ha="center", va="bottom")
        if backward:
            _arrow(ax, places[end], places[start], BACKWARD, "--", shift=shift)
            ax.text(*place, gradient, color=BACKWARD, ha="center", va="center")
    if not backward:
        ax.text(2.6, 3.15, r"$Q K^\top / \sqrt{d_k} + B$", ha="center")
        ax.text(5.2, 3.15, "one row per query,\nsums to 1", ha="center", fontsize=9)
        ax.text(7.6, 1.6, r"$P V$", ha="center")
    ax.set(xlim=(-0.8, 8.5), ylim=(-0.6, 3.8))
    ax.axis("off")


def multi_head(ax: Axes, n_head: int = 3) -> None:
    """Draw multi-head self-attention with the shapes of its matrices.

    Parameters
    ----------
    ax
        Axes to draw on.
    n_head
        Number of heads, at most 4.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> multi_head(ax)
    >>> [text.get_text() for text in ax.texts if "head" in text.get_text()]
    ['head 1', 'head 2', 'head 3']
    """
    middle = 1.4
    _matrix(ax, (0, middle), "$X$", r"$n \times D$")
    for name, y in zip("QKV", (2.8, 1.4, 0), strict=True):
        _arrow(ax, (0, middle), (2.1, y), margin=0.5)
        ax.text(1.05, (middle + y) / 2 + 0.22, f"$W_{name}$", ha="center", va="bottom")
        _striped(ax, (2.1, y), n_head)
        ax.text(2.1, y + 0.38, f"${name}$", ha="center", va="bottom")
    ax.text(2.1, -0.42, r"$n \times D$", ha="center", va="top", fontsize=9)
    heights = [middle + 1.3 * (1 - 2 * h / (n_head - 1)) for h in range(n_head)]
    for h, y in enumerate(heights):
        for source in (2.8, 1.4, 0):
            _arrow(ax, (2.1, source), (4.3, y), LINES[h], margin=0.6)
        box = Rectangle((3.75, y - 0.35), 1.5, 0.7, facecolor=COLORS[h], edgecolor="k")
        ax.add_patch(box)
        ax.text(4.5, y, f"head {h + 1}", ha="center", va="center", fontsize=9)
        _arrow(ax, (4.9, y), (6.8, middle), margin=0.6)
        ax.text(5.45, y + 0.1, f"$O_{h + 1}$", ha="left", va="bottom", fontsize=9)
    ax.text(
        4.5,
        heights[-1] - 0.42,
        r"each $n \times d_h$",
        ha="center",
        va="top",
        fontsize=9,
    )
    _striped(ax, (6.8, middle), n_head)
    ax.text(6.8, middle + 0.42, "concatenate", ha="center", va="bottom", fontsize=9)
    ax.text(6.8, middle - 0.42, r"$n \times H d_h$", ha="center", va="top", fontsize=9)
    _arrow(ax, (6.8, middle), (8.7, middle), margin=0.6)
    ax.text(7.75, middle + 0.1, "$W_O$", ha="center", va="bottom")
    _matrix(ax, (8.7, middle), "$Y$", r"$n \times D$")
    ax.set(xlim=(-0.6, 9.3), ylim=(-0.9, 3.6))
    ax.axis("off")


def pre_norm_layer(ax: Axes, backward: bool = False) -> None:
    """Draw a pre-norm encoder layer: a residual stream with two sublayers.

    Parameters
    ----------
    ax
        Axes to draw on.
    backward
        Whether to draw the gradients, against the arrows.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> pre_norm_layer(ax)
    >>> [text.get_text() for text in ax.texts if 0 < len(text.get_text()) < 4]
    ['$X$', '$Y$', '$Z$', 'LN', '+', 'LN', '+']
    """
    y, below = 2.4, 0.6
    for x, name in ((0, "$X$"), (4.6, "$Y$"), (9.2, "$Z$")):
        _matrix(ax, (x, y), name, r"$n \times D$")
    for x, name in ((0, "multi-head\nattention"), (4.6, "feed-forward\nnetwork")):
        fork, plus = x + 0.7, x + 3.6
        ax.plot([x + 0.26, plus - 0.2], [y, y], color=FORWARD, linewidth=2.5)
        _arrow(ax, (plus, y), (x + 4.6, y), margin=0.2, end_margin=0.28, width=2.5)
        ax.plot([fork, fork], [y, below], color=FORWARD)
        _arrow(ax, (fork, below), (x + 1.35, below), margin=0.0, end_margin=0.22)
        ax.text(x + 1.35, below, "LN", bbox=_box(COLORS[2]), ha="center", va="center")
        _arrow(ax, (x + 1.35, below), (x + 2.6, below), margin=0.22, end_margin=0.58)
        ax.text(
            x + 2.6,
            below,
            name,
            bbox=_box(COLORS[0]),
            ha="center",
            va="center",
            fontsize=9,
        )
        ax.plot([x + 3.18, plus], [below, below], color=FORWARD)
        _arrow(ax, (plus, below), (plus, y), margin=0.0, end_margin=0.2)
        circle = _box("white") | {"boxstyle": "circle,pad=0.2"}
        ax.text(plus, y, "+", bbox=circle, ha="center", va="center", zorder=5)
        if backward:
            _arrow(
                ax,
                (plus + 0.1, y + 0.35),
                (fork - 0.1, y + 0.35),
                BACKWARD,
                "--",
                margin=0.0,
            )
            _arrow(
                ax, (plus, below - 0.6), (fork, below - 0.6), BACKWARD, "--", margin=0.0
            )
            upstream = r"$\bar Y$" if x == 0 else r"$\bar Z$"
            through = (
                r"$J_{LN_1}^\top J_{MHA}^\top\, \bar Y$"
                if x == 0
                else r"$J_{LN_2}^\top\, \bar U_2$"
            )
            ax.text(
                x + 2.2, y + 0.43, upstream, color=BACKWARD, ha="center", va="bottom"
            )
            ax.text(
                x + 2.2, below - 0.7, through, color=BACKWARD, ha="center", va="top"
            )
    if not backward:
        ax.text(
            2.2, y + 0.12, "residual connection", ha="center", va="bottom", fontsize=9
        )
        ax.text(
            6.8, y + 0.12, "residual connection", ha="center", va="bottom", fontsize=9
        )
    ax.set(xlim=(-0.6, 9.8), ylim=(-0.6, 3.3))
    ax.axis("off")


def decoding(training: Axes, generation: Axes, n: int = 6) -> None:
    """Draw the causal attention matrix in training, and in decoding with a cache.

    Parameters
    ----------
    training, generation
        Axes to draw on: all rows in one pass, and one row at a time.
    n
        Number of tokens.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> left, right = Figure().subplots(1, 2)
    >>> decoding(left, right, 4)
    >>> len(left.patches), len(right.patches)
    (10, 10)
    """
    for ax in (training, generation):
        for i in range(n):
            for j in range(i + 1):
                now = ax is training or i == n - 1
                new = ax is generation and now and j == n - 1
                color = COLORS[1] if new else COLORS[0] if now else "white"
                edge = "black" if now else "0.7"
                cell = Rectangle((j, i), 1, 1, fc=color, ec=edge, zorder=2 + now)
                ax.add_patch(cell)
        middles = [i + 0.5 for i in range(n)]
        names = [f"$x_{i + 1}$" for i in range(n)]
        ax.set_xticks(middles, names)
        ax.set_yticks(middles, [f"{name}" for name in names])
        ax.tick_params(length=0)
        ax.set(xlim=(-0.05, n + 0.05), ylim=(n + 0.05, -0.05), aspect="equal")
        ax.set(xlabel="key and value", ylabel="query")
        ax.spines[:].set_visible(False)
    for i in range(n):
        training.text(i + 1.2, i + 0.5, rf"$\to x_{i + 2}$", va="center")
    training.set_xlim(-0.05, n + 1.4)
    generation.text(n + 0.2, n - 0.5, rf"$\to x_{n + 1}$", va="center")
    generation.set_xlim(-0.05, n + 1.4)
    training.set_title("training: all rows at once", fontsize=10)
    generation.set_title("generation: one row, KV cache", fontsize=10)


def _box(color: str) -> dict:
    return {"boxstyle": "round,pad=0.35", "facecolor": color, "edgecolor": "black"}


def _matrix(ax: Axes, place, name: str, shape: str) -> None:
    """Draw a named matrix, with its shape below."""
    ax.text(*place, name, bbox=_box("white"), ha="center", va="center")
    ax.text(place[0], place[1] - 0.4, shape, ha="center", va="top", fontsize=9)


def _striped(ax: Axes, place, n_head: int) -> None:
    """Draw a matrix with a block of columns for each head."""
    width = 0.9 / n_head
    for h in range(n_head):
        corner = place[0] - 0.45 + h * width, place[1] - 0.35
        stripe = Rectangle(corner, width, 0.7, fc=COLORS[h], ec="k", zorder=3)
        ax.add_patch(stripe)


def _arrow(
    ax: Axes,
    start,
    end,
    color: str = FORWARD,
    style: str = "-",
    *,
    margin: float = 0.5,
    end_margin: float | None = None,
    shift: float = 0.0,
    width: float = 1.0,
) -> None:
    """Draw an arrow between two places, to the left of the line by ``shift``."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = (dx**2 + dy**2) ** 0.5
    ux, uy = dx / length, dy / length
    last = margin if end_margin is None else end_margin
    ends = [
        (x + ux * m - uy * shift, y + uy * m + ux * shift)
        for (x, y), m in ((start, margin), (end, -last))
    ]
    arrow = {"arrowstyle": "-|>", "color": color, "linestyle": style}
    arrow |= {"linewidth": width, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", ends[1], ends[0], arrowprops=arrow)
