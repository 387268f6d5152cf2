"""Fashion-MNIST, whole or as the small sample that travels with the package.

70,000 photographs of clothes in ten classes, 28 by 28 grey pixels each: Xiao, Rasul and
Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms*, 2017, arXiv:1708.07747. No byte of it is parsed before its SHA-256 is known
to be right.

The data are looked for in these places, and the first that has any of the four files is
the one that is used:

1. the folder that the variable ``DIAN_DATA`` names. Where it is set nothing else is
   tried, so that nobody trains on other files than the ones meant;
2. the user's data folder, ``$XDG_DATA_HOME/dian`` or ``~/.local/share/dian``;
3. the folder of Debian's package ``dataset-fashion-mnist``;
4. torchvision's download, which is then kept in the user's data folder.

A folder holds each file either where torchvision puts it,
``FashionMNIST/raw/train-images-idx3-ubyte``, or compressed at its top as Debian does,
``train-images-idx3-ubyte.gz``. Loading never writes into it; only :func:`download` and
:func:`install` do.
"""

import gzip
import io
import os
import socket
import textwrap
import zlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Float32, Int64, Integer, UInt8
from torch import Tensor

from dian.errors import DianError
from dian.runs.files import atomic_write, read_verified, sha256

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
"""What the labels 0 to 9 mean."""

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
"""SHA-256 of each file of the whole data set, uncompressed: archives made by different
hands differ, what is in them does not."""

SAMPLE_CHECKSUMS = {
    "fashion-mnist-sample.npz": (
        "e54312df5983091278e19b78d556c57b76d4f06812f2aabad05f6f23c78b3d84"
    )
}
"""SHA-256 of the file of the sample."""

SAMPLE_FOLDER = Path(__file__).with_name("sample")
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_LARGEST = 16 + 60_000 * 28 * 28  # bytes in the largest file: a header and the pixels
_STALL = 30.0  # seconds without a byte after which a download is given up
_REMEDY = "bring it again with `make data` or `dian.data.download()`"


@dataclass(frozen=True, eq=False)
class Images:
    """Images with their labels.

    Attributes
    ----------
    images
        Grey values from 0 (background) to 1, row by row from the top: the byte of the
        file divided by 255.
    labels
        The class of each image, a position in :data:`CLASSES`.
    index
        The position of each image in its whole split, counted from 0.
    """

    images: Float32[Tensor, "n 28 28"]
    labels: Int64[Tensor, "n"]
    index: Int64[Tensor, "n"]


def fashion_mnist(split: str, *, root: str | os.PathLike[str] | None = None) -> Images:
    """Load all 60,000 training or all 10,000 test images.

    Parameters
    ----------
    split
        ``"train"`` or ``"test"``.
    root
        The folder to load from, in place of the search above.

    Returns
    -------
    Images
        In the order of the files; ``index`` counts from 0.

    Raises
    ------
    DianError
        If a file is missing or is not the right one, or none is found and the download
        fails.

    See Also
    --------
    sample : a part of the same images, there without a download.

    Examples
    --------
    >>> fashion_mnist("validation")
    Traceback (most recent call last):
    ValueError: split must be 'train' or 'test', got 'validation'
    """
    _check_split(split)
    contents = read(find(root) or download())
    # Not at the top: a page that shows the sample can do without the second it takes.
    from torchvision.datasets import FashionMNIST

    try:
        # torchvision opens the files itself. A private copy of the bytes that were
        # checked is all that it gets to see.
        with TemporaryDirectory(prefix="dian-") as private:
            for name, content in contents.items():
                path = _raw(Path(private), name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            whole = FashionMNIST(private, train=split == "train")
    except OSError as error:
        raise DianError(
            f"no room to unpack Fashion-MNIST ({error.strerror}): it needs "
            "55 MB for a moment; point TMPDIR to a folder that has them"
        ) from None
    return _images(whole.data, whole.targets, torch.arange(len(whole.targets)))


def sample(split: str) -> Images:
    """Load the sample in the package: 1,000 training or 500 test images.

    They are the first 100 and the first 50 of each class, in the order of the whole
    split; ``scripts/make_sample.py`` takes them from it.

    Parameters
    ----------
    split
        ``"train"`` or ``"test"``.

    Raises
    ------
    DianError
        If the file is not the one that belongs to the package.

    Examples
    --------
    >>> train = sample("train")
    >>> train.images.shape
    torch.Size([1000, 28, 28])
    >>> CLASSES[train.labels[0]]
    'Ankle boot'
    >>> train.labels.bincount()
    tensor([100, 100, 100, 100, 100, 100, 100, 100, 100, 100])

    The last of these images is number 1109 of the 60,000:

    >>> train.index[-1]
    tensor(1109)
    """
    _check_split(split)
    [(name, checksum)] = SAMPLE_CHECKSUMS.items()
    content = read_verified(SAMPLE_FOLDER / name, checksum, "install dian again")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        fields = ("images", "labels", "index")
        return _images(*(torch.from_numpy(arrays[f"{split}_{f}"]) for f in fields))


def user_folder() -> Path:
    """Return the folder in which the data of this user are kept."""
    given = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (given if given.is_absolute() else _folder("~/.local/share")) / "dian"


def find(root: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the first folder that has any of the files; ``None`` if there is none.

    Parameters
    ----------
    root
        Look here alone.

    Raises
    ------
    DianError
        If ``root`` or ``DIAN_DATA`` names a folder that has none of them.
    """
    given = root or os.environ.get("DIAN_DATA")
    if not given:
        return next(filter(_holds, (user_folder(), DEBIAN_FOLDER)), None)
    folder = _folder(given)
    if not _holds(folder):
        origin = "given as root" if root else "named by DIAN_DATA"
        name = next(iter(CHECKSUMS))
        raise DianError(
            f"{folder}: no Fashion-MNIST to be seen in this folder, {origin}: expected "
            f"{_raw(Path(), name)} or {name}.gz and three more; {_REMEDY}"
        )
    return folder


def read(folder: Path, remedy: str = _REMEDY) -> dict[str, bytes]:
    """Return the uncompressed bytes of the four files of a folder, all checked.

    Parameters
    ----------
    folder
        One that :func:`find` returns.
    remedy
        How the message of an error ends: what the reader should do.

    Raises
    ------
    DianError
        For the first file that is missing, cannot be read or has other content.
    """
    return {name: _read_file(folder, name, remedy) for name in CHECKSUMS}


def install(source: Path, root: str | os.PathLike[str] | None = None) -> Path:
    """Copy the four files of a folder to where they are looked for first.

    Each is put in its place whole, and only after all have been checked: what was there
    before stays if anything is wrong.

    Parameters
    ----------
    source
        The folder that has them, in either form.
    root
        Where to put them. Default: ``DIAN_DATA`` or else the user's data folder.

    Returns
    -------
    Path
        The folder that has them now.
    """
    given = root or os.environ.get("DIAN_DATA")
    folder = _folder(given) if given else user_folder()
    for name, content in read(source, remedy="nothing was changed").items():
        path = _raw(folder, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise DianError(
                f"{path}: cannot be written ({error.strerror}); make room for it, or "
                "choose another folder with DIAN_DATA"
            ) from None
    return folder


def download(root: str | os.PathLike[str] | None = None) -> Path:
    """Bring the data in by torchvision's own download, and :func:`install` them.

    It is given up when 30 seconds pass without a byte.

    Raises
    ------
    DianError
        If that fails, or brings other files than the right ones.
    """
    from torchvision.datasets import FashionMNIST

    before = socket.getdefaulttimeout()
    try:
        with TemporaryDirectory(prefix="dian-") as private:
            socket.setdefaulttimeout(_STALL)  # torchvision itself sets no limit
            FashionMNIST(private, download=True)
            return install(Path(private), root)
    except DianError:
        raise
    except Exception as error:  # whatever may go wrong in a download by others' code
        said = textwrap.shorten(str(error), 300) or type(error).__name__
        reason = "".join(filter(str.isprintable, said))
        raise DianError(
            f"Fashion-MNIST: torchvision's download failed ({reason}); check the "
            "network, or install Debian's package dataset-fashion-mnist, or point "
            "DIAN_DATA to a folder that has the files"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def _check_split(split: str) -> None:
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")


def _images(
    images: UInt8[Tensor, "n 28 28"],
    labels: Integer[Tensor, "n"],
    index: Integer[Tensor, "n"],
) -> Images:
    return Images(images.float().div_(255), labels.long(), index.long())


def _folder(name: str | os.PathLike[str]) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise DianError(
            f"{name}: this home folder is not known; set DIAN_DATA to a folder"
        ) from None


def _raw(folder: Path, name: str) -> Path:
    return folder / "FashionMNIST" / "raw" / name


def _holds(folder: Path) -> bool:
    return any(
        os.path.lexists(path)
        for name in CHECKSUMS
        for path in (_raw(folder, name), folder / f"{name}.gz")
    )


def _read_file(folder: Path, name: str, remedy: str) -> bytes:
    raw, packed = _raw(folder, name), folder / f"{name}.gz"
    if os.path.lexists(raw) or not os.path.lexists(packed):
        return read_verified(raw, CHECKSUMS[name], remedy)
    try:
        with gzip.open(packed) as file:
            content = file.read(_LARGEST + 1)  # no further, whatever it unpacks to
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or "not a whole gzip file"
        raise DianError(f"{packed}: {reason}; {remedy}") from None
    if (found := sha256(content)) != CHECKSUMS[name]:
        raise DianError(
            f"{packed}: expected SHA-256 {CHECKSUMS[name][:16]}… when uncompressed, "
            f"found {found[:16]}…: damaged or another version; {remedy}"
        )
    return content
