"""Export of trained weights to ``models/<name>/``: a SavedModel, ONNX files and their card."""

import base64
import ctypes
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from superres.arrays import TilesU8, without_margin
from superres.engines.base import LoadedEngine
from superres.engines.onnxruntime import ONNX, OnnxRuntimeEngine
from superres.engines.tensorflow import SAVED_MODEL, SavedModelEngine
from superres.models.card import (
    CARD,
    Example,
    Geometry,
    ModelCard,
    TrainingRecord,
    hash_files,
    read_card,
    write_card,
)
from training import networks
from training.config import configs_folder, load_config, model_name
from training.onnx import save_onnx
from training.provenance import commit_and_dirty
from training.run import STEPS
from training.weights import (
    WEIGHTS,
    Design,
    Weights,
    hash_weights,
    read_record,
    recorded,
    save_weights,
    set_weights,
)

LARGEST_TILE = 512
EXAMPLE_SIDE = 16
"""Side of the part of a card's example to which there is an answer, px of the network's input."""
RENAME_EXCHANGE = 2
"""Flag of Linux's ``renameat2``."""


class ExportFailed(RuntimeError):
    """The run must not be exported, or the exported model differs from the trained one."""


def export(run: Path, models: Path, *, draft: bool = False) -> ModelCard:
    """Export a run's best weights to ``models/<family>-x<scale>/``, and replace a model there.

    The three signatures contain the weights as constants, and all conversions:
    ``u8_float32`` and ``u8_bfloat16`` take and return uint8, ``f32`` float32 in [0, 1].
    The SavedModel and the ONNX files are reloaded and compared with the Keras model before they
    are installed. The weights are copied too, for runs that start from the model.

    Args:
        run: a folder that ``fit`` wrote, or the folder of a model to export again, which keeps
            its scores because its weights do not change.
        models: the models folder.
        draft: whether to skip the checks of :func:`check_record`; the card says so.

    Raises:
        FileNotFoundError: the run has no best weights yet.
        RuntimeError: Keras does not use TensorFlow as its backend.
        ExportFailed: the run is not finished, its config or code is not committed, or the
            exported model differs from the Keras model.
        training.weights.WeightsMismatch: the weights do not match the record.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"export needs KERAS_BACKEND=tensorflow; KERAS_BACKEND is {keras.backend.backend()}"
        )
    design, weights = recorded(run)
    facts: dict[str, Any]
    if (run / CARD).exists():
        old = read_card(run)
        copied = (
            "name",
            "family",
            "training",
            "reproducible",
            "reason",
            "scores",
        )
        facts = {name: getattr(old, name) for name in copied} | {"draft": old.draft or draft}
        if not draft:
            assert old.training is not None  # noqa: S101  or it would have no weights
            check_record(old.training)
    else:
        record = read_record(run)
        if not draft:
            check_log(run, record)
            check_record(record)
            check_tree()
        facts = {
            "name": model_name(record.config["family"], record.config["scale"]),
            "family": record.config["family"],
            "training": record,
            "reproducible": not draft,
            "reason": "a draft, exported without checks" if draft else "",
            "draft": draft,
        }
    return install(facts, design, weights, models)


def install(facts: dict[str, Any], design: Design, weights: Weights, models: Path) -> ModelCard:
    """Write weights as a SavedModel and as ONNX files, with a card, to the models folder.

    Args:
        facts: fields of the card that say what the model is and how it was made.
        design: the network's design.
        weights: its weights.
        models: the models folder; a model of that name is replaced.

    Raises:
        ExportFailed: the exported model differs from the Keras model.
    """
    by_precision = {
        precision: design.build(precision=precision, padding="valid")
        for precision in ("float32", "bfloat16")
    }
    for one in by_precision.values():
        set_weights(one, weights)
    network = by_precision["float32"]
    architecture = networks.NETWORKS[design.network]
    upscale, halo = architecture.upscale(design.scale), networks.halo(network)

    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".export-") as scratch:
        made = Path(scratch) / facts["name"]
        served = {precision: networks.paired(one) for precision, one in by_precision.items()}
        _save(served, upscale, halo, architecture.multiple, made / SAVED_MODEL)
        card = ModelCard(
            **facts,
            network=design.network,
            geometry=Geometry(
                domain=architecture.domain,
                scale=design.scale,
                halo=halo,
                largest_tile=LARGEST_TILE,
            ),
            parameters=network.count_params(),
            multiply_adds_per_output_pixel=networks.multiply_adds_per_pixel(network) // upscale**2,
            files=hash_files(made / SAVED_MODEL),
            example=_example(network, halo),
            weights_sha256=hash_weights(weights),
        )
        save_weights(made / WEIGHTS, weights)
        _compare_with_keras(network, SavedModelEngine(made, card, device="cpu"))
        card = _add_onnx(made, card, network)
        put_in_place(made, models / card.name)
    return card


def convert(folder: Path) -> ModelCard:
    """Write the ONNX files of an exported model again from its weights, and note them in its card.

    The card's example is made again, too: it was another one in cards without a margin. Nothing
    else of the model changes.

    Args:
        folder: the model's folder.

    Raises:
        FileNotFoundError: it has no weights, as an imported model.
        ExportFailed: the ONNX files differ from the Keras model.
        training.weights.WeightsMismatch: the weights do not match the card.
    """
    design, weights = recorded(folder)
    network = design.build(precision="float32", padding="valid")
    set_weights(network, weights)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as scratch:
        made = shutil.copytree(
            folder, Path(scratch) / folder.name, ignore=shutil.ignore_patterns(ONNX)
        )
        example = _example(network, networks.halo(network))
        card = read_card(made).model_copy(update={"example": example})
        card = _add_onnx(made, card, network)
        put_in_place(made, folder)
    return card


def _add_onnx(made: Path, card: ModelCard, network: keras.Model) -> ModelCard:
    """Write the ONNX files of a model, check them, and write its card."""
    architecture = networks.NETWORKS[card.network]
    save_onnx(network, made / ONNX, upscale=card.geometry.upscale, multiple=architecture.multiple)
    formats = card.more_formats | {ONNX: hash_files(made / ONNX)}
    # What was quantised before were other weights.
    card = write_card(made, card.model_copy(update={"more_formats": formats, "int8": None}))
    _compare_with_keras(network, OnnxRuntimeEngine(made, card, device="cpu"))
    return card


def check_record(record: TrainingRecord) -> None:
    """Check that the record is of a finished run of a committed config, by committed code.

    Raises:
        ExportFailed: a check fails; the message says which.
    """
    name = record.config["name"]
    if not record.finished:
        raise ExportFailed(f"the run of {name} is not finished: resume it")
    if not (configs_folder() / f"{name}.toml").is_file():
        raise ExportFailed(f"{name} is not a committed config")
    config = load_config(name)
    if record.config != config.model_dump(mode="json") or record.config_sha256 != config.sha256:
        raise ExportFailed(f"the config of {name} is not the committed one")
    for session in record.sessions:
        if session.dirty is not False:
            raise ExportFailed(
                f"a part of the run of {name} used code that differs from its commit "
                f"{session.commit[:12]}, or ran outside a Git clone"
            )
    start = record.started_from
    if (start and start.config) != config.start_from:
        raise ExportFailed(f"{name} starts from {config.start_from}, not from {start}")
    if start is not None:
        if not (configs_folder() / f"{start.config}.toml").is_file():
            raise ExportFailed(f"{name} starts from {start.config}, which is not committed")
        if start.config_sha256 != load_config(start.config).sha256:
            raise ExportFailed(f"{name} starts from another {start.config} than the committed one")
    for wanted, used in zip(
        config.all_pictures, (*record.data, record.validation_data), strict=True
    ):
        if wanted.manifest_sha256 is None or wanted.manifest_sha256 != used.manifest_sha256:
            raise ExportFailed(f"the pictures of {used.name} are not those of the config")


def check_log(run: Path, record: TrainingRecord) -> None:
    """Check that ``steps.csv`` has the hash in the record.

    Raises:
        ExportFailed: it has another hash.
    """
    if hashlib.sha256((run / STEPS).read_bytes()).hexdigest() != record.steps_sha256:
        raise ExportFailed(
            f"{run / STEPS} is not the log of {run.name}: its hash is not in the record"
        )


def check_tree() -> None:
    """Check that the running code is committed.

    Raises:
        ExportFailed: it differs from its commit, or is outside a Git clone.
    """
    commit, dirty = commit_and_dirty()
    if dirty is not False:
        raise ExportFailed(
            f"the code differs from its commit {commit[:12]}, or is outside a Git clone: commit "
            "it, or export a draft"
        )


def put_in_place(made: Path, folder: Path) -> None:
    """Replace ``folder`` by ``made``, so that readers see either the old or the new folder.

    Linux exchanges the two atomically. On other systems, and on file systems without this
    operation, there is no folder between two renames; the old one is restored if the second fails.
    """
    if not folder.exists():
        made.rename(folder)
    elif not _exchange(made, folder):
        aside = made.with_name(f"{made.name}.old")
        folder.rename(aside)
        try:
            made.rename(folder)
        except BaseException:
            aside.rename(folder)
            raise


def _exchange(one: Path, other: Path) -> bool:
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    here = -100  # AT_FDCWD
    return (
        renameat2 is not None
        and renameat2(here, os.fsencode(one), here, os.fsencode(other), RENAME_EXCHANGE) == 0
    )


def _save(
    by_precision: dict[str, keras.Model], upscale: int, halo: int, multiple: int, folder: Path
) -> None:
    def f32(tiles: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(by_precision["float32"](tiles), 0.0, 1.0)

    def u8(precision: str) -> Any:
        def call(tiles: tf.Tensor) -> tf.Tensor:
            answers = by_precision[precision](tf.cast(tiles, tf.float32) / 255.0)
            # tf.round is half to even, as superres.arrays.to_integer.
            return tf.cast(tf.clip_by_value(tf.round(answers * 255.0), 0.0, 255.0), tf.uint8)

        return call

    signatures = {
        "u8_float32": _frozen(u8("float32"), tf.uint8, upscale, halo, multiple),
        "u8_bfloat16": _frozen(u8("bfloat16"), tf.uint8, upscale, halo, multiple),
        "f32": _frozen(f32, tf.float32, upscale, halo, multiple),
    }
    # Serving needs no gradients, and those of SiLU cannot be saved with folded weights.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(tf.Module(), str(folder), signatures=signatures, options=options)


def _frozen(call: Any, dtype: tf.DType, upscale: int, halo: int, multiple: int) -> Any:
    """Make a signature ``tiles -> answers`` with the weights folded in as constants.

    The network gives no answer for the halo, which is black. oneDNN converts the layout of constant
    weights once, but of variables at every call.
    """
    spec = tf.TensorSpec((None, None, None, 3), dtype, name="tiles")
    margin = (halo * upscale, halo * upscale)
    frozen = convert_variables_to_constants_v2(tf.function(call).get_concrete_function(spec))

    @tf.function(input_signature=[spec])
    def signature(tiles: tf.Tensor) -> dict[str, tf.Tensor]:
        height, width = tf.shape(tiles)[1], tf.shape(tiles)[2]
        # networks.paired needs an even width, and folded networks even sides.
        even = tf.pad(tiles, [[0, 0], [0, height % multiple], [0, width % 2], [0, 0]])
        answers = tf.pad(frozen(even)[0], [(0, 0), margin, margin, (0, 0)])
        return {"answers": answers[:, : height * upscale, : width * upscale]}

    return signature


def _example_tiles(side: int) -> TilesU8:
    """A gradient with noise and a sharp edge, so that every weight affects the output."""
    ramp = np.linspace(0, 1, side, dtype=np.float32)
    tile = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), axis=-1)
    noise = np.random.default_rng(0).normal(0, 0.05, tile.shape).astype(np.float32)
    tile = (0.8 * tile + noise + 0.2 * (np.add.outer(ramp, ramp) > 1)[..., None]).clip(0, 1)
    return np.rint(tile * 255).astype(np.uint8)[None]


def _example(network: keras.Model, halo: int) -> Example:
    tiles = _example_tiles(EXAMPLE_SIDE + 2 * halo)
    answers = np.asarray(network(tiles / np.float32(255))).clip(0, 1)
    return Example(
        height=tiles.shape[1],
        width=tiles.shape[2],
        margin=halo,
        tile=base64.b64encode(tiles.tobytes()).decode(),
        answer=base64.b64encode(answers.astype("<f4").tobytes()).decode(),
    )


def _compare_with_keras(network: keras.Model, engine: LoadedEngine) -> None:
    geometry = engine.card.geometry
    height, width = (side + 2 * geometry.halo for side in (96, 64))
    tiles = np.random.default_rng(1).random((2, height, width, 3), np.float32)
    expected = np.asarray(network(tiles)).clip(0, 1)
    answers = without_margin(engine.predict(tiles), geometry.halo * geometry.upscale)
    difference = float(np.abs(answers - expected).max())
    if difference > 1e-5:
        raise ExportFailed(f"the reloaded {engine.FORMAT} differs from Keras by {difference:.2g}")
