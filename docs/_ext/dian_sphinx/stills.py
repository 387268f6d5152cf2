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
from matplotlib.axes import Axes
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
    figure, right = _map_and_row(P, "head 1", 0)
    right.bar(range(P.shape[1]), P[0])
    most = P[0].argmax()
    return (
        figure,
        f"query 0 of the first head gives the most weight, {P[0, most]:.3f}, to key "
        f"{most}",
    )


def masks(
    scores: list[list[float]], masks: dict[str, list[list[int]]]
) -> tuple[Figure, str]:
    """Draw the map under the first mask, and the row of the middle query."""
    name, allowed = next(iter(masks.items()))
    row = len(scores) // 2
    plain, masked = np.exp(scores), np.exp(scores) * np.array(allowed)
    P, unmasked = (
        x / np.maximum(x.sum(1, keepdims=True), 1e-9) for x in (masked, plain)
    )
    figure, right = _map_and_row(P, f"mask: {name}", row)
    right.bar(range(P.shape[1]), P[row], label="with the mask")
    right.step(range(P.shape[1]), unmasked[row], "k--", where="mid", label="without")
    right.legend()
    return figure, f"the mask is “{name}”, and the row is that of query {row}"


def softmax(scores: list[float], dimensions: list[int]) -> tuple[Figure, str]:
    """Draw the weights with and without the division, and the curves."""
    size = 64 if 64 in dimensions else dimensions[0]
    s = np.array(scores)
    spreads = np.logspace(-5, 5, 101, base=2)[:, None]
    P = np.exp(spreads * (s - s.max()))
    P /= P.sum(1, keepdims=True)
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for spread, shift, label in ((1, -0.2, "divided"), (size**0.5, 0.2, "not divided")):
        p = np.exp(spread * (s - s.max()))
        left.bar(np.arange(len(s)) + shift, p / p.sum(), 0.4, label=label)
    left.set(xlabel="key, by decreasing score", ylabel="weight")
    left.legend()
    entropy = -(P * np.log(np.maximum(P, 1e-300))).sum(1) / np.log(len(s))
    right.semilogx(spreads, entropy, label=f"entropy / ln {len(s)}", base=2)
    trace = 1 - np.square(P).sum(1)
    right.semilogx(spreads, trace, "--", label="trace of the Jacobian", base=2)
    right.set(xlabel="standard deviation of the scores")
    right.legend()
    return figure, f"the dimension of a key is {size}"


def _map_and_row(P: np.ndarray, title: str, row: int) -> tuple[Figure, Axes]:
    """Draw a map of weights, and prepare the axes for the row of one query."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    plots.attention(left, P, title)
    right.set(title=f"query {row}", xlabel="key", ylabel="weight")
    return figure, right


def noising(images: list, side: int, alphaBar: list[float]) -> tuple[Figure, str]:
    """Draw the images at four steps, with the same noise at each."""
    x = 2 * np.array(images) / 255 - 1
    noise = np.random.default_rng(0).standard_normal(x.shape)
    T = len(alphaBar) - 1
    steps = [0, T // 10, T // 4, T // 2]
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots(len(steps), len(images), squeeze=False)
    for row, t in zip(axes, steps, strict=True):
        at_t = np.sqrt(alphaBar[t]) * x + np.sqrt(1 - alphaBar[t]) * noise
        for ax, image in zip(row, at_t, strict=True):
            ax.imshow(image.reshape(side, side), cmap="gray", vmin=-1, vmax=1)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"t = {t}")
    return figure, f"at steps {', '.join(map(str, steps[:-1]))} and {steps[-1]}"


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
    "masks": masks,
    "softmax": softmax,
    "noising": noising,
    "gradient": gradient,
}
