"""The files that the live figures load hold what is recorded."""

import base64
import json
import re

import numpy as np
import onnx
import pytest

from dian.data import CLASSES
from dian.diffusion.unet import UNet
from dian.runs.record import load
from dian_sphinx.live import attention, denoise, offered, reader, unet_export

SCRIPT = re.compile(r'dianLive\.give\("([\w-]+)",(\{.*\}),"([A-Za-z0-9+/=]*)"\);\n')
DENOISER = next(iter(offered.DENOISERS))


def unpacked(script):
    """Read a script of weights as the page does."""
    name, content, text = SCRIPT.fullmatch(script).groups()
    numbers, found = np.frombuffer(base64.b64decode(text), "<f4"), {}
    for key, (at, *shape) in json.loads(content)["tensors"].items():
        found[key] = numbers[at : at + int(np.prod(shape))].reshape(shape)
    return name, found


@pytest.mark.parametrize("name", offered.READERS)
def test_a_script_holds_every_weight_of_a_reader_as_recorded(name):
    found_name, found = unpacked(reader.script(name))
    weights = load(name).weights
    assert found_name == name
    assert sum(x.size for x in found.values()) == sum(
        w.numel() for w in weights.values()
    )
    for key, tensor in weights.items():
        same = [np.array_equal(x, tensor) for x in found.values()]
        assert any(same), key


@pytest.mark.parametrize("name", offered.TRANSFORMERS)
def test_a_script_holds_every_weight_of_a_transformer_as_recorded(name):
    _, found = unpacked(attention.script(name))
    weights = load(name).weights
    assert found.keys() == weights.keys()
    assert all(np.array_equal(found[key], weights[key]) for key in weights)


def test_the_classes_have_the_names_of_the_data():
    assert list(offered.CLASSES) == list(CLASSES)


def test_a_network_with_classes_is_exported_with_them():
    file = unet_export.export(UNet("tiny", num_classes=10).eval())
    graph = onnx.load_model_from_string(file)
    assert [one.name for one in graph.graph.input] == ["x", "t", "y"]


def test_the_distances_of_recorded_images_are_those_of_the_record():
    found = denoise.recorded_distances(DENOISER)
    record = load(f"{DENOISER}-evaluation")
    assert list(found) == [10, 20, 50, 100]
    assert found[20][0] == pytest.approx(record.value("ddim-20/both/frechet"), abs=0.01)
