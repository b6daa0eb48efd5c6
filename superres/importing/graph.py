"""ONNX graphs from ``tiles`` to ``answers``, as the engine of ONNX files takes them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from superres.engines.onnxruntime import ONNX_FILES

OPSET = 18
"""Version of ONNX's operators: of 2022, so that older runtimes read the files, too."""
IR_VERSION = 8
"""Version of the file's layout that belongs to it."""
SHARED_WEIGHTS = "weights.bin"
"""The file, beside those of the graphs, that has the weights of both."""
SMALL = 1024
"""Bytes of a constant below which it stays in the graph."""


class Graph:
    """Nodes and constants of a graph that is being built. Values are names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, value: np.ndarray, name: str = "") -> str:
        """The name of a constant; one without a name of its own gets a number."""
        name = name or f"constant{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def number(self, value: float) -> str:
        """The name of a scalar constant, float32."""
        return self.constant(np.asarray(value, np.float32))

    def integers(self, *values: int) -> str:
        """The name of a constant list, int64."""
        return self.constant(np.asarray(values, np.int64))

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        output = output or f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output


Middle = Callable[[Graph, str], str]
"""Adds a network to a graph: from the name of its input to that of its output, both NCHW, RGB
in [0, 1], float32."""


def save_onnx(
    middle: Middle,
    folder: Path,
    *,
    upscale: int,
    multiple: int,
    margin: int = 0,
    opsets: Sequence[onnx.OperatorSetIdProto] = (),
) -> None:
    """Write a network as an ONNX file for each type of tiles, which share their weights.

    Args:
        middle: see :func:`to_onnx`.
        folder: the folder to make.
        upscale: see there.
        multiple: see there.
        margin: see there.
        opsets: see there.
    """
    folder.mkdir()
    places: dict[str, int] = {}
    with (folder / SHARED_WEIGHTS).open("wb") as weights:
        for signature, name in ONNX_FILES.items():
            dtype = "float32" if signature == "f32" else "uint8"
            model = to_onnx(
                middle,
                upscale=upscale,
                multiple=multiple,
                margin=margin,
                dtype=dtype,
                opsets=opsets,
            )
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


def to_onnx(
    middle: Middle,
    *,
    upscale: int,
    multiple: int,
    margin: int = 0,
    dtype: str,
    clip: bool = True,
    opsets: Sequence[onnx.OperatorSetIdProto] = (),
) -> onnx.ModelProto:
    """Build the graph around a network.

    Args:
        middle: adds the network.
        upscale: output pixels per input pixel, along a side.
        multiple: number that the sides of its input must be multiples of, px; the graph pads them.
        margin: pixels at each side of the answers that the network does not make; the graph makes
            them black.
        dtype: ``uint8``, or ``float32`` for samples in [0, 1], of both input and output.
        clip: whether float32 answers are clipped.
        opsets: versions of the operators that the network uses; by default OPSET.

    Returns:
        A model from ``tiles`` [n, h, w, 3] to ``answers`` [n, h * upscale, w * upscale, 3],
        rounded half to even and clipped.
    """
    graph = Graph()
    x = "tiles"
    if dtype == "uint8":
        x = graph.add("Cast", x, to=TensorProto.FLOAT)
        x = graph.add("Div", x, graph.number(255))
    x = graph.add("Transpose", x, perm=(0, 3, 1, 2))
    if multiple > 1:
        x = _padded(graph, x, multiple)
    x = middle(graph, x)
    if margin:
        x = graph.add("Pad", x, graph.integers(0, 0, margin, margin, 0, 0, margin, margin))
    if multiple > 1:
        x = _cropped(graph, x, upscale)
    x = graph.add("Transpose", x, perm=(0, 2, 3, 1))
    if dtype == "uint8":
        x = graph.add("Round", graph.add("Mul", x, graph.number(255)))
        x = graph.add("Clip", x, graph.number(0), graph.number(255))
        graph.add("Cast", x, to=TensorProto.UINT8, output="answers")
    elif clip:
        graph.add("Clip", x, graph.number(0), graph.number(1), output="answers")
    else:
        graph.add("Identity", x, output="answers")

    kind = TensorProto.UINT8 if dtype == "uint8" else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("tiles", kind, ("n", "h", "w", 3))]
    outputs = [helper.make_tensor_value_info("answers", kind, ("n", "H", "W", 3))]
    built = helper.make_graph(
        graph.nodes, "superres", inputs, outputs, list(graph.constants.values())
    )
    model = helper.make_model(
        built,
        opset_imports=list(opsets) or [helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _padded(graph: Graph, x: str, multiple: int) -> str:
    """Pad with zeros below and right, so that the sides are multiples."""
    sides = graph.add("Shape", x, start=2)
    more = graph.add("Mod", graph.add("Neg", sides), graph.integers(multiple))
    # For all axes: ONNX Runtime 1.32 moves a transposition past a Pad of some axes wrongly.
    pads = graph.add("Concat", graph.integers(0, 0, 0, 0, 0, 0), more, axis=0)
    return graph.add("Pad", x, pads)


def _cropped(graph: Graph, x: str, upscale: int) -> str:
    """Cut what comes of that padding."""
    sides = graph.add("Shape", "tiles", start=1, end=3)
    ends = graph.add("Mul", sides, graph.integers(upscale))
    return graph.add("Slice", x, graph.integers(0, 0), ends, graph.integers(2, 3))
