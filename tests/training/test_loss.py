"""`dian.training.loss` against torch, and its gradient against autograd."""

import inspect
import math

import pytest
import torch
from torch.nn import functional as F

from dian.training.loss import cross_entropy, cross_entropy_backward, softmax

TIME, BATCH, CLASSES = 7, 5, 3


@pytest.fixture
def logits(generator):
    return 3 * torch.randn(
        TIME, BATCH, CLASSES, generator=generator, dtype=torch.float64
    )


@pytest.fixture
def labels(generator):
    return torch.randint(CLASSES, (TIME, BATCH), generator=generator)


@pytest.fixture
def mask(generator):
    mask = torch.rand(TIME, BATCH, generator=generator) < 0.6
    mask[2] = False
    return mask


def test_equals_torch(logits, labels):
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(cross_entropy(logits, labels), expected)


def test_a_mask_takes_the_mean_over_what_counts(logits, labels, mask):
    # torch's own way of leaving positions out
    ignored = labels.where(mask, -100)
    expected = F.cross_entropy(logits.flatten(0, 1), ignored.flatten())
    torch.testing.assert_close(cross_entropy(logits, labels, mask), expected)
    # What is masked may hold any label, and has no part in the loss.
    torch.testing.assert_close(cross_entropy(logits, ignored, mask), expected)
    assert abs(cross_entropy(logits, labels) - expected) > 1e-3


@pytest.mark.parametrize("masked", [False, True])
def test_gradient_equals_autograd(logits, labels, mask, masked):
    mask = mask if masked else None
    leaf = logits.clone().requires_grad_()
    ignored = labels if mask is None else labels.where(mask, -100)
    F.cross_entropy(leaf.flatten(0, 1), ignored.flatten()).backward()
    ours = cross_entropy_backward(logits, labels, mask)
    torch.testing.assert_close(ours, leaf.grad, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(ours.sum(-1), torch.zeros(TIME, BATCH).double())


def test_autograd_through_it_is_the_same_gradient(logits, labels, mask):
    leaf = logits.clone().requires_grad_()
    cross_entropy(leaf, labels, mask).backward()
    ours = cross_entropy_backward(logits, labels, mask)
    torch.testing.assert_close(leaf.grad, ours, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_smoothing_equals_torch(logits, labels, mask, smoothing):
    leaf = logits.clone().requires_grad_()
    expected = F.cross_entropy(
        leaf.flatten(0, 1),
        labels.where(mask, -100).flatten(),
        label_smoothing=smoothing,
    )
    expected.backward()
    found = cross_entropy(logits, labels, mask, smoothing)
    torch.testing.assert_close(found, expected.detach())
    gradient = cross_entropy_backward(logits, labels, mask, smoothing)
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_large_logits_stay_finite(size):
    logits = torch.tensor([[size, 0.0, 1.0]])
    torch.testing.assert_close(softmax(logits).sum(), torch.tensor(1.0))
    for label in range(3):
        assert math.isfinite(cross_entropy(logits, torch.tensor([label])))


@pytest.mark.parametrize(
    ("labels", "mask", "message"),
    [
        ([0, 1, 3], None, r"labels must lie in 0\.\.2, got 0\.\.3"),
        ([0, -1, 2], None, r"got -1\.\.2"),
        ([0, 1], None, r"labels must have shape \(3,\)"),
        ([0.0, 1.0, 2.0], None, r"labels must be whole numbers, got torch\.float32"),
        ([0, 1, 2], [True, False], r"mask must have the shape \(3,\)"),
        ([0, 1, 2], [False] * 3, "no position counts"),
    ],
)
@pytest.mark.parametrize("function", [cross_entropy, cross_entropy_backward])
def test_wrong_arguments(function, labels, mask, message):
    plain = inspect.unwrap(function)
    mask = None if mask is None else torch.tensor(mask)
    with pytest.raises(ValueError, match=message):
        plain(torch.zeros(3, 3), torch.tensor(labels), mask)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("function", [cross_entropy, cross_entropy_backward])
def test_a_wrong_smoothing(function, smoothing):
    with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\], got"):
        function(torch.zeros(3, 3), torch.zeros(3).long(), smoothing=smoothing)


def test_what_is_masked_may_even_be_nan(logits, labels, mask):
    expected = cross_entropy(logits, labels, mask)
    gradient = cross_entropy_backward(logits, labels, mask)
    poisoned = logits.masked_fill(~mask.unsqueeze(-1), math.nan).requires_grad_()
    loss = cross_entropy(poisoned, labels, mask)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(poisoned.grad, gradient)
    ours = cross_entropy_backward(poisoned.detach(), labels, mask)
    torch.testing.assert_close(ours, gradient)
    assert not gradient[~mask].any()


def test_a_mask_of_numbers_is_refused():
    labels = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="mask must be boolean"):
        inspect.unwrap(cross_entropy)(torch.zeros(2, 3), labels, torch.tensor([1, 0]))
