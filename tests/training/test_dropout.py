"""`dropout`: the distribution of a mask, and where its random numbers come from."""

import pytest
import torch

from dian.training.dropout import dropout_mask

N = 9973


def test_a_mask_keeps_the_mean(generator):
    mask = dropout_mask(torch.empty(N, dtype=torch.float64), 0.3, generator)
    assert mask.dtype == torch.float64
    assert mask.unique().tolist() == pytest.approx([0, 1 / 0.7])
    # within 5 standard errors
    error = (0.3 / 0.7 / N) ** 0.5
    assert mask.mean().item() == pytest.approx(1, abs=5 * error)


def test_a_mask_is_drawn_from_the_generator_alone():
    before = torch.get_rng_state()
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    first, same, other = (dropout_mask(torch.ones(N), 0.5, g) for g in generators)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    # The draws of the recorded runs: one uniform number for each factor.
    drawn = torch.rand(N, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first, 2.0 * (drawn >= 0.5))


def test_without_a_generator_the_global_one_is_used():
    torch.manual_seed(1)
    found = dropout_mask(torch.ones(N), 0.5)
    expected = dropout_mask(torch.ones(N), 0.5, torch.Generator().manual_seed(1))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_wrong_arguments(rate):
    with pytest.raises(ValueError, match=rf"rate must be in \[0, 1\), got {rate}"):
        dropout_mask(torch.ones(N), rate)
