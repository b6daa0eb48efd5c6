"""A model is what its card says, or it is not served."""

import contextlib
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

import training
from superres import load_model
from superres.arrays import to_float
from superres.engines.base import Engine
from superres.engines.ensemble import EnsembleEngine
from superres.engines.tensorflow import SAVED_MODEL, SavedModelEngine
from superres.errors import EngineError, ModelMismatch, ModelMissing
from superres.models.card import CARD, ModelCard, read_card, write_card
from superres.models.registry import DEFAULT_MODELS, choose, read_cards
from tests.needs import package

pytestmark = pytest.mark.xdist_group("shipped model")


@pytest.fixture(autouse=True)
def tensorflow() -> None:
    package("tensorflow")


@pytest.fixture
def copy(tmp_path: Path, srcnn_card: ModelCard) -> Path:
    """A copy of the shipped model, to be tampered with."""
    return shutil.copytree(DEFAULT_MODELS / srcnn_card.name, tmp_path / srcnn_card.name)


def load(folder: Path) -> Engine:
    return SavedModelEngine(folder, read_card(folder), device="cpu", precision="float32")


def edit_card(folder: Path, **changes: object) -> None:
    """Change fields of a card; if it is still a card, with the checksum of the new fields."""
    card = json.loads((folder / CARD).read_text())
    for path, value in changes.items():
        *parents, key = path.split("__")
        at = card
        for parent in parents:
            at = at[parent]
        at[key] = value
    (folder / CARD).write_text(json.dumps(card))
    with contextlib.suppress(ValidationError):
        write_card(folder, ModelCard.model_validate(card))


@pytest.mark.slow
def test_the_savedmodel_serves_in_plain_tensorflow_without_this_project(srcnn_card: ModelCard):
    """And TensorFlow understands the variable by which this project sets oneDNN."""
    script = """
import sys, numpy, tensorflow
from tensorflow.python.util import _pywrap_util_port
assert _pywrap_util_port.IsMklEnabled()
signatures = tensorflow.saved_model.load(sys.argv[1]).signatures
for name, dtype in (("u8_float32", "uint8"), ("u8_bfloat16", "uint8"), ("f32", "float32")):
    tiles = tensorflow.zeros((2, 64, 32, 3), dtype)
    answers = signatures[name](tiles=tiles)["answers"]
    assert (answers.shape, answers.dtype.name) == ((2, 64, 32, 3), dtype), answers
assert not any(name.startswith(("superres", "training", "app")) for name in sys.modules)
"""
    saved_model = DEFAULT_MODELS / srcnn_card.name / SAVED_MODEL
    run = subprocess.run(
        [sys.executable, "-c", script, str(saved_model)],
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"},
    )
    assert run.returncode == 0, run.stderr


def test_before_tensorflow_starts_it_is_told_to_take_onednns_convolutions(monkeypatch):
    """Without AVX-512, TensorFlow would take its own, which are slower.

    Where TensorFlow is not installed, the message says what to install.
    """
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    importlib.reload(training)  # which runs before all else in that package
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # it does not start
    with pytest.raises(EngineError, match=r"pip install tensorflow-cpu, or .* for a GPU"):
        load(DEFAULT_MODELS / "srcnn-x3")
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"


def test_a_changed_byte_is_noticed_and_its_file_named(copy: Path):
    file = copy / SAVED_MODEL / "saved_model.pb"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelMismatch, match=r"saved_model/saved_model.pb has SHA-256 \w+\.\.\."):
        load(copy)


def test_a_missing_and_an_unlisted_file_are_noticed(copy: Path):
    (copy / SAVED_MODEL / "extra").touch()
    with pytest.raises(ModelMismatch, match="saved_model/extra is not on the card"):
        load(copy)
    (copy / SAVED_MODEL / "extra").unlink()
    (copy / SAVED_MODEL / "saved_model.pb").unlink()
    with pytest.raises(ModelMismatch, match=r"saved_model\.pb is on the card but missing"):
        load(copy)


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"geometry__halo": 6}, "says a halo of 6 px, but answers depend on pixels farther away"),
        ({"geometry__domain": "lr"}, "the card says upscale 3; a plane of 90 px came back as 90"),
        ({"example__answer": "AAAA"}, "the card's example: buffer size"),
        ({"example__tile": "A" * 3600}, r"f32 differs from the card's example by up to \d+"),
    ],
)
def test_a_card_that_lies_is_found_out(copy: Path, lie, reason):
    edit_card(copy, **lie)
    with pytest.raises(ModelMismatch, match=reason):
        load(copy)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "other"}, "is the card of 'other', not of 'srcnn-x3'"),
        ({"colour": "red"}, "colour"),
        ({"schema_version": 1}, "schema_version"),
        ({"example__margin": 15}, "a margin of 15 px leaves nothing"),
    ],
)
def test_a_card_that_is_none_of_ours_is_refused(copy: Path, change, reason):
    edit_card(copy, **change)
    with pytest.raises(ModelMismatch, match=reason):
        read_card(copy)


def test_bfloat16_and_float32_agree_on_a_photograph_to_two_levels(chelsea, srcnn_card: ModelCard):
    tiles = chelsea[None, :288, :448]
    folder = DEFAULT_MODELS / srcnn_card.name
    answers = [
        SavedModelEngine(folder, srcnn_card, precision=precision, device="cpu").predict(tiles)
        for precision in ("float32", "bfloat16")
    ]
    difference = np.abs(answers[0].astype(int) - answers[1])
    assert difference.max() <= 2
    assert difference.mean() < 0.25


@pytest.mark.parametrize(
    ("slower", "agrees", "taken"),
    [
        ("u8_float32", True, "bfloat16"),
        ("u8_bfloat16", True, "float32"),
        ("u8_float32", False, "float32"),
    ],
)
def test_auto_takes_the_faster_precision_that_agrees_with_the_card(
    srcnn_card: ModelCard, monkeypatch, slower, agrees, taken
):
    """By a clock that only the network's calls move."""
    seconds = 0.0
    call = SavedModelEngine._call

    def timed(engine: SavedModelEngine, signature: str, tiles: np.ndarray) -> np.ndarray:
        nonlocal seconds
        seconds += 2 if signature == slower else 1
        return call(engine, signature, tiles)

    monkeypatch.setattr(SavedModelEngine, "_call", timed)
    monkeypatch.setattr("superres.engines.base.time", SimpleNamespace(perf_counter=lambda: seconds))
    if not agrees:
        monkeypatch.setattr("superres.engines.base.LOOSE_TOLERANCE", 0.0)  # bfloat16's
    engine = SavedModelEngine(DEFAULT_MODELS / srcnn_card.name, srcnn_card, device="cpu")
    assert engine.precision == taken


def test_tiles_are_answered_in_their_order(chelsea, srcnn_card: ModelCard):
    """Several at once: each has the answer that it gets alone."""
    engine = SavedModelEngine(DEFAULT_MODELS / srcnn_card.name, srcnn_card, device="cpu")
    tiles = np.stack([chelsea[top : top + 64, top : top + 96] for top in range(0, 200, 40)])
    assert np.array_equal(
        engine.predict(tiles), np.stack([engine.predict(t[None])[0] for t in tiles])
    )


def test_an_engine_goes_on_after_one_of_two_calls_failed(srcnn_card: ModelCard, monkeypatch):
    engine = SavedModelEngine(DEFAULT_MODELS / srcnn_card.name, srcnn_card, device="cpu")
    tiles = np.stack([np.full((64, 64, 3), value, np.uint8) for value in (0, 1, 2)])
    call = engine._call

    def fails_once(signature: str, tiles: np.ndarray) -> np.ndarray:
        if tiles.max() == 1:
            raise EngineError("out of order")
        return call(signature, tiles)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_call", fails_once)
        with pytest.raises(EngineError, match="out of order"):
            engine.predict(tiles)
    assert engine.predict(tiles).shape == tiles.shape


@pytest.mark.parametrize("device", ["gpu:99", "tpu", "gpu:x"])
def test_a_device_that_is_not_there_is_named(srcnn_card: ModelCard, device):
    with pytest.raises(EngineError, match=device):
        SavedModelEngine(DEFAULT_MODELS / srcnn_card.name, srcnn_card, device=device)


def test_a_batch_that_runs_out_of_memory_is_halved(srcnn_card: ModelCard, monkeypatch):
    """A GPU's memory runs out, by injection: at most one tile fits."""
    engine = SavedModelEngine(
        DEFAULT_MODELS / srcnn_card.name, srcnn_card, device="cpu", precision="float32"
    )
    tiles = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    expected = engine.predict(tiles)
    real = engine._signatures["u8_float32"]
    sizes: list[int] = []

    def short_of_memory(tiles):
        sizes.append(len(tiles))
        if len(tiles) > engine_fits:
            raise engine._tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        return real(tiles=tiles)

    monkeypatch.setattr(engine, "_signatures", {"u8_float32": short_of_memory})
    monkeypatch.setattr(SavedModelEngine, "_on_cpu", False)  # there, tiles go one by one
    engine_fits = 1
    assert np.array_equal(engine.predict(tiles), expected)
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    engine_fits = 0
    with pytest.raises(EngineError, match="out of memory for one 32x32 tile"):
        engine.predict(tiles)


def test_a_family_offers_the_model_trained_for_the_smallest_scale_that_reaches(
    srcnn_card: ModelCard,
):
    cards = [
        srcnn_card.model_copy(
            update={
                "name": f"srcnn-x{scale}",
                "geometry": srcnn_card.geometry.model_copy(update={"scale": scale}),
            }
        )
        for scale in (2, 3)
    ]
    chosen = {scale: choose(cards, "srcnn", scale).name[-2:] for scale in (1, 2, 2.1, 3, 3.1, 4)}
    assert chosen == {1: "x2", 2: "x2", 2.1: "x3", 3: "x3", 3.1: "x3", 4: "x3"}
    assert choose(cards, "srcnn-x2", 4).name == "srcnn-x2"


def test_an_unknown_model_and_an_empty_folder_are_missing(tmp_path: Path):
    with pytest.raises(
        ModelMissing, match="no model or family 'esrgan': there are bicubic, edsr-lite"
    ):
        load_model("esrgan")
    with pytest.raises(ModelMissing, match="no models in"):
        read_cards(tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_ensemble_treats_all_eight_views_alike(dtype: type):
    """As a network does not: this one moves the picture by a pixel to the right and down."""

    class Mover:
        def predict(self, tiles):
            assert tiles.flags.c_contiguous
            return np.roll(tiles, (1, 1), axis=(1, 2)).repeat(2, axis=1).repeat(2, axis=2)

    random = np.random.default_rng(0)
    tiles = random.integers(0, 256, (2, 32, 64, 3), np.uint8)
    if dtype is np.float32:
        tiles = to_float(tiles)
    ensemble = EnsembleEngine(Mover())
    answers = ensemble.predict(tiles)
    assert answers.dtype == dtype
    corners = [np.roll(tiles, (y, x), axis=(1, 2)) for y in (-1, 1) for x in (-1, 1)]
    expected = np.mean([to_float(corner) for corner in corners], axis=0)
    expected = expected.repeat(2, axis=1).repeat(2, axis=2)
    assert to_float(answers) == pytest.approx(expected, abs=0.51 / 255)
    turned = ensemble.predict(np.ascontiguousarray(np.rot90(tiles, 1, axes=(1, 2))))
    back = np.rot90(turned, -1, axes=(1, 2))
    assert to_float(back) == pytest.approx(to_float(answers), abs=1e-6)
