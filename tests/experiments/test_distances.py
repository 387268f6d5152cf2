"""Distances of parts of a set of samples, against those of each part by itself."""

import pytest
import torch

from dian.diffusion import sample_metrics
from dian.experiments.diffusion.distances import METRICS, Reference, SampleDistances


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_part_has_the_distances_of_a_set_of_its_own(dtype):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(23, 5, generator=generator, dtype=dtype)
    Y = 1.2 * torch.randn(41, 5, generator=generator, dtype=dtype) + 0.1
    distances = SampleDistances(X, Reference(Y, 23))
    assert 0 < distances(torch.arange(11))[2:].min() < 1
    for size in (23, 11):
        part = torch.randperm(23, generator=generator)[:size]
        expected = [
            sample_metrics.frechet_distance(X[part], Y).item(),
            sample_metrics.mmd2_unbiased(X[part], Y).item(),
            sample_metrics.in_manifold(X[part], Y[:23]).double().mean().item(),
            sample_metrics.in_manifold(Y[:23], X[part]).double().mean().item(),
        ]
        assert len(expected) == len(METRICS)
        assert distances(part).tolist() == pytest.approx(expected, rel=1e-5)
