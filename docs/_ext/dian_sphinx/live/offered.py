"""The recorded networks that each live figure offers, with their names on the page."""

from dian.runs.record import record_names

READERS = {
    "rnn-fashion-mnist": "Recurrent network of the study",
    "rnn-best": "Best plain recurrent network",
    "torch-gru": "GRU of PyTorch",
}
TRANSFORMERS = {
    "rows-sinusoidal": "Sinusoidal encoding",
    "rows-rotary": "Rotary embedding",
    "rows-none": "Trained without positions",
}
DENOISERS = {
    "ddpm-conditional-long": "Class-conditional network",
    "ddpm-fashion-mnist-small": "Small unconditional network",
}
"""Those that are recorded are offered."""
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
