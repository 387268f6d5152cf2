"""Recorded networks at work, from Python and from the command line."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import dian
from dian.data import CLASSES, sample
from dian.errors import DianError
from dian.inference import classify, generate, read_image
from dian.runs.record import RECORDED, load

BEST = "rnn-recipe-best"
DDPM = "ddpm-fashion-mnist-small"
LONG = "ddpm-conditional-long"


def test_generated_images_are_bytes_that_depend_on_the_seed_alone():
    first, again, other = (generate(n=2, steps=2, seed=seed) for seed in (0, 0, 1))
    assert first.shape == (2, 1, 28, 28)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    noisy = generate(n=2, steps=2, eta=1.0)
    assert not torch.equal(first, noisy)


def test_generated_images_are_clothes():
    """A classifier that never saw them is sure of most, and unsure of noise."""
    images = generate(n=12, steps=12).squeeze(1)
    sure = classify("feature-classifier", images).amax(1).median()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, images.shape, generator=generator).byte()
    assert sure > 0.8
    assert classify("feature-classifier", noise).amax(1).median() < sure


@pytest.mark.parametrize(
    "name",
    [
        *("rnn-fashion-mnist", BEST, "rnn-pixels-tanh-small", "torch-lstm"),
        *("rows-rotary", "feature-classifier"),
    ],
)
def test_a_classifier_has_its_recorded_accuracy(name):
    test = sample("test")[::5]
    probabilities = classify(name, test.images)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(test)))
    accuracy = (probabilities.argmax(1) == test.labels).double().mean().item()
    recorded = load(name).metrics["test/accuracy"][0]  # that of the first seed
    assert accuracy == pytest.approx(recorded, abs=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: generate(BEST),
            r"rnn-recipe-best is not a diffusion model; these.*ddpm",
        ),
        (lambda: generate("nothing"), r"no record 'nothing'"),
        (
            lambda: classify(DDPM, sample("test")[:1].images),
            r"small is not a classifier of images; these are: feature-classifier, rnn",
        ),
        (
            lambda: classify(f"{LONG}-evaluation", sample("test")[:1].images),
            r"evaluation is not a classifier of images; these are: feature-classifier,",
        ),
        (lambda: read_image("500"), r"the test sample has 500 images, got no. 500"),
        (lambda: read_image("no.png"), r"^no.png: No such file or directory$"),
        (lambda: read_image("wrong.png"), r"^wrong.png: not an image file$"),
        (lambda: read_image("deep.png"), r"expected 8 bits per value, got mode I;16$"),
        (lambda: read_image("bomb.png"), r"expected 28 x 28 pixels, got too many$"),
        (lambda: read_image("large.png"), r"expected .* 28 x 28 pixels, got 30 x 40$"),
    ],
)
def test_errors(monkeypatch, tmp_path, call, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.png").write_text("text")
    Image.fromarray(np.zeros((30, 40), np.uint8)).save("large.png")
    Image.fromarray(np.zeros((28, 28), np.uint16)).save("deep.png")
    Image.new("1", (10_000, 10_000)).save("bomb.png")
    with pytest.raises(DianError, match=message):
        call()


def test_an_image_is_read_as_it_is(tmp_path):
    pixels, label = read_image("7")
    assert label == sample("test").labels[7]
    Image.fromarray(pixels.numpy()).save(tmp_path / "a.png")
    found, unknown = read_image(str(tmp_path / "a.png"))
    assert torch.equal(found, pixels)
    assert unknown is None


def test_transparent_pixels_are_black(tmp_path):
    pixels = np.full((28, 28, 4), 200, np.uint8)
    pixels[..., 3] = np.arange(28) * 9
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found, _ = read_image(str(tmp_path / "a.png"))
    expected = torch.arange(28) * 9 / 255 * 200
    torch.testing.assert_close(found[0].double(), expected.double(), atol=1, rtol=0)


def test_a_record_is_taken_for_its_name():
    images = sample("test")[:2].images
    assert torch.equal(classify(load(BEST), images), classify(BEST, images))
    same = [generate(record, n=1, steps=1) for record in (DDPM, load(DDPM))]
    assert torch.equal(*same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": -1}, "n must be a whole number, at least 1, got -1"),
        ({"seed": 10**23}, "seed must be a whole number, 0 to 18446744073709551615, g"),
        ({"device": "gpu"}, "device must be auto, cpu or cuda, got 'gpu'"),
        ({"label": "Hat"}, "label must be one of T-shirt/top, .*Ankle boot, got 'Hat'"),
        ({"label": 10}, "label must be a whole number, 0 to 9, got 10"),
        ({"label": 3}, "label must be None: ddpm-fashion-mnist-small was trained w"),
        ({"guidance": 1.0}, "guidance needs a label, got 1.0 without one"),
    ],
)
def test_wrong_options_of_generate(options, message):
    with pytest.raises((ValueError, DianError), match=message):
        generate(**options)


def test_samples_of_a_class_are_of_that_class():
    options = {"n": 6, "steps": 10}
    for label in ("Trouser", 9):
        images = generate(LONG, label=label, guidance=1.0, **options)
        found = classify(BEST, images[:, 0]).argmax(1)
        wanted = CLASSES.index(label) if isinstance(label, str) else label
        assert (found == wanted).sum() >= 5
    free = generate(LONG, **options)
    assert not torch.equal(free, images)


# --- The command line -----------------------------------------------------------------


def dian_says(*arguments, cwd=None):
    call = [sys.executable, "-m", "dian", *map(str, arguments)]
    done = subprocess.run(call, capture_output=True, text=True, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def test_version():
    assert dian_says("--version") == (0, f"dian {dian.__version__}\n", "")


def test_list_is_in_columns():
    code, short, _ = dian_says("list")
    assert code == 0
    assert re.search(r"^rnn-recipe-best +recorded$", short, re.M)
    states = [
        re.search(r"(not )?recorded$", line).start() for line in short.splitlines()
    ]
    assert len(set(states)) == 1
    _, long, _ = dian_says("list", "--long")
    line = re.search(r"^rnn-recipe-best +\d\.\d MiB +\d+ s   (.*)$", long, re.M)
    assert line[1] == load(BEST).headline
    ends = [line.index(" MiB") for line in long.splitlines() if " MiB" in line]
    assert len(set(ends)) == 1


def test_show():
    code, output, _ = dian_says("show", BEST)
    assert code == 0
    assert load(BEST).provenance in output
    assert re.search(r"^settings/h +128$", output, re.M)
    assert re.search(r"^test/accuracy +0\.\d+ ± 0\.00\d+$", output, re.M)


def test_predict():
    code, output, _ = dian_says("predict", BEST, 1)
    assert code == 0
    assert output.count("%") == 3
    label = CLASSES[sample("test").labels[1]]
    assert re.match(rf"{label} +\d+\.\d%  \(the true class\)\n", output)


def test_sample(tmp_path):
    options = ("-n", 4, "-o", "grid.png", "--steps", 2)
    code, output, _ = dian_says("sample", DDPM, *options, cwd=tmp_path)
    assert (code, output) == (0, "written to grid.png\n")
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (4 * 28, 28)


@pytest.mark.parametrize(
    ("command", "name", "more"),
    [
        ("show", BEST, ()),
        ("predict", BEST, (1,)),
        ("sample", DDPM, ("-n", 1, "--steps", 1)),
    ],
)
def test_a_record_may_be_in_another_folder(tmp_path, command, name, more):
    (tmp_path / "runs").mkdir()
    call = (command, name, *more, "--from", "runs")
    told = f"dian: no record '{name}'; runs holds none\n"
    assert dian_says(*call, cwd=tmp_path) == (1, "", told)
    shutil.copytree(RECORDED / name, tmp_path / "runs" / name)
    assert dian_says(*call, cwd=tmp_path)[0] == 0


def test_sample_replaces_only_a_file_that_is_named(tmp_path):
    (tmp_path / "grid.png").touch()
    call = ("sample", DDPM, "-n", 1, "--steps", 1)
    told = "dian: grid.png exists; name the file to write with -o\n"
    assert dian_says(*call, cwd=tmp_path) == (1, "", told)
    assert dian_says(*call, "-o", "grid.png", cwd=tmp_path)[0] == 0
    assert (tmp_path / "grid.png").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("show", "feature-clasifier"),
            "dian: no record 'feature-clasifier'; nearest: feature-classifier",
        ),
        (("predict", BEST, "no.png"), "dian: no.png: No such file or directory"),
        (("predict", DDPM, 1), f"dian: record {DDPM} is not a classifier of images"),
        (("sample", BEST), f"dian: record {BEST} is not a diffusion model"),
        (("sample", DDPM, "--steps", 1001), "dian: .*1000.*1001"),
        (("sample", DDPM, "-n", 10**14), f"dian: {10**14} images cannot be sampled: "),
        (("sample", DDPM, "--seed", 10**23), "dian: seed must be a whole number"),
        (("sample", DDPM, "-o", "no/a.png"), "dian: no/a.png: there is no folder no$"),
        (("sample", DDPM, "-o", "x.foo"), "dian: x.foo: expected the name of a .png"),
        (("sample", DDPM, "-o", "x"), "dian: x: expected the name of a .png or .jpg"),
        (("sample", DDPM, "-o", "a.png"), "dian: a.png: .* this is a folder$"),
        (("verify", "X5"), "dian: no claim 'X5'"),
    ],
)
def test_an_error_is_one_line(tmp_path, arguments, message):
    (tmp_path / "a.png").mkdir()
    code, output, error = dian_says(*arguments, cwd=tmp_path)
    assert (code, output) == (1, "")
    assert re.match(message, error)
    assert error.count("\n") == 1
