"""A Keras network of :mod:`training.networks` as ONNX files.

Their convolutions are the plain ones: :func:`training.networks.paired` helps TensorFlow alone.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from superres.importing import graph as onnx_graph
from superres.importing.graph import Graph
from training import networks


def save_onnx(network: keras.Model, folder: Path, *, upscale: int, multiple: int) -> None:
    """Write a network in float32.

    Args:
        network: a network that was built with ``padding="valid"``.
        folder: see :func:`superres.importing.graph.save_onnx`.
        upscale: see there.
        multiple: see there.

    Raises:
        TypeError: the network has a layer that this module does not know.
    """
    onnx_graph.save_onnx(
        partial(_layers, network),
        folder,
        upscale=upscale,
        multiple=multiple,
        margin=networks.halo(network) * upscale,
    )


def _layers(network: keras.Model, graph: Graph, x: str) -> str:
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


def _convolution(graph: Graph, layer: layers.Conv2D, x: str) -> str:
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    bias = keras.ops.convert_to_numpy(layer.bias)
    answer = _convolved(graph, layer.name, x, kernel, bias, padding=layer.padding)
    return _activated(graph, layer.activation, answer)


def _bicubic(graph: Graph, layer: networks.BicubicSubpixels, x: str) -> str:
    return _convolved(graph, layer.name, x, layer.fixed_kernel, padding="same")


def _inner(graph: Graph, layer: networks.Inner, x: str) -> str:
    margin = layer.margin
    begins, ends = graph.integers(margin, margin), graph.integers(-margin, -margin)
    return graph.add("Slice", x, begins, ends, graph.integers(2, 3))


def _convolved(
    graph: Graph,
    name: str,
    x: str,
    kernel: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    padding: networks.Padding,
) -> str:
    height, width = kernel.shape[:2]
    constants = [graph.constant(kernel.transpose(3, 2, 0, 1), f"{name}/kernel")]
    if bias is not None:
        constants.append(graph.constant(bias, f"{name}/bias"))
    reach = (height // 2, width // 2) if padding == "same" else (0, 0)
    return graph.add("Conv", x, *constants, kernel_shape=(height, width), pads=(*reach, *reach))


def _activated(graph: Graph, activation: Callable[..., Any], x: str) -> str:
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


def _rescaled(graph: Graph, layer: layers.Rescaling, x: str) -> str:
    return graph.add(
        "Add", graph.add("Mul", x, graph.number(layer.scale)), graph.number(layer.offset)
    )


_TRANSLATIONS: dict[type, Callable[..., str]] = {
    layers.Conv2D: _convolution,
    layers.Rescaling: _rescaled,
    layers.Add: lambda graph, layer, *xs: graph.add("Add", *xs),
    layers.Multiply: lambda graph, layer, *xs: graph.add("Mul", *xs),
    layers.Concatenate: lambda graph, layer, *xs: graph.add("Concat", *xs, axis=1),
    layers.Activation: lambda graph, layer, x: _activated(graph, layer.activation, x),
    networks.Fold: lambda graph, layer, x: graph.add("SpaceToDepth", x, blocksize=layer.block),
    networks.BicubicSubpixels: _bicubic,
    networks.Inner: _inner,
    networks.PixelShuffle: lambda graph, layer, x: graph.add(
        "DepthToSpace", x, blocksize=layer.scale, mode="DCR"
    ),
}
"""How each kind of layer is translated."""
