"""`dian.data` and its scripts: the right images, or one line that says what is wrong.

Most tests use a data set of a few random images in the real format, with checksums of
its own; those that need the real one take the fixture ``real_data``.
"""

import gzip
import http.client
import importlib.util
import inspect
import itertools
import os
import re
import socket
import struct
import tempfile
import traceback
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from dian import data
from dian.errors import DianError
from dian.runs.files import sha256

COUNT = {"train": 13, "test": 7}
FILES = {"train": "train", "test": "t10k"}
SCRIPTS = Path(__file__).parents[1] / "scripts"
[SAMPLE] = data.SAMPLE_CHECKSUMS


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """Let no test see or touch what is on this machine, or leave temporary files."""
    monkeypatch.delenv("DIAN_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "debian")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield
    assert not list(temporary.iterdir())


@pytest.fixture
def arrays():
    """Images and labels of a small data set."""
    rng = np.random.default_rng(0)
    return {
        split: (
            rng.integers(256, size=(n, 28, 28), dtype="u1"),
            rng.integers(10, size=n, dtype="u1"),
        )
        for split, n in COUNT.items()
    }


@pytest.fixture
def small(arrays, monkeypatch):
    """The four files of the small data set, which is taken for the real one."""

    def idx(array):
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        return header + array.tobytes()

    files = {
        f"{FILES[split]}-{kind}-ubyte": idx(array)
        for split, pair in arrays.items()
        for kind, array in zip(("images-idx3", "labels-idx1"), pair, strict=True)
    }
    checksums = {name: sha256(content) for name, content in files.items()}
    assert list(checksums) == list(data.CHECKSUMS)
    monkeypatch.setattr(data, "CHECKSUMS", checksums)
    return files


def plain(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in files}


def packed(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return {name: folder / f"{name}.gz" for name in files}


FORMS = pytest.mark.parametrize("form", [plain, packed])
NAMES = pytest.mark.parametrize("name", data.CHECKSUMS)


def state(folder):
    """Everything below a folder: names, contents and times of change."""
    return {
        path: (path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def refusal(function, *arguments, **options):
    """The message with which something is refused: always one line."""
    with pytest.raises(DianError) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert message.isprintable()  # so there is no end of a line in it
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("Traceback") == 1  # and not that of another error above it
    return message


# --- Images ---------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "n"), [("train", 60_000), ("test", 10_000)])
def test_the_real_images(real_data, split, n):
    whole = real_data[split]
    assert whole.images.shape == (n, 28, 28)
    assert (whole.images.min(), whole.images.max()) == (0, 255)
    assert whole.labels.bincount().tolist() == [n // 10] * 10
    assert torch.equal(whole.index, torch.arange(n))


def test_mean_and_spread_are_the_published_ones(real_data):
    """0.2860 and 0.3530 are what everybody normalizes Fashion-MNIST with."""
    images = real_data["train"].unit().double()
    assert images.mean().item() == pytest.approx(0.2860, abs=5e-5)
    assert images.std().item() == pytest.approx(0.3530, abs=5e-5)


def test_the_classes_are_torchvisions():
    assert list(data.CLASSES) == torchvision.datasets.FashionMNIST.classes


@FORMS
@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_loaded_is_what_is_in_the_files(tmp_path, small, arrays, form, split):
    form(tmp_path / "data", small)
    before = state(tmp_path)
    loaded = data.fashion_mnist(split, root=tmp_path / "data")
    images, labels = arrays[split]
    assert np.array_equal(loaded.images.numpy(), images)
    assert np.array_equal(loaded.labels.numpy(), labels)
    assert np.array_equal(loaded.index.numpy(), np.arange(COUNT[split]))
    assert state(tmp_path) == before


def test_torchvision_reads_the_same(tmp_path, small):
    plain(tmp_path / "FashionMNIST/raw", small)
    theirs = torchvision.datasets.FashionMNIST(tmp_path, train=False)
    ours = data.fashion_mnist("test", root=tmp_path / "FashionMNIST/raw")
    assert torch.equal(ours.images, theirs.data)
    assert torch.equal(ours.labels, theirs.targets)


def test_the_views_and_the_parts():
    test = data.sample("test")
    assert torch.equal(test.unit(), test.images / 255)
    assert torch.equal((test.signed() * 127.5 + 127.5).round().byte(), test.images)
    assert (test.signed().min(), test.signed().max()) == (-1, 1)
    for number in (3, np.int64(3)):
        image, label = test[number]
        assert torch.equal(image, test.images[3])
        assert label == test.labels[3]
    for chosen in (slice(7, 20), torch.tensor([3, 1]), test.labels == 2):
        part = test[chosen]
        assert len(part) == len(part.images) == len(test.labels[chosen])
        assert torch.equal(part.index, test.index[chosen])
    assert len(list(test)) == len(test) == 500
    assert repr(test) == "<Images: 500 images of 28 x 28 pixels in 10 classes>"
    png = re.fullmatch(
        '<img alt="(.*?)" src="data:image/png;base64,.*">', test._repr_html_()
    )
    assert test[:3]._repr_html_() != test._repr_html_()
    assert png[1] == "&lt;Images: 500 images of 28 x 28 pixels in 10 classes&gt;"


@pytest.mark.parametrize("load", [data.fashion_mnist, data.sample])
def test_an_unknown_split(load):
    with pytest.raises(
        ValueError, match=r"^split must be one of train, test, got 't'$"
    ):
        inspect.unwrap(load)("t")


# --- Damaged files --------------------------------------------------------------------


def flip(position):
    def flipped(content):
        changed = bytearray(content)
        changed[position] ^= 1
        return bytes(changed)

    return flipped


DAMAGE = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "without the last byte": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\0",
    "bit of the header": flip(3),
    "bit of the end": flip(-1),
    "a page": lambda content: b"<html>not found</html>",
}


@FORMS
@NAMES
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_found_before_parsing(tmp_path, small, form, name, damage):
    path = form(tmp_path / "data", small | {name: damage(small[name])})[name]
    split = "train" if "train" in name else "test"
    message = refusal(data.fashion_mnist, split, root=tmp_path / "data")
    assert message.startswith(f"{path}: expected SHA-256 {data.CHECKSUMS[name][:16]}…")
    assert "make data" in message


@pytest.mark.parametrize("name", ["t10k-labels-idx1-ubyte"])
def test_an_archive_with_any_byte_changed(tmp_path, small, name):
    """It is refused, or harmless: gzip's header has bytes that mean nothing."""
    path = packed(tmp_path / "data", small)[name]
    content = path.read_bytes()
    spoilt = [content[:n] for n in (0, 1, len(content) // 2, -1)]
    spoilt += [flip(position)(content) for position in range(len(content))]
    refused = []
    for wrong in spoilt:
        path.write_bytes(wrong)
        try:
            assert data.read(tmp_path / "data") == small
        except DianError as error:
            refused.append(str(error))
    assert all(message.startswith(f"{path}: ") for message in refused)
    assert len(refused) > len(spoilt) / 2


def test_an_archive_that_unpacks_without_end(tmp_path, small, monkeypatch):
    path = packed(tmp_path / "data", small)["t10k-labels-idx1-ubyte"]
    path.write_bytes(gzip.compress(bytes(10**6)))
    monkeypatch.setattr(data, "_LARGEST", 1000)
    assert "in 1001 bytes" in refusal(data.read, tmp_path / "data")


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_loop(path):
    """A file that cannot be opened, not even by root."""
    path.unlink()
    path.symlink_to(path)


def make_dangling(path):
    path.unlink()
    path.symlink_to(path.with_name("gone"))


@FORMS
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, "t10k-labels-idx1-ubyte: no such file"),
        (make_folder, "Is a directory"),
        (make_loop, "Too many levels of symbolic links"),
        (make_dangling, "o such file"),
    ],
)
def test_no_file_to_read(tmp_path, small, form, spoil, reason):
    path = form(tmp_path / "data", small)["t10k-labels-idx1-ubyte"]
    spoil(path)
    message = refusal(data.fashion_mnist, "test", root=tmp_path / "data")
    assert message.startswith(str(path).removesuffix(".gz"))
    assert reason in message
    assert "make data" in message


# --- Where the data are looked for ----------------------------------------------------


@pytest.fixture
def places(tmp_path, small, monkeypatch):
    """The three folders of the search, each with the data."""
    monkeypatch.setenv("DIAN_DATA", str(tmp_path / "given"))
    packed(tmp_path / "given", small)
    plain(tmp_path / "home" / "dian", small)
    packed(tmp_path / "debian", small)
    return tmp_path


def test_the_order_of_the_search(places, small, monkeypatch):
    plain(places / "root", small)
    assert data.find(places / "root") == places / "root"
    assert data.find() == places / "given"
    monkeypatch.setenv("DIAN_DATA", "")
    assert data.find() == places / "home" / "dian"
    monkeypatch.setenv("XDG_DATA_HOME", str(places / "nothing"))
    assert data.find() == places / "debian"
    monkeypatch.setattr(data, "DEBIAN_FOLDER", places / "nothing")
    assert data.find() is None


@pytest.mark.parametrize("exists", [False, True])
def test_a_given_folder_without_data_is_not_replaced_by_another(
    places, monkeypatch, exists
):
    monkeypatch.setenv("DIAN_DATA", str(places / "empty"))
    if exists:
        (places / "empty").mkdir()
    monkeypatch.setattr(data, "download", None)  # not to be called
    message = refusal(data.fashion_mnist, "train")
    assert message.startswith(f"{places / 'empty'}: no Fashion-MNIST in this folder")
    assert "named by DIAN_DATA" in message
    assert "train-images-idx3-ubyte" in message
    assert "given as root" in refusal(data.find, places / "empty")


@pytest.mark.parametrize("spoil", [make_dangling, lambda path: path.write_bytes(b"")])
def test_a_damaged_folder_is_not_replaced_by_another(places, monkeypatch, spoil):
    """Nor one of links to a disk that is away."""
    monkeypatch.delenv("DIAN_DATA")
    folder = places / "home" / "dian"
    for name in data.CHECKSUMS:
        spoil(folder / name)
    assert refusal(data.fashion_mnist, "train").startswith(f"{folder}/train-images")


def test_an_archive_does_not_replace_a_damaged_file(tmp_path, small):
    path = plain(tmp_path / "data", small)["train-images-idx3-ubyte"]
    for name, archive in packed(tmp_path / "debian", small).items():
        archive.rename(tmp_path / "data" / f"{name}.gz")
    for spoil in (make_dangling, make_loop):
        spoil(path)
        assert refusal(data.read, tmp_path / "data").startswith(f"{path}: ")


@pytest.mark.parametrize("value", ["", "not/absolute"])
def test_the_users_folder_by_default(tmp_path, monkeypatch, value):
    monkeypatch.setenv("XDG_DATA_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.user_folder() == tmp_path / ".local/share/dian"


def test_a_home_in_the_variable(places, monkeypatch):
    monkeypatch.setenv("HOME", str(places))
    monkeypatch.setenv("DIAN_DATA", "~/given")
    assert data.find() == places / "given"
    monkeypatch.setenv("DIAN_DATA", "~nobody-of-this-name/given")
    assert refusal(data.find).startswith("~nobody-of-this-name/given: ")


# --- Fetching the data ----------------------------------------------------------------


def fail_after(monkeypatch, n):
    """Let the disk be full at the n-th step of writing, counted from 0."""
    steps = iter(range(10**6))

    def limited(real):
        def write(*arguments, **options):
            if next(steps) == n:
                raise OSError(28, "No space left on device")
            return real(*arguments, **options)

        return write

    for owner, name in [
        *((Path, "mkdir"), (Path, "write_bytes"), (os, "fsync"), (Path, "replace")),
    ]:
        monkeypatch.setattr(owner, name, limited(getattr(owner, name)))
    return steps


@FORMS
def test_install(tmp_path, small, monkeypatch, form):
    form(tmp_path / "source", small)
    assert data.install(tmp_path / "source") == tmp_path / "home" / "dian"
    monkeypatch.setenv("DIAN_DATA", str(tmp_path / "given"))
    assert data.install(tmp_path / "source") == data.find() == tmp_path / "given"
    target = tmp_path / "Für später"
    assert data.install(tmp_path / "source", target) == target
    assert {path.name: path.read_bytes() for path in target.iterdir()} == small


def test_other_files_in_a_folder_of_the_user_are_not_replaced(tmp_path, small):
    """Those of MNIST have the same names."""
    plain(tmp_path / "source", small)
    other = plain(tmp_path / "target", small)["t10k-labels-idx1-ubyte"]
    other.write_bytes(b"digits")
    before = state(tmp_path / "target")
    message = refusal(data.install, tmp_path / "source", tmp_path / "target")
    assert re.match(rf"{other}: another file is here; move it away", message)
    assert state(tmp_path / "target") == before


def test_a_damaged_file_in_the_folder_of_the_program_is_replaced(tmp_path, small):
    plain(tmp_path / "source", small)
    folder = data.install(tmp_path / "source")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(b"")
    assert data.read(data.install(tmp_path / "source")) == small


def test_install_refuses_damage_and_keeps_what_is_there(tmp_path, small):
    source = plain(tmp_path / "source", small)
    plain(tmp_path / "target", small)
    before = state(tmp_path / "target")
    source["t10k-labels-idx1-ubyte"].write_bytes(b"other")  # the last of the four
    message = refusal(data.install, tmp_path / "source", tmp_path / "target")
    assert message.endswith("nothing was changed")
    assert state(tmp_path / "target") == before


def test_a_disk_that_fills_up_at_any_step(tmp_path, small):
    source, target = tmp_path / "source", tmp_path / "target"
    packed(source, small)
    plain(target, small)
    names = set(state(target))
    for n in itertools.count():
        with pytest.MonkeyPatch.context() as patch:
            steps = fail_after(patch, n)
            try:
                data.install(source, target)
            except DianError as error:
                message = str(error)
            else:
                break
        assert "No space left on device" in message
        assert data.read(target) == small
        assert set(state(target)) == names
    assert n == next(steps) >= 4 * 4


def test_a_target_that_cannot_be_written(tmp_path, small):
    packed(tmp_path / "source", small)
    (tmp_path / "file").write_bytes(b"")
    message = refusal(data.install, tmp_path / "source", tmp_path / "file" / "data")
    assert message.startswith(str(tmp_path / "file" / "data"))
    assert "Not a directory" in message


@pytest.fixture
def server(monkeypatch):
    """A server of archives: a function that torchvision calls in place of its own."""

    def serve(function):
        def urlretrieve(url, filename, chunk_size=None):
            Path(filename).write_bytes(b"half of it")
            Path(filename).write_bytes(function(Path(filename).stem))

        monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", urlretrieve)
        monkeypatch.setattr(
            "torchvision.datasets.utils._get_redirect_url", lambda url, **_: url
        )

    return serve


@pytest.fixture
def any_archive(monkeypatch):
    """Let torchvision take every archive: its own MD5 are those of the real ones."""
    fashion = torchvision.datasets.FashionMNIST
    names = [(name, None) for name, _ in fashion.resources]
    monkeypatch.setattr(fashion, "resources", names)


def raising(error):
    def served(name):
        raise error

    return served


def test_download(tmp_path, small, arrays, server, any_archive):
    limits = []

    def served(name):
        limits.append(socket.getdefaulttimeout())
        return gzip.compress(small[name])

    server(served)
    loaded = data.fashion_mnist("test")  # there are no data, so it downloads them
    assert np.array_equal(loaded.labels.numpy(), arrays["test"][1])
    assert data.read(tmp_path / "home" / "dian") == small
    assert limits == [30.0] * 4
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        (raising(urllib.error.URLError("no route to host")), "no route to host"),
        (raising(TimeoutError("timed out")), "timed out"),
        (raising(ConnectionResetError(104, "Connection reset")), "Connection reset"),
        (raising(ValueError()), "ValueError"),
        (raising(http.client.BadStatusLine("\x1b[2J\0no HTTP")), "[2Jno HTTP"),
        (lambda name: b"<html>\nlog in first\n</html>", "File not found or corrupted"),
        (lambda name: gzip.compress(b"other images"), "File not found or corrupted"),
    ],
)
@pytest.mark.parametrize("before", [None, "good", "damaged"])
def test_a_download_that_fails_changes_nothing(
    tmp_path, small, server, served, reason, before
):
    target = tmp_path / "data"
    if before:
        path = plain(target, small)["t10k-labels-idx1-ubyte"]
        if before == "damaged":
            path.write_bytes(b"")
    old = state(target)
    server(served)
    message = refusal(data.download, target)
    assert reason in message
    assert "DIAN_DATA" in message
    assert state(target) == old
    assert socket.getdefaulttimeout() is None


def test_a_download_of_another_version(tmp_path, small, server, any_archive):
    """What torchvision takes for right is verified all the same."""
    name = "t10k-labels-idx1-ubyte"
    other = small | {name: flip(-1)(small[name])}
    server(lambda name: gzip.compress(other[name]))
    message = refusal(data.download, tmp_path / "data")
    assert f"{name}: expected SHA-256 {data.CHECKSUMS[name][:16]}" in message
    assert not (tmp_path / "data").exists()


def test_a_download_that_is_interrupted(tmp_path, small, server):
    server(raising(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        data.download(tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert socket.getdefaulttimeout() is None


def test_no_network(tmp_path):
    assert "no network in the tests" in refusal(data.fashion_mnist, "train")
    assert not (tmp_path / "home").exists()


def test_the_tests_have_no_network():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with socket.socket() as caller, pytest.raises(OSError, match="no network"):
            caller.connect(("127.0.0.1", port))
        with pytest.raises(OSError, match="no network"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/")


# --- The sample -----------------------------------------------------------------------


@pytest.mark.parametrize(("split", "n"), [("train", 1000), ("test", 500)])
def test_the_sample_is_a_part_of_the_real_images(real_data, split, n):
    part, whole = data.sample(split), real_data[split]
    assert part.labels.bincount().tolist() == [n // 10] * 10
    assert len(set(part.index.tolist())) == len(part) == n
    for field in ("images", "labels", "index"):
        expected = getattr(whole, field)[part.index]
        torch.testing.assert_close(getattr(part, field), expected, rtol=0, atol=0)


def test_the_sample_is_small_and_says_whose_it_is():
    files = list(data.SAMPLE_FOLDER.iterdir())
    assert sorted(path.name for path in files) == ["LICENSE", SAMPLE]
    assert sum(path.stat().st_size for path in files) <= 700_000
    licence = (data.SAMPLE_FOLDER / "LICENSE").read_text(encoding="utf-8")
    assert "MIT License" in licence
    assert "2017 Zalando SE" in licence


def test_a_damaged_sample(tmp_path, monkeypatch):
    content = (data.SAMPLE_FOLDER / SAMPLE).read_bytes()
    monkeypatch.setattr(data, "SAMPLE_FOLDER", tmp_path)
    path = tmp_path / SAMPLE
    assert refusal(data.sample, "train") == f"{path}: no such file; install dian again"
    path.write_bytes(content)
    data.sample("test")
    monkeypatch.setattr(np, "load", None)  # not to be called
    for damage in DAMAGE.values():
        path.write_bytes(damage(content))
        assert refusal(data.sample, "train").startswith(f"{path}: expected SHA-256")


# --- The scripts ----------------------------------------------------------------------


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sample_can_be_made_again(real_data, monkeypatch, tmp_path, capsys):
    committed = (data.SAMPLE_FOLDER / SAMPLE).read_bytes()
    monkeypatch.setattr(data, "SAMPLE_FOLDER", tmp_path)
    monkeypatch.setattr(data, "fashion_mnist", real_data.__getitem__)
    assert script("make_sample").main() == 0
    assert (tmp_path / SAMPLE).read_bytes() == committed
    assert "another sample" not in capsys.readouterr().out


@pytest.fixture
def get_data():
    return script("get_data")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A path that holds nothing but the shell scripts that a test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name, text):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    return put


def test_data_that_are_there_are_left_alone(places, get_data, capsys):
    before = state(places)
    assert get_data.main() == 0
    output = capsys.readouterr()
    assert output.out == f"Fashion-MNIST is already in {places / 'given'}\n"
    assert not output.err
    assert state(places) == before


def test_damaged_data_are_repaired(
    places, small, get_data, server, any_archive, capsys
):
    path = places / "given" / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(b"")
    server(lambda name: gzip.compress(small[name]))
    assert get_data.main() == 0
    output = capsys.readouterr()
    assert output.err.startswith(f"{path}: ")
    assert output.out == f"Fashion-MNIST is now in {places / 'given'}\n"
    assert data.read(places / "given") == small


def unpacks(programs, source):
    """Programs that do with a folder what Debian's do with the real package."""
    target = f"unpacked{data.DEBIAN_FOLDER}"
    programs("apt-get", '[ "$1 $5" = "download dataset-fashion-mnist" ] && : > it.deb')
    programs(
        "dpkg-deb",
        '[ "$*" = "--extract it.deb unpacked" ] || exit 1\n'
        f'/bin/mkdir -p "{target}" && /bin/cp "{source}"/* "{target}"',
    )


def test_the_package_of_debian(
    tmp_path, small, get_data, programs, monkeypatch, capsys
):
    packed(tmp_path / "source", small)
    unpacks(programs, tmp_path / "source")
    monkeypatch.setenv("DIAN_DATA", str(tmp_path / "given"))
    assert get_data.main() == 0
    output = capsys.readouterr()
    assert "no network in the tests" in output.err
    assert output.err.count("\n") == 1
    assert output.out == f"Fashion-MNIST is now in {tmp_path / 'given'}\n"
    assert data.read(tmp_path / "given") == small


def test_another_version_of_the_package(tmp_path, small, get_data, programs, capsys):
    path = packed(tmp_path / "source", small)["train-labels-idx1-ubyte"]
    path.write_bytes(gzip.compress(b"other"))
    unpacks(programs, tmp_path / "source")
    assert get_data.main() == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "train-labels-idx1-ubyte.gz: expected SHA-256" in lines[1]
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("apt_get", "reason"),
    [
        (None, "no apt-get: this is not a Debian-like system"),
        ("echo 'E: Unable to locate it' >&2; echo more >&2; exit 100", "to locate it)"),
        ("exit 100", "apt-get failed (Command"),
        (":", "apt-get left no package"),
        ("exec /bin/sleep 60", "apt-get did not end within 0.2 seconds"),
    ],
)
def test_no_way_to_fetch_the_data(
    tmp_path, get_data, programs, monkeypatch, capsys, apt_get, reason
):
    monkeypatch.setattr(get_data, "LIMIT", 0.2)
    if apt_get:
        programs("apt-get", apt_get)
    assert get_data.main() == 1
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert not output.out
    assert len(lines) == 2
    assert "torchvision" in lines[0]
    assert lines[1].startswith("dataset-fashion-mnist: ")
    assert reason in lines[1]
    assert ("apt-get update" in lines[1]) == ("apt-get failed" in lines[1])
    assert not (tmp_path / "home").exists()
