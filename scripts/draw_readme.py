"""Draw the picture of the README: a recorded network reads an image row by row.

``python scripts/draw_readme.py`` writes ``docs/readme.png``; a test compares the file
with a new drawing.
"""

import sys
from pathlib import Path

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from dian import data
from dian.figures.reading import row_by_row
from dian.runs.record import load

PICTURE = Path(__file__).parents[1] / "docs/readme.png"
STEPS = (7, 14, 21, 28)


def draw() -> Figure:
    """Return the picture."""
    images = data.sample("test")[:1].unit()
    model = load("rnn-fashion-mnist").model()
    with torch.no_grad():
        probs = torch.cat([model(images[:, :n]) for n in STEPS]).softmax(1)
    figure = Figure(figsize=(7, 4), layout="constrained", facecolor="white")
    row_by_row(figure, images[0].numpy(), probs.numpy(), STEPS, data.CLASSES)
    return figure


if __name__ == "__main__":
    with rc_context({"font.size": 10}):
        draw().savefig(PICTURE, dpi=100, metadata={"Software": None})
    sys.stdout.write(f"{PICTURE}\n")
