r"""Distances between a set of samples and a set of data, by the features of a network.

Distances between pixels say little about content, so both sets are represented by the
features that a classifier computes. All values depend on these features and on the
number of samples. Therefore compare only values with the same features and the same
number of samples. Report each together with its standard error
(:func:`half_sample_errors`) and with the value of a reference: equally many real
images, transformed in the same way as the training data.

Axis names: ``n`` and ``m`` are samples and data, ``d`` their features.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from dian.errors import require, require_whole
from dian.numerics import all_finite, at_least_float32

Array = Tensor | np.ndarray
_CHUNK = 1024  # rows of a matrix of distances that are in memory at once


def frechet_distance(
    X: Float[Array, "n d"], Y: Float[Array, "m d"]
) -> Float64[Tensor, ""]:
    r"""Return the Fréchet distance of the normal distributions fitted to two sets.

    .. math::

        \lVert \mu_X - \mu_Y \rVert^2 + \operatorname{tr}\left(\Sigma_X + \Sigma_Y
        - 2\,(\Sigma_X^{1/2} \Sigma_Y \Sigma_X^{1/2})^{1/2}\right)

    Parameters
    ----------
    X, Y
        Features of the two sets, at least two items each. The order does not matter.

    Notes
    -----
    It is the squared Wasserstein distance of the two normal distributions. Heusel et
    al., *GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium*, 2017, arXiv:1706.08500, use the features of a network trained on
    photographs: only those values are called FID. The distance is computed in float64,
    because the square root of a nearly singular matrix loses half of the digits.

    Examples
    --------
    >>> X = torch.tensor([[-1.0], [1.0]])
    >>> frechet_distance(X, X + 3).item()
    9.0
    """
    X, Y = (features.double() for features in _features(X, Y, least=2))
    cov_x, cov_y = (torch.atleast_2d(Z.T.cov()) for Z in (X, Y))
    values, vectors = torch.linalg.eigh(cov_x)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    both = torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sqrt().sum()
    apart = (X.mean(0) - Y.mean(0)).square().sum()
    distance = apart + cov_x.trace() + cov_y.trace() - 2 * both
    return distance.clamp(min=0)  # of equal sets, rounding would be all that is left


def mmd2_unbiased(
    X: Float[Array, "n d"], Y: Float[Array, "m d"]
) -> Float64[Tensor, ""]:
    r"""Return the unbiased squared maximum mean discrepancy, as in the KID.

    .. math::

        \frac{1}{n(n-1)} \sum_{i \ne j} k(x_i, x_j)
        + \frac{1}{m(m-1)} \sum_{i \ne j} k(y_i, y_j)
        - \frac{2}{nm} \sum_{i, j} k(x_i, y_j), \qquad k = (x^\top y/d + 1)^3

    For two sets from the same distribution its expectation is 0, whatever their sizes.
    Therefore a single value may be negative.

    Parameters
    ----------
    X, Y
        Features of the two sets, at least two items each. The order does not matter.

    Notes
    -----
    Bińkowski et al., *Demystifying MMD GANs*, 2018, arXiv:1801.01401.

    Examples
    --------
    >>> X = torch.tensor([[0.0], [0.0]])
    >>> mmd2_unbiased(X, X + 1).item()  # 1 + 8 - 2
    7.0
    """
    _features(X, Y, least=2)
    return kernel_mean(X) + kernel_mean(Y) - 2 * kernel_mean(X, Y)


def kernel_mean(
    X: Float[Array, "n d"], Y: Float[Array, "m d"] | None = None
) -> Float64[Tensor, ""]:
    r"""Return the mean of the kernel of the KID over pairs of items.

    It is a term of :func:`mmd2_unbiased`, for callers that compare many sets of samples
    with the same data.

    Parameters
    ----------
    X
        Features of a set of two items or more.
    Y
        Features of another set; the mean is over all pairs of an item of ``X`` and one
        of ``Y``. Default: over all pairs of different items of ``X``.

    Examples
    --------
    >>> kernel_mean(torch.tensor([[1.0], [2.0]])).item()  # (1 * 2 / 1 + 1)^3
    27.0
    """
    same, least = Y is None, 2 if Y is None else 1
    X, Y = (F.double() for F in _features(X, X if same else Y, least))
    n, d = X.shape
    total = torch.stack([((x @ Y.T / d + 1) ** 3).sum() for x in X.split(_CHUNK)]).sum()
    if not same:
        return total / (n * len(Y))
    itself = ((X.square().sum(1) / d + 1) ** 3).sum()
    return (total - itself) / (n * (n - 1))


def nearest(
    X: Float[Array, "n d"], Y: Float[Array, "m d"], k: int = 1
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Find the ``k`` nearest neighbors in ``Y`` of each item of ``X``.

    Parameters
    ----------
    X, Y
        The items to search for, and to search in: features, or pixels.
    k
        Number of neighbors.

    Returns
    -------
    distance, index
        Euclidean distances in increasing order, and the positions in ``Y``.

    Examples
    --------
    >>> distance, index = nearest(torch.zeros(1, 2), torch.tensor([[3.0, 4], [6, 8]]))
    >>> distance.item(), index.item()
    (5.0, 0)
    """
    X, Y = _features(X, Y)
    require_whole("k", k, 1, len(Y))
    found = [_distances(x, Y).topk(k, largest=False) for x in X.split(_CHUNK)]
    distance, index = (torch.cat(parts) for parts in zip(*found, strict=True))
    return distance, index


def in_manifold(
    X: Float[Array, "n d"], Y: Float[Array, "m d"], k: int = 3
) -> Bool[Tensor, "n"]:
    """Find which items of ``X`` lie in the k-nearest-neighbor manifold of ``Y``.

    The manifold is the union of balls around the items of ``Y``; the radius of each is
    the distance to the ``k``-th neighbor in ``Y``, not counting the item itself.

    Parameters
    ----------
    X, Y
        The points to classify, and the set that spans the manifold.
    k
        The neighbor that sets the radius.

    Examples
    --------
    >>> Y = torch.tensor([[0.0], [1.0], [2.0]])
    >>> in_manifold(torch.tensor([[2.5], [3.5]]), Y, k=1)
    tensor([ True, False])
    """
    X, Y = _features(X, Y)
    require_whole("k", k, 1, len(Y) - 1)
    radius = nearest(Y, Y, k + 1)[0][:, -1]  # the nearest of all is the item itself
    return torch.cat([(_distances(x, Y) <= radius).any(1) for x in X.split(_CHUNK)])


def precision_recall(
    samples: Float[Array, "n d"], data: Float[Array, "m d"], k: int = 3
) -> tuple[float, float]:
    r"""Return improved precision and recall.

    Precision is the fraction of samples that are :func:`in_manifold` of the data: it
    falls if samples are unlike data. Recall is the fraction of data in the manifold of
    the samples: it falls if the samples miss a part of the data.

    Parameters
    ----------
    samples, data
        Their features. Both sets must have the same size, because the balls shrink with
        more points.
    k
        The neighbor that sets the radius of a ball.

    Notes
    -----
    Kynkäänniemi et al., *Improved precision and recall metric for assessing generative
    models*, 2019, arXiv:1904.06991, with their :math:`k = 3`.

    Examples
    --------
    Samples that are realistic, but similar to half of the data only:

    >>> data = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    >>> precision_recall(torch.tensor([[0.0], [0.5], [1.0], [0.2]]), data, k=1)
    (1.0, 0.5)
    """
    n = len(data)
    message = f"expected as many samples as data, {n}, got {len(samples)}"
    require(len(samples) == n, message)
    precision = in_manifold(samples, data, k).double().mean().item()
    recall = in_manifold(data, samples, k).double().mean().item()
    return precision, recall


def half_sample_errors(
    statistic: Callable[..., Tensor | float],
    *sizes: int,
    draws: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Estimate the standard error of a statistic from random halves of the samples.

    .. math::

        \widehat{\operatorname{se}}^2 = \frac{1}{B - 1} \sum_{b=1}^{B}
        \bigl(\theta(S_b) - \bar\theta\bigr)^2, \qquad S_b \subset \{1, \dots, n\},
        \quad \lvert S_b \rvert = n / 2

    The mean of a random half, drawn without replacement, varies around the mean of all
    items with variance :math:`(1 - \tfrac12)\, s^2 / (n/2) = s^2 / n`: this is the
    squared standard error of the mean of all, so nothing has to be rescaled. Unlike the
    bootstrap, the halves contain no item twice. A copy would be a neighbor at distance
    0, which shrinks the balls of :func:`in_manifold` and adds pairs of equal items to
    :func:`mmd2_unbiased`.

    Parameters
    ----------
    statistic
        Takes the indices of a half of each set, and returns one or more numbers. For
        the error of a difference of two statistics of the same items, return the
        difference.
    sizes
        Number of items of each set of which halves are drawn, four or more.
    draws
        Number of halves, :math:`B`: the estimate has a relative error of about
        :math:`1 / \sqrt{2B}`.
    generator
        The source of the halves.

    Notes
    -----
    The delete-d jackknife with d = n/2 of Shao and Wu, *A general theory for jackknife
    variance estimation*, The Annals of Statistics 17, 1989.

    Examples
    --------
    >>> x = torch.arange(100.0)
    >>> generator = torch.Generator().manual_seed(0)
    >>> half_sample_errors(lambda half: x[half].mean(), 100, draws=4000,
    ...                    generator=generator), x.std() / 10
    (tensor(2.9...), tensor(2.9...))
    """
    require_whole("draws", draws, 2)
    for n in sizes:
        require_whole("the number of items", n, 4)
    found = []
    for _ in range(draws):
        halves = [torch.randperm(n, generator=generator)[: n // 2] for n in sizes]
        found.append(torch.as_tensor(statistic(*halves)))
    return at_least_float32(torch.stack(found)).std(0)


def _distances(x: Tensor, Y: Tensor) -> Tensor:
    # Not by |x|² + |y|² - 2xy: equal points would not be at distance 0.
    return torch.cdist(x, Y, compute_mode="donot_use_mm_for_euclid_dist")


def _features(X: Array, Y: Array, least: int = 1) -> tuple[Tensor, Tensor]:
    X, Y = (at_least_float32(torch.as_tensor(features)) for features in (X, Y))
    same = X.ndim == Y.ndim == 2 and X.shape[1] == Y.shape[1]
    require(
        same and min(len(X), len(Y)) >= least,
        f"X and Y must be (items, features), {least} items or more, with the same "
        f"features, got {tuple(X.shape)} and {tuple(Y.shape)}",
    )
    require(all_finite(X) and all_finite(Y), "X and Y must be finite")
    return X, Y
