"""Recurrent networks, positional encodings, attention and diffusion, each verified.

Submodules are imported when they are first used, so that reading a record does not wait
for torch: ``import dian`` is enough for ``dian.rnn.networks.RNNClassifier``.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

_FUNCTIONS = {"generate": "dian.inference", "load": "dian.runs.record"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("dian")
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    return _submodule(__name__, __path__, name)


def __dir__() -> list[str]:
    modules = [module.name for module in iter_modules(__path__)]
    return sorted([*globals(), *modules, *_FUNCTIONS, "__version__"])


def _submodule(package: str, path: list[str], name: str) -> Any:
    """Import a module of a package; if it is a package, let it do the same."""
    if name not in {module.name for module in iter_modules(path)}:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    found = import_module(f"{package}.{name}")
    if path := getattr(found, "__path__", None):
        found.__getattr__ = lambda name: _submodule(found.__name__, path, name)
    return found
