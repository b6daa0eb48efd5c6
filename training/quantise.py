"""Int8 files of exported models, by post-training quantisation with ONNX Runtime.

Weights are quantised by output channel, activations by tensor, and the sums between the blocks of a
network stay in float32. Of the convolutions, those that read the picture or make the answer stay in
float32, and as many of the last others as it takes to lose little.
"""

import base64
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization

from superres.arrays import TilesU8
from superres.codecs import decode
from superres.engines.base import INT8_GAIN, LoadedEngine
from superres.engines.onnxruntime import INT8_FILE, ONNX, ONNX_FILES, OnnxRuntimeEngine, open_onnx
from superres.enhancer import Enhancer
from superres.models.card import ModelCard, QuantisedRecord, hash_files, read_card, write_card
from superres.resample import upsample
from superres.tiling import MULTIPLE
from training.dataset import dataset_name, picture_files
from training.evaluate import JPEG_QUALITY, compare_pictures, read_evaluation_pairs
from training.export import put_in_place
from training.kinds import Kind

MOST_LOST_DB = 0.05
"""Luma PSNR that a model may lose in int8, in the mean over pictures of either kind."""
CALIBRATION_PICTURES = 8
STEP = 2
"""Layers that are tried in float32 at a time: those of a residual block."""
ROUNDS = 5
"""Timed calls of each precision."""
KINDS = {"PNG": Kind("png"), f"JPEG {JPEG_QUALITY}": Kind("jpeg", (JPEG_QUALITY, JPEG_QUALITY))}
"""Files that the LR pictures become."""


@dataclass(frozen=True)
class Outcome:
    """What a model loses and gains in int8, and whether it is offered."""

    lost_db: dict[str, float]
    """Luma PSNR, in the mean, by kind of picture."""
    gain: float
    """Times as fast as float32, in processor time."""
    float_layers: int

    @property
    def offered(self) -> bool:
        """Whether it loses little and gains speed."""
        return max(self.lost_db.values()) <= MOST_LOST_DB and self.gain >= INT8_GAIN


def quantise(folder: Path, data: Path, *, pictures: int) -> Outcome:
    """Make the int8 file of a model, and note it in the card if it is to be offered.

    Args:
        folder: the model's folder, with ONNX files.
        data: a folder of held-out HR pictures. Every second one is for calibration.
        pictures: number of pictures on which the model is scored, spread evenly over the others.

    Raises:
        ValueError: the folder has too few pictures, or nothing of the network would be in int8.
    """
    card = read_card(folder)
    if not _inner(_named(folder)):
        raise ValueError(f"{card.name} has no convolution between its first and its last one")
    files = picture_files([data])
    if len(files) < 2 * max(pictures, CALIBRATION_PICTURES):
        raise ValueError(
            f"{data} has {len(files)} pictures; {2 * max(pictures, CALIBRATION_PICTURES)} are "
            "needed, half of them for calibration: set a lower --pictures or another --data"
        )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".quantise-") as scratch:
        scored = _linked(Path(scratch) / "scored", _spread(files[0::2], pictures))
        calibration = _linked(
            Path(scratch) / "calibration", _spread(files[1::2], CALIBRATION_PICTURES)
        )
        made = shutil.copytree(folder, Path(scratch) / folder.name)
        (made / ONNX / INT8_FILE).unlink(missing_ok=True)
        card = _noted(made, card, None)
        float32 = OnnxRuntimeEngine(made, card, device="cpu", precision="float32")
        tiles = list(_calibration_tiles(card, calibration))
        before = _scores(float32, scored)
        for float_layers in range(0, len(_inner(_named(made))), STEP):
            _write(made, tiles, float_layers, Path(scratch) / "ranges.json")
            record = QuantisedRecord(
                pictures=pictures,
                dataset=dataset_name(data),
                lost_db={},
                gain=1,
                float_layers=float_layers,
                answer=_answer(made, card),
            )
            int8 = OnnxRuntimeEngine(
                made, _noted(made, card, record), device="cpu", precision="int8"
            )
            lost = {kind: before[kind] - after for kind, after in _scores(int8, scored).items()}
            outcome = Outcome(lost, _gain(float32, int8), float_layers)
            # More layers in float32 lose less, and gain less.
            if outcome.offered or outcome.gain < INT8_GAIN:
                break
        if outcome.offered:
            measured = {"lost_db": outcome.lost_db, "gain": outcome.gain}
            _noted(made, card, record.model_copy(update=measured))
        else:
            (made / ONNX / INT8_FILE).unlink()
            _noted(made, card, None)
        put_in_place(made, folder)
    return outcome


def _noted(made: Path, card: ModelCard, record: QuantisedRecord | None) -> ModelCard:
    """Write the card of a model whose ONNX files changed."""
    formats = card.more_formats | {ONNX: hash_files(made / ONNX)}
    return write_card(made, card.model_copy(update={"more_formats": formats, "int8": record}))


def _spread(files: Sequence[Path], count: int) -> list[Path]:
    return [files[number * len(files) // count] for number in range(count)]


def _linked(folder: Path, files: Sequence[Path]) -> Path:
    folder.mkdir()
    for file in files:
        (folder / file.name).symlink_to(file.resolve())
    return folder


def _calibration_tiles(card: ModelCard, folder: Path) -> Iterator[TilesU8]:
    """What the network gets of LR pictures of each kind."""
    scale = card.geometry.scale
    for number, (_, hr, lr) in enumerate(read_evaluation_pairs(folder, scale)):
        for kind in KINDS.values():
            rgb = decode(kind.make(lr, number)).rgb
            yield (rgb if card.geometry.domain == "lr" else upsample(rgb, hr.shape[:2]))[None]


def _scores(engine: LoadedEngine, folder: Path) -> dict[str, float]:
    """Mean luma PSNR by kind of picture, dB."""
    geometry = engine.card.geometry
    enhancer = Enhancer(engine, geometry)
    return {
        name: statistics.mean(
            compared.sr_scores.psnr_y
            for _, compared in compare_pictures(enhancer, folder, geometry.scale, kind)
        )
        for name, kind in KINDS.items()
    }


def _gain(float32: LoadedEngine, int8: LoadedEngine) -> float:
    """The ratio of processor times for the largest tile, called in turn."""
    geometry = float32.card.geometry
    side = geometry.largest_tile // geometry.upscale // MULTIPLE * MULTIPLE
    tiles = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    seconds: dict[LoadedEngine, list[float]] = {float32: [], int8: []}
    for _ in range(1 + ROUNDS):
        for engine, times in seconds.items():
            began = time.process_time()
            engine.predict(tiles)
            times.append(time.process_time() - began)
    first, second = (statistics.median(times[1:]) for times in seconds.values())
    return first / second


def _named(made: Path) -> onnx.ModelProto:
    """The float32 network for uint8, with a name for each node."""
    model = onnx.load(made / ONNX / ONNX_FILES["u8_float32"])
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def _inner(model: onnx.ModelProto) -> list[str]:
    """Convolutions that neither read the picture nor make the answer, in their order."""
    shapes = {one.name: list(one.dims) for one in model.graph.initializer}
    kernels = {
        node.name: shapes[node.input[1]] for node in model.graph.node if node.op_type == "Conv"
    }
    if len(kernels) < 2:
        return []
    first, *_, last = kernels.values()
    return [
        name
        for name, (after, before, *_) in kernels.items()
        if before != first[1] and after != last[0]
    ]


def _write(made: Path, tiles: Sequence[TilesU8], float_layers: int, ranges: Path) -> None:
    """Write the int8 file, with so many of the last inner convolutions in float32.

    The ranges of the activations are found once, and kept in the file ``ranges``.
    """
    model = _named(made)
    inner = _inner(model)
    file = made / ONNX / INT8_FILE
    quantization.quant_pre_process(model, file, skip_optimization=True, skip_symbolic_shape=True)
    quantization.quantize_static(
        file,
        file,
        _Reader(tiles),
        op_types_to_quantize=["Conv"],
        nodes_to_quantize=inner[: len(inner) - float_layers],
        per_channel=True,
        # Processors without VNNI add pairs of products in 16 bits, which 8 bits would overflow.
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibration_cache_path=ranges,
    )


def _answer(made: Path, card: ModelCard) -> str:
    answer = open_onnx(made / ONNX / INT8_FILE)(card.example.tiles())
    answer = card.example.without_margin(answer, card.geometry.upscale)
    return base64.b64encode(answer.tobytes()).decode()


class _Reader(quantization.CalibrationDataReader):
    """Hands out the tiles, one a call."""

    def __init__(self, tiles: Sequence[TilesU8]) -> None:
        self._left = iter(tiles)

    def get_next(self) -> dict[str, TilesU8] | None:
        tiles = next(self._left, None)
        return None if tiles is None else {"tiles": tiles}
