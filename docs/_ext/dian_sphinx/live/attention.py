"""What the figure ``attention`` needs: the weights of transformers, and a result."""

import torch

from dian.diffusion.pixels import unit
from dian.runs.record import load
from dian_sphinx.live.images import offered_images
from dian_sphinx.live.offered import TRANSFORMERS
from dian_sphinx.live.packed import packed
from dian_sphinx.live.pictures import dark, joined, still
from dian_sphinx.wording import mark

RESULT = mark(
    "Left, an image of 28 rows. Right, the attention weights of the four heads of the "
    "first layer, from each row (query, down) to each row (key, right). In each head, "
    "the largest weight is black."
)


def script(name: str) -> str:
    """Write the weights of a transformer that reads rows."""
    record = load(name)
    facts = {key: record.settings[key] for key in ("encoding", "n_head", "n_layer")}
    return packed(name, record.weights, **facts)


def recorded_result() -> dict:
    """Draw the weights of all heads of the first layer for the first image."""
    images, _, _ = offered_images()
    model = load(next(iter(TRANSFORMERS))).model()
    with torch.no_grad():
        P = model.attention_weights(unit(images[:1]))[0][0]
    heads = [dark(head.numpy()) for head in P]
    return still(joined([255 - images[0].numpy(), *heads]), RESULT)
