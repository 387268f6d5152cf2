r"""Causal language modeling: next-token targets, perplexity and decoding.

Axis names: ``batch``; ``n``, number of tokens; ``vocab``, size of the vocabulary.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dian.attention.transformer import TokenTransformer
from dian.errors import kind, require, require_whole
from dian.numerics import widened


class NextToken(NamedTuple):
    """The inputs of a causal language model, and its target at each position."""

    inputs: Int[Tensor, "batch n"]
    targets: Int[Tensor, "batch n"]


def next_token_pairs(tokens: Int[Tensor, "batch length"]) -> NextToken:
    r"""Shift by one: the target at each position is the token that follows it.

    The model reads the tokens themselves, and not its own predictions (teacher
    forcing), so one pass gives all conditional distributions.

    Parameters
    ----------
    tokens
        Sequences of at least two tokens.

    Examples
    --------
    >>> next_token_pairs(torch.tensor([[3, 1, 4, 1]]))
    NextToken(inputs=tensor([[3, 1, 4]]), targets=tensor([[1, 4, 1]]))
    """
    fits = tokens.ndim == 2 and tokens.shape[1] >= 2
    message = "tokens must be (batch, length) with length at least 2, got "
    require(fits, message + str(tuple(tokens.shape)))
    return NextToken(tokens[:, :-1], tokens[:, 1:])


@widened
def token_nll(
    logits: Float[Tensor, "batch n vocab"], targets: Int[Tensor, "batch n"]
) -> Float[Tensor, "batch n"]:
    r"""Return the negative log-likelihood of each token, in nats.

    .. math::

        \ell_t = -\ln p(x_{t+1} \mid x_1, \dots, x_t)
        = \ln \sum_k e^{o_{t,k}} - o_{t, x_{t+1}}

    The sum over the positions is that of the whole sequence, by the chain rule of
    probability.

    Parameters
    ----------
    logits
        Unnormalized log-probabilities at each position.
    targets
        The token that follows each position.

    Examples
    --------
    >>> token_nll(torch.zeros(1, 2, 4), torch.tensor([[0, 3]])).exp()
    tensor([[4., 4.]])
    """
    shape, vocab = logits.shape[:-1], logits.shape[-1]
    fits = targets.shape == shape and not targets.is_floating_point()
    expected = f"integers of shape {tuple(shape)}"
    require(fits, f"targets must be {expected}, got {kind(targets)}")
    if targets.numel():
        low, high = int(targets.min()), int(targets.max())
        fits = low >= 0 and high < vocab
        require(fits, f"targets must be in 0..{vocab - 1}, got {low}..{high}")
    of_target = logits.gather(-1, targets.unsqueeze(-1).long())[..., 0]
    return logits.logsumexp(-1) - of_target


@widened
def perplexity(
    nll: Float[Tensor, "batch n"], mask: Bool[Tensor, "batch n"] | None = None
) -> Float[Tensor, ""]:
    r"""Return the exponential of the mean negative log-likelihood of a token.

    .. math::

        \operatorname{PPL} = \exp\Bigl(\frac{1}{|M|} \sum_{(s, t) \in M}
        \ell_{s,t}\Bigr)

    The mean is over all tokens :math:`M` that count, so longer sequences weigh more. A
    model that predicts the uniform distribution has as perplexity the size of the
    vocabulary.

    Parameters
    ----------
    nll
        What :func:`token_nll` returns.
    mask
        ``True`` where a token counts, and is not padding. Default: all count.

    Examples
    --------
    >>> nll = token_nll(torch.zeros(2, 3, 11), torch.zeros(2, 3, dtype=torch.long))
    >>> perplexity(nll)
    tensor(11.0000)
    """
    if mask is not None:
        fits = mask.shape == nll.shape and mask.dtype == torch.bool
        expected = f"booleans of shape {tuple(nll.shape)}"
        require(fits, f"mask must be {expected}, got {kind(mask)}")
        nll = nll[mask]
    require(nll.numel(), "no token counts: the batch is empty or all masked")
    return nll.mean().exp()


@torch.no_grad()
def sample_tokens(
    model: TokenTransformer,
    prompt: Int[Tensor, "batch n"],
    n_new: int,
    generator: torch.Generator | None = None,
) -> Iterator[Int[Tensor, "batch"]]:
    r"""Draw tokens one after the other from a causal model, with a key-value cache.

    Each token is drawn from :math:`p(x_{t+1} \mid x_1, \dots, x_t)` and read next, so
    the sequence has the distribution of the model (ancestral sampling).

    Parameters
    ----------
    model
        A causal model whose classes are its tokens.
    prompt
        The first tokens, at least one.
    n_new
        Number of tokens to draw.
    generator
        The source of the random numbers. Default: the global generator.

    Yields
    ------
    tokens
        The next token of each sequence.

    Examples
    --------
    >>> model = TokenTransformer(5, 5, d_model=8, n_head=2, causal=True)
    >>> drawn = sample_tokens(model, torch.tensor([[1, 4], [0, 2]]), 3)
    >>> torch.stack(list(drawn), 1).shape
    torch.Size([2, 3])
    """
    require_whole("n_new", n_new, 0)
    require(prompt.shape[1], "prompt must have at least one token, got 0")
    read, caches = prompt, None
    for _ in range(n_new):
        logits, caches = model.decode(read, caches)
        p = logits[:, -1].softmax(-1)
        token = torch.multinomial(p, 1, generator=generator)
        yield token[:, 0]
        read = token
