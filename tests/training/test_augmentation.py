"""`dian.training.augmentation`: what comes out is what went in, mirrored or moved."""

import inspect

import pytest
import torch

from dian.training.augmentation import random_horizontal_flip, random_shift

N, ROWS, COLUMNS = 211, 5, 7


@pytest.fixture
def images(generator):
    return 1 + torch.rand(N, ROWS, COLUMNS, generator=generator)


def test_about_half_are_mirrored_and_none_is_changed_else(images, generator):
    found = random_horizontal_flip(images, generator)
    mirrored = (found == images.flip(-1)).flatten(1).all(1)
    kept = (found == images).flatten(1).all(1)
    assert torch.equal(mirrored, ~kept)
    # within 5 standard errors
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=2.5 / N**0.5)


def moved(image, down, right):
    """One image by loops; 0 comes in at the edge."""
    new = torch.zeros_like(image)
    for i in range(ROWS):
        for j in range(COLUMNS):
            if 0 <= i + down < ROWS and 0 <= j + right < COLUMNS:
                new[i + down, j + right] = image[i, j]
    return new


def test_every_shift_is_a_move_by_whole_pixels(images, generator):
    max_shift = 2
    steps = range(-max_shift, max_shift + 1)
    moves = [(down, right) for down in steps for right in steps]
    seen = dict.fromkeys(moves, 0)
    for image, found in zip(
        images, random_shift(images, max_shift, generator), strict=True
    ):
        hits = [move for move in moves if torch.equal(found, moved(image, *move))]
        assert len(hits) == 1
        seen[hits[0]] += 1
    assert all(seen.values())  # each of the 25 at least once in 211


def test_no_shift_is_no_change(images):
    assert torch.equal(random_shift(images, 0), images)


def test_it_comes_from_the_generator_alone_and_keeps_its_argument(images):
    before, state = images.clone(), torch.get_rng_state()
    for change in (random_horizontal_flip, lambda x, g: random_shift(x, 2, g)):
        first, second = (
            change(images, torch.Generator().manual_seed(3)) for _ in range(2)
        )
        assert torch.equal(first, second)
        assert first.dtype == images.dtype
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_wrong_arguments(images):
    with pytest.raises(
        ValueError, match="max_shift must be a whole number, at least 0, got -1"
    ):
        inspect.unwrap(random_shift)(images, -1)
