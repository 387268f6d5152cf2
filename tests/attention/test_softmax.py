"""`dian.attention.softmax`: the backward pass is a product with the Jacobian."""

import torch

from dian.attention.softmax import softmax_backward, softmax_jacobian


def test_backward_is_the_product_with_the_jacobian(generator):
    scores, p_bar = torch.randn(2, 3, 7, generator=generator, dtype=torch.float64)
    scores.requires_grad_()
    p = scores.softmax(-1)
    found = softmax_backward(p.detach(), p_bar)
    product = (softmax_jacobian(p.detach()) @ p_bar.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found, product)
    torch.testing.assert_close(found, torch.autograd.grad(p, scores, p_bar)[0])


def test_backward_leaves_its_inputs_unchanged(generator):
    inputs = torch.rand(2, 3, 7, generator=generator)
    before = inputs.clone()
    softmax_backward(*inputs)
    assert torch.equal(inputs, before)
