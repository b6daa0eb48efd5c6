"""Trained weights -> models/<name>/: a SavedModel and its card."""

import base64
import shutil
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from superres.arrays import TilesU8
from superres.card import CARD, SAVED_MODEL, Example, Geometry, ModelCard, hash_files
from superres.engine import SavedModelEngine
from training import networks
from training.config import TrainingConfig
from training.fit import WEIGHTS, recorded, trained_network

LARGEST_TILE = 512
EXAMPLE_SIDE = 32


class ExportFailed(RuntimeError):
    """The exported model does not do what the trained one does."""


def export(run: Path, models: Path) -> ModelCard:
    """Export a run's best weights to ``models/<name>/``, replacing what is there.

    The three signatures hold their weights as constants, and all of the conversions:
    ``u8_float32`` and ``u8_bfloat16`` take and return uint8, ``f32`` float32 in [0, 1].
    The SavedModel is reloaded and compared with the Keras model before it is kept. The weights
    go along, for runs that start from the model.

    Args:
        run: a folder that ``fit`` wrote, or a model's, to be exported anew: without its scores.
        models: where models live.

    Raises:
        FileNotFoundError: the run has no best weights yet.
        RuntimeError: Keras does not run on TensorFlow here.
        ExportFailed: the reloaded SavedModel disagrees with the Keras model.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"a SavedModel is exported on TensorFlow; KERAS_BACKEND is {keras.backend.backend()}"
        )
    record, weights = recorded(run)
    config = TrainingConfig.model_validate(record["config"])
    by_precision = {
        precision: trained_network(run, precision=precision)
        for precision in ("float32", "bfloat16")
    }
    network = by_precision["float32"]
    architecture = networks.NETWORKS[config.network]
    upscale = architecture.upscale(config.scale)

    models.mkdir(parents=True, exist_ok=True)
    folder = models / config.name
    with tempfile.TemporaryDirectory(dir=models, prefix=".export-") as scratch:
        made = Path(scratch) / config.name
        served = {precision: networks.paired(one) for precision, one in by_precision.items()}
        _save(served, upscale, made / SAVED_MODEL)
        card = ModelCard(
            name=config.name,
            family=config.family,
            network=config.network,
            geometry=Geometry(
                domain=architecture.domain,
                scale=config.scale,
                halo=networks.receptive_field(network) // 2,
                largest_tile=LARGEST_TILE,
            ),
            parameters=network.count_params(),
            multiply_adds_per_output_pixel=networks.multiply_adds_per_pixel(network) // upscale**2,
            files=hash_files(made / SAVED_MODEL),
            example=_example(network),
            training=record,
        )
        write_card(made, card)
        shutil.copyfile(weights, made / WEIGHTS)
        _compare_with_keras(network, SavedModelEngine(made, card, device="cpu"))
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
    return card


def write_card(folder: Path, card: ModelCard) -> None:
    """Write ``card.json``; the same card gives the same bytes."""
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n")


def _save(by_precision: dict[str, keras.Model], upscale: int, folder: Path) -> None:
    def f32(tiles: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(by_precision["float32"](tiles), 0.0, 1.0)

    def u8(precision: str) -> Any:
        def call(tiles: tf.Tensor) -> tf.Tensor:
            answers = by_precision[precision](tf.cast(tiles, tf.float32) / 255.0)
            # tf.round is half to even, as superres.arrays.to_integer.
            return tf.cast(tf.clip_by_value(tf.round(answers * 255.0), 0.0, 255.0), tf.uint8)

        return call

    signatures = {
        "u8_float32": _frozen(u8("float32"), tf.uint8, upscale),
        "u8_bfloat16": _frozen(u8("bfloat16"), tf.uint8, upscale),
        "f32": _frozen(f32, tf.float32, upscale),
    }
    tf.saved_model.save(tf.Module(), str(folder), signatures=signatures)


def _frozen(call: Any, dtype: tf.DType, upscale: int) -> Any:
    """A signature ``tiles -> answers`` with the weights folded in as constants.

    oneDNN lays constant weights out once; variables it must lay out at every call.
    """
    spec = tf.TensorSpec((None, None, None, 3), dtype, name="tiles")
    frozen = convert_variables_to_constants_v2(tf.function(call).get_concrete_function(spec))

    @tf.function(input_signature=[spec])
    def signature(tiles: tf.Tensor) -> dict[str, tf.Tensor]:
        width = tf.shape(tiles)[2]
        even = tf.pad(tiles, [[0, 0], [0, 0], [0, width % 2], [0, 0]])  # as networks.paired asks
        return {"answers": frozen(even)[0][:, :, : width * upscale]}

    return signature


def _example_tiles() -> TilesU8:
    """A ramp with noise and a hard edge, so that every weight has work to do."""
    ramp = np.linspace(0, 1, EXAMPLE_SIDE, dtype=np.float32)
    tile = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), axis=-1)
    noise = np.random.default_rng(0).normal(0, 0.05, tile.shape).astype(np.float32)
    tile = (0.8 * tile + noise + 0.2 * (np.add.outer(ramp, ramp) > 1)[..., None]).clip(0, 1)
    return np.rint(tile * 255).astype(np.uint8)[None]


def _example(network: keras.Model) -> Example:
    tiles = _example_tiles()
    answers = np.asarray(network(tiles / np.float32(255))).clip(0, 1)
    return Example(
        height=tiles.shape[1],
        width=tiles.shape[2],
        tile=base64.b64encode(tiles.tobytes()).decode(),
        answer=base64.b64encode(answers.astype("<f4").tobytes()).decode(),
    )


def _compare_with_keras(network: keras.Model, engine: SavedModelEngine) -> None:
    tiles = np.random.default_rng(1).random((2, 96, 64, 3), np.float32)
    expected = np.asarray(network(tiles)).clip(0, 1)
    difference = float(np.abs(engine.predict(tiles) - expected).max())
    if difference > 1e-5:
        raise ExportFailed(f"the reloaded SavedModel differs from Keras by {difference:.2g}")
