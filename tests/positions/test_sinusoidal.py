"""`sinusoidal` against loops one can check by eye, and the code of others."""

import inspect
import math

import pytest
import torch

from dian.positions import sinusoidal
from dian.positions.sinusoidal import (
    AddSinusoidal,
    frequencies,
    offset_product,
    sinusoidal_encoding,
)

N, D = 7, 22


def encoding_by_loops(n, d, base=10_000.0):
    """One number at a time, in plain Python arithmetic."""
    rows = []
    for p in range(n):
        row = []
        for column in range(d):
            angle = p / base ** ((column - column % 2) / d)
            row.append(math.cos(angle) if column % 2 else math.sin(angle))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def test_equals_the_loop():
    found = sinusoidal_encoding(torch.arange(N), D, dtype=torch.float64)
    torch.testing.assert_close(found, encoding_by_loops(N, D), rtol=0, atol=1e-14)


def test_the_comparison_can_fail():
    found = sinusoidal_encoding(torch.arange(N), D, 500.0, dtype=torch.float64)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(found, encoding_by_loops(N, D), rtol=0, atol=1e-14)


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
def test_the_base_is_an_argument(base):
    found = sinusoidal_encoding(torch.arange(N), D, base, dtype=torch.float64)
    torch.testing.assert_close(found, encoding_by_loops(N, D, base), rtol=0, atol=1e-14)


def test_equals_diffusers():
    """Theirs has the sines in front, and frequency 1 first if nothing is shifted."""
    from diffusers.models.embeddings import get_timestep_embedding

    p = torch.arange(N)
    peer = get_timestep_embedding(p, D, downscale_freq_shift=0)
    sines, cosines = peer.chunk(2, dim=-1)
    expected = torch.stack([sines, cosines], dim=-1).flatten(-2)
    torch.testing.assert_close(sinusoidal_encoding(p, D), expected, rtol=0, atol=1e-6)


def test_equals_transformers():
    """RoFormer's table of positions has the halves layout, sines first."""
    from transformers.models.roformer.modeling_roformer import (
        RoFormerSinusoidalPositionalEmbedding,
    )

    table = RoFormerSinusoidalPositionalEmbedding(N, D).create_weight()
    sines, cosines = table.chunk(2, dim=-1)
    expected = torch.stack([sines, cosines], dim=-1).flatten(-2)
    found = sinusoidal_encoding(torch.arange(N), D)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_positions_of_any_shape_sign_and_type():
    p = torch.tensor([[0, -3], [5, 100_000], [1, 2]])
    found = sinusoidal_encoding(p, D, dtype=torch.float64)
    assert found.shape == (3, 2, D)
    as_floats = sinusoidal_encoding(p.double(), D, dtype=torch.float64)
    assert torch.equal(found, as_floats)
    mirrored = sinusoidal_encoding(-p, D, dtype=torch.float64)
    sign = torch.tensor([-1.0, 1.0]).repeat(D // 2)  # sine is odd, cosine even
    torch.testing.assert_close(mirrored, sign * found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_position_257_is_not_256(dtype):
    two = sinusoidal_encoding(torch.tensor([256, 257]), D, dtype=dtype)
    assert two.dtype == dtype
    exact = encoding_by_loops(258, D)[256:]
    torch.testing.assert_close(two.double(), exact, rtol=0, atol=2**-8)
    assert (two[0] - two[1]).abs().max() > 0.1


def test_the_product_depends_on_the_offset_alone():
    p, q = torch.tensor([3, 1003]), torch.tensor([19, 1019])
    PE = [sinusoidal_encoding(x, D, dtype=torch.float64) for x in (p, q)]
    products = (PE[0] * PE[1]).sum(-1)
    torch.testing.assert_close(products, offset_product(q - p, D), rtol=0, atol=1e-12)
    assert offset_product(torch.tensor(0), D) == D / 2


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (frequencies, (7,), "d must be positive and even: .* got 7"),
        (frequencies, (0,), "d must be positive and even: .* got 0"),
        (frequencies, (4, -1.0), "base must be positive, got -1.0"),
        (sinusoidal_encoding, (torch.arange(2), 7), "even: .* got 7"),
    ],
)
def test_wrong_arguments(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(function)(*arguments)


def test_the_layer_adds_the_encoding_in_the_type_of_its_input(generator):
    X = torch.randn(2, N, D, generator=generator)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        found = AddSinusoidal()(X.to(dtype))
        expected = (X.to(dtype) + encoding_by_loops(N, D)).to(dtype)
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected)


def test_nothing_is_kept_between_calls():
    """No table is cached, under a key that forgets an argument or otherwise."""
    before = sinusoidal_encoding(torch.arange(N), D)
    sinusoidal_encoding(torch.arange(N), D, base=7.0)
    assert torch.equal(before, sinusoidal_encoding(torch.arange(N), D))
    assert not [v for v in vars(sinusoidal).values() if isinstance(v, torch.Tensor)]
