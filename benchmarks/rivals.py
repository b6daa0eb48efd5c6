"""What a user might take instead of this service, with srcnn-x3's own weights.

    python benchmarks/rivals.py handler --port 9000
    python benchmarks/rivals.py litserve --port 9000
    python benchmarks/rivals.py litserve-onnx --port 9000 --model edsr-lite-x3

Other runtimes get the network as Keras has it, which is what their converters are given.
"""

import argparse
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response, UploadFile
from PIL import Image

from superres.arrays import RgbU8, TilesU8, to_float, to_integer, without_margin
from superres.codecs import DEFAULT_QUALITY, decode
from superres.engines.onnxruntime import ONNX, ONNX_FILES, open_onnx
from superres.models.card import read_card
from superres.models.registry import DEFAULT_MODELS

MODEL = DEFAULT_MODELS / "srcnn-x3"
SCALE = 3
THREADS = os.cpu_count() or 1
"""Of each runtime."""

Predict = Callable[[TilesU8], np.ndarray]


def keras_network() -> Any:
    """The network, with its weights, in float32."""
    from training.weights import trained_network

    return trained_network(MODEL)


def to_onnx() -> bytes:
    """The network as `model.export(format="onnx")` makes it, with uint8 at both ends."""
    import tensorflow as tf
    import tf2onnx

    network = keras_network()
    spec = tf.TensorSpec((None, None, None, 3), tf.uint8, name="tiles")

    @tf.function(input_signature=[spec])
    def answers(tiles: tf.Tensor) -> tf.Tensor:
        made = network(tf.cast(tiles, tf.float32) / 255.0)
        return tf.cast(tf.clip_by_value(tf.round(made * 255.0), 0.0, 255.0), tf.uint8)

    proto, _ = tf2onnx.convert.from_function(answers, input_signature=[spec], opset=18)
    return proto.SerializeToString()


def onnx_runtime(onnx: bytes) -> Predict:
    """ONNX Runtime on the CPU, in float32: it has no bfloat16 there."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    # Its threads would go on spinning while others are timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda tiles: session.run(None, {name: tiles})[0]


def openvino(onnx: bytes, precision: str) -> Predict:
    """OpenVINO on the CPU; `precision` is bf16 or f32."""
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(io.BytesIO(onnx)),
        "CPU",
        {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": THREADS},
    )
    return lambda tiles: compiled(tiles)[0]


def keras_predict() -> Predict:
    """As the upstream project's notebook does it."""
    network = keras_network()
    return lambda tiles: to_integer(network.predict(to_float(tiles), verbose=0), np.uint8)


def opencv(file: Path) -> tuple[Callable[[RgbU8], np.ndarray], int]:
    """OpenCV's dnn_superres, with a model such as `FSRCNN_x3.pb`: what enlarges, and its scale.

    It takes `pip install opencv-contrib-python-headless`, which `make bench` does not bring.
    """
    from cv2 import dnn_superres

    name, scale = file.stem.split("_x")
    network = dnn_superres.DnnSuperResImpl_create()
    network.readModel(str(file))
    network.setModel(name.lower(), int(scale))
    return network.upsample, int(scale)


def _bicubic(body: bytes) -> RgbU8:
    image = Image.open(io.BytesIO(body)).convert("RGB")
    size = (SCALE * image.width, SCALE * image.height)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def _jpeg(sr: RgbU8) -> bytes:
    """As `POST /enhance` encodes it."""
    file = io.BytesIO()
    Image.fromarray(sr).save(file, "JPEG", quality=DEFAULT_QUALITY, subsampling=0)
    return file.getvalue()


def serve_handler(port: int) -> None:
    """A plain FastAPI handler around `predict`, whole pictures at once."""
    predict = keras_predict()
    app = FastAPI()

    @app.post("/enhance")
    async def enhance(file: UploadFile) -> Response:
        sr = predict(_bicubic(await file.read())[None])[0]
        return Response(_jpeg(sr), media_type="image/jpeg")

    uvicorn.run(app, port=port, log_level="warning")


class Enhance(litserve.LitAPI):
    """The SavedModel's bfloat16 signature on whole pictures."""

    _folder = MODEL

    def setup(self, device: str) -> None:
        """Load it."""
        import tensorflow as tf

        self._geometry = read_card(self._folder).geometry
        self._tf, self._model = tf, tf.saved_model.load(str(MODEL / "saved_model"))

    def decode_request(self, request: Request) -> RgbU8:
        """Decode, and enlarge by bicubic. What comes in is the form, whatever its type says."""
        return _bicubic(request["file"].file.read())

    def predict(self, plane: RgbU8) -> RgbU8:
        """Run the network on the plane with a halo, to which it gives no answer."""
        halo = self._geometry.halo
        around = np.pad(plane, ((halo, halo), (halo, halo), (0, 0)), "edge")
        return without_margin(self._answers(around[None]), halo * self._geometry.upscale)[0]

    def _answers(self, tiles: TilesU8) -> np.ndarray:
        signature = self._model.signatures["u8_bfloat16"]
        return signature(tiles=self._tf.constant(tiles))["answers"].numpy()

    def encode_response(self, sr: RgbU8) -> Response:
        """Encode."""
        return Response(_jpeg(sr), media_type="image/jpeg")


class EnhanceOnnx(Enhance):
    """The same with a model's ONNX file, in float32."""

    def __init__(self, model: Path) -> None:
        super().__init__(api_path="/enhance")
        self._folder = model

    def setup(self, device: str) -> None:
        """Load it."""
        self._geometry = read_card(self._folder).geometry
        self._network = open_onnx(self._folder / ONNX / ONNX_FILES["u8_float32"])

    def decode_request(self, request: Request) -> RgbU8:
        """Decode, and enlarge by bicubic if the network does not enlarge."""
        body = request["file"].file.read()
        return decode(body).rgb if self._geometry.domain == "lr" else _bicubic(body)

    def _answers(self, tiles: TilesU8) -> np.ndarray:
        return self._network(tiles)


def serve_litserve(api: litserve.LitAPI, port: int) -> None:
    """LitServe, as it comes, around that."""
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(port=port, generate_client_file=False, log_level="warning")


def main() -> None:
    """Serve one of them on loopback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rival", choices=["handler", "litserve", "litserve-onnx"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default=MODEL.name, help="of litserve-onnx")
    arguments = parser.parse_args()
    if arguments.rival == "handler":
        serve_handler(arguments.port)
    elif arguments.rival == "litserve":
        serve_litserve(Enhance(api_path="/enhance"), arguments.port)
    else:
        serve_litserve(EnhanceOnnx(DEFAULT_MODELS / arguments.model), arguments.port)


if __name__ == "__main__":
    main()
