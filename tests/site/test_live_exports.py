"""The files that the live figures load hold what is recorded."""

import base64
import json
import re
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from dian.data import CLASSES
from dian.runs.record import load
from dian_sphinx.live import attention, denoise, offered, reader, unet_export

SCRIPT = re.compile(r'dianLive\.give\("([\w-]+)",(\{.*\}),"([A-Za-z0-9+/=]*)"\);\n')
CONDITIONAL, DENOISER = offered.DENOISERS


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


def predictions(model, *classes):
    """Return what the exported file predicts for three images, and what torch does."""
    x = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    inputs = [x, torch.tensor([1, 500, 1000]), *classes]
    graph = onnx.load_model_from_string(unet_export.export(model))
    names = [one.name for one in graph.graph.input]
    assert names == ["x", "t", "y"][: len(inputs)]
    feeds = dict(zip(names, (one.numpy() for one in inputs), strict=True))
    (there,) = ReferenceEvaluator(graph).run(None, feeds)
    with torch.no_grad():
        return graph, there, model(*inputs).numpy()


def test_the_classes_have_the_names_of_the_data():
    assert list(offered.CLASSES) == list(CLASSES)


@pytest.mark.parametrize("name", [DENOISER, CONDITIONAL])
def test_the_exported_network_predicts_what_the_recorded_one_does(name):
    """For other images and times than those of the export, with a class and without."""
    model = load(name).model()
    given = [] if name == DENOISER else [torch.tensor([4, 9, model.null_class])]
    graph, there, here = predictions(model, *given)
    assert np.abs(there - here).max() < 1e-4
    if given:
        _, other, _ = predictions(model, torch.tensor([4, 8, model.null_class]))
        differs = np.abs(other - there).max((1, 2, 3)) > 1e-2
        assert differs.tolist() == [False, True, False]
    halves = {
        one.data_type == onnx.TensorProto.FLOAT16
        for one in graph.graph.initializer
        if np.prod(one.dims) > 1 and one.data_type != onnx.TensorProto.INT64
    }
    assert halves == {True}


def test_the_distances_of_recorded_images_are_those_of_the_record():
    found = denoise.recorded_distances(DENOISER)
    record = load(f"{DENOISER}-evaluation")
    assert list(found) == ["none 10", "none 20", "none 50", "none 100"]
    assert found["none 20"].split()[0] == f"{record.value('ddim-20/both/frechet'):.0f}"


def test_the_distances_of_guided_images_are_those_of_the_record(monkeypatch):
    metrics = {
        "long/class-ddim-50/frechet": 2.04,
        "long/ddim-100/frechet": 2.5,
        "guided-0/frechet": 2.4,
        "guided-0.5/frechet": 4.26,
        "guided-2/frechet": 12.34,
    }

    recorded = SimpleNamespace(
        settings={"models": "long", "guidance": "0 0.5 2", "guided_steps": 50},
        content={"metrics": metrics},
        value=lambda metric: metrics.get(metric, 0.13),
    )
    monkeypatch.setattr(denoise, "evaluations", lambda name: [f"{name}-evaluation"])
    monkeypatch.setattr(denoise, "load", lambda name: recorded)
    assert denoise.recorded_distances(CONDITIONAL) == {
        "0 50": "2.0 ± 0.1",
        "none 100": "2.5 ± 0.1",
        "0.5 50": "4.3 ± 0.1",
        "2 50": "12.3 ± 0.1",
    }
