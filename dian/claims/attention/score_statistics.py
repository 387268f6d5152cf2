"""Variance of attention scores and entropy of attention weights."""

import math

import torch

from dian.attention import dot_product, score_statistics
from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative

VASWANI = (
    "Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762, section 3.2.1"
)


@claim(
    "A1",
    "Variance of the score",
    equations=("eq-score-variance", "eq-score-moments", "eq-score-dependent"),
    kinds="E M",
    tolerance=1e-10,
    source=VASWANI + ", footnote 4",
    assumptions="query and key are independent, except in the last equation, where "
    "they are Gaussian",
    subjects=(score_statistics,),
    mutants=(
        Mutant("the means are missing", "score_moments",
               "mean_q @ cov_k @ mean_q", "0"),
        Mutant("each mean with its own covariance", "score_moments",
               "mean_q @ cov_k @ mean_q", "mean_q @ cov_q @ mean_q"),
        Mutant("the product of the traces", "score_moments",
               "(cov_q * cov_k.T).sum()", "cov_q.trace() * cov_k.trace()"),
        Mutant("only the diagonals", "score_moments",
               "(cov_q * cov_k.T).sum()", "cov_q.diag() @ cov_k.diag()"),
        Mutant("correlated entries count as independent", "score_variance",
               "d * (1 - r) ** 2 + 2 * r * d * (1 - r) + r**2 * d**2", "d",
               module=__name__),
        Mutant("a key equal to the query counts as independent", "score_variance",
               "(d, 2 * d)", "(0, d)", module=__name__),
        Mutant("the variance of paired entries", "score_variance",
               "d * (1 + c**2)", "d", module=__name__),
    ),
)  # fmt: skip
def score_variance() -> float:
    """All pairs of two finite sets; closed forms; samples within 5 standard errors."""
    n, m, d = 7, 11, 5
    mean, mix, q, k = normal(0, (2, d), (2, d, d), (n, d), (m, d))
    q, k = q @ mix[0] + mean[0], k @ mix[1] + mean[1]
    # All pairs of n queries and m keys: they are independent, exactly.
    products = (q @ k.T).flatten()
    covariances = [x.T.cov(correction=0) for x in (q, k)]
    found = score_statistics.score_moments(q.mean(0), k.mean(0), *covariances)
    expected = products.mean(), products.var(correction=0)
    residuals = [abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True)]

    d, r, c, n_draw = 64, 0.5, 0.6, 20_000
    alike = (1 - r) * torch.eye(d).double() + r * torch.ones(d, d).double()
    _, variance = score_statistics.score_moments(
        *torch.zeros(2, d).double(), alike, alike
    )
    closed = d * (1 - r) ** 2 + 2 * r * d * (1 - r) + r**2 * d**2
    residuals.append(abs(variance / closed - 1))

    x, y = normal(1, (n_draw, d), (n_draw, d))
    cases = [
        (x, y, (0, d)),
        (x, x, (d, 2 * d)),
        (x, c * x + (1 - c**2) ** 0.5 * y, (c * d, d * (1 + c**2))),
    ]
    for q, k, (mean, variance) in cases:
        s = (q * k).sum(1)
        squares = (s - mean) ** 2
        for sample, value in ((s, mean), (squares, variance)):
            error = sample.std() / n_draw**0.5
            residuals.append(holds(bool(abs(sample.mean() - value) < 5 * error)))
    return largest(residuals)


@claim(
    "A2",
    "Entropy of the weights",
    equations=("eq-score-entropy",),
    kinds="Q M E",
    tolerance=1e-3,
    source=VASWANI,
    assumptions="scores are independent and Gaussian, and their variance is much less "
    "than twice the logarithm of the number of keys. The residual is relative to half "
    "the variance",
    subjects=(dot_product, score_statistics),
    mutants=(
        Mutant("divided by d", "scaled_dot_product_attention",
               "math.sqrt(Q.shape[-1])", "Q.shape[-1]"),
        Mutant("not divided", "scaled_dot_product_attention",
               "(Q / math.sqrt(Q.shape[-1])) @ K.mT", "Q @ K.mT"),
        Mutant("divided by the root of d - 1", "scaled_dot_product_attention",
               "math.sqrt(Q.shape[-1])", "math.sqrt(Q.shape[-1] - 1)"),
        Mutant("in bits", "entropy",
               "-torch.xlogy(p, p).sum(-1)",
               "-torch.xlogy(p, p).sum(-1) / torch.tensor(2.0).log()",
               module=score_statistics),
        Mutant("the minus sign is missing", "entropy",
               "-torch.xlogy(p, p).sum(-1)", "torch.xlogy(p, p).sum(-1)",
               module=score_statistics),
        Mutant("zero times its logarithm is NaN", "entropy",
               "torch.xlogy(p, p)", "(p * p.log())", module=score_statistics),
    ),
)  # fmt: skip
def weight_entropy() -> float:
    """Quantiles of the normal distribution as scores, random scores, and the limit."""
    n_key, d = 2**18, 67
    quantiles = torch.special.ndtri((torch.arange(n_key).double() + 0.5) / n_key)
    (direction,) = normal(0, (d,))
    direction = direction / direction.norm()
    residuals = []
    # The scores of this query are the quantiles times a standard deviation.
    for variance in (1.0, 0.5, 0.25):
        Q, K = (variance * d) ** 0.5 * direction[None], quantiles[:, None] * direction
        _, P = dot_product.scaled_dot_product_attention(Q, K, K[:, :1])
        reduction = math.log(n_key) - score_statistics.entropy(P).item()
        residuals.append(abs(reduction / (variance / 2) - 1))
    return largest([*residuals, random_scores(), known_entropies()])


def random_scores() -> float:
    """Compare random keys with the law, and with where it reaches zero.

    With n keys the mean of the entropy is off by the order of 1/n, which is added to
    five standard errors. At a variance of 2 ln n the law says 0, which no entropy is.
    """
    n_draw, n_key, d = 64, 4096, 13
    Q, K = normal(0, (n_draw, 1, d), (n_draw, n_key, d))
    # With queries of norm sqrt(d) the scores are exactly Gaussian, of variance 1.
    Q = d**0.5 * Q / Q.norm(dim=-1, keepdim=True)
    statements = []
    for variance in (1.0, 0.5):
        _, P = dot_product.scaled_dot_product_attention(
            variance**0.5 * Q, K, K[..., :1]
        )
        H = score_statistics.entropy(P)
        allowed = 5 * H.std().item() / n_draw**0.5 + 10 / n_key
        away = abs(H.mean().item() - (math.log(n_key) - variance / 2))
        statements += [away < allowed, allowed < 0.05 * variance / 2]
    _, P = dot_product.scaled_dot_product_attention(
        math.sqrt(2 * math.log(n_key)) * Q, K, K[..., :1]
    )
    statements.append(score_statistics.entropy(P).mean().item() > 1)
    return holds(all(statements))


def known_entropies() -> float:
    """Compare with torch.distributions; weights of zero add nothing."""
    (scores,) = normal(1, (5, 7))
    p = scores.softmax(-1)
    expected = torch.distributions.Categorical(probs=p).entropy()
    one_hot = torch.eye(7, dtype=torch.float64)
    return largest(
        [
            1e6 * relative(score_statistics.entropy(p), expected),
            score_statistics.entropy(one_hot).abs().max(),
        ]
    )
