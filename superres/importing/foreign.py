"""A foreign ONNX network: its input and output, and how to call it as this project does."""

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, compose, version_converter

from superres.errors import BadRequest
from superres.importing.graph import OPSET, Graph, Middle
from superres.importing.pytorch import SUFFIXES, to_onnx

Colours = Literal["rgb", "bgr"]
PREFIX = "network/"
_FLOATS = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}


@dataclass(frozen=True)
class Form:
    """The input and output of a network."""

    layout: Literal["nchw", "nhwc"]
    channels: Literal[1, 3]
    dtype: Literal["float32", "float16"]
    largest: Literal[1, 255]
    """The value of white."""
    colours: Colours


def read_network(file: Path) -> onnx.ModelProto:
    """Read and check an ONNX file, with operators of at least version 18, or a PyTorch file.

    Raises:
        BadRequest: it is no ONNX file, or of operators that cannot be brought to that version; see
            also :func:`superres.importing.pytorch.to_onnx`.
    """
    if file.suffix in SUFFIXES:
        with tempfile.TemporaryDirectory() as scratch:
            to_onnx(file, Path(scratch) / f"{file.stem}.onnx")
            return read_network(Path(scratch) / f"{file.stem}.onnx")
    try:
        model = onnx.load(file)
        onnx.checker.check_model(model)
        versions = {one.domain: one.version for one in model.opset_import}
        if versions.get("", OPSET) < OPSET:
            model = version_converter.convert_version(model, OPSET)
    except Exception as error:  # of protobuf, of the checker, of the converter
        raise BadRequest(f"{file.name} is not an ONNX network that can be read: {error}") from error
    return model


def read_form(model: onnx.ModelProto, colours: Colours, largest: Literal[1, 255] = 1) -> Form:
    """Layout, channels and type by the declarations of the network's input and output.

    Raises:
        BadRequest: it does not take and return one picture, or takes one size alone.
    """
    constants = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise BadRequest(
            f"the network has {len(inputs)} inputs and {len(model.graph.output)} outputs; "
            "one picture in and one out can be served"
        )
    tensor = inputs[0].type.tensor_type
    sides = [side.dim_value if side.HasField("dim_value") else 0 for side in tensor.shape.dim]
    if tensor.elem_type not in _FLOATS:
        name = TensorProto.DataType.Name(tensor.elem_type)
        raise BadRequest(f"the network takes {name}; FLOAT and FLOAT16 can be served")
    if len(sides) == 4 and sides[1] in (1, 3):
        layout, channels, height, width = "nchw", sides[1], sides[2], sides[3]
    elif len(sides) == 4 and sides[3] in (1, 3):
        layout, channels, height, width = "nhwc", sides[3], sides[1], sides[2]
    else:
        raise BadRequest(
            f"the network takes {sides} (0 is any); 1 or 3 channels, as [n, c, h, w] or "
            "[n, h, w, c], can be served"
        )
    if height or width:
        raise BadRequest(
            f"the network takes pictures of {width or 'any'}x{height or 'any'} alone: export it "
            "with dynamic height and width"
        )
    return Form(layout, channels, _FLOATS[tensor.elem_type], largest, colours)  # type: ignore[arg-type]


def middle(model: onnx.ModelProto, form: Form) -> Middle:
    """The network as :func:`superres.importing.graph.save_onnx` takes it: NCHW, RGB in [0, 1].

    A network of one channel gets the three colours as three pictures.
    """
    return partial(_add_network, compose.add_prefix(model, PREFIX), form)


def _add_network(model: onnx.ModelProto, form: Form, graph: Graph, x: str) -> str:
    constants = {one.name: one for one in model.graph.initializer}
    (entry,) = [one.name for one in model.graph.input if one.name not in constants]
    (result,) = [one.name for one in model.graph.output]
    order = np.array([2, 1, 0])
    if form.channels == 1:
        x = graph.add("Reshape", x, _planes(graph, x, 1))
    elif form.colours == "bgr":
        x = graph.add("Gather", x, graph.constant(order), axis=1)
    if form.largest == 255:
        x = graph.add("Mul", x, graph.number(255))
    if form.dtype == "float16":
        x = graph.add("Cast", x, to=TensorProto.FLOAT16)
    if form.layout == "nhwc":
        x = graph.add("Transpose", x, perm=(0, 2, 3, 1))
    graph.add("Identity", x, output=entry)
    for one in constants.values():
        # Whatever way the file stores them, raw bytes can be moved to the shared file.
        graph.constant(onnx.numpy_helper.to_array(one), one.name)
    graph.nodes += model.graph.node
    x = result
    if form.layout == "nhwc":
        x = graph.add("Transpose", x, perm=(0, 3, 1, 2))
    if form.dtype == "float16":
        x = graph.add("Cast", x, to=TensorProto.FLOAT)
    if form.largest == 255:
        x = graph.add("Div", x, graph.number(255))
    if form.channels == 1:
        return graph.add("Reshape", x, _planes(graph, x, 3))
    if form.colours == "bgr":
        x = graph.add("Gather", x, graph.constant(order), axis=1)
    return x


def _planes(graph: Graph, x: str, channels: int) -> str:
    """The shape [-1, channels, h, w] of a picture's planes, by number of channels."""
    sides = graph.add("Shape", x, start=2)
    return graph.add("Concat", graph.integers(-1, channels), sides, axis=0)
