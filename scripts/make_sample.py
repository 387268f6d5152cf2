"""Extract the sample that is part of the package from the whole of Fashion-MNIST.

It needs the whole data set (``make data``), takes the first 100 training and the first
50 test images of each class, and always writes the same bytes.
"""

import io
import sys
import zipfile

import numpy as np

from dian.data import CLASSES, SAMPLE_CHECKSUMS, SAMPLE_FOLDER, Images, fashion_mnist
from dian.errors import DianError
from dian.runs.files import atomic_write, sha256

PER_CLASS = {"train": 100, "test": 50}


def chosen(whole: Images, per_class: int) -> dict[str, np.ndarray]:
    """Return the first images of each class, in the order of the whole split."""
    labels = whole.labels.numpy()
    index = np.sort(
        np.concatenate(
            [np.flatnonzero(labels == c)[:per_class] for c in range(len(CLASSES))]
        )
    )
    return {
        "images": whole.images[index].numpy(),
        "labels": labels[index].astype("u1"),
        "index": index.astype("<i4"),
    }


def archive(whole: dict[str, Images]) -> bytes:
    """Return the bytes of the sample of both splits: an ``.npz`` file.

    NumPy's own writer compresses with deflate, whose output depends on the zlib
    version. bzip2 has one implementation, and compresses the images better.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for split, per_class in PER_CLASS.items():
            for field, array in chosen(whole[split], per_class).items():
                entry = zipfile.ZipInfo(f"{split}_{field}.npy")  # dated 1980
                entry.compress_type = zipfile.ZIP_BZIP2
                entry.create_system = 3  # the same on every system
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, array, (1, 0), allow_pickle=False)
                file.writestr(entry, buffer.getvalue())
    return content.getvalue()


def main() -> int:
    """Write the sample, and print its checksum."""
    [(name, expected)] = SAMPLE_CHECKSUMS.items()
    try:
        content = archive({split: fashion_mnist(split) for split in PER_CLASS})
        atomic_write(SAMPLE_FOLDER / name, content, "make the folder writable")
    except DianError as error:
        print(error, file=sys.stderr)
        return 1
    found = sha256(content)
    print(f"{SAMPLE_FOLDER / name}: {len(content)} bytes, SHA-256 {found}")
    if found != expected:
        print("this is another sample: enter it in SAMPLE_CHECKSUMS of dian/data.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
