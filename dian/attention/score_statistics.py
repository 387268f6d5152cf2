r"""Mean and variance of attention scores, and the entropy of attention weights.

Axis names: ``d``, dimension of a query and of a key; ``*batch``, any leading axes.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dian.numerics import widened


@widened
def score_moments(
    mean_q: Float[Tensor, "d"],
    mean_k: Float[Tensor, "d"],
    cov_q: Float[Tensor, "d d"],
    cov_k: Float[Tensor, "d d"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""Return mean and variance of :math:`q \cdot k` for independent q and k.

    .. math::

        \mathbb E[q \cdot k] = \mu_q \cdot \mu_k, \qquad
        \operatorname{Var}(q \cdot k) = \operatorname{tr}(\Sigma_q \Sigma_k)
        + \mu_q^\top \Sigma_k\, \mu_q + \mu_k^\top \Sigma_q\, \mu_k

    Parameters
    ----------
    mean_q, mean_k
        The means.
    cov_q, cov_k
        The covariance matrices. Higher moments do not matter.

    Examples
    --------
    Independent entries of mean 0 and variance 1: the variance is the dimension.

    >>> score_moments(*torch.zeros(2, 64), *torch.eye(64).expand(2, 64, 64))
    (tensor(0.), tensor(64.))
    """
    variance = (cov_q * cov_k.T).sum()
    variance = variance + mean_q @ cov_k @ mean_q + mean_k @ cov_q @ mean_k
    return mean_q @ mean_k, variance


@widened
def entropy(p: Float[Tensor, "*batch n_key"]) -> Float[Tensor, "*batch"]:
    r"""Return :math:`-\sum_j p_j \ln p_j` in nats, where :math:`0 \ln 0 = 0`.

    The exponential of the entropy is the effective number of keys.

    Examples
    --------
    >>> entropy(torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])).exp()
    tensor([4., 1.])
    """
    return -torch.xlogy(p, p).sum(-1)
