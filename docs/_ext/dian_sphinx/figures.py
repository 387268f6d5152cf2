"""How every figure of the gallery looks, its forms, and its alternative text.

Sphinx-gallery calls :func:`reset` before each script, and :func:`scrape` after each of
its blocks, in the processes that run the scripts. It also imports this module in every
build, so matplotlib is imported only when one of them is called.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from cycler import cycler
from sphinx_gallery import scrapers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What sphinx-gallery writes for an image: indentation, path, options.
IMAGE = re.compile(r"^( *)\.\. image-sg:: (\S+)\n(?:\1   .*\n)+", re.MULTILINE)
DARK = 24
"""The gray level that white becomes in the dark form of a figure."""
STYLE = {
    "figure.figsize": (7, 4),
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "dian",  # the same file in each build
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
    """Save the figures of a block, each also as SVG and in dark colors.

    The label of a figure (``figure.set_label``) becomes its caption.
    """
    import matplotlib.pyplot as plt

    figures = [plt.figure(number) for number in plt.get_fignums()]
    with patch.object(scrapers, "_matplotlib_fig_titles", describe):
        rest = scrapers.matplotlib_scraper(block, block_vars, gallery_conf)
    source = Path(gallery_conf["src_dir"])
    for figure, image in zip(figures, IMAGE.findall(rest), strict=True):
        file = source / image[1].removeprefix("/")
        figure.savefig(file.with_suffix(".svg"), metadata={"Date": None})
        write_dark(figure, file.with_stem(f"{file.stem}_2_00x"), dark_file(file))
    captions = iter([figure.get_label() for figure in figures])
    return IMAGE.sub(lambda image: image[0] + _caption(image, next(captions)), rest)


def _caption(image: re.Match, text: str) -> str:
    """Return the directive that puts a caption under an image, or nothing."""
    name = f"fig-{Path(image[2]).stem.removeprefix('sphx_glr_')}".replace("_", "-")
    line = re.sub(r"\$([^$]+)\$", r":math:`\1`", " ".join(text.split()))
    return f"\n{image[1]}.. caption:: {name}\n\n{image[1]}   {line}\n" if line else ""


def dark_file(file: Path) -> Path:
    """Return where the dark form of a figure is."""
    return file.with_stem(f"{file.stem}_dark")


def write_dark(figure: "Figure", light: Path, dark: Path) -> None:
    """Write a figure in dark colors: light and dark change places, hues stay.

    Images, heat maps and color bars stay as they are, since their colors are data.
    """
    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(light).convert("RGB")).astype(np.int16)
    turned = pixels + 255 - pixels.max(2, keepdims=True) - pixels.min(2, keepdims=True)
    turned = DARK + turned * (255 - DARK) // 255
    height, width = pixels.shape[:2]
    scale = width / figure.bbox.width
    for axes in figure.axes:
        if _holds_data_as_color(axes):
            box = axes.get_window_extent()
            rows = slice(int(height - box.y1 * scale), int(height - box.y0 * scale) + 1)
            columns = slice(int(box.x0 * scale), int(box.x1 * scale) + 1)
            turned[rows, columns] = pixels[rows, columns]
    Image.fromarray(turned.astype(np.uint8)).save(dark)


def _holds_data_as_color(axes: "Axes") -> bool:
    from matplotlib.collections import QuadMesh

    meshes = any(isinstance(part, QuadMesh) for part in axes.collections)
    return bool(axes.images) or meshes


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
