"""`registry`: every encoding can be saved with the network that has it."""

import io

import pytest
import torch

from dian.attention.transformer import Encoder
from dian.positions.registry import ENCODINGS, encoding

N, D, HEADS = 7, 12, 3


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_network_with_it_can_be_saved(generator, name):
    options = encoding(name, D, HEADS, n_position=N, generator=generator)
    model, file = Encoder(D, HEADS, 1, **options, generator=generator), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    X = torch.randn(2, N, D, generator=generator)
    assert torch.equal(again(X), model(X))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rope", "name must be one of none, learned, .* got 'rope'"),
        ("learned", "n_position must be a whole number, at least 1, got None"),
    ],
)
def test_wrong_arguments(name, message):
    with pytest.raises(ValueError, match=message):
        encoding(name, D, HEADS)
