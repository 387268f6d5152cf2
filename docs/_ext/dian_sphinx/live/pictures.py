"""Gray pictures, written into the page as ``data:`` addresses."""

import base64
import io

import numpy as np
from PIL import Image


def picture(gray: np.ndarray) -> str:
    """Write gray levels, 0 to 255, as the address of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def still(gray: np.ndarray, said: str, **values: object) -> dict:
    """Return a recorded result: a picture, its width in pixels, and its description.

    The description is translated when it is shown, and then the values are filled in.
    """
    result = {"image": picture(gray), "width": gray.shape[1]}
    return result | {"said": said, "values": values}


def joined(parts: list[np.ndarray], axis: int = 1, gap: int = 2) -> np.ndarray:
    """Join pictures, with white between them: in a row, or in a column (axis 0).

    >>> joined([np.zeros((3, 5)), np.zeros((3, 7))]).shape
    (3, 14)
    """
    shape = list(parts[0].shape)
    shape[axis] = gap
    white = np.full(shape, 255, np.uint8)
    return np.concatenate([x for part in parts for x in (white, part)][1:], axis)


def dark(values) -> np.ndarray:
    """Turn numbers into gray levels: the largest is black, and 0 is white.

    >>> dark([0.0, 1.0, 2.0]).tolist()
    [255, 128, 0]
    """
    values = np.asarray(values)
    return (255 - 255 * values / max(values.max(), 1e-12)).round().astype(np.uint8)
