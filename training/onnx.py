"""A Keras network of :mod:`training.networks` as an ONNX graph.

The graph takes and returns NHWC, as the SavedModel does, and computes in NCHW, as ONNX defines it.
Its convolutions are the plain ones: :func:`training.networks.paired` helps TensorFlow alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from keras import layers
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from superres.engines.onnxruntime import ONNX_FILES
from training import networks

OPSET = 18
"""Version of ONNX's operators: of 2022, so that older runtimes read the files, too."""
IR_VERSION = 8
"""Version of the file's layout that belongs to it."""
SHARED_WEIGHTS = "weights.bin"
"""The file, beside those of the graphs, that has the weights of both."""
SMALL = 1024
"""Bytes of a constant below which it stays in the graph."""


def save_onnx(network: keras.Model, folder: Path, *, upscale: int, multiple: int) -> None:
    """Write a network as an ONNX file for each type of tiles, which share their weights.

    Args:
        network: see :func:`to_onnx`.
        folder: the folder to make.
        upscale: see there.
        multiple: see there.
    """
    folder.mkdir()
    places: dict[str, int] = {}
    with (folder / SHARED_WEIGHTS).open("wb") as weights:
        for signature, name in ONNX_FILES.items():
            dtype = "float32" if signature == "f32" else "uint8"
            model = to_onnx(network, upscale=upscale, multiple=multiple, dtype=dtype)
            for constant in model.graph.initializer:
                data = constant.raw_data
                if len(data) < SMALL:
                    continue
                if constant.name not in places:
                    places[constant.name] = weights.tell()
                    weights.write(data)
                set_external_data(constant, SHARED_WEIGHTS, places[constant.name], len(data))
                constant.ClearField("raw_data")
            (folder / name).write_bytes(model.SerializeToString(deterministic=True))


class _Graph:
    """Nodes and constants of a graph that is being built. Values are names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, value: np.ndarray, name: str = "") -> str:
        """The name of a constant; one without a name of its own gets a number."""
        name = name or f"constant{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        output = output or f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def number(self, value: float) -> str:
        """The name of a scalar constant, float32."""
        return self.constant(np.asarray(value, np.float32))

    def integers(self, *values: int) -> str:
        """The name of a constant list, int64."""
        return self.constant(np.asarray(values, np.int64))


def to_onnx(network: keras.Model, *, upscale: int, multiple: int, dtype: str) -> onnx.ModelProto:
    """Translate a network that was built with ``padding="same"``, in float32.

    Args:
        network: the network.
        upscale: output pixels per input pixel, along a side.
        multiple: number that the sides of its input must be multiples of, px; the graph pads them.
        dtype: ``uint8``, or ``float32`` for samples in [0, 1], of both input and output.

    Returns:
        A model from ``tiles`` [n, h, w, 3] to ``answers`` [n, h * upscale, w * upscale, 3],
        rounded half to even and clipped.

    Raises:
        TypeError: the network has a layer that this function does not know.
    """
    graph = _Graph()
    x = "tiles"
    if dtype == "uint8":
        x = graph.add("Cast", x, to=TensorProto.FLOAT)
        x = graph.add("Div", x, graph.number(255))
    x = graph.add("Transpose", x, perm=(0, 3, 1, 2))
    if multiple > 1:
        x = _padded(graph, x, multiple)
    x = _layers(graph, network, x)
    if multiple > 1:
        x = _cropped(graph, x, upscale)
    x = graph.add("Transpose", x, perm=(0, 2, 3, 1))
    if dtype == "uint8":
        x = graph.add("Round", graph.add("Mul", x, graph.number(255)))
        x = graph.add("Clip", x, graph.number(0), graph.number(255))
        graph.add("Cast", x, to=TensorProto.UINT8, output="answers")
    else:
        graph.add("Clip", x, graph.number(0), graph.number(1), output="answers")

    kind = TensorProto.UINT8 if dtype == "uint8" else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("tiles", kind, ("n", "h", "w", 3))]
    outputs = [helper.make_tensor_value_info("answers", kind, ("n", "H", "W", 3))]
    built = helper.make_graph(
        graph.nodes, network.name, inputs, outputs, list(graph.constants.values())
    )
    model = helper.make_model(
        built, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _layers(graph: _Graph, network: keras.Model, x: str) -> str:
    """Add the layers of the network, in their order."""
    (output,) = network.outputs
    made = {id(network.inputs[0]): x}
    for operation in network.operations:
        if isinstance(operation, layers.InputLayer):
            continue
        (node,) = operation._inbound_nodes
        inputs = [made[id(tensor)] for tensor in node.input_tensors]
        translate = next(
            (make for kind, make in _TRANSLATIONS.items() if isinstance(operation, kind)), None
        )
        if translate is None:
            raise TypeError(f"{operation.name}: no ONNX of {type(operation).__name__}")
        made[id(node.outputs[0])] = translate(graph, operation, *inputs)
    return made[id(output)]


def _convolution(graph: _Graph, layer: layers.Conv2D, x: str) -> str:
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    answer = _convolved(graph, layer.name, x, kernel, keras.ops.convert_to_numpy(layer.bias))
    return _activated(graph, layer.activation, answer)


def _bicubic(graph: _Graph, layer: networks.BicubicSubpixels, x: str) -> str:
    return _convolved(graph, layer.name, x, layer.fixed_kernel)


def _convolved(
    graph: _Graph, name: str, x: str, kernel: np.ndarray, bias: np.ndarray | None = None
) -> str:
    height, width = kernel.shape[:2]
    constants = [graph.constant(kernel.transpose(3, 2, 0, 1), f"{name}/kernel")]
    if bias is not None:
        constants.append(graph.constant(bias, f"{name}/bias"))
    reach = (height // 2, width // 2)
    return graph.add("Conv", x, *constants, kernel_shape=(height, width), pads=(*reach, *reach))


def _activated(graph: _Graph, activation: Callable[..., Any], x: str) -> str:
    name = activation.__name__
    if name == "linear":
        return x
    if name == "relu":
        return graph.add("Relu", x)
    if name == "sigmoid":
        return graph.add("Sigmoid", x)
    if name == "silu":
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    raise TypeError(f"no ONNX of the activation {name}")


def _rescaled(graph: _Graph, layer: layers.Rescaling, x: str) -> str:
    return graph.add(
        "Add", graph.add("Mul", x, graph.number(layer.scale)), graph.number(layer.offset)
    )


def _padded(graph: _Graph, x: str, multiple: int) -> str:
    """Pad with zeros below and right, so that the sides are multiples."""
    sides = graph.add("Shape", x, start=2)
    more = graph.add("Mod", graph.add("Neg", sides), graph.integers(multiple))
    before = graph.integers(0, 0)
    return graph.add("Pad", x, graph.add("Concat", before, more, axis=0), "", graph.integers(2, 3))


def _cropped(graph: _Graph, x: str, upscale: int) -> str:
    """Cut what comes of that padding."""
    sides = graph.add("Shape", "tiles", start=1, end=3)
    ends = graph.add("Mul", sides, graph.integers(upscale))
    starts = graph.integers(0, 0)
    return graph.add("Slice", x, starts, ends, graph.integers(2, 3))


_TRANSLATIONS: dict[type, Callable[..., str]] = {
    layers.Conv2D: _convolution,
    layers.Rescaling: _rescaled,
    layers.Add: lambda graph, layer, *xs: graph.add("Add", *xs),
    layers.Multiply: lambda graph, layer, *xs: graph.add("Mul", *xs),
    layers.Concatenate: lambda graph, layer, *xs: graph.add("Concat", *xs, axis=1),
    layers.Activation: lambda graph, layer, x: _activated(graph, layer.activation, x),
    networks.Fold: lambda graph, layer, x: graph.add("SpaceToDepth", x, blocksize=layer.block),
    networks.BicubicSubpixels: _bicubic,
    networks.PixelShuffle: lambda graph, layer, x: graph.add(
        "DepthToSpace", x, blocksize=layer.scale, mode="DCR"
    ),
}
"""How each kind of layer is translated."""
