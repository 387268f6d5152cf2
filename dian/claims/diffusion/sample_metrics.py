r"""Chapter 4: the metrics that compare samples with data, and their errors."""

import itertools
import math
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.diffusion import sample_metrics

N, M, D = 23, 31, 5


def clouds(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw two sets of different covariances and means."""
    X, Y, A, B = normal(seed, (N, D), (M, D), (D, D), (D, D))
    return X @ A, Y @ B + 0.7


def refuses(function: Callable, X: Tensor, Y: Tensor) -> bool:
    """Whether a function raises a ValueError if a number of either set is not one."""
    for value in (math.nan, math.inf):
        for i in range(2):
            sets = [X.clone(), Y.clone()]
            sets[i][1, 2] = value
            try:
                function(*sets)
            except ValueError:
                continue
            return False
    return True


def frechet_bias(n: int, m: int, d: int, variance: float) -> float:
    """The mean Fréchet distance of two sets from N(mu, variance I), to first order."""
    means = d * (1 / n + 1 / m)
    covariances = d * (d + 1) / 4 * (1 / (n - 1) + 1 / (m - 1))
    return variance * (means + covariances)


@claim(
    "D18",
    "Fréchet distance of two sets",
    equations=("eq-diffusion-frechet", "eq-diffusion-frechet-bias"),
    kinds="E I M",
    tolerance=1e-10,
    source="Heusel et al., GANs trained by a two time-scale update rule converge to a "
    "local Nash equilibrium, 2017, arXiv:1706.08500; Dowson and Landau, 1982, for the "
    "distance of two Gaussians; the bias is derived on the page",
    assumptions="for the bias: Gaussian features, to first order in 1/n",
    subjects=(sample_metrics,),
    mutants=(
        Mutant("the 2 is missing", "frechet_distance", "2 * both", "both"),
        Mutant("the distance of the means is not squared", "frechet_distance",
               "(X.mean(0) - Y.mean(0)).square().sum()",
               "(X.mean(0) - Y.mean(0)).square().sum().sqrt()"),
        Mutant("the covariances are divided by n", "frechet_distance",
               "Z.T.cov()", "Z.T.cov(correction=0)"),
        Mutant("one covariance is used twice", "frechet_distance",
               "root @ cov_y @ root", "root @ cov_x @ root"),
        Mutant("no root inside the root", "frechet_distance",
               "values.clamp(min=0).sqrt()", "values.clamp(min=0)"),
        Mutant("no root of the product", "frechet_distance",
               "torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sqrt().sum()",
               "torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sum()"),
        Mutant("the roots of the covariances are multiplied", "frechet_distance",
               "torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sqrt().sum()",
               "(cov_x.diag() * cov_y.diag()).sqrt().sum()"),
        Mutant("rounding errors may make it negative", "frechet_distance",
               "distance.clamp(min=0)", "distance"),
        Mutant("infinite features are accepted", "_features",
               "all_finite(X) and all_finite(Y)", "all_finite(X)",
               raises="_LinAlgError"),
        Mutant("computed in 32 bits", "frechet_distance",
               "features.double()", "features.float()"),
        Mutant("only the means are biased", "frechet_bias",
               "means + covariances", "means", module=__name__),
        Mutant("only the covariances are biased", "frechet_bias",
               "means + covariances", "covariances", module=__name__),
    ),
)  # fmt: skip
def frechet() -> float:
    """By hand, and by singular values; its bias falls as 1/n, and it is never negative.

    The trace of the root is the sum of the singular values of the product of both
    centered sets, so that no covariance and no root of a matrix is needed.
    """
    residuals = []
    # Means 1 and 1.5, variances 2 and 3.
    X, Y = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [0.0], [3.0], [3.0]])
    expected = 0.5**2 + 2 + 3 - 2 * math.sqrt(2 * 3)
    residuals.append(abs(sample_metrics.frechet_distance(X, Y) - expected))
    few = clouds(2)[0][:3], clouds(2)[1]  # a singular covariance
    for X, Y in (clouds(0), clouds(1), few):
        centered = [Z - Z.sum(0) / len(Z) for Z in (X, Y)]
        x, y = (Z / math.sqrt(len(Z) - 1) for Z in centered)
        root = torch.linalg.svdvals(x @ y.T).sum()
        apart = ((X.sum(0) / len(X) - Y.sum(0) / len(Y)) ** 2).sum()
        expected = apart + (x**2).sum() + (y**2).sum() - 2 * root
        for pair in ((X, Y), (Y, X)):
            found = sample_metrics.frechet_distance(*pair)
            off = abs(found / expected - 1)
            # The root of an eigenvalue that should be 0 is that of a rounding error.
            residuals.append(off if X is not few[0] else holds(bool(off < 1e-6)))
        halved = X.bfloat16()
        wide = sample_metrics.frechet_distance(halved.double(), Y)
        residuals.append(abs(sample_metrics.frechet_distance(halved, Y) - wide))
        residuals.append(holds(refuses(sample_metrics.frechet_distance, X, Y)))
        for scale in (1.0, 1e3, 1e6):  # the rounding error has either sign
            again = sample_metrics.frechet_distance(scale * X, scale * X)
            residuals.append(holds(bool(again >= 0)))
    n, m, d, repeats = 1500, 2500, 8, 300
    found = torch.stack(
        [
            sample_metrics.frechet_distance(*(3 * Z for Z in normal(k, (n, d), (m, d))))
            for k in range(repeats)
        ]
    ).mean()
    off = abs(found / frechet_bias(n, m, d, variance=9) - 1)
    residuals.append(holds(bool(off < 0.03)))  # three standard errors
    return largest(residuals)


def mmd2(P: Tensor, Q: Tensor) -> float:
    """The squared MMD of two populations, from the formula, pair by pair."""

    def k(x: Tensor, y: Tensor) -> float:
        inner = sum(a * b for a, b in zip(x.tolist(), y.tolist(), strict=True))
        return (inner / len(x) + 1) ** 3

    def mean(A: Tensor, B: Tensor) -> float:
        return sum(k(a, b) for a in A for b in B) / (len(A) * len(B))

    return mean(P, P) + mean(Q, Q) - 2 * mean(P, Q)


def expectation(P: Tensor, Q: Tensor) -> Tensor:
    """The mean of the estimate over all sets of two draws from each population."""

    def draws(population: Tensor) -> list[Tensor]:
        indices = itertools.product(range(len(population)), repeat=2)
        return [population[list(index)] for index in indices]

    pairs = itertools.product(draws(P), draws(Q))
    return torch.stack([sample_metrics.mmd2_unbiased(X, Y) for X, Y in pairs]).mean()


@claim(
    "D18b",
    "Unbiased kernel inception distance",
    equations=("eq-diffusion-kid", "eq-diffusion-mirrored"),
    kinds="E I",
    tolerance=1e-10,
    source="Bińkowski et al., Demystifying MMD GANs, 2018, arXiv:1801.01401; the "
    "effect of mirrored images is derived on the page",
    subjects=(sample_metrics,),
    mutants=(
        Mutant("the 2 is missing", "mmd2_unbiased",
               "2 * kernel_mean(X, Y)", "kernel_mean(X, Y)"),
        Mutant("an item is paired with itself", "kernel_mean",
               "(total - itself) / (n * (n - 1))", "total / (n * n)"),
        Mutant("divided by the number of all pairs", "kernel_mean",
               "(total - itself) / (n * (n - 1))", "(total - itself) / (n * n)"),
        Mutant("the square of the kernel's base", "kernel_mean",
               "(x @ Y.T / d + 1) ** 3", "(x @ Y.T / d + 1) ** 2"),
        Mutant("the inner product is not divided by d", "kernel_mean",
               "x @ Y.T / d + 1", "x @ Y.T + 1"),
        Mutant("the 1 is missing", "kernel_mean", "x @ Y.T / d + 1", "x @ Y.T / d"),
        Mutant("only the first block is summed", "kernel_mean",
               "X.split(_CHUNK)", "X[:_CHUNK].split(_CHUNK)"),
        Mutant("infinite features are accepted", "_features",
               "all_finite(X) and all_finite(Y)", "True"),
        Mutant("half of the images are mirrored, so half of the distance",
               "mirrored_share", "1 / 4", "1 / 2", module=__name__),
    ),
)  # fmt: skip
def kid() -> float:
    """By hand and by loops, in blocks; its mean over all draws is that of populations.

    A perfect model of a set and its mirror images is at a quarter of their distance.
    """
    residuals = []
    X, Y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [3.0], [1.0]])
    expected = 27 + (1 + 1 + 64) / 3 - 2 * (1 + 64 + 8 + 1 + 343 + 27) / 6
    residuals.append(abs(sample_metrics.mmd2_unbiased(X, Y) - expected))
    X, Y = clouds()
    k = [[(torch.dot(a, b) / D + 1) ** 3 for b in (*X, *Y)] for a in (*X, *Y)]
    within_x = sum(k[i][j] for i in range(N) for j in range(N) if i != j)
    within_y = sum(k[N + i][N + j] for i in range(M) for j in range(M) if i != j)
    between = sum(k[i][N + j] for i in range(N) for j in range(M))
    expected = within_x / (N * (N - 1)) + within_y / (M * (M - 1))
    expected -= 2 * between / (N * M)
    for chunk in (5, 1024):
        with patch.object(sample_metrics, "_CHUNK", chunk):
            for pair in ((X, Y), (Y, X)):
                found = sample_metrics.mmd2_unbiased(*pair)
                residuals.append(abs(found / expected - 1))
    one = sample_metrics.kernel_mean(X[:1], Y[:1])
    residuals.append(abs(one / k[0][N] - 1))
    half = X.half()
    wide = sample_metrics.mmd2_unbiased(half.double(), Y)
    residuals.append(abs(sample_metrics.mmd2_unbiased(half, Y) / wide - 1))
    residuals.append(holds(refuses(sample_metrics.mmd2_unbiased, X, Y)))
    P, Q = X[:3] / 2, Y[:2] / 2
    residuals.append(abs(expectation(P, Q) / mmd2(P, Q) - 1))
    residuals.append(abs(expectation(P, P)))
    mirror = P.flip(1)  # any other set of as many
    perfect = expectation(torch.cat([P, mirror]), P)
    residuals.append(abs(perfect / (mirrored_share() * mmd2(P, mirror)) - 1))
    return largest(residuals)


def mirrored_share() -> float:
    """Return the fraction of the squared MMD that is left if half is mirrored."""
    return 1 / 4


@claim(
    "D18c",
    "Improved precision and recall",
    equations=("eq-diffusion-manifold", "eq-diffusion-precision-recall"),
    kinds="E I",
    tolerance=1e-12,
    source="Kynkäänniemi et al., Improved precision and recall metric for assessing "
    "generative models, 2019, arXiv:1904.06991",
    subjects=(sample_metrics,),
    mutants=(
        Mutant("an item is its own first neighbor", "in_manifold", "k + 1", "k"),
        Mutant("the radius is the distance to the first neighbor", "in_manifold",
               "nearest(Y, Y, k + 1)[0][:, -1]", "nearest(Y, Y, k + 1)[0][:, 1]"),
        Mutant("the radius is the distance to the other set", "in_manifold",
               "nearest(Y, Y, k + 1)", "nearest(Y, X, k + 1)"),
        Mutant("the surface of a ball is excluded", "in_manifold",
               "_distances(x, Y) <= radius", "_distances(x, Y) < radius"),
        Mutant("a point has to be in every ball", "in_manifold",
               "(_distances(x, Y) <= radius).any(1)",
               "(_distances(x, Y) <= radius).all(1)"),
        Mutant("the farthest neighbors", "nearest",
               "_distances(x, Y).topk(k, largest=False)",
               "_distances(x, Y).topk(k, largest=True)"),
        Mutant("precision and recall are exchanged", "precision_recall",
               "return (precision, recall)", "return (recall, precision)"),
        Mutant("recall is precision", "precision_recall",
               "in_manifold(data, samples, k)", "in_manifold(samples, data, k)"),
        Mutant("another k for recall", "precision_recall",
               "in_manifold(data, samples, k)", "in_manifold(data, samples, k + 1)"),
        Mutant("the blocks in another order", "in_manifold",
               "X.split(_CHUNK)", "X.split(_CHUNK)[::-1]"),
        Mutant("the blocks of neighbors in another order", "nearest",
               "X.split(_CHUNK)", "X.split(_CHUNK)[::-1]"),
        Mutant("distances with cancellation", "_distances",
               "'donot_use_mm_for_euclid_dist'", "'use_mm_for_euclid_dist'"),
        Mutant("computed in 16 bits", "_features",
               "at_least_float32(torch.as_tensor(features))",
               "torch.as_tensor(features)", raises="NotImplementedError"),
    ),
)  # fmt: skip
def precision_and_recall() -> float:
    """By hand, with points on the surface of a ball, and by loops, in blocks."""
    residuals = []
    Y = torch.tensor([[0.0], [1.0], [3.0]])  # with k = 1 the radii are 1, 1 and 2
    points = torch.tensor([[-1.0], [5.0], [-1.01], [5.01]])
    found = sample_metrics.in_manifold(points, Y, k=1).tolist()
    residuals.append(holds(found == [True, True, False, False]))
    data = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    samples = torch.tensor([[0.0], [0.5], [1.0], [30.0]])
    found = sample_metrics.precision_recall(samples, data, k=1)
    # Of the samples' balls that of 30 is the largest, and reaches down to 1.
    residuals.append(holds(found == (0.75, 1.0)))
    X, Y = clouds(1)
    Y = Y[:N]
    for k, chunk in itertools.product((1, 3), (4, 1024)):
        of_x, of_y = (inside(*sets, k) for sets in ((X, Y), (Y, X)))
        distances = [sorted(math.dist(x, y) for y in Y.tolist()) for x in X.tolist()]
        expected = torch.tensor(distances, dtype=torch.float64)[:, :k]
        # The recorded runs leave k at 3.
        neighbors = {} if k == 3 else {"k": k}
        with patch.object(sample_metrics, "_CHUNK", chunk):
            residuals.append(relative(sample_metrics.nearest(X, Y, k)[0], expected))
            found = sample_metrics.in_manifold(X, Y, **neighbors)
            pair = sample_metrics.precision_recall(X, Y, **neighbors)
        residuals.append(holds(found.tolist() == of_x))
        residuals += [abs(pair[0] - sum(of_x) / N), abs(pair[1] - sum(of_y) / N)]
        residuals.append(holds(0 < sum(of_x) != sum(of_y) < N))
    # Far from the origin: a copy is at distance 0 in float32.
    far = (Y + 1000).float()
    distance, index = sample_metrics.nearest(far[3:6], far)
    residuals += [distance.abs().max(), holds(index.tolist() == [[3], [4], [5]])]
    half = X.bfloat16()
    wide = sample_metrics.nearest(half.float(), Y.bfloat16().float())[0]
    narrow = sample_metrics.nearest(half, Y.bfloat16())[0]
    residuals.append(relative(narrow.double(), wide.double()))
    residuals.append(holds(refuses(sample_metrics.precision_recall, X, Y)))
    return largest(residuals)


def inside(points: Tensor, centers: Tensor, k: int) -> list[bool]:
    """Which points are in a ball around a center, as the definition says."""
    centers = centers.tolist()
    radii = []
    for i, y in enumerate(centers):
        others = [math.dist(y, z) for j, z in enumerate(centers) if j != i]
        radii.append(sorted(others)[k - 1])
    balls = list(zip(centers, radii, strict=True))
    return [any(math.dist(x, y) <= r for y, r in balls) for x in points.tolist()]


@claim(
    "D18d",
    "Standard errors from random halves",
    equations=("eq-diffusion-half-samples",),
    kinds="E M",
    tolerance=0.04,
    source="Shao and Wu, A general theory for jackknife variance estimation, The "
    "Annals of Statistics 17, 1989: the delete-d jackknife with d = n/2",
    assumptions="independent samples; exact for means",
    subjects=(sample_metrics,),
    mutants=(
        Mutant("a quarter of the items", "half_sample_errors", "n // 2", "n // 4"),
        Mutant("drawn with replacement, as in a bootstrap", "half_sample_errors",
               "torch.randperm(n, generator=generator)[:n // 2]",
               "torch.randint(n, (n // 2,), generator=generator)"),
        Mutant("the variance, not its root", "half_sample_errors",
               "at_least_float32(torch.stack(found)).std(0)",
               "at_least_float32(torch.stack(found)).var(0)"),
        Mutant("the error of the mean of all halves", "half_sample_errors",
               "at_least_float32(torch.stack(found)).std(0)",
               "at_least_float32(torch.stack(found)).std(0) / draws**0.5"),
        Mutant("the same halves every time", "half_sample_errors",
               "torch.randperm(n, generator=generator)",
               "torch.randperm(n, generator=torch.Generator().manual_seed(0))"),
        Mutant("the halves of one set for both", "mean_difference",
               "Y[half_of_y]", "Y[half_of_x]", module=__name__),
    ),
)  # fmt: skip
def half_samples() -> float:
    """All halves give the error of a mean exactly; random ones nearly, also paired."""
    x = normal(3, (8,))[0]
    halves = [x[list(half)] for half in itertools.combinations(range(8), 4)]
    means = torch.stack([half.sum() / 4 for half in halves])
    exact = x.var() / 8
    residuals = [abs(means.var(correction=0) / exact - 1)]
    X, Y = normal(4, (60,), (60,))
    Y = 2 * X + 0.3 * Y  # correlated, so that pairing makes a difference
    generator = torch.Generator().manual_seed(0)
    options = {"draws": 5000, "generator": generator}
    found = sample_metrics.half_sample_errors(
        lambda half: torch.stack([X[half].mean(), (Y - X)[half].mean()]), 60, **options
    )
    expected = torch.stack([X.std(), (Y - X).std()]) / 60**0.5
    residuals.append((found / expected - 1).abs().max())
    unpaired = sample_metrics.half_sample_errors(
        mean_difference(X, Y), 60, 60, **options
    )
    expected = ((X.var() + Y.var()) / 60) ** 0.5
    residuals.append(abs(unpaired / expected - 1))
    return largest(residuals)


def mean_difference(X: Tensor, Y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The difference of the means of two sets, of which halves are drawn separately."""
    return lambda half_of_x, half_of_y: Y[half_of_y].mean() - X[half_of_x].mean()
