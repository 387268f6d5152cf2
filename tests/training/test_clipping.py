"""`dian.training.clipping` at its edges."""

import inspect
import math

import pytest
import torch
from torch import nn

from dian.training.clipping import clip_by_norm

H, D = 11, 3


def parameters_with(*gradients):
    found = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros_like(gradient))
        parameter.grad = gradient.clone()
        found.append(parameter)
    return found


def test_clipping_takes_one_norm_over_all(generator):
    gradients = [torch.randn(n, generator=generator) for n in (H, D)]
    parameters = parameters_with(*gradients)
    norm = torch.cat(gradients).norm().item()
    assert clip_by_norm(parameters, max_norm=norm / 4) == pytest.approx(norm)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient / 4)


def test_clipping_leaves_a_short_gradient_alone(generator):
    gradient = torch.randn(H, generator=generator)
    (parameter,) = parameters_with(gradient)
    clip_by_norm([parameter], max_norm=gradient.norm().item() * 1.001)
    assert torch.equal(parameter.grad, gradient)
    assert clip_by_norm(parameters_with(torch.zeros(D)), max_norm=1.0) == 0
    assert clip_by_norm([nn.Parameter(torch.zeros(D))], max_norm=1.0) == 0


def test_a_gradient_whose_square_overflows_is_clipped():
    (parameter,) = parameters_with(torch.tensor([3e25, 4e25]))
    assert clip_by_norm([parameter], max_norm=1.0) == pytest.approx(5e25)
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]))


def test_it_waits_for_the_device_once(monkeypatch):
    """Norms of many tensors are fetched together, as one list of numbers."""
    fetched = []
    real = torch.Tensor.tolist
    monkeypatch.setattr(
        torch.Tensor, "tolist", lambda x: fetched.append(x.shape) or real(x)
    )
    monkeypatch.setattr(torch.Tensor, "item", None)
    monkeypatch.setattr(torch.Tensor, "__float__", None)
    clip_by_norm(parameters_with(*torch.ones(17, 3)), max_norm=1.0)
    assert fetched == [(17,)]


def test_a_single_parameter_is_not_taken_for_its_rows():
    w = torch.nn.Parameter(torch.zeros(2, 2))
    w.grad = torch.full((2, 2), 5.0)
    assert inspect.unwrap(clip_by_norm)(w, 1.0) == 10
    torch.testing.assert_close(w.grad, torch.full((2, 2), 0.5))


@pytest.mark.parametrize(
    ("gradient", "max_norm", "message"),
    [
        ([1.0, math.nan], 1.0, "the gradient is not finite: its norm is nan"),
        ([1.0, math.inf], 1.0, "the gradient is not finite: its norm is inf"),
        ([1.0], math.nan, "max_norm must be positive, got nan"),
        ([1.0], 0.0, "max_norm must be positive, got 0.0"),
    ],
)
def test_wrong_arguments(gradient, max_norm, message):
    with pytest.raises(ValueError, match=message):
        clip_by_norm(parameters_with(torch.tensor(gradient)), max_norm)
