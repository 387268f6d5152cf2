"""`dian.attention.score_statistics` against sums over all pairs."""

import math

import torch

from dian.attention.score_statistics import entropy, score_moments


def test_moments_of_every_pair(generator):
    q = torch.randn(5, 3, generator=generator, dtype=torch.float64) + 1
    k = torch.randn(7, 3, generator=generator, dtype=torch.float64) - 2
    products = [float(a @ b) for a in q for b in k]
    mean = sum(products) / 35
    variance = sum((x - mean) ** 2 for x in products) / 35
    covariances = [x.T.cov(correction=0) for x in (q, k)]
    found = score_moments(q.mean(0), k.mean(0), *covariances)
    expected = torch.tensor([mean, variance], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(found), expected)


def test_entropy_of_even_weights_and_of_one():
    p = torch.zeros(2, 8)
    p[0] = 1 / 8
    p[1, 3] = 1
    torch.testing.assert_close(entropy(p), torch.tensor([math.log(8), 0.0]))
