"""The recorded networks that each live figure offers, with their names on the page."""

from dian.runs.record import record_names
from dian_sphinx.wording import mark

READERS = {
    "rnn-fashion-mnist": mark("Recurrent network of the study"),
    "rnn-recipe-best": mark("Best plain recurrent network"),
    "torch-gru": mark("GRU of PyTorch"),
}
TRANSFORMERS = {
    "rows-sinusoidal": mark("Sinusoidal encoding"),
    "rows-rotary": mark("Rotary embedding"),
    "rows-none": mark("Trained without positions"),
}
DENOISERS = {
    "ddpm-conditional-long": mark("Class-conditional network"),
    "ddpm-fashion-mnist-small": mark("Small unconditional network"),
}
"""Those that are recorded are offered."""
CLASSES = (
    mark("T-shirt/top"),
    mark("Trouser"),
    mark("Pullover"),
    mark("Dress"),
    mark("Coat"),
    mark("Sandal"),
    mark("Shirt"),
    mark("Sneaker"),
    mark("Bag"),
    mark("Ankle boot"),
)
"""The classes of the images in their order, as the data set names them."""
KINDS = ("reader", "attention", "denoise")
"""The figures that run a network."""


def networks(kind: str) -> dict[str, str]:
    """Return the records that a figure can run; it begins with the first one.

    >>> list(networks("attention"))
    ['rows-sinusoidal', 'rows-rotary', 'rows-none']
    """
    if kind == "denoise":
        recorded = record_names()
        return {name: text for name, text in DENOISERS.items() if name in recorded}
    return {"reader": READERS, "attention": TRANSFORMERS}[kind]


def evaluations(name: str) -> list[str]:
    """Return the record that evaluates the samples of a denoiser, if there is one."""
    return [one for one in [f"{name}-evaluation"] if one in record_names()]
