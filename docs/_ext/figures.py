"""How every figure of the site looks; sphinx-gallery calls this before each script."""

import matplotlib as mpl

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
    "axes.prop_cycle": mpl.cycler(
        color=["#0072b2", "#d55e00", "#007a5a", "#a8578a", "#8a6d00", "#5a5a5a"]
    ),
}


def reset(gallery_conf: dict, fname: str) -> None:
    """Set the style, whatever the script before has changed."""
    mpl.rcdefaults()
    mpl.rcParams.update(STYLE)
