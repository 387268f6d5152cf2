"""Fashion-MNIST: the whole data set, or the small sample that is part of the package.

70,000 photographs of clothes in ten classes, 28 by 28 grey pixels each: Xiao, Rasul and
Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms*, 2017, arXiv:1708.07747.

The data set is four files in one folder, each as it is or compressed with ``.gz``: so
they are in Debian's package ``dataset-fashion-mnist``, and in the subfolder
``FashionMNIST/raw`` of torchvision's. The first folder that has any of them is used:

1. the folder named by the variable ``DIAN_DATA``; if it is set, no other is tried;
2. the user's data folder, ``$XDG_DATA_HOME/dian`` or ``~/.local/share/dian``;
3. the folder of Debian's package;
4. if there is none, torchvision's download is stored in the user's data folder.

A file is used only if its SHA-256 is right.
"""

import base64
import gzip
import io
import os
import socket
import textwrap
import zlib
from dataclasses import dataclass
from html import escape
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from dian.diffusion.pixels import signed, unit
from dian.errors import DianError, require_one_of
from dian.runs.files import atomic_write, read_verified, verified

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
"""The names of the labels 0 to 9."""

CHECKSUMS = {
    "train-images-idx3-ubyte": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}
"""SHA-256 of each file of the whole data set, uncompressed."""

SAMPLE_CHECKSUMS = {
    "fashion-mnist-sample.npz": (
        "e54312df5983091278e19b78d556c57b76d4f06812f2aabad05f6f23c78b3d84"
    )
}
"""SHA-256 of the file of the sample."""

SAMPLE_FOLDER = Path(__file__).with_name("sample")
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_PREFIX = {"train": "train", "test": "t10k"}
_LARGEST = 16 + 60_000 * 28 * 28  # bytes in the largest file: a header and the pixels
_STALL = 30.0  # seconds without a byte after which a download is given up
_REMEDY = "fetch it again with `make data` or `dian.data.download()`"


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Images with their labels.

    ``images[i]`` is one image with its label, and any other index selects a part.
    """

    images: UInt8[Tensor, "n 28 28"]
    """Grey values from 0 (background) to 255, row by row from the top."""
    labels: Int64[Tensor, "n"]
    """The class of each image, an index of :data:`CLASSES`."""
    index: Int64[Tensor, "n"]
    """The position of each image in its whole split, counted from 0."""

    def unit(self) -> Float32[Tensor, "n 28 28"]:
        """Return the images scaled to [0, 1]."""
        return unit(self.images)

    def signed(self) -> Float32[Tensor, "n 28 28"]:
        """Return the images scaled to [-1, 1]."""
        return signed(self.images)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: Any) -> "Images | tuple[Tensor, int]":
        if isinstance(chosen, Integral):
            return self.images[chosen], int(self.labels[chosen])
        return Images(self.images[chosen], self.labels[chosen], self.index[chosen])

    def __repr__(self) -> str:
        return (
            f"<Images: {len(self)} images of 28 x 28 pixels in {len(CLASSES)} classes>"
        )

    def _repr_html_(self) -> str:
        """Show the first images in a notebook."""
        from PIL import Image
        from torchvision.utils import make_grid

        grid = make_grid(255 - self.images[:16, None], pad_value=255)
        file = io.BytesIO()
        Image.fromarray(grid[0].numpy()).save(file, "PNG")
        data = base64.b64encode(file.getvalue()).decode()
        return f'<img alt="{escape(repr(self))}" src="data:image/png;base64,{data}">'


def fashion_mnist(split: str, *, root: str | os.PathLike[str] | None = None) -> Images:
    """Load all 60,000 training or all 10,000 test images.

    Parameters
    ----------
    split
        ``"train"`` or ``"test"``.
    root
        The only folder to load from, in place of the search described above.

    See Also
    --------
    sample : a part of the same images, available without a download.

    Examples
    --------
    >>> fashion_mnist("validation")
    Traceback (most recent call last):
    ValueError: split must be one of train, test, got 'validation'
    """
    require_one_of("split", split, _PREFIX)
    folder = find(root) or download()
    images = bytearray(_read_file(folder, f"{_PREFIX[split]}-images-idx3-ubyte"))
    labels = bytearray(_read_file(folder, f"{_PREFIX[split]}-labels-idx1-ubyte"))
    pixels = torch.frombuffer(images, dtype=torch.uint8, offset=16).view(-1, 28, 28)
    classes = torch.frombuffer(labels, dtype=torch.uint8, offset=8).long()
    return Images(pixels, classes, torch.arange(len(classes)))


def sample(split: str) -> Images:
    """Load the sample in the package: 1,000 training or 500 test images.

    They are the first 100 and the first 50 of each class, in the order of the whole
    split; ``scripts/make_sample.py`` extracts them.

    Parameters
    ----------
    split
        ``"train"`` or ``"test"``.

    Examples
    --------
    >>> train = sample("train")
    >>> train
    <Images: 1000 images of 28 x 28 pixels in 10 classes>
    >>> CLASSES[train.labels[0]]
    'Ankle boot'

    The last of these images is number 1109 of the 60,000:

    >>> train.index[-1]
    tensor(1109)
    """
    require_one_of("split", split, _PREFIX)
    [(name, checksum)] = SAMPLE_CHECKSUMS.items()
    content = read_verified(SAMPLE_FOLDER / name, checksum, "install dian again")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        fields = ("images", "labels", "index")
        parts = [torch.from_numpy(arrays[f"{split}_{field}"]) for field in fields]
    return Images(parts[0], parts[1].long(), parts[2].long())


def user_folder() -> Path:
    """Return the folder in which the data of this user are kept."""
    given = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (given if given.is_absolute() else _folder("~/.local/share")) / "dian"


def find(root: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the first folder that has any of the files; ``None`` if there is none.

    Parameters
    ----------
    root
        The only folder to look in.
    """
    given = root or os.environ.get("DIAN_DATA")
    if not given:
        return next(filter(_has_data, (user_folder(), DEBIAN_FOLDER)), None)
    if not _has_data(folder := _folder(given)):
        raise DianError(
            f"{folder}: no Fashion-MNIST in this folder, "
            f"{'given as root' if root else 'named by DIAN_DATA'}: expected "
            f"{', '.join(CHECKSUMS)} in it, each with or without .gz; {_REMEDY}"
        )
    return folder


def read(folder: Path, remedy: str = _REMEDY) -> dict[str, bytes]:
    """Return the uncompressed bytes of all four files of a folder, verified.

    Parameters
    ----------
    folder
        The folder.
    remedy
        What the user should do about a missing or damaged file; it ends the message.
    """
    return {name: _read_file(folder, name, remedy) for name in CHECKSUMS}


def install(source: Path, root: str | os.PathLike[str] | None = None) -> Path:
    """Copy the four files of a folder to where they are looked for first.

    All are verified before the first is written. In a folder that the user has named,
    other files of these names are refused and not replaced.

    Parameters
    ----------
    source
        The folder that has them.
    root
        The folder to copy to. Default: ``DIAN_DATA``, or else the user's data folder.
    """
    given = root or os.environ.get("DIAN_DATA")
    folder = _folder(given) if given else user_folder()
    remedy = "make room for it, or choose another folder with DIAN_DATA"
    contents = read(source, remedy="nothing was changed")
    for name, content in contents.items() if given else ():
        # The files of MNIST, for one, have the same names.
        if os.path.lexists(path := folder / name) and not _holds(path, content):
            raise DianError(
                f"{path}: another file is here; move it away, or choose another folder "
                "with DIAN_DATA"
            )
    for name, content in contents.items():
        atomic_write(folder / name, content, remedy)
    return folder


def download(root: str | os.PathLike[str] | None = None) -> Path:
    """Fetch the data with torchvision's download, and :func:`install` them."""
    from torchvision.datasets import FashionMNIST

    before = socket.getdefaulttimeout()
    try:
        with TemporaryDirectory(prefix="dian-") as private:
            socket.setdefaulttimeout(_STALL)  # torchvision itself sets no limit
            FashionMNIST(private, download=True)
            return install(Path(private, "FashionMNIST", "raw"), root)
    except DianError:
        raise
    except Exception as error:  # whatever may go wrong in the download of a library
        reason = textwrap.shorten(str(error), 300) or type(error).__name__
        raise DianError(
            f"Fashion-MNIST: torchvision's download failed "
            f"({''.join(filter(str.isprintable, reason))}); check the network, or "
            "install Debian's package dataset-fashion-mnist, or point DIAN_DATA to a "
            "folder that has the files"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def _folder(name: str | os.PathLike[str]) -> Path:
    return Path(os.path.expanduser(name))  # noqa: PTH111  that of Path may raise


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _has_data(folder: Path) -> bool:
    # A broken link counts too: its disk may be away, and no other data replace it.
    return any(
        os.path.lexists(folder / f"{name}{suffix}")
        for name in CHECKSUMS
        for suffix in ("", ".gz")
    )


def _read_file(folder: Path, name: str, remedy: str = _REMEDY) -> bytes:
    plain, packed = folder / name, folder / f"{name}.gz"
    if os.path.lexists(plain) or not os.path.lexists(packed):
        return read_verified(plain, CHECKSUMS[name], remedy)
    try:
        with gzip.open(packed) as file:
            content = file.read(_LARGEST + 1)  # no further, whatever it unpacks to
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or "not a whole gzip file"
        raise DianError(f"{packed}: {reason}; {remedy}") from None
    return verified(content, CHECKSUMS[name], packed, remedy)
