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
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from dian.figures import plots
from dian.positions.sinusoidal import sinusoidal_encoding
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
    """Draw each pair as a hand of a clock, and the score by relative position."""
    m, n, w = 7, 4, np.array(omega)
    figure = Figure(figsize=(1.6 * len(w), 3.6), layout="constrained")
    hands, curve = figure.subfigures(2, 1)
    for i, ax in enumerate(hands.subplots(1, len(w))):
        ax.add_patch(Circle((0, 0), 1, fill=False, color="0.75"))
        for place, style in ((m, "-"), (n, "--")):
            ax.plot([0, np.cos(place * w[i])], [0, np.sin(place * w[i])], style, lw=2)
        ax.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal", title=f"pair {i}")
        ax.axis("off")
    offsets = np.arange(-40, 41)
    scores = np.cos(offsets[:, None] * w).sum(1)
    ax = curve.subplots()
    ax.plot(offsets, scores, lw=1)
    ax.plot(m - n, scores[40 + m - n], "ko")
    ax.set(xlabel="relative position $m - n$", ylabel="score")
    return figure, (
        f"the query (solid) is at position {m} and the key (dashed) at {n}, and the "
        f"score is {scores[40 + m - n]:.3f} of at most {len(w)}"
    )


def sinusoidal(d: int, n: int, bases: list[float]) -> tuple[Figure, str]:
    """Draw the encoding with base 10000, and the product with one position."""
    p, base = n // 4, 10_000.0
    PE = sinusoidal_encoding(torch.arange(n), d, base).numpy()
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    image = left.imshow(PE, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    left.set(xlabel="feature", ylabel="position")
    left.axhline(p, color="black", lw=1)
    figure.colorbar(image, ax=left, label="value")
    right.plot(PE @ PE[p], range(n))
    right.set(xlabel=f"product with position {p}")
    return figure, f"the base is {base:,.0f}, and the position is {p}"


def scaling(factors, lengths, betas, ntk, yarn) -> tuple[Figure, str]:
    """Draw the factors of all frequencies, for the first training length."""
    k = factors.index(4) if 4 in factors else 0
    curves = {
        "interpolation": [1 / factors[k]] * len(ntk[k]),
        "NTK-aware": ntk[k],
        "YaRN": yarn[k][0][0],
    }
    figure = Figure(figsize=(6, 3), layout="constrained")
    ax = figure.subplots()
    for (name, ratios), style in zip(curves.items(), ("o-", "s--", "^-."), strict=True):
        ax.plot(ratios, style, label=name)
    ax.set(xlabel="pair $i$", ylabel="scaled / original frequency", ylim=(0, 1.05))
    ax.legend()
    return figure, (
        f"the factor is {factors[k]}, the training length {lengths[0]}, and the "
        f"threshold of YaRN {betas[0]}"
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
    "sinusoidal": sinusoidal,
    "scaling": scaling,
    "attention": attention,
    "masks": masks,
    "softmax": softmax,
    "noising": noising,
    "gradient": gradient,
    "unit": unit,
    "forget": forget,
    "mixture": mixture,
    "weights": weights,
}
