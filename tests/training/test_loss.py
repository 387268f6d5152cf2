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
def target(generator):
    return torch.randint(CLASSES, (TIME, BATCH), generator=generator)


@pytest.fixture
def mask(generator):
    mask = torch.rand(TIME, BATCH, generator=generator) < 0.6
    mask[2] = False
    return mask


def test_equals_torch(logits, target):
    expected = F.cross_entropy(logits.flatten(0, 1), target.flatten())
    torch.testing.assert_close(cross_entropy(logits, target), expected)


def test_a_mask_takes_the_mean_over_what_counts(logits, target, mask):
    # torch's own way of leaving positions out
    ignored = target.where(mask, -100)
    expected = F.cross_entropy(logits.flatten(0, 1), ignored.flatten())
    torch.testing.assert_close(cross_entropy(logits, target, mask), expected)
    # What is masked may hold any label, and has no part in the loss.
    torch.testing.assert_close(cross_entropy(logits, ignored, mask), expected)
    assert abs(cross_entropy(logits, target) - expected) > 1e-3


@pytest.mark.parametrize("masked", [False, True])
def test_gradient_equals_autograd(logits, target, mask, masked):
    mask = mask if masked else None
    leaf = logits.clone().requires_grad_()
    ignored = target if mask is None else target.where(mask, -100)
    F.cross_entropy(leaf.flatten(0, 1), ignored.flatten()).backward()
    ours = cross_entropy_backward(logits, target, mask)
    torch.testing.assert_close(ours, leaf.grad, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(ours.sum(-1), torch.zeros(TIME, BATCH).double())


def test_autograd_through_it_is_the_same_gradient(logits, target, mask):
    leaf = logits.clone().requires_grad_()
    cross_entropy(leaf, target, mask).backward()
    ours = cross_entropy_backward(logits, target, mask)
    torch.testing.assert_close(leaf.grad, ours, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.1, 1.0])
def test_label_smoothing_equals_torch(logits, target, mask, label_smoothing, masked):
    mask = mask if masked else torch.ones_like(mask)
    options = {"label_smoothing": label_smoothing}
    leaf, ignored = logits.clone().requires_grad_(), target.where(mask, -100)
    expected = F.cross_entropy(leaf.flatten(0, 1), ignored.flatten(), **options)
    expected.backward()
    given = mask if masked else None
    found = cross_entropy(logits, target, given, **options)
    torch.testing.assert_close(found, expected.detach())
    gradient = cross_entropy_backward(logits, target, given, **options)
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-12, atol=1e-14)


def test_the_classes_are_the_last_axis(logits, target):
    """There are 3, beside 5 sequences."""
    target[0, 0] = CLASSES
    with pytest.raises(ValueError, match=r"target must be in 0\.\.2, got 0\.\.3"):
        cross_entropy(logits, target)


@pytest.mark.parametrize("function", [cross_entropy, cross_entropy_backward])
def test_ignore_index_is_a_mask(function, logits, target, mask):
    ignored = target.where(mask, -100)
    expected = function(logits, target, mask)
    assert torch.equal(function(logits, ignored, ignore_index=-100), expected)
    both = mask & (target != 1)
    found = function(logits, target, mask, ignore_index=1)
    assert torch.equal(found, function(logits, target, both))


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_large_logits_stay_finite(size):
    logits = torch.tensor([[size, 0.0, 1.0]])
    torch.testing.assert_close(softmax(logits).sum(), torch.tensor(1.0))
    for label in range(3):
        assert math.isfinite(cross_entropy(logits, torch.tensor([label])))


def test_what_is_masked_may_even_be_nan(logits, target, mask):
    expected = cross_entropy(logits, target, mask)
    gradient = cross_entropy_backward(logits, target, mask)
    poisoned = logits.masked_fill(~mask.unsqueeze(-1), math.nan).requires_grad_()
    loss = cross_entropy(poisoned, target, mask)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(poisoned.grad, gradient)
    ours = cross_entropy_backward(poisoned.detach(), target, mask)
    torch.testing.assert_close(ours, gradient)
    assert not gradient[~mask].any()


WHOLE = torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ([0, 1, 3], {}, r"target must be in 0\.\.2, got 0\.\.3"),
        ([0, -1, 2], {}, r"target must be in 0\.\.2, got -1\.\.2"),
        ([0, 1], {}, r"integers of shape \(3,\), got torch.int64 of shape \(2,\)"),
        ([0.0, 1.0, 2.0], {}, r"integers of shape \(3,\), got torch\.float32"),
        ([0, 1, 2], {"mask": WHOLE[:2] > 0}, r"mask must be booleans of shape \(3,\)"),
        ([0, 1, 2], {"mask": WHOLE}, r"mask must be booleans .* got torch.int64"),
        ([0, 1, 2], {"mask": WHOLE < 0}, "no position counts"),
        ([1, 1, 1], {"ignore_index": 1}, "no position counts"),
        ([0, 1, 2], {"label_smoothing": -0.1}, r"label_smoothing must be in \[0, 1\]"),
        ([0, 1, 2], {"label_smoothing": 1.1}, r"label_smoothing .* got 1.1"),
        ([0, 1, 2], {"label_smoothing": math.nan}, r"label_smoothing .* got nan"),
    ],
)
@pytest.mark.parametrize("function", [cross_entropy, cross_entropy_backward])
def test_wrong_arguments(function, target, options, message):
    # Without the shape checks of the tests, so that this is what a user sees.
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(function)(torch.zeros(3, 3), torch.tensor(target), **options)
