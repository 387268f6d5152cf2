"""`registry`: what each head gets, and that it can be saved with its network."""

import io
import math

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


def test_a_head_is_rotated_by_the_frequencies_of_its_own_dimension(generator):
    """And not by the first ones of the whole width, which have the same shape."""
    d_head = 8
    rotate = encoding("rotary", HEADS * d_head, HEADS)["rotate"]
    x = torch.randn(2, HEADS, N, d_head, generator=generator, dtype=torch.float64)
    found = torch.view_as_complex(rotate(x, 5).unflatten(-1, (-1, 2)))
    before = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    for pair, omega in enumerate((1, 1e-1, 1e-2, 1e-3)):
        for n in range(N):
            angle = (found[..., n, pair] / before[..., n, pair]).angle()
            turned = torch.tensor((n + 5) * omega, dtype=torch.float64)
            torch.testing.assert_close(
                angle.cos(), turned.cos().expand_as(angle), rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("n_head", [1, 2, 4, 8])
def test_a_head_gets_the_slope_of_its_own_number(n_head):
    """The last head has the slope 1/256, whatever the number of heads is."""
    bias = encoding("alibi", 8 * n_head, n_head)["bias"](N, N)
    assert bias.shape == (n_head, N, N)
    for h in range(n_head):
        slope = 256 ** (-(h + 1) / n_head)
        for m in range(N):
            for n in range(N):
                assert bias[h, m, n].item() == pytest.approx(-slope * abs(m - n))


def test_vectors_are_added_at_consecutive_positions(generator):
    X = torch.randn(2, N, D, generator=generator)
    learned = encoding("learned", D, HEADS, n_position=N + 2, generator=generator)
    P = learned["encode"].positions.P
    torch.testing.assert_close(learned["encode"](X), X + P[:N])
    added = encoding("sinusoidal", D, HEADS)["encode"](X) - X
    for n in range(N):
        for i in range(D):
            f = math.cos if i % 2 else math.sin
            expected = f(n / 10_000 ** (2 * (i // 2) / D))
            assert added[1, n, i].item() == pytest.approx(expected, abs=1e-5)


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
