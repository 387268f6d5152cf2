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
    ax.set(xlabel="lag (steps)", ylabel="norm / at lag 0")
    ax.legend(title="gain", ncols=2)
    return figure, f"for inputs of standard deviation {spreads[j]}, and every gain"


def unit(weights: list, impulses: list, steps: int) -> tuple[Figure, str]:
    """Draw the states and the derivatives of the last one, for three weights."""
    impulse = 1 if 1 in impulses else impulses[0]
    figure = Figure(figsize=(7, 3), layout="constrained")
    forward, backward = figure.subplots(1, 2)
    shown = [w for w in (0.5, 1, 2) if w in weights] or weights[:1]
    for w, style in zip(shown, ("o-", "s--", "^:"), strict=False):
        states = [np.tanh(impulse)]
        while len(states) < steps:
            states.append(np.tanh(w * states[-1]))
        factors = w * (1 - np.square(states[:0:-1]))
        derivatives = np.cumprod([1, *factors])[::-1]
        t = np.arange(1, steps + 1)
        forward.plot(t, states, style, markersize=3, label=f"weight {w}")
        backward.semilogy(t, np.abs(derivatives), style, markersize=3)
    forward.set(xlabel="step $t$", ylabel="state $h_t$", ylim=(-1.05, 1.05))
    forward.legend()
    label = rf"$|\partial h_{{{steps}}} / \partial h_t|$"
    backward.set(xlabel="step $t$", ylabel=label)
    return figure, f"for an impulse of {impulse}, and {len(shown)} weights"


def forget(biases: list, lags: int, lag: int) -> tuple[Figure, str]:
    """Draw what remains of the gradient for each bias that is a whole number."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    ax = figure.subplots()
    k = np.arange(lags + 1)
    shown = [b for b in biases if b == int(b)]
    for b in shown:
        ax.plot(k, (1 + np.exp(-b)) ** -k.astype(float), label=f"{b:g}")
    ax.axvline(lag, color="0.5", linestyle=":")
    ax.set(xlabel="lag (steps)", ylabel="fraction of the gradient")
    ax.legend(title="bias", ncols=2)
    return figure, f"for {len(shown)} biases, with a dotted line at a lag of {lag}"


STILLS = {
    "rotary": rotary,
    "attention": attention,
    "noising": noising,
    "gradient": gradient,
    "unit": unit,
    "forget": forget,
}
