"""Diagrams of recurrent networks: an LSTM cell, and stacked bidirectional layers."""

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch

STATE, GATE, READOUT = "#d6e6f2", "#f7e3d3", "#d8ece4"
"""Fill colors of states, of layers with weights, and of what the classifier reads."""


def lstm_cell(ax: Axes) -> None:
    """Draw one step of an LSTM, with the path of the cell state at the top.

    Parameters
    ----------
    ax
        Axes to draw on.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> lstm_cell(ax)
    >>> [name for name in (text.get_text() for text in ax.texts) if "_t" in name]
    ['$f_t$', '$i_t$', '$g_t$', '$o_t$', '$X_t$', '$c_t$', '$H_t$']
    """
    gates = {"$f_t$": 1.4, "$i_t$": 2.6, "$g_t$": 3.6, "$o_t$": 4.8}
    for name, x in gates.items():
        _box(ax, x, 1.0, name, GATE, width=0.7)
        kind = "tanh" if "g" in name else "sigmoid"
        ax.text(x + 0.08, 0.4, kind, ha="left", va="center", fontsize=8)
        _line(ax, [(x, 0.0), (x, 0.75)])
    # The gates read the input and the previous hidden state.
    _line(ax, [(0.2, 0.0), (4.8, 0.0)], arrow=False)
    _line(ax, [(0.75, -0.55), (0.75, 0.0)], arrow=False)
    _label(ax, 0.1, 0.0, "$H_{t-1}$", ha="right")
    _label(ax, 0.75, -0.6, "$X_t$", va="top")
    # The cell state.
    top = 2.6
    _line(ax, [(0.2, top), (1.22, top)], width=2.5)
    _line(ax, [(1.58, top), (2.92, top)], width=2.5)
    _line(ax, [(3.28, top), (6.4, top)], width=2.5)
    _label(ax, 0.1, top, "$c_{t-1}$", ha="right")
    _label(ax, 6.5, top, "$c_t$", ha="left")
    _operation(ax, 1.4, top, r"$\odot$")
    _operation(ax, 3.1, top, "$+$")
    _line(ax, [(1.4, 1.25), (1.4, 2.42)])
    # The candidate, scaled by the input gate.
    _operation(ax, 3.1, 1.85, r"$\odot$")
    _line(ax, [(2.6, 1.25), (2.6, 1.85), (2.92, 1.85)])
    _line(ax, [(3.6, 1.25), (3.6, 1.85), (3.28, 1.85)])
    _line(ax, [(3.1, 2.03), (3.1, 2.42)])
    # The hidden state.
    _line(ax, [(5.5, top), (5.5, 2.25)])
    _box(ax, 5.5, 2.0, "tanh", STATE, width=0.7, height=0.44)
    _operation(ax, 5.5, 1.0, r"$\odot$")
    _line(ax, [(5.5, 1.78), (5.5, 1.18)])
    _line(ax, [(5.15, 1.0), (5.32, 1.0)])
    _line(ax, [(5.68, 1.0), (6.4, 1.0)])
    _label(ax, 6.5, 1.0, "$H_t$", ha="left")
    ax.set(xlim=(-0.5, 7.0), ylim=(-1.0, 3.0))
    ax.axis("off")


def bidirectional(ax: Axes, n_time: int = 3) -> None:
    """Draw two bidirectional layers with the mean of all states as readout.

    Parameters
    ----------
    ax
        Axes to draw on.
    n_time
        Number of time steps.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> bidirectional(ax, 2)
    >>> sum("H" in text.get_text() for text in ax.texts)
    8
    """
    right, left = r"\overrightarrow{H}", r"\overleftarrow{H}"
    level = {(1, right): 1.05, (1, left): 1.85, (2, right): 3.75, (2, left): 4.55}
    wide = {"width": 1.6, "height": 0.45}
    for t in range(1, n_time + 1):
        x = 2.2 * t
        for layer in (1, 2):
            # Both directions of a layer receive the same input.
            bottom = 0 if layer == 1 else 2.7
            name = f"$X_{t}$" if layer == 1 else f"$X_{t}^{{(2)}}$"
            _box(ax, x + 0.2, bottom, name, "white", **wide)
            above = 2.7 - 0.23 if layer == 1 else 5.15
            for direction in (right, left):
                place = x - 0.2 if direction == right else x + 0.6
                y = level[layer, direction]
                _line(ax, [(place, bottom + 0.23), (place, y - 0.25)])
                _line(ax, [(place, y + 0.25), (place, above)])
                name = f"${direction}_{t}^{{({layer})}}$"
                _box(ax, place, y, name, STATE, width=0.75)
            if t < n_time:
                y = level[layer, right]
                _line(ax, [(x + 0.18, y), (x + 1.62, y)], color="#0072b2")
                y = level[layer, left]
                _line(ax, [(x + 2.42, y), (x + 0.98, y)], color="#d55e00")
    middle, width = 2.2 * (n_time + 1) / 2 + 0.2, 2.2 * n_time - 0.6
    _box(ax, middle, 5.4, "readout $R$: mean over time", READOUT, width, 0.45)
    ax.set(xlim=(1.2, 2.2 * n_time + 1.3), ylim=(-0.4, 5.8))
    ax.axis("off")


def _box(ax: Axes, x, y, name: str, color: str, width=0.8, height=0.5) -> None:
    """Draw a box with a name, centered at a point."""
    corner = (x - width / 2 + 0.08, y - height / 2 + 0.08)
    size = (width - 0.16, height - 0.16)
    style = {"boxstyle": "round,pad=0.08", "facecolor": color, "edgecolor": "black"}
    ax.add_patch(FancyBboxPatch(corner, *size, **style))
    ax.text(x, y, name, ha="center", va="center", fontsize=10)


def _operation(ax: Axes, x: float, y: float, symbol: str) -> None:
    """Draw an element-wise operation as a circle."""
    ax.add_patch(Circle((x, y), 0.18, facecolor="white", edgecolor="black"))
    ax.text(x, y, symbol, ha="center", va="center", fontsize=11)


def _line(ax: Axes, points, arrow=True, width=1.2, color="black") -> None:
    """Draw a line along points, by default with an arrow at its end."""
    *points, last = points
    if len(points) > 1:
        ax.plot(*zip(*points, strict=True), color=color, linewidth=width)
    style = {"arrowstyle": "-|>" if arrow else "-", "color": color, "linewidth": width}
    style |= {"shrinkA": 0, "shrinkB": 0}
    ax.annotate("", last, points[-1], arrowprops=style)


def _label(ax: Axes, x: float, y: float, name: str, ha="center", va="center") -> None:
    """Write a name beside the end of a line."""
    ax.text(x, y, name, ha=ha, va=va, fontsize=11)
