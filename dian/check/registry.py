"""The kinds of functions that can be checked."""

import importlib
from functools import cache

from dian.check.contract import Contract
from dian.errors import DianError, did_you_mean

KINDS = {
    "rnn": "recurrent",
    "rnn-backward": "recurrent",
    "cross-entropy": "training",
    "clip": "training",
    "confusion-matrix": "metrics",
    "classification-metrics": "metrics",
    "sinusoidal": "positions",
    "rotary": "positions",
    "alibi": "positions",
    "attention": "attention",
    "attention-backward": "attention",
    "multi-head": "heads",
    "causal-mask": "attention",
    "noise-schedule": "noising",
    "q-sample": "noising",
    "posterior": "noising",
    "ddpm-loss": "noising",
    "ddpm-sample": "samplers",
    "ddim-sample": "samplers",
    "denoiser": "denoisers",
}
"""Each kind, and the module of :mod:`dian.check.kinds` with its contract."""


@cache
def find(kind: str) -> Contract:
    """Return the contract of a kind.

    Raises
    ------
    DianError
        If there is no such kind; the nearest are listed.

    Examples
    --------
    >>> find("clip").title
    'Gradient clipping by norm'
    """
    if kind not in KINDS:
        raise DianError(f"no kind {kind!r}; {did_you_mean(kind, KINDS)}")
    module = importlib.import_module(f"dian.check.kinds.{KINDS[kind]}")
    # Some kinds have the name of the function that they check.
    name = kind.replace("-", "_")
    make = getattr(module, f"{name}_", None) or getattr(module, name)
    return make()
