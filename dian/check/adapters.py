"""Call the reader's function: arguments by name, arrays, outputs, and faults."""

import contextlib
import functools
import inspect
import io
import random
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dian.check.contract import ANY, Argument, Choice, Contract, Function, Outputs


class Fault(Exception):
    """The reader's function could not be compared; the message is one line."""

    def __init__(self, code: str, message: str, error: BaseException | None = None):
        super().__init__(message)
        self.code, self.error = code, error

    @property
    def details(self) -> str:
        """The traceback of the reader's code, if it raised."""
        return "".join(traceback.format_exception(self.error)) if self.error else ""


class Skipped(Exception):
    """A case needs an argument that the function does not take."""


class Subject:
    """The reader's function, called with canonical names and returning tensors.

    Parameters
    ----------
    contract
        What it should be.
    function
        What it is.
    arrays
        ``"torch"`` or ``"numpy"``.
    dtype
        The dtype of the floating-point arguments.
    """

    def __init__(
        self,
        contract: Contract,
        function: Callable,
        arrays: str = "torch",
        dtype: torch.dtype = torch.float64,
    ):
        self.contract, self.function = contract, function
        self.arrays, self.dtype = arrays, dtype
        self.names = _bind(contract, function)
        self.needed = _without_default(function, self.names)
        self.notes: dict[str, None] = {}
        self.in_place = False
        self.wrapped: dict[Choice, Function] = {}
        """Its canonical forms, as :func:`dian.check.contract.under` returns them."""

    @property
    def accepted(self) -> frozenset[str]:
        """The canonical arguments that the function takes."""
        return frozenset(self.names)

    def __call__(self, **arguments: Any) -> Outputs:
        """Call the function; raise a :class:`Fault` on whatever goes wrong."""
        given = {
            name: _to_reader(value, self.arrays, self.dtype)
            for name, value in arguments.items()
        }
        given = {
            name: value
            for name, value in given.items()
            if value is not None or name in self.needed
        }
        before = _copied(given)
        found = self._called(given)
        if not (self.in_place or _same(before, given)):
            raise Fault("in place", "changes its arguments in place; copy them first")
        outputs = _outputs(found, self.contract)
        if self.dtype == torch.float64 and any(
            x.dtype == torch.float32 for x in outputs
        ):
            self.notes["returns float32 for arguments in float64"] = None
        return tuple(x.detach().to(torch.float64) for x in outputs)

    def taken(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the canonical arguments that the function takes.

        What it does not take must have the value that such a function has in mind;
        otherwise the case is skipped.
        """
        taken = dict(arguments)
        for argument in self.contract.arguments:
            name = argument.name
            if name in self.needed and argument.fill and taken.get(name) is None:
                taken[name] = argument.fill(arguments)
        for name, value in arguments.items():
            if name not in self.names:
                if not _is_default(self.contract, name, value, arguments):
                    raise Skipped(name)
                del taken[name]
        return taken

    def _guessed(self) -> str:
        """Put into words which arguments were recognized by their order alone."""
        known = {a.name: _names(a) for a in self.contract.arguments}
        pairs = [
            f"{own!r} was given {name}"
            for name, own in self.names.items()
            if own is not None and own.lower() not in known[name]
        ]
        return f"; its argument {', '.join(pairs)}" if pairs else ""

    def write(self, gradients: Any, max_norm: float) -> Any:
        """Call a function that writes into the first of two arguments; return it."""
        numpy = self.arrays == "numpy"
        if isinstance(gradients, dict):
            given = {k: x.numpy() if numpy else x for k, x in gradients.items()}
        else:
            given = [x.detach().numpy() for x in gradients] if numpy else gradients
        names = list(self.contract.required)
        self._called(dict(zip(names, (given, max_norm), strict=True)))
        return given

    def _called(self, given: dict[str, Any]) -> Any:
        positional, named = [], {}
        for name, value in given.items():
            key = self.names[name]
            if key is None:
                positional.append(value)
            else:
                named[key] = value
        printed = io.StringIO()
        with _guarded(), contextlib.redirect_stdout(printed):
            try:
                found = self.function(*positional, **named)
            except Fault:  # of a module that cannot be made, or has other weights
                raise
            except (Exception, SystemExit) as error:
                last = traceback.format_exception_only(error)[-1].strip()
                line = " ".join(last.split())[:200]
                said = f"raises {line}{self._guessed()}"
                raise Fault("raises", said, error) from None
        if printed.getvalue():
            self.notes["prints while it computes"] = None
        return found


@contextlib.contextmanager
def _guarded():
    """Restore the global state of torch that the reader's code might change."""
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    seed = Subject.seed
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  the reader's code may draw from it
    try:
        with (
            torch.random.fork_rng(devices=[]),
            np.errstate(all="ignore"),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)


Subject.seed = 0


def _bind(contract: Contract, function: Callable) -> dict[str, str | None]:
    """Map canonical arguments to parameters of the function, by name, then by order.

    ``None`` is a parameter without a name.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin may not know its own signature
        return dict.fromkeys(a.name for a in contract.arguments if a.default is not ANY)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return dict.fromkeys(a.name for a in contract.arguments if a.default is not ANY)
    if parameters and parameters[0].name == "self":
        said = "is a method without its object: give that of an object, not of a class"
        raise Fault("signature", said)
    parameters = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    bound: dict[str, Any] = {}
    for argument in contract.arguments:
        for p in parameters:
            if p.name.lower() in _names(argument) and p not in bound.values():
                bound[argument.name] = p
                break
    rest = [a.name for a in contract.arguments if a.name not in bound]
    needed = [p for p in parameters if p.default is p.empty and p not in bound.values()]
    missing = [name for name in rest if name in contract.required]
    optional = [name for name in rest if name not in contract.required]
    free = [p for p in parameters if p not in bound.values() and p not in needed]
    for p in needed:
        if missing or optional:
            bound[(missing or optional).pop(0)] = p
        else:
            raise Fault(
                "signature",
                f"its argument {p.name!r} is none of {_signature(contract)}",
            )
    while missing and free:
        bound[missing.pop(0)] = free.pop(0)
    if missing:
        raise Fault(
            "signature",
            f"takes no {missing[0]!r}; expected {_signature(contract)}",
        )
    order = {p.name: i for i, p in enumerate(parameters)}
    pairs = sorted(bound.items(), key=lambda pair: order[pair[1].name])
    return {n: None if p.kind is p.POSITIONAL_ONLY else p.name for n, p in pairs}


def _without_default(function: Callable, names: dict[str, str | None]) -> set[str]:
    """Return the canonical arguments that must be passed, even if they are ``None``."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return set()
    empty = inspect.Parameter.empty
    return {
        name
        for name, own in names.items()
        if own is not None and parameters[own].default is empty
    }


def _names(argument: Argument) -> set[str]:
    return {argument.name.lower(), *(name.lower() for name in argument.aliases)}


def _signature(contract: Contract) -> str:
    inner = (a.name if a.required else f"[{a.name}]" for a in contract.arguments)
    return f"({', '.join(inner)})"


def _is_default(contract: Contract, name: str, value: Any, arguments: Mapping) -> bool:
    """Return whether a call means the same without this argument."""
    default = next(a.default for a in contract.arguments if a.name == name)
    if default is ANY or value is None:
        return True
    expected = default(arguments) if callable(default) else default
    if isinstance(value, Tensor):
        return isinstance(expected, Tensor) and torch.equal(value, expected)
    return not isinstance(expected, Tensor) and value == expected


def _to_reader(value: Any, arrays: str, dtype: torch.dtype) -> Any:
    """Copy a canonical argument into the arrays of the reader."""
    if isinstance(value, Tensor):
        value = value.to(dtype) if value.is_floating_point() else value
        value = value.detach().clone()
        return value.numpy() if arrays == "numpy" else value
    if isinstance(value, torch.nn.Parameter | str) or not value:
        return value
    if isinstance(value, list | tuple):
        return type(value)(_to_reader(x, arrays, dtype) for x in value)
    if isinstance(value, dict):
        return {key: _to_reader(x, arrays, dtype) for key, x in value.items()}
    if callable(value) and arrays == "numpy":
        return functools.partial(_with_numpy, value)
    return value


def _with_numpy(function: Callable, *inputs: Any) -> Any:
    """Call a function of tensors with NumPy arrays."""
    return function(*map(torch.as_tensor, inputs)).numpy()


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(part) for part in value)
    return value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.shape == b.shape and torch.equal(a, b.detach())
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return True


def _outputs(found: Any, contract: Contract) -> Outputs:
    """Return the outputs as tensors, in the order of the contract."""
    names = [name for name, _, _ in contract.returns]
    if isinstance(found, Mapping):
        found = _by_name(found, names)
    if len(names) > 1 and isinstance(found, Iterator):
        found = list(found)
    if isinstance(found, tuple | list) and len(found) < len(names):
        inner = found[0] if found else None
        if isinstance(inner, tuple | list) and len(inner) == len(names):
            found = inner  # such as (gradients, norm)
    rows = isinstance(found, list) and bool(found) and isinstance(found[0], list)
    matrix = " " in contract.returns[0][1]
    if isinstance(found, list) and (len(names) == 1 or (rows and matrix)):
        found = _stacked(found)
    if not isinstance(found, tuple | list):
        found = (found,)
    if not found or found[0] is None:
        raise Fault("type", "returns nothing (None); is a return missing?")
    return tuple(
        _tensor(x) for x in found[: len(names)] if x is not None and _is_array(x)
    ) or (_tensor(found[0]),)


def _by_name(found: Mapping, names: list[str]) -> tuple:
    """Put a dictionary of outputs into the order of the contract.

    A key is recognized if it is the name, with a prefix or suffix such as ``dW_xh`` or
    ``macro_f1``. If the names of some cannot be recognized, all are in their own order.
    """
    left, picked = {_plain(str(key)): value for key, value in found.items()}, {}
    plain = {name: _plain(name) for name in names}
    tests = (
        lambda key, name: key == name,
        lambda key, name: key in (f"d{name}", f"grad_{name}", f"d_{name}", f"g_{name}"),
        lambda key, name: f"_{name}_" in f"_{key}_",
    )
    for same in tests:
        for name in names:
            keys = [key for key in left if same(key, plain[name])]
            if name not in picked and len(keys) == 1:
                picked[name] = left.pop(keys[0])
    first = [name for name in names if name in picked]
    known = first == names[: len(first)] and len(first) in (len(names), len(found))
    return tuple(picked[name] for name in first) if known else tuple(found.values())


def _plain(name: str) -> str:
    """Return a name without differences of spelling."""
    name = name.lower().replace("-", "_").replace(" ", "_").removesuffix("_score")
    return name.removesuffix("s")


def _stacked(found: list) -> Any:
    """Make one tensor of a list of arrays or numbers."""
    with contextlib.suppress(Exception):
        return torch.stack([torch.as_tensor(np.asarray(x)) for x in found])
    with contextlib.suppress(Exception):
        return torch.stack(list(found))
    return tuple(found)


def _is_array(x: Any) -> bool:
    numbers = (Tensor, np.ndarray, np.generic, float, int, complex)
    return isinstance(x, (*numbers, list, tuple))


def _tensor(x: Any) -> Tensor:
    if isinstance(x, Tensor):
        found = x
    else:
        try:
            array = np.array(x)
            found = torch.as_tensor(array)
        except (TypeError, ValueError, RuntimeError):
            kind = type(x).__name__
            raise Fault("type", f"returns {kind}, expected an array") from None
    if found.is_complex():
        raise Fault("dtype", f"returns complex numbers ({found.dtype}), expected real")
    return found
