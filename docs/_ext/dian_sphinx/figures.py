"""How every figure of the gallery looks, and its alternative text.

Sphinx-gallery calls :func:`reset` before each script, and :func:`scrape` after each of
its blocks, in the processes that run the scripts. It also imports this module in every
build, so matplotlib is imported only when one of them is called.
"""

from typing import TYPE_CHECKING
from unittest.mock import patch

from cycler import cycler
from sphinx_gallery import scrapers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = {
    "figure.figsize": (7, 4),
    "figure.facecolor": "white",  # a card of its own in dark mode
    "savefig.facecolor": "white",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    # Distinguishable with colour-blind eyes (Okabe and Ito), and 3:1 on white.
    "axes.prop_cycle": cycler(
        color=["#0072b2", "#d55e00", "#007a5a", "#a8578a", "#8a6d00", "#5a5a5a"]
    ),
}


def reset(gallery_conf: dict, fname: str) -> None:
    """Set the style, whatever the previous script has changed."""
    import matplotlib as mpl

    mpl.rcdefaults()
    mpl.rcParams.update(STYLE)


def scrape(block, block_vars: dict, gallery_conf: dict) -> str:
    """Save the figures of a block, with a better alternative text than their titles."""
    with patch.object(scrapers, "_matplotlib_fig_titles", describe):
        return scrapers.matplotlib_scraper(block, block_vars, gallery_conf)


def describe(figure: "Figure") -> str:
    """Describe a figure, for readers who do not see it.

    >>> from matplotlib.figure import Figure
    >>> axes = Figure().subplots()
    >>> _ = axes.set(title="Loss", xlabel="epoch", ylabel="nats")
    >>> _ = axes.plot([2, 1], label="test")
    >>> _ = axes.legend()
    >>> describe(axes.figure)
    'Loss: nats against epoch (test)'
    """
    parts = [figure.get_suptitle(), *map(_words, figure.axes)]
    return "; ".join(" ".join(part.split()) for part in parts if part)


def _words(axes: "Axes") -> str:
    labels = [label for label in (axes.get_ylabel(), axes.get_xlabel()) if label]
    legend = axes.get_legend()
    lines = [text.get_text() for text in legend.get_texts()] if legend else []
    shown = " against ".join(labels) + (f" ({', '.join(lines)})" if lines else "")
    return ": ".join(part for part in (axes.get_title(), shown) if part)
