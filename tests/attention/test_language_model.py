"""`dian.attention.language_model`: wrong inputs, and sizes of the results."""

import math

import pytest
import torch
from torch.nn import functional as F

from dian.attention.language_model import (
    next_token_pairs,
    perplexity,
    sample_tokens,
    token_nll,
)
from dian.attention.transformer import TokenTransformer


@pytest.fixture
def model(generator):
    return TokenTransformer(
        5, 5, d_model=8, n_head=2, n_layer=1, causal=True, generator=generator
    )


def test_token_nll_equals_torchs_cross_entropy(generator):
    logits = 50 * torch.randn(3, 4, 7, generator=generator)
    targets = torch.randint(7, (3, 4), generator=generator)
    expected = F.cross_entropy(logits.mT, targets, reduction="none")
    torch.testing.assert_close(token_nll(logits, targets), expected)


def test_large_logits_do_not_overflow():
    nll = token_nll(torch.tensor([[[1e4, -1e4]]]), torch.tensor([[1]]))
    assert nll.item() == 2e4


def test_perplexity_of_padded_sequences_ignores_the_padding():
    nll = torch.tensor([[1.0, 2.0, math.nan], [3.0, math.inf, math.nan]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert perplexity(nll, mask).item() == pytest.approx(math.exp(2))


def test_the_targets_are_the_next_inputs(generator):
    tokens = torch.randint(9, (2, 6), generator=generator)
    inputs, targets = next_token_pairs(tokens)
    assert inputs.shape == targets.shape == (2, 5)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_two_tokens_are_one_pair():
    inputs, targets = next_token_pairs(torch.tensor([[3, 8]]))
    assert (inputs.tolist(), targets.tolist()) == ([[3]], [[8]])


def test_samples_continue_the_prompt_and_repeat_with_the_seed(model):
    prompt = torch.tensor([[1, 2], [0, 4], [3, 3]])
    draws = [
        torch.stack(
            list(sample_tokens(model, prompt, 6, torch.Generator().manual_seed(seed))),
            1,
        )
        for seed in (0, 0, 1)
    ]
    assert draws[0].shape == (3, 6)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not list(sample_tokens(model, prompt, 0))


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: next_token_pairs(torch.zeros(2, 1)), "length at least 2, got"),
        (lambda: next_token_pairs(torch.zeros(5)), "length at least 2, got"),
        (
            lambda: token_nll(torch.zeros(1, 2, 3), torch.zeros(1, 3).long()),
            r"targets must be integers of shape \(1, 2\)",
        ),
        (
            lambda: token_nll(torch.zeros(1, 2, 3), torch.tensor([[0, 3]])),
            r"targets must be in 0\.\.2, got 0\.\.3",
        ),
        (
            lambda: token_nll(torch.zeros(1, 2, 3), torch.tensor([[-1, 2]])),
            r"targets must be in 0\.\.2, got -1\.\.2",
        ),
        (lambda: perplexity(torch.zeros(0, 3)), "no token counts"),
        (
            lambda: perplexity(torch.zeros(1, 3), torch.ones(1, 3)),
            r"mask must be booleans of shape \(1, 3\)",
        ),
    ],
)
def test_wrong_inputs_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_sampling_needs_a_prompt_and_a_causal_model(model):
    with pytest.raises(ValueError, match="at least one token, got 0"):
        next(sample_tokens(model, torch.zeros(1, 0, dtype=torch.long), 1))
    both_ways = TokenTransformer(5, 5, d_model=8, n_head=2)
    with pytest.raises(ValueError, match="only a causal encoder can decode"):
        next(sample_tokens(both_ways, torch.tensor([[1]]), 1))
