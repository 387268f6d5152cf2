"""How far apart two results are, in the one sense that all claims use."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def relative(found: Tensor, expected: Tensor) -> float:
    r"""Return :math:`\max |a - b| / \max(1, \max |b|)`; NaN anywhere gives NaN.

    >>> relative(torch.tensor([1.0, 12.0]), torch.tensor([1.0, 10.0]))
    0.2
    """
    if found.shape != expected.shape:
        raise ValueError(f"shapes {tuple(found.shape)} and {tuple(expected.shape)}")
    scale = expected.abs().max().clamp(min=1)
    return ((found - expected).abs().max() / scale).item()


def worst(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest of the relative differences, pair by pair."""
    pairs = zip(found, expected, strict=True)
    return largest(relative(a, b) for a, b in pairs)


def largest(residuals) -> float:
    """Return the largest residual; one NaN is enough to make it NaN.

    The built-in max would drop a NaN, or not, depending on the order.

    >>> largest([1.0, float("nan"), 2.0])
    nan
    """
    return torch.tensor([float(r) for r in residuals], dtype=torch.float64).max().item()


def holds(statement: bool) -> float:
    """Return 0 for a statement that is true, and infinity for one that is not."""
    return 0.0 if statement else torch.inf


def complex_step(f: Callable[[Tensor], Tensor], x: Tensor, h: float = 1e-30) -> Tensor:
    r"""Differentiate an analytic function by one imaginary step.

    .. math::

        f'(x) = \operatorname{Im} f(x + ih) / h

    Nothing is subtracted, so nothing cancels: the result is right to the last digit.

    >>> complex_step(lambda x: (x**3).sum(), torch.tensor([2.0], dtype=torch.float64))
    tensor([12.], dtype=torch.float64)
    """
    gradient = torch.empty_like(x)
    for i in range(x.numel()):
        step = torch.zeros(x.numel(), dtype=torch.complex128)
        step[i] = 1j * h
        gradient.view(-1)[i] = f(x + step.view_as(x)).imag / h
    return gradient


def normal(seed: int, *shapes: Sequence[int]) -> list[Tensor]:
    """Draw standard normal tensors of these shapes, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes]
