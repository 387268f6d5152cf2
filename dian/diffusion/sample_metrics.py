r"""How far a set of samples is from a set of data, in the features of a network.

Samples are compared with data in the features that a classifier computes of both, since
a distance between pixels says little. All numbers depend on these features and on how
many samples there are: only numbers of the same features and of as many samples can be
compared, and beside each belongs the *floor*, what real data of the same number reach.

Axis names: ``n`` and ``m`` are samples and data, ``d`` features of one.
"""

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

_CHUNK = 1024  # rows of a matrix of distances that are in memory at once


def frechet_distance(
    X: Float[Tensor, "n d"], Y: Float[Tensor, "m d"]
) -> Float64[Tensor, ""]:
    r"""Return the distance of the two normal distributions fitted to the sets.

    .. math::

        \lVert \mu_X - \mu_Y \rVert^2 + \operatorname{tr}\left(\Sigma_X + \Sigma_Y
        - 2\,(\Sigma_X^{1/2} \Sigma_Y \Sigma_X^{1/2})^{1/2}\right)

    Parameters
    ----------
    X, Y
        Features of the two sets; which is which does not matter.

    Raises
    ------
    ValueError
        If a set has fewer than two items, or they have not the same features.

    Notes
    -----
    It is the square of a Wasserstein distance. Heusel et al., *GANs trained by a two
    time-scale update rule converge to a local Nash equilibrium*, 2017,
    arXiv:1706.08500, take the features of a network trained on photographs; the name
    FID belongs to those. Computed in float64, since the roots of a matrix that is
    nearly singular lose half of all digits.

    Examples
    --------
    >>> X = torch.tensor([[-1.0], [1.0]])
    >>> frechet_distance(X, X + 3).item()
    9.0
    """
    _check(X, Y, least=2)
    X, Y = X.double(), Y.double()
    cov_x, cov_y = (torch.atleast_2d(Z.T.cov()) for Z in (X, Y))
    values, vectors = torch.linalg.eigh(cov_x)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    both = torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sqrt().sum()
    apart = (X.mean(0) - Y.mean(0)).square().sum()
    return apart + cov_x.trace() + cov_y.trace() - 2 * both


def mmd2_unbiased(
    X: Float[Tensor, "n d"], Y: Float[Tensor, "m d"]
) -> Float64[Tensor, ""]:
    r"""Return the squared maximum mean discrepancy for :math:`k = (x^\top y/d + 1)^3`.

    .. math::

        \frac{1}{n(n-1)} \sum_{i \ne j} k(x_i, x_j)
        + \frac{1}{m(m-1)} \sum_{i \ne j} k(y_i, y_j)
        - \frac{2}{nm} \sum_{i, j} k(x_i, y_j)

    Its mean over sets from one distribution is 0, however few there are, so it may come
    out below 0.

    Parameters
    ----------
    X, Y
        Features of the two sets; which is which does not matter.

    Raises
    ------
    ValueError
        If a set has fewer than two items, or they have not the same features.

    Notes
    -----
    Bińkowski et al., *Demystifying MMD GANs*, 2018, arXiv:1801.01401.

    Examples
    --------
    >>> X = torch.tensor([[0.0], [0.0]])
    >>> mmd2_unbiased(X, X + 1).item()  # 1 + 8 - 2
    7.0
    """
    _check(X, Y, least=2)
    X, Y = X.double(), Y.double()

    def total(A: Tensor, B: Tensor) -> Tensor:
        parts = [((a @ B.T / A.shape[1] + 1) ** 3).sum() for a in A.split(_CHUNK)]
        return torch.stack(parts).sum()

    def within(A: Tensor) -> Tensor:
        n = len(A)
        itself = ((A.square().sum(1) / A.shape[1] + 1) ** 3).sum()
        return (total(A, A) - itself) / (n * (n - 1))

    return within(X) + within(Y) - 2 * total(X, Y) / (len(X) * len(Y))


def nearest(
    X: Float[Tensor, "n d"], Y: Float[Tensor, "m d"], k: int = 1
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Find the ``k`` items of ``Y`` that are nearest to each of ``X``.

    Parameters
    ----------
    X, Y
        What to search for, and what to search in: features, or pixels.
    k
        How many.

    Returns
    -------
    distance, index
        Euclidean distances, the least first, and where in ``Y`` each item stands.

    Raises
    ------
    ValueError
        If ``Y`` has fewer than ``k`` items, or the sets have not the same features.

    Examples
    --------
    >>> distance, index = nearest(torch.zeros(1, 2), torch.tensor([[3.0, 4], [6, 8]]))
    >>> distance.item(), index.item()
    (5.0, 0)
    """
    _check(X, Y)
    if not 1 <= k <= len(Y):
        raise ValueError(f"k must be 1 to {len(Y)}, the items of Y, got {k}")
    # Not by products, |x|² + |y|² - 2xy: what is equal would not be at distance 0.
    exact = {"compute_mode": "donot_use_mm_for_euclid_dist"}
    found = [torch.cdist(x, Y, **exact).topk(k, largest=False) for x in X.split(_CHUNK)]
    distance, index = (torch.cat(parts) for parts in zip(*found, strict=True))
    return distance, index


def in_manifold(
    X: Float[Tensor, "n d"], Y: Float[Tensor, "m d"], k: int = 3
) -> Bool[Tensor, "n"]:
    """Tell which items of ``X`` are among ``Y``.

    That is: within the ball around some item of ``Y`` whose radius is the distance to
    that item's ``k``-th neighbour in ``Y``, not counting itself.

    Parameters
    ----------
    X, Y
        The points to judge, and the set whose extent the balls make up.
    k
        Which neighbour sets the radius.

    Raises
    ------
    ValueError
        If no item of ``Y`` has a ``k``-th neighbour, or the sets have not the same
        features.

    Examples
    --------
    >>> Y = torch.tensor([[0.0], [1.0], [2.0]])
    >>> in_manifold(torch.tensor([[2.5], [3.5]]), Y, k=1)
    tensor([ True, False])
    """
    _check(X, Y)
    if not 1 <= k < len(Y):
        raise ValueError(
            f"k must be 1 to {len(Y) - 1}, the neighbours of an item of Y, got {k}"
        )
    radius = nearest(Y, Y, k + 1)[0][:, -1]  # the nearest of all is the item itself
    exact = {"compute_mode": "donot_use_mm_for_euclid_dist"}
    parts = [(torch.cdist(x, Y, **exact) <= radius).any(1) for x in X.split(_CHUNK)]
    return torch.cat(parts)


def precision_recall(
    samples: Float[Tensor, "n d"], data: Float[Tensor, "m d"], k: int = 3
) -> tuple[float, float]:
    r"""Return how many samples look like data, and how much of the data is reached.

    Precision is the share of samples that are :func:`in_manifold` by the data: it falls
    when samples are unlike data. Recall is the share of data that are covered by the
    samples: it falls when the samples miss a part of them.

    Parameters
    ----------
    samples, data
        Their features, of as many samples as data: with more points the balls shrink.
    k
        Which neighbour sets the radius of a ball.

    Raises
    ------
    ValueError
        If they are not as many; and as :func:`in_manifold`.

    Notes
    -----
    Kynkäänniemi et al., *Improved precision and recall metric for assessing generative
    models*, 2019, arXiv:1904.06991, with their :math:`k = 3`.

    Examples
    --------
    Samples that are real, but all of one kind:

    >>> data = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    >>> precision_recall(torch.tensor([[0.0], [0.5], [1.0], [0.2]]), data, k=1)
    (1.0, 0.5)
    """
    if len(samples) != len(data):
        raise ValueError(
            f"samples must be as many as data, {len(data)}, got {len(samples)}"
        )
    precision = in_manifold(samples, data, k).double().mean().item()
    recall = in_manifold(data, samples, k).double().mean().item()
    return precision, recall


def _check(X: Tensor, Y: Tensor, least: int = 1) -> None:
    for name, features in (("X", X), ("Y", Y)):
        if len(features) < least:
            raise ValueError(
                f"{name} must hold {least} items or more, got {len(features)}"
            )
    if X.ndim != 2 or X.shape[1:] != Y.shape[1:]:
        raise ValueError(
            "X and Y must be (items, features) with the same features, got "
            f"{tuple(X.shape)} and {tuple(Y.shape)}"
        )
