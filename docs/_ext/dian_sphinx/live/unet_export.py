"""A recorded U-Net as an ONNX file, which onnxruntime-web runs in the browser."""

import io
import warnings

import numpy as np
import onnx
import torch
from onnx import ModelProto, helper, numpy_helper

from dian.diffusion.unet import UNet
from dian.runs.record import load


def onnx_file(name: str) -> bytes:
    """Export the network of a record."""
    return export(load(name).model())


def export(model: UNet) -> bytes:
    """Export a U-Net for any number of images."""
    classes = model.null_class
    inputs = (torch.randn(2, 1, 28, 28), torch.tensor([7, 500]))
    if classes is not None:
        inputs += (torch.tensor([0, classes]),)
    names, file = ["x", "t", "y"][: len(inputs)], io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # shapes that are traced are fixed
        torch.onnx.export(
            model.requires_grad_(False),
            inputs,
            file,
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=["prediction"],
            dynamic_axes={name: {0: "n"} for name in (*names, "prediction")},
        )
    graph = onnx.load_model_from_string(file.getvalue())
    halve(graph)
    onnx.checker.check_model(graph)
    return graph.SerializeToString(deterministic=True)


def halve(graph: ModelProto) -> None:
    """Store in 16 bits the weights that 16 bits hold exactly, which halves the file.

    The graph casts them back to 32 bits, so it computes the same numbers.
    """
    casts = []
    for stored in graph.graph.initializer:
        if stored.data_type != onnx.TensorProto.FLOAT:
            continue
        wide = numpy_helper.to_array(stored)
        with np.errstate(over="ignore"):
            half = wide.astype(np.float16)
        if wide.size > 1 and np.array_equal(half.astype(np.float32), wide):
            name = stored.name
            stored.CopyFrom(numpy_helper.from_array(half, f"{name}/half"))
            casts.append(
                helper.make_node(
                    "Cast", [f"{name}/half"], [name], to=onnx.TensorProto.FLOAT
                )
            )
    for cast in reversed(casts):  # before the nodes that read the weights
        graph.graph.node.insert(0, cast)
