"""`plots`: what is drawn for a class without items, and grids that are saved."""

import inspect

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from dian.figures import plots

N, ROWS, COLUMNS = 5, 3, 7


def test_a_class_without_items_is_an_empty_row():
    ax = Figure().subplots()
    plots.confusion(ax, np.array([[3, 1], [0, 0]]), ["a", "b"])
    assert [text.get_text() for text in ax.texts] == ["75", "25"]
    assert ax.images[0].get_array().tolist() == [[75, 25], [0, 0]]


def test_a_wrong_prediction_shows_the_target():
    axes = Figure().subplots(1, 2)
    images = np.zeros((2, ROWS, COLUMNS))
    plots.predictions(axes, images, np.array([0, 1]), np.array([0, 0]), ["cat", "dog"])
    assert [ax.get_title() for ax in axes] == ["✓ cat", "✗ cat\n(dog)"]


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_saved_grid_holds_the_images_in_order(tmp_path, channels, kind):
    shape = (N, ROWS, COLUMNS) if channels is None else (N, channels, ROWS, COLUMNS)
    images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    given = images if kind is np.uint8 else (images / 255).astype(kind)
    plots.save_grid(given, tmp_path / "grid.png", columns=2)
    found = np.round(255 * imread(tmp_path / "grid.png")[..., :3]).astype(np.uint8)
    assert found.shape == (3 * ROWS, 2 * COLUMNS, 3)
    for i in range(6):
        top, left = i // 2 * ROWS, i % 2 * COLUMNS
        part = found[top : top + ROWS, left : left + COLUMNS]
        image = images[i] if i < N else np.zeros_like(images[0])
        image = image[None] if image.ndim == 2 else image
        assert (part == image.transpose(1, 2, 0)).all()


def test_a_tensor_is_saved_like_its_array(tmp_path, as_users_run):
    images = torch.arange(18.0).view(2, 3, 3) / 18
    for name, given in (("a.png", images), ("b.png", images.numpy())):
        plots.save_grid(given, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("images", "columns", "message"),
    [
        (np.zeros((2, 5, 3, 3)), 4, r"1 or 3, row, column\), .* got \(2, 5, 3, 3\)"),
        (np.zeros((3, 3)), 4, r"images must be \(n, row, column\) .* got \(3, 3\)"),
        (np.zeros((0, 3, 3)), 4, "none empty"),
        (np.full((2, 3, 3), -1.0), 4, r"images must be in \[0, 1\] or bytes, got -1"),
        (np.full((2, 3, 3), np.nan), 4, r"got nan\.\.nan"),
        (np.ones((2, 3, 3)), 0, "columns must be a whole number, at least 1, got 0"),
    ],
)
def test_wrong_arguments(tmp_path, images, columns, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(plots.save_grid)(images, tmp_path / "grid.png", columns)
    assert not list(tmp_path.iterdir())
