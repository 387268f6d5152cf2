"""One step of each optimizer, beside torch's, and at its edges."""

import inspect

import pytest
import torch
from torch import nn

from dian.training.optimizers import adam_step, sgd_step


def path_of_torch(make, theta, grads, **options):
    parameter = nn.Parameter(theta.clone())
    optimizer = make([parameter], **options)
    for grad in grads:
        parameter.grad = grad.clone()
        optimizer.step()
    return parameter.detach()


@pytest.fixture
def problem(generator):
    """A parameter and seven gradients."""
    draw = torch.randn(8, 3, 5, generator=generator, dtype=torch.float64)
    return draw[0], draw[1:]


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.8)])
@pytest.mark.parametrize("eps", [1e-8, 0.1])
def test_adam_with_any_options(problem, weight_decay, betas, eps):
    theta, grads = problem
    options = {"lr": 0.05, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    expected = path_of_torch(torch.optim.AdamW, theta, grads, **options)
    state = None
    for grad in grads:
        theta, state = adam_step(theta, grad, state, **options)
    torch.testing.assert_close(theta, expected)
    assert state.step == len(grads)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd(problem, momentum):
    theta, grads = problem
    options = {"lr": 0.05, "momentum": momentum}
    expected = path_of_torch(torch.optim.SGD, theta, grads, **options)
    velocity = torch.zeros_like(theta)
    for grad in grads:
        theta, velocity = sgd_step(theta, grad, velocity, **options)
    torch.testing.assert_close(theta, expected)


def test_the_arguments_are_not_changed(problem):
    theta, grads = problem
    before = theta.clone(), grads[0].clone()
    _, state = adam_step(theta, grads[0], None, lr=0.1)
    kept = state.m.clone()
    adam_step(theta, grads[1], state, lr=0.1)
    sgd_step(theta, grads[0], grads[1], lr=0.1, momentum=0.9)
    assert torch.equal(theta, before[0])
    assert torch.equal(grads[0], before[1])
    assert torch.equal(state.m, kept)


def test_the_scale_of_the_gradient_cancels(problem):
    theta, grads = problem
    ends = []
    for scale in (1.0, 1e3):
        end, state = theta, None
        for grad in grads:
            end, state = adam_step(end, scale * grad, state, lr=0.1, eps=0.0)
        ends.append(end)
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("betas", [(1.0, 0.999), (0.9, -0.1)])
def test_wrong_betas(as_users_run, problem, betas):
    theta, grads = problem
    with pytest.raises(ValueError, match=r"betas must be in \[0, 1\), got \("):
        inspect.unwrap(adam_step)(theta, grads[0], None, lr=0.1, betas=betas)
