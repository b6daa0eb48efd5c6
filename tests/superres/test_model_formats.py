"""A card's format chooses the engine, and every engine has the same checks."""

import base64
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from superres import load_model
from superres.engines import ENGINES, load_engine
from superres.engines.base import LoadedEngine
from superres.errors import ModelMismatch
from superres.models.card import (
    CARD,
    Example,
    Geometry,
    ModelCard,
    Tiling,
    hash_files,
    read_card,
    write_card,
)
from superres.models.registry import DEFAULT_MODELS
from tests.pictures import plain
from tests.serving import wait_until_ready

REACH = 3
"""Pixels to the left on which an answer of the model below depends."""


class ShiftEngine(LoadedEngine):
    """Averages each pixel with one to the left, as far away as a file says."""

    FORMAT = FOLDER = "shift"

    def _load(self, files: Path, device: str) -> None:
        self.reach = int((files / "reach").read_text())
        self.device = device

    def _call(self, signature, tiles):
        means = (tiles.astype(np.float32) + np.roll(tiles, self.reach, axis=2)) / 2
        return means if signature == "f32" else np.rint(means).astype(np.uint8)

    _on_cpu = True


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, srcnn_card: ModelCard) -> Path:
    """A model of a format that this test adds to the table."""
    monkeypatch.setitem(ENGINES, "shift", ShiftEngine)
    folder = tmp_path / "models" / "shifted"
    (folder / ShiftEngine.FOLDER).mkdir(parents=True)
    (folder / ShiftEngine.FOLDER / "reach").write_text(str(REACH))
    tile = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    answer = (tile.astype("<f4") + np.roll(tile, REACH, axis=1)) / 2 / 255
    write_card(
        folder,
        srcnn_card.model_copy(
            update={
                "name": "shifted",
                "format": "shift",
                "geometry": Geometry(domain="hr", scale=3, halo=REACH, largest_tile=128),
                "files": hash_files(folder / ShiftEngine.FOLDER),
                "more_formats": {},
                "example": Example(
                    height=32,
                    width=32,
                    tile=base64.b64encode(tile.tobytes()).decode(),
                    answer=base64.b64encode(answer.astype("<f4").tobytes()).decode(),
                ),
            }
        ),
    )
    return folder


def test_an_engine_added_to_the_table_loads_the_models_of_its_format(folder: Path):
    engine = load_model("shifted", models=folder.parent, device="cpu").engine
    assert isinstance(engine, ShiftEngine)
    assert engine.reach == REACH


@pytest.mark.slow
def test_the_service_serves_a_model_of_a_format_that_was_added(
    folder: Path, serve: Callable[..., AbstractContextManager[httpx.Client]]
):
    with serve(models=folder.parent, default_model="shifted") as client:
        wait_until_ready(client)
        answer = client.post("/enhance", params={"model": "shifted"}, content=plain())
    assert answer.status_code == 200
    assert answer.headers["X-Model"].startswith("shifted@")


def test_an_engine_that_was_added_is_refused_a_file_with_another_hash(folder: Path):
    (folder / ShiftEngine.FOLDER / "reach").write_text("2")
    with pytest.raises(ModelMismatch, match=r"shift/reach has SHA-256 \w+\.\.\., the card says"):
        load_engine(folder, read_card(folder))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"example": {"answer": "AAAA"}}, "the card's example: buffer size"),
        ({"example": {"tile": "A" * 4096}}, r"f32 differs from the card's example by up to \d+"),
        ({"geometry": {"halo": REACH - 1}}, "a halo of 2 px, but answers depend on pixels farther"),
        ({"geometry": {"domain": "lr"}}, "the card says upscale 3"),
    ],
)
def test_an_engine_that_was_added_is_held_to_its_card(
    folder: Path, change: dict[str, dict[str, Any]], reason: str
):
    card = json.loads((folder / CARD).read_text())
    for field, values in change.items():
        card[field] |= values
    wrong = write_card(folder, ModelCard.model_validate(card))
    with pytest.raises(ModelMismatch, match=reason):
        load_engine(folder, wrong)


def test_a_format_that_no_engine_loads_is_named(srcnn_card: ModelCard):
    card = srcnn_card.model_copy(update={"format": "other"})
    with pytest.raises(
        ModelMismatch, match="format 'other'; there is an engine for bicubic, onnx, savedmodel"
    ):
        load_engine(DEFAULT_MODELS / card.name, card)


def test_a_card_from_before_there_were_formats_is_of_a_savedmodel_and_intact(
    tmp_path: Path, srcnn_card: ModelCard
):
    fields = json.loads((DEFAULT_MODELS / srcnn_card.name / CARD).read_text())
    fields.pop("format", None)
    folder = tmp_path / srcnn_card.name
    folder.mkdir()
    (folder / CARD).write_text(json.dumps(fields))
    assert read_card(folder).format == "savedmodel"
    assert write_card(folder, read_card(folder)).checksum == fields["checksum"]


def test_a_further_format_belongs_to_the_checksum_and_not_to_the_name(srcnn_card: ModelCard):
    """Scores and thresholds of a model go by its name, and the weights are the same."""
    more = {"onnx": {"u8.onnx": "0" * 64}}
    edited = srcnn_card.model_copy(update={"more_formats": more})
    assert not edited.intact
    assert edited.short_hash == srcnn_card.short_hash
    assert edited.formats == {"savedmodel": srcnn_card.files, **more}
    tiling = Tiling(mode="whole")
    geometry = srcnn_card.geometry.model_copy(update={"tiling": tiling})
    assert not srcnn_card.model_copy(update={"geometry": geometry}).intact


def test_a_format_that_was_edited_is_noticed(folder: Path):
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"format": "savedmodel"}))
    with pytest.raises(ModelMismatch, match="was edited"):
        read_card(folder)
