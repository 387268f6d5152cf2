"""`sample_metrics` against closed forms, loops, scipy and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from dian.diffusion import sample_metrics
from dian.diffusion.sample_metrics import (
    frechet_distance,
    half_sample_errors,
    in_manifold,
    kernel_mean,
    mmd2_unbiased,
    nearest,
    precision_recall,
)

N, M, D = 53, 71, 7


@pytest.fixture
def sets(generator):
    """Two clouds of other shapes, and not around one point."""
    X, Y = (
        torch.randn(n, D, generator=generator, dtype=torch.float64)
        @ torch.randn(D, D, generator=generator, dtype=torch.float64)
        for n in (N, M)
    )
    return X, Y + 0.7


@pytest.fixture(params=[1024, 10], ids=["at once", "in chunks"])
def chunks(request, monkeypatch):
    """Whatever is in memory at once, the result is the same."""
    monkeypatch.setattr(sample_metrics, "_CHUNK", request.param)


def test_frechet_equals_scipy(sets):
    X, Y = sets
    cov_x, cov_y = np.cov(X.numpy().T), np.cov(Y.numpy().T)
    expected = (
        np.sum((X.mean(0) - Y.mean(0)).numpy() ** 2)
        + np.trace(cov_x)
        + np.trace(cov_y)
        - 2 * np.trace(sqrtm(cov_x @ cov_y)).real
    )
    for A, B in ((X, Y), (Y, X)):
        assert frechet_distance(A, B).item() == pytest.approx(expected, rel=1e-10)


def test_frechet_in_closed_form(sets):
    """A shift adds its square; a scaling by s changes each deviation by (s - 1)."""
    X, _ = sets
    assert frechet_distance(X, X).item() == pytest.approx(0, abs=1e-10)
    shift = torch.arange(D, dtype=torch.float64)
    assert frechet_distance(X, X + shift).item() == pytest.approx(
        shift.square().sum().item()
    )
    grown = X.mean(0) + 3 * (X - X.mean(0))
    spread = X.T.cov().trace().item()
    assert frechet_distance(X, grown).item() == pytest.approx(4 * spread)
    # Fewer items than features: the covariances are singular.
    assert frechet_distance(X[:4], X[:4] + shift).item() == pytest.approx(
        shift.square().sum().item()
    )
    rotated = torch.linalg.qr(sets[1][:D])[0]
    assert frechet_distance(X @ rotated, sets[1] @ rotated).item() == pytest.approx(
        frechet_distance(*sets).item()
    )


def test_kernel_distance_equals_scikit_learn(sets, chunks):
    X, Y = (Z.numpy() for Z in sets)

    def mean(A, B, skip):
        K = polynomial_kernel(A, B, degree=3, gamma=1 / D, coef0=1)
        if skip:
            return (K.sum() - np.trace(K)) / (len(A) * (len(A) - 1))
        return K.mean()

    expected = mean(X, X, True) + mean(Y, Y, True) - 2 * mean(X, Y, False)
    for A, B in (sets, sets[::-1]):
        assert mmd2_unbiased(A, B).item() == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_has_no_bias(generator):
    """Its mean is 0 for two sets of one distribution, even if they are tiny."""
    points = torch.randn(1000, 2, 3, D, generator=generator, dtype=torch.float64)
    found = torch.stack([mmd2_unbiased(X, Y) for X, Y in points])
    error = found.std() / len(found) ** 0.5
    assert found.mean().abs() < 5 * error
    assert found.min() < 0


def test_kernel_means_of_blocks_equal_scikit_learn(sets, chunks):
    X, Y = (Z.numpy() for Z in sets)
    K = polynomial_kernel(X, Y, degree=3, gamma=1 / D, coef0=1)
    assert kernel_mean(X, Y).item() == pytest.approx(K.mean(), rel=1e-10)
    # One item of each set is enough between two sets, and not within one.
    one = polynomial_kernel(X[:1], Y[:1], degree=3, gamma=1 / D, coef0=1)
    assert kernel_mean(X[:1], Y[:1]).item() == pytest.approx(one.item())


def test_the_error_from_halves_is_that_of_independent_samples(generator):
    """For statistics that are no means: the spread over many sets of samples."""
    n, data = 40, torch.randn(300, D, generator=generator, dtype=torch.float64)

    def statistic(X):
        return torch.stack([frechet_distance(X, data), mmd2_unbiased(X, data)])

    points = torch.randn(60, n, D, generator=generator, dtype=torch.float64) + 0.5
    spread = torch.stack([statistic(X) for X in points]).std(0)
    errors = [
        half_sample_errors(
            lambda half, X=X: statistic(X[half]), n, draws=50, generator=generator
        )
        for X in points[:10]
    ]
    ratio = torch.stack(errors).square().mean(0).sqrt() / spread
    assert (ratio > 0.8).all()
    assert (ratio < 1.5).all()  # at n / 2, a term of higher order counts twice


def test_halves_have_no_copies_and_the_generator_decides(generator):
    seen = []

    def statistic(x_half, y_half):
        seen.append((sorted(x_half.tolist()), sorted(y_half.tolist())))
        return float(x_half.sum())

    found = half_sample_errors(statistic, 9, 20, draws=30, generator=generator)
    for x_half, y_half in seen:
        assert len(set(x_half)) == 4
        assert len(set(y_half)) == 10
        assert set(x_half) <= set(range(9))
        assert set(y_half) <= set(range(20))
    assert len({tuple(x_half) for x_half, _ in seen}) > 10
    again = torch.Generator().manual_seed(0)
    assert half_sample_errors(statistic, 9, 20, draws=30, generator=again) == found
    seen.clear()
    half_sample_errors(statistic, 9, 20)
    assert len(seen) == 100
    message = "draws must be a whole number, at least 2, got 1"
    with pytest.raises(ValueError, match=message):
        half_sample_errors(statistic, 9, 20, draws=1)


def test_neighbors_equal_scikit_learn(sets, chunks):
    X, Y = sets
    distance, index = nearest(X, Y, 5)
    search = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(Y.numpy())
    expected = search.kneighbors(X.numpy())
    np.testing.assert_allclose(distance.numpy(), expected[0], rtol=1e-10)
    assert np.array_equal(index.numpy(), expected[1])
    # A copy is found at distance 0 exactly, in float32 too.
    again, where = nearest(Y.float()[3:6] + 1000, Y.float() + 1000)
    assert where.flatten().tolist() == [3, 4, 5]
    assert not again.any()


def test_the_manifold_as_its_definition_says(sets, chunks):
    X, Y = sets
    expected = []
    for x in X:
        inside = False
        for j, y in enumerate(Y):
            others = sorted((y - z).norm() for i, z in enumerate(Y) if i != j)
            inside |= bool((x - y).norm() <= others[2])
        expected.append(inside)
    assert 0 < sum(expected) < N
    assert in_manifold(X, Y, 3).tolist() == expected
    precision, recall = precision_recall(X, Y[:N])
    assert precision == in_manifold(X, Y[:N]).double().mean().item()
    assert recall == in_manifold(Y[:N], X).double().mean().item()


def test_precision_and_recall_measure_two_faults(generator):
    data = torch.randn(400, 2, generator=generator)
    data[200:] += 20
    fresh = torch.randn(400, 2, generator=generator)
    both = fresh + 20 * (torch.arange(400) >= 200)[:, None]
    precision, recall = precision_recall(both, data)
    assert precision > 0.9
    assert recall > 0.9
    precision, recall = precision_recall(fresh, data)  # one half is never seen
    assert precision > 0.9
    assert 0.4 < recall < 0.5
    precision, recall = precision_recall(20 * both, data)
    assert precision < 0.05


def test_arrays_are_taken_too(sets):
    X, Y = sets
    for function in (frechet_distance, mmd2_unbiased):
        assert torch.equal(function(X.numpy(), Y.numpy()), function(X, Y))
    assert precision_recall(X.numpy(), Y[:N].numpy()) == precision_recall(X, Y[:N])


X, Y, ONE = torch.zeros(11, D), torch.ones(13, D), torch.ones(1, D)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (frechet_distance, (ONE, Y), r"2 items or more, .* got \(1, 7\) and \(13, 7\)"),
        (frechet_distance, (X, ONE), r"2 items or more, .* got \(11, 7\) and \(1, 7\)"),
        (mmd2_unbiased, (X, ONE), r"2 items or more, .* got \(11, 7\) and \(1, 7\)"),
        (mmd2_unbiased, (X, Y[:, :2]), r"the same features, got \(11, 7\) and \(13, 2"),
        (frechet_distance, (X, Y[..., None]), r"\(items, features\), .* \(13, 7, 1\)"),
        (nearest, (X, Y[:, :2]), r"the same features, got \(11, 7\) and \(13, 2\)"),
        (nearest, (X, Y, 0), "k must be a whole number, 1 to 13, got 0"),
        (nearest, (X, Y, 14), "k must be a whole number, 1 to 13, got 14"),
        (in_manifold, (X, Y, 0), "k must be a whole number, 1 to 12, got 0"),
        (in_manifold, (X, Y, 13), "k must be a whole number, 1 to 12, got 13"),
        (in_manifold, (X[0], Y), r"\(items, features\), .* got \(7,\) and"),
        (kernel_mean, (ONE,), r"2 items or more, .* got \(1, 7\) and \(1, 7\)"),
        (half_sample_errors, (len, 3), "items must be a whole number, at least 4, got"),
        (precision_recall, (X, Y), "expected as many samples as data, 13, got 11"),
    ],
)
def test_what_is_refused(as_users_run, function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
