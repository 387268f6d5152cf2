"""A picture in place of each interactive figure, for the PDF edition.

It is drawn from the same numbers as the figure on the site, in one state, which its
caption names. ``STILLS`` has a drawing for each name that the site's script knows. This
module imports matplotlib, so it is imported only when a PDF is made.
"""

import json
from html import unescape
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from dian.figures import plots
from dian_sphinx.figures import STYLE
from dian_sphinx.pdf import INTERACTIVE


def draw(html: str, file: Path) -> str:
    """Draw an interactive figure into a file, and return its caption."""
    name, data, caption = INTERACTIVE.search(html).groups()
    with rc_context(STYLE):
        figure, state = STILLS[name](**json.loads(data))
        figure.savefig(file, metadata={"CreationDate": None})
    return f"{unescape(caption)} On the site it can be moved; here, {state}."


def rotary(omega: list[float]) -> tuple[Figure, str]:
    """Draw each pair as a hand of a clock, for the query and for the key."""
    m, n = 7, 4
    figure = Figure(figsize=(1.6 * len(omega), 1.9), layout="constrained")
    for i, (ax, w) in enumerate(
        zip(figure.subplots(1, len(omega)), omega, strict=True)
    ):
        ax.add_patch(Circle((0, 0), 1, fill=False, color="0.75"))
        for place, style in ((m, "-"), (n, "--")):
            ax.plot([0, np.cos(place * w)], [0, np.sin(place * w)], style, lw=2)
        ax.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal", title=f"pair {i}")
        ax.axis("off")
    product = np.cos((m - n) * np.array(omega)).sum()
    return figure, (
        f"the query (solid) is at {m} and the key (dashed) at {n}, and the product is "
        f"{product:.3f} of {len(omega)}"
    )


def attention(weights: list[list[list[float]]]) -> tuple[Figure, str]:
    """Draw the map of the first head, and the row of its first query."""
    P = np.array(weights[0])
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    plots.attention(left, P, "head 1")
    right.bar(range(P.shape[1]), P[0])
    right.set(title="query 0", xlabel="key", ylabel="weight")
    most = P[0].argmax()
    return (
        figure,
        f"query 0 of the first head reads key {most} most, by {P[0, most]:.3f}",
    )


def noising(images: list, side: int, alphaBar: dict) -> tuple[Figure, str]:
    """Draw the images at four timesteps of the first schedule, with the same noise."""
    name, alpha_bar = next(iter(alphaBar.items()))
    x = 2 * np.array(images) / 255 - 1
    noise = np.random.default_rng(0).standard_normal(x.shape)
    T = len(alpha_bar) - 1
    steps = [0, T // 10, T // 4, T // 2]
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots(len(steps), len(images), squeeze=False)
    for row, t in zip(axes, steps, strict=True):
        at_t = np.sqrt(alpha_bar[t]) * x + np.sqrt(1 - alpha_bar[t]) * noise
        for ax, image in zip(row, at_t, strict=True):
            ax.imshow(image.reshape(side, side), cmap="gray", vmin=-1, vmax=1)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"t = {t}")
    listed = f"{', '.join(map(str, steps[:-1]))} and {steps[-1]}"
    return figure, f"at the timesteps {listed} of the {name} schedule"


def mixture(
    x: list, steps: list, density: list, score: list, clean: list
) -> tuple[Figure, str]:
    """Draw the density and the mean of the clean point at three timesteps."""
    shown = [len(steps) // 10, len(steps) // 4, len(steps) // 2]
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, style in zip(shown, ("-", "--", ":"), strict=True):
        left.plot(x, density[i], style, label=f"t = {steps[i]}")
        right.plot(x, clean[i], style)
    left.set(xlabel="x", ylabel="density of $x_t$")
    right.set(xlabel="x", ylabel="mean of $x_0$, given $x_t = x$")
    left.legend()
    listed = f"{steps[shown[0]]}, {steps[shown[1]]} and {steps[shown[2]]}"
    return figure, f"at the timesteps {listed}"


def weights(steps: list, curves: dict) -> tuple[Figure, str]:
    """Draw the weights of all losses, one panel for each schedule."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for ax, (name, losses) in zip(axes, curves.items(), strict=True):
        for (loss, values), style in zip(
            losses.items(), ("-", ":", "--", "-."), strict=False
        ):
            ax.loglog(steps, values, style, label=loss)
        ax.set(xlabel="timestep $t$", title=f"{name} schedule")
    axes[0].set_ylabel("weight of the squared error")
    axes[0].legend(fontsize=8)
    return figure, f"for {len(curves)} schedules"


def gradient(gains: list, spreads: list, curves: list) -> tuple[Figure, str]:
    """Draw the curves of all gains, for one size of the input."""
    j = spreads.index(1) if 1 in spreads else 0
    figure = Figure(figsize=(6, 3), layout="constrained")
    ax = figure.subplots()
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(gains)))
    for gain, color, of_gain in zip(gains, colors, curves, strict=True):
        ax.semilogy(10.0 ** np.array(of_gain[j]), color=color, label=str(gain))
    ax.set(xlabel="lag (steps)", ylabel="length / at lag 0")
    ax.legend(title="gain", ncols=2)
    return figure, f"for inputs of standard deviation {spreads[j]}, and every gain"


STILLS = {
    "rotary": rotary,
    "attention": attention,
    "noising": noising,
    "gradient": gradient,
    "mixture": mixture,
    "weights": weights,
}
