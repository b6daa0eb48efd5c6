"""Networks as ONNX files."""

import base64
import shutil
from pathlib import Path

import numpy as np
import pytest

from superres.engines.onnxruntime import ONNX, OnnxRuntimeEngine
from superres.errors import ModelMismatch
from superres.models.card import read_card, write_card
from superres.models.registry import DEFAULT_MODELS
from tests.lazy import Lazy
from tests.needs import package

networks = Lazy("training.networks")
export = Lazy("training.export")
translation = Lazy("training.onnx")
keras = Lazy("keras")
NAMES = {
    "srcnn_935": {"skip": True},
    "edsr": {"blocks": 1, "filters": 4, "scale": 3, "width": 6},
    "edsr_folded": {"blocks": 1, "filters": 4, "scale": 2},
    "plain": {"depth": 2, "filters": 4, "scale": 4, "skip": False, "centred": False},
    "span": {"blocks": 1, "filters": 4, "scale": 2},
}


@pytest.fixture(autouse=True)
def packages() -> None:
    package("onnx")
    package("onnxruntime")


@pytest.mark.parametrize(
    "name", ["edsr", *(pytest.param(one, marks=pytest.mark.slow) for one in NAMES if one != "edsr")]
)
def test_the_exported_files_of_a_network_answer_as_it_does_for_odd_sides_too(
    name: str, tmp_path: Path
):
    import onnxruntime
    import tensorflow as tf

    network = getattr(networks, name)(**NAMES[name], padding="valid")
    upscale = NAMES[name].get("scale", 1)
    multiple = networks.FOLD if name == "edsr_folded" else 1
    translation.save_onnx(network, tmp_path / ONNX, upscale=upscale, multiple=multiple)
    u8, f32 = (
        onnxruntime.InferenceSession(tmp_path / ONNX / file, providers=["CPUExecutionProvider"])
        for file in ("u8.onnx", "f32.onnx")
    )
    halo = networks.halo(network)
    savedmodel = export._frozen(network, tf.float32, upscale, halo, multiple)
    margin = [(0, 0), (halo * upscale,) * 2, (halo * upscale,) * 2, (0, 0)]
    for height, width in ((2 * halo + 8, 2 * halo + 16), (2 * halo + 9, 2 * halo + 5)):
        tiles = np.random.default_rng(height).integers(0, 256, (2, height, width, 3), np.uint8)
        samples = tiles / np.float32(255)
        around = [(0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)]
        whole = np.pad(np.asarray(network(np.pad(samples, around))), margin)
        expected = whole[:, : height * upscale, : width * upscale]
        answers = savedmodel(tiles=samples)["answers"].numpy()
        assert answers.shape == expected.shape
        core = (slice(None), *[slice(halo * upscale, -halo * upscale)] * 2)
        assert np.abs(answers[core] - expected[core]).max() < 1e-5
        expected = expected.clip(0, 1)
        (answers,) = f32.run(None, {"tiles": samples})
        assert answers.shape == expected.shape
        assert np.abs(answers - expected).max() < 1e-5
        (answers,) = u8.run(None, {"tiles": tiles})
        assert answers.dtype == np.uint8
        assert np.abs(answers - expected * 255).max() < 0.51


def test_a_layer_that_has_no_translation_is_named(tmp_path: Path):
    small = keras.Input((None, None, 3))
    network = keras.Model(small, keras.layers.MaxPooling2D(name="pooled")(small))
    with pytest.raises(TypeError, match="pooled: no ONNX of MaxPooling2D"):
        translation.save_onnx(network, tmp_path / ONNX, upscale=1, multiple=1)


@pytest.mark.parametrize("old", [False, True])
def test_convert_adds_the_format_and_changes_nothing_else(tmp_path: Path, old: bool):
    folder = shutil.copytree(DEFAULT_MODELS / "srcnn-x3", tmp_path / "srcnn-x3")
    shutil.rmtree(folder / ONNX, ignore_errors=True)
    before = read_card(folder)
    if old:  # its example had no margin
        answers = base64.b64encode(bytes(4 * 30 * 30 * 3)).decode()
        example = before.example.model_copy(update={"margin": 0, "answer": answers})
        write_card(folder, before.model_copy(update={"example": example}))
    card = export.convert(folder)
    assert read_card(folder) == card
    names = {"more_formats": None, "checksum": None}
    assert card.model_copy(update=names) == before.model_copy(update=names)
    assert card.more_formats[ONNX].keys() == {"f32.onnx", "u8.onnx", "weights.bin"}
    OnnxRuntimeEngine(folder, card, device="cpu")
    assert export.convert(folder) == card
    assert [path.name for path in tmp_path.iterdir()] == ["srcnn-x3"]


@pytest.mark.slow
def test_a_conversion_that_fails_leaves_the_model_as_it_was(tmp_path: Path, monkeypatch):
    folder = shutil.copytree(DEFAULT_MODELS / "srcnn-x3", tmp_path / "srcnn-x3")
    before = (folder / "card.json").read_bytes()
    right = translation._TRANSLATIONS[keras.layers.Rescaling]

    def wrong(graph, layer, x):
        return right(graph, layer, right(graph, layer, x))

    monkeypatch.setitem(translation._TRANSLATIONS, keras.layers.Rescaling, wrong)
    with pytest.raises(ModelMismatch, match="f32 differs from the card's example"):
        export.convert(folder)
    assert (folder / "card.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["srcnn-x3"]
