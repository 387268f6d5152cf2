"""`dian.training.metrics` against scikit-learn, and its behaviour at the edges."""

import inspect

import hypothesis.strategies as st
import pytest
import sklearn.metrics as peer
import torch
from hypothesis import given, settings

from dian.training import metrics

N_CLASS = 5
pairs = st.lists(
    st.tuples(st.integers(0, N_CLASS - 1), st.integers(0, N_CLASS - 1)), min_size=1
)


@given(pairs)
@settings(derandomize=True, max_examples=100, deadline=None)
def test_equals_scikit_learn(items):
    """Also where a class is neither present nor predicted."""
    true, predicted = zip(*items, strict=True)
    C = metrics.confusion_matrix(
        torch.tensor(true), torch.tensor(predicted), n_class=N_CLASS
    )
    labels = range(N_CLASS)
    expected = peer.confusion_matrix(true, predicted, labels=labels)
    assert C.tolist() == expected.tolist()
    by_class = peer.precision_recall_fscore_support(
        true, predicted, labels=labels, zero_division=0
    )
    for ours, theirs in zip(
        (metrics.precision, metrics.recall, metrics.f1), by_class[:3], strict=True
    ):
        assert ours(C).tolist() == pytest.approx(theirs.tolist(), abs=1e-14)
    summary = metrics.summary(C)
    assert summary["accuracy"] == pytest.approx(peer.accuracy_score(true, predicted))
    assert summary["f1"] == pytest.approx(by_class[2].mean())


def test_the_matrix_adds_up_over_batches(generator):
    true = torch.randint(N_CLASS, (97,), generator=generator)
    predicted = torch.randint(N_CLASS, (97,), generator=generator)
    whole = metrics.confusion_matrix(true, predicted, N_CLASS)
    parts = [
        metrics.confusion_matrix(t, p, N_CLASS)
        for t, p in zip(true.split(13), predicted.split(13), strict=True)
    ]
    assert torch.equal(sum(parts), whole)


def test_rows_are_the_truth():
    C = metrics.confusion_matrix(torch.tensor([1, 1]), torch.tensor([0, 0]), 2)
    assert C.tolist() == [[0, 0], [2, 0]]


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([0, 1], [0], "one length, got 2 and 1"),
        ([0.0, 1.0], [0, 1], r"true must be one row of whole .* torch\.float32"),
        ([0, 1], [[0, 1]], r"predicted must be one row .* of shape \(1, 2\)"),
        (0, 0, r"true must be one row .* torch\.int64 of shape \(\)"),
        ([0, 2], [0, 0], r"true must lie in 0\.\.1, got 0\.\.2"),
        ([0, 0], [0, -1], r"predicted must lie in 0\.\.1, got -1\.\.0"),
    ],
)
def test_wrong_arguments(true, predicted, message):
    plain = inspect.unwrap(metrics.confusion_matrix)
    with pytest.raises(ValueError, match=message):
        plain(torch.tensor(true), torch.tensor(predicted), 2)


@st.composite
def judged(draw):
    """Probabilities, labels, and a number of bins; no two alike by chance."""
    n = draw(st.integers(1, 60))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    spread = draw(st.floats(0.01, 30))
    logits = spread * torch.randn(n, N_CLASS, generator=generator, dtype=torch.float64)
    true = torch.randint(N_CLASS, (n,), generator=generator)
    return logits.softmax(1), true, draw(st.integers(1, 20))


@given(judged())
@settings(derandomize=True, max_examples=100, deadline=None)
def test_what_needs_probabilities_equals_scikit_learn(case):
    p, true, n_bin = case
    labels = list(range(N_CLASS))
    for k in range(1, N_CLASS):
        expected = peer.top_k_accuracy_score(true, p, k=k, labels=labels)
        assert metrics.top_k_accuracy(p, true, k).item() == pytest.approx(expected)
    assert metrics.top_k_accuracy(p, true, N_CLASS) == 1
    own = p[torch.arange(len(true)), true]
    if own.min() > 1e-12:  # scikit-learn cuts off what is smaller
        expected = peer.log_loss(true, p, labels=labels)
        found = metrics.negative_log_likelihood(p, true).item()
        assert found == pytest.approx(expected, rel=1e-9)
    found = metrics.calibration_error(p, true, n_bin).item()
    assert found == pytest.approx(calibration_by_loops(p, true, n_bin), abs=1e-12)


def calibration_by_loops(p, true, n_bin):
    """The formula, item by item and bin by bin."""
    total = 0.0
    for b in range(1, n_bin + 1):
        inside = [
            (max(row), row.index(max(row)) == label)
            for row, label in zip(p.tolist(), true.tolist(), strict=True)
            if (b - 1) / n_bin < max(row) <= b / n_bin
        ]
        if inside:
            sure = sum(confidence for confidence, _ in inside) / len(inside)
            right = sum(hit for _, hit in inside) / len(inside)
            total += len(inside) / len(true) * abs(right - sure)
    return total


@given(pairs)
@settings(derandomize=True, max_examples=50, deadline=None)
def test_balanced_accuracy_equals_scikit_learn(items):
    true, predicted = zip(*items, strict=True)
    C = metrics.confusion_matrix(torch.tensor(true), torch.tensor(predicted), N_CLASS)
    # what balanced_accuracy_score computes, without its warnings
    present = sorted(set(true))
    expected = peer.recall_score(true, predicted, labels=present, average="macro")
    assert metrics.balanced_accuracy(C).item() == pytest.approx(expected)


def test_a_tie_is_not_known():
    even = torch.full((3, N_CLASS), 1 / N_CLASS)
    labels = torch.tensor([0, 2, 4])
    assert metrics.top_k_accuracy(even, labels, 1) == 0
    assert metrics.top_k_accuracy(even, labels, N_CLASS - 1) == 0


def test_what_was_held_impossible_costs_infinitely_much():
    p = torch.tensor([[1.0, 0.0]])
    assert metrics.negative_log_likelihood(p, torch.tensor([1])) == float("inf")


NEED_PROBABILITIES = {
    "top_k_accuracy": lambda p, true: inspect.unwrap(metrics.top_k_accuracy)(
        p, true, 1
    ),
    "negative_log_likelihood": inspect.unwrap(metrics.negative_log_likelihood),
    "calibration_error": inspect.unwrap(metrics.calibration_error),
}


@pytest.mark.parametrize(
    "function", NEED_PROBABILITIES.values(), ids=NEED_PROBABILITIES
)
@pytest.mark.parametrize(
    ("p", "true", "message"),
    [
        ([[2.0, -1.0]], [0], "p must hold probabilities: .* smallest number of -1"),
        ([[1.0, 1.0]], [0], "off by 1, and"),
        ([[float("nan"), 0.5]], [0], "off by nan"),
        ([[0.5, 0.5]], [2], r"true must lie in 0\.\.1, got 2\.\.2"),
        ([[0.5, 0.5]], [0, 1], "one length above 0, got 1 and 2"),
        ([[0.5, 0.5]], [[0]], r"true must be one row .* of shape \(1, 1\)"),
        ([[0.5, 0.5]], [0.0], r"true must be one row of whole .* torch\.float"),
        ([1.0], [0], r"p must be \(n, n_class\), got \(1,\)"),
    ],
)
def test_what_is_not_a_probability(function, p, true, message):
    with pytest.raises(ValueError, match=message):
        function(torch.tensor(p), torch.tensor(true))


def test_wrong_numbers_of_bins_and_classes():
    p, true = torch.tensor([[0.5, 0.5]]), torch.tensor([1])
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.2, got 3"):
        metrics.top_k_accuracy(p, true, 3)
    with pytest.raises(ValueError, match="n_bin must be 1 or more, got 0"):
        metrics.calibration_error(p, true, 0)


def test_shares_are_not_counts():
    C = torch.tensor([[3.0, 1.0], [0.0, 4.0]]) / 8
    with pytest.raises(ValueError, match="C must hold counts"):
        inspect.unwrap(metrics.precision)(C)
