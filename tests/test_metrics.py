"""`dian.metrics` against scikit-learn, and its behaviour at the edges."""

import inspect

import hypothesis.strategies as st
import pytest
import sklearn.metrics as peer
import torch
from hypothesis import given, settings

from dian import metrics

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
        ([0, 2], [0, 0], r"true must lie in 0\.\.1, got 0\.\.2"),
        ([0, 0], [0, -1], r"predicted must lie in 0\.\.1, got -1\.\.0"),
    ],
)
def test_wrong_arguments(true, predicted, message):
    plain = inspect.unwrap(metrics.confusion_matrix)
    with pytest.raises(ValueError, match=message):
        plain(torch.tensor(true), torch.tensor(predicted), 2)
