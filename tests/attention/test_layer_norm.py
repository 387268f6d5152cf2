"""`dian.attention.layer_norm` against torch's function, and in float32."""

import pytest
import torch
from torch.nn import functional as F

from dian.attention.layer_norm import layer_norm, layer_norm_backward

EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 1, 7), (0, 7), (3, 1)])
@pytest.mark.parametrize("eps", [0.1, 1e-5])
def test_it_equals_torchs_function_and_its_gradients(generator, shape, eps):
    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    leaves = [normal(*shape), normal(shape[-1]), normal(shape[-1])]
    for leaf in leaves:
        leaf.requires_grad_()
    expected = F.layer_norm(leaves[0], shape[-1:], *leaves[1:], eps=eps)
    Y_bar = normal(*shape)
    gradients = torch.autograd.grad(expected, leaves, Y_bar)
    X, gamma, beta = (x.detach() for x in leaves)
    found, inner = layer_norm(X, gamma, beta, eps)
    torch.testing.assert_close(found, expected, **EXACT)
    back = layer_norm_backward(Y_bar, gamma, inner)
    torch.testing.assert_close(tuple(back), gradients, **EXACT)


def test_a_constant_vector_becomes_its_shift():
    X, gamma, beta = torch.full((2, 4), 3.0), torch.ones(4), torch.arange(4.0)
    found, inner = layer_norm(X, gamma, beta)
    assert torch.equal(found, beta.expand(2, 4))
    back = layer_norm_backward(torch.eye(4)[:2], gamma, inner)
    assert all(x.isfinite().all() for x in back)


def test_a_mean_far_from_zero_does_not_cancel_the_variance(generator):
    """The mean of the squares minus the square of the mean would lose all digits."""
    X = 10_000 + torch.randn(3, 64, generator=generator)
    one, zero = torch.ones(64), torch.zeros(64)
    found, _ = layer_norm(X, one, zero)
    expected, _ = layer_norm(X.double(), one.double(), zero.double())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-3)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("gamma", [torch.ones(1), torch.ones(3), torch.ones(2, 4)])
def test_another_shape_of_the_scale_is_refused(gamma):
    with pytest.raises(ValueError, match=r"gamma and beta must have the shape \(4,\)"):
        layer_norm(torch.ones(2, 4), gamma, torch.ones(4))


@pytest.mark.usefixtures("as_users_run")
def test_no_feature_is_refused():
    with pytest.raises(ValueError, match="at least one feature, got 0"):
        layer_norm(torch.ones(2, 0), torch.ones(0), torch.ones(0))
