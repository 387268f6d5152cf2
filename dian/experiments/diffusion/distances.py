"""Distances between samples and data, and those of many random halves, quickly."""

import torch
from torch import Tensor

from dian.diffusion import sample_metrics

METRICS = ("frechet", "kernel", "precision", "recall")


class Reference:
    """The features of real images that samples are compared with.

    Parameters
    ----------
    data
        All of them, for the Fréchet distance and the KID.
    n
        The number of samples that are compared: precision and recall use as many real
        images, the first ones.
    """

    def __init__(self, data: Tensor, n: int):
        self.data, self.equal = data, data[:n]
        self.kernel = sample_metrics.kernel_mean(data)


class SampleDistances:
    """The distances between a set of samples, or a part of it, and real images.

    What does not depend on the part is computed once: each random half then takes a
    fraction of a second with thousands of samples.

    Parameters
    ----------
    X
        Features of the samples.
    reference
        Those of the real images.

    Examples
    --------
    >>> X = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])
    >>> distances = SampleDistances(X, Reference(X, 5))
    >>> distances(torch.arange(5))[[0, 2, 3]]  # Fréchet distance, precision, recall
    tensor([0., 1., 1.], dtype=torch.float64)
    """

    def __init__(self, X: Tensor, reference: Reference):
        self.X, self.reference = X, reference
        data, equal = reference.data, reference.equal
        self.between = _kernel_rows(X, data)
        self.inside = sample_metrics.in_manifold(X, equal)
        # Not by |x|² + |y|² - 2xy: equal points would not be at distance 0.
        exact = {"compute_mode": "donot_use_mm_for_euclid_dist"}
        self.among = torch.cdist(X, X, **exact)
        self.from_data = torch.cdist(equal, X, **exact)

    def __call__(self, part: Tensor, k: int = 3) -> Tensor:
        """Return all :data:`METRICS` of the samples with these indices."""
        X = self.X[part]
        kernel = sample_metrics.kernel_mean(X) + self.reference.kernel
        # As in `in_manifold`; the nearest of all is the sample itself.
        among = self.among[part][:, part]
        radius = among.topk(k + 1, largest=False)[0][:, -1]
        values = (
            sample_metrics.frechet_distance(X, self.reference.data),
            kernel - 2 * self.between[part].mean(),
            self.inside[part].double().mean(),
            (self.from_data[:, part] <= radius).any(1).double().mean(),
        )
        return torch.stack(values)


def _kernel_rows(X: Tensor, Y: Tensor) -> Tensor:
    """Return the mean over ``Y`` of the kernel of the KID, for each item of ``X``."""
    Y, d = Y.double(), X.shape[1]
    parts = ((x.double() @ Y.T / d + 1) ** 3 for x in X.split(1000))
    return torch.cat([part.mean(1) for part in parts])
