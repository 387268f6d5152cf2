"""`dian.diffusion.pixels`: two views of bytes, and the way back."""

import pytest
import torch

from dian.diffusion.pixels import signed, to_bytes, unit

EVERY = torch.arange(256, dtype=torch.uint8)


def test_the_ends_and_the_steps_of_both_views():
    for view, low, step in [(unit, 0, 1 / 255), (signed, -1, 2 / 255)]:
        found = view(EVERY)
        assert found.dtype == torch.float32
        assert found.min() == low
        assert found.max() == 1
        torch.testing.assert_close(found.diff(), torch.full((255,), step))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_byte_comes_back(dtype):
    assert torch.equal(to_bytes(signed(EVERY).to(dtype)), EVERY)


def test_values_outside_are_clamped():
    x = torch.tensor([-torch.inf, -1.01, 1.01, torch.inf])
    assert to_bytes(x).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize(
    ("function", "x", "error", "message"),
    [
        (unit, torch.zeros(1), TypeError, r"pixels must be bytes .* torch\.float32"),
        (signed, torch.zeros(1), TypeError, r"pixels must be bytes .* torch\.float32"),
        (signed, torch.zeros(1).long(), TypeError, r"bytes .* got torch\.int64"),
        (to_bytes, torch.tensor([0.0, torch.nan, torch.nan]), ValueError, "NaN in 2"),
    ],
)
def test_what_is_refused(as_users_run, function, x, error, message):
    """NaN would become a black pixel."""
    with pytest.raises(error, match=message):
        function(x)
