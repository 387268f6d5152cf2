"""Numeric types and autograd: what all chapters do alike about them."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

SMALL = {
    dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point and dtype.itemsize < 4
}
"""The floating-point types with fewer than 32 bits."""


def widened(function: Callable) -> Callable:
    """Compute in at least float32, and round the result to the 16 bits of the inputs.

    Larger floating-point types, integers and complex numbers pass unchanged. If one
    input is float32 already, so is the result.

    >>> one = torch.tensor(1.0, dtype=torch.float16)
    >>> widened(lambda x: 60_000 * x + 60_000 * x - 60_000 * x)(one)
    tensor(60000., dtype=torch.float16)
    """

    @functools.wraps(function)
    def computed(*args, **kwargs):
        if not _has_small((*args, *kwargs.values())):
            return function(*args, **kwargs)
        dtypes = {x.dtype for x in _tensors((args, kwargs))}
        small = dtypes & SMALL
        args, kwargs = _converted((args, kwargs), small, torch.float32)
        result = function(*args, **kwargs)
        if len(small) > 1 or torch.float32 in dtypes:
            return result
        return _converted(result, {torch.float32}, *small)

    return computed


def at_least_float32(x: Tensor) -> Tensor:
    """Convert integers and 16-bit numbers to float32.

    >>> at_least_float32(torch.tensor(7))
    tensor(7.)
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def all_finite(x: Tensor) -> bool:
    """Return whether all entries are finite, or hidden by a transform.

    >>> all_finite(torch.tensor([0.0, torch.nan]))
    False
    """
    # If the sum is finite, so are all entries; this is one pass over memory.
    return is_traced() or bool(x.detach().sum().isfinite() or x.isfinite().all())


def summed_to(x: Tensor, shape: torch.Size) -> Tensor:
    """Sum over the axes along which a tensor of this shape was broadcast.

    >>> summed_to(torch.ones(2, 3), torch.Size([1, 3]))
    tensor([[2., 2., 2.]])
    """
    return x if x.shape == shape else x.sum_to_size(shape)


def is_traced() -> bool:
    """Return whether ``torch.compile`` or a transform of ``torch.func`` is at work.

    Values of tensors are not known then, and an autograd function is not called.
    """
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def apply(
    function: type[torch.autograd.Function], formula: Callable, *inputs: Any
) -> Any:
    """Call an autograd function the way that PyTorch calls its own operations.

    Under autocast the result has the dtype of autocast, but is computed in at least
    float32. ``torch.compile`` and ``torch.func`` differentiate the plain formula.
    """
    if is_traced():
        return formula(*inputs)
    device = inputs[0].device.type
    if not _autocasts(device):
        return function.apply(*inputs)
    dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        outputs = function.apply(*_converted(inputs, SMALL, torch.float32))
    return _converted(outputs, {torch.float32}, dtype)


def backward_of(formula: Callable) -> Callable:
    """Decorate the backward pass of an autograd function, so that it composes.

    If a graph of the gradients is wanted (``create_graph=True``), or a batch of them,
    autograd differentiates the plain formula instead. The first five saved tensors must
    be the inputs; ``ctx.options`` are further arguments of the formula.
    """

    def decorated(backward: Callable) -> Callable:
        @functools.wraps(backward)
        def gradients(ctx: FunctionCtx, *grads: Tensor | None):
            graph, given = torch.is_grad_enabled(), [g for g in grads if g is not None]
            if not given:
                return (None,) * len(ctx.needs_input_grad)
            batched = any(map(torch._C._functorch.is_legacy_batchedtensor, given))
            with _without_autocast(given[0].device.type):
                if not (graph or batched or is_traced()):
                    return backward(ctx, *grads)
                inputs = ctx.saved_tensors[:5]
                with torch.enable_grad():
                    # Views, since one tensor may be several inputs.
                    inputs = [x if x is None else x.view_as(x) for x in inputs]
                    outputs = formula(*inputs, *ctx.options)
                outputs = outputs if isinstance(outputs, tuple) else (outputs,)
                used = [o for o, g in zip(outputs, grads, strict=True) if g is not None]
                wanted = list(itertools.compress(inputs, ctx.needs_input_grad))
                found = iter(
                    torch.autograd.grad(
                        used, wanted, given, create_graph=graph, allow_unused=True
                    )
                )
                return (*(next(found) if n else None for n in ctx.needs_input_grad),)

        return gradients

    return decorated


def _autocasts(device: str) -> bool:
    known = torch.amp.is_autocast_available(device)
    return known and torch.is_autocast_enabled(device)


def _without_autocast(device: str) -> AbstractContextManager:
    if _autocasts(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def _has_small(values: Iterable) -> bool:
    """Return whether a tensor has 16 bits, at little cost."""
    for value in values:
        if isinstance(value, Tensor):
            if value.dtype in SMALL:
                return True
        elif isinstance(value, (list, tuple)) and _has_small(value):
            return True
    return False


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _converted(value: Any, source: set[torch.dtype], target: torch.dtype) -> Any:
    """Convert the tensors of some types in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return value.to(target) if value.dtype in source else value
    if isinstance(value, dict):
        return {key: _converted(part, source, target) for key, part in value.items()}
    if not isinstance(value, (list, tuple)):
        return value
    parts = (_converted(part, source, target) for part in value)
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
