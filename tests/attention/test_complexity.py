"""`dian.attention.complexity` on layers whose costs are known."""

import torch
from torch import nn

from dian.attention.complexity import count_flops, depends_on, saved_bytes


def test_products_in_place_and_others_count():
    class Both(nn.Module):
        def forward(self, X):
            return (X @ X).addmm_(X, X)

    assert count_flops(Both(), torch.ones(3, 3)) == 2 * (2 * 3**3)


def test_a_view_counts_as_the_memory_that_it_keeps():
    layer, X = nn.Linear(2, 3), torch.zeros(10, 4)
    assert saved_bytes(layer, X[:, :2]) == X.untyped_storage().nbytes()


def test_a_relu_keeps_its_output_once():
    layer = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    # The input, and the output of the ReLU, which the second layer needs as well.
    assert saved_bytes(layer, torch.zeros(5, 4)) == 2 * 5 * 4 * 4


def test_a_reversal_depends_on_the_other_end():
    found = depends_on(lambda X: 2 * X.flip(0), torch.ones(3, 2))
    assert torch.equal(found, torch.eye(3).flip(0).bool())
