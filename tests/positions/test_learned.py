"""`learned`: a table, its gradient, and positions that it does not have."""

import inspect

import pytest
import torch

from dian.positions.learned import AddLearned, LearnedPositions

N, D = 7, 22


def test_learned_positions_are_rows_of_a_table(generator):
    learned = LearnedPositions(N, D, generator)
    p = torch.tensor([[6, 0, 3]])
    assert torch.equal(learned(p), learned.P[[6, 0, 3]][None])
    learned(p).sum().backward()
    used = torch.zeros(N, dtype=torch.bool)
    used[[0, 3, 6]] = True
    assert torch.equal(learned.P.grad.any(-1), used)


def test_initial_vectors_are_normal_with_a_standard_deviation_of_two_percent(generator):
    P = LearnedPositions(100, D, generator).P
    n = P.numel()
    assert P.mean().abs() < 5 * 0.02 / n**0.5
    assert abs(P.std() / 0.02 - 1) < 5 / (2 * n) ** 0.5


def test_the_layer_adds_the_first_rows(generator):
    layer = AddLearned(LearnedPositions(N, D, generator))
    X = torch.randn(2, 4, D, generator=generator)
    assert torch.equal(layer(X), X + layer.positions.P[:4])


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([-1, 2], r"integers from 0 to 6, the last learned one, got \[-1\]"),
        ([0, 7], r"integers from 0 to 6, the last learned one, got \[7\]"),
        ([0.5], r"integers from 0 to 6, .* got torch\.float32"),
    ],
)
def test_wrong_arguments(positions, message):
    learned = LearnedPositions(N, D)
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(LearnedPositions.forward)(learned, torch.tensor(positions))
