"""Recurrent networks, positional encodings, attention and diffusion, each verified.

Modules are imported when they are first used, so that reading a record does not wait
for torch: ``import dian`` is enough for ``dian.rnn.networks.RNNClassifier``.
"""

import sys
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

_ATTRIBUTES = {
    "classify": lambda: import_module("dian.inference").classify,
    "generate": lambda: import_module("dian.inference").generate,
    "load": lambda: import_module("dian.runs.record").load,
    "__version__": lambda: import_module("importlib.metadata").version("dian"),
}


class _Package(ModuleType):
    """A package that imports its modules when they are first used."""

    def __getattr__(self, name: str) -> Any:
        if self.__name__ == __name__ and name in _ATTRIBUTES:
            return _ATTRIBUTES[name]()
        if name not in {module.name for module in iter_modules(self.__path__)}:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return import_module(f"{self.__name__}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system enters each module in its package here.
        if isinstance(value, ModuleType) and hasattr(value, "__path__"):
            value.__class__ = _Package
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        own = _ATTRIBUTES if self.__name__ == __name__ else vars(self)
        modules = (module.name for module in iter_modules(self.__path__))
        return sorted({*own, *(name for name in modules if not name.startswith("_"))})


sys.modules[__name__].__class__ = _Package
