"""Int8 files: made, measured, and kept where they lose little and gain speed."""

import shutil
from pathlib import Path

import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from superres.engines import load_engine
from superres.engines.onnxruntime import INT8_FILE, ONNX
from superres.models.card import read_card
from superres.models.registry import DEFAULT_MODELS
from tests.lazy import Lazy
from tests.needs import package

quantising = Lazy("training.quantise")
export = Lazy("training.export")
cli = Lazy("training.cli")
NAME = "edsr-nano-x3"
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def packages() -> None:
    package("onnx")
    package("onnxruntime")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(DEFAULT_MODELS / NAME, tmp_path / "models" / NAME)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """16 crops of 96x96."""
    made = tmp_path / "photographs"
    made.mkdir()
    coffee = data.coffee()
    for number in range(16):
        top, left = divmod(number, 4)
        crop = coffee[96 * top : 96 * (top + 1), 96 * left : 96 * (left + 1)]
        Image.fromarray(crop).save(made / f"{number:02}.png")
    return made


def test_the_command_makes_an_int8_file_that_the_engine_takes(folder: Path, photographs: Path):
    (folder / ONNX / INT8_FILE).unlink()
    before = read_card(folder)
    arguments = ["quantise", NAME, "--models", folder.parent, "--data", photographs]
    run = CliRunner().invoke(cli.cli, [str(one) for one in (*arguments, "--pictures", 3)])
    assert run.exit_code == 0, run.output
    assert "layers in float32: offered" in " ".join(run.stdout.split())
    card = read_card(folder)
    assert card.int8.pictures == 3
    assert max(card.int8.lost_db.values()) <= 0.05
    assert card.int8.gain >= 1.3
    changed = {"int8": None, "more_formats": {}, "checksum": ""}
    assert card.model_copy(update=changed) == before.model_copy(update=changed)
    assert INT8_FILE in card.more_formats[ONNX]
    engine = load_engine(folder, card, precision="int8", device="cpu", runtime="onnxruntime")
    assert engine.precision == "int8"
    assert export.convert(folder).int8 is None
    assert not (folder / ONNX / INT8_FILE).exists()


def test_what_gains_too_little_is_not_kept(folder: Path, photographs: Path, monkeypatch):
    monkeypatch.setattr("training.quantise.INT8_GAIN", 100)
    assert not quantising.quantise(folder, photographs, pictures=2).offered
    card = read_card(folder)
    assert card.int8 is None
    assert card.more_formats[ONNX].keys() == {"f32.onnx", "u8.onnx", "weights.bin"}
    assert load_engine(folder, card, precision="int8", device="cpu").precision == "float32"


def test_what_loses_too_much_keeps_more_layers_in_float32(
    folder: Path, photographs: Path, monkeypatch
):
    monkeypatch.setattr("training.quantise.MOST_LOST_DB", -1.0)
    monkeypatch.setattr("training.quantise.INT8_GAIN", 0.1)
    outcome = quantising.quantise(folder, photographs, pictures=2)
    assert not outcome.offered
    assert outcome.float_layers == 8  # of ten


def test_too_few_pictures_are_named(folder: Path, photographs: Path):
    with pytest.raises(ValueError, match="has 16 pictures; 18 are needed"):
        quantising.quantise(folder, photographs, pictures=9)
