"""`dian.training.metrics` against scikit-learn, and its behaviour at the edges."""

import inspect

import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.metrics as peer
import torch
from hypothesis import given, settings

from dian.training import metrics

NUM_CLASSES = 5
pairs = st.lists(
    st.tuples(st.integers(0, NUM_CLASSES - 1), st.integers(0, NUM_CLASSES - 1)),
    min_size=1,
)


@given(pairs)
@settings(derandomize=True, max_examples=100, deadline=None)
def test_equals_scikit_learn(items):
    """Also where a class is neither present nor preds."""
    target, preds = zip(*items, strict=True)
    C = metrics.confusion_matrix(target=target, preds=preds, num_classes=NUM_CLASSES)
    labels = range(NUM_CLASSES)
    expected = peer.confusion_matrix(target, preds, labels=labels)
    assert C.tolist() == expected.tolist()
    by_class = peer.precision_recall_fscore_support(
        target, preds, labels=labels, zero_division=0
    )
    for ours, theirs in zip(
        (metrics.precision, metrics.recall, metrics.f1), by_class[:3], strict=True
    ):
        assert ours(C).tolist() == pytest.approx(theirs.tolist(), abs=1e-14)
    summary = metrics.summary(C)
    assert summary["accuracy"] == pytest.approx(peer.accuracy_score(target, preds))
    assert summary["f1"] == pytest.approx(by_class[2].mean())


def test_the_matrix_adds_up_over_batches(generator):
    target, preds = torch.randint(NUM_CLASSES, (2, 97), generator=generator)
    options = {"num_classes": NUM_CLASSES}
    total = metrics.ConfusionMatrix(NUM_CLASSES)
    for t, p in zip(target.split(13), preds.split(13), strict=True):
        total.update(target=t, preds=p)
    whole = metrics.confusion_matrix(target=target, preds=preds, **options)
    assert torch.equal(total.counts, whole)


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list, tuple])
def test_tensors_arrays_and_lists_give_the_same(kind):
    target, preds = kind([1, 1, 0]), kind([0, 0, 0])
    C = metrics.confusion_matrix(target=target, preds=preds)
    assert C.tolist() == [[1, 0], [2, 0]]  # rows are the target
    same = kind([[1, 0], [2, 0]])
    assert metrics.summary(same) == metrics.summary(C)
    assert metrics.balanced_accuracy(same) == metrics.balanced_accuracy(C)
    probs, target = kind([[0.5, 0.5], [0.25, 0.75]]), kind([1, 0])
    nll = metrics.negative_log_likelihood(probs, target).item()
    assert nll == pytest.approx(np.log(8) / 2)
    assert metrics.top_k_accuracy(probs, target, 1) == 0
    assert metrics.calibration_error(probs, target).item() == pytest.approx(0.625)


@pytest.mark.parametrize("num_classes", [1, 2])
def test_a_batch_may_be_empty(num_classes):
    C = metrics.confusion_matrix(target=[], preds=[], num_classes=num_classes)
    assert torch.equal(C, torch.zeros(num_classes, num_classes, dtype=torch.long))


def test_a_memory_mapped_array_is_taken():
    target = np.array([0, 1], dtype=np.uint8)
    target.flags.writeable = False
    C = metrics.confusion_matrix(target=target, preds=target)
    assert C.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("metric", ["precision", "recall", "f1"])
def test_a_macro_average_is_the_mean_over_all_classes(metric):
    target, preds = [0, 0, 1, 3], [0, 1, 1, 0]
    C = metrics.confusion_matrix(target=target, preds=preds)
    expected = getattr(peer, f"{metric}_score")(
        target, preds, labels=range(4), average="macro", zero_division=0
    )
    found = getattr(metrics, metric)(C, average="macro").item()
    assert found == pytest.approx(expected)


@st.composite
def judged(draw):
    """Probabilities, labels, and a number of bins; no two alike by chance."""
    n = draw(st.integers(1, 60))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    spread = draw(st.floats(0.01, 30))
    logits = spread * torch.randn(
        n, NUM_CLASSES, generator=generator, dtype=torch.float64
    )
    target = torch.randint(NUM_CLASSES, (n,), generator=generator)
    return logits.softmax(1), target, draw(st.integers(1, 20))


@given(judged())
@settings(derandomize=True, max_examples=100, deadline=None)
def test_what_needs_probabilities_equals_scikit_learn(case):
    p, target, n_bins = case
    labels = list(range(NUM_CLASSES))
    for k in range(1, NUM_CLASSES):
        expected = peer.top_k_accuracy_score(target, p, k=k, labels=labels)
        assert metrics.top_k_accuracy(p, target, k).item() == pytest.approx(expected)
    assert metrics.top_k_accuracy(p, target, NUM_CLASSES) == 1
    own = p[torch.arange(len(target)), target]
    if own.min() > 1e-12:  # scikit-learn cuts off what is smaller
        expected = peer.log_loss(target, p, labels=labels)
        found = metrics.negative_log_likelihood(p, target).item()
        assert found == pytest.approx(expected, rel=1e-9)
    found = metrics.calibration_error(p, target, n_bins).item()
    assert found == pytest.approx(calibration_by_loops(p, target, n_bins), abs=1e-12)


def calibration_by_loops(p, target, n_bins):
    """The formula, item by item and bin by bin."""
    total = 0.0
    for b in range(1, n_bins + 1):
        inside = [
            (max(row), row.index(max(row)) == label)
            for row, label in zip(p.tolist(), target.tolist(), strict=True)
            if (b - 1) / n_bins < max(row) <= b / n_bins
        ]
        if inside:
            sure = sum(confidence for confidence, _ in inside) / len(inside)
            right = sum(hit for _, hit in inside) / len(inside)
            total += len(inside) / len(target) * abs(right - sure)
    return total


@given(pairs)
@settings(derandomize=True, max_examples=50, deadline=None)
def test_balanced_accuracy_equals_scikit_learn(items):
    target, preds = zip(*items, strict=True)
    C = metrics.confusion_matrix(target=target, preds=preds, num_classes=NUM_CLASSES)
    # what balanced_accuracy_score computes, without its warnings
    present = sorted(set(target))
    expected = peer.recall_score(target, preds, labels=present, average="macro")
    assert metrics.balanced_accuracy(C).item() == pytest.approx(expected)


def test_a_tie_is_not_known():
    even = torch.full((3, NUM_CLASSES), 1 / NUM_CLASSES)
    labels = torch.tensor([0, 2, 4])
    assert metrics.top_k_accuracy(even, labels, 1) == 0
    assert metrics.top_k_accuracy(even, labels, NUM_CLASSES - 1) == 0


def test_what_was_held_impossible_costs_infinitely_much():
    p = torch.tensor([[1.0, 0.0]])
    assert metrics.negative_log_likelihood(p, torch.tensor([1])) == float("inf")


def confusion(target, preds, num_classes=2):
    # Without the shape checks of the tests, so that this is what a user sees.
    plain = inspect.unwrap(metrics.confusion_matrix)
    return plain(target=target, preds=preds, num_classes=num_classes)


def nll(probs, target):
    return inspect.unwrap(metrics.negative_log_likelihood)(probs, target)


def precision(C, average=None):
    return inspect.unwrap(metrics.precision)(C, average)


SURE = [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: confusion([0, 1], [0]), "preds differ in length: 2 and 1"),
        (
            lambda: confusion([0.0, 1.0], [0, 1]),
            "target must be one row of int.*float64",
        ),
        (lambda: confusion([0, 1], [[0, 1]]), r"preds must .* of shape \(1, 2\)"),
        (lambda: confusion([], [], None), "target and preds must not be empty"),
        (
            lambda: confusion([0], [10**6], None),
            "num_classes must be a whole number, 1 to 10000, got 1000001",
        ),
        (lambda: confusion(0, 0), r"target must .* got torch.int64 of shape \(\)"),
        (lambda: confusion([0, 2], [0, 0]), r"target must be in 0\.\.1, got 0\.\.2"),
        (lambda: confusion([0, 0], [0, -1]), r"preds must be in 0\.\.1, got -1\.\.0"),
        (
            lambda: nll([[2.0, -1.0]], [0]),
            "probs must be non-negative .* minimum of -1",
        ),
        (lambda: nll([[1.0, 1.0]], [0]), "off by 1$"),
        (lambda: nll([[np.nan, 0.5]], [0]), "off by nan"),
        (lambda: nll(SURE, [2]), r"target must be in 0\.\.1, got 2\.\.2"),
        (lambda: nll(SURE, [0, 1]), r"probs must be \(2, num_classes\), got .*\(1, 2"),
        (lambda: nll(SURE, [[0]]), r"target must be one row .* of shape \(1, 1\)"),
        (lambda: nll(SURE, [0.0]), r"target must be one row of integers, .*float"),
        (lambda: nll([1.0], [0]), r"probs must be \(1, num_classes\), got .*\(1,\)"),
        (lambda: nll([], []), r"probs must be \(0, num_classes\)"),
        (
            lambda: metrics.top_k_accuracy(SURE, [1], 3),
            r"k must be a whole number, 1 to 2, got 3",
        ),
        (
            lambda: metrics.calibration_error(SURE, [1], 0),
            "n_bins must be a whole number, at least 1",
        ),
        (
            lambda: precision([[0.5, 0.5], [0.0, 0.0]]),
            "C must be a square matrix of co",
        ),
        (lambda: precision([1, 2]), r"C must be .* got torch.int64 of shape \(2,\)"),
        (lambda: precision([[1]], "micro"), "average must be None or 'macro', got 'mi"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
