"""Fetch Fashion-MNIST: the command ``make data``.

The files go into the folder that ``DIAN_DATA`` names, or else into the user's data
folder. They come from torchvision's download or, if that fails on Debian and its
relatives, from the package ``dataset-fashion-mnist``, which is unpacked but not
installed: no root needed.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from dian import data
from dian.errors import DianError

PACKAGE = "dataset-fashion-mnist"
LIMIT = 600  # seconds for apt-get; each of its connections has 30
FETCH = [
    *("apt-get", "download", "--option=Acquire::Retries=1"),
    *("--option=Acquire::http::Timeout=30", "--option=Acquire::https::Timeout=30"),
    PACKAGE,
]


def already_there() -> Path | None:
    """Return the folder of the data if they are complete."""
    try:
        folder = data.find()
    except DianError:
        return None  # the folder that DIAN_DATA names is still empty
    if folder is None:
        return None
    try:
        data.read(folder)
    except DianError as error:
        print(error, file=sys.stderr)
        return None
    return folder


def run(command: list[str], folder: str) -> None:
    """Run a command in a folder, and turn its failure into one line."""
    try:
        subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=LIMIT,
        )
    except FileNotFoundError:
        raise DianError(
            f"{PACKAGE}: there is no {command[0]}: this is not a Debian-like system"
        ) from None
    except subprocess.TimeoutExpired:
        raise DianError(
            f"{PACKAGE}: {command[0]} did not end within {LIMIT} seconds"
        ) from None
    except (subprocess.CalledProcessError, OSError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        reason = next((line for line in lines if line.startswith("E:")), lines[-1])
        raise DianError(
            f"{PACKAGE}: {command[0]} failed ({reason}); on a fresh system "
            "run `sudo apt-get update` first"
        ) from None


def from_debian() -> Path:
    """Unpack Debian's package in a temporary folder, and copy its files."""
    try:
        with TemporaryDirectory(prefix="dian-") as folder:
            run(FETCH, folder)
            package = next(Path(folder).glob("*.deb"), None)
            if package is None:
                raise DianError(f"{PACKAGE}: apt-get left no package")
            run(["dpkg-deb", "--extract", package.name, "unpacked"], folder)
            inside = data.DEBIAN_FOLDER.relative_to("/")
            return data.install(Path(folder, "unpacked") / inside)
    except OSError as error:
        raise DianError(f"{PACKAGE}: no room to unpack it ({error})") from None


def main() -> int:
    """Fetch the data unless they are there, and return the exit status."""
    if folder := already_there():
        print(f"Fashion-MNIST is already in {folder}")
        return 0
    for fetch in (data.download, from_debian):
        try:
            print(f"Fashion-MNIST is now in {fetch()}")
        except DianError as error:
            print(error, file=sys.stderr)
        else:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
